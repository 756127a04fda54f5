"""The objects of a batch in tensors of one fixed shape, so that every step runs the same graph.

B batch, T object slots of a picture, I ignore slots of a picture, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What stands on the pictures of one batch; unused slots are there and marked as not valid.

    Raises ValueError when shapes or dtypes disagree. Values are not looked at, that would stop the device.
    """

    labels: Tensor
    """(B, T) int64 contiguous class in 0..C-1, any class in an unused slot."""
    boxes_cxcywh: Tensor
    """(B, T, 4) float32 in 0..1 of the network input."""
    valid: Tensor
    """(B, T) bool."""
    weight: Tensor
    """(B, T) float32: 1 for a box drawn by a person, the score in 0..1 for a soft label."""
    ignore_xyxy: Tensor | None = None
    """(B, I, 4) float32 in 0..1: crowds; who predicts inside them is not wrong."""
    ignore_valid: Tensor | None = None
    """(B, I) bool."""
    annotated: Tensor | None = None
    """(B, C) bool: False where nobody looked for this class on this picture. None: every class was looked for."""

    def __post_init__(self) -> None:
        slots = tuple(self.labels.shape)
        if len(slots) != 2 or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be (B, T) int64, got {slots} {self.labels.dtype}")
        _expect("boxes_cxcywh", self.boxes_cxcywh, (*slots, 4))
        _expect("valid", self.valid, slots, torch.bool)
        _expect("weight", self.weight, slots)
        if (self.ignore_xyxy is None) != (self.ignore_valid is None):
            raise ValueError("ignore_xyxy and ignore_valid come together or not at all")
        if self.ignore_xyxy is not None and self.ignore_valid is not None:
            _expect("ignore_valid", self.ignore_valid, (slots[0], self.ignore_xyxy.shape[1]), torch.bool)
            _expect("ignore_xyxy", self.ignore_xyxy, (*self.ignore_valid.shape, 4))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Targets":
        """The same targets on another device."""
        moved = {
            name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items() if value is not None
        }
        return replace(self, **moved)

    @property
    def effective_weight(self) -> Tensor:
        """(B, T) the weight of each object, 0 in unused slots."""
        return self.weight * self.valid


def pad_targets(
    labels: Sequence[Tensor],
    boxes_cxcywh: Sequence[Tensor],
    *,
    slots: int = 100,
    weights: Sequence[Tensor] | None = None,
    ignore_xyxy: Sequence[Tensor] | None = None,
    ignore_slots: int = 16,
) -> Targets:
    """Targets of fixed shape from one list entry per picture: labels (n,), boxes (n, 4), weights (n,).

    Raises ValueError when a picture has more objects or ignore regions than slots: which ones to leave out is for the
    caller to decide and to count.
    """
    batch = len(labels)
    targets = Targets(
        labels=torch.zeros(batch, slots, dtype=torch.int64),
        boxes_cxcywh=torch.zeros(batch, slots, 4),
        valid=torch.zeros(batch, slots, dtype=torch.bool),
        weight=torch.zeros(batch, slots),
        ignore_xyxy=None if ignore_xyxy is None else torch.zeros(batch, ignore_slots, 4),
        ignore_valid=None if ignore_xyxy is None else torch.zeros(batch, ignore_slots, dtype=torch.bool),
    )
    for index in range(batch):
        n = len(labels[index])
        if n > slots:
            raise ValueError(f"picture {index} of the batch has {n} objects, there are {slots} slots")
        targets.labels[index, :n] = labels[index]
        targets.boxes_cxcywh[index, :n] = boxes_cxcywh[index]
        targets.valid[index, :n] = True
        targets.weight[index, :n] = 1.0 if weights is None else weights[index]
        if targets.ignore_xyxy is not None and targets.ignore_valid is not None and ignore_xyxy is not None:
            m = len(ignore_xyxy[index])
            if m > ignore_slots:
                raise ValueError(f"picture {index} of the batch has {m} ignore regions, there are {ignore_slots} slots")
            targets.ignore_xyxy[index, :m] = ignore_xyxy[index]
            targets.ignore_valid[index, :m] = True
    return targets


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")
    if dtype is not None and tensor.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, got {tensor.dtype}")
