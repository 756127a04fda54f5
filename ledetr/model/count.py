"""Parameters and GFLOPs of a network, counted as the paper does and as it is deployed.

One GFLOP is 1e9 operations; a multiply-accumulate is two. Elementwise layers count as the tool calflops counts them.
Attention products and bilinear sampling are not counted. The paper's way, inferred from its nine rows: the unfused
training form in eval mode with n decoder layers and all their heads; trainable parameters only, which leaves out the
frozen stages 0 and 1 and the backbone's BatchNorm, and the arithmetic of the latter. Everything runs on the "meta"
device: shapes without values, so counting takes no memory and little time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ledetr.model.backbone import EfficientNat, freeze_norms, freeze_stages
from ledetr.model.config import ModelConfig
from ledetr.model.layers import RmsNorm
from ledetr.model.ledetr import LeDetr, build_model


@dataclass(frozen=True, slots=True)
class Count:
    """params_m: millions of parameters. gflops: 1e9 operations of one forward pass."""

    params_m: float
    gflops: float


def count_paper(config: ModelConfig, *, layers: int | None = None, size_hw: tuple[int, int] = (640, 640)) -> Count:
    """The paper's way for M, L, X; for N, which freezes nothing, all parameters of the unfused form.

    layers: decoder layers, by default those the scale uses.
    """
    model = build_model(config, device="meta").eval()
    model.decoder.keep_layers(layers or config.decoder.eval_layers)
    used = model.decoder.used_layers
    model.decoder.scores = model.decoder.scores[:used]
    model.decoder.quality = model.decoder.quality[:used]
    if isinstance(model.backbone, EfficientNat):
        freeze_stages(model.backbone)
        freeze_norms(model.backbone)
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Count(params / 1e6, _gflops(model, size_hw, every_head=True))


def count_deploy(config: ModelConfig, *, layers: int | None = None, size_hw: tuple[int, int] = (640, 640)) -> Count:
    """What is run: norms and branches folded, only the heads that are used."""
    return count_network(
        build_model(config, device="meta").fused(layers or config.decoder.eval_layers), size_hw=size_hw
    )


def count_network(model: LeDetr, *, size_hw: tuple[int, int]) -> Count:
    """A network on the "meta" device, in eval mode, as it is."""
    params = sum(p.numel() for p in model.parameters())
    return Count(params / 1e6, _gflops(model, size_hw, every_head=False))


def _gflops(model: LeDetr, size_hw: tuple[int, int], *, every_head: bool) -> float:
    total = 0
    frozen_norms = {
        id(m) for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.requires_grad
    }

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        if id(module) not in frozen_norms:
            total += _operations(module, inputs, output)

    handles = [m.register_forward_hook(hook) for m in model.modules() if type(m) in _COUNTED]
    with torch.no_grad():
        model(torch.empty(1, 3, *size_hw, device="meta"))
        if every_head:
            _run_unused_heads(model)
    for handle in handles:
        handle.remove()
    # The position MLP and attention projections that run as plain functions are added by hand.
    return (total + _functional_operations(model, size_hw)) / 1e9


def _run_unused_heads(model: LeDetr) -> None:
    """Class and quality heads of the layers before the last: inference skips them, the paper's count has them."""
    decoder = model.decoder
    content = torch.empty(1, decoder.config.queries, decoder.config.dim, device="meta")
    corners = torch.empty(1, decoder.config.queries, 4 * (decoder.config.reg_max + 1), device="meta")
    for i in range(decoder.used_layers - 1):
        decoder.quality[i](decoder.scores[i](content), corners, decoder.config.reg_max + 1)


def _functional_operations(model: LeDetr, size_hw: tuple[int, int]) -> int:
    """Query, key and value projections, which are called as functions because the position code skips the values."""
    config = model.config
    tokens = (size_hw[0] // 32) * (size_hw[1] // 32)
    naifi = 2 * tokens * 3 * config.encoder.dim**2
    decoder = 2 * config.decoder.queries * 3 * config.decoder.dim**2 * model.decoder.used_layers
    return naifi + decoder


def _linear(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
    return 2 * output.numel() * int(inputs[0].shape[-1])


def _conv(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
    assert isinstance(module, nn.Conv2d)
    taps = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
    return 2 * output.numel() * taps


def _per_element(factor: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], int]:
    return lambda module, inputs, output: factor * output.numel()


_COUNTED: dict[type[nn.Module], Callable[[nn.Module, tuple[Any, ...], Tensor], int]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _per_element(2),
    nn.LayerNorm: _per_element(5),
    RmsNorm: _per_element(4),
    nn.GELU: _per_element(1),
    nn.SiLU: _per_element(1),
    nn.ReLU: _per_element(1),
    nn.ReLU6: _per_element(1),
}


def _operations(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
    return _COUNTED[type(module)](module, inputs, output)
