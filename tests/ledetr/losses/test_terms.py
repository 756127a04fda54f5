"""Single terms: values worked out by hand, and autograd against numerical derivatives."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from ledetr.losses import terms
from ledetr.model.boxes import distance_to_box, iou_and_giou, weighting_function

H, B, Q, C, R = 2, 2, 3, 2, 8


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def one_query(logits, label, matched, iou):
    """mal of a single query as a number."""
    flag = torch.tensor([[matched]])
    weight = flag.double()
    return terms.mal(
        torch.tensor([[[logits]]], dtype=torch.float64), torch.tensor([[label]]), flag, weight, torch.tensor([[iou]])
    ).item()


def test_mal_of_one_query_by_hand():
    # logits 0 score 0.5: BCE is log 2 for every target; negatives count 0.5^1.5
    assert one_query([0.0, 0.0], 0, True, 0.25) == pytest.approx(math.log(2) * (1 + 0.5**1.5))
    assert one_query([0.0, 0.0], 0, False, 0.25) == pytest.approx(math.log(2) * 2 * 0.5**1.5)
    # a box that fits with 0.64 shall score 0.64^1.5 = 0.512
    x = math.log(3)  # scores 0.75
    expected = -(0.512 * math.log(0.75) + 0.488 * math.log(0.25))
    assert one_query([x, -50.0], 0, True, 0.64) == pytest.approx(expected, rel=1e-6)


def test_mal_stays_finite_for_huge_logits():
    assert one_query([1e4, -1e4], 1, True, 0.5) == pytest.approx(1e4 + 1e4 * 0.5**1.5, rel=1e-6)


def test_edge_targets_by_hand():
    bins = weighting_function(dtype=torch.float64)
    initial = torch.tensor([[[0.5, 0.5, 0.4, 0.2]]], dtype=torch.float64)
    distances = torch.tensor([[[0.0, float((bins[20] * 3 + bins[21]) / 4), -7.0, 9.0]]], dtype=torch.float64)
    x, y, w, h = distance_to_box(initial, distances)[0, 0].tolist()
    truth = torch.tensor([[[x - w / 2, y - h / 2, x + w / 2, y + h / 2]]], dtype=torch.float64)
    lower, share = terms.edge_targets(initial, truth, bins, 4.0)
    assert lower[0, 0, 1:].tolist() == [20, 0, 31]
    assert share[0, 0, 1:].tolist() == pytest.approx([0.25, 0.0, 1.0], abs=1e-9)
    # exactly 0 lies on bin 16, but a rounding error may call that the upper end of the interval below
    assert lower[0, 0, 0].item() + share[0, 0, 0].item() == pytest.approx(16, abs=1e-9)


def test_edge_targets_of_a_box_without_extent_are_finite():
    lower, share = terms.edge_targets(
        torch.zeros(1, 1, 4), torch.tensor([[[0.0, 0.0, 0.5, 0.5]]]), weighting_function(), 4.0
    )
    assert lower.tolist() == [[[1, 1, 31, 31]]] and share.isfinite().all()


def test_fgl_is_zero_for_a_certain_and_right_edge():
    corners = torch.full((1, 1, 1, 4, R + 1), -1e3)
    corners[..., 5] = 1e3
    lower = torch.full((1, 1, 4), 5)
    assert terms.fgl(corners, lower, torch.zeros(1, 1, 4), torch.ones(1, 1, 1)).item() == 0
    assert terms.fgl(corners, lower - 1, torch.ones(1, 1, 4), torch.ones(1, 1, 1)).item() == 0


def test_ddf_of_the_teacher_itself_is_zero():
    corners = normal(1, B, Q, 4, R + 1).detach()
    ones = torch.ones(1, B, Q)
    for part in terms.ddf(corners, corners[0], ones, ones):
        assert part.item() == pytest.approx(0, abs=1e-12)


def test_mixed_mean_by_hand():
    shares = torch.tensor([1.0, 3.0]) / 4
    mean = terms.mixed_mean(torch.tensor([8.0]), torch.tensor([6.0]), torch.tensor(4.0), torch.tensor(3.0), shares)
    assert mean.item() == pytest.approx(2 * 0.25 + 2 * 0.75)
    empty = terms.mixed_mean(torch.zeros(1), torch.tensor([6.0]), torch.tensor(0.0), torch.tensor(3.0), shares)
    assert empty.item() == pytest.approx(1.5)


def test_inside_ignored():
    boxes = torch.tensor([[[[0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.3, 0.2], [0.5, 0.5, 0.5, 0.5]]]])
    regions = torch.tensor([[[0.0, 0.0, 0.15, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    only_first = torch.tensor([[True, False]])
    assert terms.inside_ignored(boxes, regions, only_first).tolist() == [[[True, False, False]]]
    assert terms.inside_ignored(boxes, regions, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[[True, True, False]]]


def test_gradients_of_the_box_terms():
    truth = torch.tensor([[[0.5, 0.5, 0.3, 0.2], [0.4, 0.5, 0.2, 0.2], [0.6, 0.3, 0.1, 0.3]]] * B).double()
    boxes = (truth + 0.05 * normal(H, B, Q, 4, seed=1).detach()).requires_grad_()
    weight = torch.tensor([[1.0, 0.0, 0.3]] * B).double()

    def giou(boxes):
        corners = [torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1) for b in (boxes, truth)]
        return terms.giou_loss(iou_and_giou(*corners)[1], weight)

    assert gradcheck(giou, boxes)
    assert gradcheck(lambda boxes: terms.l1(boxes, truth, weight), boxes)


def test_gradients_of_the_distribution_terms():
    corners = normal(H, B, Q, 4, R + 1)
    lower = torch.randint(0, R, (B, Q, 4), generator=torch.Generator().manual_seed(0))
    share, weight = torch.rand(B, Q, 4, dtype=torch.float64), torch.rand(H, B, Q, dtype=torch.float64)
    teacher = normal(B, Q, 4, R + 1, seed=3).detach()
    assert gradcheck(lambda corners: terms.fgl(corners, lower, share, weight), corners)
    assert gradcheck(lambda corners: terms.ddf(corners, teacher, weight, 1 - weight), corners)


def test_gradients_of_the_class_terms_with_their_detached_weights_held():
    """gradcheck would move the weights too; so the loss is linearised in its weights by hand instead."""
    logits = normal(H, B, Q, C)
    labels = torch.tensor([[0, 1, 1]] * B)
    matched = torch.tensor([[True, False, True]] * B)
    weight, iou = matched.double() * 0.7, torch.rand(H, B, Q, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(terms.mal(logits, labels, matched, weight, iou).sum(), logits)
    for h in range(H):
        for b in range(B):
            for q in range(Q):
                for c in range(C):
                    p = logits[h, b, q, c].sigmoid().item()
                    if matched[b, q] and c == labels[b, q]:
                        expected = 0.7 * (p - iou[h, b, q].item() ** 1.5)
                    else:
                        expected = p**1.5 * p
                    assert gradient[h, b, q, c].item() == pytest.approx(expected, rel=1e-9)
