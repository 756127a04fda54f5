"""The processes of a run: one, several that are started here, or those that torchrun started; and how they stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from ledetr.errors import BackendUnavailable, LeDetrError, OutputError
from training.checkpoint import Checkpoints
from training.distributed import Team, join_team, leave_team, torchrun_place


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a run stands."""

    step: int
    total: int
    interrupted: bool
    in_vain: bool = False
    """It was ended early because it got no better."""

    @property
    def ended(self) -> bool:
        """Whether no steps are left to make."""
        return self.in_vain or self.step >= self.total


class Dealt(Protocol):
    """What a run must say so that it can be dealt out to processes."""

    @property
    def folder(self) -> Path: ...
    @property
    def total(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def processes(self) -> int: ...
    @property
    def threads(self) -> int | None: ...


AnyJob = TypeVar("AnyJob", bound=Dealt)


def launch(job: AnyJob, work: Callable[[int, AnyJob], Outcome]) -> Outcome:
    """All processes of the run, each doing its work, to its end or to its interruption."""
    if job.processes == 1 or torchrun_place() is not None:
        return work(0, job)
    (job.folder / "meeting").unlink(missing_ok=True)
    context = spawn(work, (job,), job.processes, join=False)
    assert context is not None
    interrupted = False

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if number == signal.SIGTERM:  # Ctrl-C reaches the whole group by itself
            for process in context.processes:
                process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not context.join():
            pass
    except ProcessRaisedException as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        raise LeDetrError(last.split(": ", 1)[-1]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    last_checkpoint = Checkpoints(job.folder / "checkpoints").last()
    step = last_checkpoint.step if last_checkpoint else 0
    return Outcome(step=step, total=job.total, interrupted=interrupted)


@contextmanager
def in_team(rank: int, job: Dealt) -> Iterator[tuple[Team, threading.Event]]:
    """One process's place in the run while it works, and what is set when it shall stop."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    team = join_team(job.device, rank=rank, world=job.processes, meeting=job.folder / "meeting")
    try:
        with stop_on_signals() as stop:
            yield team, stop
    finally:
        leave_team(team)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C or a polite kill; a second one acts as it would without us."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_first() -> bool:
    """Whether this process speaks and writes for all that torchrun started; True where it started none."""
    place = torchrun_place()
    return place is None or place.rank == 0


def processes_of(asked: int) -> int:
    """How many processes train: as many as torchrun started, else as many as were asked for."""
    place = torchrun_place()
    return asked if place is None else place.world


def make_folder(folder: Path) -> None:
    """The run's folder and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the run's folder {str(folder)!r} cannot be made: {error.strerror}") from error


def device_named(asked: str) -> str:
    """The device to train on; BackendUnavailable rather than another one."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("--device cuda was asked for, but torch finds no CUDA device; ledetr doctor says why")
    return asked


def workers_for(asked: int | None, device: str, processes: int) -> int:
    """On a CPU the training itself needs the cores; beside a GPU they are free."""
    if asked is not None:
        return asked
    return max(1, min(16, (os.cpu_count() or 2) - 1) // processes) if device == "cuda" else 0
