"""COCO average precision of any detector, with an interval that says how far a figure can be trusted.

The figures are those of pycocotools. T thresholds of overlap, K categories, I pictures, D detections, R resamples.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ledetr.coco_file import Category, CocoSet, read_stored
from ledetr.detections import Detections
from ledetr.errors import SourceError

DETECTIONS_PER_PICTURE = 100
# COCO's summary in the order of COCOeval.stats.
FIGURES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
RECALL_STEPS = np.linspace(0, 1, 101)
CURVE_OVERLAPS = {"0.50": 0, "0.75": 5}  # a curve's name, and its place among COCO's ten overlaps
_INTERVAL_PERCENT = (2.5, 97.5)
_MOST_WEIGHTS_AT_ONCE = 20_000_000  # R x D of one step; 160 MB in float64


class EvaluatedDetector(Protocol):
    """What an evaluation needs of a detector."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def detect_frame(
        self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300
    ) -> tuple[Detections, Any]: ...


@dataclass(frozen=True, slots=True)
class CocoRow:
    """One detection in COCO's results form: the data set's own ids; bbox is left, top, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """ap and ap50 of one category in 0..1, None where the data set has no box of it; boxes: how many it has."""

    name: str
    category_id: int
    ap: float | None
    ap50: float | None
    boxes: int


@dataclass(frozen=True, slots=True)
class Scores:
    """figures: COCO's twelve in 0..1, None where no box falls under one. interval: 95 % of ap, by the bootstrap.

    curves: by overlap, as CURVE_OVERLAPS names them, the precision at each of RECALL_STEPS, mean over the classes;
    empty where the data set has no box.
    """

    figures: dict[str, float | None]
    classes: tuple[ClassScore, ...]
    pictures: int
    boxes: int
    interval: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def ap(self) -> float | None:
        """Average precision over the overlaps 0.50 to 0.95."""
        return self.figures["ap"]

    def to_json(self) -> dict[str, Any]:
        """Plain values: the figures at the top, then ap_interval, pictures, boxes, classes, notes, precision_recall."""
        return {
            **self.figures,
            "ap_interval": None if self.interval is None else list(self.interval),
            "pictures": self.pictures,
            "boxes": self.boxes,
            "classes": [
                {"name": c.name, "category_id": c.category_id, "ap": c.ap, "ap50": c.ap50, "boxes": c.boxes}
                for c in self.classes
            ],
            "notes": list(self.notes),
            "precision_recall": {
                "recall": [round(float(step), 2) for step in RECALL_STEPS],
                "precision": {name: list(curve) for name, curve in self.curves.items()},
            },
        }


def detect_all(
    detector: EvaluatedDetector,
    data: CocoSet,
    *,
    progress: Callable[[int], None] = lambda done: None,
    timed: Callable[[Any], None] = lambda times: None,
) -> list[CocoRow]:
    """What the detector finds in every picture: no score floor, the 100 best of the classes the data set has.

    progress: called with the number of pictures done. timed: called with the stage times of each picture.
    Raises SourceError for a picture that cannot be read, or where detector and data set share no class.
    """
    category_of = match_categories(detector, data.categories)
    rows: list[CocoRow] = []
    for done, picture in enumerate(data.pictures, start=1):
        rgb = read_stored(picture.path)
        found, times = detector.detect_frame(rgb, score_floor=0.0, max_detections=3 * DETECTIONS_PER_PICTURE)
        rows += _coco_rows(found, picture.image_id, category_of)
        timed(times)
        progress(done)
    return rows


def match_categories(detector: EvaluatedDetector, categories: Sequence[Category]) -> np.ndarray:
    """(K,) int64: for each class of the detector the category id with the same name, -1 where there is none.

    A data set whose names are all strange to the detector is matched by its ids, if these fit.
    """
    by_name = {category.name.casefold(): category.category_id for category in categories}
    matched = [by_name.get(name.casefold(), -1) for name in detector.class_names]
    if max(matched, default=-1) < 0:
        known = {category.category_id for category in categories}
        matched = [i if i in known else -1 for i in detector.category_ids]
    if max(matched, default=-1) < 0:
        raise SourceError(
            f"the data set's classes ({_some(c.name for c in categories)}) are none of the model's "
            f"({_some(detector.class_names)})"
        )
    return np.array(matched, dtype=np.int64)


def score(data: CocoSet, rows: Sequence[CocoRow], *, resamples: int = 1000, seed: int = 0) -> Scores:
    """COCO's figures of these detections; with resamples > 0 also the bootstrap interval of ap over pictures."""
    return scores_of(data, run_coco(data, rows), resamples=resamples, seed=seed)


