"""Tensors of other projects' checkpoints under our names: which go where, which stay behind, and why.

Detectors: D-FINE (Peterande/D-FINE) and DEIM (ShihuaHuang95/DEIM), M, L and X, under their own names or those of
`transformers`. Decoder, query selection and the attention layer of the encoder have our shapes; the backbone and the
fusion have not. Trunks: EfficientViT-L0, L1 and L2 (mit-han-lab/efficientvit). Their stages 0 to 3 and the stride-2
block of stage 4 are ours; linear attention and the wider feed-forward behind it are not. L0 comes inside
EfficientViT-SAM.

Everything here is a pure function of tensors in memory; files are the business of convert.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from ledetr.errors import WeightsError
from ledetr.model.config import EfficientNatConfig, ModelConfig

State = Mapping[str, Tensor]
Family = Literal["dfine", "deim", "efficientvit"]

OUR_EPS = 1e-5
CLASSIFIER_EPS, SAM_EPS = 1e-7, 1e-6
"""Of EfficientViT-L's norms in its two collections of models."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAM_PREFIX, CLASSIFIER_PREFIX = "image_encoder.backbone.", "backbone."
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LINEAR = ("weight", "bias")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A public checkpoint that can be read."""

    family: Family
    title: str
    scale: str
    """Ours that it starts unless another is asked for."""
    depths: tuple[int, ...]
    """Decoder layers of a detector; blocks behind each stage's first of a trunk."""
    source: str
    licence: str = "Apache-2.0"

    @property
    def is_trunk(self) -> bool:
        """Whether it is a backbone alone."""
        return self.family == "efficientvit"


def _detector(family: Family, project: str, size: str, layers: int, source: str) -> Origin:
    return Origin(family=family, title=f"{project}-{size.upper()}", scale=size, depths=(layers,), source=source)


def _trunk(size: str, scale: str, depths: tuple[int, ...]) -> Origin:
    return Origin(
        family="efficientvit",
        title=f"EfficientViT-{size.upper()}",
        scale=scale,
        depths=depths,
        source="github.com/mit-han-lab/efficientvit",
    )


