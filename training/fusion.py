"""Weighted box fusion: what several detectors found in one picture becomes one list that is better than each.

Within a class, boxes are taken by falling score. Each joins the group whose box it overlaps most, if by more than a
threshold and if the group has none of the same pass yet; else it founds a group. A group's box is the mean of its
boxes weighted by their scores; its score is the sum of theirs, divided by the number of passes (Solovyev, Wang and
Gabruseva, arXiv:1910.13302). A box that only one of many passes saw thus ends with a low score.
"""

from collections.abc import Sequence

import numpy as np

from ledetr.boxes import paired_iou
from ledetr.detections import Detections

SCORE_FLOOR = 0.01
OVERLAP = 0.6
MAX_BOXES = 100


def fuse(
    passes: Sequence[Detections],
    *,
    class_passes: np.ndarray | None = None,
    score_floor: float = SCORE_FLOOR,
    overlap: float = OVERLAP,
    max_boxes: int = MAX_BOXES,
) -> Detections:
    """The fused boxes of one picture, best score first, with the class names of the first pass.

    passes: what each run of each detector found, class ids meaning the same in all, boxes in pixels of the same
    picture. class_passes: (K,) how many passes know each class; default all. score_floor: boxes below it are skipped.
    overlap: groups form above this intersection over union. ValueError without any pass.
    """
    if not passes:
        raise ValueError("fusion needs at least one pass")
    boxes = np.concatenate([found.xyxy for found in passes]).astype(np.float64)
    scores = np.concatenate([found.confidence for found in passes]).astype(np.float64)
    labels = np.concatenate([found.class_id for found in passes])
    origin = np.repeat(np.arange(len(passes)), [len(found) for found in passes])
    rows = np.flatnonzero(scores >= score_floor)
    rows = rows[np.lexsort((-scores[rows], labels[rows]))]  # stable: equal scores stay in the order of the passes
    group_boxes, group_scores, group_labels = _groups(
        boxes[rows], scores[rows], labels[rows], origin[rows], len(passes), overlap
    )
    group_scores /= len(passes) if class_passes is None else class_passes[group_labels]
    best = np.argsort(-group_scores, kind="stable")[:max_boxes]
    return Detections(
        xyxy=group_boxes[best].astype(np.float32),
        confidence=group_scores[best].astype(np.float32),
        class_id=group_labels[best].astype(np.int64),
        class_names=passes[0].class_names,
        category_ids=passes[0].category_ids,
        model_id="fusion",
        score_floor=score_floor,
    )


def _groups(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, origin: np.ndarray, passes: int, overlap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, sums of scores and labels of all groups; boxes come sorted by class, then by falling score.

    Classes do not meet, so round r places the r-th best box of every class at once. C classes, G groups of a class.
    """
    classes, start, count = np.unique(labels, return_index=True, return_counts=True)
    most = int(count.max(initial=0))
    weighted = np.zeros((len(classes), most, 4))  # (C, G, 4) sums of score * box
    sums = np.zeros((len(classes), most))  # (C, G)
    taken = np.zeros((len(classes), most, passes), bool)
    groups = np.zeros(len(classes), np.int64)
    for place in range(most):
        here = np.flatnonzero(count > place)
        row = start[here] + place
        so_far = int(groups[here].max())
        means = weighted[here, :so_far] / np.maximum(sums[here, :so_far, None], 1e-12)
        closeness = paired_iou(boxes[row][:, None], means)
        closeness[taken[here, :so_far, origin[row]]] = 0
        target = groups[here]
        if so_far:
            nearest = closeness.argmax(1)
            joins = closeness[np.arange(len(here)), nearest] > overlap
            target = np.where(joins, nearest, target)
        groups[here] = np.maximum(groups[here], target + 1)
        weighted[here, target] += scores[row, None] * boxes[row]
        sums[here, target] += scores[row]
        taken[here, target, origin[row]] = True
    at_class, at_group = np.nonzero(np.arange(most) < groups[:, None])
    total = sums[at_class, at_group]
    return weighted[at_class, at_group] / np.maximum(total[:, None], 1e-12), total, classes[at_class]
