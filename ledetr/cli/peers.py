"""Other detectors to measure beside ours: D-FINE N to X and RT-DETRv2, as `transformers` builds them.

Their weights are random, which latency does not depend on, and they go through the same conversion, engine, precision
and picture as ours. Sizes of the four D-FINE scales are from the public configurations of Peterande/D-FINE
(Apache-2.0); that the parameter counts come out as published is a test.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn

from ledetr.backends import open_backend
from ledetr.backends.base import ModelSource
from ledetr.detector import Detector
from ledetr.errors import BackendUnavailable
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLASSES = 80


@dataclass(frozen=True, kw_only=True)
class DFineScale:
    """What differs between the scales of D-FINE.

    stem: channels of the two stem convolutions behind the picture's three. stages: per stage (in, middle, out, blocks,
    layers in a block). levels: how many of the last stages the encoder reads.
    """

    stem: tuple[int, int]
    stages: tuple[tuple[int, int, int, int, int], ...]
    affine: bool
    levels: int
    encoder_dim: int
    encoder_ffn: int
    expansion: float
    depth: float
    decoder_dim: int
    decoder_ffn: int
    decoder_layers: int
    points: tuple[int, ...]
    reg_scale: float = 4.0


D_FINE: Final = {
    "d-fine-n": DFineScale(
        stem=(16, 16),
        stages=((16, 16, 64, 1, 3), (64, 32, 256, 1, 3), (256, 64, 512, 2, 3), (512, 128, 1024, 1, 3)),
        affine=True,
        levels=2,
        encoder_dim=128,
        encoder_ffn=512,
        expansion=0.34,
        depth=0.5,
        decoder_dim=128,
        decoder_ffn=512,
        decoder_layers=3,
        points=(6, 6),
    ),
    "d-fine-m": DFineScale(
        stem=(24, 32),
        stages=((32, 32, 96, 1, 4), (96, 64, 384, 1, 4), (384, 128, 768, 3, 4), (768, 256, 1536, 1, 4)),
        affine=True,
        levels=3,
        encoder_dim=256,
        encoder_ffn=1024,
        expansion=1.0,
        depth=0.67,
        decoder_dim=256,
        decoder_ffn=1024,
        decoder_layers=4,
        points=(3, 6, 3),
    ),
    "d-fine-l": DFineScale(
        stem=(32, 48),
        stages=((48, 48, 128, 1, 6), (128, 96, 512, 1, 6), (512, 192, 1024, 3, 6), (1024, 384, 2048, 1, 6)),
        affine=False,
        levels=3,
        encoder_dim=256,
        encoder_ffn=1024,
        expansion=1.0,
        depth=1.0,
        decoder_dim=256,
        decoder_ffn=1024,
        decoder_layers=6,
        points=(3, 6, 3),
    ),
    "d-fine-x": DFineScale(
        stem=(32, 64),
        stages=((64, 64, 128, 1, 6), (128, 128, 512, 2, 6), (512, 256, 1024, 5, 6), (1024, 512, 2048, 2, 6)),
        affine=False,
        levels=3,
        encoder_dim=384,
        encoder_ffn=2048,
        expansion=1.0,
        depth=1.0,
        decoder_dim=256,
        decoder_ffn=1024,
        decoder_layers=6,
        points=(3, 6, 3),
        reg_scale=8.0,
    ),
}
# Which peers a scale of ours is set beside.
PEERS_OF: Final = {
    "n": ("d-fine-n",),
    "m": ("d-fine-m", "rt-detrv2-r50"),
    "l": ("d-fine-l", "rt-detrv2-r50"),
    "x": ("d-fine-x", "rt-detrv2-r50"),
}


def load_peer(
    name: str,
    input_hw: tuple[int, int],
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> tuple[Detector, float]:
    """A detector with a peer's network and random weights behind the same engine as ours; its million parameters.

    Raises BackendUnavailable where the package transformers is missing, or as open_backend does.
    """
    network = peer_network(name, input_hw)
    source = ModelSource(
        key=None,
        input_hw=input_hw,
        build=lambda: network,
        example=lambda: torch.zeros((1, 3, *input_hw), dtype=torch.uint8),
        export_onnx=lambda: _no_onnx(name),
        build_graph=lambda: PeerForProcessor(network).eval(),
    )
    engine = open_backend(backend, source, device=device, precision=precision, threads=threads)
    detector = Detector(
        engine, model_id=name, class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS, random_weights=True
    )
    return detector, sum(p.numel() for p in network.parameters()) / 1e6


def peer_network(name: str, input_hw: tuple[int, int], *, values: bool = True) -> nn.Module:
    """(B, 3, H, W) pixels in 0..255 to logits (B, Q, 80) and boxes_cxcywh (B, Q, 4) of the last decoder layer.

    Branches that a peer merges for deployment are merged, as ours are; its anchors are fixed for the size. values:
    False leaves the parameters as they were made, for counting on the "meta" device.
    """
    models = _transformers()
    torch.manual_seed(0)
    if name in D_FINE:
        config = _d_fine_config(models, D_FINE[name])
        config.anchor_image_size = list(input_hw)
        network = models.DFineForObjectDetection(config).eval()
    elif name == "rt-detrv2-r50":
        network = models.RTDetrV2ForObjectDetection(
            models.RTDetrV2Config(num_labels=CLASSES, anchor_image_size=list(input_hw))
        ).eval()
    else:
        raise ValueError(f"unknown peer {name!r}; there are {', '.join((*D_FINE, 'rt-detrv2-r50'))}")
    if values:
        randomise(network)
    merge_branches(network)
    return _LogitsAndBoxes(network)


def peer_for_training(name: str, input_hw: tuple[int, int]) -> Any:
    """transformers' own D-FINE with the loss that comes with it, random weights, in train mode."""
    models = _transformers()
    torch.manual_seed(0)
    config = _d_fine_config(models, D_FINE[name])
    config.anchor_image_size = list(input_hw)
    return models.DFineForObjectDetection(config).train()


