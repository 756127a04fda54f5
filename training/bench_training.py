"""How fast training is, part by part: `ledetr bench --training [-m n] [--batch 16] [--imgsz 416] [--peers]`.

It times the loop of training.loop as it is, with random weights, on drawn shapes with the recipe's mosaic, mixup and
colours. --peers sets D-FINE beside it, as `transformers` builds it and with the loss that comes with it: same batches,
same precision, same optimiser and average, the two taking turns step by step.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ledetr.cli.bench import describe_machine, describe_versions, input_sides
from ledetr.cli.one_document import one_document
from ledetr.cli.peers import D_FINE, PEERS_OF, peer_for_training
from ledetr.cli.progress import counted
from ledetr.errors import UsageError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.weights_info import MAX_INPUT_SIDE
from training import edge
from training.config import TrainConfig
from training.data.collate import Batch, batches
from training.data.dataset import Dataset
from training.data.read import read_dataset
from training.data.shapes import write_shapes
from training.distributed import Team
from training.ema import EmaBank
from training.launch import device_named, workers_for
from training.loop import Job, Precision, Run
from training.optim import GuardedStep, build_adamw, parameter_groups
from training.pretrain import SCALES
from training.recipes import recipe_for

PARTS = ("forward", "criterion", "backward", "optimiser")
RECIPE = "paper-deim"
"""Nothing is frozen in it, as in the peers' own."""
COCO_PICTURES = 118_287
"""Of train2017."""
PICTURE_HW = (480, 640)
DRAWN_PICTURES = 32
BATCHES_READ_ALONE = 4
PEER_RATE, PEER_DECAY, PEER_QUERIES = 1e-4, 0.9999, 300


class Clock:
    """Milliseconds of each part of one step; by the device's own events on a GPU, so that no part waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """The step begins."""
        self._marks = [("", self._now())]

    def mark(self, part: str) -> None:
        """A part of the step has just ended."""
        self._marks.append((part, self._now()))

    def stop(self) -> dict[str, float]:
        """The parts since start(), those of one name together; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        parts = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            parts[part] += before.elapsed_time(after) if self.device.type == "cuda" else 1000 * (after - before)
        return parts

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class CountCriterion(TorchDispatchMode):
    """Counts the operators that reach the dispatcher, views included, while the criterion's forward pass runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.count, self._inside = 0, False

    def mark(self, part: str) -> None:
        """As Clock.mark: what follows the forward pass is the criterion."""
        self._inside = part == "forward"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += self._inside
        return func(*args, **(kwargs or {}))


class Stepper(Protocol):
    """What makes steps and calls `mark` with each of PARTS as it ends."""

    mark: Any

    def step(self, batch: Batch) -> object: ...


class PeerRun:
    """D-FINE in training: the network and the loss of transformers, and our optimiser and average."""

    def __init__(self, name: str, input_hw: tuple[int, int], device: torch.device, precision: Precision) -> None:
        self.network = peer_for_training(name, input_hw).to(device)
        self.device, self.precision = device, precision
        groups = parameter_groups(
            self.network, lr=PEER_RATE, backbone_lr=PEER_RATE, weight_decay=1e-4, backbone="model"
        )
        self.guard = GuardedStep(self.network, build_adamw(groups), 0.1)
        self.ema = EmaBank(self.network, (PEER_DECAY,))
        self.mark: Any = _no_mark
        self._loss = self.network.loss_function
        self.network.loss_function = self._timed_loss

    def step(self, batch: Batch) -> None:
        """One step, as Run.step makes one of ours."""
        self.guard.optimizer.zero_grad()
        pixels = batch.pixels.to(self.device, non_blocking=True).float() / 255
        labels = [
            {"class_labels": labels[valid].to(self.device), "boxes": boxes[valid].to(self.device)}
            for labels, boxes, valid in zip(
                batch.targets.labels, batch.targets.boxes_cxcywh, batch.targets.valid, strict=True
            )
        ]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.network(pixels, labels=labels).loss
        self.mark("criterion")
        loss.backward()
        self.mark("backward")
        _, bad = self.guard.step()
        self.ema.update(batch.step, bad)
        self.mark("optimiser")

    def _timed_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Called where the network has made its outputs. D-FINE takes its losses in float32."""
        self.mark("forward")
        with torch.autocast(self.device.type, enabled=False):
            return self._loss(*_wide(args), **_wide(kwargs))


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _wide(inner) for key, inner in value.items()}
    return type(value)(_wide(inner) for inner in value) if isinstance(value, list | tuple) else value


def _no_mark(part: str) -> None:
    """Nobody measures."""


