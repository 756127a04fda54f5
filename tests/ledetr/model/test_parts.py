"""Single layers against other libraries or hand-made cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ledetr.model.decoder import anchor_logits
from ledetr.model.deformable import deformable_attention
from ledetr.model.encoder import position_code
from ledetr.model.layers import ConvNorm, RepConv, RmsNorm


@settings(max_examples=20, deadline=None)
@given(kernel=st.sampled_from([3, 5]), half=st.integers(2, 9))
def test_tf_padding_puts_the_odd_pixel_right_and_below(kernel: int, half: int) -> None:
    """TensorFlow's rule: pad (n/2 - 1) * 2 + k - n in all, the smaller half in front."""
    size = 2 * half
    layer = ConvNorm(2, 3, kernel, stride=2, same="tf", norm=False)
    x = torch.randn(1, 2, size, size)
    total = (half - 1) * 2 + kernel - size
    low = total // 2
    wanted = F.conv2d(F.pad(x, (low, total - low, low, total - low)), layer.conv.weight, layer.conv.bias, stride=2)
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_rep_conv_folds_into_one_convolution() -> None:
    torch.manual_seed(0)
    block = RepConv(6, act="silu")
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    x = torch.randn(2, 6, 9, 7)
    block.eval()
    before = block(x)
    block.fold()
    assert isinstance(block.wide, nn.Conv2d) and block.narrow is None
    assert torch.allclose(block(x), before, atol=1e-5)


def test_rms_norm_equals_torch() -> None:
    layer, x = RmsNorm(10), torch.randn(3, 10)
    layer.weight.data.normal_()
    assert torch.allclose(layer(x), F.rms_norm(x, (10,), layer.weight, 1e-6), atol=1e-6)
    assert torch.isfinite(layer((x * 1e4).half())).all()


def test_position_code_by_hand() -> None:
    code = position_code(3, 4, 8, torch.zeros(1))
    row, column = 2, 3
    frequencies = [1.0, 10000**-0.5]
    wanted = [
        *[math.sin(column * w) for w in frequencies],
        *[math.cos(column * w) for w in frequencies],
        *[math.sin(row * w) for w in frequencies],
        *[math.cos(row * w) for w in frequencies],
    ]
    assert code[row, column].tolist() == pytest.approx(wanted, abs=1e-6)


def test_anchors_by_hand() -> None:
    logits, valid = anchor_logits(((2, 2), (1, 1)))
    boxes = 1 / (1 + torch.from_numpy(-logits).exp())
    assert boxes[1].tolist() == pytest.approx([0.75, 0.25, 0.05, 0.05])
    assert boxes[4].tolist() == pytest.approx([0.5, 0.5, 0.1, 0.1])
    assert valid.all()
    # On a map of 80 cells the outermost centres lie within a hundredth of the border.
    _, valid = anchor_logits(((80, 80),))
    assert valid.sum() == 78 * 78


def bilinear(level: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Value of a map (E, H, W) at x, y in 0..1, zero outside, by the definition."""
    _, height, width = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    out = torch.zeros(level.shape[0], dtype=level.dtype)
    for j in (math.floor(row), math.floor(row) + 1):
        for i in (math.floor(column), math.floor(column) + 1):
            if 0 <= j < height and 0 <= i < width:
                out += level[:, j, i] * (1 - abs(column - i)) * (1 - abs(row - j))
    return out


@pytest.mark.parametrize("route", ["grid_sample", "gather"])
def test_deformable_attention_by_definition(route: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes, points, heads, width = [(4, 6), (2, 3)], (3, 2), 2, 5
    memory = torch.randn(2, 30, heads * width, generator=generator)
    locations = torch.rand(2, 7, heads, 5, 2, generator=generator) * 1.6 - 0.3
    weights = torch.rand(2, 7, heads, 5, generator=generator).softmax(-1)
    got = deformable_attention(memory, shapes, locations, weights, points, route=route)  # type: ignore[arg-type]
    levels = [memory[:, :24].reshape(2, 4, 6, heads, width), memory[:, 24:].reshape(2, 2, 3, heads, width)]
    for b in range(2):
        for q in range(7):
            for h in range(heads):
                wanted = torch.zeros(width)
                for p in range(5):
                    level = levels[0 if p < 3 else 1][b, :, :, h].permute(2, 0, 1)
                    x, y = locations[b, q, h, p].tolist()
                    wanted += weights[b, q, h, p] * bilinear(level, x, y)
                assert torch.allclose(got[b, q, h * width : (h + 1) * width], wanted, atol=1e-5)
