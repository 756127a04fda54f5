"""Denoising queries: noisy copies of the true objects, in a fixed number of slots (after DN-DETR, arXiv:2203.01305).

B batch, T object slots of the targets, D denoising slots. A picture with few objects gets many groups of them, a
picture with none leaves every slot empty, and one with more than fits takes a random part: the shape never changes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ledetr.losses.targets import Targets
from ledetr.model.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ledetr.model.outputs import DenoisingQueries


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """How many noisy copies, and how noisy."""

    classes: int = 80
    slots: int = 200
    """Even: every object of a group takes two, a copy that shall find it again and one that shall not."""
    label_noise: float = 0.5
    """Half of this is the probability that a label is drawn anew from all classes."""
    box_noise: float = 1.0
    """Largest shift of an edge in halves of the box: up to one such step for positives, one to two for negatives."""

    def __post_init__(self) -> None:
        if self.slots < 2 or self.slots % 2:
            raise ValueError(f"slots must be even and at least 2, got {self.slots}")


def make_denoising(targets: Targets, config: DenoisingConfig, randomness: torch.Generator | Tensor) -> DenoisingQueries:
    """Noisy copies of the objects of each picture: as many whole groups as fit, positives first, then negatives.

    randomness: a generator, or (B,) int64 keys, one per picture; with keys a picture gets the same noise wherever
    and in whatever batch it is trained. A negative whose edges have passed each other has a side of 0.
    """
    (batch, objects), slots, device = targets.labels.shape, config.slots, targets.labels.device
    numbers = uniform_numbers(randomness, batch, objects + 10 * slots, device)
    u_order, u_flip, u_class, u_shift, u_sign = numbers.split_with_sizes(
        [objects, slots, slots, 4 * slots, 4 * slots], dim=1
    )

    # the valid objects in random order, so that a picture with more than slots / 2 keeps a random part of them
    order = (u_order + 2.0 * ~targets.valid).argsort(dim=1)
    kept = targets.valid.sum(1, keepdim=True).clamp(max=slots // 2)
    divisor = kept.clamp(min=1)
    slot = torch.arange(slots, device=device)
    group = slot // (2 * divisor)
    within = slot % (2 * divisor)
    occupied = (group < (slots // 2) // divisor) & (kept > 0)
    positive = occupied & (within < kept)
    target = order.gather(1, within % divisor) * occupied

    redrawn = (u_class * config.classes).long().clamp(max=config.classes - 1)
    labels = torch.where(u_flip < config.label_noise / 2, redrawn, targets.labels.gather(1, target))

    truth = targets.boxes_cxcywh.float().gather(1, target[..., None].expand(-1, -1, 4))
    half_sides = (truth[..., 2:] / 2).repeat(1, 1, 2)
    steps = u_shift.view(batch, slots, 4) + ~positive[..., None]
    signs = torch.where(u_sign.view(batch, slots, 4) < 0.5, -1.0, 1.0)
    noisy = xyxy_to_cxcywh((cxcywh_to_xyxy(truth) + signs * steps * half_sides * config.box_noise).clamp(0, 1))
    return DenoisingQueries(
        labels=torch.where(occupied, labels, config.classes),
        boxes_cxcywh=torch.where(occupied[..., None], noisy.clamp(min=0), 0.5),
        group=torch.where(occupied, group, -1),
        positive=positive,
        target=target,
    )


def uniform_numbers(randomness: torch.Generator | Tensor, batch: int, count: int, device: torch.device | str) -> Tensor:
    """(batch, count) float32 in [0, 1), from a generator or from one int64 key per row; the same on every device."""
    if isinstance(randomness, torch.Generator):
        return torch.rand((batch, count), generator=randomness, device=randomness.device).to(device)
    if tuple(randomness.shape) != (batch,) or randomness.dtype != torch.int64:
        raise ValueError(f"keys must be ({batch},) int64, got {tuple(randomness.shape)} {randomness.dtype}")
    keys = _mix(randomness.to(device))[:, None]
    return (_mix(keys + torch.arange(count, device=device)) >> 40 & (1 << 24) - 1).float() / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    """int64 to int64 with every input bit spread over all output bits: the finaliser of SplitMix64, which wraps."""
    x = x * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ (x >> 31 & (1 << 33) - 1)
