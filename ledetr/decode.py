"""Raw network outputs to detections."""

import numpy as np

from ledetr.backends.base import RankedOutputs, RawOutputs
from ledetr.boxes import cxcywh_to_xyxy
from ledetr.detections import Detections
from ledetr.preprocess import Placement


def decode(
    raw: RawOutputs,
    placement: Placement,
    *,
    score_floor: float,
    max_detections: int = 300,
    class_names: tuple[str, ...] = (),
    category_ids: tuple[int, ...] = (),
    model_id: str = "",
) -> Detections:
    """Detections of one picture, in pixels of the source picture, best score first.

    raw.logits: (Q, C) before the sigmoid; raw.boxes_cxcywh: (Q, 4) in 0..1 of the network input. Boxes are clipped to
    the picture; rows that are not finite are dropped. Raises ValueError when the two disagree on Q.
    Top-k runs over all Q * C scores, as in RT-DETR (arXiv:2304.08069): one query may answer for two classes.
    """
    logits, boxes = raw.logits, raw.boxes_cxcywh
    if logits.ndim != 2 or boxes.shape != (len(logits), 4):
        raise ValueError(f"logits {logits.shape} and boxes {boxes.shape} do not describe the same queries")
    queries, labels = _best_pairs(logits, score_floor, max_detections)
    scores = _sigmoid(logits[queries, labels])
    xyxy_norm = cxcywh_to_xyxy(boxes[queries])
    finite = np.isfinite(xyxy_norm).all(-1)
    return Detections(
        xyxy=placement.to_source(xyxy_norm[finite]),
        confidence=scores[finite].astype(np.float32),
        class_id=labels[finite].astype(np.int64),
        class_names=class_names,
        category_ids=category_ids,
        model_id=model_id,
        score_floor=score_floor,
    )


def place_ranked(
    ranked: RankedOutputs,
    placement: Placement,
    *,
    score_floor: float,
    max_detections: int = 300,
    class_names: tuple[str, ...] = (),
    category_ids: tuple[int, ...] = (),
    model_id: str = "",
) -> Detections:
    """Detections of one picture that a model file ranked itself; the last step of decode() for those.

    ranked: of one picture, (K,), (K, 4), (K,). Rows that are not finite are dropped, and so are labels beyond the
    class names, where files put what is no object.
    """
    labels, scores, boxes = ranked.labels, ranked.scores, ranked.boxes_xyxy
    known = (labels >= 0) & (labels < len(class_names)) if class_names else labels >= 0
    rows = np.flatnonzero(known & (scores >= score_floor) & np.isfinite(boxes).all(-1))
    rows = rows[np.argsort(-scores[rows], kind="stable")][:max_detections]
    return Detections(
        xyxy=placement.to_source(boxes[rows]),
        confidence=scores[rows].astype(np.float32),
        class_id=labels[rows].astype(np.int64),
        class_names=class_names,
        category_ids=category_ids,
        model_id=model_id,
        score_floor=score_floor,
    )


def _best_pairs(logits: np.ndarray, score_floor: float, max_detections: int) -> tuple[np.ndarray, np.ndarray]:
    """Query and class of the best (query, class) pairs at or above the floor, best first; NaN never qualifies."""
    if score_floor <= 0:
        logit_floor = -np.inf
    else:
        logit_floor = np.log(score_floor) - np.log1p(-score_floor) if score_floor < 1 else np.inf
    flat = logits.ravel()
    candidates = np.flatnonzero(flat >= logit_floor)
    if len(candidates) > max_detections:
        best = np.argpartition(-flat[candidates], max_detections - 1)[:max_detections]
        candidates = candidates[best]
    candidates = candidates[np.argsort(-flat[candidates], kind="stable")]
    return candidates // logits.shape[1], candidates % logits.shape[1]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))
