"""The network as an ONNX graph, written by torch; what ONNX Runtime then runs and `ledetr export` gives away."""

from __future__ import annotations

import io
import warnings

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
    pixels = torch.zeros((1, *input_hw, 3), dtype=torch.uint8)
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


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """The same ONNX file with texts in its metadata_props.

    Protocol buffers define that fields appended to a message are added to its lists, so no ONNX package is needed:
    field 14 of ModelProto is a list of (1: key, 2: value).
    """
    entries = [_field(14, _field(1, key.encode()) + _field(2, value.encode())) for key, value in metadata.items()]
    return content + b"".join(entries)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
