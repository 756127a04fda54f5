"""The first blocks of a backbone computed strip by strip: what lies between two convolutions then stays in the cache.

An inverted bottleneck widens its map sixfold, on the finest maps to tens of megabytes that a processor writes to memory
and reads back. Here a block is computed for a few rows of its output at a time, each strip from the rows that it
depends on, which gives the same numbers. Only for graphs that run on a processor: a GPU has other limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.model.backbone import EfficientNat, LiteNat, ResBlock
from ledetr.model.layers import ConvNorm, FusedMBConv, MBConv

# Blocks whose widest map is larger are cut, into strips of about so many bytes of it: what two cores keep in their
# second-level caches.
LARGE_BYTES = 3 * 2**20
STRIP_BYTES = 3 * 2**19


def cut_backbone(backbone: EfficientNat | LiteNat, input_hw: tuple[int, int]) -> nn.Module:
    """Large maps of a folded backbone in strips, in place, for inputs of this size; gives what takes the input now."""
    stages = [list(cast(nn.Sequential, stage)) for stage in backbone.stages]
    first_map = backbone.outputs[0] if isinstance(backbone, LiteNat) else len(stages) - 3
    groups = [[cast(nn.Module, backbone.stem)], *([block] for stage in stages[: first_map + 1] for block in stage)]
    if isinstance(backbone, LiteNat):
        # Rows around a strip cost little where convolutions are depthwise: everything up to the first halving is one.
        joined = next(i for i, (block,) in enumerate(groups) if i and _halves(block)) + 1
        groups = [[block for group in groups[:joined] for block in group], *groups[joined:]]
    cut: list[nn.Module] = []
    size_hw = input_hw
    for group in groups:
        part, size_hw = _cut(group, size_hw)
        cut.append(part)
    backbone.stem = nn.Sequential(*cut)  # type: ignore[assignment]
    for i in range(first_map + 1):
        backbone.stages[i] = nn.Sequential()
    return cut[0]


def _cut(blocks: Sequence[nn.Module], size_hw: tuple[int, int]) -> tuple[nn.Module, tuple[int, int]]:
    """The blocks one after the other, in strips if their maps are large, and the size of what comes out."""
    largest = convs = 0
    for conv in (conv for block in blocks for conv in _convs(block)):
        size_hw = (_length_after(conv, size_hw[0]), _length_after(conv, size_hw[1]))
        largest = max(largest, 4 * conv.conv.out_channels * size_hw[0] * size_hw[1])
        convs += 1
    count = min(math.ceil(largest / STRIP_BYTES), size_hw[0]) if convs > 1 and largest > LARGE_BYTES else 1
    return (Strips(blocks, count) if count > 1 else nn.Sequential(*blocks)), size_hw


def _halves(block: nn.Module) -> bool:
    return any(conv.conv.stride[0] == 2 for conv in _convs(block))


class Rows(NamedTuple):
    """Rows start to stop of a map; they may lie outside of it, where it is padded with zeros."""

    start: int
    stop: int

    def inside(self, height: int) -> Rows:
        """What of them the map has."""
        return Rows(max(self.start, 0), min(self.stop, height))


class Strips(nn.Module):
    """Blocks one after the other, as nn.Sequential, computed in `count` strips of the last map's rows.

    blocks: ConvNorm, MBConv, FusedMBConv and ResBlock, norms folded. forward: (B, C, H, W) of the size it was made for,
    or (B, H, W, C) where `channels_last` was set: cut first and permuted then, an engine finds nothing to move.
    """

    def __init__(self, blocks: Sequence[nn.Module], count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.count = count
        self.channels_last = False

    def forward(self, x: Tensor) -> Tensor:
        heights = [int(x.shape[1 if self.channels_last else 2])]
        for block in self.blocks:
            heights.append(_height_after(block, heights[-1]))
        edges = [round(i * heights[-1] / self.count) for i in range(self.count + 1)]
        strips = [self._strip(x, heights, Rows(a, b)) for a, b in pairwise(edges)]
        return torch.cat(strips, 2)

    def _strip(self, x: Tensor, heights: Sequence[int], wanted: Rows) -> Tensor:
        needed = [wanted]
        for block, height in zip(reversed(self.blocks), reversed(heights[:-1]), strict=True):
            needed.append(_needed(block, needed[-1]).inside(height))
        needed.reverse()
        rows = slice(needed[0].start, needed[0].stop)
        x = x[:, rows].permute(0, 3, 1, 2) if self.channels_last else x[:, :, rows]
        for i, block in enumerate(self.blocks):
            x = _rows_of(block, x, needed[i], heights[i], needed[i + 1])
        return x


def _convs(block: nn.Module) -> list[ConvNorm]:
    """The convolutions of a block, in order."""
    if isinstance(block, ConvNorm):
        return [block]
    if isinstance(block, MBConv):
        return [conv for conv in (block.expand, block.depth, block.project) if isinstance(conv, ConvNorm)]
    if isinstance(block, ResBlock):
        return [block.conv1, block.conv2]
    assert isinstance(block, FusedMBConv)
    return [block.expand, block.project]


def _has_shortcut(block: nn.Module) -> bool:
    return isinstance(block, ResBlock) or (isinstance(block, MBConv | FusedMBConv) and block.shortcut)


class _Window(NamedTuple):
    """A convolution along one axis: kernel, stride, and the zeros in front and behind."""

    kernel: int
    stride: int
    low: int
    high: int


def _window(conv: ConvNorm) -> _Window:
    kernel, stride = conv.conv.kernel_size[0], conv.conv.stride[0]
    padding = conv.conv.padding
    assert not isinstance(padding, str)
    low, high = conv.shifted_pad if conv.shifted_pad is not None else (int(padding[0]), int(padding[0]))
    return _Window(kernel, stride, low, high)


def _length_after(conv: ConvNorm, length: int) -> int:
    kernel, stride, low, high = _window(conv)
    return (length + low + high - kernel) // stride + 1


def _height_after(block: nn.Module, height: int) -> int:
    for conv in _convs(block):
        height = _length_after(conv, height)
    return height


def _before(conv: ConvNorm, rows: Rows) -> Rows:
    """Rows of its input that a convolution needs for these rows of its output, zeros around the map included."""
    kernel, stride, low, _ = _window(conv)
    return Rows(rows.start * stride - low, (rows.stop - 1) * stride - low + kernel)


def _needed(block: nn.Module, rows: Rows) -> Rows:
    """Rows of a block's input, zeros around the map left out as far as they are known here."""
    first = rows
    for conv in reversed(_convs(block)):
        first = _before(conv, first)
    return first