@dataclass(slots=True)
class Series:
    """One network in training at one size, and the milliseconds of its steps. epochs: of its whole recipe, of ours."""

    name: str
    stepper: Stepper
    params_m: float
    epochs: float | None
    operators: int = 0
    syncs: int | None = None
    parts_ms: list[dict[str, float]] = field(default_factory=list)

    def run(self, batch: Batch, clock: Clock) -> None:
        """One timed step."""
        self.stepper.mark = clock.mark
        clock.start()
        self.stepper.step(batch)
        self.parts_ms.append(clock.stop())

    def count(self, batch: Batch, device: torch.device) -> None:
        """One step that counts: operators of the criterion, and on a GPU how often the host had to wait. Not the first
        one, in which constants are copied that are kept afterwards."""
        counter = CountCriterion()
        self.stepper.mark = counter.mark
        with counter, _counted_syncs(device) as syncs:
            self.stepper.step(batch)
        self.operators, self.syncs = counter.count, len(syncs) if device.type == "cuda" else None

    def row(self, batch: int, side: int, read_ms: float, workers: int) -> dict[str, Any]:
        """Medians. data_wait_ms: what is left of the time a batch takes to make once worker processes make it during
        the step before; all of it where there are none."""
        parts = {part: float(np.median([ms[part] for ms in self.parts_ms])) for part in PARTS}
        step_ms = float(np.median([sum(ms.values()) for ms in self.parts_ms]))
        wait_ms = max(0.0, read_ms - step_ms) if workers else read_ms
        rate = 1000 * batch / (step_ms + wait_ms)
        epoch_hours = COCO_PICTURES / rate / 3600
        return {
            "model": self.name,
            "imgsz": side,
            "batch": batch,
            "runs": len(self.parts_ms),
            "params_m": round(self.params_m, 3),
            "pictures_per_s": round(rate, 3),
            "step_ms": round(step_ms, 3),
            "data_wait_ms": round(wait_ms, 3),
            **{f"{part}_ms": round(ms, 3) for part, ms in parts.items()},
            "criterion_operators": self.operators,
            "host_syncs": self.syncs,
            "coco_epoch_hours": round(epoch_hours, 3),
            "recipe_hours": None if self.epochs is None else round(self.epochs * epoch_hours, 2),
        }


@contextmanager
def _counted_syncs(device: torch.device) -> Iterator[list[Any]]:
    """The warnings of torch for each time the host waits for the device; none on a processor."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        kept: list[Any] = []
        try:
            yield kept
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
            kept += [warning for warning in found if "synchroniz" in str(warning.message)]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is asked for."""

    models: Sequence[str]
    side: int | None
    batch: int
    device: str
    precision: Precision
    workers: int
    runs: int
    warmup: int
    peers: bool
    quiet: bool


def measure(bench: Bench) -> list[dict[str, Any]]:
    """A row for each scale, and with peers one for D-FINE of its class behind it."""
    with tempfile.TemporaryDirectory(prefix="ledetr-bench-") as folder:
        data = toy_data(Path(folder))
        return [row for name in bench.models for row in _measured(bench, name, data, Path(folder))]


def toy_data(folder: Path) -> Dataset:
    """Drawn shapes as files, labelled as if they were COCO's classes; each is decoded anew for each sample, as in a
    set that is too large to be kept."""
    data = read_dataset(write_shapes(folder, "coco", DRAWN_PICTURES, size_hw=PICTURE_HW, ids=tuple(range(1, 11))))
    pictures = tuple(replace(picture, size_hw=None) for picture in data.pictures)
    return replace(data, pictures=pictures, class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS)


def busy(config: TrainConfig, batch: int) -> TrainConfig:
    """The recipe with all its augmentation from the first step to the last, at one size."""
    always = replace(
        config.schedule, strong_from=0.0, mosaic_until=1.0, flat_until=1.0, strong_until=1.0, warm_up_most=0
    )
    return replace(config, batch=batch, schedule=always, augment=replace(config.augment, multi_scale_repeat=0))


def _measured(bench: Bench, name: str, data: Dataset, folder: Path) -> list[dict[str, Any]]:
    model = SCALES[name]()
    input_hw = model.input_hw if bench.side is None else (bench.side, bench.side)
    peers = [peer for peer in PEERS_OF.get(name, ()) if bench.peers and peer in D_FINE]
    for peer in peers:
        _refuse_small(peer, input_hw[0])
    recipe = recipe_for(RECIPE, name)
    device = torch.device(bench.device)
    steps = bench.warmup + bench.runs + 1
    job = Job(
        folder=folder / name,
        config=busy(recipe, bench.batch),
        model=replace(model, input_hw=input_hw),
        train=data,
        tune=data,
        total=max(steps, BATCHES_READ_ALONE),
        device=bench.device,
        precision=bench.precision,
        workers=bench.workers,
    )
    ours = Run(job, Team(device=device))
    all_series = [Series(name, ours, _millions(ours.model), recipe.epochs)]
    for peer in peers:
        run = PeerRun(peer, input_hw, device, bench.precision)
        all_series.append(Series(peer, run, _millions(run.network), None))
    read_ms = _read_alone_ms(ours)
    clock = Clock(device)
    with counted("steps", steps, quiet=bench.quiet) as progress:
        for batch in islice(ours.batches(0), steps):
            for series in all_series:
                if batch.step == steps - 1:
                    series.count(batch, device)
                    continue
                series.run(batch, clock)
                if batch.step + 1 == bench.warmup:
                    series.parts_ms.clear()
            progress(batch.step + 1)
    return [series.row(bench.batch, input_hw[0], read_ms, bench.workers) for series in all_series]


