"""`ledetr doctor`: what works on this machine, what is missing, and what to do about it.

Each engine is imported inside its own probe: one that is broken becomes a line of the report, not the end of it.
"""

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
import psutil
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledetr import SCALES, __version__
from ledetr.cli.one_document import one_document
from ledetr.cli.system_libraries import missing_libraries
from ledetr.errors import LeDetrError
from ledetr.weights_file import find_weights, read_header, verify_payload

Status = Literal["ok", "note", "fail"]
_MARKS: dict[str, tuple[str, str]] = {"ok": ("ok", "green"), "note": ("note", "yellow"), "fail": ("FAIL", "bold red")}
_VIDEO_ENCODERS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1")
_AUDIO_ENCODERS = ("aac", "libopus")
_EXTRAS = {
    "onnxruntime": ("export", "the engine onnx"),
    "onnx": ("export", "ONNX files"),
    "PySide6_Addons": ("camera", "camera formats by name"),
    "natten": ("natten", "fused neighborhood attention on NVIDIA GPUs"),
    "supervision": ("supervision", "Detections.to_supervision()"),
}
_LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. status: "note" is worth knowing, "fail" keeps the main job from working."""

    name: str
    status: Status
    found: str
    advice: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Say what works on this machine and what is missing. The exit code is 1 where the main job cannot work."""
    with one_document(json) as document:
        findings = examine()
        healthy = all(finding.status != "fail" for finding in findings)
        document.update(ok=healthy, checks=[asdict(finding) for finding in findings])
    if not json:
        _print_table(findings)
    if not healthy:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """All findings; a probe that breaks is itself a finding."""
    probes: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "machine": _machine,
        "torch": _torch,
        "openvino": _openvino,
        "onnxruntime": _onnxruntime,
        "opencv": _opencv,
        "video": _video,
        "window": _window,
        "cameras": _cameras,
        "disk": _disk,
        "weights": _weights,
        "extras": _extras,
    }
    findings: list[Finding] = []
    for name, probe in probes.items():
        try:
            findings += probe()
        except Exception as error:  # the report must come out whatever is broken
            words = " ".join(f"{type(error).__name__}: {error}".split())
            findings.append(Finding(name, "fail", words, f"reinstall the package behind {name}"))
    return findings


def _python() -> Iterator[Finding]:
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding(
        "python",
        "ok" if fits else "fail",
        f"Python {platform.python_version()}, ledetr {__version__}, {sysconfig.get_platform()}",
        "" if fits else "use Python 3.11, 3.12 or 3.13",
    )


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free_gib = psutil.virtual_memory().available / 1024**3
    yield Finding("machine", "ok", f"{cores} processor cores, {free_gib:.1f} GiB of memory free")


def _torch() -> Iterator[Finding]:
    import torch

    built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    yield Finding("torch", "ok", f"PyTorch {torch.__version__}, {built_for}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory_gib = device.total_memory / 1024**3
            yield Finding(f"cuda:{index}", "ok", f"{device.name}, {memory_gib:.0f} GiB, {device.major}.{device.minor}")
    elif Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"):
        advice = (
            "update the NVIDIA driver" if torch.version.cuda else "install the CUDA build of this version of PyTorch"
        )
        yield Finding("cuda", "note", "an NVIDIA driver is here, but PyTorch cannot use a GPU", advice)
    else:
        yield Finding("cuda", "ok", "no NVIDIA GPU here; the CPU engines are used")


def _openvino() -> Iterator[Finding]:
    # Through our own engine, which switches OpenVINO's telemetry off before the import.
    core = import_module("ledetr.backends.openvino_runtime").openvino.Core()
    devices = [f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices]
    yield Finding("openvino", "ok" if devices else "fail", f"OpenVINO {version('openvino')}: {', '.join(devices)}")


def _onnxruntime() -> Iterator[Finding]:
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        yield Finding(
            "onnxruntime",
            "fail",
            "the packages onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            "pip uninstall onnxruntime onnxruntime-gpu, then install one of them",
        )
    elif _installed("onnxruntime") or _installed("onnxruntime-gpu"):
        import onnxruntime

        providers = ", ".join(onnxruntime.get_available_providers())
        yield Finding("onnxruntime", "ok", f"ONNX Runtime {onnxruntime.__version__}: {providers}")


def _opencv() -> Iterator[Finding]:
    import cv2

    foreign = next((name for name in ("opencv-python", "opencv-contrib-python") if _installed(name)), None)
    if foreign:
        advice = f"pip uninstall {foreign} opencv-python-headless, then pip install opencv-python-headless"
        yield Finding("opencv", "note", f"{foreign} is installed; its Qt can break the window", advice)
    else:
        yield Finding("opencv", "ok", f"OpenCV {cv2.__version__} without a Qt of its own")


def _video() -> Iterator[Finding]:
    import av

    missing = [name for name in (*_VIDEO_ENCODERS, *_AUDIO_ENCODERS) if name not in av.codecs_available]
    yield Finding(
        "video",
        "fail" if "libx264" in missing else "note" if missing else "ok",
        f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}"
        + (f", without {', '.join(missing)}" if missing else f", writes {', '.join(_VIDEO_ENCODERS)}"),
        "install PyAV from its wheel: pip install --force-reinstall --only-binary av av" if missing else "",
    )


