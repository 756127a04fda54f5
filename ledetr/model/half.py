"""The network in half precision, for exported files: backbone and encoder in float16, everything delicate in float32.

In float32 stay the decoder (query selection, sampling of the maps, heads, the arithmetic of boxes: a few percent of the
work), every norm, and the mean over a whole map. The casts are part of the graph, so any engine keeps to them; one that
chooses by itself what to round finds nothing with networks of this kind.
"""

import copy

from torch import Tensor, nn

from ledetr.model.encoder import GlobalFusion
from ledetr.model.layers import RmsNorm
from ledetr.model.ledetr import LeDetr


class WideNorm(nn.Module):
    """A norm in float32 amid halves: squares overflow there."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.float()).to(x.dtype)


class WideMean(nn.Module):
    """GlobalFusion with the mean in float32: it sums hundreds of numbers."""

    def __init__(self, fusion: GlobalFusion) -> None:
        super().__init__()
        self.conv = fusion.conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + x.float().mean((2, 3), keepdim=True).to(x.dtype))


class WideMaps(nn.Module):
    """The encoder with its maps as float32, for a decoder in float32."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [fused.float() for fused in self.encoder(maps)]


def half_precision(deploy: LeDetr) -> LeDetr:
    """A copy of a deploy form (LeDetr.fused) as described above; what goes in and comes out is as before."""
    network = copy.deepcopy(deploy)
    for part in (network.backbone, network.encoder):
        part.half()
        _widen(part)
    network.encoder = WideMaps(network.encoder)  # type: ignore[assignment]
    return network


def _widen(part: nn.Module) -> None:
    for parent in list(part.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm | RmsNorm):
                setattr(parent, name, WideNorm(child))
            elif isinstance(child, GlobalFusion):
                setattr(parent, name, WideMean(child))
