"""Differentiable geometry against the NumPy module, and against formulas worked out by hand."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from ledetr import boxes as numpy_boxes
from ledetr.model import boxes

SINGLE = 1e-6  # float32 sums of numbers around 1


def random_boxes(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(0.1, 0.9, (n, 2)), rng.uniform(0.01, 0.6, (n, 2))], 1).astype(np.float32)


def test_formats_agree_with_numpy():
    rows = random_boxes(50)
    corners = boxes.cxcywh_to_xyxy(torch.from_numpy(rows))
    np.testing.assert_allclose(corners.numpy(), numpy_boxes.cxcywh_to_xyxy(rows), atol=SINGLE)
    np.testing.assert_allclose(boxes.xyxy_to_cxcywh(corners).numpy(), rows, atol=SINGLE)


def test_iou_agrees_with_numpy():
    a, b = (numpy_boxes.cxcywh_to_xyxy(random_boxes(40, seed)) for seed in (1, 2))
    table = boxes.iou_and_giou(torch.from_numpy(a)[:, None], torch.from_numpy(b)[None])[0]
    np.testing.assert_allclose(table.numpy(), numpy_boxes.box_iou(a, b), atol=SINGLE)
    row = boxes.pairwise_iou(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(row.numpy(), numpy_boxes.box_iou(a, b).diagonal(), atol=SINGLE)
    assert row.equal(boxes.iou_and_giou(torch.from_numpy(a), torch.from_numpy(b))[0])


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1, 1),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
        ([0, 0, 1, 1], [2, 0, 3, 1], 0, -1 / 3),  # a gap as wide as the boxes
        ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16, 1 / 16),
        ([1, 1, 1, 1], [0, 0, 2, 2], 0, 0),  # a point inside
        ([1, 1, 1, 1], [1, 1, 1, 1], 0, 0),  # nothing and nothing
    ],
)
def test_iou_and_giou_by_hand(a, b, iou, giou):
    got = boxes.iou_and_giou(torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32))
    assert [value.item() for value in got] == pytest.approx([iou, giou], abs=1e-6)


def test_gradients_exist_even_for_empty_boxes():
    rows = torch.zeros(1, 4, requires_grad=True)
    sum(boxes.iou_and_giou(rows, torch.zeros(1, 4))).sum().backward()
    assert rows.grad.isfinite().all()


def test_gradients():
    a, b = (torch.from_numpy(random_boxes(6, seed)).double() for seed in (3, 4))
    assert gradcheck(lambda a: boxes.iou_and_giou(boxes.cxcywh_to_xyxy(a), boxes.cxcywh_to_xyxy(b)), a.requires_grad_())
    assert gradcheck(lambda d: boxes.distance_to_box(b, d), torch.randn(6, 4).double().requires_grad_())


def test_half_precision_comes_out_as_float32():
    half = torch.from_numpy(random_boxes(4)).bfloat16()
    for made in (
        boxes.cxcywh_to_xyxy(half),
        boxes.xyxy_to_cxcywh(half),
        boxes.inverse_sigmoid(half),
        boxes.distance_to_box(half, half),
        *boxes.iou_and_giou(half, half),
    ):
        assert made.dtype == torch.float32


def test_weighting_function_against_the_formula():
    bins = boxes.weighting_function(32, 0.5, 4.0, dtype=torch.float64).tolist()
    s = 3 ** (1 / 15)
    assert bins[0] == -4 and bins[16] == 0 and bins[32] == 4
    for n in range(1, 16):
        assert bins[n] == pytest.approx(1 - s ** (16 - n))
        assert bins[32 - n] == pytest.approx(s ** (16 - n) - 1)
    assert bins == sorted(bins) and bins[1] == pytest.approx(-2)
    with pytest.raises(ValueError, match="even"):
        boxes.weighting_function(31)


def test_distance_to_box_by_hand():
    initial = torch.tensor([[0.5, 0.4, 0.2, 0.4]])
    assert torch.allclose(boxes.distance_to_box(initial, torch.zeros(1, 4)), initial)
    # left edge out by one quarter of the width, bottom in by half of the height
    moved = boxes.distance_to_box(initial, torch.tensor([[1.0, 0.0, 0.0, -2.0]]))
    corners = boxes.cxcywh_to_xyxy(moved)
    assert corners[0].tolist() == pytest.approx([0.35, 0.2, 0.6, 0.4], abs=1e-6)


def test_distance_to_box_and_back():
    initial, distances = torch.from_numpy(random_boxes(30)), torch.randn(30, 4) * 0.5
    moved = boxes.cxcywh_to_xyxy(boxes.distance_to_box(initial, distances))
    assert torch.allclose(boxes.box_to_distance(initial, moved), distances, atol=1e-4)  # a side of .01 costs 2 digits


def test_inverse_sigmoid():
    logits = torch.linspace(-8, 8, 33)
    assert torch.allclose(boxes.inverse_sigmoid(logits.sigmoid()), logits, atol=1e-3)
    assert boxes.inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0])).isfinite().all()
