"""Every route of neighborhood attention against a loop written here from the definition."""

import importlib.util
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ledetr.model.neighborhood import NeighborhoodAttention, neighborhood_attention, neighbors

# float64 rounding of sums in another order
EXACT = 1e-10


def window_by_definition(i: int, length: int, kernel: int, dilation: int) -> list[int]:
    """All positions of i's dilation group, cut to `kernel` of them around i, pushed inwards at the ends."""
    group = [j for j in range(length) if j % dilation == i % dilation]
    size = min(kernel, len(group))
    start = group.index(i) - kernel // 2
    start = max(0, min(start, len(group) - size))
    return group[start : start + size]


def attention_by_definition(q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, int], dilation: int) -> Tensor:
    out = torch.zeros_like(q)
    batch, heads, height, width, dim = q.shape
    for b in range(batch):
        for h in range(heads):
            for y in range(height):
                for x in range(width):
                    seen = [
                        (j, i)
                        for j in window_by_definition(y, height, kernel[0], dilation)
                        for i in window_by_definition(x, width, kernel[1], dilation)
                    ]
                    logits = torch.stack([(q[b, h, y, x] * k[b, h, j, i]).sum() / math.sqrt(dim) for j, i in seen])
                    share = logits.exp() / logits.exp().sum()
                    out[b, h, y, x] = sum(s * v[b, h, j, i] for s, (j, i) in zip(share, seen, strict=True))
    return out


def random_maps(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


@given(length=st.integers(1, 40), kernel=st.integers(1, 50), dilation=st.integers(1, 4), position=st.integers(0, 39))
def test_neighbors_follow_the_definition(length: int, kernel: int, dilation: int, position: int) -> None:
    position %= length
    assert list(neighbors(position, length, kernel, dilation)) == window_by_definition(
        position, length, kernel, dilation
    )


def test_even_window_reaches_one_further_left() -> None:
    assert list(neighbors(5, 20, 4, 1)) == [3, 4, 5, 6]


CASES = [
    # height, width, kernel, dilation: odd, even, larger than the map, dilated, not square, one-dimensional
    (5, 5, (3, 3), 1),
    (6, 4, (4, 4), 1),
    (4, 5, (7, 7), 1),
    (7, 6, (3, 3), 2),
    (5, 8, (3, 5), 1),
    (1, 12, (1, 5), 1),
    (6, 7, (9, 3), 3),
]


@pytest.mark.parametrize(("height", "width", "kernel", "dilation"), CASES)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("route", ["dense", "reference", "flex"])
def test_route_equals_definition_in_value_and_gradient(
    route: str, height: int, width: int, kernel: tuple[int, int], dilation: int
) -> None:
    inputs = random_maps(1, 2, height, width, 8)
    wanted = attention_by_definition(*inputs, kernel, dilation)
    if route == "flex":
        # flex attention has no double precision and no gradient without a compiler on the CPU
        with torch.no_grad():
            got = neighborhood_attention(*[x.float() for x in inputs], kernel=kernel, dilation=dilation, route="flex")
        assert torch.allclose(got.double(), wanted, atol=1e-5)
        return
    got = neighborhood_attention(*inputs, kernel=kernel, dilation=dilation, route=route)  # type: ignore[arg-type]
    assert (got - wanted).abs().max() < EXACT
    weight = torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).reshape(wanted.shape)
    wanted_grads = torch.autograd.grad((wanted * weight).sum(), inputs)
    got_grads = torch.autograd.grad((got * weight).sum(), inputs)
    for a, b in zip(got_grads, wanted_grads, strict=True):
        assert (a - b).abs().max() < EXACT


@settings(max_examples=15, deadline=None)
@given(
    size=st.sampled_from([(10, 10), (5, 15), (20, 12), (16, 8), (25, 10), (26, 26)]),
    kernel=st.sampled_from([3, 4, 7, 9, 13, 40]),
)
def test_tiled_equals_dense(size: tuple[int, int], kernel: int) -> None:
    """Value and gradient; 26 has no tile side and must say so."""
    inputs = random_maps(2, 1, *size, 4)
    if size == (26, 26):
        with pytest.raises(ValueError, match="no tiled route for a 26x26 map"):
            neighborhood_attention(*inputs, kernel=(kernel, kernel), route="tiled")
        return
    tiled = neighborhood_attention(*inputs, kernel=(kernel, kernel), route="tiled")
    dense = neighborhood_attention(*inputs, kernel=(kernel, kernel), route="dense")
    assert (tiled - dense).abs().max() < EXACT
    for a, b in zip(
        torch.autograd.grad(tiled.square().sum(), inputs),
        torch.autograd.grad(dense.square().sum(), inputs),
        strict=True,
    ):
        assert (a - b).abs().max() < EXACT


@pytest.mark.skipif(importlib.util.find_spec("natten") is None, reason="the package natten is not installed")
@pytest.mark.parametrize("kernel", [4, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2])
def test_natten_equals_dense(kernel: int, dilation: int) -> None:
    inputs = [x.detach().float() for x in random_maps(1, 2, 16, 16, 32)]
    natten = neighborhood_attention(*inputs, kernel=(kernel, kernel), dilation=dilation, route="natten")
    dense = neighborhood_attention(*inputs, kernel=(kernel, kernel), dilation=dilation, route="dense")
    assert torch.allclose(natten, dense, atol=1e-5)


def test_auto_route_tiles_large_maps_only() -> None:
    """The tiled and the dense answer are equal, so the choice shows in speed only: it must not fail on any map."""
    for size in [(20, 20), (40, 40), (26, 27), (1, 900)]:
        inputs = [x.detach() for x in random_maps(1, 1, *size, 4)]
        auto = neighborhood_attention(*inputs, kernel=(7, 7))
        dense = neighborhood_attention(*inputs, kernel=(7, 7), route="dense")
        assert (auto - dense).abs().max() < EXACT


def test_module_positions_reach_queries_and_keys_but_not_values() -> None:
    """With one key per window the output is the value alone, so a position code must change nothing."""
    torch.manual_seed(0)
    module = NeighborhoodAttention(8, heads=2, kernel=1).double()
    x, position = torch.randn(1, 3, 4, 8, dtype=torch.float64), torch.randn(3, 4, 8, dtype=torch.float64)
    assert (module(x) - module(x, position)).abs().max() < EXACT
    wide = NeighborhoodAttention(8, heads=2, kernel=3).double()
    assert (wide(x) - wide(x, position)).abs().max() > 1e-3


def test_module_over_sequence_slides_in_reading_order() -> None:
    """A sequence window of 3 on a 2 x 4 map sees the end of one row and the start of the next."""
    torch.manual_seed(0)
    module = NeighborhoodAttention(4, heads=1, kernel=3, over="sequence").double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    base = module(x)
    changed = x.clone()
    changed[0, 1, 0] += 1.0
    moved = ((module(changed) - base).abs().amax(-1) > 1e-9)[0]
    assert moved.flatten().tolist() == [False, False, False, True, True, True, False, False]
