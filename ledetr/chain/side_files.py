"""Detections beside the pictures: JSON, JSON lines, CSV, COCO results and MOT; streamed, and whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ledetr.chain.output_files import choose_target, keep_partial, output_error, publish, reserve_part
from ledetr.detections import Detections
from ledetr.errors import OutputError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class SideHeader:
    """What holds for all pictures of a side file. source: for people, without passwords."""

    source: str
    model: str
    random_weights: bool
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PictureResult:
    """One picture. index: 0, 1, 2, ... in the order written. pts_s: its time in the source, None for a still.

    file: name of a still, else None. image_id: what COCO results call it.
    """

    index: int
    pts_s: float | None
    detections: Detections
    file: str | None = None
    image_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """index, pts_s, file where it is a still, detections."""
        row: dict[str, Any] = {"index": self.index, "pts_s": None if self.pts_s is None else round(self.pts_s, 6)}
        if self.file is not None:
            row["file"] = self.file
        return {**row, "detections": self.detections.to_json()}


class SideFile:
    """A file that takes one picture after the other; ends with exactly one of finish, keep_partial and abort.

    path: what it will be called (see choose_target). ending: what stands after the last picture. before: the file of
    an earlier run, and how many of its pictures hold.
    Raises OutputError when the disk refuses.
    """

    encoding = "utf-8"
    ending = ""

    def __init__(
        self,
        path: Path,
        header: SideHeader,
        *,
        overwrite: bool = False,
        sources: Sequence[Path] = (),
        before: tuple[Path, int] | None = None,
    ) -> None:
        self.path = choose_target(path, overwrite=overwrite, sources=sources)
        self._overwrite = overwrite
        self._published = False
        self._rows = 0
        self.part = reserve_part(self.path)
        self._file: TextIO = self.part.open("w", encoding=self.encoding, newline="")
        self._whole_bytes = 0
        with self._disk_errors():
            self._begin(header)
            if before is not None:
                self._go_on(*before)
            self._flush()

    def _go_on(self, old: Path, pictures: int) -> None:
        """Take over what an earlier run wrote of so many pictures."""
        try:
            with old.open(encoding=self.encoding, newline="") as file:
                held = self._take_over(file, pictures)
        except (OSError, ValueError, KeyError, IndexError):
            held = 0
        if held < pictures:
            self.abort()
            raise OutputError(
                f"{old.name} holds less than the video that it belongs to; run this once more without --resume."
            )

    def _take_over(self, file: TextIO, pictures: int) -> int:
        """Write the rows of the first pictures again; gives of how many pictures they were.

        Of 0, unless a kind of list says otherwise: it cannot be gone on with.
        """
        return 0

    def add(self, picture: PictureResult) -> None:
        """Write what was found in one picture."""
        with self._disk_errors():
            self._write(picture)
            self._flush()

    def finish(self) -> Path:
        """Complete the file and give it its name, which comes back."""
        with self._disk_errors():
            self._file.write(self.ending)
            self._file.close()
        self.path = publish(self.part, self.path, overwrite=self._overwrite)
        self._published = True
        return self.path

    def keep_partial(self) -> Path:
        """End early, well-formed, as `name.partial.ext`, which comes back. A finished file stays so."""
        if self._published:
            return self.path
        try:
            self._file.write(self.ending)
            self._file.close()
        except (OSError, ValueError):  # a full disk
            self._close_quietly()
            self._cut_to_whole_pictures()
        self.path = keep_partial(self.part, self.path)
        return self.path

    def abort(self) -> None:
        """Leave nothing behind."""
        self._close_quietly()
        self.part.unlink(missing_ok=True)

    def _flush(self) -> None:
        """After each picture, so that a kill loses none, and a full disk is noticed at the picture it cuts."""
        self._file.flush()
        self._whole_bytes = self.part.stat().st_size

    def _cut_to_whole_pictures(self) -> None:
        """What the disk took of one more picture gives way to the ending."""
        try:
            with self.part.open("r+b") as file:
                file.truncate(self._whole_bytes)
                file.seek(self._whole_bytes)
                file.write(self.ending.encode())
        except OSError:  # not even these bytes fit; the pictures before them can still be read
            return

    def _close_quietly(self) -> None:
        try:
            self._file.close()
        except OSError:  # the rest did not fit; the file is given up or kept as it is
            return

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise output_error(self.path, error) from error

    def _begin(self, header: SideHeader) -> None:
        """What stands before the first picture."""

    def _write(self, picture: PictureResult) -> None:
        raise NotImplementedError

    def _item(self, value: dict[str, Any]) -> None:
        """One item of a JSON list, each on its line."""
        self._file.write((",\n" if self._rows else "\n") + json.dumps(value, ensure_ascii=False, allow_nan=False))
        self._rows += 1


class JsonFile(SideFile):
    """One document: schema_version, source, model, random_weights, class_names, frames."""

    ending = "\n]}\n"

    def _begin(self, header: SideHeader) -> None:
        head = {
            "schema_version": SCHEMA_VERSION,
            "source": header.source,
            "model": header.model,
            "random_weights": header.random_weights,
            "class_names": list(header.class_names),
        }
        self._file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "frames": [')

    def _write(self, picture: PictureResult) -> None:
        self._item(picture.to_json())

    def _take_over(self, file: TextIO, pictures: int) -> int:
        for row in _items(file):
            if row["index"] < pictures:
                self._item(row)
        return min(self._rows, pictures)


class JsonLinesFile(SideFile):
    """One line a picture, the same as an item of "frames" in the JSON document."""

    def _write(self, picture: PictureResult) -> None:
        self._file.write(json.dumps(picture.to_json(), ensure_ascii=False, allow_nan=False) + "\n")

    def _take_over(self, file: TextIO, pictures: int) -> int:
        for line in islice(file, pictures):
            if json.loads(line)["index"] != self._rows:
                break
            self._file.write(line)
            self._rows += 1
        return self._rows


_CSV_COLUMNS = (
    "index", "pts_s", "file", "class_id", "class_name", "confidence", "x1", "y1", "x2", "y2", "tracker_id"
)  # fmt: skip


class CsvFile(SideFile):
    """One line a box; tracker_id is empty for a box of no track.

    UTF-8 with a mark at the start, so that spreadsheets read it as such.
    """

    encoding = "utf-8-sig"

    def _begin(self, header: SideHeader) -> None:
        self._csv = csv.writer(self._file)
        self._csv.writerow(_CSV_COLUMNS)

    def _write(self, picture: PictureResult) -> None:
        time = "" if picture.pts_s is None else f"{picture.pts_s:.6f}"
        place = (picture.index, time, _no_formula(picture.file or ""))
        for row in picture.detections.to_json():
            name = _no_formula(row["class_name"])
            track = row.get("tracker_id")
            end = ("" if track is None else track,)
            self._csv.writerow((*place, row["class_id"], name, row["confidence"], *row["xyxy"], *end))

    def _take_over(self, file: TextIO, pictures: int) -> int:
        rows = csv.reader(file)
        columns = len(next(rows, ()))
        for row in rows:
            if len(row) == columns and int(row[0]) < pictures:
                self._csv.writerow(row)
        return pictures  # pictures without boxes have no rows, so nothing can be missed here


class CocoFile(SideFile):
    """COCO results: a list of image_id, category_id, bbox, score; category ids are the data set's own."""

    ending = "\n]\n"

    def _begin(self, header: SideHeader) -> None:
        self._file.write("[")

    def _write(self, picture: PictureResult) -> None:
        for row in picture.detections.to_coco(picture.index if picture.image_id is None else picture.image_id):
            self._item(row)

    def _take_over(self, file: TextIO, pictures: int) -> int:
        for row in _items(file):
            if row["image_id"] < pictures:
                self._item(row)
        return pictures  # pictures without boxes have no rows, so nothing can be missed here


