"""Checkpoints of others, made up here with the names and shapes of the public configs, under our names.

The tables below were written down from the model code and the configs of Peterande/D-FINE, ShihuaHuang95/DEIM and
mit-han-lab/efficientvit, not from ours. Values are random; what they compute is compared with torch's own modules,
with a plain reading of EfficientViT's blocks, and with the package transformers.
"""

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.errors import WeightsError
from ledetr.model.backbone import EfficientNat, build_backbone
from ledetr.model.config import ledetr_l, ledetr_m, ledetr_n, ledetr_tiny, ledetr_x
from ledetr.model.decoder import Decoder, SelfAttention
from ledetr.model.encoder import Naifi, position_code
from ledetr.model.ledetr import LeDetr, build_model
from training.foreign import ORIGINS, Mapped, map_detector, map_trunk

Shapes = dict[str, tuple[int, ...]]
SCALES = {"m": ledetr_m, "l": ledetr_l, "x": ledetr_x}
SUMS_DIFFER = 2e-5
"""The same sums in another order, float32."""


def linear(name: str, inp: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, inp), f"{name}.bias": (out,)}


def pair(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def mlp(name: str, *widths: int) -> Shapes:
    table: Shapes = {}
    for i, (a, b) in enumerate(pairwise(widths)):
        table |= linear(f"{name}.layers.{i}", a, b)
    return table


def batch_norm(name: str, width: int) -> Shapes:
    statistics = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return {**pair(name, width), **statistics, f"{name}.num_batches_tracked": ()}


def conv(name: str, inp: int, out: int, kernel: int, groups: int = 1) -> Shapes:
    return {f"{name}.conv.weight": (out, inp // groups, kernel, kernel), **batch_norm(f"{name}.norm", out)}


def attention(name: str, width: int) -> Shapes:
    stack = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
    return {**stack, **linear(f"{name}.out_proj", width, width)}


# size: widths of the backbone's maps, encoder width, encoder FFN, depth of its blocks, decoder layers, reg_scale
DETECTORS = {
    "m": ((384, 768, 1536), 256, 1024, 2, 4, 4.0),
    "l": ((512, 1024, 2048), 256, 1024, 3, 6, 4.0),
    "x": ((512, 1024, 2048), 384, 2048, 3, 6, 8.0),
}


def detector_table(size: str, classes: int = 80) -> Shapes:
    """Of the backbone only its first convolution; the encoder's fusion whole, because it must be left out whole."""
    maps, width, ffn, depth, layers, _ = DETECTORS[size]
    table: Shapes = {"backbone.stem.stem1.conv.weight": (32, 3, 3, 3)}
    for i, channels in enumerate(maps):
        table |= conv(f"encoder.input_proj.{i}", channels, width, 1)
    table |= attention("encoder.encoder.0.layers.0.self_attn", width)
    table |= linear("encoder.encoder.0.layers.0.linear1", width, ffn)
    table |= linear("encoder.encoder.0.layers.0.linear2", ffn, width)
    table |= pair("encoder.encoder.0.layers.0.norm1", width) | pair("encoder.encoder.0.layers.0.norm2", width)
    for i in range(2):
        table |= conv(f"encoder.lateral_convs.{i}", width, width, 1)
        table |= conv(f"encoder.downsample_convs.{i}.0.cv1", width, width, 1)
        table |= conv(f"encoder.downsample_convs.{i}.0.cv2", width, width, 3, width)
        for side in ("fpn", "pan"):
            block, inner = f"encoder.{side}_blocks.{i}", width // 2
            table |= conv(f"{block}.cv1", 2 * width, 2 * width, 1)
            for part, inp in (("cv2", width), ("cv3", inner)):
                table |= conv(f"{block}.{part}.0.conv1", inp, inner, 1) | conv(f"{block}.{part}.0.conv2", inp, inner, 1)
                for j in range(depth):
                    table |= conv(f"{block}.{part}.0.bottlenecks.{j}.conv1", inner, inner, 3)
                    table |= conv(f"{block}.{part}.0.bottlenecks.{j}.conv2", inner, inner, 1)
                table |= conv(f"{block}.{part}.1", inner, inner, 3)
            table |= conv(f"{block}.cv4", 2 * width + 2 * inner, width, 1)
    if size == "x":
        for i in range(3):
            table |= conv(f"decoder.input_proj.{i}", 384, 256, 1)
    for prefix in ("decoder.", "decoder.decoder."):
        table |= {f"{prefix}up": (1,), f"{prefix}reg_scale": (1,)}
    for i in range(layers):
        layer = f"decoder.decoder.layers.{i}"
        table |= attention(f"{layer}.self_attn", 256)
        table |= {f"{layer}.cross_attn.num_points_scale": (12,)}
        table |= linear(f"{layer}.cross_attn.sampling_offsets", 256, 192)
        table |= linear(f"{layer}.cross_attn.attention_weights", 256, 96)
        table |= linear(f"{layer}.gateway.gate", 512, 512) | pair(f"{layer}.gateway.norm", 256)
        table |= linear(f"{layer}.linear1", 256, 1024) | linear(f"{layer}.linear2", 1024, 256)
        table |= pair(f"{layer}.norm1", 256) | pair(f"{layer}.norm3", 256)
        table |= mlp(f"decoder.decoder.lqe_layers.{i}.reg_conf", 20, 64, 1)
        table |= linear(f"decoder.dec_score_head.{i}", 256, classes)
        table |= mlp(f"decoder.dec_bbox_head.{i}", 256, 256, 256, 132)
    table |= {"decoder.denoising_class_embed.weight": (classes + 1, 256)}
    table |= mlp("decoder.query_pos_head", 4, 512, 256)
    table |= linear("decoder.enc_output.proj", 256, 256) | pair("decoder.enc_output.norm", 256)
    table |= linear("decoder.enc_score_head", 256, classes)
    table |= mlp("decoder.enc_bbox_head", 256, 256, 256, 4) | mlp("decoder.pre_bbox_head", 256, 256, 256, 4)
    return table | {"decoder.anchors": (1, 8400, 4), "decoder.valid_mask": (1, 8400, 1)}


TRUNKS = {"l0": (1, 1, 1, 4, 4), "l1": (1, 1, 1, 6, 6), "l2": (1, 2, 2, 8, 8)}
WIDTHS = (32, 64, 128, 256, 512)


def trunk_table(size: str, prefix: str) -> Shapes:
    table = conv("stages.0.op_list.0", 3, 32, 3)
    table |= conv("stages.0.op_list.1.main.conv1", 32, 32, 3) | conv("stages.0.op_list.1.main.conv2", 32, 32, 3)
    for stage in (1, 2):
        for j in range(TRUNKS[size][stage] + 1):
            inp, expand = (WIDTHS[stage - 1], 16) if j == 0 else (WIDTHS[stage], 4)
            block = f"stages.{stage}.op_list.{j}.main"
            table |= conv(f"{block}.spatial_conv", inp, inp * expand, 3)
            table |= conv(f"{block}.point_conv", inp * expand, WIDTHS[stage], 1)
    for j in range(TRUNKS[size][3] + 1):
        inp, expand = (128, 16) if j == 0 else (256, 4)
        table |= inverted(f"stages.3.op_list.{j}.main", inp, inp * expand, 256)
    table |= inverted("stages.4.op_list.0.main", 256, 6144, 512)
    for j in range(1, TRUNKS[size][4] + 1):
        block = f"stages.4.op_list.{j}"
        table[f"{block}.context_module.main.qkv.conv.weight"] = (1536, 512, 1, 1)
        table[f"{block}.context_module.main.aggreg.0.0.weight"] = (1536, 1, 5, 5)
        table[f"{block}.context_module.main.aggreg.0.1.weight"] = (1536, 32, 1, 1)
        table |= conv(f"{block}.context_module.main.proj", 1024, 512, 1)
        table |= inverted(f"{block}.local_module.main", 512, 3072, 512)
    table = {prefix + name: shape for name, shape in table.items()}
    return table | {"head.op_list.3.linear.weight": (1000, 3200)}


def inverted(name: str, inp: int, hidden: int, out: int) -> Shapes:
    wide = {f"{name}.inverted_conv.conv.weight": (hidden, inp, 1, 1), f"{name}.inverted_conv.conv.bias": (hidden,)}
    deep = {f"{name}.depth_conv.conv.weight": (hidden, 1, 3, 3), f"{name}.depth_conv.conv.bias": (hidden,)}
    return {**wide, **deep, **conv(f"{name}.point_conv", hidden, out, 1)}


LEFT = re.compile(r".*(_blocks|downsample_convs|input_proj|context_module|local_module|head\.op_list)\b")
"""Large parts that must be left alone, so their values need not be made."""


def values(table: Shapes) -> dict[str, Tensor]:
    """Random tensors. The first variance of each norm is so small that its epsilon matters."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in table.items():
        if LEFT.match(name):
            state[name] = torch.zeros(()).expand(shape)
            continue
        tensor = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            tensor = tensor.abs() + 0.5
        elif len(shape) > 1:
            tensor = tensor / tensor[0].numel() ** 0.5
        state[name] = torch.tensor(7) if name.endswith("num_batches_tracked") else tensor
    for name in [name for name in state if name.endswith("running_var") and not LEFT.match(name)]:
        weight = state[name.removesuffix("running_var") + "weight"]
        state[name][0] = 1e-6
        weight *= 0.3  # many blocks in a row stay within float32
        weight[0] *= 1e-3
    return state


@cache
def detector_state(size: str, classes: int = 80) -> dict[str, Tensor]:
    state = values(detector_table(size, classes))
    for prefix in ("decoder.", "decoder.decoder."):
        state[prefix + "up"] = torch.tensor([0.5])
        state[prefix + "reg_scale"] = torch.tensor([DETECTORS[size][5]])
    return state


@cache
def network_of(scale: str) -> dict[str, Tensor]:
    """Names and shapes, without values."""
    return build_model(SCALES[scale](), device="meta").state_dict()


@cache
def mapped(origin: str) -> tuple[dict[str, Tensor], Mapped]:
    size = origin.split("-")[1]
    state, config = detector_state(size), SCALES[size]()
    return state, map_detector(ORIGINS[origin], state, config, network_of(size))


@pytest.mark.parametrize("origin", ["dfine-m", "dfine-l", "dfine-x", "deim-m", "deim-l", "deim-x"])
def test_every_tensor_of_a_detector_is_taken_or_left_for_a_reason(origin: str) -> None:
    state, result = mapped(origin)
    report = result.report
    assert set(report.taken.values()) | set(report.skipped) == set(state)
    assert not set(report.taken.values()) & set(report.skipped)
    assert "no counterpart in our network" not in report.skipped.values()
    network = network_of(origin[-1])
    assert set(result.tensors) | set(report.missing) == set(network) and not set(result.tensors) & set(report.missing)
    assert all(torch.equal(result.tensors[ours], state[theirs]) for ours, theirs in report.taken.items())
    ours_alone = {name.rsplit(".", 1)[0].split(".")[0] + "." + name.split(".")[1] for name in report.missing}
    fusion = {"encoder.top_down", "encoder.bottom_up", "encoder.down", "encoder.projections"}
    expected = {"backbone.stem", "backbone.stages"} | fusion
    if origin.endswith("x"):
        expected |= {"encoder.naifi", "encoder.lateral"}
    if origin.endswith("m"):
        expected |= {"decoder.corners"}
    assert ours_alone == expected


def test_a_few_names_worked_out_by_hand() -> None:
    taken = mapped("deim-l")[1].report.taken
    assert taken["decoder.layers.5.self_attention.qkv.bias"] == "decoder.decoder.layers.5.self_attn.in_proj_bias"
    assert taken["decoder.layers.2.mix.gates.weight"] == "decoder.decoder.layers.2.gateway.gate.weight"
    assert taken["decoder.select.1.bias"] == "decoder.enc_output.norm.bias"
    assert taken["decoder.corners.3.layers.2.weight"] == "decoder.dec_bbox_head.3.layers.2.weight"
    assert taken["encoder.naifi.project.weight"] == "encoder.encoder.0.layers.0.linear2.weight"
    assert len({name for name in taken if name.startswith("decoder.")}) == len(
        [name for name in network_of("l") if name.startswith("decoder.")]
    )


def test_the_config_says_what_the_heads_mean() -> None:
    assert mapped("dfine-x")[1].config.decoder.reg_scale == 8.0
    assert mapped("dfine-l")[1].config == ledetr_l()
    assert mapped("deim-l")[1].config.decoder.quality_act == "silu"


def test_layers_beyond_theirs_are_copies_that_leave_the_boxes() -> None:
    state, result = mapped("deim-m")
    for layer in (3, 4, 5):
        assert torch.equal(
            result.tensors[f"decoder.layers.{layer}.norm3.weight"], state["decoder.decoder.layers.3.norm3.weight"]
        )
        assert torch.equal(result.tensors[f"decoder.scores.{layer}.bias"], state["decoder.dec_score_head.3.bias"])
    torch.manual_seed(0)
    decoder = Decoder(result.config.decoder).eval()
    own = {k.removeprefix("decoder."): v for k, v in result.tensors.items() if k.startswith("decoder.")}
    decoder.load_state_dict({**decoder.state_dict(), **own})
    maps = [torch.randn(1, 256, n, n) for n in (8, 4, 2)]
    boxes = []
    with torch.no_grad():
        for used in (4, 5, 6):
            decoder.used_layers = used
            boxes.append(decoder(maps)[1])
    assert torch.allclose(boxes[0], boxes[1], atol=1e-6) and torch.allclose(boxes[0], boxes[2], atol=1e-6)


def test_the_stacked_projection_computes_what_theirs_does() -> None:
    state, result = mapped("dfine-l")
    theirs, ours = nn.MultiheadAttention(256, 8, batch_first=True), SelfAttention(256, 8)
    prefix = "decoder.decoder.layers.1.self_attn."
    theirs.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    prefix = "decoder.layers.1.self_attention."
    ours.load_state_dict({k.removeprefix(prefix): v for k, v in result.tensors.items() if k.startswith(prefix)})
    x, position = torch.randn(2, 9, 256), torch.randn(2, 9, 256)
    expected = theirs(x + position, x + position, x, need_weights=False)[0]
    assert torch.allclose(ours(x, position, None), expected, atol=SUMS_DIFFER)


def test_the_encoder_layer_computes_what_theirs_does_where_the_window_sees_all() -> None:
    state, result = mapped("dfine-l")
    layer = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, activation="gelu", batch_first=True).eval()
    prefix = "encoder.encoder.0.layers.0."
    layer.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    ours = Naifi(ledetr_l().encoder)
    prefix = "encoder.naifi."
    ours.load_state_dict({k.removeprefix(prefix): v for k, v in result.tensors.items() if k.startswith(prefix)})
    x = torch.randn(2, 256, 4, 6)  # 24 positions, a window of 63
    tokens = x.flatten(2).transpose(1, 2)
    coded = tokens + position_code(4, 6, 256, x).flatten(0, 1)
    mixed = layer.norm1(tokens + layer.self_attn(coded, coded, tokens, need_weights=False)[0])
    expected = layer.norm2(mixed + layer.linear2(F.gelu(layer.linear1(mixed))))
    assert torch.allclose(ours(x).flatten(2).transpose(1, 2), expected, atol=SUMS_DIFFER)


def test_wrong_names_and_shapes_are_named() -> None:
    network, state = network_of("l"), detector_state("l")

    def message(**changed: Tensor | None) -> str:
        altered = {k: v for k, v in {**state, **changed}.items() if v is not None}
        with pytest.raises(WeightsError) as error:
            map_detector(ORIGINS["dfine-l"], altered, ledetr_l(), network)
        return str(error.value)

    name = "decoder.decoder.layers.2.linear1.weight"
    assert f"{name} is [1024, 255], expected [1024, 256]" in message(**{name: torch.zeros(1024, 255)})
    assert f"has no tensor {name}, so it is no D-FINE-L" in message(**{name: None})
    assert f"tensor {name} of the checkpoint has values that are not finite" in message(
        **{name: torch.full((1024, 256), float("nan"))}
    )
    assert "no number in 0..64 under the name decoder.reg_scale" in message(**{"decoder.reg_scale": None})
    with pytest.raises(WeightsError, match=r"of 80 classes: decoder\.enc_score_head\.weight is \[366, 256\]"):
        map_detector(ORIGINS["dfine-l"], detector_state("l", 366), ledetr_l(), network)
    with pytest.raises(WeightsError, match=r"no tensor decoder\.dec_bbox_head\.4.* so it is no DEIM-D-FINE-L"):
        map_detector(ORIGINS["deim-l"], detector_state("m"), ledetr_l(), network)


def blank_backbone(scale: str) -> EfficientNat:
    """Without the pains of first values."""
    with torch.device("meta"):
        backbone = build_backbone(SCALES[scale]().backbone)
    assert isinstance(backbone, EfficientNat)
    return backbone.to_empty(device="cpu")


def trunk(size: str, scale: str, prefix: str = "backbone.") -> tuple[dict[str, Tensor], Mapped]:
    state, config = values(trunk_table(size, prefix)), SCALES[scale]()
    return state, map_trunk(ORIGINS[f"efficientvit-{size}"], state, config, blank_backbone(scale).state_dict())


def test_stages_0_to_3_and_the_first_block_of_stage_4_fit_and_no_more() -> None:
    _, result = trunk("l1", "l")
    blocks = {".".join(name.split(".")[:3]) for name in result.tensors if name.startswith("stages")}
    assert blocks == {
        "stages.0.0", "stages.1.0", "stages.1.1", "stages.2.0", "stages.2.1",
        *(f"stages.3.{j}" for j in range(5)), "stages.4.0",
    }  # fmt: skip
    assert {".".join(name.split(".")[:3]) for name in result.report.missing} == {f"stages.4.{j}" for j in (1, 2, 3, 4)}
    reasons = {re.sub(r"[\d.]+", "", name): reason for name, reason in result.report.skipped.items()}
    assert len(set(reasons.values())) == 4, result.report.summary()
    assert result.report.skipped["backbone.stages.3.op_list.5.main.point_conv.norm.bias"] == (
        "stage 3 has more blocks than our 4"
    )


def plain(state: dict[str, Tensor], name: str, x: Tensor, eps: float, *, stride: int = 1, act: bool = True) -> Tensor:
    """One convolution of theirs: weight, bias if any, norm if any, GELU in its tanh form if any."""
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(
        x,
        weight,
        state.get(f"{name}.conv.bias"),
        stride,
        padding=weight.shape[2] // 2,
        groups=x.shape[1] // weight.shape[1],
    )
    if f"{name}.norm.weight" in state:
        norm = [state[f"{name}.norm.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm, eps=eps)
    return F.gelu(x, approximate="tanh") if act else x


def reference(
    state: dict[str, Tensor], prefix: str, depths: tuple[int, ...], pixels: Tensor, eps: float
) -> list[Tensor]:
    """Their maps after stages 1 to 3 and after the first block of stage 4, on a picture with a black border."""
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    bordered = (F.pad(pixels, (2, 2, 2, 2)) - mean) / std
    # padding by the picture's own border, then cut, so that the first convolution sees black around the picture
    x = plain(state, f"{prefix}stages.0.op_list.0", bordered, eps, stride=2)[:, :, 1:-1, 1:-1]
    block = f"{prefix}stages.0.op_list.1.main"
    x = x + plain(state, f"{block}.conv2", plain(state, f"{block}.conv1", x, eps), eps, act=False)
    maps = []
    for stage in (1, 2, 3, 4):
        for j in range(depths[stage] + 1 if stage < 4 else 1):
            block, stride = f"{prefix}stages.{stage}.op_list.{j}.main", 2 if j == 0 else 1
            if stage < 3:
                y = plain(state, f"{block}.spatial_conv", x, eps, stride=stride)
            else:
                y = plain(state, f"{block}.inverted_conv", x, eps)
                y = plain(state, f"{block}.depth_conv", y, eps, stride=stride)
            y = plain(state, f"{block}.point_conv", y, eps, act=False)
            x = y if j == 0 else x + y
        maps.append(x)
    return maps


@pytest.mark.parametrize(
    ("size", "scale", "prefix", "eps"),
    [
        ("l1", "m", "backbone.", 1e-7),
        ("l2", "x", "backbone.", 1e-7),
        ("l0", "l", "image_encoder.backbone.", 1e-6),
    ],
)
def test_a_trunk_computes_what_theirs_does(size: str, scale: str, prefix: str, eps: float) -> None:
    """X has more blocks than L2: the rest is the identity. M has fewer than L1: the reference stops where M does."""
    state, result = trunk(size, scale, prefix)
    backbone = blank_backbone(scale)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_()
    backbone.load_state_dict({**backbone.state_dict(), **result.tensors})
    depths = tuple(min(a, b) for a, b in zip(TRUNKS[size], result.config.backbone.depths, strict=True))  # type: ignore[union-attr]
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference(state, prefix, depths, pixels, eps)
        x, got = backbone.eval().stem(pixels), []
        for stage in backbone.stages[:4]:
            x = stage(x)
            got.append(x)
        got.append(backbone.stages[4][0](x))
    for mine, theirs in zip(got[1:], expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_other_trunks_are_refused_by_name() -> None:
    state = values(trunk_table("l1", "backbone."))
    network = blank_backbone("l").state_dict()
    wide = {**state, "backbone.stages.0.op_list.0.conv.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"stages\.0\.op_list\.0\.conv\.weight is \[64, 3, 3, 3\], expected \[32,"):
        map_trunk(ORIGINS["efficientvit-l1"], wide, ledetr_l(), network)
    with pytest.raises(WeightsError, match="so it is no EfficientViT-L1"):
        map_trunk(ORIGINS["efficientvit-l1"], {"stem.weight": torch.zeros(1)}, ledetr_l(), network)
    with pytest.raises(WeightsError, match="fits the trunk of M, L and X, not that of 'n'"):
        map_trunk(ORIGINS["efficientvit-l1"], state, ledetr_n(), network)


@pytest.mark.slow
def test_a_decoder_of_transformers_gives_the_same_boxes() -> None:
    """Their decoder and query selection on their encoder's maps, against ours; their activations set to ours."""
    pytest.importorskip("transformers", reason="the extra 'peers' is not installed")
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    torch.manual_seed(0)
    trunk_config = HGNetV2Config(
        stem_channels=[3, 8, 16],
        stage_in_channels=[16, 16, 512, 1024],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 512, 1024, 2048],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    their_config = DFineConfig(
        backbone_config=trunk_config,
        d_model=32,
        encoder_hidden_dim=32,
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=48,
        decoder_attention_heads=4,
        decoder_layers=3,
        decoder_n_points=[3, 6, 3],
        num_queries=20,
        num_labels=5,
        decoder_activation_function="silu",
    )
    theirs = DFineForObjectDetection(their_config).eval()
    for name, parameter in theirs.named_parameters():
        if name.startswith(("model.decoder.", "model.enc_")) and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)  # heads begin with zeros, which would hide what they are given
    for name, module in theirs.named_modules():
        if type(module).__name__ == "DFineMLP" and "lqe" not in name:
            module.act = nn.SiLU()
    tiny = ledetr_tiny(5)
    decoder = replace(
        tiny.decoder, ffn=48, layers=3, eval_layers=3, points=(3, 6, 3), position_hidden=64, quality_act="relu"
    )
    config = replace(tiny, encoder=replace(tiny.encoder, ffn=64), decoder=decoder)
    network = build_model(config, device="meta").state_dict()
    result = map_detector(replace(ORIGINS["dfine-l"], depths=(3,)), theirs.state_dict(), config, network)
    assert "no counterpart in our network" not in result.report.skipped.values(), result.report.summary()
    ours: LeDetr = build_model(result.config).eval()
    ours.load_state_dict({**ours.state_dict(), **result.tensors})
    ours.decoder.position.act = ours.decoder.encoder_box.act = nn.ReLU()  # fixed in their code
    maps: list[list[Tensor]] = []
    theirs.model.encoder.register_forward_hook(
        lambda _module, _inputs, output: maps.append(getattr(output, "last_hidden_state", output[0]))
    )
    with torch.no_grad():
        expected = theirs(pixel_values=torch.rand(1, 3, 96, 96))
        logits, boxes = ours.decoder(list(maps[0]))
    assert expected.pred_boxes.std() > 0.1 and expected.logits.std() > 0.1
    assert torch.allclose(logits, expected.logits, atol=SUMS_DIFFER)
    assert torch.allclose(boxes, expected.pred_boxes, atol=SUMS_DIFFER)
