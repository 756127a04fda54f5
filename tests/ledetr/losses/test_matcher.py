"""Assignments against scipy one by one, and the union against a vote by counting."""

import math
import multiprocessing
import os

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from ledetr.losses.matcher import (
    BAD_COST,
    CostWeights,
    assign_with_scipy,
    match,
    matching_cost,
    targets_of_queries,
    vote,
)
from ledetr.model.boxes import cxcywh_to_xyxy

WEIGHTS = CostWeights()


def random_problems(rng, heads, batch, slots, queries, *, whole_numbers):
    """Costs and counts; whole numbers from a small range give many equal costs."""
    shape = (heads, batch, slots, queries)
    cost = rng.integers(0, 4, shape).astype(np.float32) if whole_numbers else rng.normal(size=shape).astype(np.float32)
    counts = rng.integers(0, slots + 1, batch)
    counts[0], counts[-1] = 0, slots
    valid = np.zeros((batch, slots), dtype=bool)
    for row, count in zip(valid, counts, strict=True):
        row[rng.permutation(slots)[:count]] = True  # gaps between the objects are allowed
    return torch.from_numpy(cost), torch.from_numpy(valid)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equal_to_scipy_on_2000_problems(threads):
    rng, seen = np.random.default_rng(0), 0
    shapes = [(5, 40, 6, 20), (3, 50, 8, 8), (4, 60, 12, 9), (2, 30, 1, 5), (8, 120, 10, 30)]
    for shape in shapes:
        for whole_numbers in (False, True):
            cost, valid = random_problems(rng, *shape, whole_numbers=whole_numbers)
            queries = assign_with_scipy(cost, valid, threads)
            for head in range(shape[0]):
                for picture in range(shape[1]):
                    seen += 1
                    objects = valid[picture].nonzero()[:, 0].numpy()
                    # the other way round than the code does it, so that ties may be broken differently
                    table = cost[head, picture][objects].numpy().astype(np.float64).T
                    rows, columns = linear_sum_assignment(table)
                    got = queries[head, picture]
                    assert (got[~valid[picture]] == -1).all()
                    taken = got[objects][got[objects] >= 0]
                    assert len(taken) == len(rows) == min(len(objects), shape[3])
                    assert len(taken.unique()) == len(taken)
                    paid = sum(float(cost[head, picture, t, got[t]]) for t in objects if got[t] >= 0)
                    assert paid == pytest.approx(float(table[rows, columns].sum()), rel=1e-6, abs=1e-6)
    assert seen >= 2000


