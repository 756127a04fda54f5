"""ONNX Runtime on the processor: runs our network as an ONNX graph, exported once and kept, or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_state

from ledetr.backends.base import BackendInfo, ModelSource, RawOutputs, named_shortage
from ledetr.backends.cache import discard_entry, find_entry, store_entry
from ledetr.backends.onnx_file import OnnxFile
from ledetr.backends.ranked import OTHERS, OURS, OUTPUTS, RankedBackend
from ledetr.errors import BackendUnavailable, WeightsError

PRECISIONS = ("fp32",)
MODEL_NAME = "model.onnx"
RAW_OUTPUTS = ["logits", "boxes_cxcywh"]
MAX_SIDE = 8192
# ONNX Runtime's own errors share no base but Exception.
ENGINE_ERRORS = (
    RuntimeError,
    ValueError,
    onnxruntime_state.Fail,
    onnxruntime_state.InvalidArgument,
    onnxruntime_state.InvalidGraph,
    onnxruntime_state.InvalidProtobuf,
    onnxruntime_state.NoModel,
    onnxruntime_state.NotImplemented,
    onnxruntime_state.RuntimeException,
)

onnxruntime.disable_telemetry_events()  # the Windows build reports its sessions otherwise


class OnnxBackend:
    """One session of fixed picture size. A graph of one picture runs a larger batch row by row."""

    def __init__(self, source: ModelSource | Any, *, threads: int | None = None) -> None:
        """source: a network to export (or to take from the cache), or an open session with our inputs and outputs.

        threads: at most so many processor threads; None: ONNX Runtime decides. BackendUnavailable where ONNX Runtime
        cannot run the network.
        """
        session = _open_source(source, threads) if isinstance(source, ModelSource) else source
        self._session: Any = session
        self._input_name = session.get_inputs()[0].name
        batch, height, width, _ = session.get_inputs()[0].shape
        self._whole_batches = not isinstance(batch, int)
        self.info = BackendInfo("onnx", "cpu", "fp32", (height, width))

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        if self._whole_batches:
            return self._run(pixels)
        rows = [self._run(pixels[row : row + 1]) for row in range(len(pixels))]
        return RawOutputs(
            np.concatenate([row.logits for row in rows]), np.concatenate([row.boxes_cxcywh for row in rows])
        )

    def _run(self, pixels: np.ndarray) -> RawOutputs:
        if self._session is None:
            raise ValueError("this engine is closed")
        with named_shortage(self.info, len(pixels)):
            outputs = self._session.run(RAW_OUTPUTS, {self._input_name: np.ascontiguousarray(pixels)})
        return RawOutputs(*outputs)

    def close(self) -> None:
        """Let the session go; legal more than once."""
        self._session = None


def open_onnx(file: OnnxFile, *, threads: int | None = None) -> OnnxBackend | RankedBackend:
    """An engine on a checked file, ours or one of D-FINE, DEIM or RT-DETR. WeightsError for one that does not run."""
    try:
        session = open_session(file.content, threads)
    except ENGINE_ERRORS as error:
        raise WeightsError(
            f"{str(file.path)!r} is no ONNX file that ONNX Runtime can open: {first_line(error)}"
        ) from error
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    if tuple(inputs) == OURS[:1] and outputs == RAW_OUTPUTS:
        picture_hw(file.path, inputs["pixels"], "tensor(uint8)", channels=3)
        return OnnxBackend(session, threads=threads)
    if set(outputs) == set(OUTPUTS) and set(inputs) == set(OURS):
        return _ranked(session, "pixels", picture_hw(file.path, inputs["pixels"], "tensor(uint8)", channels=3))
    if set(outputs) == set(OUTPUTS) and set(inputs) == set(OTHERS):
        return _ranked(session, "images", picture_hw(file.path, inputs["images"], "tensor(float)", channels=1))
    raise WeightsError(
        f"{str(file.path)!r} is an ONNX file of another form: it takes {_listed(list(inputs))} and gives "
        f"{_listed(outputs)}; known are files of 'ledetr export' and exports of D-FINE, DEIM and RT-DETR, which take "
        f"images and orig_target_sizes and give labels, boxes and scores"
    )


def _ranked(session: Any, picture: str, input_hw: tuple[int, int]) -> RankedBackend:
    names = list(OUTPUTS)

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except ENGINE_ERRORS as error:
            raise WeightsError(f"ONNX Runtime cannot run this model file: {first_line(error)}") from error

    shapes = {value.name: value.shape for value in session.get_inputs()}
    fixed = any(isinstance(shape[0], int) for shape in shapes.values())
    info = BackendInfo("onnx", "cpu", "fp32", input_hw)
    return RankedBackend(info, call, picture=picture, whole_batches=not fixed)


def picture_hw(path: Path, value: Any, kind: str, *, channels: int) -> tuple[int, int]:
    """Height and width of the picture input; WeightsError unless it is (B, H, W, 3) or (B, 3, H, W) of fixed size."""
    shape = list(value.shape)
    if value.type != kind or len(shape) != 4 or shape[channels] != 3 or (isinstance(shape[0], int) and shape[0] != 1):
        expected = "(1 or open, 3, H, W)" if channels == 1 else "(1 or open, H, W, 3)"
        raise WeightsError(f"{str(path)!r} takes pictures as {value.type} {shape}, expected {kind} {expected}")
    height, width = (side for place, side in enumerate(shape) if place not in (0, channels))
    if not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in (height, width)):
        raise WeightsError(
            f"{str(path)!r} leaves its picture size open or beyond {MAX_SIDE} ({height}x{width}); "
            f"export it for one size"
        )
    return height, width


def _listed(names: list[str]) -> str:
    return ", ".join(name[:40] for name in names[:6]) or "nothing"


def _open_source(source: ModelSource, threads: int | None) -> Any:
    key = None if source.key is None else {**source.key, "engine": "onnx"}
    folder = None if key is None else find_entry(key)
    if key is not None and folder is not None:
        try:
            return open_session((folder / MODEL_NAME).read_bytes(), threads)
        except ENGINE_ERRORS as error:
            discard_entry(key, first_line(error))
    content = source.export_onnx()
    if key is not None:
        store_entry(key, lambda part: _write(part / MODEL_NAME, content))
    try:
        return open_session(content, threads)
    except ENGINE_ERRORS as error:
        raise BackendUnavailable(f"ONNX Runtime cannot run this model: {first_line(error)}") from error


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def open_session(content: bytes, threads: int | None) -> Any:
    """A session on the processor; raises what is in ENGINE_ERRORS."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def first_line(error: Exception) -> str:
    """The engine's own words, short enough for a sentence."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