ORIGINS: dict[str, Origin] = {
    **{
        f"dfine-{size}": _detector("dfine", "D-FINE", size, layers, "github.com/Peterande/D-FINE")
        for size, layers in (("m", 4), ("l", 6), ("x", 6))
    },
    **{
        f"deim-{size}": _detector("deim", "DEIM-D-FINE", size, layers, "github.com/ShihuaHuang95/DEIM")
        for size, layers in (("m", 4), ("l", 6), ("x", 6))
    },
    "efficientvit-l0": _trunk("l0", "l", (1, 1, 1, 4, 4)),
    "efficientvit-l1": _trunk("l1", "l", (1, 1, 1, 6, 6)),
    "efficientvit-l2": _trunk("l2", "x", (1, 2, 2, 8, 8)),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of every tensor. taken: ours from theirs. skipped: theirs, and why. missing: ours that keep their
    first values. notes: what differs although names and shapes agree."""

    taken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Some lines of plain text: counts, and each reason once."""
        reasons: dict[str, int] = {}
        for reason in self.skipped.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        lines = [f"{len(self.taken)} tensors taken, {len(self.skipped)} left, {len(self.missing)} of ours start anew"]
        lines += [f"left {count}: {reason}" for reason, count in reasons.items()]
        starts = sorted({".".join(name.split(".")[: 3 if name.startswith("stages") else 2]) for name in self.missing})
        lines += ["start anew: " + ", ".join(starts)] if starts else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Tensors under our names, float32 or int64, fit for `config`; and the report."""

    tensors: dict[str, Tensor]
    config: ModelConfig
    report: Report


def map_detector(origin: Origin, state: State, config: ModelConfig, network: State) -> Mapped:
    """The part of a D-FINE or DEIM detector that fits, for the whole network whose state (values unused) is given.

    The config comes back with the checkpoint's own box scale, so that its heads mean what they meant. Layers that ours
    has beyond theirs are copies of their last one which at first leave the boxes alone. WeightsError names what is
    absent or of another shape.
    """
    state = _original_names(state)
    moves = _decoder_moves(origin.depths[0], config.decoder.layers)
    if origin.scale != "x":
        moves |= _encoder_moves()
    tensors = _take(origin, moves, state, network)
    used = set(moves.values())
    skipped = {name: _why_left(origin, name) for name in state if name not in used}
    report = Report(
        taken=moves,
        skipped=skipped,
        missing=tuple(name for name in network if name not in tensors),
        notes=_detector_notes(origin, config),
    )
    return Mapped(tensors=tensors, config=_with_their_scale(origin, state, config), report=report)


def _encoder_moves() -> dict[str, str]:
    """Ours to theirs: the attention layer, and the two convolutions between levels."""
    layer, ours = "encoder.encoder.0.layers.0.", "encoder.naifi."
    moves = _self_attention(layer, ours + "attention.", "proj")
    for mine, theirs in (("expand", "linear1"), ("project", "linear2"), ("norm1", "norm1"), ("norm2", "norm2")):
        moves |= _pairs(ours + mine, layer + theirs, LINEAR)
    for i in range(2):
        moves |= _conv_norm(f"encoder.lateral.{i}", f"encoder.lateral_convs.{i}")
    return moves


def _decoder_moves(theirs: int, ours: int) -> dict[str, str]:
    moves = _pairs("decoder.select.0", "decoder.enc_output.proj", LINEAR)
    moves |= _pairs("decoder.select.1", "decoder.enc_output.norm", LINEAR)
    moves |= _pairs("decoder.encoder_score", "decoder.enc_score_head", LINEAR)
    moves |= _pairs("decoder.denoising_embedding", "decoder.denoising_class_embed", ("weight",))
    for mine, name, depth in (
        ("encoder_box", "enc_bbox_head", 3),
        ("position", "query_pos_head", 2),
        ("initial_box", "pre_bbox_head", 3),
    ):
        moves |= _mlp(f"decoder.{mine}", f"decoder.{name}", depth)
    for i in range(ours):
        source = min(i, theirs - 1)
        moves |= _layer_moves(f"decoder.layers.{i}.", f"decoder.decoder.layers.{source}.")
        moves |= _pairs(f"decoder.scores.{i}", f"decoder.dec_score_head.{source}", LINEAR)
        moves |= _mlp(f"decoder.quality.{i}.mlp", f"decoder.decoder.lqe_layers.{source}.reg_conf", 2)
        if i == source:  # a fresh one ends in zeros and changes no box; a copy would refine twice
            moves |= _mlp(f"decoder.corners.{i}", f"decoder.dec_bbox_head.{i}", 3)
    return moves


def _layer_moves(ours: str, theirs: str) -> dict[str, str]:
    moves = _self_attention(theirs, ours + "self_attention.", "out")
    for mine, name in (
        ("norm1", "norm1"),
        ("cross_attention.offsets", "cross_attn.sampling_offsets"),
        ("cross_attention.weights", "cross_attn.attention_weights"),
        ("mix.gates", "gateway.gate"),
        ("mix.norm", "gateway.norm"),
        ("feed_forward.layers.0", "linear1"),
        ("feed_forward.layers.1", "linear2"),
        ("norm3", "norm3"),
    ):
        moves |= _pairs(ours + mine, theirs + name, LINEAR)
    return moves


def _self_attention(theirs: str, ours: str, out: str) -> dict[str, str]:
    """torch's stacked in_proj has rows of q, then k, then v, as our qkv has."""
    return {
        f"{ours}qkv.weight": f"{theirs}self_attn.in_proj_weight",
        f"{ours}qkv.bias": f"{theirs}self_attn.in_proj_bias",
        **_pairs(ours + out, f"{theirs}self_attn.out_proj", LINEAR),
    }


def _pairs(ours: str, theirs: str, leaves: Sequence[str]) -> dict[str, str]:
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in leaves}


