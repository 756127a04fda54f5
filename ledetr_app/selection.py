"""The box that the user clicked on, found again in the frames after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ledetr.boxes import box_iou
from ledetr.chain.pipeline import Result
from ledetr.detections import Detections

SAME_IOU = 0.3
LOST_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """found: one row, the box in the newest frame; None where it is not found there.

    last_xyxy, class_name, seen_s: the box, its class and the time (pts_s) when it was last found.
    """

    found: Detections | None
    last_xyxy: np.ndarray
    class_name: str
    seen_s: float


def select(result: Result, seen: np.ndarray, x: float, y: float) -> Selection | None:
    """The smallest seen box around a point in pixels of the frame. seen: (N,) bool, which boxes count."""
    x0, y0, x1, y1 = result.detections.xyxy.T
    rows = np.flatnonzero(seen & (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1))
    if not len(rows):
        return None
    areas = (x1[rows] - x0[rows]) * (y1[rows] - y0[rows])
    return _of_row(result, int(rows[np.argmin(areas)]))


def follow(selection: Selection, result: Result, seen: np.ndarray) -> Selection | None:
    """The same in a newer frame: the seen box of this class that overlaps most. None once it was lost for a second."""
    detections = result.detections
    same_class = np.array([name == selection.class_name for name in detections.names], bool)
    overlap = np.where(seen & same_class, box_iou(selection.last_xyxy[None], detections.xyxy)[0], 0.0)
    if len(overlap) and overlap.max() >= SAME_IOU:
        return _of_row(result, int(np.argmax(overlap)))
    if abs(result.frame.meta.pts_s - selection.seen_s) > LOST_AFTER_S:
        return None
    return replace(selection, found=None)


def _of_row(result: Result, row: int) -> Selection:
    found = result.detections[row : row + 1]
    return Selection(found, found.xyxy[0], found.names[0], result.frame.meta.pts_s)
