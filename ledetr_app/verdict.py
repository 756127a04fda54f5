"""Detections of one picture beside what a person drew there: who was found, who was missed, and what was made up.

The matches are those of `ledetr eval` at IoU 0.5, by the names of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ledetr.coco_file import CocoSet, Picture, read_coco
from ledetr.detections import Detections
from ledetr.errors import SourceError
from ledetr.evaluation import CocoRow, run_coco
from ledetr.matching import Matching, matching_of


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What became of N detections and G boxes of a picture, in the order in which they were given.

    hit: (N,) whether a detection found a box of its own. known: (N,) False where the annotations do not speak of its
    class, or leave it out (on a crowd). found_from: (G,) the score of the detection that found the box, -1 for none.
    truth_xyxy: (G, 4) float32 pixels of the picture. truth_names: of their classes.
    """

    hit: np.ndarray
    known: np.ndarray
    found_from: np.ndarray
    truth_xyxy: np.ndarray
    truth_names: tuple[str, ...]

    def found(self, conf: float) -> np.ndarray:
        """(G,) whether a detection with at least this score found the box."""
        return self.found_from >= conf


class Annotations:
    """A COCO file, ready to be asked about pictures. Raises SourceError where it is none."""

    def __init__(self, path: Path) -> None:
        self._data = read_coco(path)
        self.path = path
        self._by_name: dict[str, list[Picture]] = {}
        for picture in self._data.pictures:
            self._by_name.setdefault(picture.path.name, []).append(picture)

    def picture_of(self, path: Path) -> Picture | None:
        """The entry of a picture file: by its name, and by its folders where several have that name."""
        same = self._by_name.get(path.name, [])
        return max(same, key=lambda picture: _common_end(picture.path, path), default=None)

    def picture_at(self, index: int, count: int | None) -> Picture | None:
        """The entry of a video's frame, where the file has one for each of its `count` frames, by rising id."""
        return self._data.pictures[index] if count == len(self._data.pictures) and 0 <= index < count else None

    def judge(self, picture: Picture, detections: Detections) -> Verdict:
        """The matches in that picture."""
        categories = {category.name: category.category_id for category in self._data.categories}
        ids = [categories.get(name) for name in detections.class_names]
        rows, places = [], []
        for place, (box, score, class_id) in enumerate(zip(detections.xywh, *_columns(detections), strict=True)):
            category = ids[class_id] if class_id < len(ids) else None
            if category is not None:
                left, top, width, height = (float(value) for value in box)
                rows.append(CocoRow(picture.image_id, category, (left, top, width, height), float(score)))
                places.append(place)
        truths = tuple(t for t in self._data.truths if t.image_id == picture.image_id)
        alone = CocoSet(self._data.path, (picture,), self._data.categories, truths)
        return _verdict(matching_of(alone, rows, run_coco(alone, rows)), np.array(places, np.int64), len(detections))


def check_upright(path: Path) -> None:
    """Boxes of COCO are in pixels of the stored file; SourceError where the picture is shown turned."""
    try:
        with Image.open(path) as image:
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except OSError as error:
        raise SourceError(f"{path.name!r} cannot be read beside its annotations: {error}") from error
    if turn != 1:
        raise SourceError(
            f"{path.name!r} is stored turned (EXIF) and its annotations are for the stored picture; "
            "save it upright to compare."
        )


def _verdict(matching: Matching, places: np.ndarray, count: int) -> Verdict:
    hit, known = np.zeros(count, bool), np.zeros(count, bool)
    hit[places], known[places] = matching.hit, matching.counted
    asked = ~matching.truth_crowd
    found_from = np.full(len(matching.truth_label), -1.0)
    found_from[matching.truth[matching.hit]] = matching.score[matching.hit]
    return Verdict(
        hit=hit,
        known=known,
        found_from=found_from[asked],
        truth_xyxy=matching.truth_boxes_xyxy[asked].astype(np.float32),
        truth_names=tuple(matching.names[label] for label in matching.truth_label[asked]),
    )


def _columns(detections: Detections) -> tuple[list[float], list[int]]:
    return detections.confidence.tolist(), detections.class_id.tolist()


def _common_end(one: Path, other: Path) -> int:
    same = 0
    for a, b in zip(reversed(one.parts), reversed(other.parts), strict=False):
        if a != b:
            break
        same += 1
    return same