def _window() -> Iterator[Finding]:
    has_display = not sys.platform.startswith("linux") or bool(_display())
    missing = missing_libraries(window=has_display)
    if missing:
        listed = ", ".join(library.soname for library in missing)
        packages = " ".join(library.package for library in missing)
        advice = f"on Debian or Ubuntu: sudo apt-get install {packages}"
        yield Finding("window", "fail", f"the system libraries {listed} are missing", advice)
        return
    from PySide6 import QtCore

    chosen = os.environ.get("QT_QPA_PLATFORM")
    shown_on = f"QT_QPA_PLATFORM={chosen}" if chosen else _display() or "the desktop"
    if has_display or chosen:
        yield Finding("window", "ok", f"Qt {QtCore.qVersion()} on {shown_on}")
    else:
        yield Finding("window", "note", f"Qt {QtCore.qVersion()}, but there is no display here", "use ledetr detect")


def _display() -> str:
    names = ("WAYLAND_DISPLAY", "DISPLAY")
    return ", ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))


def _cameras() -> Iterator[Finding]:
    import av

    driver = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}.get(sys.platform)
    if driver is None or (driver == "v4l2" and not any(Path("/dev").glob("video*"))):
        yield Finding("cameras", "ok", "no camera found")
        return
    found = [device for device in av.enumerate_input_devices(driver) if "video" in (device.media_types or ["video"])]
    listed = ", ".join(f"{device.description} ({device.name})" for device in found)
    yield Finding("cameras", "ok", listed or "no camera found")


def _disk() -> Iterator[Finding]:
    for name, folder in (
        ("user data", platformdirs.user_data_path("ledetr", appauthor=False)),
        ("cache", platformdirs.user_cache_path("ledetr", appauthor=False)),
        ("this folder", Path.cwd()),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        low = free < _LOW_DISK_BYTES
        where = f"{folder}: {free / 1024**3:.1f} GiB free"
        if not os.access(there, os.W_OK):
            yield Finding(f"disk, {name}", "note", f"{where}, not writable", "results and caches cannot be kept there")
        else:
            yield Finding(f"disk, {name}", "note" if low else "ok", where, "make room for videos" if low else "")


def _weights() -> Iterator[Finding]:
    for scale in SCALES:
        try:
            path = find_weights(scale)
        except LeDetrError:
            yield Finding(f"weights {scale}", "note", "none found", "ledetr models path " + scale)
            continue
        try:
            verify_payload(path, read_header(path))
        except LeDetrError as error:
            yield Finding(f"weights {scale}", "fail", str(error), "put an intact file there")
        else:
            yield Finding(f"weights {scale}", "ok", f"{path}, checksum right")


def _extras() -> Iterator[Finding]:
    for package, (extra, what) in _EXTRAS.items():
        if not _installed(package):
            yield Finding(f"extra {extra}", "note", f"{package} is not installed", f"it adds {what}: ledetr[{extra}]")


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _print_table(findings: list[Finding]) -> None:
    table = Table("", "what")
    for column in ("found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        word, style = _MARKS[finding.status]
        table.add_row(Text(word, style), finding.name, Text(finding.found), Text(finding.advice))
    Console().print(table)
