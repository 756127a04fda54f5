"""The hybrid encoder: NAIFI within the coarsest map, then fusion across scales (paper section 3.5; RT-DETR layout).

Legend: B batch, D channels, H W grid. Maps are (B, D, H, W), finest first.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.model.config import EncoderConfig
from ledetr.model.constants import constant
from ledetr.model.layers import ConvNorm, MBConv, RepConv
from ledetr.model.neighborhood import NeighborhoodAttention


@lru_cache(maxsize=16)
def _position_table(height: int, width: int, dim: int) -> np.ndarray:
    """(H, W, D) sines and cosines of column, then of row; D / 4 frequencies from 1 down to 1 / 10000."""
    frequencies = 10000.0 ** (-np.arange(dim // 4) / (dim // 4))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    angles_x, angles_y = x[..., None] * frequencies, y[..., None] * frequencies
    waves = [np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)]
    return np.concatenate(waves, -1).astype(np.float32)


def position_code(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """(H, W, D) two-dimensional sine code of a map; dim must be a multiple of four."""
    if dim % 4:
        raise ValueError(f"a position code needs a multiple of 4 channels, got {dim}")
    return constant(_position_table(height, width, dim), like.device, like.dtype)


class Naifi(nn.Module):
    """Neighborhood-attention intra-scale feature interaction: one transformer layer on the coarsest map.

    The position code goes to queries and keys only. residual "scaled": LayerNorm in front and a learned factor per
    channel, 0 at start, behind each branch, so that the layer begins as the identity.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.attention = NeighborhoodAttention(
            dim,
            heads=config.heads,
            kernel=0 if config.naifi == "full" else config.naifi_kernel,
            over="sequence" if config.naifi == "na1d" else "map",
        )
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.expand, self.project = nn.Linear(dim, config.ffn), nn.Linear(config.ffn, dim)
        self.scales = (
            nn.ParameterList([nn.Parameter(torch.zeros(dim)) for _ in range(2)])
            if config.naifi_residual == "scaled"
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        position = position_code(int(x.shape[2]), int(x.shape[3]), int(x.shape[1]), tokens)
        if self.scales is None:
            tokens = self.norm1(tokens + self.attention(tokens, position))
            tokens = self.norm2(tokens + self._feed_forward(tokens))
        else:
            tokens = tokens + self.scales[0] * self.attention(self.norm1(tokens), position)
            tokens = tokens + self.scales[1] * self._feed_forward(self.norm2(tokens))
        return tokens.permute(0, 3, 1, 2)

    def _feed_forward(self, tokens: Tensor) -> Tensor:
        return self.project(F.gelu(self.expand(tokens)))


class CspRep(nn.Module):
    """RT-DETR's fusion block: two 1x1 branches, one of them through RepVGG blocks, summed."""

    def __init__(self, inp: int, out: int, *, blocks: int, expansion: float) -> None:
        super().__init__()
        hidden = int(out * expansion)
        self.deep = ConvNorm(inp, hidden, act="silu")
        self.blocks = nn.Sequential(*[RepConv(hidden, act="silu") for _ in range(blocks)])
        self.side = ConvNorm(inp, hidden, act="silu")
        self.out: nn.Module = ConvNorm(hidden, out, act="silu") if hidden != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.deep(x)) + self.side(x))


class SplitBottleneck(nn.Module):
    """1x1 to two halves; two 3x3 convolutions on the second half; sum; one 3x3 convolution."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.inp = ConvNorm(inp, 2 * out, act="silu")
        self.bottleneck = nn.Sequential(*[ConvNorm(out, out, 3, act="silu") for _ in range(2)])
        self.out = ConvNorm(out, out, 3, act="silu")

    def forward(self, x: Tensor) -> Tensor:
        kept, deep = self.inp(x).chunk(2, 1)
        return self.out(kept + self.bottleneck(deep))


class Elan(nn.Module):
    """Aggregation block of N (shapes of DEIMv2's RepNCSPELAN4): the input's halves and two deeper stages."""

    def __init__(self, dim: int, *, inner: int) -> None:
        super().__init__()
        self.inp = ConvNorm(dim, 2 * dim, act="silu")
        self.stage1 = SplitBottleneck(dim, inner)
        self.stage2 = SplitBottleneck(inner, inner)
        self.out = ConvNorm(2 * dim + 2 * inner, dim, act="silu")

    def forward(self, x: Tensor) -> Tensor:
        wide = self.inp(x)
        first = self.stage1(wide.chunk(2, 1)[1])
        return self.out(torch.cat([wide, first, self.stage2(first)], 1))


class PooledConv(nn.Module):
    """Average pooling to half size, then a 1x1 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, act="silu")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(x, 3, stride=2, padding=1))


