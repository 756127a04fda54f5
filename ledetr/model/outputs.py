"""What the network hands to its losses while it trains, and what it takes from them.

B batch, L decoder layers, Q queries, C classes, D denoising slots, N positions of all encoder levels, R steps of an
edge distribution. Boxes are cxcywh in 0..1 of the network input, logits are before the sigmoid.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DenoisingQueries:
    """Noisy copies of the true boxes that the decoder shall repair, in a fixed number of slots.

    Slots of one group are a whole set of objects; groups must not see each other, and no matching query sees any.
    """

    labels: Tensor
    """(B, D) int64 noisy class, C in an empty slot."""
    boxes_cxcywh: Tensor
    """(B, D, 4) float32 noisy boxes in 0..1."""
    group: Tensor
    """(B, D) int64 group number from 0, -1 in an empty slot."""
    positive: Tensor
    """(B, D) bool: the slot shall find its object again; False for the far copies and in empty slots."""
    target: Tensor
    """(B, D) int64 index of the object among the padded targets, 0 in an empty slot."""


@dataclass(frozen=True, kw_only=True)
class QueryOutputs:
    """All that the decoder says of one set of queries, layer by layer; the last layer is the answer."""

    logits: Tensor
    """(L, B, Q, C) after the quality estimate was added."""
    boxes_cxcywh: Tensor
    """(L, B, Q, 4)."""
    corners: Tensor
    """(L, B, Q, 4 * (R + 1)) logits of the edge distributions: left, top, right, bottom."""
    initial_boxes_cxcywh: Tensor
    """(B, Q, 4) the boxes the distributions refer to, detached."""
    pre_logits: Tensor
    """(B, Q, C) of the first layer before any refinement."""
    pre_boxes_cxcywh: Tensor
    """(B, Q, 4) the initial boxes, not detached."""


@dataclass(frozen=True, kw_only=True)
class TrainOutputs:
    """One forward pass in train mode."""

    matching: QueryOutputs
    denoising: QueryOutputs | None
    """Q = D slots, in the order of DenoisingQueries; None when no denoising queries were given."""
    encoder_logits: Tensor
    """(B, Q, C) of the encoder positions that became queries, not detached."""
    encoder_boxes_cxcywh: Tensor
    """(B, Q, 4) of the same positions."""
    dense_logits: Tensor
    """(B, N, C) class scores of every encoder position."""
    anchors_cxcywh: Tensor
    """(N, 4) the box each encoder position starts from."""
    anchor_valid: Tensor
    """(N,) bool: the anchor lies inside the picture."""
