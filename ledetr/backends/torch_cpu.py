"""PyTorch on the processor: runs wherever the package runs, and is what the other engines are compared with."""

from __future__ import annotations

import numpy as np
import torch

from ledetr.backends.base import BackendInfo, ModelSource, RawOutputs, named_shortage

PRECISIONS = ("fp32", "bf16")


class TorchCpuBackend:
    """The deploy form of a network, run eagerly in channels-last layout."""

    def __init__(self, source: ModelSource, *, precision: str = "fp32", threads: int | None = None) -> None:
        """precision: "fp32" or "bf16" (autocast). threads: torch has one number for the whole process, it is set."""
        if threads is not None:
            torch.set_num_threads(threads)
        self.info = BackendInfo("torch-cpu", "cpu", precision, source.input_hw)
        model = source.build()
        self._model: torch.nn.Module | None = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        if self._model is None:
            raise ValueError("this engine is closed")
        # The permuted view is channels-last already: no copy.
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        low_precision = self.info.precision == "bf16"
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=low_precision)
        with named_shortage(self.info, len(pixels)), torch.inference_mode(), bf16:
            logits, boxes_cxcywh = self._model(images)
        return RawOutputs(logits.float().numpy(), boxes_cxcywh.float().numpy())

    def close(self) -> None:
        """Let the network go; legal more than once."""
        self._model = None
