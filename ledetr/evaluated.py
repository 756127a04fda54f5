"""One evaluation in depth: figures, what is confused, where precision is lost, how long it took, the worst pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ledetr.coco_file import CocoSet, Picture
from ledetr.confusion import Confusion, confusion_of
from ledetr.detector import StageTimes
from ledetr.error_split import ErrorSplit, error_split
from ledetr.evaluation import CocoRow, Scores, run_coco, scores_of
from ledetr.matching import AtThreshold, Matching, at_threshold, matching_of


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a picture, one at a time, as median and 95th percentile; stages: the same of the parts."""

    pictures: int
    median_ms: float
    p95_ms: float
    stages: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "pictures": self.pictures,
            "median_ms": self.median_ms,
            "p95_ms": self.p95_ms,
            "stages": {name: {"median_ms": m, "p95_ms": p} for name, (m, p) in self.stages.items()},
        }


@dataclass(frozen=True, slots=True)
class PictureErrors:
    """What a detector got wrong in one picture, from the threshold on. place: of the picture in the data set."""

    place: int
    picture: Picture
    found: int
    missed: int
    false_alarms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A model at one size, or a file of predictions, on one data set.

    engine: what ran, as plain values. threshold: the score from which recall, confusion and worst pictures look.
    """

    engine: dict[str, Any]
    data: CocoSet
    rows: Sequence[CocoRow]
    threshold: float
    scores: Scores
    matching: Matching
    latency: Latency | None = None

    def at_threshold(self) -> tuple[tuple[AtThreshold, ...], AtThreshold]:
        """Recall and precision of each class, and of all together."""
        return at_threshold(self.matching, self.threshold)

    def confusion(self) -> Confusion:
        """What is taken for what."""
        return confusion_of(self.matching, self.threshold)

    def errors(self) -> ErrorSplit | None:
        """Where AP50 is lost; None without boxes."""
        return error_split(self.matching, self.threshold)

    def worst(self, most: int = 32) -> list[PictureErrors]:
        """The pictures with the most mistakes (missed boxes and false alarms); those without any are left out."""
        return sorted(
            (errors for errors in self._pictures() if errors.missed + errors.false_alarms),
            key=lambda errors: -(errors.missed + errors.false_alarms),
        )[:most]

    def _pictures(self) -> list[PictureErrors]:
        matching, shown = self.matching, self.matching.counted & (self.matching.score >= self.threshold)
        asked, found = ~matching.truth_crowd, matching.found(self.threshold)
        return [
            PictureErrors(
                place=place,
                picture=self.data.pictures[place],
                found=int(found[truths].sum()),
                missed=int((asked & ~found)[truths].sum()),
                false_alarms=int((shown & ~matching.hit)[detections].sum()),
            )
            for place, (detections, truths) in enumerate(matching.pictures())
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values: those of Scores, with recall and precision in each class, then threshold and latency."""
        each, total = self.at_threshold()
        document = self.scores.to_json()
        for row, point in zip(document["classes"], each, strict=True):
            row |= {"recall": point.recall, "precision": point.precision}
        return document | {
            "threshold": self.threshold,
            "recall": total.recall,
            "precision": total.precision,
            "latency": None if self.latency is None else self.latency.to_json(),
        }


def evaluate_rows(
    data: CocoSet,
    rows: Sequence[CocoRow],
    *,
    engine: dict[str, Any],
    threshold: float,
    times: Sequence[StageTimes] = (),
    resamples: int = 1000,
) -> Evaluated:
    """The evaluation of these detections. times: of the pictures, where a model ran. threshold: in 0..1."""
    evaluator = run_coco(data, rows)
    return Evaluated(
        engine=engine,
        data=data,
        rows=rows,
        threshold=threshold,
        scores=scores_of(data, evaluator, resamples=resamples),
        matching=matching_of(data, rows, evaluator),
        latency=latency_of(times) if times else None,
    )


def latency_of(times: Sequence[StageTimes]) -> Latency:
    """Median and 95th percentile of at least one picture."""
    stages = {
        "preprocess": np.array([t.preprocess_ms for t in times]),
        "infer": np.array([t.infer_ms for t in times]),
        "postprocess": np.array([t.postprocess_ms for t in times]),
    }
    median, p95 = _median_and_p95(np.sum(list(stages.values()), axis=0))
    return Latency(len(times), median, p95, {name: _median_and_p95(values) for name, values in stages.items()})


def _median_and_p95(values_ms: np.ndarray) -> tuple[float, float]:
    return round(float(np.median(values_ms)), 3), round(float(np.percentile(values_ms, 95)), 3)
