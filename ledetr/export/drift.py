"""How far an exported file is from the network that it was made of.

In float32 every row of every picture must agree. Rounding to half precision or to eight bits makes the encoder choose
other queries in a busy picture, so single rows of middling score come and go: there the typical row counts, and that
the objects anybody would be shown are found again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ledetr.backends import Backend, RankedOutputs, RankingBackend, RawOutputs
from ledetr.backends.deploy import MAX_RANKED
from ledetr.boxes import box_iou
from ledetr.decode import decode, place_ranked
from ledetr.detections import Detections
from ledetr.model.ledetr import LeDetr
from ledetr.preprocess import Placement, preprocess

SHOWN_SCORE = 0.3  # an object that most users would see
SCORE_SLACK = 0.1  # its partner may score so much less
SAME_BOX_IOU = 0.75
MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be given away.

    logit, score, box: largest errors. share: of the rows, best first, that must keep to them. kept: least share of the
    objects that one side shows (kept_objects) which the other must have too.
    """

    logit: float
    score: float
    box: float
    share: float = 1.0
    kept: float = 0.0


@dataclass(slots=True)
class Drift:
    """Largest differences so far; NaN stays NaN. shown: objects of both sides looked at, kept: those with a partner."""

    logit: float = 0.0
    score: float = 0.0
    box: float = 0.0
    relative: float = 0.0
    detections: int = 0
    shown: int = 0
    kept: int = 0

    def note(self, **errors: float) -> None:
        """Keep the larger of what was seen and these."""
        for name, error in errors.items():
            setattr(self, name, float(np.maximum(getattr(self, name), error)))

    @property
    def kept_share(self) -> float | None:
        """None where there was no object to show."""
        return self.kept / self.shown if self.shown else None

    def keeps_to(self, bounds: Bounds) -> bool:
        """Whether the file may be given away."""
        near = self.logit <= bounds.logit and self.score <= bounds.score and self.box <= bounds.box
        return near and self.kept >= bounds.kept * self.shown


def measure_drift(
    engine: Backend | RankingBackend,
    network: LeDetr,
    pictures: Sequence[np.ndarray],
    batches: Sequence[int],
    *,
    share: float = 1.0,
) -> Drift:
    """How far an exported file is from the network, in its training form and one picture at a time.

    pictures: (H, W, 3) uint8. batches: how many are given to the file at once; each takes the next ones in turn. share:
    errors are those of the worst row among this share of a picture's rows, best first; 1 takes all.
    """
    pixels = [preprocess(picture, engine.info.input_hw)[0] for picture in pictures]
    expected = [_torch_outputs(network, one) for one in pixels]
    rounds = [[i] for i in range(len(pixels))] if tuple(batches) == (1,) else _rounds(len(pixels), batches)
    drift = Drift()
    for rows in rounds:
        answer = engine.run(np.stack([pixels[row] for row in rows]))
        for place, row in enumerate(rows):
            _note_one(drift, answer[place], expected[row], share)
    return drift


def _rounds(count: int, batches: Sequence[int]) -> list[list[int]]:
    """Rows of each batch, going around all pictures."""
    starts = np.cumsum([0, *batches[:-1]])
    return [[int(start + i) % count for i in range(batch)] for start, batch in zip(starts, batches, strict=True)]


def _torch_outputs(network: LeDetr, pixels: np.ndarray) -> RawOutputs:
    with torch.inference_mode():
        logits, boxes_cxcywh = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    return RawOutputs(logits[0].numpy(), boxes_cxcywh[0].numpy())


def _note_one(drift: Drift, actual: RawOutputs | RankedOutputs, expected: RawOutputs, share: float) -> None:
    placement = Placement((1, 1), (1, 1))  # boxes in 0..1
    every_pair = decode(expected, placement, score_floor=0.0, max_detections=expected.logits.size)
    if isinstance(actual, RawOutputs):
        logit_error, box_error = row_errors(actual, expected, share=share)
        largest = np.abs(expected.logits).max(), np.abs(expected.boxes_cxcywh).max()
        relative = np.maximum(logit_error / largest[0], box_error / largest[1])
        drift.note(logit=logit_error, box=box_error, relative=float(relative))
        found = decode(actual, placement, score_floor=0.0, max_detections=MAX_RANKED)
    else:
        found = place_ranked(actual, placement, score_floor=0.0)
        if len(found) != len(actual.labels):  # a row that is not finite
            drift.note(score=np.nan)
    score_error, box_error = detection_errors(found, every_pair, share=share)
    drift.note(score=score_error, box=box_error, relative=np.maximum(score_error, box_error))
    drift.detections += len(found)
    kept = kept_objects(found, every_pair)
    drift.shown += kept.shown
    drift.kept += kept.kept


