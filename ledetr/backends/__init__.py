"""Choose an engine, import it late, and say why this one or why not. All engines stand behind `base.Backend`."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ledetr import __version__
from ledetr.backends.base import Backend, BackendInfo, ModelSource, RankedOutputs, RankingBackend, RawOutputs
from ledetr.backends.ranked import RankedBackend
from ledetr.errors import BackendUnavailable, LeDetrError, UsageError
from ledetr.model.config import ModelConfig
from ledetr.weights_info import WeightsInfo, parse_metadata

if TYPE_CHECKING:
    import torch

    from ledetr.model.ledetr import LeDetr

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendInfo",
    "ModelFile",
    "ModelSource",
    "RankedOutputs",
    "RankingBackend",
    "RawOutputs",
    "device_names",
    "open_backend",
    "open_model_file",
    "random_network",
    "ready_backends",
    "source_of_random",
    "source_of_weights",
]

BACKENDS = ("torch-cuda", "openvino", "torch-cpu", "onnx")
PRECISIONS = {
    "torch-cuda": ("fp16", "bf16", "fp32"),
    "openvino": ("fp32", "bf16", "fp16"),
    "torch-cpu": ("fp32", "bf16"),
    "onnx": ("fp32",),
}
RANDOM_SEED = 0
AnyBackend = TypeVar("AnyBackend", bound=Backend | RankingBackend)
log = logging.getLogger(__name__)


def open_backend(
    name: str,
    source: ModelSource,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Backend:
    """An engine that holds the network; its info says what really runs and why.

    name: one of BACKENDS, or "auto": torch-cuda where an NVIDIA GPU can be used, else openvino, else torch-cpu.
    device: "auto", "cpu", "cuda", "cuda:1", or a device of OpenVINO such as "gpu". precision: "auto", "fp32", "fp16"
    or "bf16". threads: processor threads, None: the engine decides.
    Raises UsageError for words that are not known, BackendUnavailable for what is not here; a named engine or device
    is never replaced by another one.
    """
    _check_words(name, precision, threads)
    if name != "auto":
        backend = _open_named(name, source, device, precision, threads)
        return _with_reason(backend, "asked for")
    refusals: list[str] = []
    for candidate in _candidates(device):
        missing = _why_not_ready(candidate)
        if missing is None:
            try:
                backend = _open_named(candidate, source, device, precision, threads)
            except BackendUnavailable as error:
                log.warning("%s", error)
                missing = str(error)
            else:
                return _with_reason(backend, _reason(candidate, refusals))
        refusals.append(f"{candidate}: {missing}")
    raise BackendUnavailable(
        f"no engine is usable for device {device!r} and precision {precision!r}: {'; '.join(refusals)}"
    )


def ready_backends() -> dict[str, str | None]:
    """Each engine's name with None if it can be used here, else the reason why not."""
    return {name: _why_not_ready(name) for name in BACKENDS}


def device_names() -> dict[str, str]:
    """What `device` may be here besides "auto", and the name of each: processor, NVIDIA GPUs, others of OpenVINO.

    Loads the engines to ask them, so it takes seconds.
    """
    found = {"cpu": "CPU"}
    if _why_not_ready("torch-cuda") is None:
        import torch

        found |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    if _why_not_ready("openvino") is None:
        from ledetr.backends.openvino_runtime import device_names as of_openvino

        found |= of_openvino()
    return found


def source_of_weights(
    path: Path, info: WeightsInfo, input_hw: tuple[int, int], decoder_layers: int | None = None
) -> ModelSource:
    """The network of a weights file, to be built by an engine that needs it. The caller has verified the file."""

    def build() -> LeDetr:
        from ledetr.weights import load_model

        return load_model(path, decoder_layers)[0].fused()

    layers = decoder_layers or info.config.decoder.eval_layers
    key: dict[str, str | int] = {
        "weights": info.sha256,
        "config": json.dumps(info.config.to_dict(), sort_keys=True),
        "layers": layers,
        "height": input_hw[0],
        "width": input_hw[1],
        "package": __version__,
        "code": _code_fingerprint(),
    }
    return _source(key, input_hw, build)


