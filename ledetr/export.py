"""The network as a file for other programs, checked against torch before it gets its final name."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from torch import nn

OPSET = 17  # LayerNormalization as one operator; GridSample is there since 16
OUTPUT_NAMES = ("logits", "boxes_cxcywh")


class PixelsLast(nn.Module):
    """The deploy form for pictures as programs hold them: (B, H, W, 3) uint8 in, logits and boxes_cxcywh out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, boxes_cxcywh = self.network(pixels.permute(0, 3, 1, 2))
        return logits, boxes_cxcywh


def onnx_bytes(network: nn.Module, input_hw: tuple[int, int]) -> bytes:
    """The deploy form as one self-contained ONNX file of opset 17, batch 1, fixed size.

    Written by torch's tracing exporter: it needs no further package, and our forward passes never branch on a value.
    """
    height, width = input_hw
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # Tracing warns of Python numbers becoming constants, which is what a fixed size means.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            PixelsLast(network).eval(),
            (pixels,),
            buffer,  # type: ignore[arg-type]  # the tracing exporter writes to a buffer too; torch types the other one
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=list(OUTPUT_NAMES),
        )
    return buffer.getvalue()
