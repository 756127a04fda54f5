"""PyTorch on an NVIDIA GPU: batch 1 is bound by kernel launches, so the whole forward pass is one captured graph."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from ledetr.backends.base import BackendInfo, ModelSource, RawOutputs, named_shortage
from ledetr.errors import BackendUnavailable

PRECISIONS = ("fp16", "bf16", "fp32")
WARM_UP_RUNS = 3  # cuDNN, cuBLAS and the allocator settle before a capture; three as in torch's own notes on graphs
MAX_GRAPHS = 4  # batch sizes kept captured; each holds its own activations
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph and the fixed memory it reads and writes: pixels up from `host_pixels`, outputs down to the host pair."""

    graph: torch.cuda.CUDAGraph
    host_pixels: torch.Tensor
    host_logits: torch.Tensor
    host_boxes: torch.Tensor


class TorchCudaBackend:
    """The deploy form of a network, its forward pass captured once per batch size.

    The upload from pinned memory, the pass and the download are all in the graph, so one run is one launch and one
    wait. Outputs are equal to an eager pass in the same precision.
    """

    def __init__(self, source: ModelSource, *, device: str = "cuda:0", precision: str = "fp16") -> None:
        """BackendUnavailable where the GPU has too little free memory or cannot run the network."""
        self.info = BackendInfo("torch-cuda", device, precision, source.input_hw)
        self._device = torch.device(device)
        self._dtype = _DTYPES[precision]
        self._graphs: dict[int, _Captured] = {}
        self._model: torch.nn.Module | None = None
        try:
            self._stream = torch.cuda.Stream(self._device)
            model = lower_precision(source.build(), self._dtype).to(self._device)
            self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._graphs[1] = self._capture(1)
        except torch.cuda.OutOfMemoryError as error:
            self.close()
            raise BackendUnavailable(
                f"{device} has too little free memory for this model at {source.input_hw}; close other programs, "
                f"take a smaller model or size, or choose another backend"
            ) from error
        except RuntimeError as error:
            self.close()
            raise BackendUnavailable(f"{device} cannot run this model: {_first_line(error)}") from error

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw. BackendUnavailable where the GPU or its driver gave up."""
        if self._model is None:
            raise ValueError("this engine is closed")
        try:
            return self._run(pixels)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "CUDA" not in str(error):
                raise
            # A process that has seen such an error cannot use the GPU any more, whatever it tries.
            raise BackendUnavailable(
                f"{self.info.device} stopped working ({_first_line(error)}); choose the device cpu to go on, and start "
                f"the program again to use the GPU again."
            ) from error

    def _run(self, pixels: np.ndarray) -> RawOutputs:
        batch = len(pixels)
        captured = self._graphs.get(batch)
        if captured is None:
            if len(self._graphs) >= MAX_GRAPHS:
                del self._graphs[next(size for size in self._graphs if size != 1)]
            with named_shortage(self.info, batch):
                captured = self._graphs[batch] = self._capture(batch)
        captured.host_pixels.numpy()[...] = pixels
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            captured.graph.replay()
        self._stream.synchronize()
        return RawOutputs(captured.host_logits.numpy().copy(), captured.host_boxes.numpy().copy())

    def close(self) -> None:
        """Give the GPU memory back; legal more than once."""
        self._graphs.clear()
        self._model = None
        if torch.cuda.is_available():
            with suppress(RuntimeError):  # of a driver that was lost: run has said so, and nothing is left to give back
                torch.cuda.empty_cache()

    def _capture(self, batch: int) -> _Captured:
        height, width = self.info.input_hw
        host_pixels = torch.zeros((batch, height, width, 3), dtype=torch.uint8).pin_memory()
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_RUNS):
                    logits, boxes_cxcywh = self._forward(host_pixels)
                host_logits = torch.zeros(logits.shape, dtype=torch.float32).pin_memory()
                host_boxes = torch.zeros(boxes_cxcywh.shape, dtype=torch.float32).pin_memory()
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                logits, boxes_cxcywh = self._forward(host_pixels)
                host_logits.copy_(logits, non_blocking=True)
                host_boxes.copy_(boxes_cxcywh, non_blocking=True)
        return _Captured(graph, host_pixels, host_logits, host_boxes)

    def _forward(self, host_pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._model is not None
        images = host_pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        # No weight cache: a graph that closes over cached casts would read memory that autocast has freed.
        low_precision = self._dtype is not torch.float32
        with torch.inference_mode(), torch.autocast("cuda", self._dtype, low_precision, cache_enabled=False):
            logits, boxes_cxcywh = self._model(images)
        return logits.float(), boxes_cxcywh.float()


def _first_line(error: RuntimeError) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def lower_precision(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The model with the weights of its convolutions and linear layers in `dtype`, changed in place.

    Autocast would cast them anew on every pass; norms and box geometry stay float32 and autocast keeps them so.
    """
    if dtype is not torch.float32:
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.to(dtype)
    return model
