"""Which query answers for which object: one cost for all heads, the best assignment, and the vote over the heads.

H heads, from shallow to deep: encoder, first boxes, decoder layers. B batch, Q queries, T object slots, C classes.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ledetr.losses.targets import Targets
from ledetr.model.boxes import cxcywh_to_xyxy, iou_and_giou

BAD_COST = 1e4
"""Stands in for a cost that is not finite: far above any real cost (about 30), far below where float32 gets coarse."""

PROBLEMS_PER_THREAD = 32  # fewer than this are solved faster than a second thread is woken

Assign = Callable[[Tensor, Tensor], Tensor]
"""cost (H, B, T, Q) finite float32, valid (B, T) bool -> queries (H, B, T) int64, -1 where an object has no query."""


@dataclass(frozen=True, kw_only=True)
class CostWeights:
    """How much each part of the matching cost counts."""

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    focal_alpha: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Matching:
    """The pairs of a batch, seen from the queries. Where nothing matched, the object index is 0."""

    own_target: Tensor
    """(H, B, Q) int64 object that this head's own assignment gives to a query."""
    own_matched: Tensor
    """(H, B, Q) bool."""
    union_target: Tensor
    """(B, Q) int64 object with the most votes of all heads."""
    union_matched: Tensor
    """(B, Q) bool."""
    bad_costs: Tensor
    """() int64 number of costs that were not finite and had to be replaced."""


@torch.no_grad()
def match(
    logits: Tensor,
    boxes_cxcywh: Tensor,
    boxes_xyxy: Tensor,
    targets: Targets,
    weights: CostWeights,
    assign: Assign | None = None,
) -> Matching:
    """Assignments of every head, and their union.

    logits: (H, B, Q, C) before sigmoid, boxes: (H, B, Q, 4) twice, heads from shallow to deep.
    """
    cost, bad_costs = matching_cost(logits, boxes_cxcywh, boxes_xyxy, targets, weights)
    queries = (assign or assign_with_scipy)(cost, targets.valid)
    own_target, own_matched = targets_of_queries(queries, logits.shape[2])
    union_target, union_matched = vote(queries, logits.shape[2])
    return Matching(
        own_target=own_target,
        own_matched=own_matched,
        union_target=union_target,
        union_matched=union_matched,
        bad_costs=bad_costs,
    )


def matching_cost(
    logits: Tensor, boxes_cxcywh: Tensor, boxes_xyxy: Tensor, targets: Targets, weights: CostWeights
) -> tuple[Tensor, Tensor]:
    """(H, B, T, Q) float32 cost of each pair, always finite, and the number of entries that were not.

    Objects are compared with the queries of their own picture only.
    """
    heads, batch, queries, _ = logits.shape
    slots = targets.labels.shape[1]
    index = targets.labels[None, :, :, None].expand(heads, batch, slots, queries)
    p = logits.float().transpose(2, 3).gather(2, index).sigmoid()
    absent, alpha = 1 - p, weights.focal_alpha
    # focal loss if the object is there, minus focal loss if it is not; both logarithms are negative
    focal = (1 - alpha) * p.square() * (absent + 1e-8).log() - alpha * absent.square() * (p + 1e-8).log()

    boxes, truth = boxes_cxcywh.float(), targets.boxes_cxcywh.float()
    l1 = torch.cdist(truth.expand(heads, batch, slots, 4), boxes, p=1)
    _, giou = iou_and_giou(cxcywh_to_xyxy(truth)[None, :, :, None], boxes_xyxy.float()[:, :, None])
    cost = weights.classification * focal + weights.l1 * l1 - weights.giou * giou

    finite = cost.isfinite()
    bad_costs = (~finite & targets.valid[:, :, None]).sum()
    return torch.where(finite, cost, BAD_COST), bad_costs


def assign_with_scipy(cost: Tensor, valid: Tensor, threads: int | None = None) -> Tensor:
    """(H, B, T) int64 query of each object in the cheapest assignment of each head and picture.

    cost: (H, B, T, Q) finite. valid: (B, T) bool. -1 for unused slots, and for those objects that are left over where
    a picture has more objects than queries. Copies the cost to the host once; few big chunks run on threads, because
    the solver gives up the interpreter lock but a task for each problem costs more than it wins.
    """
    heads, batch, slots, _ = cost.shape
    cost_host = cost.to("cpu").numpy()
    rows = [np.flatnonzero(mask) for mask in valid.to("cpu").numpy()]
    queries = np.full((heads, batch, slots), -1, dtype=np.int64)

    def solve(problems: list[tuple[int, int]]) -> None:
        for head, picture in problems:
            objects = rows[picture]
            table = cost_host[head, picture][objects].astype(np.float64)
            row, column = linear_sum_assignment(table)
            queries[head, picture, objects[row]] = column

    problems = [(head, picture) for head in range(heads) for picture in range(batch) if len(rows[picture])]
    chunks = min(threads or _default_threads(), max(1, len(problems) // PROBLEMS_PER_THREAD))
    if chunks == 1:
        solve(problems)
    else:
        list(_pool(chunks).map(solve, [problems[chunk::chunks] for chunk in range(chunks)]))
    return torch.from_numpy(queries).to(cost.device)


def targets_of_queries(queries: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
    """The same pairs seen from the queries: object (H, B, Q) int64, 0 where none, and matched (H, B, Q) bool."""
    heads, batch, slots = queries.shape
    # one column more, where everything unassigned is written to and then forgotten
    column = torch.where(queries < 0, num_queries, queries)
    objects = torch.arange(slots, device=queries.device).expand(heads, batch, slots)
    target = queries.new_full((heads, batch, num_queries + 1), -1).scatter(2, column, objects)[..., :num_queries]
    return target.clamp(min=0), target >= 0


def vote(queries: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
    """Union of the assignments of all heads: the object each query was given most often, and whether it got any.

    queries: (H, B, T) from shallow to deep, -1 where unassigned. Returns (B, Q) int64 and (B, Q) bool. A tie goes to
    the object that the deepest of the tied heads voted for. An object may end up with several queries.
    """
    heads, batch, slots = queries.shape
    # A vote counts 2^H, plus 2^head to break ties: a head gives a query to one object at most, so these bits never
    # carry, and the highest differing bit belongs to the deepest head. Exact in int64 for any sensible H.
    ballot = 2**heads + 2 ** torch.arange(heads, device=queries.device)
    ballot = ballot[:, None, None].expand(heads, batch, slots) * (queries >= 0)
    cell = queries.clamp(min=0) * slots + torch.arange(slots, device=queries.device)
    votes = queries.new_zeros(batch, num_queries * slots)
    votes = votes.scatter_add(1, cell.transpose(0, 1).flatten(1), ballot.transpose(0, 1).flatten(1))
    most, target = votes.view(batch, num_queries, slots).max(dim=2)
    return target, most > 0


def _default_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores <= 2 else cores // 2


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="assignment")


if hasattr(os, "register_at_fork"):
    # a child inherits the pool without its threads and would wait for them for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)
