"""Where the precision is lost: six kinds of error, and what AP50 would gain if one kind were gone.

Kinds and mending are those of TIDE (Bolya, Foley, Hays and Hoffman, arXiv:2008.08115), with its two overlaps: from 0.5
on a detection fits a box, up to 0.1 it lies on background. Each gain is measured alone, so the gains do not add up.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ledetr.boxes import box_iou
from ledetr.evaluation import RECALL_STEPS, interpolated_precision
from ledetr.matching import MATCH_IOU, Matching

BACKGROUND_IOU = 0.1
KINDS = {
    "classification": "on a box, with another class",
    "localisation": "on a box of its class, but not closely enough",
    "both": "not closely enough on a box of another class",
    "duplicate": "on a box that a better detection has already found",
    "background": "on no box",
    "missed": "a box that no detection is near to",
}
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(6)
_NONE = -1


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """gain: AP50 in 0..1 that would be won without these errors. count: detections (or boxes, where missed) of any
    score; shown: those from the threshold on, and boxes that are still missed then."""

    name: str
    gain: float
    count: int
    shown: int


@dataclass(frozen=True, slots=True)
class ErrorSplit:
    """ap50 as it is, and the kinds in the order of KINDS."""

    ap50: float
    threshold: float
    kinds: tuple[ErrorKind, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "ap50": self.ap50,
            "threshold": self.threshold,
            "kinds": [
                {"kind": kind.name, "gain": kind.gain, "count": kind.count, "shown": kind.shown} for kind in self.kinds
            ],
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """kind: (D,) of KINDS by place, _NONE for a hit and for what does not count. target: (D,) the box that a wrong
    class or place was meant for, else -1. missed: (G,)."""

    kind: np.ndarray
    target: np.ndarray
    missed: np.ndarray


def error_split(matching: Matching, threshold: float) -> ErrorSplit | None:
    """The split of a whole data set; None where it has no box to find."""
    truths = matching.truths_of_classes()
    if not truths.any():
        return None
    errors = _errors(matching)
    before = _ap50(matching, matching.label, matching.hit, matching.counted, truths)
    shown = matching.score >= threshold
    near = np.zeros(len(errors.missed), bool)  # boxes that a detection from the threshold on is near to
    near[errors.target[shown & (errors.target >= 0)]] = True
    missed_then = ~matching.truth_crowd & ~matching.found(threshold) & ~near
    kinds = [
        ErrorKind(
            name,
            _mended(place, matching, errors, truths) - before,
            int((errors.kind == place).sum()),
            int(((errors.kind == place) & shown).sum()),
        )
        for place, name in enumerate(KINDS)
        if place != _MISSED
    ]
    gain = _without_missed(matching, errors, truths) - before
    kinds.append(ErrorKind("missed", gain, int(errors.missed.sum()), int(missed_then.sum())))
    return ErrorSplit(before, threshold, tuple(kinds))


def _errors(matching: Matching) -> _Errors:
    kind = np.full(len(matching.score), _NONE)
    target = np.full(len(matching.score), -1)
    found = matching.found()
    for detections, truths in matching.pictures():
        detections = detections[matching.counted[detections] & ~matching.hit[detections]]
        truths = truths[~matching.truth_crowd[truths]]
        if not len(truths):
            kind[detections] = _BACKGROUND
        elif len(detections):
            kind[detections], target[detections] = _errors_of_picture(matching, detections, truths)
    meant = np.zeros(len(found), bool)
    meant[target[target >= 0]] = True
    return _Errors(kind, target, ~found & ~meant & ~matching.truth_crowd)


def _errors_of_picture(matching: Matching, detections: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind and target of false detections of a picture that has boxes. The order of the questions is TIDE's."""
    iou = box_iou(matching.boxes_xyxy[detections], matching.truth_boxes_xyxy[truths])
    same = matching.label[detections][:, None] == matching.truth_label[truths]
    own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    own_best, other_best = own.max(1), other.max(1)
    near = (own_best >= BACKGROUND_IOU) & (own_best < MATCH_IOU)
    kind = np.select(
        [near, other_best >= MATCH_IOU, own_best >= MATCH_IOU, iou.max(1) <= BACKGROUND_IOU],
        [_LOCALISATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND],
        _BOTH,
    )
    target = np.select(
        [kind == _LOCALISATION, kind == _CLASSIFICATION], [truths[own.argmax(1)], truths[other.argmax(1)]], -1
    )
    return kind, target


def _mended(place: int, matching: Matching, errors: _Errors, truths: np.ndarray) -> float:
    """AP50 where detections with this kind of error are mended, or, where that is not possible, left out."""
    wrong = errors.kind == place
    label, hit, kept = matching.label.copy(), matching.hit.copy(), matching.counted & ~wrong
    best = _best_for_each_free_box(matching, errors)
    mended = best[wrong[best]]
    label[mended] = matching.truth_label[errors.target[mended]]
    hit[mended] = kept[mended] = True
    return _ap50(matching, label, hit, kept, truths)


def _best_for_each_free_box(matching: Matching, errors: _Errors) -> np.ndarray:
    """Of the detections that were meant for one box, with either error, the best; none for a box that is found."""
    found = matching.found()
    places = np.flatnonzero(errors.target >= 0)
    places = places[~found[errors.target[places]]]
    places = places[np.argsort(-matching.score[places], kind="stable")]
    _, first = np.unique(errors.target[places], return_index=True)
    best: np.ndarray = places[first]
    return best


def _without_missed(matching: Matching, errors: _Errors, truths: np.ndarray) -> float:
    left = truths - np.bincount(matching.truth_label[errors.missed], minlength=len(truths))
    ap50 = _ap50(matching, matching.label, matching.hit, matching.counted, left)
    # A class of which all boxes were missed has nothing left to find: perfect where nothing else was found either.
    emptied = np.flatnonzero((truths > 0) & (left == 0))
    clean = sum(not (matching.counted & (matching.label == k)).any() for k in emptied)
    return float((ap50 * np.count_nonzero(left) + clean) / np.count_nonzero(truths))


def _ap50(matching: Matching, label: np.ndarray, hit: np.ndarray, kept: np.ndarray, truths: np.ndarray) -> float:
    """COCO's AP50 over the classes that have boxes; 0 if none has."""
    order = np.lexsort((matching.image, -matching.score))  # as pycocotools: equal scores by picture
    order = order[kept[order]]
    label, hit = label[order], hit[order]
    total = 0.0
    for k in np.flatnonzero(truths):
        hits = hit[label == k]
        places = np.flatnonzero(hits)
        if len(places):
            so_far, seen = np.arange(1.0, len(places) + 1)[None], (places + 1.0)[None]
            total += float(interpolated_precision(so_far, seen, truths[k : k + 1], RECALL_STEPS)[0])
    return total / max(1, int(np.count_nonzero(truths)))