def _refuse_small(peer: str, side: int) -> None:
    """D-FINE picks its queries among the positions of its levels and needs as many of these."""
    positions = sum((side // stride) ** 2 for stride in (8, 16, 32)[-D_FINE[peer].levels :])
    if positions < PEER_QUERIES:
        raise UsageError(
            f"{peer} takes {PEER_QUERIES} queries from {positions} positions at --imgsz {side}; take 256 or more"
        )


def _read_alone_ms(run: Run) -> float:
    """Milliseconds that a batch takes to make while nothing else is done; the first is left out, as workers start."""
    stream = batches(run.samples(), first=0, total=BATCHES_READ_ALONE, workers=run.job.workers)
    next(stream)
    began = time.perf_counter()
    made = sum(1 for _ in stream)
    return 1000 * (time.perf_counter() - began) / made


def _millions(network: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ledetr bench --training", description="Time the steps of training, part by part."
    )
    add = parser.add_argument
    add("-m", "--models", default="n", help=f"scales with commas: {', '.join(SCALES)} (default n)")
    add("--imgsz", help="side of the network input (default: the scale's)")
    add("--batch", type=int, default=16, help="pictures of a step (default 16)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=("auto", *get_args(Precision)), default="auto", help="auto: bf16 on a GPU, else fp32")
    add("--threads", type=int, help="processor threads")
    add("--workers", type=int, help="processes that make pictures ready (default: as training has)")
    add("--runs", type=int, default=20, help="timed steps of each (default 20)")
    add("--warmup", type=int, default=3, help="steps before the clock counts (default 3)")
    add("--peers", action="store_true", help="time D-FINE with its own loss in the same run")
    add("--json", action="store_true", help="print one JSON document")
    add("-q", "--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(words)
    if min(args.batch, args.runs, args.threads or 1) < 1 or args.warmup < 0:
        parser.error("--batch, --runs and --threads must be above 0, --warmup at least 0")
    return args


def bench_of(args: argparse.Namespace) -> Bench:
    """What a command line asks for, checked."""
    models = [word.strip() for word in args.models.split(",") if word.strip()]
    strange = next((name for name in models if name not in SCALES), None)
    if strange is not None or not models:
        raise UsageError(f"--training takes scales with commas between them ({', '.join(SCALES)}), got {args.models!r}")
    sides = input_sides(args.imgsz)
    side = sides[0]
    if len(sides) > 1 or (side is not None and (side % 32 or not 32 <= side <= MAX_INPUT_SIDE)):
        raise UsageError(f"--training takes one --imgsz, a multiple of 32 in 32..{MAX_INPUT_SIDE}, got {args.imgsz!r}")
    device = device_named(args.device)
    precision: Precision = args.precision if args.precision != "auto" else ("bf16" if device == "cuda" else "fp32")
    return Bench(
        models=models,
        side=side,
        batch=args.batch,
        device=device,
        precision=precision,
        workers=workers_for(args.workers, device, 1),
        runs=args.runs,
        warmup=args.warmup,
        peers=args.peers,
        quiet=args.quiet,
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = parse_arguments(words)
    bench = bench_of(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with one_document(args.json) as document:
        rows = measure(bench)
        machine = describe_machine() | {"threads": torch.get_num_threads()}
        document.update(
            machine=machine,
            versions=describe_versions(),
            device=bench.device,
            precision=bench.precision,
            workers=bench.workers,
            recipe=RECIPE,
            results=rows,
        )
    if not args.json:
        _print_table(rows, machine, describe_versions(), bench)


def _print_table(rows: list[dict[str, Any]], machine: dict[str, Any], versions: dict[str, str], bench: Bench) -> None:
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    title = f"{where}{gpu}; {bench.device} {bench.precision}; training, random weights, medians, milliseconds"
    table = Table(title=title, title_justify="left")
    numbers = ("operators of the criterion", "host waits", "hours a COCO epoch", "hours the recipe")
    heads = ("model", "input", "batch", "pictures/s", "data wait", *PARTS, "step", *numbers)
    for head in heads:
        table.add_column(head, justify="left" if head == "model" else "right")
    for row in rows:
        times = (row[f"{part}_ms"] for part in ("data_wait", *PARTS, "step"))
        counts = (row["criterion_operators"], row["host_syncs"], row["coco_epoch_hours"], row["recipe_hours"])
        cells = ("-" if value is None else f"{value:,}" for value in counts)
        sizes = (str(row["imgsz"]), str(row["batch"]), f"{row['pictures_per_s']:.2f}")
        table.add_row(row["model"], *sizes, *(f"{ms:.1f}" for ms in times), *cells)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    console.print(f"{machine['date']}, {machine['system']}, Python {machine['python']}; {said}", soft_wrap=True)


if __name__ == "__main__":
    edge.run(main)
