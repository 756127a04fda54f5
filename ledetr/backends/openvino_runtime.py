"""OpenVINO: the fastest engine on a processor. The network is converted once and kept as OpenVINO's own files."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ledetr.backends.base import BackendInfo, ModelSource, RawOutputs, named_shortage
from ledetr.backends.cache import discard_entry, find_entry, store_entry
from ledetr.backends.ranked import OURS, OUTPUTS, RankedBackend
from ledetr.errors import BackendUnavailable, WeightsError
from ledetr.files import sha256_of

if TYPE_CHECKING:
    import torch


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
RT_INFO = "ledetr"  # the section of an exported model that is ours
RAW_OUTPUTS = ("logits", "boxes_cxcywh")
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_WORDS = {"f32": "fp32", "float": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "f16": "fp16"}
_WORDS |= {"float16": "fp16", "undefined": "fp32", "dynamic": "fp32"}
log = logging.getLogger(__name__)


class OpenVinoBackend:
    """One compiled network of fixed picture size. A graph of one picture runs a larger batch row by row.

    On a processor a batch brings nothing for latency, and a fixed shape lets the compiler choose layouts.
    """

    def __init__(
        self,
        source: ModelSource | Any,
        *,
        device: str = "CPU",
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        """source: a network to convert (or to take from the cache), or an openvino.Model with our inputs and outputs.

        precision: "fp32", "bf16", "fp16" or None: what the device itself prefers, bf16 where it has such units.
        threads: at most so many processor threads; None: OpenVINO decides. BackendUnavailable where the device or the
        precision is not there.
        """
        core = openvino.Core()
        _check_device(core, device, precision)
        model = _converted(core, source) if isinstance(source, ModelSource) else source
        self._compiled: Any = _compile(core, model, device, precision, threads)
        self._request: Any = self._compiled.create_infer_request()
        self._whole_batches = self._compiled.inputs[0].partial_shape[0].is_dynamic
        input_hw = _input_hw(self._compiled)
        self.info = BackendInfo("openvino", device.lower(), _precision_of(self._compiled), input_hw)

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        if self._request is None:
            raise ValueError("this engine is closed")
        if self._whole_batches:
            return RawOutputs(*self._run_one(pixels))
        rows = [self._run_one(pixels[row : row + 1]) for row in range(len(pixels))]
        logits, boxes_cxcywh = zip(*rows, strict=True)
        return RawOutputs(np.concatenate(logits), np.concatenate(boxes_cxcywh))

    def _run_one(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # shared input: OpenVINO reads the array in place; outputs are copied because the next run overwrites them.
        with named_shortage(self.info, len(pixels)):
            outputs = self._request.infer([np.ascontiguousarray(pixels)], share_inputs=True, share_outputs=True)
        return outputs[0].astype(np.float32, copy=True), outputs[1].astype(np.float32, copy=True)

    def close(self) -> None:
        """Let the compiled network go; legal more than once."""
        self._request = None
        self._compiled = None


def open_ir(
    path: Path,
    *,
    device: str = "CPU",
    precision: str | None = None,
    threads: int | None = None,
    keep_batch: bool = False,
) -> tuple[OpenVinoBackend | RankedBackend, dict[str, str]]:
    """An engine on the two files of save_ir(), and the texts they carry. WeightsError for other or altered files.

    keep_batch: run any number of pictures at once where the file allows it, instead of being built for one.
    """
    core = openvino.Core()
    model, metadata = _read_ir(core, path)
    if not keep_batch:
        model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
    if len(model.inputs) == 1:
        return OpenVinoBackend(model, device=device, precision=precision, threads=threads), metadata
    _check_device(core, device, precision)
    compiled = _compile(core, model, device, precision, threads)
    request = compiled.create_infer_request()

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answer = request.infer(inputs)
        return {name: answer[name].copy() for name in OUTPUTS}

    info = BackendInfo("openvino", device.lower(), _precision_of(compiled), _input_hw(compiled))
    whole_batches = compiled.inputs[0].partial_shape[0].is_dynamic
    return RankedBackend(info, call, picture=OURS[0], whole_batches=whole_batches), metadata


def save_ir(model: Any, path: Path, metadata: Mapping[str, str], *, half: bool = False) -> None:
    """Write path (.xml) and its weights beside it (.bin); the first carries the texts and the SHA-256 of the second.

    half: weights are kept as float16.
    """
    model.set_rt_info(json.dumps(dict(metadata)), [RT_INFO, "metadata"])
    _save(model, path, half=half)
    model.set_rt_info(sha256_of(path.with_suffix(".bin")), [RT_INFO, "bin_sha256"])
    _save(model, path, half=half)


def _read_ir(core: Any, path: Path) -> tuple[Any, dict[str, str]]:
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise WeightsError(f"{str(path)!r} needs its weights beside it: {str(weights)!r} is missing")
    try:
        model = core.read_model(path, weights)
    except RuntimeError as error:
        raise WeightsError(f"{str(path)!r} is no OpenVINO model that can be read: {_first_line(error)}") from error
    if not model.has_rt_info([RT_INFO, "metadata"]):
        raise WeightsError(f"{str(path)!r} was not written by 'ledetr export'; other OpenVINO models are not opened")
    try:
        metadata = json.loads(str(model.get_rt_info([RT_INFO, "metadata"]).value))
        expected = str(model.get_rt_info([RT_INFO, "bin_sha256"]).value)
        intact = sha256_of(weights) == expected
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(f"{str(path)!r} is damaged: {_first_line(error)}; copy or export it again") from error
    if not intact:
        raise WeightsError(f"{str(weights)!r} is damaged or belongs to another export; copy or export it again")
    _check_form(path, model)
    return model, metadata


def _check_form(path: Path, model: Any) -> None:
    inputs = [port.get_any_name() for port in model.inputs]
    outputs = [port.get_any_name() for port in model.outputs]
    known = ((["pixels"], list(RAW_OUTPUTS)), (list(OURS), list(OUTPUTS)))
    shape = model.inputs[0].partial_shape
    if (inputs, outputs) not in known or len(shape) != 4 or any(side.is_dynamic for side in list(shape)[1:]):
        raise WeightsError(f"{str(path)!r} has inputs or outputs that 'ledetr export' does not write; export it again")


def _compile(core: Any, model: Any, device: str, precision: str | None, threads: int | None) -> Any:
    try:
        return core.compile_model(model, device, _options(core, device, precision, threads))
    except (RuntimeError, MemoryError) as error:
        raise BackendUnavailable(f"OpenVINO device {device} cannot run this model: {_first_line(error)}") from error


def _input_hw(compiled: Any) -> tuple[int, int]:
    """Of (B, H, W, 3)."""
    shape = compiled.inputs[0].partial_shape
    return shape[1].get_length(), shape[2].get_length()


def device_names() -> dict[str, str]:
    """Every device that OpenVINO finds here, in lower case, and the name that its driver gives it."""
    core = openvino.Core()
    return {device.lower(): str(core.get_property(device, "FULL_DEVICE_NAME")) for device in core.available_devices}


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


def is_converted(source: ModelSource) -> bool:
    """Whether an intact converted copy is kept here, so that opening the network needs neither torch nor its time."""
    key = _cache_key(source)
    return key is not None and find_entry(key) is not None


def _cache_key(source: ModelSource) -> dict[str, str | int] | None:
    if source.key is None:
        return None
    return {**source.key, "engine": "openvino", "version": openvino.__version__, "ir": "fp32"}


def _converted(core: Any, source: ModelSource) -> Any:
    """The network in OpenVINO's form, from the cache where it is intact."""
    key = _cache_key(source)
    folder = None if key is None else find_entry(key)
    if key is not None and folder is not None:
        try:
            return core.read_model(folder / IR_NAME)
        except RuntimeError as error:
            discard_entry(key, _first_line(error))
    model = convert(source)
    if key is not None:
        store_entry(key, lambda part: _save(model, part / IR_NAME))
    return model


