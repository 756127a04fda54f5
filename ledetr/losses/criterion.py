"""All losses of one step, with the heads stacked: the number of operators does not grow with the number of layers.

H heads from shallow to deep: encoder, first boxes, L decoder layers. The denoising queries have no encoder head.
B batch, Q queries, D denoising slots, T object slots, C classes, R steps of an edge distribution.
Nothing here repairs a loss: a value that is not finite is returned as it is, and counted.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ledetr.losses import terms
from ledetr.losses.matcher import Assign, CostWeights, Matching, match
from ledetr.losses.targets import Targets
from ledetr.model.boxes import at_least_float32, cxcywh_to_xyxy, iou_and_giou, pairwise_iou, weighting_function
from ledetr.model.outputs import DenoisingQueries, QueryOutputs, TrainOutputs

Average = Callable[[Tensor], Tensor]
"""(7,) counts of this process -> their mean over all processes. One collective, the same in every step."""

TERMS = ("class", "l1", "giou", "fgl", "ddf")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms (Le-DETR, table 6) and the constants inside them."""

    class_kind: Literal["mal", "vfl"] = "mal"
    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    fgl_weight: float = 0.15
    ddf_weight: float = 1.5
    mal_gamma: float = 1.5
    vfl_alpha: float = 0.75
    vfl_gamma: float = 2.0
    temperature: float = 5.0
    up: float = 0.5
    """Together with reg_scale: the bins of the edge distributions; must be the model's."""
    reg_scale: float = 4.0
    ignore_share: float = 0.5
    """A query with more than this share of its box inside an ignore region carries no negative class loss."""
    cost: CostWeights = field(default_factory=CostWeights)

    @property
    def term_weights(self) -> dict[str, float]:
        """Weight of each of TERMS."""
        weights = (self.class_weight, self.l1_weight, self.giou_weight, self.fgl_weight, self.ddf_weight)
        return dict(zip(TERMS, weights, strict=True))


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """What all heads say of one set of queries, shallow to deep."""

    logits: Tensor
    """(H, B, Q, C), at least float32."""
    boxes_cxcywh: Tensor
    """(H, B, Q, 4), at least float32."""
    boxes_xyxy: Tensor
    """(H, B, Q, 4) the same boxes."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The object that each query answers for, laid beside it: (B, Q, ...), or (H, B, Q, ...) head by head."""

    matched: Tensor
    """(..., Q) bool: False where there is no object; the other fields are then those of any object."""
    labels: Tensor
    """(..., Q) int64."""
    boxes_cxcywh: Tensor
    """(..., Q, 4)."""
    boxes_xyxy: Tensor
    """(..., Q, 4)."""
    weight: Tensor
    """(..., Q) what the object counts, 0 where not matched."""


@dataclass(frozen=True, kw_only=True)
class QuerySet:
    """One set of queries with its pairs: those that were matched, or those that denoise."""

    outputs: QueryOutputs
    stacked: Stacked
    pairs: Pairs
    """For boxes and distributions; for the denoising queries also for the classes."""
    occupied: Tensor | None = None
    """(B, Q) bool: False for a query that does not exist. None: all exist."""

    @property
    def others(self) -> Tensor:
        """(B, Q) bool: queries that exist and have no object."""
        return ~self.pairs.matched if self.occupied is None else self.occupied & ~self.pairs.matched


@dataclass(frozen=True, kw_only=True)
class Normalisers:
    """What the sums of one set of queries are divided by; each is a mean over the processes."""

    objects: Tensor
    """() for the class loss, at least 1."""
    pairs: Tensor
    """() for the losses on boxes and distributions, at least 1."""
    matched_edges: Tensor
    """() numbers of edges that the two means of the self-distillation run over."""
    other_edges: Tensor


def criterion(
    outputs: TrainOutputs,
    targets: Targets,
    config: LossConfig,
    denoising: DenoisingQueries | None = None,
    *,
    average: Average | None = None,
    assign: Assign | None = None,
    by_head: bool = False,
) -> dict[str, Tensor]:
    """Weighted losses of one step as scalars; "total" is what to differentiate and the sum of the terms.

    Keys: "total"; "class", "l1", "giou", "fgl", "ddf"; the same with "denoising_" in front when the outputs hold
    denoising queries, whose description must then be given; by_head adds "class/encoder", "class/pre",
    "class/layer1", ... Counters, without gradient: "bad_costs", matching costs that were not finite, and
    "bad_losses", terms of single heads that are not finite.
    average: mean over processes, identity if None. assign: another solver of the assignment, scipy if None.
    """
    stacked = stack_matching(outputs)
    matching = match(stacked.logits, stacked.boxes_cxcywh, stacked.boxes_xyxy, targets, config.cost, assign)
    per_head = losses_by_head(outputs, stacked, targets, matching, config, denoising, average)
    sums = {name: values.sum() for name, values in per_head.items()}
    losses = {"total": torch.stack(list(sums.values())).sum(), **sums}
    if by_head:
        layers = len(outputs.matching.logits)
        for name, values in per_head.items():
            losses |= {f"{name}/{head}": value for head, value in zip(_head_names(name, layers), values, strict=True)}
    losses["bad_costs"] = matching.bad_costs
    losses["bad_losses"] = (~torch.cat(list(per_head.values())).detach().isfinite()).sum()
    return losses