def _mlp(ours: str, theirs: str, layers: int) -> dict[str, str]:
    moves: dict[str, str] = {}
    for i in range(layers):
        moves |= _pairs(f"{ours}.layers.{i}", f"{theirs}.layers.{i}", LINEAR)
    return moves


def _conv_norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.conv.weight": f"{theirs}.conv.weight", **_pairs(f"{ours}.norm", f"{theirs}.norm", NORM)}


_LEFT: tuple[tuple[str, str], ...] = (
    (r"backbone\.", "HGNetv2 backbone; ours is EfficientNAT"),
    (r"encoder\.input_proj\.", "projections of HGNetv2's widths"),
    (r"encoder\.(fpn|pan)_blocks\.", "RepNCSPELAN4 fusion; ours is CSPRep"),
    (r"encoder\.downsample_convs\.", "1x1 and depthwise 3x3; ours is one dense 3x3"),
    (r"decoder\.input_proj\.", "projection of a wider encoder; ours has the decoder's width"),
    (r"decoder\.(decoder\.)?(up|reg_scale|project)$", "goes into the config"),
    (r"decoder\.(anchors|valid_mask)$|.*\.num_points_scale$|encoder\.pos_embed\d$", "follows from the config"),
)


def _why_left(origin: Origin, name: str) -> str:
    for pattern, reason in _LEFT:
        if re.match(pattern, name):
            return reason
    if origin.scale == "x" and name.startswith("encoder."):
        return "encoder of 384 channels; ours has 256"
    return "no counterpart in our network"


def _detector_notes(origin: Origin, config: ModelConfig) -> tuple[str, ...]:
    notes = []
    if origin.family == "dfine":
        notes.append("D-FINE's decoder was trained with ReLU, ours has SiLU, as DEIM's: a start, not the same function")
    if origin.scale != "x":
        notes.append("the encoder's attention saw the whole map there; ours sees a window of it")
        notes.append("the convolutions between levels have no activation there, SiLU here")
    if config.decoder.layers > origin.depths[0]:
        notes.append(f"decoder layers from {origin.depths[0]} on are copies of layer {origin.depths[0] - 1}")
    return tuple(notes)


def _with_their_scale(origin: Origin, state: State, config: ModelConfig) -> ModelConfig:
    up, scale = (_number(state, name) for name in ("decoder.up", "decoder.reg_scale"))
    act: Literal["relu", "silu"] = "silu" if origin.family == "deim" else "relu"
    return replace(config, decoder=replace(config.decoder, up=up, reg_scale=scale, quality_act=act))


def _number(state: State, name: str) -> float:
    if name not in state or state[name].numel() != 1 or not 0 < float(state[name]) <= 64:
        raise WeightsError(f"the checkpoint has no number in 0..64 under the name {name}, so its boxes have no scale")
    return float(state[name])


