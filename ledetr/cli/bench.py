"""`ledetr bench`: how long the model alone takes, and a frame from pixels to boxes. Never a bare "fps"."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from ledetr import __version__
from ledetr.cli.one_document import one_document
from ledetr.cli.peers import PEERS_OF, load_peer
from ledetr.cli.progress import counted
from ledetr.cli.training import call_training
from ledetr.detector import Detector
from ledetr.errors import UsageError
from ledetr.model.config import VARIANTS
from ledetr.model.count import Count, count_paper

# A 1080p camera frame: what "frame to boxes" starts from unless --frame says otherwise.
FRAME_HW = (1080, 1920)
_PACKAGES = ("ledetr", "torch", "openvino", "onnxruntime", "transformers", "numpy", "opencv-python-headless")


@dataclass(slots=True)
class Series:
    """Times of one model at one size, in milliseconds, one entry a run. peer_params_m: of somebody else's network."""

    detector: Detector
    peer_params_m: float | None = None
    infer_ms: list[float] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)

    def run(self, rgb: np.ndarray) -> None:
        """Once from frame to boxes; the engine's own part is timed inside the same run."""
        start = time.perf_counter()
        _, times = self.detector.detect_frame(rgb)
        self.frame_ms.append(1000 * (time.perf_counter() - start))
        self.infer_ms.append(times.infer_ms)

    def forget(self) -> None:
        """Drop what was measured so far: it was the warm-up."""
        self.infer_ms.clear()
        self.frame_ms.clear()

    def row(self) -> dict[str, Any]:
        """median_ms, p95_ms and min_ms are the model alone: pixels in host memory to raw outputs in host memory."""
        info = self.detector.info
        size = _count(self.detector) if self.peer_params_m is None else None
        params_m = self.peer_params_m if size is None else size.params_m
        height, width = info.input_hw
        return {
            "model": self.detector.model_id,
            "backend": info.name,
            "device": info.device,
            "precision": info.precision,
            "imgsz": height if height == width else [height, width],
            "batch": 1,
            "runs": len(self.infer_ms),
            "median_ms": round(float(np.median(self.infer_ms)), 3),
            "p95_ms": round(float(np.percentile(self.infer_ms, 95)), 3),
            "min_ms": round(min(self.infer_ms), 3),
            "frame_to_boxes_ms": round(float(np.median(self.frame_ms)), 3),
            "frame_to_boxes_p95_ms": round(float(np.percentile(self.frame_ms, 95)), 3),
            "params_m": None if params_m is None else round(params_m, 3),
            "gflops": None if size is None else round(size.gflops, 2),
            "random_weights": self.detector.random_weights,
        }


