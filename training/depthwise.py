"""Depthwise convolutions that train at a bearable speed on a CPU.

Under bfloat16 autocast the gradient of a 5x5 depthwise convolution falls to a slow path of the CPU library: for 8 maps
of 672 channels, stride 2, 78.9 ms forward and backward on one thread, against 32.2 ms in float32 with channels last
(`benchmarks/depthwise.py`, AMD EPYC with AVX512-BF16, torch 2.13.0, 2026-11-25).
Inference is not touched: there the library is fast in either form.
"""

import torch
from torch import Tensor, nn

# On small maps at stride 1 there is little to gain (18.6 against 24.5 ms), and the changes of layout are not in it.
SMALL_MAP = 13


class ChannelsLastDepthwise(nn.Conv2d):
    """The same convolution in float32 and channels last; output in the input's type and layout."""

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1) and x.shape[2] <= SMALL_MAP:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float().contiguous(memory_format=torch.channels_last)
            return super().forward(wide).to(x.dtype).contiguous()


def use_channels_last_depthwise(model: nn.Module) -> None:
    """Let every large depthwise convolution below `model` train this way. Parameters and their names stay."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1 and module.kernel_size[0] > 3:
            # Same parameters, another forward: there is nothing to copy.
            module.__class__ = ChannelsLastDepthwise