def _rows_of(block: nn.Module, x: Tensor, have: Rows, height: int, wanted: Rows) -> Tensor:
    """These rows of a block's output, from rows `have` of its input, which is `height` high in full."""
    convs = _convs(block)
    heights = [height]
    for conv in convs:
        heights.append(_length_after(conv, heights[-1]))
    wants = [wanted]
    for conv, full in zip(reversed(convs[1:]), reversed(heights[1:-1]), strict=True):
        wants.append(_before(conv, wants[-1]).inside(full))
    wants.reverse()
    out, at = x, have
    for conv, full, want in zip(convs, heights[:-1], wants, strict=True):
        out = _conv_rows(conv, out, at, full, want)
        at = want
    if _has_shortcut(block):
        out = out + x[:, :, wanted.start - have.start : wanted.stop - have.start]
    return out


def _conv_rows(conv: ConvNorm, x: Tensor, have: Rows, height: int, want: Rows) -> Tensor:
    """Rows `want` of a convolution's output, from rows `have` of its input."""
    _, _, low, high = _window(conv)
    need = _before(conv, want)
    inside = need.inside(height)
    x = x[:, :, inside.start - have.start : inside.stop - have.start]
    top, bottom = inside.start - need.start, need.stop - inside.stop
    if any((low, high, top, bottom)):
        x = F.pad(x, (low, high, top, bottom))
    plain = conv.conv
    return conv.act(F.conv2d(x, plain.weight, plain.bias, plain.stride, 0, plain.dilation, plain.groups))
