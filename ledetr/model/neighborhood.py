"""Neighborhood attention: every position attends to the window around it, moved inwards at the borders.

Semantics as in NATTEN (paper section 3.4; arXiv:2204.07143): a window of k positions along each axis, at dilation d
within the position's own group; it never leaves the map and is never padded. Where the group has fewer than k
positions the window is the whole group. An even window reaches one further to the left.

Legend: B batch, h heads, H W grid, E head width. Maps are (B, h, H, W, E). A sequence is a map with H = 1.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.model.constants import constant

Route = Literal["auto", "dense", "tiled", "flex", "natten", "reference"]
# Above this many positions a tiled window is cheaper than one masked attention over the whole map (CPU, 25 x 25).
DENSE_LIMIT = 625
# Finite on purpose: minus infinity exports as guards against NaN, and overflows in half precision.
MASKED = -1e4


def neighborhood_attention(
    q: Tensor, k: Tensor, v: Tensor, *, kernel: tuple[int, int], dilation: int = 1, route: Route = "auto"
) -> Tensor:
    """Attention of each position over its neighborhood; all (B, h, H, W, E), scale E ** -0.5.

    Routes agree to rounding: "dense" masks one full attention, "tiled" (dilation 1) lets tiles of queries see fixed
    slabs of keys, "flex" and "natten" are optional kernels, "reference" is a plain loop for tests.
    """
    size_hw = (int(q.shape[2]), int(q.shape[3]))
    if route == "auto":
        tiled_pays = size_hw[0] * size_hw[1] > DENSE_LIMIT and dilation == 1 and _tile_plan(size_hw, kernel) is not None
        route = "tiled" if tiled_pays else "dense"
    if route == "dense":
        return _dense(q, k, v, size_hw, kernel, dilation)
    if route == "tiled":
        return _tiled(q, k, v, size_hw, kernel, dilation)
    if route == "flex":
        return _flex(q, k, v, size_hw, kernel, dilation)
    if route == "natten":
        return _natten(q, k, v, kernel, dilation)
    return _reference(q, k, v, kernel, dilation)


def neighbors(position: int, length: int, kernel: int, dilation: int) -> range:
    """Positions that `position` sees along one axis of `length`."""
    group, local = position % dilation, position // dilation
    members = -(-(length - group) // dilation)
    window = min(kernel, members)
    start = min(max(local - kernel // 2, 0), members - window)
    return range(start * dilation + group, (start + window) * dilation + group, dilation)


def _axis_table(length: int, kernel: int, dilation: int) -> np.ndarray:
    """(length, length) bool: row i sees column j."""
    table = np.zeros((length, length), dtype=bool)
    for i in range(length):
        table[i, list(neighbors(i, length, kernel, dilation))] = True
    return table


@lru_cache(maxsize=64)
def _dense_table(size_hw: tuple[int, int], kernel: tuple[int, int], dilation: int) -> np.ndarray | None:
    """(H * W, H * W) float32: 0 where the row sees the column, MASKED elsewhere; None where every position sees all."""
    rows = _axis_table(size_hw[0], kernel[0], dilation)
    columns = _axis_table(size_hw[1], kernel[1], dilation)
    if rows.all() and columns.all():
        return None
    count = size_hw[0] * size_hw[1]
    return _additive(rows[:, None, :, None] & columns[None, :, None, :]).reshape(count, count)


def _additive(seen: np.ndarray) -> np.ndarray:
    return np.where(seen, 0.0, MASKED).astype(np.float32)


def _dense(q: Tensor, k: Tensor, v: Tensor, size_hw: tuple[int, int], kernel: tuple[int, int], dilation: int) -> Tensor:
    table = _dense_table(size_hw, kernel, dilation)
    mask = None if table is None else constant(table, q.device, q.dtype)
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    # The scale is the default one; a number that is named needs no shape operators in an exported graph.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=int(q.shape[3]) ** -0.5)
    return out.unflatten(2, size_hw)


def _tile_side(length: int) -> int | None:
    """A tile that divides the axis: large enough to share its slab, small enough to waste little of it."""
    return next((t for t in (5, 4, 6, 7, 8, 10) if length % t == 0), None)


@lru_cache(maxsize=64)
def _tile_plan(
    size_hw: tuple[int, int], kernel: tuple[int, int]
) -> tuple[tuple[int, int], tuple[np.ndarray, np.ndarray], np.ndarray | None] | None:
    """Tile sides, key rows and columns of each tile row and column, and the mask; None where a side has no tile.

    The mask is (tiles, tile positions, slab positions), 0 or MASKED, None where all are seen.
    """
    sides = (_tile_side(size_hw[0]), _tile_side(size_hw[1]))
    if sides[0] is None or sides[1] is None:
        return None
    keys, tables = [], []
    for length, window, side in zip(size_hw, kernel, sides, strict=True):
        assert side is not None
        slab = min(length, side + window - 1)
        starts = np.clip(np.arange(0, length, side) - window // 2, 0, length - slab)
        index = starts[:, None] + np.arange(slab)
        seen = _axis_table(length, window, 1).reshape(-1, side, length)
        keys.append(index.reshape(-1))
        tables.append(np.take_along_axis(seen, np.broadcast_to(index[:, None], (*seen.shape[:2], slab)), 2))
    rows, columns = tables
    mask = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    mask = mask.reshape(len(rows) * len(columns), sides[0] * sides[1], -1)
    return (sides[0], sides[1]), (keys[0], keys[1]), None if mask.all() else _additive(mask)


def _tiled(q: Tensor, k: Tensor, v: Tensor, size_hw: tuple[int, int], kernel: tuple[int, int], dilation: int) -> Tensor:
    plan = _tile_plan(size_hw, kernel)
    if dilation != 1 or plan is None:
        raise ValueError(f"no tiled route for a {size_hw[0]}x{size_hw[1]} map at dilation {dilation}")
    (tile_h, tile_w), (key_rows, key_columns), table = plan
    tiles_h, tiles_w = size_hw[0] // tile_h, size_hw[1] // tile_w
    heads, width = int(q.shape[1]), int(q.shape[4])

    def slabs(x: Tensor) -> Tensor:
        """(B, h, H, W, E) to (B * h, tiles, slab positions, E)."""
        x = x.index_select(2, constant(key_rows, x.device, torch.int64))
        x = x.index_select(3, constant(key_columns, x.device, torch.int64))
        rows, columns = len(key_rows) // tiles_h, len(key_columns) // tiles_w
        x = x.reshape(-1, tiles_h, rows, tiles_w, columns, width)
        return x.transpose(2, 3).reshape(-1, tiles_h * tiles_w, rows * columns, width)

    queries = q.reshape(-1, tiles_h, tile_h, tiles_w, tile_w, width).transpose(2, 3)
    queries = queries.reshape(-1, tiles_h * tiles_w, tile_h * tile_w, width)
    mask = None if table is None else constant(table, q.device, q.dtype)
    out = F.scaled_dot_product_attention(queries, slabs(k), slabs(v), attn_mask=mask, scale=width**-0.5)
    out = out.reshape(-1, tiles_h, tiles_w, tile_h, tile_w, width).transpose(2, 3)
    return out.reshape(-1, heads, *size_hw, width)


def _flex(q: Tensor, k: Tensor, v: Tensor, size_hw: tuple[int, int], kernel: tuple[int, int], dilation: int) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    table = _dense_table(size_hw, kernel, dilation)
    block_mask = None
    if table is not None:
        seen = constant(table, q.device, q.dtype) == 0
        count = size_hw[0] * size_hw[1]
        block_mask = create_block_mask(lambda _b, _h, i, j: seen[i, j], None, None, count, count, device=q.device)
    out = flex_attention(q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3), block_mask=block_mask)
    assert isinstance(out, Tensor)
    return out.unflatten(2, size_hw)


def _natten(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int], dilation: int) -> Tensor:
    """The package natten wants channels last, and refuses a window larger than the map."""
    import natten

    size_hw = (int(q.shape[2]), int(q.shape[3]))
    window = (min(kernel[0], size_hw[0] // dilation), min(kernel[1], size_hw[1] // dilation))
    if window != kernel and any(n % dilation for n in size_hw):
        raise ValueError(f"natten cannot clip a {kernel} window on a {size_hw} map at dilation {dilation}")
    q, k, v = (x.permute(0, 2, 3, 1, 4) for x in (q, k, v))
    out: Tensor = natten.na2d(q, k, v, kernel_size=window, dilation=dilation)
    return out.permute(0, 3, 1, 2, 4)


def _reference(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int], dilation: int) -> Tensor:
    height, width = int(q.shape[2]), int(q.shape[3])
    rows = []
    for y in range(height):
        row = []
        for x in range(width):
            ys = list(neighbors(y, height, kernel[0], dilation))
            xs = list(neighbors(x, width, kernel[1], dilation))
            keys = k[:, :, ys][:, :, :, xs].flatten(2, 3)
            values = v[:, :, ys][:, :, :, xs].flatten(2, 3)
            logits = (q[:, :, y, x, None] * keys).sum(-1) * q.shape[-1] ** -0.5
            row.append((logits.softmax(-1)[..., None] * values).sum(-2))
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)


class NeighborhoodAttention(nn.Module):
    """Multi-head neighborhood attention over a map (B, H, W, D), with an optional position code on q and k only.

    kernel 0 means every position sees all. over="sequence" slides over the row-major flattened map.
    """

    def __init__(
        self, dim: int, *, heads: int, kernel: int, dilation: int = 1, over: Literal["map", "sequence"] = "map"
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads, self.kernel, self.dilation, self.over = heads, kernel, dilation, over
        self.route: Route = "auto"
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        height, width, dim = (int(n) for n in x.shape[1:])
        if position is None:
            q, k, v = self.qkv(x).chunk(3, -1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q, k = F.linear(x + position, weight[: 2 * dim], bias[: 2 * dim]).chunk(2, -1)
            v = F.linear(x, weight[2 * dim :], bias[2 * dim :])
        grid = (1, height * width) if self.over == "sequence" else (height, width)

        def heads_first(t: Tensor) -> Tensor:
            return t.reshape(-1, *grid, self.heads, dim // self.heads).permute(0, 3, 1, 2, 4)

        kernel = (self.kernel or grid[0], self.kernel or grid[1]) if self.over == "map" else (1, self.kernel or grid[1])
        out = neighborhood_attention(
            heads_first(q), heads_first(k), heads_first(v), kernel=kernel, dilation=self.dilation, route=self.route
        )
        merged = out.permute(0, 2, 3, 1, 4).reshape(-1, height, width, dim)
        return self.proj(merged)
