"""Box geometry in NumPy. Boxes are rows of four numbers; the format is part of every name."""

import numpy as np


def cxcywh_to_xyxy(boxes_cxcywh: np.ndarray) -> np.ndarray:
    """(..., 4) centre and size to corners."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def xyxy_to_cxcywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(..., 4) corners to centre and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def xyxy_to_xywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(..., 4) corners to COCO's left, top, width, height."""
    return np.concatenate([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1)


def xywh_to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    """(..., 4) COCO's left, top, width, height to corners."""
    return np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1)


def box_iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) to (N, M): intersection over union as float, 0 for empty boxes; whole pixels may come in."""
    return paired_iou(a_xyxy[:, None], b_xyxy[None])


def paired_iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """The same of boxes that stand beside each other: (..., 4) and (..., 4), broadcast, to (...)."""
    low = np.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = np.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area_a = np.clip(a_xyxy[..., 2:] - a_xyxy[..., :2], 0, None).prod(-1)
    area_b = np.clip(b_xyxy[..., 2:] - b_xyxy[..., :2], 0, None).prod(-1)
    union = area_a + area_b - inter
    iou = np.zeros(inter.shape, np.result_type(inter, 1.0))
    np.divide(inter, union, out=iou, where=union > 0)
    return iou


def clip_xyxy(boxes_xyxy: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes cut to the picture 0..width, 0..height."""
    limit = np.array([width, height, width, height], dtype=boxes_xyxy.dtype)
    clipped: np.ndarray = np.clip(boxes_xyxy, 0, limit)
    return clipped