# Names of `transformers` and those of the original, in this order; older versions say encoder, fc1 and out_proj.
_FROM_TRANSFORMERS: tuple[tuple[str, str], ...] = (
    (r"^model\.encoder\.(?:aifi|encoder)\.0\.layers\.0\.", "encoder.encoder.0.layers.0."),
    (r"^(encoder\.encoder\.0\.layers\.0\.)self_attn_layer_norm\.", r"\1norm1."),
    (r"^(encoder\.encoder\.0\.layers\.0\.)final_layer_norm\.", r"\1norm2."),
    (r"^model\.decoder\.layers\.", "decoder.decoder.layers."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.o_proj\.", ".out_proj."),
    (r"(\.layers\.\d+)\.(?:mlp\.layers\.0|fc1)\.", r"\1.linear1."),
    (r"(\.layers\.\d+)\.(?:mlp\.layers\.1|fc2)\.", r"\1.linear2."),
    (r"^model\.decoder\.lqe_layers\.", "decoder.decoder.lqe_layers."),
    (r"^(?:model\.decoder\.)?class_embed\.", "decoder.dec_score_head."),
    (r"^(?:model\.decoder\.)?bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^model\.enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^model\.enc_output\.1\.", "decoder.enc_output.norm."),
    (r"^model\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"decoder.\1."),
    (r"^model\.encoder_input_proj\.", "encoder.input_proj."),
    (r"^model\.decoder_input_proj\.", "decoder.input_proj."),
    (r"^model\.(backbone|encoder|decoder)\.", r"\1."),
)


def _original_names(state: State) -> dict[str, Tensor]:
    """The same tensors under D-FINE's own names; three matrices of an attention become its stack."""
    if not any(name.startswith("model.decoder.layers.") for name in state):
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, original in _FROM_TRANSFORMERS:
            name = re.sub(pattern, original, name)
        renamed[name] = tensor
    for name in [n for n in renamed if n.endswith(("self_attn.q_proj.weight", "self_attn.q_proj.bias"))]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        absent = [part for part in parts if part not in renamed]
        if absent:
            raise WeightsError(f"the checkpoint has no tensor {absent[0]}")
        renamed[name.replace("q_proj.", "in_proj_")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def map_trunk(origin: Origin, state: State, config: ModelConfig, network: State) -> Mapped:
    """The part of an EfficientViT-L backbone that fits, for our backbone whose state (values unused) is given.

    What it computes stays the same: its norms' epsilon and the normalisation of its pixels go into the values; only at
    the border of the picture, which is padded with black instead of the mean colour, does the first convolution see
    something else. Blocks that ours has beyond theirs begin as the identity. WeightsError names what is absent or of
    another shape.
    """
    if not isinstance(config.backbone, EfficientNatConfig):
        raise WeightsError(f"{origin.title} fits the trunk of M, L and X, not that of {config.name!r}")
    if (config.pixel_mean, config.pixel_std) != (0.0, 255.0):
        raise ValueError("the network must take pixels in 0..1")
    prefix, eps = _trunk_place(origin, state)
    depths = tuple(min(a, b) for a, b in zip(origin.depths, config.backbone.depths, strict=True))
    moves = {ours: prefix + theirs for ours, theirs in _trunk_moves(depths).items()}
    tensors = _take(origin, moves, state, network)
    _same_epsilon(tensors, eps)
    _take_plain_pixels(tensors)
    grown = [
        f"stages.{stage}.{j + 1}.project.norm."
        for stage in (1, 2, 3)
        for j in range(depths[stage], config.backbone.depths[stage])
    ]
    for norm in grown:  # a branch that gives zeros
        tensors |= {norm + leaf: torch.zeros(network[norm + leaf].shape) for leaf in LINEAR}
    used = set(moves.values())
    report = Report(
        taken=moves,
        skipped={name: _why_trunk_left(name, prefix, depths) for name in state if name not in used},
        missing=tuple(name for name in network if name not in tensors),
        notes=(f"{len(grown)} blocks that only ours has begin as the identity",) if grown else (),
    )
    return Mapped(tensors=tensors, config=config, report=report)


def _trunk_place(origin: Origin, state: State) -> tuple[str, float]:
    """Prefix of the backbone's names, and the epsilon of its norms."""
    for prefix, eps in ((SAM_PREFIX, SAM_EPS), (CLASSIFIER_PREFIX, CLASSIFIER_EPS)):
        if any(name.startswith(prefix + "stages.") for name in state):
            return prefix, eps
    raise WeightsError(
        f"the checkpoint has no tensors under backbone.stages or image_encoder.backbone.stages, so it is no "
        f"{origin.title}"
    )


def _trunk_moves(depths: Sequence[int]) -> dict[str, str]:
    """Ours to theirs, for so many blocks behind each stage's first; of stage 4 only the first block."""
    moves = _conv_norm("stem", "stages.0.op_list.0")
    for j in range(depths[0]):
        for conv in ("conv1", "conv2"):
            moves |= _conv_norm(f"stages.0.{j}.{conv}", f"stages.0.op_list.{j + 1}.main.{conv}")
    for stage in (1, 2):
        for j in range(depths[stage] + 1):
            for mine, theirs in (("expand", "spatial_conv"), ("project", "point_conv")):
                moves |= _conv_norm(f"stages.{stage}.{j}.{mine}", f"stages.{stage}.op_list.{j}.main.{theirs}")
    for stage, blocks in ((3, depths[3] + 1), (4, 1)):
        for j in range(blocks):
            ours, theirs = f"stages.{stage}.{j}.", f"stages.{stage}.op_list.{j}.main."
            moves |= _pairs(ours + "expand.conv", theirs + "inverted_conv.conv", LINEAR)
            moves |= _pairs(ours + "depth.conv", theirs + "depth_conv.conv", LINEAR)
            moves |= _conv_norm(ours + "project", theirs + "point_conv")
    return moves


def _why_trunk_left(name: str, prefix: str, depths: Sequence[int]) -> str:
    found = re.match(re.escape(prefix) + r"stages\.(\d+)\.op_list\.\d+\.(\w+)", name)
    if not found:
        return "not of the backbone"
    if found[2] == "context_module":
        return "linear attention; ours is neighborhood attention"
    if found[2] == "local_module":
        return "feed-forward of expansion 6 behind linear attention; ours has 4"
    return f"stage {found[1]} has more blocks than our {depths[int(found[1])]}"


def _same_epsilon(tensors: dict[str, Tensor], eps: float) -> None:
    """Scale each norm's weight so that it computes with our epsilon what it did with its own."""
    for name in [n for n in tensors if n.endswith(".norm.running_var")]:
        variance, weight = tensors[name].double(), name.removesuffix("running_var") + "weight"
        ratio = ((variance + OUR_EPS) / (variance + eps)).sqrt()
        tensors[weight] = (tensors[weight].double() * ratio).float()


def _take_plain_pixels(tensors: dict[str, Tensor]) -> None:
    """The first convolution gets pixels in 0..1 instead of normalised ones; its norm subtracts the constant."""
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    weight = tensors["stem.conv.weight"].double() / std
    constant = (weight * mean).sum((1, 2, 3))
    tensors["stem.conv.weight"] = weight.float()
    tensors["stem.norm.running_mean"] = (tensors["stem.norm.running_mean"].double() + constant).float()


def _take(origin: Origin, moves: Mapping[str, str], state: State, network: State) -> dict[str, Tensor]:
    """Copies of their tensors under our names. All names and shapes are compared before, all values looked at."""
    absent = sorted({theirs for theirs in moves.values() if theirs not in state})
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise WeightsError(f"the checkpoint has no tensor {absent[0]}{more}, so it is no {origin.title}")
    reshaped = [
        f"{theirs} is {list(state[theirs].shape)}, expected {list(network[ours].shape)}"
        for ours, theirs in moves.items()
        if state[theirs].shape != network[ours].shape
    ]
    if reshaped:
        more = f" (and {len(reshaped) - 1} more)" if len(reshaped) > 1 else ""
        raise WeightsError(f"the checkpoint is no {origin.title} of {_classes(network)}: {reshaped[0]}{more}")
    taken = {}
    for ours, theirs in moves.items():
        tensor = state[theirs].detach().cpu()
        if tensor.is_floating_point() != network[ours].is_floating_point() or not bool(tensor.isfinite().all()):
            raise WeightsError(f"tensor {theirs} of the checkpoint has values that are not finite or not of its kind")
        taken[ours] = tensor.to(network[ours].dtype).clone()
    return taken


def _classes(network: State) -> str:
    score = network.get("decoder.encoder_score.weight")
    return "our widths" if score is None else f"{score.shape[0]} classes"
