"""Query selection and the D-FINE-style decoder (arXiv:2410.13842; paper section 3.6).

The encoder's best positions become queries. Each layer lets queries see each other, read the maps at a few points, and
refine the distribution of each box edge around an initial box. The class score is corrected by the shape of these
distributions.

Legend: B batch, Q queries, C classes, D channels, N positions of all levels, L layers, R distribution steps.
Reshapes leave the batch open (-1), so that one exported graph serves any batch.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.model.boxes import distance_to_box, inverse_sigmoid, weighting_function
from ledetr.model.config import DecoderConfig
from ledetr.model.constants import constant
from ledetr.model.deformable import SampleRoute, deformable_attention
from ledetr.model.layers import Mlp, RmsNorm, SwiGlu
from ledetr.model.outputs import DenoisingQueries, QueryOutputs, TrainOutputs

ANCHOR_SIDE = 0.05
ANCHOR_MARGIN = 0.01
# Logit of an anchor outside the margin: so far off that its box is never chosen, yet finite for export.
INVALID_ANCHOR = 1e8
# Beyond half precision nothing is kept; the clamp does nothing in float32 unless training has gone wrong.
HALF_MAX = 65504.0
QUALITY_TOP = 4


@lru_cache(maxsize=32)
def anchor_logits(shapes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) float32 logits of the anchors of all levels, INVALID_ANCHOR where not inside, and (N,) bool inside.

    Anchors are cxcywh, one at the centre of each cell, twice as large from level to level.
    """
    levels = []
    for level, (height, width) in enumerate(shapes):
        x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        side = np.full_like(x, ANCHOR_SIDE * 2.0**level)
        levels.append(np.stack([x, y, side, side], -1).reshape(-1, 4))
    anchors = np.concatenate(levels)
    valid = np.asarray(((anchors > ANCHOR_MARGIN) & (anchors < 1 - ANCHOR_MARGIN)).all(-1))
    safe = np.where(valid[:, None], anchors, 0.5)
    logits = np.where(valid[:, None], np.log(safe / (1 - safe)), INVALID_ANCHOR)
    return logits.astype(np.float32), valid


def _build_norm(config: DecoderConfig) -> nn.Module:
    return RmsNorm(config.dim) if config.norm == "rms" else nn.LayerNorm(config.dim)


