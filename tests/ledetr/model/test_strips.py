"""Blocks in strips give the numbers that whole maps give."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from ledetr.model import strips
from ledetr.model.backbone import ResBlock
from ledetr.model.config import ModelConfig, ledetr_n, ledetr_tiny
from ledetr.model.layers import ConvNorm, FusedMBConv, MBConv, fold_all
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.model.processor import ForProcessor
from ledetr.model.strips import Strips

ROUNDING = 1e-5  # of the largest number: engines add in another order for other shapes


def folded_blocks() -> list[nn.Module]:
    """Every kind of block, every padding, odd kernels and strides, with shortcuts and without."""
    blocks = [
        ConvNorm(3, 8, 3, stride=2, act="relu6", same="tf"),
        MBConv(8, 6, expand=1, act="relu6", style="normed"),
        MBConv(6, 10, stride=2, expand=3, act="relu6", style="normed", same="tf"),
        MBConv(10, 10, kernel=5, expand=2, act="gelu", shortcut=True),
        ResBlock(10),
        FusedMBConv(10, 7, stride=2, expand=4, act="gelu"),
        FusedMBConv(7, 7, stride=1, expand=2, act="gelu", shortcut=True),
        MBConv(7, 5, kernel=5, stride=2, expand=2, act="silu", same="tf"),
    ]
    whole = nn.Sequential(*blocks)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.normal_(module.bias)
    fold_all(whole.eval())
    return list(whole)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size_hw", [(64, 96), (76, 50)], ids=str)
def test_strips_equal_the_whole(size_hw: tuple[int, int], count: int) -> None:
    torch.manual_seed(0)
    blocks = folded_blocks()
    x = torch.randn(2, 3, *size_hw)
    with torch.inference_mode():
        for first in range(len(blocks)):
            for last in range(first, len(blocks)):
                part = blocks[first : last + 1]
                wanted = nn.Sequential(*part)(x)
                found = Strips(part, min(count, wanted.shape[2]))(x)
                assert found.shape == wanted.shape
                assert (found - wanted).abs().max() <= ROUNDING * wanted.abs().max()
            x = blocks[first](x)


@pytest.mark.parametrize("config", [ledetr_n(), ledetr_tiny()], ids=["n", "tiny"])
def test_a_network_for_a_processor(
    config: ModelConfig, make_model: Callable[[ModelConfig], LeDetr], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this size every position becomes a query, so the rows are the same ones; their order may differ."""
    monkeypatch.setattr(strips, "LARGE_BYTES", 10_000)
    monkeypatch.setattr(strips, "STRIP_BYTES", 4_000)
    config = replace(config, decoder=replace(config.decoder, queries=200))
    model = make_model(config)
    form = ForProcessor(model.fused(), (96, 64)).eval()
    assert sum(isinstance(module, Strips) for module in form.modules()) >= 2
    pixels = torch.randint(0, 256, (2, 96, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, wanted = form(pixels), model(pixels.permute(0, 3, 1, 2))
    assert found[0].shape == wanted[0].shape and found[1].shape == wanted[1].shape
    for row in range(2):
        distance = (found[1][row][:, None] - wanted[1][row][None]).abs().amax(-1)
        match = distance.argmin(1)
        assert distance.amin(1).max() < ROUNDING
        largest = wanted[0].abs().max()
        assert (found[0][row] - wanted[0][row][match]).abs().max() <= 10 * ROUNDING * largest


def test_small_maps_stay_whole() -> None:
    form = ForProcessor(build_model(ledetr_tiny()).fused(), (96, 96))
    assert not [module for module in form.modules() if isinstance(module, Strips)]


def test_which_blocks_of_n_are_cut() -> None:
    form = ForProcessor(build_model(ledetr_n()).fused(), (416, 416))
    cut = [module for module in form.modules() if isinstance(module, Strips)]
    assert [len(module.blocks) for module in cut] == [3, 1, 1]
    assert isinstance(cut[0].blocks[0], ConvNorm), "the first strips begin with the stem"
    # 96 channels of 208 x 208 in float32 are 16.6 MB, 144 of 104 x 104 are 6.2 MB.
    assert [module.count for module in cut] == [11, 4, 4]
