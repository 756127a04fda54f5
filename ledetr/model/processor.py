"""The deploy form as a graph that a processor runs well: the same function, other shapes of the work.

What it changes, and what each change brought, is in docs/latency.md: pixels are normalised before they change their
layout, large maps of the backbone are computed in strips, no map is split or joined along its channels where two
convolutions will do, a 1x1 convolution comes before an upsampling and not behind it, and two in a row become one.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.model.encoder import CspRep, Elan, HybridEncoder, SplitBottleneck
from ledetr.model.layers import ConvNorm
from ledetr.model.ledetr import LeDetr
from ledetr.model.strips import Strips, cut_backbone


class ForProcessor(nn.Module):
    """A deploy form (LeDetr.fused), reshaped in place, for inputs of one size.

    forward: pixels (B, H, W, 3) uint8 RGB to logits (B, Q, C) and boxes_cxcywh (B, Q, 4), as LeDetr gives them.
    """

    def __init__(self, deploy: LeDetr, input_hw: tuple[int, int]) -> None:
        super().__init__()
        first = cut_backbone(deploy.backbone, input_hw)
        self.takes_channels_last = isinstance(first, Strips)
        if isinstance(first, Strips):
            first.channels_last = True
        if isinstance(deploy.encoder, HybridEncoder):
            deploy.encoder = HybridInParts(deploy.encoder)  # type: ignore[assignment]
        else:
            _split_elans(deploy.encoder)
        self.network = deploy

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        # Convolutions want channels last, as the pixels come. Pixels that are permuted right where a convolution takes
        # them need not move.
        network = self.network
        images = network.normalize(pixels.float())
        maps = network.backbone(images if self.takes_channels_last else images.permute(0, 3, 1, 2))
        return cast(tuple[Tensor, Tensor], network.decoder(network.encoder(maps)))


class ElanInParts(nn.Module):
    """Elan whose first convolution gives its two halves one by one: cutting a map along its channels copies it."""

    def __init__(self, elan: Elan) -> None:
        super().__init__()
        self.kept, self.deep = halves_of(elan.inp)
        self.stage1, self.stage2 = (BottleneckInParts(stage) for stage in (elan.stage1, elan.stage2))
        self.out = elan.out

    def forward(self, x: Tensor) -> Tensor:
        deep = self.deep(x)
        first = self.stage1(deep)
        return self.out(torch.cat([self.kept(x), deep, first, self.stage2(first)], 1))


class BottleneckInParts(nn.Module):
    """SplitBottleneck in the same manner."""

    def __init__(self, block: SplitBottleneck) -> None:
        super().__init__()
        self.kept, self.deep = halves_of(block.inp)
        self.bottleneck, self.out = block.bottleneck, block.out

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.kept(x) + self.bottleneck(self.deep(x)))


def halves_of(conv: ConvNorm) -> tuple[nn.Module, nn.Module]:
    """Two convolutions that give the first and the second half of a folded one's channels."""
    plain = conv.conv
    assert plain.bias is not None and plain.groups == 1 and not isinstance(plain.padding, str)
    parts = []
    for weight, bias in zip(plain.weight.chunk(2), plain.bias.chunk(2), strict=True):
        kernel, stride, padding = plain.kernel_size, plain.stride, plain.padding
        half = nn.Conv2d(plain.in_channels, len(bias), kernel, stride, padding)  # type: ignore[arg-type]
        half.weight, half.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        parts.append(nn.Sequential(half, conv.act))
    return parts[0], parts[1]


def _split_elans(encoder: nn.Module) -> None:
    for name, child in list(encoder.named_children()):
        if isinstance(child, Elan):
            setattr(encoder, name, ElanInParts(child))


class HybridInParts(nn.Module):
    """HybridEncoder without a joined or upsampled map in front of a 1x1 convolution.

    The projections of the two finer levels are part of the fusion blocks that alone read them.
    """

    def __init__(self, encoder: HybridEncoder) -> None:
        super().__init__()
        projections = [cast(ConvNorm, projection) for projection in encoder.projections]
        self.projection = projections[2]
        self.naifi, self.lateral, self.down = encoder.naifi, encoder.lateral, encoder.down
        top_down = [cast(CspRep, block) for block in encoder.top_down]
        self.top_down = nn.ModuleList(
            CspRepOfTwo(block, upsampled=True, projection=projection)
            for block, projection in zip(top_down, (projections[1], projections[0]), strict=True)
        )
        self.bottom_up = nn.ModuleList(
            CspRepOfTwo(cast(CspRep, block), upsampled=False, projection=None) for block in encoder.bottom_up
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = maps
        lateral5 = self.lateral[0](self.naifi(self.projection(coarse)))
        lateral4 = self.lateral[1](self.top_down[0](lateral5, middle))
        out3 = self.top_down[1](lateral4, fine)
        out4 = self.bottom_up[0](self.down[0](out3), lateral4)
        out5 = self.bottom_up[1](self.down[1](out4), lateral5)
        return [out3, out4, out5]


class CspRepOfTwo(nn.Module):
    """A folded CspRep whose input is a join of two maps, the first of which may have half the size.

    projection: a folded 1x1 convolution without activation that the second map went through.
    """

    def __init__(self, block: CspRep, *, upsampled: bool, projection: ConvNorm | None) -> None:
        super().__init__()
        self.upsampled = upsampled
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        for conv in (block.deep, block.side):
            first, second = _columns_of(conv.conv, projection)
            self.first.append(first)
            self.second.append(second)
        self.act = block.deep.act
        self.blocks, self.out = block.blocks, block.out

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        deep, side = (self._join(i, a, b) for i in range(2))
        return self.out(self.blocks(deep) + side)

    def _join(self, i: int, a: Tensor, b: Tensor) -> Tensor:
        part = self.first[i](a)
        if self.upsampled:
            part = F.interpolate(part, scale_factor=2.0, mode="nearest")
        return self.act(self.second[i](b) + part)


def _columns_of(conv: nn.Conv2d, projection: ConvNorm | None) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two 1x1 convolutions, without and with bias, whose sum is what `conv` gives of the join of their inputs."""
    assert conv.kernel_size == (1, 1) and conv.bias is not None
    first, second = conv.weight.detach().double().chunk(2, 1)
    bias = conv.bias.detach().double()
    if projection is not None:
        inner = projection.conv
        assert inner.kernel_size == (1, 1) and inner.bias is not None
        bias = bias + second[:, :, 0, 0] @ inner.bias.detach().double()
        second = (second[:, :, 0, 0] @ inner.weight.detach().double()[:, :, 0, 0])[:, :, None, None]
    return _pointwise(first, None), _pointwise(second, bias)


def _pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight = nn.Parameter(weight.float(), False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.float(), False)
    return conv