class GlobalFusion(nn.Module):
    """Adds the mean of the whole map to every position, then a 1x1 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, act="silu")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + x.mean((2, 3), keepdim=True))


def _up2(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class HybridEncoder(nn.Module):
    """Three levels, fused top-down and bottom-up by concatenation: the encoder of M, L and X."""

    def __init__(self, config: EncoderConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        dim = config.dim
        self.projections = nn.ModuleList(ConvNorm(width, dim) for width in widths)
        self.naifi = Naifi(config)
        self.lateral = nn.ModuleList(ConvNorm(dim, dim, act="silu") for _ in range(2))
        self.down = nn.ModuleList(ConvNorm(dim, dim, 3, stride=2, act="silu") for _ in range(2))

        def fusion() -> CspRep:
            return CspRep(2 * dim, dim, blocks=config.blocks, expansion=config.expansion)

        self.top_down = nn.ModuleList(fusion() for _ in range(2))
        self.bottom_up = nn.ModuleList(fusion() for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        p3, p4, p5 = (project(m) for project, m in zip(self.projections, maps, strict=True))
        lateral5 = self.lateral[0](self.naifi(p5))
        fused4 = self.top_down[0](torch.cat([_up2(lateral5), p4], 1))
        lateral4 = self.lateral[1](fused4)
        out3 = self.top_down[1](torch.cat([_up2(lateral4), p3], 1))
        out4 = self.bottom_up[0](torch.cat([self.down[0](out3), lateral4], 1))
        out5 = self.bottom_up[1](torch.cat([self.down[1](out4), lateral5], 1))
        return [out3, out4, out5]


class SumEncoder(nn.Module):
    """Two levels, fused by sums: the encoder of N.

    Stride 16 also hears stride 8 through a strided branch; stride 32 also hears the pooled stride-16 map.
    """

    def __init__(self, config: EncoderConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        dim, fine = config.dim, 80
        self.projections = nn.ModuleList(ConvNorm(width, dim) for width in widths[1:])
        self.fine = nn.Sequential(
            ConvNorm(widths[0], fine, act="silu"),
            ConvNorm(fine, fine, 5, stride=2, groups=fine, act="silu"),
            ConvNorm(fine, dim),
        )
        self.refine = MBConv(dim, dim, kernel=5, expand=4, act="silu", style="normed", shortcut=True)
        self.pool = PooledConv(dim)
        self.global_fusion = GlobalFusion(dim)
        self.naifi = Naifi(config)
        self.top_down = Elan(dim, inner=16)
        self.down = PooledConv(dim)
        self.bottom_up = Elan(dim, inner=16)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        c3, c4, c5 = maps
        p4 = self.refine(self.projections[0](c4) + self.fine(c3))
        p5 = self.naifi(self.global_fusion(self.projections[1](c5) + self.pool(p4)))
        out4 = self.top_down(p4 + _up2(p5))
        out5 = self.bottom_up(p5 + self.down(out4))
        return [out4, out5]


def build_encoder(config: EncoderConfig, widths: tuple[int, ...]) -> HybridEncoder | SumEncoder:
    """The encoder that the config describes, for backbone maps of these widths."""
    encoders: dict[Literal["csp_rep", "elan_sum"], type[HybridEncoder] | type[SumEncoder]] = {
        "csp_rep": HybridEncoder,
        "elan_sum": SumEncoder,
    }
    return encoders[config.fuse](config, widths)
