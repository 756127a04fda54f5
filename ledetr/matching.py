"""Which detection found which box, at one overlap: the ground of confusion, error split and figures at a threshold.

The matches are pycocotools' own at IoU 0.5. D detections, G boxes, both in the order in which they were given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.cocoeval import COCOeval

from ledetr.boxes import xywh_to_xyxy
from ledetr.coco_file import CocoSet
from ledetr.evaluation import CocoRow

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """What became of each detection and of each box of a data set.

    names: of the classes, by place. images: how many pictures. image, label: (D,) int64 places among the data set's
    pictures and categories. score: (D,). boxes_xyxy: (D, 4) float64 pixels. truth: (D,) place of the box that a
    detection found, -1 for none. counted: (D,) False for what COCO leaves out: on a crowd, or beyond the 100 best of
    its class in its picture. truth_*: the same of the G boxes. truth_crowd: (G,) regions that nobody asks to find.
    """

    names: tuple[str, ...]
    images: int
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    boxes_xyxy: np.ndarray
    truth: np.ndarray
    counted: np.ndarray
    truth_image: np.ndarray
    truth_label: np.ndarray
    truth_boxes_xyxy: np.ndarray
    truth_crowd: np.ndarray

    @property
    def hit(self) -> np.ndarray:
        """(D,) whether a detection found a box of its own."""
        result: np.ndarray = self.truth >= 0
        return result

    def found(self, threshold: float = -np.inf) -> np.ndarray:
        """(G,) whether a detection of at least this score found the box."""
        found = np.zeros(len(self.truth_label), bool)
        found[self.truth[self.hit & (self.score >= threshold)]] = True
        return found

    def truths_of_classes(self) -> np.ndarray:
        """(K,) how many boxes each class has, crowds left out."""
        return np.bincount(self.truth_label[~self.truth_crowd], minlength=len(self.names))

    def pictures(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each picture the places of its detections and of its boxes."""
        steps = np.arange(self.images + 1)
        found, truths = np.argsort(self.image, kind="stable"), np.argsort(self.truth_image, kind="stable")
        found_at = np.searchsorted(self.image[found], steps)
        truth_at = np.searchsorted(self.truth_image[truths], steps)
        for i in range(self.images):
            yield found[found_at[i] : found_at[i + 1]], truths[truth_at[i] : truth_at[i + 1]]


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """Shares in 0..1 of the detections from a score on, at IoU 0.5; None where there was nothing to measure."""

    recall: float | None
    precision: float | None


def matching_of(data: CocoSet, rows: Sequence[CocoRow], evaluator: COCOeval) -> Matching:
    """The matches of an evaluation of these rows that run_coco() made."""
    image_at = {picture.image_id: place for place, picture in enumerate(data.pictures)}
    label_at = {category.category_id: place for place, category in enumerate(data.categories)}
    truth, counted = _matches(evaluator, len(rows))
    return Matching(
        names=tuple(category.name for category in data.categories),
        images=len(data.pictures),
        image=_places(image_at[row.image_id] for row in rows),
        label=_places(label_at[row.category_id] for row in rows),
        score=np.array([row.score for row in rows], np.float64),
        boxes_xyxy=xywh_to_xyxy(np.array([row.bbox for row in rows], np.float64).reshape(-1, 4)),
        truth=truth,
        counted=counted,
        truth_image=_places(image_at[truth.image_id] for truth in data.truths),
        truth_label=_places(label_at[truth.category_id] for truth in data.truths),
        truth_boxes_xyxy=xywh_to_xyxy(np.array([truth.bbox for truth in data.truths], np.float64).reshape(-1, 4)),
        truth_crowd=np.array([truth.crowd for truth in data.truths], bool),
    )


def at_threshold(matching: Matching, threshold: float) -> tuple[tuple[AtThreshold, ...], AtThreshold]:
    """Recall and precision of each class, and of all detections and boxes together."""
    classes = len(matching.names)
    shown = matching.counted & (matching.score >= threshold)
    guesses = np.bincount(matching.label[shown], minlength=classes)
    hits = np.bincount(matching.label[shown & matching.hit], minlength=classes)
    boxes = matching.truths_of_classes()
    each = tuple(AtThreshold(_share(h, b), _share(h, g)) for h, b, g in zip(hits, boxes, guesses, strict=True))
    return each, AtThreshold(_share(hits.sum(), boxes.sum()), _share(hits.sum(), guesses.sum()))


def _matches(evaluator: COCOeval, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(truth, counted) of Matching, from the cells for all sizes."""
    params = evaluator.params
    overlap = int(np.flatnonzero(np.isclose(params.iouThrs, MATCH_IOU))[0])
    truth, counted = np.full(rows, -1, np.int64), np.zeros(rows, bool)
    images, areas = len(params.imgIds), len(params.areaRng)
    for category in range(len(params.catIds)):
        start = category * areas * images
        for cell in evaluator.evalImgs[start : start + images]:
            if cell is None or not cell["dtIds"]:
                continue
            places = np.array(cell["dtIds"], np.int64) - 1
            counted[places] = ~cell["dtIgnore"][overlap].astype(bool)
            truth[places] = cell["dtMatches"][overlap].astype(np.int64) - 1  # pycocotools writes 0 for none
    truth[~counted] = -1
    return truth, counted


def _places(values: Iterator[int]) -> np.ndarray:
    return np.fromiter(values, np.int64)


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