def _save(model: Any, path: Path, *, half: bool = False) -> None:
    try:
        openvino.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:  # OpenVINO reports a full disk so
        raise OSError(_first_line(error)) from error


def convert(source: ModelSource) -> Any:
    """The network as an openvino.Model: input (1, H, W, 3) uint8, outputs logits and boxes_cxcywh in float32."""
    if source.build_graph is not None:
        pixels = source.example().permute(0, 2, 3, 1).contiguous()
        return convert_module(source.build_graph(), {OURS[0]: pixels}, RAW_OUTPUTS, dynamic_batch=False)
    height, width = source.input_hw
    with warnings.catch_warnings():
        # Tracing warns of Python numbers becoming constants, which is what a fixed size means.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(source.build(), example_input=source.example(), input=[1, 3, height, width])
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    model = steps.build()
    for output, name in zip(model.outputs, RAW_OUTPUTS, strict=True):
        output.set_names({name})
    return model


def convert_module(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    *,
    dynamic_batch: bool,
) -> Any:
    """A module of backends/deploy.py as an openvino.Model with named ports, for one picture or any number."""
    shapes = [[-1 if dynamic_batch else 1, *tensor.shape[1:]] for tensor in inputs.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in convert()
        model = openvino.convert_model(module, example_input=tuple(inputs.values()), input=shapes)
    for ports, names in ((model.inputs, list(inputs)), (model.outputs, list(output_names))):
        for port, name in zip(ports, names, strict=True):
            port.set_names({name})
    return model


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