def scores_of(data: CocoSet, evaluator: COCOeval, *, resamples: int = 1000, seed: int = 0) -> Scores:
    """The same of an evaluation that has already run."""
    stats = evaluator.stats.tolist()
    boxes = [truth for truth in data.truths if not truth.crowd]
    interval = None
    if resamples > 0 and stats[0] >= 0:
        samples = bootstrap_ap(evaluator, resamples=resamples, seed=seed)
        low, high = np.percentile(samples[np.isfinite(samples)], _INTERVAL_PERCENT)
        interval = (float(low), float(high))
    return Scores(
        figures={name: _figure(value) for name, value in zip(FIGURES, stats, strict=True)},
        classes=_per_class(data, evaluator),
        pictures=len(data.pictures),
        boxes=len(boxes),
        interval=interval,
        curves=_curves(evaluator),
    )


def bootstrap_ap(evaluator: COCOeval, *, resamples: int, seed: int) -> np.ndarray:
    """(R,) average precision of as many pictures drawn with replacement; NaN for a draw without any box.

    The matches of each picture are those already found, so a draw only weighs pictures: how often each was drawn.
    """
    images = len(evaluator.params.imgIds)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)
    return weighted_ap(evaluator, weights)


def weighted_ap(evaluator: COCOeval, weights: np.ndarray) -> np.ndarray:
    """(R,) average precision where picture i counts weights[r, i] times; weights (R, I), 1 everywhere gives COCO's."""
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for category in range(len(evaluator.params.catIds)):
        matches = _category_matches(evaluator, category)
        if matches is None:
            continue
        step = max(1, _MOST_WEIGHTS_AT_ONCE // max(1, matches.score_count))
        for start in range(0, len(weights), step):
            rows = slice(start, start + step)
            ap = _category_ap(matches, weights[rows], evaluator.params.recThrs)
            total[rows] += np.where(np.isnan(ap), 0, ap)
            count[rows] += ~np.isnan(ap)
    mean: np.ndarray = np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)
    return mean


@dataclass(frozen=True, slots=True)
class _Matches:
    """One category, best score first. image: (D,) index of the picture. hit, counted: (T, D). truths: (I,) boxes."""

    image: np.ndarray
    hit: np.ndarray
    counted: np.ndarray
    truths: np.ndarray

    @property
    def score_count(self) -> int:
        return len(self.image)


def _category_matches(evaluator: COCOeval, category: int) -> _Matches | None:
    """All sizes, 100 detections a picture: the cell from which COCO takes ap. None without any box to find."""
    images = len(evaluator.params.imgIds)
    start = category * len(evaluator.params.areaRng) * images
    found = [(i, e) for i, e in enumerate(evaluator.evalImgs[start : start + images]) if e is not None]
    truths = np.zeros(images)
    for i, e in found:
        truths[i] = np.count_nonzero(e["gtIgnore"] == 0)
    if not truths.any():
        return None
    scores = np.concatenate([e["dtScores"] for _, e in found])
    order = np.argsort(-scores, kind="mergesort")
    image = np.concatenate([np.full(len(e["dtScores"]), i) for i, e in found]).astype(np.int64)[order]
    matched = np.concatenate([e["dtMatches"] for _, e in found], axis=1)[:, order] > 0
    counted = ~np.concatenate([e["dtIgnore"] for _, e in found], axis=1).astype(bool)[:, order]
    return _Matches(image, matched & counted, counted, truths)


def _category_ap(matches: _Matches, weights: np.ndarray, recall_steps: np.ndarray) -> np.ndarray:
    """(R,) mean over T of the interpolated precision; NaN where a draw holds no box of the category."""
    truths = weights @ matches.truths
    weight = weights[:, matches.image]
    seen: dict[bytes, np.ndarray] = {}  # thresholds that count the same detections share their running sum
    total = np.zeros(len(weights))
    for hit, counted in zip(matches.hit, matches.counted, strict=True):
        places = np.flatnonzero(hit)
        if not len(places):
            continue
        key = counted.tobytes()
        if key not in seen:
            seen[key] = np.cumsum(weight * counted, axis=1)
        total += interpolated_precision(
            np.cumsum(weight[:, places], axis=1), seen[key][:, places], truths, recall_steps
        )
    return np.where(truths > 0, total / len(matches.hit), np.nan)


