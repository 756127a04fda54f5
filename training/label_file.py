"""Labels that detectors made, on disk: a line for each picture while they are made, a COCO file at the end.

The part file begins with a line that says what is being done; a run that goes on must say the same. Each further line
is one picture. A last line that was cut by a kill is dropped and its picture is labelled again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ledetr.detections import Detections
from ledetr.errors import OutputError, UsageError
from ledetr.files import whole_file
from training.data.dataset import stored_boxes, stored_size

PART_SUFFIX = ".part.jsonl"
BOX_DECIMALS = 2
SCORE_DECIMALS = 5

Row = tuple[float, float, float, float, int, float]
"""Left, top, right, bottom in pixels of the stored picture, class, score."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture: its name from the folder of the pictures, its size as stored, its boxes, best score first, and the
    EXIF orientation that a viewer turns it by."""

    file_name: str
    size_hw: tuple[int, int]
    rows: tuple[Row, ...]
    orientation: int = 1

    @classmethod
    def of(cls, file_name: str, upright_hw: tuple[int, int], found: Detections, orientation: int = 1) -> "Labelled":
        """What was found in the upright picture, in pixels of the stored one, rounded as it will be written; boxes
        without an area after that are left out."""
        boxes = stored_boxes(found.xyxy, upright_hw, orientation).astype(np.float64).round(BOX_DECIMALS).tolist()
        scores = found.confidence.astype(np.float64).round(SCORE_DECIMALS).tolist()
        rows = [(*box, label, score) for box, label, score in zip(boxes, found.class_id.tolist(), scores, strict=True)]
        kept = tuple(row for row in rows if row[2] > row[0] and row[3] > row[1])
        return cls(file_name, stored_size(upright_hw, orientation), kept, orientation)

    def to_line(self) -> str:
        """One line of the part file."""
        turned = {} if self.orientation == 1 else {"orientation": self.orientation}
        return json.dumps({"file": self.file_name, "size_hw": self.size_hw, "rows": self.rows, **turned}) + "\n"


class PartFile:
    """The open part file. done: what it held when it was opened, by name of the picture."""

    def __init__(self, path: Path, job: Mapping[str, Any], *, resume: bool) -> None:
        """path: of the final file. job: plain values that decide what is written, "classes" among them.

        resume: go on where a run was left. UsageError where a part file is there and resume is not asked for, or where
        it is of another job; OutputError where it cannot be read or written.
        """
        self.path = path.with_name(path.name + PART_SUFFIX)
        self.done: dict[str, Labelled] = {}
        self._classes = len(job["classes"])
        header = json.dumps(job, sort_keys=True) + "\n"
        try:
            if self.path.exists():
                if not resume:
                    raise UsageError(f"{str(self.path)!r} is of an unfinished run; go on with --resume, or delete it")
                self._file: IO[str] = self._reopened(header)
            else:
                self._file = self.path.open("x", encoding="utf-8", newline="\n")
                self._write(header)
        except OSError as error:
            raise OutputError(f"{str(self.path)!r} cannot be written: {error.strerror or error}") from error

    def _reopened(self, header: str) -> IO[str]:
        """Open behind the last whole line, everything before it read."""
        lines = self.path.read_bytes().split(b"\n")[:-1]  # behind the last line end stands nothing, or a cut line
        whole = sum(len(line) + 1 for line in lines)
        if lines:
            self._check_job(lines[0], header)
            for number, line in enumerate(lines[1:], 2):
                labelled = self._read(line, number)
                self.done[labelled.file_name] = labelled
        file = self.path.open("r+", encoding="utf-8", newline="\n")
        file.truncate(whole)
        file.seek(whole)
        if not lines:
            file.write(header)
        return file

    def _check_job(self, line: bytes, header: str) -> None:
        asked = json.loads(header)
        try:
            begun = json.loads(line)
            differing = [key for key in asked if begun.get(key) != asked[key]]
        except (ValueError, AttributeError, RecursionError) as error:
            raise self._damaged(1) from error
        if differing:
            raise UsageError(
                f"{str(self.path)!r} was begun with other {', '.join(differing)}; give the same as then, or delete it"
            )

    def _read(self, line: bytes, number: int) -> Labelled:
        try:
            entry = json.loads(line)
            height, width = (int(side) for side in entry["size_hw"])
            rows = tuple(
                (float(x0), float(y0), float(x1), float(y1), int(label), float(score))
                for x0, y0, x1, y1, label, score in entry["rows"]
            )
            fit = all(0 <= row[4] < self._classes and np.isfinite(row).all() for row in rows)
            orientation = int(entry.get("orientation", 1))
            if fit and isinstance(entry["file"], str):
                return Labelled(entry["file"], (height, width), rows, orientation)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(number) from error
        raise self._damaged(number)

    def _damaged(self, number: int) -> OutputError:
        return OutputError(f"{str(self.path)!r} line {number} is damaged; delete the file and begin anew")

    def add(self, labelled: Labelled) -> None:
        """Append one picture; it survives the end of this process. OutputError where the disk takes no more."""
        try:
            self._write(labelled.to_line())
        except OSError as error:
            raise OutputError(f"{str(self.path)!r} cannot be written: {error.strerror or error}") from error
        self.done[labelled.file_name] = labelled

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def remove(self) -> None:
        """Its work is done."""
        self.close()
        self.path.unlink()

    def close(self) -> None:
        """Keep it for a later run; legal more than once."""
        self._file.close()

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_labels(
    path: Path,
    pictures: Iterable[Labelled],
    class_names: Sequence[str],
    category_ids: Sequence[int],
    info: Mapping[str, Any],
    *,
    scores: bool,
) -> None:
    """The COCO file, whole or not at all. scores: False leaves them out. The same input gives the same bytes."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, 1):
        height, width = picture.size_hw
        turned = {} if picture.orientation == 1 else {"exif_orientation": picture.orientation}
        images.append({"id": image_id, "file_name": picture.file_name, "height": height, "width": width, **turned})
        annotations += [
            _annotation(row, len(annotations) + place, image_id, category_ids, scores=scores)
            for place, row in enumerate(picture.rows, 1)
        ]
    content = {
        "info": dict(info),
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in zip(category_ids, class_names, strict=True)],
        "annotations": annotations,
    }
    try:
        with whole_file(path) as part:
            part.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error


def _annotation(
    row: Row, annotation_id: int, image_id: int, category_ids: Sequence[int], *, scores: bool
) -> dict[str, Any]:
    x0, y0, x1, y1, label, score = row
    width, height = round(x1 - x0, BOX_DECIMALS), round(y1 - y0, BOX_DECIMALS)
    annotation = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_ids[label],
        "bbox": [x0, y0, width, height],
        "area": round(width * height, BOX_DECIMALS),
        "iscrowd": 0,
    }
    return annotation | ({"score": score} if scores else {})
