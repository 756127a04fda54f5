"""A CSV file with a line per object: picture, four corners in pixels, class."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from ledetr.coco_file import inside
from ledetr.errors import SourceError
from training.data.dataset import Box, Dataset, Draft, Problem, open_pictures

# What each column may be called, in lower case.
COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "path"),
    "x0": ("xmin", "x0", "x1", "left"),
    "y0": ("ymin", "y0", "y1", "top"),
    "x1": ("xmax", "x1", "x2", "right"),
    "y1": ("ymax", "y1", "y2", "bottom"),
    "class": ("class", "label", "name", "category"),
    "width": ("width",),
    "height": ("height",),
    "score": ("score", "confidence"),
    "crowd": ("crowd", "iscrowd", "ignore", "difficult"),
}
NEEDED = ("file", "x0", "y0", "x1", "y1", "class")


def read_table(path: Path, images: Path | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """A CSV with a header. Pictures are named from `images`, by default the CSV's folder.

    A line with a picture and nothing else is a picture without objects. class_names: default those that occur, sorted;
    category ids count from 1.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = _columns(path, [word.strip().lower() for word in next(reader, [])])
            rows = [(number, row) for number, row in enumerate(reader, 2) if any(cell.strip() for cell in row)]
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {str(path)!r}") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{str(path)!r} is no readable CSV file: {error}") from error
    folder = (images or path.parent).resolve()
    name_column = columns["class"]
    found = {row[name_column].strip() for _, row in rows if len(row) > name_column and row[name_column].strip()}
    names = tuple(class_names or sorted(found))
    if not names:
        raise SourceError(f"{str(path)!r} has no object in any of its lines")
    index = {name: label for label, name in enumerate(names)}
    drafts: dict[Path, Draft] = {}
    problems: list[Problem] = []
    for number, row in rows:
        problem = _add(drafts, index, path, folder, columns, row, number)
        if problem is not None:
            problems.append(problem)
    pictures, unreadable = open_pictures(list(drafts.values()), len(names))
    ids = tuple(range(1, len(names) + 1))
    return Dataset(pictures, names, ids, str(path), (*problems, *unreadable))


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    if {"x1", "y1", "x2", "y2"} <= set(header):  # "x1" is the left edge here, the right one beside an "x0"
        header = [{"x1": "xmin", "y1": "ymin", "x2": "xmax", "y2": "ymax"}.get(word, word) for word in header]
    columns: dict[str, int] = {}
    for key, words in COLUMNS.items():
        if key in ("x0", "y0"):
            words = tuple(word for word in words if word not in ("x1", "y1"))
        at = next((header.index(word) for word in words if word in header), None)
        if at is not None:
            columns[key] = at
    missing = [COLUMNS[key][0] for key in NEEDED if key not in columns]
    if missing:
        raise SourceError(
            f"{str(path)!r} line 1: the columns {', '.join(missing)} are missing; expected a header such as "
            "file,xmin,ymin,xmax,ymax,class"
        )
    return columns


def _add(
    drafts: dict[Path, Draft],
    index: dict[str, int],
    path: Path,
    folder: Path,
    columns: dict[str, int],
    row: list[str],
    number: int,
) -> Problem | None:
    where = f"{str(path)!r} line {number}"
    cells = {key: row[at].strip() if at < len(row) else "" for key, at in columns.items()}
    picture = inside(folder, cells["file"], named_by=path)
    size = (cells.get("height", ""), cells.get("width", ""))
    declared = (int(size[0]), int(size[1])) if all(s.isdecimal() and int(s) > 0 for s in size) else None
    if picture not in drafts:
        drafts[picture] = Draft(
            path=picture, key=picture.stem, image_id=len(drafts) + 1, source=str(path), declared_hw=declared
        )
    corners = [cells[key] for key in ("x0", "y0", "x1", "y1")]
    if not any(corners) and not cells["class"]:
        return None
    box = _box(corners)
    if box is None:
        return Problem("no box", f"{where}: expected four finite numbers as corners, got {', '.join(corners)!r}")
    if cells["class"] not in index:
        return Problem("unknown class", f"{where} has the class {cells['class']!r}, which is not among the classes")
    score = _number(cells.get("score") or "1")
    if score is None or not 0 <= score <= 1:
        return Problem("bad score", f"{where} has the score {cells['score']!r}, expected a number in 0..1")
    crowd = cells.get("crowd", "").lower() in ("1", "true", "yes")
    drafts[picture].add(box, index[cells["class"]], number, crowd=crowd, weight=score)
    return None


def _box(words: list[str]) -> Box | None:
    numbers = [_number(word) for word in words]
    x0, y0, x1, y1 = numbers
    return None if x0 is None or y0 is None or x1 is None or y1 is None else (x0, y0, x1, y1)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
