"""Which engine is taken, why, and what is said where one is not here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ledetr.backends as backends
from ledetr.backends import ModelSource, open_backend, ready_backends, source_of_weights
from ledetr.errors import BackendUnavailable, UsageError
from ledetr.weights import read_info

ROOT = Path(__file__).parents[3]


@pytest.fixture
def source(tiny_weights: Path) -> ModelSource:
    return source_of_weights(tiny_weights, read_info(tiny_weights), (64, 64))


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages else real(name))


def test_auto_without_gpu_is_openvino(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_nvidia_driver_found", lambda: False)
    info = open_backend("auto", source).info
    assert info.name == "openvino"
    assert info.reason == (
        "chosen because it is the fastest engine on a processor (torch-cuda: no NVIDIA driver was found)"
    )


def test_auto_without_openvino_is_torch(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino")
    info = open_backend("auto", source, device="cpu").info
    assert info.name == "torch-cpu"
    assert "openvino: it needs the package openvino: pip install 'openvino'" in info.reason


def test_auto_goes_on_where_an_engine_fails(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise BackendUnavailable("cuda:0 has too little free memory")

    monkeypatch.setattr(backends, "_why_no_cuda", lambda: None)
    monkeypatch.setattr(backends, "_open_cuda", fail)
    info = open_backend("auto", source).info
    assert info.name == "openvino"
    assert "too little free memory" in info.reason


@pytest.mark.parametrize(("name", "device"), [("torch-cuda", "auto"), ("auto", "cuda"), ("auto", "cuda:1")])
def test_cuda_is_never_replaced(source: ModelSource, monkeypatch: pytest.MonkeyPatch, name: str, device: str) -> None:
    monkeypatch.setattr(backends, "_nvidia_driver_found", lambda: False)
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver was found"):
        open_backend(name, source, device=device)


def test_a_torch_without_cuda_says_so(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(backends, "_nvidia_driver_found", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BackendUnavailable, match="built without CUDA"):
        open_backend("torch-cuda", source)


def test_a_missing_extra_names_it_and_what_is_ready(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    monkeypatch.setattr(backends, "_nvidia_driver_found", lambda: False)
    with pytest.raises(BackendUnavailable) as caught:
        open_backend("onnx", source)
    assert str(caught.value) == (
        "backend 'onnx' cannot be used: it needs the package onnxruntime: pip install 'ledetr[export]'. "
        "Ready here: openvino, torch-cpu"
    )
    assert ready_backends()["openvino"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "tensorrt"}, "unknown backend 'tensorrt', known are auto, torch-cuda, openvino, torch-cpu, onnx"),
        ({"name": "auto", "precision": "int4"}, "unknown precision 'int4'"),
        ({"name": "auto", "threads": 0}, "threads must be 1 or more"),
    ],
)
def test_unknown_words(source: ModelSource, arguments: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_backend(source=source, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "torch-cpu", "precision": "fp16"}, "'torch-cpu' runs in fp32, bf16, not in fp16"),
        ({"name": "torch-cpu", "device": "cuda"}, "runs on the cpu only, not on device 'cuda'"),
        ({"name": "openvino", "device": "toaster"}, "OpenVINO has no device 'TOASTER' here; it has CPU"),
        ({"name": "auto", "device": "toaster"}, "no engine is usable for device 'toaster'"),
    ],
)
def test_what_an_engine_cannot(source: ModelSource, arguments: dict, words: str) -> None:
    with pytest.raises(BackendUnavailable, match=words):
        open_backend(source=source, **arguments)


def test_threads_are_passed_on(source: ModelSource) -> None:
    backend = open_backend("openvino", source, threads=1)
    assert backend._compiled.get_property("INFERENCE_NUM_THREADS") == 1  # type: ignore[attr-defined]


def test_openvino_auto_precision_is_what_the_device_prefers(source: ModelSource) -> None:
    import openvino

    preferred = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    assert open_backend("openvino", source).info.precision == {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}[preferred]
    assert open_backend("openvino", source, precision="fp32").info.precision == "fp32"


class _NoMemory:
    """An engine of others at the end of the memory; each says so in its own way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, *args: object, **kwargs: object) -> None:
        raise self._error

    run = infer = __call__


