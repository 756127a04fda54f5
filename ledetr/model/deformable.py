"""Deformable sampling: each query reads a few points of each level, bilinearly, zeros outside the map.

Legend: B batch, h heads, E head width, Q queries, P points of all levels, N positions of all levels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SampleRoute = Literal["grid_sample", "gather"]


def deformable_attention(
    memory: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points: Sequence[int],
    *,
    route: SampleRoute = "grid_sample",
) -> Tensor:
    """(B, Q, h * E): for each query and head the weighted sum of its points.

    memory: (B, N, h * E), levels one after the other, each row-major of `shapes`. locations: (B, Q, h, P, 2) x and y in
    0..1 of the map. weights: (B, Q, h, P), summing to one over P. points: how many of P each level has.
    route "gather" is the same arithmetic without a sampling operator, for engines that lack one.
    """
    queries, heads = int(locations.shape[1]), int(locations.shape[2])
    width = int(memory.shape[2]) // heads
    sample = _sample_grid if route == "grid_sample" else _sample_gather
    # Sampling in float32: a half-precision coordinate is off by a twentieth of a cell on an 80-cell map.
    values = memory.float().reshape(-1, int(memory.shape[1]), heads, width).permute(0, 2, 3, 1)
    grids = locations.float().transpose(1, 2).flatten(0, 1)
    mixing = weights.float().transpose(1, 2).reshape(-1, 1, queries, sum(points))
    mixed, start, first = [], 0, 0
    for (height, columns), count in zip(shapes, points, strict=True):
        level = values[..., start : start + height * columns].reshape(-1, width, height, columns)
        sampled = sample(level, grids[:, :, first : first + count])
        mixed.append((sampled * mixing[..., first : first + count]).sum(-1))
        start, first = start + height * columns, first + count
    out = mixed[0]
    for level_sum in mixed[1:]:
        out = out + level_sum
    return out.reshape(-1, heads * width, queries).transpose(1, 2).to(memory.dtype)


def _sample_grid(level: Tensor, locations: Tensor) -> Tensor:
    """level (n, E, H, W), locations (n, Q, p, 2) in 0..1; gives (n, E, Q, p)."""
    return F.grid_sample(level, locations * 2 - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sample_gather(level: Tensor, locations: Tensor) -> Tensor:
    """The same by four gathers."""
    count, width, height, columns = (int(n) for n in level.shape)
    x, y = locations[..., 0] * columns - 0.5, locations[..., 1] * height - 0.5
    x0, y0 = x.floor(), y.floor()
    flat = level.flatten(2)
    out = torch.zeros(count, width, *locations.shape[1:3], dtype=level.dtype, device=level.device)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = x0 + dx, y0 + dy
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < height)
        index = row.clamp(0, height - 1) * columns + column.clamp(0, columns - 1)
        index = index.long().flatten(1)[:, None].expand(-1, width, -1)
        corner = flat.gather(2, index).reshape(out.shape)
        out = out + corner * (weight * inside)[:, None]
    return out
