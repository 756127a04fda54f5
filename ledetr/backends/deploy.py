"""The network as it is given away: pictures as programs hold them go in; raw outputs or ranked detections come out."""

from __future__ import annotations

import torch
from torch import nn

PIXELS = "pixels"
SIZES = "orig_target_sizes"  # the name that exports of D-FINE, DEIM and RT-DETR use too
RAW_OUTPUTS = ("logits", "boxes_cxcywh")
RANKED_OUTPUTS = ("labels", "boxes", "scores")
MAX_RANKED = 300


class PixelsLast(nn.Module):
    """The deploy form for pictures as programs hold them: (B, H, W, 3) uint8 in, logits and boxes_cxcywh out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # To float first: TensorRT takes bytes as an input, but only to cast them.
        logits, boxes_cxcywh = self.network(pixels.float().permute(0, 3, 1, 2))
        return logits, boxes_cxcywh


class PixelsToRanked(nn.Module):
    """The same with the last step inside: the best 300 pairs of query and class, best first.

    forward: pixels (B, H, W, 3) uint8; orig_target_sizes (B, 2) int64, width and height of the source pictures. Gives
    labels (B, K) int64, boxes (B, K, 4) float32 corners in pixels of the source, clipped to it, and scores (B, K).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.raw = PixelsLast(network)

    def forward(
        self, pixels: torch.Tensor, orig_target_sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, boxes_cxcywh = self.raw(pixels)
        queries, classes = int(logits.shape[1]), int(logits.shape[2])
        # Ranked before the sigmoid, which would make equals of high scores.
        best, pair = logits.reshape(-1, queries * classes).topk(min(MAX_RANKED, queries * classes), 1)
        query = torch.div(pair, classes, rounding_mode="trunc")
        chosen = boxes_cxcywh.gather(1, query[..., None].expand(-1, -1, 4))
        centre, half = chosen[..., :2], chosen[..., 2:] / 2
        sizes = orig_target_sizes.to(chosen.dtype)
        limits = torch.cat([sizes, sizes], 1)[:, None]
        boxes = torch.cat([centre - half, centre + half], -1) * limits
        return pair - query * classes, torch.minimum(boxes.clamp(min=0), limits), best.sigmoid()


def deploy_module(network: nn.Module, *, ranked: bool) -> nn.Module:
    """The module to export, in eval mode."""
    return (PixelsToRanked(network) if ranked else PixelsLast(network)).eval()


def example_inputs(input_hw: tuple[int, int], *, ranked: bool, batch: int = 1) -> dict[str, torch.Tensor]:
    """Inputs to trace it with, by name."""
    inputs = {PIXELS: torch.zeros((batch, *input_hw, 3), dtype=torch.uint8)}
    if ranked:
        inputs[SIZES] = torch.tensor([[input_hw[1], input_hw[0]]] * batch)
    return inputs


def output_names(*, ranked: bool) -> tuple[str, ...]:
    """What comes out, in order."""
    return RANKED_OUTPUTS if ranked else RAW_OUTPUTS