def interpolated_precision(
    hits: np.ndarray, seen: np.ndarray, truths: np.ndarray, recall_steps: np.ndarray
) -> np.ndarray:
    """(R,) mean over COCO's 101 recall steps of the best precision at or beyond each.

    hits, seen: (R, P) running sums of true and of all counted detections, at the P places of the true ones. Only
    there can a precision be the best beyond some recall, so the places between need not be looked at.
    """
    precision = hits / np.maximum(seen, 1e-12)
    best_beyond = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.maximum(truths, 1e-12)[:, None]
    reached = np.searchsorted(recall_steps, recall, side="right")
    newly = np.diff(reached, axis=1, prepend=0)
    result: np.ndarray = (best_beyond * newly).sum(axis=1) / len(recall_steps)
    return result


def run_coco(data: CocoSet, rows: Sequence[CocoRow]) -> COCOeval:
    """pycocotools run to its end, silently. Its ids of boxes and detections are their places here, counted from 1."""
    if not data.pictures:
        raise SourceError(f"{str(data.path)!r} has no pictures, so there is nothing to score")
    with redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_coco(data, _truth_rows(data)), _coco(data, _detection_rows(rows)), "bbox")
        evaluator.params.imgIds = [picture.image_id for picture in data.pictures]
        evaluator.params.catIds = [category.category_id for category in data.categories]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def _coco(data: CocoSet, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": picture.image_id} for picture in data.pictures],
        "categories": [{"id": category.category_id, "name": category.name} for category in data.categories],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _truth_rows(data: CocoSet) -> list[dict[str, Any]]:
    """Ids are numbered anew from 1: pycocotools takes a match with the id 0 for no match."""
    return [
        {
            "id": number,
            "image_id": truth.image_id,
            "category_id": truth.category_id,
            "bbox": list(truth.bbox),
            "area": truth.area,
            "iscrowd": int(truth.crowd),
        }
        for number, truth in enumerate(data.truths, start=1)
    ]


def _detection_rows(rows: Sequence[CocoRow]) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "image_id": row.image_id,
            "category_id": row.category_id,
            "bbox": list(row.bbox),
            "area": row.bbox[2] * row.bbox[3],
            "iscrowd": 0,
            "score": row.score,
        }
        for number, row in enumerate(rows, start=1)
    ]


def _curves(evaluator: COCOeval) -> dict[str, tuple[float, ...]]:
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (T, 101, K): all sizes, 100 detections
    known = precision[..., (precision >= 0).any(axis=(0, 1))]
    if not known.shape[-1]:
        return {}
    return {name: tuple(known[place].mean(axis=-1).tolist()) for name, place in CURVE_OVERLAPS.items()}


def _per_class(data: CocoSet, evaluator: COCOeval) -> tuple[ClassScore, ...]:
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (T, 101, K): all sizes, 100 detections
    boxes = dict.fromkeys((category.category_id for category in data.categories), 0)
    for truth in data.truths:
        boxes[truth.category_id] += not truth.crowd
    return tuple(
        ClassScore(
            name=category.name,
            category_id=category.category_id,
            ap=_figure(precision[:, :, k].mean()),
            ap50=_figure(precision[0, :, k].mean()),
            boxes=boxes[category.category_id],
        )
        for k, category in enumerate(data.categories)
    )


def _coco_rows(found: Detections, image_id: int, category_of: np.ndarray) -> list[CocoRow]:
    found = found[category_of[found.class_id] >= 0][:DETECTIONS_PER_PICTURE]
    return [
        CocoRow(image_id, int(category_of[label]), (float(x), float(y), float(w), float(h)), confidence)
        for (x, y, w, h), (_, confidence, label) in zip(found.xywh, found, strict=True)
    ]


def _figure(value: float) -> float | None:
    """COCO writes -1 where there was nothing to measure."""
    return None if value < 0 else float(value)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "") or "none"
