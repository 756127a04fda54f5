"""Outputs of a network that never was: random, but of the right shapes and with boxes that overlap the targets."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ledetr.losses.targets import Targets, pad_targets
from ledetr.model.outputs import QueryOutputs, TrainOutputs


def random_targets(
    counts: list[int],
    *,
    slots: int,
    classes: int,
    seed: int = 0,
    soft: bool = False,
    ignore: list[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Targets:
    """counts[b] objects on picture b, ignore[b] crowd regions."""
    g = torch.Generator().manual_seed(seed)

    def boxes(n: int) -> Tensor:
        centre = 0.2 + 0.6 * torch.rand(n, 2, generator=g)
        return torch.cat([centre, 0.05 + 0.35 * torch.rand(n, 2, generator=g)], dim=1)

    regions = None
    if ignore is not None:
        regions = [torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:]], 1) for b in map(boxes, ignore)]
    targets = pad_targets(
        [torch.randint(0, classes, (n,), generator=g) for n in counts],
        [boxes(n) for n in counts],
        slots=slots,
        weights=[torch.rand(n, generator=g) for n in counts] if soft else None,
        ignore_xyxy=regions,
        ignore_slots=4,
    )
    return Targets(
        labels=targets.labels,
        boxes_cxcywh=targets.boxes_cxcywh.to(dtype),
        valid=targets.valid,
        weight=targets.weight.to(dtype),
        ignore_xyxy=None if targets.ignore_xyxy is None else targets.ignore_xyxy.to(dtype),
        ignore_valid=targets.ignore_valid,
    )


def random_queries(
    layers: int, batch: int, queries: int, classes: int, *, reg_max: int = 32, seed: int = 1, dtype: torch.dtype
) -> QueryOutputs:
    """Every tensor is a leaf that wants a gradient, save the initial boxes, which the model hands over detached."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (1.5 * torch.randn(*shape, generator=g)).to(dtype).requires_grad_()

    def boxes(*shape: int) -> Tensor:
        centre = 0.1 + 0.8 * torch.rand(*shape, 2, generator=g)
        return torch.cat([centre, 0.05 + 0.4 * torch.rand(*shape, 2, generator=g)], dim=-1).to(dtype)

    initial = boxes(batch, queries)
    return QueryOutputs(
        logits=normal(layers, batch, queries, classes),
        boxes_cxcywh=boxes(layers, batch, queries).requires_grad_(),
        corners=normal(layers, batch, queries, 4 * (reg_max + 1)),
        initial_boxes_cxcywh=initial,
        pre_logits=normal(batch, queries, classes),
        pre_boxes_cxcywh=initial.clone().requires_grad_(),
    )


def random_outputs(
    layers: int,
    batch: int,
    queries: int,
    classes: int,
    *,
    slots: int | None = None,
    reg_max: int = 32,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> TrainOutputs:
    """slots: number of denoising slots, None for an output without denoising."""
    encoder = random_queries(1, batch, queries, classes, seed=seed + 100, reg_max=reg_max, dtype=dtype)
    noisy = None
    if slots is not None:
        noisy = random_queries(layers, batch, slots, classes, reg_max=reg_max, seed=seed + 200, dtype=dtype)
    return TrainOutputs(
        matching=random_queries(layers, batch, queries, classes, reg_max=reg_max, seed=seed, dtype=dtype),
        denoising=noisy,
        encoder_logits=encoder.pre_logits,
        encoder_boxes_cxcywh=encoder.pre_boxes_cxcywh,
        dense_logits=encoder.pre_logits,
        anchors_cxcywh=torch.rand(queries, 4),
        anchor_valid=torch.ones(queries, dtype=torch.bool),
    )


def leaves(outputs: TrainOutputs) -> list[Tensor]:
    """Every tensor a loss may send a gradient to."""
    found = [outputs.encoder_logits, outputs.encoder_boxes_cxcywh]
    for queries in (outputs.matching, outputs.denoising):
        if queries is not None:
            found += [queries.logits, queries.boxes_cxcywh, queries.corners, queries.pre_logits]
            found.append(queries.pre_boxes_cxcywh)
    return found


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """The functions above; a fixture, because test files cannot import each other."""
    return SimpleNamespace(targets=random_targets, outputs=random_outputs, leaves=leaves)