def random_network(config: ModelConfig, decoder_layers: int | None = None) -> LeDetr:
    """A network with random weights, the same ones each time, in eval mode."""
    import torch

    from ledetr.model.ledetr import build_model
    from ledetr.weights import with_decoder_layers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return build_model(with_decoder_layers(config, decoder_layers)).eval()


def source_of_random(config: ModelConfig, input_hw: tuple[int, int], decoder_layers: int | None = None) -> ModelSource:
    """A network with random weights, the same ones each time; never cached, as they follow torch's version."""

    return _source(None, input_hw, lambda: random_network(config, decoder_layers).fused())


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file with its engine. Either `info` is there, or the file is of others and says little.

    info: what one of our own files says of itself. random_weights: True if nothing was learnt. classes: how many the
    file of others tells apart, None where it does not say.
    """

    backend: Backend | RankingBackend
    info: WeightsInfo | None
    random_weights: bool = False
    classes: int | None = None


def open_model_file(
    path: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    keep_batch: bool = False,
) -> ModelFile:
    """An engine on an .onnx file (ours, or of D-FINE, DEIM or RT-DETR) or on an .xml of ours.

    keep_batch: run any number of pictures at once where the file allows it. Raises WeightsError, one sentence, for a
    file that is damaged, does not stand alone, needs operators beyond the standard or is of another form;
    BackendUnavailable and UsageError as open_backend does.
    """
    name = "openvino" if path.suffix.lower() == ".xml" else "onnx"
    _check_words(name, precision, threads)
    _check_ready(name, device, precision, what=f"{str(path)!r}")
    if name == "openvino":
        return _open_ir(path, device, precision, threads, keep_batch)
    from ledetr.backends.onnx_file import check_seal, class_count, read_onnx
    from ledetr.backends.onnx_runtime import open_onnx

    file = read_onnx(path)
    if "ledetr_format" in file.metadata:
        check_seal(file)
        info = parse_metadata(path, file.metadata)
        backend = _with_reason(open_onnx(file, threads=threads), "the model is an ONNX file")
        if file.metadata.get("precision") == "fp16":
            backend.info = replace(backend.info, precision="fp16")  # its casts are part of the graph
        return ModelFile(backend, info, random_weights=_is_random(file.metadata))
    other = open_onnx(file, threads=threads)
    if not isinstance(other, RankedBackend):
        other.close()
        parse_metadata(path, file.metadata)  # says that this is not ours
    return ModelFile(_with_reason(other, "the model is an ONNX file"), None, classes=class_count(file))


def _open_ir(path: Path, device: str, precision: str, threads: int | None, keep_batch: bool) -> ModelFile:
    from ledetr.backends.openvino_runtime import open_ir

    backend, metadata = open_ir(
        path,
        device="CPU" if device == "auto" else device.upper(),
        precision=None if precision == "auto" else precision,
        threads=threads,
        keep_batch=keep_batch,
    )
    try:
        info = parse_metadata(path, metadata)
    except LeDetrError:
        backend.close()
        raise
    backend = _with_reason(backend, "the model is an OpenVINO file")
    if metadata.get("precision") == "int8":
        backend.info = replace(backend.info, precision="int8")  # what is not int8 in it runs in the precision asked for
    return ModelFile(backend, info, random_weights=_is_random(metadata))


def _is_random(metadata: dict[str, str]) -> bool:
    return metadata.get("random_weights") == "true"


def _source(key: dict[str, str | int] | None, input_hw: tuple[int, int], build: Callable[[], LeDetr]) -> ModelSource:
    def example() -> torch.Tensor:
        import torch

        return torch.zeros((1, 3, *input_hw), dtype=torch.uint8)

    def export_onnx() -> bytes:
        from ledetr.backends.onnx_graph import onnx_bytes

        return onnx_bytes(build(), input_hw)

    def build_graph() -> torch.nn.Module:
        from ledetr.model.processor import ForProcessor

        return ForProcessor(build(), input_hw).eval()

    return ModelSource(key, input_hw, build, example, export_onnx, build_graph)


def _check_words(name: str, precision: str, threads: int | None) -> None:
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {name!r}, known are auto, {', '.join(BACKENDS)}")
    if precision not in ("auto", "fp32", "fp16", "bf16"):
        raise UsageError(f"unknown precision {precision!r}, known are auto, fp32, fp16, bf16")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, got {threads}")


def _candidates(device: str) -> tuple[str, ...]:
    if device == "auto":
        return ("torch-cuda", "openvino", "torch-cpu")
    if device == "cpu":
        return ("openvino", "torch-cpu")
    return ("torch-cuda",) if device.startswith("cuda") else ("openvino",)


def _check_ready(name: str, device: str, precision: str, *, what: str = "") -> None:
    """BackendUnavailable unless the engine is here, in this precision and on this kind of device."""
    missing = _why_not_ready(name)
    if missing is not None:
        ready = ", ".join(other for other, why in ready_backends().items() if why is None)
        subject = f"{what} needs backend {name!r}, which cannot" if what else f"backend {name!r} cannot"
        raise BackendUnavailable(f"{subject} be used: {missing}. Ready here: {ready or 'none'}")
    if precision not in ("auto", *PRECISIONS[name]):
        raise BackendUnavailable(f"backend {name!r} runs in {', '.join(PRECISIONS[name])}, not in {precision}")
    if name in ("onnx", "torch-cpu") and device not in ("auto", "cpu"):
        raise BackendUnavailable(f"backend {name!r} runs on the cpu only, not on device {device!r}")


def _open_named(name: str, source: ModelSource, device: str, precision: str, threads: int | None) -> Backend:
    _check_ready(name, device, precision)
    if name == "torch-cuda":
        return _open_cuda(source, device, precision)
    if name == "openvino":
        from ledetr.backends.openvino_runtime import OpenVinoBackend

        device = "CPU" if device == "auto" else device.upper()
        return OpenVinoBackend(
            source, device=device, precision=None if precision == "auto" else precision, threads=threads
        )
    if name == "onnx":
        from ledetr.backends.onnx_runtime import OnnxBackend

        return OnnxBackend(source, threads=threads)
    from ledetr.backends.torch_cpu import TorchCpuBackend

    return TorchCpuBackend(source, precision="fp32" if precision == "auto" else precision, threads=threads)


def _open_cuda(source: ModelSource, device: str, precision: str) -> Backend:
    import torch

    from ledetr.backends.torch_cuda import TorchCudaBackend

    word = "cuda:0" if device in ("auto", "cuda") else device
    known = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if word not in known:
        raise BackendUnavailable(f"backend 'torch-cuda' has no device {device!r} here; it has {', '.join(known)}")
    return TorchCudaBackend(source, device=word, precision="fp16" if precision == "auto" else precision)


def _why_not_ready(name: str) -> str | None:
    """None if the engine can be used on this machine, else why not and what to do; imports torch only near a GPU."""
    package = {"openvino": "openvino", "onnx": "onnxruntime"}.get(name, "torch")
    if importlib.util.find_spec(package) is None:
        extra = "ledetr[export]" if name == "onnx" else package
        return f"it needs the package {package}: pip install '{extra}'"
    return _why_no_cuda() if name == "torch-cuda" else None


def _why_no_cuda() -> str | None:
    if not _nvidia_driver_found():
        return "no NVIDIA driver was found"
    import torch

    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) was built without CUDA; install a CUDA build from pytorch.org"
    if not torch.cuda.is_available():
        return "PyTorch finds no NVIDIA GPU that it can use (driver too old for it, or hidden)"
    return None


def _nvidia_driver_found() -> bool:
    """Whether a look at the GPU is worth loading torch: a second on a start that may not need it."""
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").exists()
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version"))


def _reason(chosen: str, refusals: list[str]) -> str:
    why = {
        "torch-cuda": "an NVIDIA GPU is here",
        "openvino": "it is the fastest engine on a processor",
        "torch-cpu": "it runs everywhere",
    }[chosen]
    return f"chosen because {why}" + (f" ({'; '.join(refusals)})" if refusals else "")


def _with_reason(backend: AnyBackend, reason: str) -> AnyBackend:
    backend.info = replace(backend.info, reason=reason)
    return backend


@functools.cache
def _code_fingerprint() -> str:
    """Hash of the code that makes the graph: a converted copy must not outlive a change of the network's code."""
    package = Path(__file__).parent.parent
    files = (*sorted((package / "model").glob("*.py")), *sorted(Path(__file__).parent.glob("*.py")))
    digest = hashlib.sha256(__version__.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