class MotFile(SideFile):
    """MOTChallenge text, one line a tracked box: frame, id, left, top, width, height, score, class, -1.

    Frames, ids and classes count from 1, pixels from 0. Boxes of no track are left out.
    """

    def _write(self, picture: PictureResult) -> None:
        found = picture.detections
        for row, box in enumerate(found.xywh.tolist()):
            track = found.track_of(row)
            if track is not None:
                place = ",".join(f"{value:.2f}" for value in box)
                score, label = float(found.confidence[row]), int(found.class_id[row])
                self._file.write(f"{picture.index + 1},{track},{place},{score:.4f},{label + 1},-1\n")


SIDE_FILES: dict[str, Callable[..., SideFile]] = {
    "json": JsonFile,
    "jsonl": JsonLinesFile,
    "csv": CsvFile,
    "coco": CocoFile,
    "mot": MotFile,
}
SIDE_FILE_ENDINGS = {"json": ".json", "jsonl": ".jsonl", "csv": ".csv", "coco": ".coco.json", "mot": ".mot.txt"}


def open_side_files(
    paths: Mapping[str, Path],
    header: SideHeader,
    *,
    overwrite: bool = False,
    sources: Sequence[Path] = (),
    before: Mapping[str, Path] | None = None,
    pictures: int = 0,
) -> dict[str, SideFile]:
    """One open file for each format of paths, a key of SIDE_FILES; all of them or, with the error, none.

    before: by format, what an earlier run wrote, of which the first pictures hold.
    """
    opened: dict[str, SideFile] = {}
    try:
        for kind, path in paths.items():
            old = (before[kind], pictures) if before else None
            opened[kind] = SIDE_FILES[kind](path, header, overwrite=overwrite, sources=sources, before=old)
    except BaseException:
        for side in opened.values():
            side.abort()
        raise
    return opened


def _items(file: TextIO) -> Iterator[dict[str, Any]]:
    """The items of a JSON list that _item wrote, up to one that was cut."""
    next(file, None)
    for line in file:
        try:
            row = json.loads(line.rstrip().removesuffix(","))
        except ValueError:  # the ending, or the item that was being written
            return
        yield row


def _no_formula(text: str) -> str:
    """A spreadsheet would run a cell that begins with one of these; a quote before it makes it text."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
