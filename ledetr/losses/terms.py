"""The single loss terms, over dense tensors: a 0/1 weight decides what counts, no entry is ever picked out by a mask.

H heads or layers, B batch, Q queries, C classes, R steps of an edge distribution. Every function returns one sum per
head, (H,), not yet divided by the number of objects. All of it runs in float32 or float64, whatever autocast says.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ledetr.model.boxes import at_least_float32, box_area, box_to_distance, overlap_area

PER_HEAD = (1, 2)  # the axes B and Q, summed away


def mal(
    logits: Tensor,
    labels: Tensor,
    matched: Tensor,
    weight: Tensor,
    iou: Tensor,
    negative_weight: Tensor | None = None,
    *,
    gamma: float = 1.5,
) -> Tensor:
    """Matchability-aware class loss (DEIM, arXiv:2412.04234).

    logits: (H, B, Q, C) before sigmoid. labels: (H, B, Q) int64 class of the matched object, any class elsewhere.
    matched: (H, B, Q) bool. weight: (H, B, Q) what the object counts, 0 where not matched. iou: (H, B, Q) how well the
    box fits, detached. The first three may come without H, the same for all heads.
    The matched class shall score iou^gamma; every other entry shall score 0 and counts by its own score^gamma, times
    negative_weight where given, (H, B, Q, C) or anything that broadcasts to it.
    """
    logits, iou = at_least_float32(logits), at_least_float32(iou)
    punish = logits.detach().sigmoid() ** gamma
    return _class_loss(logits, labels, matched, weight, iou**gamma, punish, negative_weight)


def vfl(
    logits: Tensor,
    labels: Tensor,
    matched: Tensor,
    weight: Tensor,
    iou: Tensor,
    negative_weight: Tensor | None = None,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Tensor:
    """Varifocal class loss (arXiv:2008.13367), with the arguments of mal: the matched class shall score iou."""
    logits, iou = at_least_float32(logits), at_least_float32(iou)
    punish = alpha * logits.detach().sigmoid() ** gamma
    return _class_loss(logits, labels, matched, weight * iou, iou, punish, negative_weight)


def _class_loss(
    logits: Tensor,
    labels: Tensor,
    matched: Tensor,
    positive_weight: Tensor,
    positive_target: Tensor,
    punish: Tensor,
    negative_weight: Tensor | None,
) -> Tensor:
    index = labels[..., None].expand(*logits.shape[:3], 1)
    # the matched class is no negative; where nothing is matched, the entry is written back as it was
    kept = punish.gather(3, index) * ~matched[..., None]
    punish = punish.scatter(3, index, kept)
    if negative_weight is not None:
        punish = punish * negative_weight
    negative = (punish * F.softplus(logits)).sum(3)
    found = logits.gather(3, index)[..., 0]
    positive = F.softplus(found) - positive_target * found
    return (negative + positive_weight * positive).sum(PER_HEAD)


def l1(boxes_cxcywh: Tensor, truth_cxcywh: Tensor, weight: Tensor) -> Tensor:
    """Sum of absolute differences. boxes (H, B, Q, 4); truth (B, Q, 4) and weight (B, Q) hold for every head."""
    difference = at_least_float32(boxes_cxcywh) - at_least_float32(truth_cxcywh)
    return (difference.abs().sum(3) * weight).sum(PER_HEAD)


def giou_loss(giou: Tensor, weight: Tensor) -> Tensor:
    """1 - GIoU of each pair. giou (H, B, Q), weight (B, Q)."""
    return ((1 - giou) * weight).sum(PER_HEAD)


def edge_targets(
    initial_boxes_cxcywh: Tensor, truth_xyxy: Tensor, bin_distances: Tensor, reg_scale: float
) -> tuple[Tensor, Tensor]:
    """Where the true edges lie among the bins: lower bin (B, Q, 4) int64 in 0..R-1, and the share of the bin above it.

    initial_boxes_cxcywh, truth_xyxy: (B, Q, 4). bin_distances: (R + 1,) rising. An edge beyond the last bin on either
    side belongs wholly to that bin, so the share is in 0..1.
    """
    distance = box_to_distance(initial_boxes_cxcywh, truth_xyxy, reg_scale)
    bins = bin_distances.to(distance.dtype)
    lower = (torch.searchsorted(bins, distance, right=True) - 1).clamp(0, len(bins) - 2)
    share = (distance - bins[lower]) / (bins[1:] - bins[:-1])[lower]
    return lower, share.clamp(0, 1)


def fgl(corners: Tensor, lower: Tensor, share: Tensor, weight: Tensor) -> Tensor:
    """Fine-grained localisation (D-FINE): cross entropy of each edge with the two bins around the true edge.

    corners: (H, B, Q, 4, R + 1) logits. lower, share: (B, Q, 4) from edge_targets. weight: (H, B, Q), the detached
    IoU of each layer's box times the weight of its object.
    """
    log_p = at_least_float32(corners).log_softmax(4)
    index = torch.stack([lower, lower + 1], dim=-1).expand(*log_p.shape[:4], 2)
    around = torch.stack([1 - share, share], dim=-1)
    return -((log_p.gather(4, index) * around).sum((3, 4)) * weight).sum(PER_HEAD)


def ddf(
    students: Tensor, teacher: Tensor, matched_weight: Tensor, other_weight: Tensor, temperature: float = 5.0
) -> tuple[Tensor, Tensor]:
    """Self-distillation of the edge distributions (D-FINE's GO-LSD): earlier layers learn from the last.

    students: (H, B, Q, 4, R + 1) logits; teacher: (B, Q, 4, R + 1), detached by the caller; both weights: (H, B, Q).
    Returns two sums of T^2 * KL(teacher || student) over the edges, (H,) each: over matched queries and over others.
    """
    log_s = (at_least_float32(students) / temperature).log_softmax(4)
    log_t = (at_least_float32(teacher) / temperature).log_softmax(3)
    divergence = (log_t.exp() * (log_t - log_s)).sum((3, 4)) * temperature**2
    return (divergence * matched_weight).sum(PER_HEAD), (divergence * other_weight).sum(PER_HEAD)


def mixed_mean(
    matched_sum: Tensor, other_sum: Tensor, matched_edges: Tensor, other_edges: Tensor, shares: Tensor
) -> Tensor:
    """The means over matched and over other edges, mixed in the shares (2,), which add up to 1."""
    some = 1e-6  # no edges, no sum: 0 then; numbers averaged over processes may lie between 0 and 1
    matched_mean, other_mean = matched_sum / matched_edges.clamp(min=some), other_sum / other_edges.clamp(min=some)
    return matched_mean * shares[0] + other_mean * shares[1]


def inside_ignored(boxes_xyxy: Tensor, ignore_xyxy: Tensor, ignore_valid: Tensor, share: float = 0.5) -> Tensor:
    """(H, B, Q) bool: more than this share of the box lies inside one ignore region of its picture.

    boxes_xyxy: (H, B, Q, 4). ignore_xyxy: (B, I, 4), ignore_valid: (B, I) bool.
    """
    inter = overlap_area(boxes_xyxy[:, :, :, None], ignore_xyxy[:, None])
    return ((inter > share * box_area(boxes_xyxy)[..., None]) & ignore_valid[:, None]).any(3)
