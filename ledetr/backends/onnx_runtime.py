"""ONNX Runtime on the processor: runs our network as an ONNX graph, exported once and kept, or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_state

from ledetr.backends.base import BackendInfo, ModelSource, RawOutputs
from ledetr.backends.cache import discard_entry, find_entry, store_entry
from ledetr.errors import BackendUnavailable, WeightsError

PRECISIONS = ("fp32",)
MODEL_NAME = "model.onnx"
MAX_FILE_BYTES = 2 * 1024**3  # an ONNX file is one protobuf message, which ends at 2 GiB
# A tensor kept in another file has an entry with the key "location" (field 1, 8 bytes): that could be any file here.
SIDE_DATA_MARK = b"\x0a\x08location"
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
    """One session of fixed size and batch 1; a larger batch is run row by row."""

    def __init__(self, source: ModelSource | Path, *, threads: int | None = None) -> None:
        """source: a network to export (or to take from the cache), or an ONNX file with our inputs and outputs.

        threads: at most so many processor threads; None: ONNX Runtime decides. WeightsError for a file that is not
        ONNX or has another form, BackendUnavailable where ONNX Runtime cannot run the network.
        """
        session = _open_file(source, threads) if isinstance(source, Path) else _open_source(source, threads)
        self._session: Any = session
        self._input_name = session.get_inputs()[0].name
        _, height, width, _ = session.get_inputs()[0].shape
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self.info = BackendInfo("onnx", "cpu", "fp32", (height, width))

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        if self._session is None:
            raise ValueError("this engine is closed")
        rows = [
            self._session.run(
                ["logits", "boxes_cxcywh"], {self._input_name: np.ascontiguousarray(pixels[row : row + 1])}
            )
            for row in range(len(pixels))
        ]
        logits, boxes_cxcywh = zip(*rows, strict=True)
        return RawOutputs(np.concatenate(logits), np.concatenate(boxes_cxcywh))

    def close(self) -> None:
        """Let the session go; legal more than once."""
        self._session = None


def _open_source(source: ModelSource, threads: int | None) -> Any:
    key = None if source.key is None else {**source.key, "engine": "onnx"}
    folder = None if key is None else find_entry(key)
    if key is not None and folder is not None:
        try:
            return _session((folder / MODEL_NAME).read_bytes(), threads)
        except ENGINE_ERRORS as error:
            discard_entry(key, _first_line(error))
    content = source.export_onnx()
    if key is not None:
        store_entry(key, lambda part: _write(part / MODEL_NAME, content))
    try:
        return _session(content, threads)
    except ENGINE_ERRORS as error:
        raise BackendUnavailable(f"ONNX Runtime cannot run this model: {_first_line(error)}") from error


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _open_file(path: Path, threads: int | None) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise WeightsError(f"{str(path)!r} is larger than an ONNX file can be")
        content = path.read_bytes()
        if SIDE_DATA_MARK in content:
            raise WeightsError(f"{str(path)!r} keeps weights in another file; only files that stand alone are opened")
        session = _session(content, threads)
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except ENGINE_ERRORS as error:
        raise WeightsError(f"{str(path)!r} is no ONNX file that ONNX Runtime can open: {_first_line(error)}") from error
    _check_form(path, session)
    return session


def _check_form(path: Path, session: Any) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = inputs[0].shape if len(inputs) == 1 else None
    ours = (
        shape is not None
        and inputs[0].type == "tensor(uint8)"
        and len(shape) == 4
        and all(type(side) is int for side in shape[1:])
        and shape[3] == 3
        and [output.name for output in outputs] == ["logits", "boxes_cxcywh"]
    )
    if not ours:
        raise WeightsError(
            f"{str(path)!r} is an ONNX file of another form: expected one input (1, H, W, 3) uint8 and the outputs "
            f"logits, boxes_cxcywh, as 'ledetr export' writes them"
        )


def _session(content: bytes, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