class SelfAttention(nn.Module):
    """Full attention among queries; the position code goes to queries and keys only."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """x, position: (B, Q, D). mask: (B, Q, Q) bool, True where the row may see the column, or None."""
        queries, dim = int(x.shape[1]), int(x.shape[2])
        weight, bias = self.qkv.weight, self.qkv.bias
        q, k = F.linear(x + position, weight[: 2 * dim], bias[: 2 * dim]).chunk(2, -1)
        v = F.linear(x, weight[2 * dim :], bias[2 * dim :])
        q, k, v = (t.reshape(-1, queries, self.heads, dim // self.heads).transpose(1, 2) for t in (q, k, v))
        # The scale is the default one; a number that is named needs no shape operators in an exported graph.
        scale = (dim // self.heads) ** -0.5
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None], scale=scale)
        return self.out(out.transpose(1, 2).reshape(-1, queries, dim))


class DeformableCrossAttention(nn.Module):
    """Reads the raw encoder maps at learned offsets from each query's box; no value or output projection."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.points = config.heads, config.points
        total = sum(config.points)
        self.offsets = nn.Linear(config.dim, config.heads * total * 2)
        self.weights = nn.Linear(config.dim, config.heads * total)
        self.route: SampleRoute = "grid_sample"
        shares = [1 / count for count in config.points for _ in range(count)]
        self.register_buffer("point_share", torch.tensor(shares)[:, None], persistent=False)
        self.point_share: Tensor
        _init_offsets(self)

    def forward(self, x: Tensor, boxes: Tensor, memory: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        queries, points = int(x.shape[1]), sum(self.points)
        offsets = self.offsets(x).reshape(-1, queries, self.heads, points, 2).float()
        weights = self.weights(x).reshape(-1, queries, self.heads, points).float().softmax(-1)
        boxes = boxes[:, :, None, None]
        # An offset of one reaches the edge of the box, whatever the number of points of its level.
        locations = boxes[..., :2] + offsets * self.point_share * boxes[..., 2:] * 0.5
        return deformable_attention(memory, shapes, locations, weights, self.points, route=self.route)


def _init_offsets(attention: DeformableCrossAttention) -> None:
    """Heads look in different directions, the points of a level one step further each; weights are equal."""
    heads = attention.heads
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.cat([torch.arange(1.0, count + 1) for count in attention.points])
    nn.init.zeros_(attention.offsets.weight)
    attention.offsets.bias.data.copy_((directions[:, None] * steps[:, None]).flatten())
    nn.init.zeros_(attention.weights.weight)
    nn.init.zeros_(attention.weights.bias)


class Gate(nn.Module):
    """Learned mix of the query before and after cross-attention (D-FINE's target gating)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gates = nn.Linear(2 * config.dim, 2 * config.dim)
        self.norm = _build_norm(config)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        keep, take = torch.sigmoid(self.gates(torch.cat([x, read], -1))).chunk(2, -1)
        return self.norm(keep * x + take * read)


class AddNorm(nn.Module):
    """Plain residual sum and norm, where a scale has no gate."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.norm = _build_norm(config)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        return self.norm(x + read)


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, mix, feed-forward; norms behind the sums."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config.dim, config.heads)
        self.norm1 = _build_norm(config)
        self.cross_attention = DeformableCrossAttention(config)
        self.mix = Gate(config) if config.gate else AddNorm(config)
        if config.feed_forward == "swiglu":
            self.feed_forward: nn.Module = SwiGlu(config.dim, config.ffn)
        else:
            self.feed_forward = Mlp(config.dim, config.ffn, config.dim, layers=2, act="silu")
            _spread(self.feed_forward.layers)
        self.norm3 = _build_norm(config)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        mask: Tensor | None,
    ) -> Tensor:
        x = self.norm1(x + self.self_attention(x, position, mask))
        x = self.mix(x, self.cross_attention(x + position, boxes, memory, shapes))
        return self.norm3((x + self.feed_forward(x)).clamp(-HALF_MAX, HALF_MAX))


