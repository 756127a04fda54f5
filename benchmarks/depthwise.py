"""Forward and backward of the large depthwise convolutions of N's training, in the forms training could take.

    python benchmarks/depthwise.py

One thread, 8 maps, medians over interleaved rounds. What won stands in training/depthwise.py.
"""

import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

# channels, side, stride, padding: stage 5's first block, the encoder's refinement, stage 5's others, the fine branch
LAYERS = ((672, 29, 2, 0), (384, 26, 1, 2), (1152, 13, 1, 2), (80, 52, 2, 2))
FORMS = (
    ("bf16", torch.bfloat16, torch.contiguous_format),
    ("bf16 channels last", torch.bfloat16, torch.channels_last),
    ("fp32", torch.float32, torch.contiguous_format),
    ("fp32 channels last", torch.float32, torch.channels_last),
)
KERNEL, BATCH, ROUNDS = 5, 8, 7


def one_pass(
    channels: int, side: int, stride: int, padding: int, dtype: torch.dtype, layout: torch.memory_format
) -> Callable[[], object]:
    """A call that runs the convolution and both of its gradients."""
    x = torch.randn(BATCH, channels, side, side).to(dtype).to(memory_format=layout).requires_grad_()
    weight = torch.randn(channels, 1, KERNEL, KERNEL).to(dtype).requires_grad_()
    seed = torch.randn_like(F.conv2d(x, weight, None, stride, padding, 1, channels))
    return lambda: torch.autograd.grad(F.conv2d(x, weight, None, stride, padding, 1, channels), (x, weight), seed)


def main() -> None:
    """Print one row a layer."""
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ms forward and backward, median")
    print("channels side stride | " + " | ".join(name for name, *_ in FORMS))
    for layer in LAYERS:
        calls = [one_pass(*layer, dtype, layout) for _, dtype, layout in FORMS]
        times: list[list[float]] = [[] for _ in calls]
        for round_number in range(ROUNDS + 2):
            for call, spent in zip(calls, times, strict=True):
                began = time.perf_counter()
                call()
                if round_number >= 2:  # the first two build the library's kernels
                    spent.append((time.perf_counter() - began) * 1e3)
        print(
            f"{layer[0]:8d} {layer[1]:4d} {layer[2]:6d} | " + " | ".join(f"{statistics.median(t):.1f}" for t in times)
        )


if __name__ == "__main__":
    main()