def stack_matching(outputs: TrainOutputs) -> Stacked:
    """Encoder, first boxes and all layers of the queries that are matched."""
    queries = outputs.matching
    return _stack(
        [outputs.encoder_logits[None], queries.pre_logits[None], queries.logits],
        [outputs.encoder_boxes_cxcywh[None], queries.pre_boxes_cxcywh[None], queries.boxes_cxcywh],
    )


def losses_by_head(
    outputs: TrainOutputs,
    stacked: Stacked,
    targets: Targets,
    matching: Matching,
    config: LossConfig,
    denoising: DenoisingQueries | None = None,
    average: Average | None = None,
) -> dict[str, Tensor]:
    """Weighted losses of each head, (H,) or (L,) or (L - 1,), once the pairs are known. Fixed graph, no host read."""
    if (outputs.denoising is None) != (denoising is None):
        raise ValueError("outputs with denoising queries need the queries themselves, and the other way round")
    table = _truth_table(targets)
    own = _pairs(table, matching.own_target, matching.own_matched)
    union = _pairs(table, matching.union_target, matching.union_matched)
    found = QuerySet(outputs=outputs.matching, stacked=stacked, pairs=union)
    noisy = _denoising_set(outputs.denoising, denoising, table)
    norms, noisy_norms = _normalisers(found, noisy, targets, average)
    # the denoising part mixes its two means by the edge numbers of the matching part
    roots = torch.stack([norms.matched_edges, norms.other_edges]).sqrt()
    shares = roots / roots.sum()

    iou, giou = iou_and_giou(stacked.boxes_xyxy, union.boxes_xyxy)
    own_iou = pairwise_iou(stacked.boxes_xyxy.detach(), own.boxes_xyxy)
    losses = {
        "class": _class_loss(found, own, own_iou, targets, config) / norms.objects,
        **_box_losses(found, iou.detach(), giou, norms, shares, config),
    }
    if noisy is not None:
        iou, giou = iou_and_giou(noisy.stacked.boxes_xyxy, noisy.pairs.boxes_xyxy)
        losses |= {
            "denoising_class": _class_loss(noisy, noisy.pairs, iou.detach(), targets, config) / noisy_norms.objects,
            **{
                f"denoising_{name}": value
                for name, value in _box_losses(noisy, iou.detach(), giou, noisy_norms, shares, config).items()
            },
        }
    weights = config.term_weights
    return {name: weights[name.removeprefix("denoising_")] * value for name, value in losses.items()}


def _class_loss(queries: QuerySet, pairs: Pairs, iou: Tensor, targets: Targets, config: LossConfig) -> Tensor:
    """(H,) not yet divided; iou: (H, B, Q) of each pair, detached."""
    boxes_xyxy = queries.stacked.boxes_xyxy.detach()
    negative_weight = _negative_weight(boxes_xyxy, targets, queries.occupied, config.ignore_share)
    logits, given = queries.stacked.logits, (pairs.labels, pairs.matched, pairs.weight, iou)
    if config.class_kind == "vfl":
        return terms.vfl(logits, *given, negative_weight, alpha=config.vfl_alpha, gamma=config.vfl_gamma)
    return terms.mal(logits, *given, negative_weight, gamma=config.mal_gamma)