def bench(
    models: Annotated[str, typer.Option("--models", "-m", help="Scales or weights files, with commas.")] = "n",
    imgsz: Annotated[
        str | None, typer.Option(help="Sides of the network input, with commas. Default: as trained.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, torch-cuda, torch-cpu, openvino or onnx.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads. Default: the engine decides.")] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Timed runs of each model and size. Default: 100; 20 steps of training.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Runs before the clock counts. Default: 10; 3 steps of training.")
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Time scales that have no weights; latency does not depend on them."),
    ] = False,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Time D-FINE and RT-DETRv2 of the same class too, and print the ratios."),
    ] = False,
    training: Annotated[
        bool,
        typer.Option("--training", help="Time the steps of training instead, part by part; with random weights."),
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures of a step of training. Default: 16.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Latency at batch 1: median, p95 and least of the model alone, and of a 1080p frame to boxes.

    Models and sizes take turns, run by run, so that a machine that slows down slows all of them.
    """
    if training:
        _refuse_other_than("auto", backend)
        values = {"models": models, "imgsz": imgsz, "batch": batch, "device": device, "precision": precision}
        values |= {"threads": threads, "runs": runs, "warmup": warmup}
        switches = {"peers": peers, "json": json, "quiet": quiet}
        raise typer.Exit(call_training("training.bench_training", words_of(values, switches)))
    if batch is not None:
        raise UsageError("--batch belongs to --training; latency is measured at batch 1")
    names, sides = _words(models), input_sides(imgsz)
    runs, warmup = 100 if runs is None else runs, 10 if warmup is None else warmup
    with one_document(json) as document, ExitStack() as opened:
        all_series = [
            Series(
                opened.enter_context(
                    Detector.load(
                        name,
                        backend=backend,
                        device=device,
                        precision=precision,
                        imgsz=side,
                        random_weights=random_weights,
                        threads=threads,
                    )
                )
            )
            for name in names
            for side in sides
        ]
        if peers:
            engine = {"backend": backend, "device": device, "precision": precision, "threads": threads}
            all_series += [
                Series(opened.enter_context(detector), params_m)
                for detector, params_m in load_peers(all_series, **engine)
            ]
        measure(all_series, runs=runs, warmup=warmup, quiet=quiet)
        rows = [series.row() for series in all_series]
        add_ratios(rows)
        document.update(machine=describe_machine(), versions=describe_versions(), frame_hw=list(FRAME_HW), results=rows)
    if not json:
        _print_table(rows, describe_machine())


def words_of(values: dict[str, Any], switches: dict[str, bool]) -> list[str]:
    """Options as words of a command line; those without a value are left out."""
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return given + [f"--{name}" for name, on in switches.items() if on]


def _refuse_other_than(expected: str, backend: str) -> None:
    if backend != expected:
        raise UsageError(f"--training runs in torch, so --backend {backend} has no meaning with it; leave it out")


def load_peers(ours: Sequence[Series], **engine: Any) -> Iterator[tuple[Detector, float]]:
    """Every peer of these models at their sizes, each once."""
    wanted = {
        (peer, series.detector.info.input_hw): None
        for series in ours
        for peer in PEERS_OF.get(series.detector.model_id, ())
    }
    if not wanted:
        raise UsageError("--peers compares the scales n, m, l and x; other models have no peers")
    for peer, input_hw in wanted:
        yield load_peer(peer, input_hw, **engine)


def add_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """ "ratio_to" of each row of ours: its median over that of each of its peers at the same size."""
    medians = {(row["model"], str(row["imgsz"])): row["median_ms"] for row in rows}
    for row in rows:
        beside = {peer: medians.get((peer, str(row["imgsz"]))) for peer in PEERS_OF.get(row["model"], ())}
        row["ratio_to"] = {peer: round(row["median_ms"] / ms, 3) for peer, ms in beside.items() if ms is not None}


def measure(all_series: Sequence[Series], *, runs: int, warmup: int, quiet: bool = True) -> None:
    """Fill the series, taking turns; the first `warmup` rounds are forgotten."""
    rgb = np.random.default_rng(0).integers(0, 256, (*FRAME_HW, 3), dtype=np.uint8)
    with counted("rounds", warmup + runs, quiet=quiet) as progress:
        for done in range(warmup + runs):
            for series in all_series:
                series.run(rgb)
                if done + 1 == warmup:
                    series.forget()
            progress(done + 1)


def _count(detector: Detector) -> Count | None:
    """As the paper counts, at the size that was timed; None for a model file of others."""
    if detector.weights is None and detector.model_id not in VARIANTS:
        return None
    config = VARIANTS[detector.model_id]() if detector.weights is None else detector.weights.config
    return count_paper(config, size_hw=detector.info.input_hw)


def describe_machine() -> dict[str, Any]:
    """What the figures hold for: processor, its cores that we may use, GPU, system, date."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "gpu": _gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def describe_versions() -> dict[str, str]:
    """Versions of the packages that decide about speed."""
    found = {"ledetr": __version__}
    for package in _PACKAGES[1:]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def input_sides(imgsz: str | None) -> list[int | None]:
    """The sides of --imgsz, numbers with commas between them; where there is none, None: as the model was trained."""
    return [None] if imgsz is None else [_side(word) for word in _words(imgsz)]


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"expected names or numbers with commas between them, got {text!r}")
    return words


def _side(word: str) -> int:
    if not word.isdecimal():
        raise UsageError(f"--imgsz takes whole numbers with commas between them, such as 416,640, got {word!r}")
    return int(word)


def _print_table(rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    title = f"{machine['processor']}, {machine['cores']} cores" + (f", {machine['gpu']}" if machine["gpu"] else "")
    table = Table(title=f"{title}; milliseconds at batch 1", title_justify="left")
    for column in ("model", "engine", "input", "median", "p95", "least", "1080p frame to boxes", "beside peers"):
        table.add_column(column, justify="left" if column in ("model", "engine", "beside peers") else "right")
    for row in rows:
        name = row["model"] + (" (random weights)" if row["random_weights"] else "")
        engine = f"{row['backend']} {row['device']} {row['precision']}"
        times = (row[key] for key in ("median_ms", "p95_ms", "min_ms", "frame_to_boxes_ms"))
        ratios = ", ".join(f"{ratio:.2f} x {peer}" for peer, ratio in row["ratio_to"].items())
        table.add_row(name, engine, str(row["imgsz"]), *(f"{ms:.1f}" for ms in times), ratios)
    Console().print(table)
