"""What is taken for what: the confusion matrix of a detector at a score threshold and IoU 0.5."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ledetr.boxes import box_iou
from ledetr.matching import MATCH_IOU, Matching

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """counts: (K + 1, K + 1) int64, row: what it is, column: what it was taken for; the last of both is background.

    So the last column holds what was missed, the last row false alarms. threshold: lowest score that was looked at.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    threshold: float

    def top(self, most: int = 10) -> list[tuple[str, str, int]]:
        """(what it is, what it was taken for, how often), most frequent first; background left out."""
        between = self.counts[:-1, :-1].copy()
        np.fill_diagonal(between, 0)
        rows, columns = np.nonzero(between)
        order = np.argsort(-between[rows, columns], kind="stable")[:most]
        return [
            (self.names[row], self.names[column], int(between[row, column]))
            for row, column in zip(rows[order], columns[order], strict=True)
        ]

    @property
    def missed(self) -> int:
        """Boxes on which nothing lies."""
        return int(self.counts[:-1, -1].sum())

    @property
    def false_alarms(self) -> int:
        """Detections on no box."""
        return int(self.counts[-1, :-1].sum())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "threshold": self.threshold,
            "iou": MATCH_IOU,
            "classes": [*self.names, BACKGROUND],
            "matrix": self.counts.tolist(),
            "top": [{"truth": truth, "taken_for": other, "count": count} for truth, other, count in self.top()],
        }


def confusion_of(matching: Matching, threshold: float) -> Confusion:
    """Detections from the threshold on against boxes.

    First those that found a box of their own class, as for average precision, so the diagonal is what recall counts.
    Then what is left of a picture is paired whatever its class, the largest overlap first. Detections on crowds are
    left out.
    """
    classes = len(matching.names)
    shown = matching.counted & (matching.score >= threshold)
    found = matching.found(threshold)
    truth, taken = [matching.truth_label[found]], [matching.truth_label[found]]
    for detections, truths in matching.pictures():
        detections = detections[shown[detections] & ~matching.hit[detections]]
        truths = truths[~found[truths] & ~matching.truth_crowd[truths]]
        d, t = _pairs(box_iou(matching.boxes_xyxy[detections], matching.truth_boxes_xyxy[truths]))
        lonely, missed = np.delete(detections, d), np.delete(truths, t)
        truth += [matching.truth_label[truths[t]], np.full(len(lonely), classes), matching.truth_label[missed]]
        taken += [matching.label[detections[d]], matching.label[lonely], np.full(len(missed), classes)]
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, (np.concatenate(truth), np.concatenate(taken)), 1)
    return Confusion(matching.names, counts, threshold)


def _pairs(iou: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of (N, M) overlaps from MATCH_IOU on, the largest first, each row and column once."""
    rows, columns = np.nonzero(iou >= MATCH_IOU)
    used_rows: list[int] = []
    used_columns: list[int] = []
    for place in np.argsort(-iou[rows, columns], kind="stable"):
        row, column = int(rows[place]), int(columns[place])
        if row not in used_rows and column not in used_columns:
            used_rows.append(row)
            used_columns.append(column)
    return used_rows, used_columns
