"""Detections that another program, or another run, wrote to a file: read for a data set, each entry checked.

Two forms are known: COCO's results, a list of image_id, category_id, bbox and score; and labels as COCO writes a data
set, with images and categories of their own, whose annotations carry a score.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ledetr.coco_file import CocoSet, Picture, four_numbers, read_json
from ledetr.errors import SourceError
from ledetr.evaluation import CocoRow


def read_predictions(path: Path, data: CocoSet) -> list[CocoRow]:
    """The detections of a file, with the ids of the data set; those on pictures that it does not have are left out.

    A list of results speaks of the data set's own ids. A labels file has ids of its own: its pictures are known by
    their file names, its classes by their names, and classes that the data set does not have are left out. Raises
    SourceError for another form, a damaged entry, or a file in which nothing belongs to this data set.
    """
    content = read_json(path)
    if isinstance(content, dict):
        return _of_labels(path, content, data)
    if not isinstance(content, list):
        raise SourceError(
            f"{str(path)!r} is no COCO results file: its top level is neither a list of detections nor a labels file"
        )
    return _of_results(path, content, data)


def _of_results(path: Path, content: Sequence[Any], data: CocoSet) -> list[CocoRow]:
    images = {picture.image_id for picture in data.pictures}
    categories = {category.category_id for category in data.categories}
    rows = [_checked_row(path, row, number) for number, row in enumerate(content)]
    strange = next((row for row in rows if row.category_id not in categories), None)
    if strange is not None:
        raise SourceError(f"{str(path)!r} has the category {strange.category_id}, unknown to {str(data.path)!r}")
    if rows and not any(row.image_id in images for row in rows):
        raise SourceError(f"{str(path)!r} has no picture of {str(data.path)!r}: was it made for another data set?")
    return [row for row in rows if row.image_id in images]


def _of_labels(path: Path, content: Mapping[str, Any], data: CocoSet) -> list[CocoRow]:
    """The file's ids are replaced by those of the data set, through the names."""
    picture_of = _by_file_name(data.pictures)
    image_ids = {
        number: _same_picture(name, picture_of) for number, name in _names(path, content, "images", "file_name").items()
    }
    by_name = {category.name.casefold(): category.category_id for category in data.categories}
    category_ids = {
        number: by_name.get(name.casefold()) for number, name in _names(path, content, "categories", "name").items()
    }
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        raise SourceError(f"{str(path)!r} is no labels file: 'annotations' is no list")
    rows = []
    for number, row in enumerate(_checked_row(path, entry, number) for number, entry in enumerate(annotations)):
        if row.image_id not in image_ids or row.category_id not in category_ids:
            raise SourceError(
                f"{str(path)!r}: entry {number} names picture {row.image_id} and category {row.category_id}; one of "
                "them is not in the file"
            )
        image_id, category_id = image_ids[row.image_id], category_ids[row.category_id]
        if image_id is not None and category_id is not None:
            rows.append(CocoRow(image_id, category_id, row.bbox, row.score))
    if annotations and not any(image_id is not None for image_id in image_ids.values()):
        raise SourceError(f"{str(path)!r} has no picture of {str(data.path)!r}: was it made for another data set?")
    if annotations and not any(category_id is not None for category_id in category_ids.values()):
        raise SourceError(f"{str(path)!r} has no class of {str(data.path)!r}; classes are known by their names")
    return rows


def _names(path: Path, content: Mapping[str, Any], key: str, name_key: str) -> dict[int, str]:
    """The entries of "images" or "categories" by their ids."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise SourceError(f"{str(path)!r} is no labels file: {key!r} is no list")
    names: dict[int, str] = {}
    for number, entry in enumerate(entries):
        fit = isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get(name_key), str)
        if not fit or entry["id"] in names:
            raise SourceError(
                f"{str(path)!r}: entry {number} of {key!r} needs an id of its own, a whole number, and a {name_key}"
            )
        names[entry["id"]] = entry[name_key]
    return names


def _by_file_name(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = {}
    for picture in pictures:
        found.setdefault(picture.path.name, []).append(picture)
    return found


def _same_picture(name: str, pictures: Mapping[str, Sequence[Picture]]) -> int | None:
    """The picture with this file name; where several folders have one, that whose path ends like the name."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    candidates = pictures.get(parts[-1], ()) if parts else ()
    if len(candidates) > 1:
        candidates = [picture for picture in candidates if picture.path.parts[-len(parts) :] == parts]
    return candidates[0].image_id if len(candidates) == 1 else None


def _checked_row(path: Path, row: Any, number: int) -> CocoRow:
    bbox = four_numbers(row.get("bbox")) if isinstance(row, dict) else None
    if bbox is None or min(bbox[2:]) < 0:
        raise SourceError(f"{str(path)!r}: entry {number} has no bbox of four finite numbers, width and height from 0")
    value = row.get("score")
    if type(row.get("image_id")) is not int or type(row.get("category_id")) is not int:
        raise SourceError(f"{str(path)!r}: entry {number} lacks a whole number as image_id or category_id")
    if type(value) not in (int, float) or not math.isfinite(value):
        raise SourceError(f"{str(path)!r}: entry {number} has the score {value!r}, expected a finite number")
    return CocoRow(row["image_id"], row["category_id"], bbox, float(value))
