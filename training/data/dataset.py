"""One index for every format: pictures with their boxes, and what was wrong with the rows that are not among them.

Boxes are in pixels of the upright picture (EXIF turn applied), which is what a detector gets to see in use.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from ledetr.errors import SourceError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
READER_THREADS = 4
_ORIENTATION_TAG = 0x0112

Box = tuple[float, float, float, float]
Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is odd about a data set. kind: a few words to count by; text: one sentence with file and row."""

    kind: str
    text: str
    level: Level = "error"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """boxes_xyxy: (N, 4) float32 in pixels. labels: (N,) contiguous ids. crowd: (N,) bool, regions to ignore.
    labelled: False where nobody looked for objects, so that no box does not mean no object."""

    key: str
    path: Path
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    labelled: bool
    image_id: int = 0
    """The data set's own id, or its number from 1."""
    size_hw: tuple[int, int] | None = None
    """Of the upright picture; None where the file was not opened."""
    orientation: int = 1
    """EXIF orientation of the file, 1 for upright."""
    weight: np.ndarray | None = None
    """(N,) float32 scores of soft labels; None: all 1."""
    annotated: np.ndarray | None = None
    """(C,) bool: False for classes that nobody looked for in this picture; None: all were looked for."""
    source: str = ""
    """The file that holds the boxes."""
    rows: np.ndarray | None = None
    """(N,) number of each box's line or entry in the source, from 1."""

    def where(self, box: int) -> str:
        """File and row of a box, for messages."""
        return repr(self.source) if self.rows is None else f"{self.source!r} row {int(self.rows[box])}"

    def weights(self) -> np.ndarray:
        """(N,) float32 what each box counts."""
        return np.ones(len(self.labels), np.float32) if self.weight is None else self.weight

    def keep(self, kept: np.ndarray, boxes_xyxy: np.ndarray | None = None) -> "Picture":
        """The same picture with only these boxes, moved where new ones are given. kept: (N,) bool."""
        boxes = self.boxes_xyxy if boxes_xyxy is None else boxes_xyxy
        return replace(
            self,
            boxes_xyxy=boxes[kept],
            labels=self.labels[kept],
            crowd=self.crowd[kept],
            weight=None if self.weight is None else self.weight[kept],
            rows=None if self.rows is None else self.rows[kept],
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures, and the classes their labels count. problems: rows that could not be taken, and other oddities."""

    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    name: str = ""
    problems: tuple[Problem, ...] = ()

    def raise_errors(self) -> "Dataset":
        """Itself; SourceError with the first error, and how many more there are."""
        errors = [problem for problem in self.problems if problem.level == "error"]
        if errors:
            more = f" (and {len(errors) - 1} more: ledetr check-data lists them)" if len(errors) > 1 else ""
            raise SourceError(errors[0].text + more)
        return self


@dataclass(slots=True)
class Draft:
    """One picture while its description is read; boxes as the file has them."""

    path: Path
    key: str
    image_id: int
    source: str
    declared_hw: tuple[int, int] | None = None
    relative: bool = False
    """Boxes are in 0..1 of the upright picture instead of in pixels."""
    stored_orientation: int | None = None
    """Boxes are of the stored picture, which had this EXIF orientation; None: the declared size tells."""
    not_annotated: Sequence[int] = ()
    boxes: list[Box] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add(self, box_xyxy: Box, label: int, row: int, *, crowd: bool = False, weight: float = 1.0) -> None:
        """One object."""
        self.boxes.append(box_xyxy)
        self.labels.append(label)
        self.rows.append(row)
        self.crowd.append(crowd)
        self.weight.append(weight)

    def picture(self, classes: int) -> Picture:
        """The picture as described, its file not opened."""
        annotated = None
        if self.not_annotated:
            annotated = np.ones(classes, bool)
            annotated[list(self.not_annotated)] = False
        weight = np.array(self.weight, np.float32)
        return Picture(
            key=self.key,
            path=self.path,
            boxes_xyxy=np.array(self.boxes, np.float32).reshape(-1, 4),
            labels=np.array(self.labels, np.int64),
            crowd=np.array(self.crowd, bool),
            labelled=True,
            image_id=self.image_id,
            weight=None if (weight == 1).all() else weight,
            annotated=annotated,
            source=self.source,
            rows=np.array(self.rows, np.int64),
        )


def open_pictures(drafts: Sequence[Draft], classes: int) -> tuple[tuple[Picture, ...], list[Problem]]:
    """Every picture with its size and turn from the file's header; those that cannot be opened become problems."""

    def open_one(draft: Draft) -> tuple[Picture | None, list[Problem]]:
        return _opened(draft, classes)

    opened = in_threads(open_one, drafts)
    pictures = tuple(picture for picture, _ in opened if picture is not None)
    return pictures, [problem for _, problems in opened for problem in problems]


def in_threads(work: Callable, items: Iterable) -> list:  # type: ignore[type-arg]
    """work of each item, in order, on a few threads: decoders and disks let others run meanwhile."""
    with ThreadPoolExecutor(min(READER_THREADS, os.cpu_count() or 1), thread_name_prefix="pictures") as pool:
        return list(pool.map(work, items))


def _opened(draft: Draft, classes: int) -> tuple[Picture | None, list[Problem]]:
    try:
        stored_hw, orientation = read_size(draft.path)
    except SourceError as error:
        return None, [Problem("unreadable picture", str(error))]
    turned = orientation >= 5
    size_hw = (stored_hw[1], stored_hw[0]) if turned else stored_hw
    picture = replace(draft.picture(classes), size_hw=size_hw, orientation=orientation)
    if draft.relative:
        scale = np.array([size_hw[1], size_hw[0]] * 2, np.float32)
        return replace(picture, boxes_xyxy=picture.boxes_xyxy * scale), []
    if draft.stored_orientation not in (None, orientation):
        text = (
            f"{draft.source!r} has boxes of {draft.path.name!r} with the EXIF orientation {draft.stored_orientation}, "
            f"the file has {orientation}; was the picture turned after it was labelled?"
        )
        return picture, [Problem("turn differs", text)]
    declared_hw = draft.declared_hw
    if draft.stored_orientation is not None:
        of_stored = declared_hw in (None, stored_hw)
    else:
        of_stored = turned and declared_hw == stored_hw != size_hw
    if of_stored:
        boxes = upright_boxes(picture.boxes_xyxy, stored_hw, orientation)
        return replace(picture, boxes_xyxy=boxes), []
    if declared_hw is None or declared_hw == size_hw:
        return picture, []
    height, width = declared_hw
    text = (
        f"{draft.source!r} says that {draft.path.name!r} has {width} x {height} pixels, the file has "
        f"{stored_hw[1]} x {stored_hw[0]}; were the pictures resized after they were labelled?"
    )
    return picture, [Problem("size differs", text)]


def read_size(path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) as stored and the EXIF orientation 1..8, from the header; SourceError if it cannot be read."""
    try:
        with Image.open(path) as image:
            orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
            size_hw = (image.height, image.width)
    except FileNotFoundError as error:
        raise SourceError(f"there is no picture {str(path)!r}") from error
    except UnidentifiedImageError as error:
        raise SourceError(f"{str(path)!r} is no picture that can be read") from error
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise SourceError(f"{str(path)!r} cannot be read as a picture: {error}") from error
    return size_hw, orientation if 1 <= orientation <= 8 else 1


def upright_boxes(boxes_xyxy: np.ndarray, stored_hw: tuple[int, int], orientation: int) -> np.ndarray:
    """Boxes in pixels of the stored picture, moved with it when it is turned upright. Any order of corners is kept."""
    height, width = stored_hw
    x0, y0, x1, y1 = boxes_xyxy.T
    turned = {
        1: (x0, y0, x1, y1),
        2: (width - x1, y0, width - x0, y1),
        3: (width - x1, height - y1, width - x0, height - y0),
        4: (x0, height - y1, x1, height - y0),
        5: (y0, x0, y1, x1),
        6: (height - y1, x0, height - y0, x1),
        7: (height - y1, width - x1, height - y0, width - x0),
        8: (y0, width - x1, y1, width - x0),
    }[orientation]
    return np.stack(turned, -1).astype(np.float32).reshape(-1, 4)


def stored_boxes(boxes_xyxy: np.ndarray, upright_hw: tuple[int, int], orientation: int) -> np.ndarray:
    """The way back: boxes in pixels of the upright picture, moved to where they are in the stored one."""
    back = {6: 8, 8: 6}.get(orientation, orientation)  # quarter turns undo each other, the others themselves
    return upright_boxes(boxes_xyxy, upright_hw, back)


def stored_size(upright_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of the stored picture."""
    return (upright_hw[1], upright_hw[0]) if orientation >= 5 else upright_hw
