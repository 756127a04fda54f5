"""The one interface behind which every engine stands."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What really runs: never what was merely asked for.

    name: "torch-cuda", "torch-cpu", "openvino" or "onnx". device: e.g. "cuda:0", "cpu". precision: "fp32", "fp16",
    "bf16" or "int8". input_hw: the size the engine was built for. reason: one sentence, why this engine was chosen.
    """

    name: str
    device: str
    precision: str
    input_hw: tuple[int, int]
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class RawOutputs:
    """logits: (B, Q, C) float32 before the sigmoid. boxes_cxcywh: (B, Q, 4) float32 in 0..1 of the network input."""

    logits: np.ndarray
    boxes_cxcywh: np.ndarray

    def __getitem__(self, row: int) -> "RawOutputs":
        """Outputs of one picture: (Q, C) and (Q, 4)."""
        return RawOutputs(self.logits[row], self.boxes_cxcywh[row])


class Backend(Protocol):
    """An engine that holds one model. Thread-safe use is the caller's duty (Detector has the lock)."""

    info: BackendInfo

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw. Blocks until the outputs are in host memory."""
        ...

    def close(self) -> None:
        """Give back the engine's memory; legal more than once."""
        ...