def _no_onnx(name: str) -> bytes:
    raise BackendUnavailable(
        f"{name} is not measured in ONNX Runtime; take --backend openvino, torch-cpu or torch-cuda"
    )


def _transformers() -> Any:
    # Neither asks a hub for anything here; said so, so that it cannot.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "--peers needs the package transformers: pip install -c constraints.txt '.[peers]'"
        ) from error
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers


def _d_fine_config(models: Any, scale: DFineScale) -> Any:
    out = [stage[2] for stage in scale.stages]
    names = [f"stage{i + 1}" for i in range(4)][-scale.levels :]
    backbone = models.HGNetV2Config(
        stem_channels=[3, *scale.stem],
        stage_in_channels=[s[0] for s in scale.stages],
        stage_mid_channels=[s[1] for s in scale.stages],
        stage_out_channels=out,
        hidden_sizes=out,
        stage_num_blocks=[s[3] for s in scale.stages],
        stage_numb_of_layers=[s[4] for s in scale.stages],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        use_learnable_affine_block=scale.affine,
        out_features=names,
    )
    return models.DFineConfig(
        backbone_config=backbone,
        num_labels=CLASSES,
        encoder_in_channels=out[-scale.levels :],
        feat_strides=[8, 16, 32][-scale.levels :],
        encode_proj_layers=[scale.levels - 1],
        encoder_hidden_dim=scale.encoder_dim,
        encoder_ffn_dim=scale.encoder_ffn,
        hidden_expansion=scale.expansion,
        depth_mult=scale.depth,
        d_model=scale.decoder_dim,
        decoder_in_channels=[scale.encoder_dim] * scale.levels,
        decoder_ffn_dim=scale.decoder_ffn,
        decoder_layers=scale.decoder_layers,
        num_feature_levels=scale.levels,
        decoder_n_points=list(scale.points),
        reg_scale=scale.reg_scale,
    )


def randomise(network: nn.Module) -> None:
    """Small random numbers in place of the zeros that some heads start with: no part may fold away as a constant."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(0.0, 0.02)


def merge_branches(network: nn.Module) -> None:
    """Every pair of a 3 x 3 and a 1 x 1 convolution that is summed becomes one 3 x 3 convolution, as at deployment."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RepVggBlock"):
                setattr(parent, name, _merged(child))


def _merged(block: Any) -> nn.Module:
    wide, narrow = (_folded(part.conv, part.norm) for part in (block.conv1, block.conv2))
    conv = nn.Conv2d(block.conv1.conv.in_channels, block.conv1.conv.out_channels, 3, padding=1)
    conv.weight.data = wide[0] + nn.functional.pad(narrow[0], (1, 1, 1, 1))
    assert conv.bias is not None
    conv.bias.data = wide[1] + narrow[1]
    return nn.Sequential(conv, block.activation)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its norm inside."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return conv.weight.detach() * scale[:, None, None, None], norm.bias.detach() - norm.running_mean * scale


class _LogitsAndBoxes(nn.Module):
    """Pixels in 0..255 as our networks take them, and only what is used of the answer."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.network(pixels.float() / 255.0)
        return answer.logits, answer.pred_boxes


class PeerForProcessor(nn.Module):
    """A network of peer_network() for pixels (B, H, W, 3), so that they reach it in the way that suits ours best."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.network = cast(_LogitsAndBoxes, peer).network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.network((pixels.float() / 255.0).permute(0, 3, 1, 2))
        return answer.logits, answer.pred_boxes
