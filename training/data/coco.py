"""Data sets as a list of pictures: COCO JSON with its folder, or a folder of pictures without boxes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.errors import SourceError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """boxes_xyxy: (N, 4) float32 in pixels. labels: (N,) contiguous ids. crowd: (N,) bool. labelled: False where
    nobody looked for objects, so that no box does not mean no object."""

    key: str
    path: Path
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    labelled: bool


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures, and the classes their labels count."""

    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]


def load_coco(annotations: Path, images: Path | None = None) -> Dataset:
    """A COCO `instances` file; pictures lie in `images`, by default the folder beside it that bears its name.

    Classes are numbered by rising category id. Names that leave the folder raise SourceError, as does a file that is
    not COCO JSON.
    """
    folder = (images or annotations.with_suffix("")).resolve()
    try:
        data: dict[str, Any] = json.loads(annotations.read_text())
        categories = sorted(data["categories"], key=lambda c: c["id"])
        rows: dict[int, list[dict[str, Any]]] = {}
        for row in data["annotations"]:
            rows.setdefault(row["image_id"], []).append(row)
        index = {c["id"]: i for i, c in enumerate(categories)}
        pictures = tuple(_picture(folder, image, rows.get(image["id"], []), index) for image in data["images"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{annotations} is not a readable COCO file: {error!r}") from error
    return Dataset(pictures, tuple(c["name"] for c in categories), tuple(c["id"] for c in categories))


def _picture(folder: Path, image: dict[str, Any], rows: list[dict[str, Any]], index: dict[int, int]) -> Picture:
    path = (folder / image["file_name"]).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"file name {image['file_name']!r} leaves the folder {folder}")
    boxes = np.array([r["bbox"] for r in rows], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Picture(
        key=path.stem,
        path=path,
        boxes_xyxy=boxes,
        labels=np.array([index[r["category_id"]] for r in rows], dtype=np.int64),
        crowd=np.array([bool(r.get("iscrowd", 0)) for r in rows], dtype=bool),
        labelled=True,
    )


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
