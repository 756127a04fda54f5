"""Box geometry that gradients flow through. Boxes are rows of four numbers; the format is part of every name.

Everything here is computed in float32 (float64 stays float64) whatever autocast says: with half precision a box of a
few pixels has no overlap left. R is the number of distribution steps per edge, so an edge has R + 1 bins.
"""

import torch
from torch import Tensor

SMALLEST_AREA = 1e-12  # below any area of a real box in 0..1; keeps the ratio of two empty boxes at 0 instead of nan


def at_least_float32(x: Tensor) -> Tensor:
    """The same values in float32, or in float64 if they came so."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre and size to corners."""
    boxes_cxcywh = at_least_float32(boxes_cxcywh)
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) corners to centre and size."""
    boxes_xyxy = at_least_float32(boxes_xyxy)
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_area(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) to (...): area, 0 for a box whose corners are swapped."""
    return _area_between(boxes_xyxy[..., :2], boxes_xyxy[..., 2:])


def overlap_area(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """(...) area that two boxes share, of (..., 4) boxes whose shapes broadcast."""
    low = torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    return _area_between(low, torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]))


def pairwise_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """(...) intersection over union, 0 for two empty boxes, of (..., 4) boxes whose shapes broadcast."""
    a_low, a_high = at_least_float32(a_xyxy).chunk(2, dim=-1)
    b_low, b_high = at_least_float32(b_xyxy).chunk(2, dim=-1)
    inter, union = _inter_and_union(a_low, a_high, b_low, b_high)
    return inter / union


def iou_and_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union and its generalised form (arXiv:1902.09630) of boxes that stand beside each other.

    a_xyxy, b_xyxy: (..., 4), of shapes that broadcast; no table of all pairs is made unless the shapes ask for it.
    Returns two tensors (...): IoU in 0..1, 0 for two empty boxes, and GIoU in -1..1.
    """
    a_low, a_high = at_least_float32(a_xyxy).chunk(2, dim=-1)
    b_low, b_high = at_least_float32(b_xyxy).chunk(2, dim=-1)
    inter, union = _inter_and_union(a_low, a_high, b_low, b_high)
    hull = _area_between(torch.minimum(a_low, b_low), torch.maximum(a_high, b_high)).clamp(min=SMALLEST_AREA)
    iou = inter / union
    return iou, iou - (hull - union) / hull


def _inter_and_union(a_low: Tensor, a_high: Tensor, b_low: Tensor, b_high: Tensor) -> tuple[Tensor, Tensor]:
    inter = _area_between(torch.maximum(a_low, b_low), torch.minimum(a_high, b_high))
    union = _area_between(a_low, a_high) + _area_between(b_low, b_high) - inter
    return inter, union.clamp(min=SMALLEST_AREA)


def _area_between(low: Tensor, high: Tensor) -> Tensor:
    """(..., 2) corners to (...) area, 0 where they are swapped in any direction."""
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height


def inverse_sigmoid(p: Tensor, eps: float = 1e-5) -> Tensor:
    """(...) numbers in 0..1 to logits; p is kept eps away from both ends, so the result is finite."""
    p = at_least_float32(p).clamp(eps, 1 - eps)
    return torch.log(p) - torch.log1p(-p)


def weighting_function(
    reg_max: int = 32,
    up: float = 0.5,
    reg_scale: float = 4.0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """(R + 1,) distances that the bins of an edge stand for, rising, denser around 0 (D-FINE, arXiv:2410.13842).

    A distance is measured in box sides divided by reg_scale; the outermost bins stand at twice up * reg_scale.
    """
    if reg_max < 4 or reg_max % 2:
        raise ValueError(f"reg_max must be even and at least 4, got {reg_max}")
    bound = up * reg_scale
    step = (bound + 1) ** (2 / (reg_max - 2))
    above = [step**n - 1 for n in range(1, reg_max // 2)] + [2 * bound]
    values = [-value for value in reversed(above)] + [0.0] + above
    return torch.tensor(values, dtype=dtype, device=device)


def distance_to_box(initial_boxes_cxcywh: Tensor, distances: Tensor, reg_scale: float = 4.0) -> Tensor:
    """(..., 4) cxcywh boxes whose edges have moved by the given distances.

    initial_boxes_cxcywh: (..., 4) the boxes b0 that the distances refer to. distances: (..., 4) left, top, right,
    bottom, positive outwards, in sides of b0 divided by reg_scale. Distances of 0 give b0 back.
    """
    initial, distances = at_least_float32(initial_boxes_cxcywh), at_least_float32(distances)
    centre, size = initial[..., :2], initial[..., 2:]
    unit = size / reg_scale
    low = centre - (reg_scale / 2 + distances[..., :2]) * unit
    high = centre + (reg_scale / 2 + distances[..., 2:]) * unit
    return xyxy_to_cxcywh(torch.cat([low, high], dim=-1))


def box_to_distance(initial_boxes_cxcywh: Tensor, boxes_xyxy: Tensor, reg_scale: float = 4.0) -> Tensor:
    """(..., 4) distances that move the edges of b0 onto the given corners: the inverse of distance_to_box.

    A box b0 without extent would ask for an infinite distance; its sides count as at least 1e-6.
    """
    initial, boxes_xyxy = at_least_float32(initial_boxes_cxcywh), at_least_float32(boxes_xyxy)
    centre, size = initial[..., :2], initial[..., 2:].clamp(min=1e-6)
    low = (centre - boxes_xyxy[..., :2]) * reg_scale / size - reg_scale / 2
    high = (boxes_xyxy[..., 2:] - centre) * reg_scale / size - reg_scale / 2
    return torch.cat([low, high], dim=-1)