class QualityEstimate(nn.Module):
    """How sharp the four edge distributions are, as one number added to all class logits (D-FINE's LQE)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.mlp = Mlp(4 * (QUALITY_TOP + 1), 64, 1, layers=2, act=config.quality_act)
        _zero_last(self.mlp)

    def forward(self, logits: Tensor, corners: Tensor, bins: int) -> Tensor:
        probabilities = corners.reshape(-1, int(corners.shape[1]), 4, bins).float().softmax(-1)
        best = probabilities.topk(QUALITY_TOP, -1).values
        features = torch.cat([best, best.mean(-1, keepdim=True)], -1).flatten(2)
        return logits + self.mlp(features.to(corners.dtype))


def _spread(modules: nn.Sequential | nn.ModuleList) -> None:
    """Xavier weights for the linear layers among them."""
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


def _zero_last(mlp: Mlp) -> None:
    last = mlp.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class Decoder(nn.Module):
    """Encoder maps to class logits and boxes."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        dim, bins = config.dim, config.reg_max + 1
        self.select: nn.Module = nn.Identity()
        if config.select_projection:
            self.select = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
            _spread(self.select)
        self.encoder_score = nn.Linear(dim, config.classes)
        self.encoder_box = Mlp(dim, dim, 4, layers=3, act="silu")
        self.position = Mlp(4, config.position_hidden, dim, layers=config.position_layers, act="silu")
        _spread(self.position.layers)
        self.denoising_embedding = nn.Embedding(config.classes + 1, dim, padding_idx=config.classes)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.initial_box = Mlp(dim, dim, 4, layers=3, act="silu")
        self.scores = nn.ModuleList(nn.Linear(dim, config.classes) for _ in range(config.layers))
        heads = 1 if config.shared_box_head else config.layers
        self.corners = nn.ModuleList(Mlp(dim, dim, 4 * bins, layers=3, act="silu") for _ in range(heads))
        self.quality = nn.ModuleList(QualityEstimate(config) for _ in range(config.layers))
        weights = weighting_function(config.reg_max, config.up, config.reg_scale)
        self.register_buffer("bin_distance", weights, persistent=False)
        self.bin_distance: Tensor
        self.used_layers = config.eval_layers
        self._init_heads()

    def _init_heads(self) -> None:
        """Every box starts at its anchor, every class at a probability of one percent."""
        prior = -math.log(99.0)
        for score in (self.encoder_score, *self.scores):
            assert isinstance(score, nn.Linear)
            nn.init.constant_(score.bias, prior)
        for mlp in (self.encoder_box, self.initial_box, *self.corners):
            assert isinstance(mlp, Mlp)
            _zero_last(mlp)

    def forward(
        self, maps: list[Tensor], denoising: DenoisingQueries | None = None
    ) -> tuple[Tensor, Tensor] | TrainOutputs:
        """Eval mode: logits (B, Q, C) and boxes (B, Q, 4) cxcywh; train mode: TrainOutputs, of noisy boxes too."""
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        selected, dense_logits, table, valid = self._score_positions(memory, shapes)
        content, encoder_logits, reference_logits = self._choose(selected, dense_logits, table)
        if not self.training:
            return self._answer(content, reference_logits.sigmoid(), memory, shapes)
        queries, reference, mask = content.detach(), reference_logits.detach().sigmoid(), None
        slots = 0
        if denoising is not None:
            slots = denoising.labels.shape[1]
            embedded = self.denoising_embedding(denoising.labels).to(queries.dtype)
            queries = torch.cat([embedded, queries], 1)
            reference = torch.cat([denoising.boxes_cxcywh.to(reference.dtype), reference], 1)
            mask = _denoising_mask(denoising.group, content.shape[1])
        outputs = self._refine(queries, reference, memory, shapes, mask)
        return TrainOutputs(
            matching=_rows(outputs, slots, None),
            denoising=None if denoising is None else _rows(outputs, 0, slots),
            encoder_logits=encoder_logits,
            encoder_boxes_cxcywh=reference_logits.sigmoid(),
            dense_logits=dense_logits,
            anchors_cxcywh=table.sigmoid(),
            anchor_valid=valid,
        )

    def answers_at(self, maps: list[Tensor], positions: Tensor) -> QueryOutputs:
        """Every layer's outputs of the queries at given positions, for training against another decoder's.

        maps: (B, D, H, W) of each level. positions: (B, Q) int64, row of the flattened levels. The gradient reaches the
        maps through what a query starts from and through what it reads; boxes that it starts from are fixed.
        """
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        selected, _, table, _ = self._score_positions(memory, shapes)
        content = selected.gather(1, positions[..., None].expand(-1, -1, int(selected.shape[2])))
        reference = (self.encoder_box(content).float() + table[positions]).detach().sigmoid()
        return self._refine(content, reference, memory, shapes, None)

    def _score_positions(
        self, memory: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features and class logits of all N positions, their anchor logits (N, 4) and which anchors are valid."""
        table, valid = anchor_logits(tuple(shapes))
        if not valid.all():
            memory = memory * constant(valid, memory.device, memory.dtype)[:, None]
        selected = self.select(memory)
        anchors = constant(table, memory.device, torch.float32)
        return selected, self.encoder_score(selected), anchors, constant(valid, memory.device, torch.bool)

    def _choose(self, selected: Tensor, logits: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, Q, D), class logits (B, Q, C) and box logits (B, Q, 4) of the best positions."""
        count = min(self.config.queries, int(selected.shape[1]))
        ranked = logits.max(-1).values.topk(count, 1).indices
        best = ranked[..., None]
        content = selected.gather(1, best.expand(-1, -1, int(selected.shape[2])))
        anchors = table[ranked]
        chosen = logits.gather(1, best.expand(-1, -1, int(logits.shape[2])))
        return content, chosen, self.encoder_box(content).float() + anchors

    def _answer(
        self, x: Tensor, reference: Tensor, memory: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, Q, C) and boxes (B, Q, 4) of the last used layer; heads of the others are not run."""
        steps = self._layer_steps(x, reference, memory, shapes, None)
        for _ in range(self.used_layers - 1):
            next(steps)
        last = self.used_layers - 1
        content, _, corners, boxes, _ = next(steps)
        logits = self.quality[last](self.scores[last](content), corners, self.config.reg_max + 1)
        return logits.float(), boxes

    def _layer_steps(
        self, x: Tensor, reference: Tensor, memory: Tensor, shapes: Sequence[tuple[int, int]], mask: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """After each layer: content, initial boxes with gradient, edge logits, boxes, initial boxes detached."""
        previous_corners: Tensor | float = 0.0
        previous_x: Tensor | float = 0.0
        position: Tensor | None = None
        initial: Tensor | None = None
        for i, layer in enumerate(self.layers):
            if position is None or self.config.position_each_layer:
                position = self.position(reference.to(x.dtype)).clamp(-10, 10)
            x = layer(x, position, reference, memory, shapes, mask)
            if initial is None:
                initial = (self.initial_box(x).float() + inverse_sigmoid(reference)).sigmoid()
            head = self.corners[0 if self.config.shared_box_head else i]
            corners = head(x + previous_x) + previous_corners
            boxes = distance_to_box(initial.detach(), self._distances(corners), self.config.reg_scale)
            yield x, initial, corners, boxes, initial.detach()
            previous_corners, previous_x, reference = corners, x.detach(), boxes.detach()

    def _distances(self, corners: Tensor) -> Tensor:
        """(B, Q, 4) expected distance of each edge under its distribution, in float32."""
        bins = corners.reshape(-1, int(corners.shape[1]), 4, self.config.reg_max + 1).float()
        # A product and a sum: under autocast a matrix product would round the distances to half precision.
        return (bins.softmax(-1) * self.bin_distance).sum(-1)

    def _refine(
        self,
        x: Tensor,
        reference: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        mask: Tensor | None,
    ) -> QueryOutputs:
        """Outputs of every layer, stacked, for training."""
        logits, boxes, corners = [], [], []
        pre_logits = initial = fixed = None
        steps = self._layer_steps(x, reference, memory, shapes, mask)
        for i, (content, with_gradient, edge, box, detached) in enumerate(steps):
            initial, fixed = with_gradient, detached
            scores = self.scores[i](content)
            pre_logits = scores if pre_logits is None else pre_logits
            logits.append(self.quality[i](scores, edge, self.config.reg_max + 1).float())
            boxes.append(box)
            corners.append(edge.float())
        assert initial is not None and fixed is not None and pre_logits is not None
        return QueryOutputs(
            logits=torch.stack(logits),
            boxes_cxcywh=torch.stack(boxes),
            corners=torch.stack(corners),
            initial_boxes_cxcywh=fixed,
            pre_logits=pre_logits.float(),
            pre_boxes_cxcywh=initial,
        )

    def keep_layers(self, used: int) -> None:
        """Drop the layers and heads that `used` layers of inference do not run. ValueError outside 1..layers."""
        if not 1 <= used <= len(self.layers):
            raise ValueError(f"this decoder has {len(self.layers)} layers; {used} cannot be used")
        self.used_layers = used
        self.layers = self.layers[:used]
        if not self.config.shared_box_head:
            self.corners = self.corners[:used]

    def drop_training_parts(self) -> None:
        """Heads of earlier layers and the denoising embedding go; only inference is possible afterwards."""
        last = self.used_layers - 1
        self.scores = nn.ModuleList([nn.Identity()] * last + [self.scores[last]])
        self.quality = nn.ModuleList([nn.Identity()] * last + [self.quality[last]])
        self.denoising_embedding = nn.Embedding(0, self.config.dim)


def _denoising_mask(group: Tensor, queries: int) -> Tensor:
    """(B, D + Q, D + Q) bool: who may see whom. group: (B, D), -1 for an empty slot.

    Matching queries see each other only. A denoising slot sees its own group and the matching queries.
    """
    batch, slots = group.shape
    same = group[:, :, None] == group[:, None, :]
    mask = torch.ones(batch, slots + queries, slots + queries, dtype=torch.bool, device=group.device)
    mask[:, :slots, :slots] = same
    mask[:, slots:, :slots] = False
    return mask


def _rows(outputs: QueryOutputs, start: int, stop: int | None) -> QueryOutputs:
    rows = slice(start, stop)
    return QueryOutputs(
        logits=outputs.logits[:, :, rows],
        boxes_cxcywh=outputs.boxes_cxcywh[:, :, rows],
        corners=outputs.corners[:, :, rows],
        initial_boxes_cxcywh=outputs.initial_boxes_cxcywh[:, rows],
        pre_logits=outputs.pre_logits[:, rows],
        pre_boxes_cxcywh=outputs.pre_boxes_cxcywh[:, rows],
    )