SHORTAGES = [
    (
        "torch-cpu",
        "_model",
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ),
    ("openvino", "_request", MemoryError("std::bad_alloc")),
    ("onnx", "_session", RuntimeError("Exception during initialization: bad allocation")),
]


@pytest.mark.parametrize(("name", "part", "error"), SHORTAGES, ids=[name for name, _, _ in SHORTAGES])
def test_no_memory_while_it_runs(source: ModelSource, name: str, part: str, error: Exception) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(name, "torch"))
    backend = open_backend(name, source, precision="fp32")
    setattr(backend, part, _NoMemory(error))
    with pytest.raises(BackendUnavailable) as caught:
        backend.run(np.zeros((1, 64, 64, 3), np.uint8))
    assert str(caught.value) == (
        f"cpu has too little free memory for 64x64 in {name}; close other programs, or take a smaller model or size"
    )
    setattr(backend, part, _NoMemory(RuntimeError("the kernel is broken")))
    with pytest.raises(RuntimeError, match="the kernel is broken"):
        backend.run(np.zeros((1, 64, 64, 3), np.uint8))


def test_no_memory_on_the_gpu(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ledetr.backends.torch_cuda import TorchCudaBackend

    def full(*args: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(torch.cuda, "Stream", full)
    with pytest.raises(
        BackendUnavailable, match=r"^cuda:0 has too little free memory for this model at \(64, 64\); close"
    ):
        TorchCudaBackend(source)


def test_a_cache_of_another_version_is_left_alone(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its package nor its code of the network is ours, so its numbers need not be either."""
    monkeypatch.setattr("ledetr.backends.cache.cache_root", lambda: tmp_path)
    entries = set()
    for change in ("", "__version__", "_code_fingerprint"):
        if change:
            monkeypatch.setattr(backends, change, "9.9.9" if change == "__version__" else lambda: "other code")
        source = source_of_weights(tiny_weights, read_info(tiny_weights), (64, 64))
        open_backend("openvino", source, precision="fp32").close()
        assert len(set(tmp_path.iterdir()) - entries) == 1, "a new entry, and the old ones stay"
        entries = set(tmp_path.iterdir())
    assert len(entries) == 3


NO_SOCKET = """
import socket, sys, urllib.request, http.client
def refuse(*args, **kwargs):
    opened.append(args)
    raise OSError("a socket was opened")
opened = []
socket.socket = socket.create_connection = socket.getaddrinfo = urllib.request.urlopen = refuse
http.client.HTTPConnection.connect = refuse
import pathlib, threading
home = pathlib.Path(sys.argv[2])
import ledetr.backends.cache as cache
cache.cache_root = lambda: home / "cache"
from ledetr import Detector
with Detector.load(sys.argv[1], backend="openvino") as detector:
    detector.warm_up()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(10)
import torch
assert any((home / "cache").iterdir()), "nothing was converted"
assert opened == [], opened
assert not (home / "intel").exists(), "a client id was written"
"""


def test_conversion_opens_no_socket(tiny_weights: Path, tmp_path: Path) -> None:
    """A fresh interpreter, because OpenVINO would report its first import."""
    run = subprocess.run(
        [sys.executable, "-c", NO_SOCKET, str(tiny_weights), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr


WARM_START = """
import sys, pathlib
import ledetr.backends.cache as cache
cache.cache_root = lambda: pathlib.Path(sys.argv[2])
from ledetr import Detector
with Detector.load(sys.argv[1], backend="openvino", precision="fp32", imgsz=64) as detector:
    detector.warm_up()
print("torch" in sys.modules)
"""


def test_warm_start_needs_no_torch(tiny_weights: Path, engine_cache: Path, source: ModelSource) -> None:
    open_backend("openvino", source, precision="fp32").close()
    command = [sys.executable, "-c", WARM_START, str(tiny_weights), str(engine_cache)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, check=False)
    assert run.stdout == "False\n", run.stderr
