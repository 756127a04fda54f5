"""Le-DETR: pixels to class logits and boxes."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from ledetr.model.backbone import build_backbone
from ledetr.model.config import ModelConfig
from ledetr.model.decoder import Decoder
from ledetr.model.encoder import build_encoder
from ledetr.model.layers import fold_all
from ledetr.model.outputs import DenoisingQueries, TrainOutputs


class LeDetr(nn.Module):
    """The whole network (arXiv:2602.21010). Normalisation of pixels is part of it.

    forward takes pixels (B, 3, H, W), RGB in 0..255, any dtype, H and W multiples of 32. In eval mode it gives logits
    (B, Q, C) float32 before the sigmoid and boxes_cxcywh (B, Q, 4) float32 in 0..1; in train mode TrainOutputs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone)
        self.encoder = build_encoder(config.encoder, self.backbone.widths)
        self.decoder = Decoder(config.decoder)

    def forward(
        self, pixels: Tensor, denoising: DenoisingQueries | None = None
    ) -> tuple[Tensor, Tensor] | TrainOutputs:
        height, width = int(pixels.shape[2]), int(pixels.shape[3])
        if height % 32 or width % 32:
            raise ValueError(f"the input is {height}x{width}; both sides must be multiples of 32")
        return self.decoder(self.encoder(self.backbone(self.normalize(pixels))), denoising)

    def normalize(self, pixels: Tensor) -> Tensor:
        """0..255 to the scale the backbone was trained on, in the backbone's dtype."""
        dtype = next(self.backbone.parameters()).dtype
        return (pixels.to(dtype) - self.config.pixel_mean) / self.config.pixel_std

    def fused(self, eval_layers: int | None = None) -> "LeDetr":
        """A copy for inference: norms and branches folded, only the heads that are used; outputs as before.

        eval_layers: decoder layers to run, by default the config's; ValueError outside 1..layers.
        """
        deploy = copy.deepcopy(self).eval()
        deploy.requires_grad_(False)
        fold_all(deploy)
        deploy.decoder.keep_layers(eval_layers or self.decoder.used_layers)
        deploy.decoder.drop_training_parts()
        return deploy


def build_model(config: ModelConfig, *, device: Literal["cpu", "meta", "cuda"] | torch.device = "cpu") -> LeDetr:
    """A freshly initialised network; on "meta" it has shapes but no values, for counting and checking."""
    with torch.device(device):
        return LeDetr(config)
