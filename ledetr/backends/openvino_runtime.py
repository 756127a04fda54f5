"""OpenVINO: the fastest engine on a processor. The network is converted once and kept as OpenVINO's own files."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.backends.base import BackendInfo, ModelSource, RawOutputs
from ledetr.backends.cache import discard_entry, find_entry, store_entry
from ledetr.errors import BackendUnavailable


def _silence_telemetry() -> None:
    """OpenVINO reports its import and every conversion over the network unless the user opted out.

    It takes its own silent stand-in where the package openvino_telemetry cannot be imported, so we make it so, before
    the first import. Where somebody imported OpenVINO before us, its reporter is told that there is no consent.
    """
    reporter = sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if reporter is not None and "openvino" in sys.modules:
        reporter.Telemetry().consent = False


_silence_telemetry()

# Under its own name again: whoever needs OpenVINO takes it from here, after it was silenced.
import openvino as openvino  # noqa: E402

PRECISIONS = ("fp32", "bf16", "fp16")
IR_NAME = "model.xml"
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_WORDS = {"f32": "fp32", "float": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "f16": "fp16"}
_WORDS |= {"float16": "fp16", "undefined": "fp32", "dynamic": "fp32"}
log = logging.getLogger(__name__)


class OpenVinoBackend:
    """One compiled network of fixed size and batch 1; a larger batch is run row by row.

    On a processor a batch brings nothing for latency, and a fixed shape lets the compiler choose layouts.
    """

    def __init__(
        self, source: ModelSource, *, device: str = "CPU", precision: str | None = None, threads: int | None = None
    ) -> None:
        """precision: "fp32", "bf16", "fp16" or None: what the device itself prefers, bf16 where it has such units.

        threads: at most so many processor threads; None: OpenVINO decides. BackendUnavailable where the device or the
        precision is not there.
        """
        core = openvino.Core()
        _check_device(core, device, precision)
        model = _converted(core, source)
        try:
            self._compiled: Any = core.compile_model(model, device, _options(core, device, precision, threads))
        except RuntimeError as error:
            raise BackendUnavailable(f"OpenVINO device {device} cannot run this model: {_first_line(error)}") from error
        self._request: Any = self._compiled.create_infer_request()
        self.info = BackendInfo("openvino", device.lower(), _precision_of(self._compiled), source.input_hw)

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        if self._request is None:
            raise ValueError("this engine is closed")
        rows = [self._run_one(pixels[row : row + 1]) for row in range(len(pixels))]
        logits, boxes_cxcywh = zip(*rows, strict=True)
        return RawOutputs(np.concatenate(logits), np.concatenate(boxes_cxcywh))

    def _run_one(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # shared input: OpenVINO reads the array in place; outputs are copied because the next run overwrites them.
        outputs = self._request.infer([np.ascontiguousarray(pixels)], share_inputs=True, share_outputs=True)
        return outputs[0].astype(np.float32, copy=True), outputs[1].astype(np.float32, copy=True)

    def close(self) -> None:
        """Let the compiled network go; legal more than once."""
        self._request = None
        self._compiled = None


def _check_device(core: Any, device: str, precision: str | None) -> None:
    available = core.available_devices
    if device.split(".")[0] not in {name.split(".")[0] for name in available}:
        raise BackendUnavailable(f"OpenVINO has no device {device!r} here; it has {', '.join(available)}")
    capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision in ("bf16", "fp16") and precision.upper() not in capabilities:
        raise BackendUnavailable(f"OpenVINO device {device} has no {precision} units; use precision 'fp32' or 'auto'")


def _options(core: Any, device: str, precision: str | None, threads: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
    if threads is not None and device == "CPU":
        options["INFERENCE_NUM_THREADS"] = threads
    return options


def _precision_of(compiled: Any) -> str:
    """The precision really used, as the compiled network reports it."""
    value = compiled.get_property("INFERENCE_PRECISION_HINT")
    word = value.get_type_name() if hasattr(value, "get_type_name") else str(value)
    return _WORDS[word]


def _converted(core: Any, source: ModelSource) -> Any:
    """The network in OpenVINO's form, from the cache where it is intact."""
    key = (
        None
        if source.key is None
        else {**source.key, "engine": "openvino", "version": openvino.__version__, "ir": "fp32"}
    )
    folder = None if key is None else find_entry(key)
    if key is not None and folder is not None:
        try:
            return core.read_model(folder / IR_NAME)
        except RuntimeError as error:
            discard_entry(key, _first_line(error))
    model = convert(source)
    if key is not None:
        store_entry(key, lambda part: _save(model, part))
    return model


def _save(model: Any, folder: Path) -> None:
    try:
        openvino.save_model(model, folder / IR_NAME, compress_to_fp16=False)
    except RuntimeError as error:  # OpenVINO reports a full disk so
        raise OSError(_first_line(error)) from error


def convert(source: ModelSource) -> Any:
    """The network as an openvino.Model: input (1, H, W, 3) uint8, outputs logits and boxes_cxcywh in float32."""
    height, width = source.input_hw
    with warnings.catch_warnings():
        # Tracing warns of Python numbers becoming constants, which is what a fixed size means.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(source.build(), example_input=source.example(), input=[1, 3, height, width])
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    model = steps.build()
    for output, name in zip(model.outputs, ("logits", "boxes_cxcywh"), strict=True):
        output.set_names({name})
    return model


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
