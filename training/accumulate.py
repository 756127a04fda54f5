"""One step in several parts: the memory of a small batch, the losses and gradients of the whole one.

The criterion divides by counts over the whole batch, and those come from the matching, so parts cannot simply be
added up. Instead every part is run once without a graph, the criterion sees all outputs joined, and each part is run
again to carry its share of the gradient back. That costs one more forward pass. Only batch statistics are those of a
part.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ledetr.model.outputs import DenoisingQueries, QueryOutputs, TrainOutputs

LAYERED = ("logits", "boxes_cxcywh", "corners")
"""Fields of QueryOutputs whose first axis is the layer; the batch is their second."""
WITHOUT_BATCH = ("anchors_cxcywh", "anchor_valid")
Losses = dict[str, Tensor]
Outputs = TypeVar("Outputs", TrainOutputs, QueryOutputs)


def backward_in_parts(
    model: nn.Module,
    forward: Callable[[Tensor, DenoisingQueries], TrainOutputs],
    pixels: Tensor,
    noisy: DenoisingQueries,
    parts: int,
    criterion: Callable[[TrainOutputs], Losses],
) -> Losses:
    """The losses of the whole batch; their gradients are added to those of the parameters.

    forward: the model on pixels and denoising queries, in train mode. pixels: (B, 3, H, W), B a multiple of parts.
    criterion: the losses of joined outputs, "total" among them.
    """
    slices = [slice(start, start + len(pixels) // parts) for start in range(0, len(pixels), len(pixels) // parts)]
    with torch.no_grad(), _kept_statistics(model):
        outputs = joined([forward(pixels[part], _cut(noisy, part)) for part in slices])
    wanted = [tensor for tensor, _ in _tensors(outputs) if tensor.is_floating_point()]
    for tensor in wanted:
        tensor.requires_grad_()
    losses = criterion(outputs)
    losses["total"].backward()
    for part in slices:
        again = forward(pixels[part], _cut(noisy, part))
        pairs = [
            (tensor, whole.grad[(slice(None),) * axis + (part,)])
            for (tensor, axis), (whole, _) in zip(_tensors(again), _tensors(outputs), strict=True)
            if tensor.requires_grad and whole.grad is not None
        ]
        torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
    return losses


def joined(outputs: list[TrainOutputs]) -> TrainOutputs:
    """The outputs of several parts of a batch as those of the whole."""
    first = outputs[0]
    denoising = [o.denoising for o in outputs if o.denoising is not None]
    whole = _joined(outputs, ("matching", "denoising", *WITHOUT_BATCH))
    return replace(
        whole,
        matching=_joined([o.matching for o in outputs]),
        denoising=_joined(denoising) if denoising else None,
        anchors_cxcywh=first.anchors_cxcywh,
        anchor_valid=first.anchor_valid,
    )


def _joined(outputs: list[Outputs], left: tuple[str, ...] = ()) -> Outputs:
    names = [field.name for field in fields(outputs[0]) if field.name not in left]
    values: dict[str, Any] = {name: torch.cat([getattr(o, name) for o in outputs], dim=_axis(name)) for name in names}
    return replace(outputs[0], **values)


def _axis(name: str) -> int:
    return 1 if name in LAYERED else 0


def _tensors(outputs: TrainOutputs) -> list[tuple[Tensor, int]]:
    """Every tensor with a batch axis, and which axis that is; always in the same order."""
    found = []
    for queries in (outputs.matching, outputs.denoising):
        if queries is not None:
            found += [(getattr(queries, field.name), _axis(field.name)) for field in fields(queries)]
    return [*found, (outputs.encoder_logits, 0), (outputs.encoder_boxes_cxcywh, 0), (outputs.dense_logits, 0)]


def _cut(noisy: DenoisingQueries, part: slice) -> DenoisingQueries:
    return replace(noisy, **{field.name: getattr(noisy, field.name)[part] for field in fields(noisy)})


@contextmanager
def _kept_statistics(model: nn.Module) -> Iterator[None]:
    """Forward passes inside leave no trace in the running statistics."""
    buffers = [b for module in model.modules() if isinstance(module, _BatchNorm) for b in module.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    yield
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)