def _box_losses(
    queries: QuerySet, iou: Tensor, giou: Tensor, norms: Normalisers, shares: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    """The terms on boxes and edge distributions, divided but not yet weighted; iou (H, B, Q) detached."""
    pairs = queries.pairs
    layer_iou = iou[-len(queries.outputs.corners) :]
    corners = at_least_float32(queries.outputs.corners)
    corners = corners.view(*corners.shape[:-1], 4, -1)  # edge by edge
    bins = _bins(corners.shape[-1] - 1, config.up, config.reg_scale, iou.dtype, corners.device)
    lower, share = terms.edge_targets(queries.outputs.initial_boxes_cxcywh, pairs.boxes_xyxy, bins, config.reg_scale)
    certainty = queries.stacked.logits[-1].detach().amax(-1).sigmoid()
    matched_sum, other_sum = terms.ddf(
        corners[:-1],
        corners[-1].detach(),
        layer_iou[:-1] * pairs.matched,
        (certainty * queries.others)[None],
        config.temperature,
    )
    return {
        "l1": terms.l1(queries.stacked.boxes_cxcywh, pairs.boxes_cxcywh, pairs.weight) / norms.pairs,
        "giou": terms.giou_loss(giou, pairs.weight) / norms.pairs,
        "fgl": terms.fgl(corners, lower, share, layer_iou * pairs.weight) / norms.pairs,
        "ddf": terms.mixed_mean(matched_sum, other_sum, norms.matched_edges, norms.other_edges, shares),
    }


def _negative_weight(
    boxes_xyxy: Tensor, targets: Targets, occupied: Tensor | None, ignore_share: float
) -> Tensor | None:
    """What the wrong classes count: broadcasts to (H, B, Q, C); None where everything counts."""
    factors = []
    if targets.ignore_xyxy is not None and targets.ignore_valid is not None:
        ignored = terms.inside_ignored(boxes_xyxy, targets.ignore_xyxy, targets.ignore_valid, ignore_share)
        factors.append(~ignored[..., None])
    if targets.annotated is not None:
        factors.append(targets.annotated[None, :, None])
    if occupied is not None:
        factors.append(occupied[None, ..., None])
    if not factors:
        return None
    weight = factors[0]
    for factor in factors[1:]:
        weight = weight & factor
    return weight


@functools.cache
def _bins(reg_max: int, up: float, reg_scale: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bin distances, copied to a device once: a copy in every step would make the host wait."""
    return weighting_function(reg_max, up, reg_scale, dtype=dtype, device=device)


def _normalisers(
    found: QuerySet, noisy: QuerySet | None, targets: Targets, average: Average | None
) -> tuple[Normalisers, Normalisers]:
    """Of the matching and of the denoising queries, from one vector, so that one collective is enough."""
    objects = at_least_float32(targets.effective_weight).sum()
    counts = [objects, *_counts(found), *(_counts(noisy) if noisy is not None else [objects.new_zeros(())] * 3)]
    vector = torch.stack(counts)
    means = vector if average is None else average(vector)
    objects, pairs, matched, others, noisy_pairs, noisy_matched, noisy_others = means.unbind()
    objects, pairs, noisy_pairs = objects.clamp(min=1), pairs.clamp(min=1), noisy_pairs.clamp(min=1)
    return (
        Normalisers(objects=objects, pairs=pairs, matched_edges=4 * matched, other_edges=4 * others),
        Normalisers(
            objects=noisy_pairs, pairs=noisy_pairs, matched_edges=4 * noisy_matched, other_edges=4 * noisy_others
        ),
    )


def _counts(queries: QuerySet) -> list[Tensor]:
    """Weight of the pairs, number of matched queries, number of the others."""
    pairs = queries.pairs
    return [
        pairs.weight.sum(),
        pairs.matched.sum(dtype=pairs.weight.dtype),
        queries.others.sum(dtype=pairs.weight.dtype),
    ]


def _denoising_set(outputs: QueryOutputs | None, denoising: DenoisingQueries | None, table: Tensor) -> QuerySet | None:
    if outputs is None or denoising is None:
        return None
    return QuerySet(
        outputs=outputs,
        stacked=_stack(
            [outputs.pre_logits[None], outputs.logits], [outputs.pre_boxes_cxcywh[None], outputs.boxes_cxcywh]
        ),
        pairs=_pairs(table, denoising.target, denoising.positive),
        occupied=denoising.group >= 0,
    )


def _stack(logits: list[Tensor], boxes_cxcywh: list[Tensor]) -> Stacked:
    boxes = at_least_float32(torch.cat(boxes_cxcywh))
    return Stacked(logits=at_least_float32(torch.cat(logits)), boxes_cxcywh=boxes, boxes_xyxy=cxcywh_to_xyxy(boxes))


def _truth_table(targets: Targets) -> Tensor:
    """(B, T, 10) all that is known of an object in one row, so that one gather fetches it."""
    boxes = at_least_float32(targets.boxes_cxcywh)
    # a class is a whole number far below 2^24, so float32 holds it exactly
    numbers = torch.stack([targets.effective_weight, targets.labels], dim=-1)
    return torch.cat([boxes, cxcywh_to_xyxy(boxes), numbers], dim=-1)


def _pairs(table: Tensor, target: Tensor, matched: Tensor) -> Pairs:
    """target, matched: (B, Q) or (H, B, Q)."""
    index = target[..., None].expand(*target.shape, table.shape[-1])
    rows = table.expand(*target.shape[:-1], *table.shape[1:]).gather(-2, index)
    boxes_cxcywh, boxes_xyxy, numbers = rows.split_with_sizes([4, 4, 2], dim=-1)
    weight, labels = numbers.unbind(-1)
    return Pairs(
        matched=matched,
        labels=labels.long(),
        boxes_cxcywh=boxes_cxcywh,
        boxes_xyxy=boxes_xyxy,
        weight=weight * matched,
    )


def _head_names(term: str, layers: int) -> list[str]:
    """Names of the entries of one term, in the order of the stack."""
    names = [f"layer{layer + 1}" for layer in range(layers)]
    kind = term.removeprefix("denoising_")
    if kind == "ddf":
        return names[:-1]
    if kind == "fgl":
        return names
    return ["pre", *names] if term.startswith("denoising_") else ["encoder", "pre", *names]
