"""Small building blocks: convolution with BatchNorm, inverted bottlenecks, MLP, RMSNorm, and how each is folded."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Act = Literal["none", "gelu", "silu", "relu", "relu6"]
_ACTS: dict[Act, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    # The tanh form, as EfficientViT uses it.
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
}


def build_act(act: Act) -> nn.Module:
    """The activation of that name."""
    return _ACTS[act]()


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation, in this order; norm or bias may be left out.

    same="tf": TensorFlow's SAME padding, which puts the odd pixel of a stride-2 window to the right and below.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        act: Act = "none",
        norm: bool = True,
        bias: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        same: Literal["symmetric", "tf"] = "symmetric",
    ) -> None:
        super().__init__()
        shifted = same == "tf" and stride == 2
        low = (kernel - 2) // 2 if shifted else kernel // 2
        self.shifted_pad = (low, kernel - 2 - low) if shifted else None
        self.conv = nn.Conv2d(
            inp, out, kernel, stride, padding=0 if shifted else kernel // 2, groups=groups, bias=bias or not norm
        )
        self.norm: nn.Module = nn.BatchNorm2d(out, eps=eps, momentum=momentum) if norm else nn.Identity()
        self.act = build_act(act)

    def forward(self, x: Tensor) -> Tensor:
        if self.shifted_pad is not None:
            low, high = self.shifted_pad
            x = F.pad(x, (low, high, low, high))
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> None:
        """BatchNorm into the convolution; the module computes the same function as before, in eval mode."""
        if isinstance(self.norm, nn.BatchNorm2d):
            weight, bias = folded(self.conv, self.norm)
            self.conv = _conv_like(self.conv, weight, bias)
            self.norm = nn.Identity()


def folded(conv: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution or linear layer that does what conv and then norm do."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale.reshape(-1, *[1] * (conv.weight.dim() - 1))
    bias = torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias
    return weight.detach(), ((bias - norm.running_mean) * scale + norm.bias).detach()


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    padding = conv.padding if isinstance(conv.padding, str) else tuple(conv.padding)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    new = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, conv.stride, padding, groups=conv.groups)  # type: ignore[arg-type]
    new = new.to(weight.device, weight.dtype)
    new.weight.data.copy_(weight)
    assert new.bias is not None
    new.bias.data.copy_(bias)
    return new


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion, depthwise, 1x1 projection.

    style "biased" (EfficientViT): the first two convolutions have a bias and no norm. style "normed" (EfficientNet):
    norm after all three. No expansion convolution where expand is 1 in style "normed".
    """

    def __init__(
        self,
        inp: int,
        out: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        expand: int,
        act: Act,
        style: Literal["biased", "normed"] = "biased",
        shortcut: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        same: Literal["symmetric", "tf"] = "symmetric",
    ) -> None:
        super().__init__()
        hidden = inp * expand
        normed = style == "normed"
        self.expand: nn.Module = nn.Identity()
        if expand != 1 or not normed:
            self.expand = ConvNorm(inp, hidden, act=act, norm=normed, eps=eps, momentum=momentum)
        self.depth = ConvNorm(
            hidden,
            hidden,
            kernel,
            stride=stride,
            groups=hidden,
            act=act,
            norm=normed,
            eps=eps,
            momentum=momentum,
            same=same,
        )
        self.project = ConvNorm(hidden, out, eps=eps, momentum=momentum)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depth(self.expand(x)))
        return x + out if self.shortcut else out


class FusedMBConv(nn.Module):
    """Inverted bottleneck whose expansion and depthwise convolution are one dense convolution."""

    def __init__(self, inp: int, out: int, *, stride: int, expand: int, act: Act, shortcut: bool = False) -> None:
        super().__init__()
        self.expand = ConvNorm(inp, inp * expand, 3, stride=stride, act=act)
        self.project = ConvNorm(inp * expand, out)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.expand(x))
        return x + out if self.shortcut else out


class RepConv(nn.Module):
    """RepVGG block without identity branch: act(BN(3x3) + BN(1x1)); one 3x3 convolution once folded."""

    def __init__(self, dim: int, *, act: Act) -> None:
        super().__init__()
        self.wide: nn.Module = ConvNorm(dim, dim, 3)
        self.narrow: nn.Module | None = ConvNorm(dim, dim, 1)
        self.act = build_act(act)

    def forward(self, x: Tensor) -> Tensor:
        out = self.wide(x)
        return self.act(out if self.narrow is None else out + self.narrow(x))

    def fold(self) -> None:
        """Both branches into one 3x3 convolution."""
        if self.narrow is None:
            return
        assert isinstance(self.wide, ConvNorm) and isinstance(self.narrow, ConvNorm)
        self.wide.fold()
        self.narrow.fold()
        wide, narrow = self.wide.conv, self.narrow.conv
        assert wide.bias is not None and narrow.bias is not None
        self.wide = _conv_like(wide, wide.weight + F.pad(narrow.weight, (1, 1, 1, 1)), wide.bias + narrow.bias)
        self.narrow = None


class Mlp(nn.Module):
    """Linear layers with an activation between them: inp, hidden, ..., hidden, out."""

    def __init__(self, inp: int, hidden: int, out: int, *, layers: int, act: Act) -> None:
        super().__init__()
        widths = [inp, *[hidden] * (layers - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = build_act(act)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)


class SwiGlu(nn.Module):
    """Feed-forward with a SiLU gate: out(silu(a) * b), a and b from one linear layer."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_value = nn.Linear(dim, 2 * hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_value(x).chunk(2, -1)
        return self.out(F.silu(gate) * value)


class RmsNorm(nn.Module):
    """x / rms(x) * weight, in float32 whatever comes in: squares overflow in half precision."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        out = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (out * self.weight.float()).to(x.dtype)


def fold_all(module: nn.Module) -> None:
    """Fold every BatchNorm and every branch below `module`, in place; outputs in eval mode stay equal."""
    for child in list(module.modules()):
        if child is not module and isinstance(child, RepConv):
            child.fold()
    for child in list(module.modules()):
        fold = getattr(child, "fold", None)
        if child is not module and callable(fold):
            fold()
