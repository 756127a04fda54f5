"""A COCO data set from disk: its JSON checked at the door, its pictures found inside one folder and nowhere else."""

import json
import math
import stat
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from ledetr.errors import SourceError
from ledetr.pictures import read_picture

_MOST_JSON_BYTES = 1 << 30  # COCO's own largest has 470 MB
_MOST_SHOWN = 200
_MOST_LETTERS = 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """One entry of "images": its id, and where the file lies. The file need not exist yet."""

    image_id: int
    path: Path


@dataclass(frozen=True, slots=True)
class Category:
    """One entry of "categories", with the id the data set itself uses."""

    category_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Truth:
    """One box drawn by a person. bbox: left, top, width, height in pixels of the stored file. area in pixels."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    crowd: bool


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Pictures by rising id, categories by rising id, boxes in the order of the file."""

    path: Path
    pictures: tuple[Picture, ...]
    categories: tuple[Category, ...]
    truths: tuple[Truth, ...]

    def first(self, count: int) -> "CocoSet":
        """The same data set with only its first pictures and their boxes."""
        pictures = self.pictures[:count]
        kept = {picture.image_id for picture in pictures}
        return CocoSet(self.path, pictures, self.categories, tuple(t for t in self.truths if t.image_id in kept))


def read_coco(path: Path, images: Path | None = None) -> CocoSet:
    """The data set of a COCO `instances` JSON.

    images: the folder of the pictures; by default the folder beside the JSON that bears its name. Raises SourceError
    where the file is not such a JSON, an entry is damaged, or a picture's name leads out of the folder.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise SourceError(
            f"{str(path)!r} is not a COCO data set: its top level is no table with images and annotations"
        )
    folder = path.with_suffix("") if images is None else images
    pictures = tuple(_picture(path, folder, row) for row in _rows(path, content, "images"))
    categories = tuple(_category(path, row) for row in _rows(path, content, "categories"))
    _refuse_doubles(path, "images", [picture.image_id for picture in pictures])
    _refuse_doubles(path, "categories", [category.category_id for category in categories])
    image_ids = {picture.image_id for picture in pictures}
    category_ids = {category.category_id for category in categories}
    truths = tuple(_truth(path, row, image_ids, category_ids) for row in _rows(path, content, "annotations"))
    return CocoSet(
        path=path,
        pictures=tuple(sorted(pictures, key=lambda picture: picture.image_id)),
        categories=tuple(sorted(categories, key=lambda category: category.category_id)),
        truths=truths,
    )


def read_json(path: Path) -> Any:
    """What a JSON file holds; SourceError where it is missing, unreadable or no JSON."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_JSON_BYTES:
            what = "larger than 1 GiB" if stat.S_ISREG(status.st_mode) else "no ordinary file"
            raise SourceError(f"{str(path)!r} is {what}, and a JSON file was expected")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {str(path)!r}") from error
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{str(path)!r} is not valid JSON: {error}") from error


def inside(folder: Path, name: str, *, named_by: Path) -> Path:
    """folder/name, which must stay inside the folder, also through links; SourceError names the file that said so."""
    shown = repr(name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}...")
    windows = PureWindowsPath(name)
    path = folder / name
    too_long = len(name) > _MOST_LETTERS or any(len(part.encode(errors="replace")) > 255 for part in windows.parts)
    leads_out = windows.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in name
    try:
        if too_long:
            raise OSError("too long")
        is_inside = bool(name) and not leads_out and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a ring, or half a letter
        raise SourceError(f"{str(named_by)!r} names the picture {shown}, which is no name of a file here") from error
    if not is_inside:
        raise SourceError(f"{str(named_by)!r} names the picture {shown}, which is not inside {str(folder)!r}; refused")
    return path


def read_stored(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB as stored: COCO boxes are in pixels of the file, so no EXIF turn is applied."""
    if not path.exists():
        raise SourceError(f"there is no picture {str(path)!r}; is --images the right folder?")
    return read_picture(path, upright=False)


def _rows(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{str(path)!r} is not a COCO data set: {key!r} is no list of tables")
    return rows


def _picture(path: Path, folder: Path, row: dict[str, Any]) -> Picture:
    name = row.get("file_name")
    if not isinstance(name, str):
        raise SourceError(f"{str(path)!r}: the picture with id {row.get('id')!r} has no file_name")
    return Picture(_whole(path, "images", row, "id"), inside(folder, name, named_by=path))


def _category(path: Path, row: dict[str, Any]) -> Category:
    name = row.get("name")
    if not isinstance(name, str) or not name:
        raise SourceError(f"{str(path)!r}: the category with id {row.get('id')!r} has no name")
    return Category(_whole(path, "categories", row, "id"), name)


def _truth(path: Path, row: dict[str, Any], image_ids: set[int], category_ids: set[int]) -> Truth:
    image_id = _whole(path, "annotations", row, "image_id")
    category_id = _whole(path, "annotations", row, "category_id")
    if image_id not in image_ids or category_id not in category_ids:
        raise SourceError(
            f"{str(path)!r}: an annotation names picture {image_id} and category {category_id}; one is not there"
        )
    bbox = four_numbers(row.get("bbox"))
    if bbox is None or min(bbox[2:]) < 0:
        raise SourceError(f"{str(path)!r}: an annotation of picture {image_id} has the bbox {row.get('bbox')!r}")
    area = row.get("area")
    if not isinstance(area, int | float) or not math.isfinite(area):
        area = bbox[2] * bbox[3]
    return Truth(image_id, category_id, bbox, float(area), bool(row.get("iscrowd", 0)))


def four_numbers(value: Any) -> tuple[float, float, float, float] | None:
    """A list of four finite numbers as floats; None for anything else."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(type(number) in (int, float) and math.isfinite(number) for number in value):
        return None
    return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))


def _whole(path: Path, where: str, row: dict[str, Any], key: str) -> int:
    value = row.get(key)
    if type(value) is not int:
        raise SourceError(f"{str(path)!r}: an entry of {where!r} has the {key} {value!r}, expected a whole number")
    return value


def _refuse_doubles(path: Path, where: str, ids: list[int]) -> None:
    if len(set(ids)) != len(ids):
        double = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise SourceError(f"{str(path)!r} holds the id {double} twice in {where!r}")
