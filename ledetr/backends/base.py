"""The one interface behind which every engine stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ledetr.errors import BackendUnavailable

if TYPE_CHECKING:
    import torch


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

    def __getitem__(self, row: int) -> RawOutputs:
        """Outputs of one picture: (Q, C) and (Q, 4)."""
        return RawOutputs(self.logits[row], self.boxes_cxcywh[row])


@dataclass(frozen=True, slots=True, eq=False)
class RankedOutputs:
    """Final detections, best score first in each picture, from a file that has the last step in its graph.

    labels: (B, K) int64 contiguous class ids. boxes_xyxy: (B, K, 4) float32 corners in 0..1 of the network input, not
    always clipped. scores: (B, K) float32 in 0..1.
    """

    labels: np.ndarray
    boxes_xyxy: np.ndarray
    scores: np.ndarray

    def __getitem__(self, row: int) -> RankedOutputs:
        """Outputs of one picture: (K,), (K, 4) and (K,)."""
        return RankedOutputs(self.labels[row], self.boxes_xyxy[row], self.scores[row])


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A network that an engine may build when it needs it: an engine with a converted copy at hand does not.

    key: texts and numbers that change whenever the function changes (weights, config, layers, our version); None for
    a network that must not be cached. input_hw: the size to build for. build: gives the deploy form, a torch module in
    eval mode, float32, on the CPU, that takes (B, 3, H, W) uint8 RGB and returns logits (B, Q, C) and boxes_cxcywh
    (B, Q, 4). example: a picture (1, 3, H, W) uint8 to trace it with. export_onnx: the network as the bytes of an ONNX
    file with input pixels (1, H, W, 3) uint8 and outputs logits, boxes_cxcywh. build_graph: as build, for (B, H, W, 3)
    uint8 RGB, in a form that runs better as a graph on a processor; None: there is none.
    """

    key: dict[str, str | int] | None
    input_hw: tuple[int, int]
    build: Callable[[], torch.nn.Module]
    example: Callable[[], torch.Tensor]
    export_onnx: Callable[[], bytes]
    build_graph: Callable[[], torch.nn.Module] | None = None


class Backend(Protocol):
    """An engine that holds one model. Thread-safe use is the caller's duty (Detector has the lock)."""

    info: BackendInfo

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw. Blocks until the outputs are in host memory."""
        ...

    def close(self) -> None:
        """Give back the engine's memory; legal more than once."""
        ...


class RankingBackend(Protocol):
    """As Backend, on a model file that ranks its detections itself; decode() has no part in them."""

    info: BackendInfo

    def run(self, pixels: np.ndarray) -> RankedOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw. Blocks until the outputs are in host memory."""
        ...

    def close(self) -> None:
        """Give back the engine's memory; legal more than once."""
        ...


# How engines say that there is no memory left: torch, CUDA, OpenVINO and C++, ONNX Runtime.
_SHORTAGE_WORDS = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation", "failed to allocate")


@contextmanager
def named_shortage(info: BackendInfo, pictures: int) -> Iterator[None]:
    """BackendUnavailable, and what can be done, where the engine runs out of memory; other errors as they are."""
    try:
        yield
    except Exception as error:  # engines have errors of their own, which share no other base
        words = str(error).lower()
        if not isinstance(error, MemoryError) and not any(shortage in words for shortage in _SHORTAGE_WORDS):
            raise
        height, width = info.input_hw
        many = "" if pictures == 1 else f"{pictures} pictures of "
        raise BackendUnavailable(
            f"{info.device} has too little free memory for {many}{width}x{height} in {info.name}; close other "
            f"programs, or take a smaller model or size"
        ) from error