def row_errors(actual: RawOutputs, expected: RawOutputs, *, share: float = 1.0) -> tuple[float, float]:
    """Largest difference of logits and of boxes between two outputs of one picture, (Q, C) and (Q, 4) each.

    Each row is held against the nearest of the other side, both ways: near ties make engines swap neighbours in the
    order of queries, and a query that one side lacks is then far from all others. NaN gives NaN.
    """
    logits = np.abs(actual.logits[:, None] - expected.logits[None]).max(-1)
    boxes = np.abs(actual.boxes_cxcywh[:, None] - expected.boxes_cxcywh[None]).max(-1)
    distance = np.maximum(logits, boxes)
    rows = np.arange(len(distance))
    there, back = distance.argmin(1), distance.argmin(0)
    errors = []
    for distances in (logits, boxes):
        one_way = _worst_of_share(distances[rows, there], share)
        errors.append(float(np.maximum(one_way, _worst_of_share(distances[back, rows], share))))
    return errors[0], errors[1]


def detection_errors(found: Detections, every_pair: Detections, *, share: float = 1.0) -> tuple[float, float]:
    """Largest difference of scores and of boxes (in their unit) between ranked detections and what they come from.

    every_pair: all pairs of query and class, best first. Scores are compared in order, and each detection is held
    against the nearest pair of its class; one without such a pair gives infinity.
    """
    if not len(found):
        return float("inf") if len(every_pair) else 0.0, 0.0
    in_order = np.abs(found.confidence - every_pair.confidence[: len(found)])
    scores, boxes = np.full((2, len(found)), np.inf)
    for row, (box, score, class_id) in enumerate(found):
        same = every_pair.class_id == class_id
        if same.any():
            of_scores = np.abs(every_pair.confidence[same] - score)
            of_boxes = np.abs(every_pair.xyxy[same] - box).max(-1)
            nearest = np.maximum(of_scores, of_boxes).argmin()
            scores[row], boxes[row] = of_scores[nearest], of_boxes[nearest]
    score_error = np.maximum(_worst_of_share(in_order, share), _worst_of_share(scores, share))
    return float(score_error), _worst_of_share(boxes, share)


def _worst_of_share(errors: np.ndarray, share: float) -> float:
    """The largest error of the best rows that make up this share; NaN where any error is NaN."""
    if np.isnan(errors).any():
        return math.nan
    return float(np.sort(errors)[max(math.ceil(share * len(errors)), 1) - 1])


class Kept(NamedTuple):
    """Objects that one side or the other shows, and how many of them the other side has too."""

    shown: int
    kept: int


def kept_objects(a: Detections, b: Detections) -> Kept:
    """Objects of at least SHOWN_SCORE on either side, the best MOST_SHOWN of each, and those with a partner.

    a, b: best score first, b may hold all pairs of query and class. A partner has the same class and a box that
    overlaps by SAME_BOX_IOU; it scores at most SCORE_SLACK below the line, and serves one object.
    """
    counts = [_with_partner(one, other) for one, other in ((a, b), (b, a))]
    return Kept(sum(count.shown for count in counts), sum(count.kept for count in counts))


def _with_partner(ours: Detections, theirs: Detections) -> Kept:
    shown = ours[:MOST_SHOWN]
    shown = shown[shown.confidence >= SHOWN_SCORE]
    partners = theirs[theirs.confidence >= SHOWN_SCORE - SCORE_SLACK]
    overlap = box_iou(shown.xyxy, partners.xyxy)
    overlap[shown.class_id[:, None] != partners.class_id[None]] = 0.0
    kept = 0
    for row in range(len(shown)):
        if len(partners) and overlap[row].max() >= SAME_BOX_IOU:
            overlap[:, overlap[row].argmax()] = 0.0
            kept += 1
    return Kept(len(shown), kept)
