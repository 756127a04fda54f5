"""Backbones: EfficientNAT (paper section 3.4) for M, L and X, and the EfficientNet-Lite0 trunk of N.

Both give the maps at strides 8, 16 and 32 of an input (B, 3, H, W), H and W multiples of 32.
"""

from typing import cast

from torch import Tensor, nn

from ledetr.model.config import EfficientNatConfig, LiteNatConfig
from ledetr.model.layers import ConvNorm, FusedMBConv, MBConv, folded
from ledetr.model.neighborhood import NeighborhoodAttention


class ResBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; no activation after the sum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim, 3, act="gelu")
        self.conv2 = ConvNorm(dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class NeighborhoodMixer(nn.Module):
    """x + BN(NA(x)) on a map (B, D, H, W). The BatchNorm bounds the branch and folds into the projection."""

    def __init__(self, dim: int, *, heads: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.na = NeighborhoodAttention(dim, heads=heads, kernel=kernel, dilation=dilation)
        self.na_norm: nn.Module = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.na(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.na_norm(mixed)

    def fold(self) -> None:
        """The norm into the projection."""
        if isinstance(self.na_norm, nn.BatchNorm2d):
            weight, bias = folded(self.na.proj, self.na_norm)
            self.na.proj.weight.data.copy_(weight)
            self.na.proj.bias.data.copy_(bias)
            self.na_norm = nn.Identity()


class NatBlock(nn.Module):
    """Neighborhood attention, then an inverted bottleneck of expansion 4, each with a shortcut."""

    def __init__(self, dim: int, *, heads: int, kernel: int, dilation: int, expand: int) -> None:
        super().__init__()
        self.mixer = NeighborhoodMixer(dim, heads=heads, kernel=kernel, dilation=dilation)
        self.ffn = MBConv(dim, dim, expand=expand, act="gelu", shortcut=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.mixer(x))


class EfficientNat(nn.Module):
    """Stem and residual blocks, two fused stages, one bottleneck stage, one neighborhood-attention stage."""

    def __init__(self, config: EfficientNatConfig) -> None:
        super().__init__()
        widths, depths = config.widths, config.depths
        self.stem = ConvNorm(3, widths[0], 3, stride=2, act="gelu")
        stages = [nn.Sequential(*[ResBlock(widths[0]) for _ in range(depths[0])])]
        for i in (1, 2):
            blocks: list[nn.Module] = [
                FusedMBConv(widths[i - 1], widths[i], stride=2, expand=config.down_expand[i - 1], act="gelu")
            ]
            blocks += [
                FusedMBConv(
                    widths[i], widths[i], stride=1, expand=config.block_expand[i - 1], act="gelu", shortcut=True
                )
                for _ in range(depths[i])
            ]
            stages.append(nn.Sequential(*blocks))
        stages.append(
            nn.Sequential(
                MBConv(widths[2], widths[3], stride=2, expand=config.down_expand[2], act="gelu"),
                *[
                    MBConv(widths[3], widths[3], expand=config.block_expand[2], act="gelu", shortcut=True)
                    for _ in range(depths[3])
                ],
            )
        )
        stages.append(
            nn.Sequential(
                MBConv(widths[3], widths[4], stride=2, expand=config.down_expand[3], act="gelu"),
                *[
                    NatBlock(
                        widths[4],
                        heads=config.na_heads,
                        kernel=config.na_kernel,
                        dilation=config.na_dilation,
                        expand=config.block_expand[3],
                    )
                    for _ in range(depths[4])
                ],
            )
        )
        self.stages = nn.ModuleList(stages)
        self.widths = widths[2:]
        _init_backbone(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[2:]


class LiteNat(nn.Module):
    """EfficientNet-Lite0 up to stride 32, with one neighborhood-attention layer in front of its last block.

    Padding, norm epsilon and activation are TensorFlow's, so that packaged ImageNet weights compute what they should.
    The attention's norm starts at weight 0: at the first step the trunk is exactly EfficientNet-Lite0.
    """

    def __init__(self, config: LiteNatConfig) -> None:
        super().__init__()
        eps, momentum = 1e-3, 0.01
        self.stem = ConvNorm(3, config.stem, 3, stride=2, act="relu6", same="tf", eps=eps, momentum=momentum)
        self.outputs = config.outputs
        width, stages = config.stem, []
        for blocks, kernel, stride, expand, out in config.stages:
            stage: list[nn.Module] = []
            for i in range(blocks):
                stage.append(
                    MBConv(
                        width,
                        out,
                        kernel=kernel,
                        stride=stride if i == 0 else 1,
                        expand=expand,
                        act="relu6",
                        style="normed",
                        shortcut=i > 0,
                        same="tf",
                        eps=eps,
                        momentum=momentum,
                    )
                )
                width = out
            stages.append(stage)
        mixer = NeighborhoodMixer(width, heads=config.na_heads, kernel=config.na_kernel, dilation=config.na_dilation)
        stages[-1].insert(len(stages[-1]) - 1, mixer)
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.widths = tuple(config.stages[i][4] for i in config.outputs)
        _init_backbone(self)
        nn.init.zeros_(cast(nn.BatchNorm2d, mixer.na_norm).weight)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.forward_from(self.stem(x), 0)

    def forward_from(self, x: Tensor, first_stage: int) -> list[Tensor]:
        """Maps of the output stages from `first_stage` on, given that stage's input: training on cached maps."""
        maps = []
        for i in range(first_stage, len(self.stages)):
            x = self.stages[i](x)
            if i in self.outputs:
                maps.append(x)
        return maps


def build_backbone(config: EfficientNatConfig | LiteNatConfig) -> EfficientNat | LiteNat:
    """The backbone that the config describes, freshly initialised."""
    return EfficientNat(config) if isinstance(config, EfficientNatConfig) else LiteNat(config)


def _init_backbone(module: nn.Module) -> None:
    """Truncated normal of std 0.02 for every weight, zero biases, as EfficientViT does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def freeze_stages(backbone: EfficientNat, stages: tuple[int, ...] = (0, 1)) -> None:
    """No gradient for the stem and the named stages (paper table 6: 0 and 1)."""
    parts = [backbone.stem, *[backbone.stages[i] for i in stages]]
    for part in parts:
        part.requires_grad_(False)


def freeze_norms(module: nn.Module) -> None:
    """BatchNorm statistics and affine values as constants; call again after each train()."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
            layer.requires_grad_(False)
