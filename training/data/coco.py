"""COCO JSON with its folder of pictures, folders without boxes, and the split that every run draws alike."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.coco_file import four_numbers, inside, read_json
from ledetr.errors import SourceError
from training.data.dataset import IMAGE_SUFFIXES, Dataset, Draft, Picture, Problem, open_pictures

__all__ = ["Dataset", "Picture", "coco_drafts", "load_coco", "load_unlabelled", "read_coco", "split_tune"]

Classes = tuple[tuple[str, ...], tuple[int, ...]]
"""Names and category ids."""


def load_coco(annotations: Path, images: Path | None = None) -> Dataset:
    """A COCO `instances` file, its pictures not opened and its boxes not looked at.

    Pictures lie in `images`, by default the folder beside the file that bears its name. Classes are numbered by rising
    category id. Names that leave the folder raise SourceError, as does a file or an entry that is not COCO's.
    """
    drafts, (names, ids), problems = coco_drafts(annotations, images or annotations.with_suffix(""))
    pictures = tuple(draft.picture(len(names)) for draft in drafts)
    return Dataset(pictures, names, ids, str(annotations), tuple(problems)).raise_errors()


def read_coco(annotations: Path, images: Path | None = None) -> Dataset:
    """The same with sizes and turns from the pictures' headers, and with faulty entries listed instead of raised.

    Without `images` the pictures are sought in the folder that bears the file's name, then in `images` beside it, then
    in the file's own folder.
    """
    drafts, (names, ids), problems = coco_drafts(annotations, images or _folder_of_pictures(annotations))
    pictures, unreadable = open_pictures(drafts, len(names))
    return Dataset(pictures, names, ids, str(annotations), (*problems, *unreadable))


def _folder_of_pictures(annotations: Path) -> Path:
    folders = (annotations.with_suffix(""), annotations.parent / "images", annotations.parent)
    return next((folder for folder in folders if folder.is_dir()), annotations.parent)


def coco_drafts(annotations: Path, folder: Path) -> tuple[list[Draft], Classes, list[Problem]]:
    """Pictures in the order of the file, classes by rising id, and the entries that make no sense."""
    data = read_json(annotations)
    if not isinstance(data, dict):
        raise SourceError(f"{str(annotations)!r} is no COCO data set: it is no table with images and annotations")
    images, rows, categories = (_tables(annotations, data, key) for key in ("images", "annotations", "categories"))
    names = _categories(annotations, categories)
    index = {category_id: label for label, category_id in enumerate(names)}
    drafts: dict[int, Draft] = {}
    for number, image in enumerate(images, 1):
        draft = _draft(annotations, folder.resolve(), image, number, index)
        if draft.image_id in drafts:
            raise SourceError(f"{str(annotations)!r} has the picture id {draft.image_id} twice")
        drafts[draft.image_id] = draft
    problems = [p for number, row in enumerate(rows, 1) if (p := _add(drafts, index, annotations, row, number))]
    return list(drafts.values()), (tuple(names.values()), tuple(names)), problems


def _tables(path: Path, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = data.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{str(path)!r} is no COCO data set: {key!r} is no list of tables")
    return rows


def _categories(path: Path, rows: Sequence[dict[str, Any]]) -> dict[int, str]:
    """Name by id, by rising id."""
    names: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        category_id, name = row.get("id"), row.get("name")
        if type(category_id) is not int or not isinstance(name, str) or not name.strip():
            raise SourceError(f"{str(path)!r} category {number}: expected a whole number as id and a name")
        if category_id in names:
            raise SourceError(f"{str(path)!r} has the category id {category_id} twice")
        names[category_id] = name
    if not names:
        raise SourceError(f"{str(path)!r} has no categories, so there is nothing to learn")
    return dict(sorted(names.items()))


def _draft(path: Path, folder: Path, image: dict[str, Any], number: int, index: dict[int, int]) -> Draft:
    name, image_id = image.get("file_name"), image.get("id")
    if not isinstance(name, str) or type(image_id) is not int:
        raise SourceError(f"{str(path)!r} image {number}: expected a whole number as id and a text as file_name")
    height, width = image.get("height"), image.get("width")
    declared = (height, width) if type(height) is int and type(width) is int else None
    # our own word: which turn the boxes do not know of
    orientation = image.get("exif_orientation")
    if orientation is not None and (type(orientation) is not int or not 1 <= orientation <= 8):
        raise SourceError(f"{str(path)!r} image {number}: expected exif_orientation in 1..8, got {orientation!r}")
    # LVIS's word for classes of which not every object has a box.
    incomplete = image.get("not_exhaustive_category_ids") or []
    found = inside(folder, name, named_by=path)
    return Draft(
        path=found,
        key=found.stem,
        image_id=image_id,
        source=str(path),
        declared_hw=declared,
        stored_orientation=orientation,
        not_annotated=[index[i] for i in incomplete if i in index],
    )


def _add(
    drafts: dict[int, Draft], index: dict[int, int], path: Path, row: dict[str, Any], number: int
) -> Problem | None:
    """Put one annotation where it belongs, or say why not."""
    where = f"{str(path)!r} annotation {number}"
    image_id, category_id, box = row.get("image_id"), row.get("category_id"), four_numbers(row.get("bbox"))
    if type(category_id) is not int or category_id not in index:
        known = ", ".join(str(i) for i in list(index)[:8]) + (", ..." if len(index) > 8 else "")
        return Problem("unknown class", f"{where} has the category {category_id!r}; the file knows {known}")
    if type(image_id) is not int or image_id not in drafts:
        return Problem("unknown picture", f"{where} belongs to the picture {image_id!r}, which the file does not have")
    if box is None:
        return Problem("no box", f"{where} has the bbox {row.get('bbox')!r}, expected four finite numbers")
    score = row.get("score", 1.0)
    if type(score) not in (int, float) or not (math.isfinite(score) and 0 <= score <= 1):
        return Problem("bad score", f"{where} has the score {score!r}, expected a number in 0..1")
    left, top, width, height = box
    drafts[image_id].add(
        (left, top, left + width, top + height),
        index[category_id],
        number,
        crowd=bool(row.get("iscrowd", 0) or row.get("ignore", 0)),
        weight=float(score),
    )
    return None


def load_unlabelled(folder: Path) -> tuple[Picture, ...]:
    """Every picture of a folder, without boxes, in name order."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder of pictures")
    none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return tuple(Picture(p.stem, p, *none, labelled=False) for p in paths)


def split_tune(pictures: Sequence[Picture], one_in: int = 11) -> tuple[list[Picture], list[Picture]]:
    """(train, tune) by a hash of each picture's name, so that every machine and run draws the same line."""

    def is_tune(picture: Picture) -> bool:
        return int(hashlib.sha256(picture.key.encode()).hexdigest(), 16) % one_in == 0

    return [p for p in pictures if not is_tune(p)], [p for p in pictures if is_tune(p)]