def _assign_many():
    cost = torch.rand(2, 64, 3, 4, generator=torch.Generator().manual_seed(0))
    assert (assign_with_scipy(cost, torch.ones(64, 3, dtype=torch.bool), threads=2) >= 0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_its_parents_threads():
    _assign_many()
    child = multiprocessing.get_context("fork").Process(target=_assign_many)
    child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0


def test_no_object_in_the_whole_batch():
    queries = assign_with_scipy(torch.zeros(2, 3, 4, 5), torch.zeros(3, 4, dtype=torch.bool))
    assert (queries == -1).all()
    target, matched = targets_of_queries(queries, 5)
    assert not matched.any() and (target == 0).all()
    assert not vote(queries, 5)[1].any()


def test_cost_by_hand(synthetic):
    targets = synthetic.targets([2], slots=3, classes=4)
    outputs = synthetic.outputs(2, 1, 5, 4)
    logits, boxes = outputs.matching.logits.detach(), outputs.matching.boxes_cxcywh.detach()
    cost, bad = matching_cost(logits, boxes, cxcywh_to_xyxy(boxes), targets, WEIGHTS)
    assert cost.shape == (2, 1, 3, 5) and bad == 0
    for head in range(2):
        for t in range(2):
            for q in range(5):
                p = logits[head, 0, q, targets.labels[0, t]].sigmoid().item()
                positive, negative = 0.25 * (1 - p) ** 2 * -math.log(p), 0.75 * p**2 * -math.log(1 - p)
                a, b = boxes[head, 0, q].double(), targets.boxes_cxcywh[0, t].double()
                low = torch.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
                high = torch.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
                inter = (high - low).clamp(min=0).prod()
                union = a[2:].prod() + b[2:].prod() - inter
                hull_low = torch.minimum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
                hull = (torch.maximum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2) - hull_low).prod()
                giou = inter / union - (hull - union) / hull
                expected = 2 * (positive - negative) + 5 * (a - b).abs().sum() - 2 * giou
                assert cost[head, 0, t, q].item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_costs_that_are_not_finite_are_replaced_and_counted(synthetic, bad):
    targets = synthetic.targets([2, 1], slots=3, classes=4)
    outputs = synthetic.outputs(1, 2, 4, 4)
    logits, boxes = outputs.matching.logits.detach(), outputs.matching.boxes_cxcywh.detach().clone()
    boxes[0, 0, 1] = bad
    boxes[0, 1, :] = bad
    cost, counted = matching_cost(logits, boxes, cxcywh_to_xyxy(boxes), targets, WEIGHTS)
    assert cost.isfinite().all() and cost.max() == BAD_COST
    assert counted == 2 * 1 + 1 * 4  # valid objects only
    matching = match(logits, boxes, cxcywh_to_xyxy(boxes), targets, WEIGHTS)
    assert not matching.own_matched[0, 0, 1]  # the broken query is the last choice
    assert matching.own_matched[0, 1].sum() == 1  # and even hopeless pictures get an assignment
    assert matching.bad_costs == counted


def test_targets_of_queries_is_the_inverse():
    queries = torch.tensor([[[3, -1, 0], [-1, -1, 2]]])
    target, matched = targets_of_queries(queries, 4)
    assert matched.tolist() == [[[True, False, False, True], [False, False, True, False]]]
    assert target[0, 0, 0] == 2 and target[0, 0, 3] == 0 and target[0, 1, 2] == 2


def slow_vote(queries, num_queries):
    heads, batch, slots = queries.shape
    chosen = [[None] * num_queries for _ in range(batch)]
    for b in range(batch):
        for q in range(num_queries):
            depths = {}
            for depth in range(heads):
                for t in range(slots):
                    if queries[depth, b, t] == q:
                        depths.setdefault(t, []).append(depth)
            if depths:
                chosen[b][q] = max(depths, key=lambda t: (len(depths[t]), max(depths[t])))
    return chosen


@pytest.mark.parametrize("heads", [1, 2, 5, 8])
def test_union_equals_a_slow_vote(heads):
    rng = np.random.default_rng(heads)
    ties = 0
    for _ in range(60):
        batch, slots, num_queries = 2, 5, 6
        queries = np.full((heads, batch, slots), -1)
        for h in range(heads):
            for b in range(batch):
                objects = rng.permutation(slots)[: rng.integers(0, slots + 1)]
                queries[h, b, objects] = rng.permutation(num_queries)[: len(objects)]
        target, matched = vote(torch.from_numpy(queries), num_queries)
        for b, row in enumerate(slow_vote(queries, num_queries)):
            for q, expected in enumerate(row):
                assert matched[b, q] == (expected is not None)
                if expected is not None:
                    assert target[b, q] == expected
                    first = [t for t in range(slots) if (queries[:, b, t] == q).any()]
                    ties += len(first) > 1
    assert ties > 20 or heads == 1  # the hard case did occur


def test_tie_goes_to_the_deepest_layer():
    shallow_then_deep = torch.tensor([[[0, -1]], [[-1, 0]]])
    assert vote(shallow_then_deep, 1)[0].item() == 1
    assert vote(shallow_then_deep.flip(0), 1)[0].item() == 0
    two_shallow_votes_win = torch.tensor([[[0, -1]], [[0, -1]], [[-1, 0]]])
    assert vote(two_shallow_votes_win, 1)[0].item() == 0
