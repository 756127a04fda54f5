"""Work in a child process with limits, so that a crash in a library, a hang and a bomb break nothing else."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

MEBIBYTE = 1 << 20
_BUSY = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """value: what the work gave; None where the child ended or hung. died: how, in words, or "".

    seconds: of the wall clock. cpu_s: of the child's processors. extra_bytes: how far its memory rose above where it
    was before.
    """

    value: Any
    died: str
    seconds: float
    cpu_s: float
    extra_bytes: int


class Child:
    """A process that does one thing after another; it is started again after it died. A context manager.

    prepare: called once in a new child; what it gives is the function that works on each item. Both must be importable.
    room_bytes: how much address space it may take beyond what it has after prepare. hang_s: the most that one item may
    take of the processor; of the clock eight times as much, since the machine may be busy.
    """

    def __init__(self, prepare: Callable[[], Callable[[Any], Any]], *, room_bytes: int, hang_s: float) -> None:
        self._prepare = prepare
        self._room_bytes = room_bytes
        self._hang_s = hang_s
        self._process: Any = None
        self.starts = 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, item: Any) -> Answer:
        """Do one thing."""
        self.start()
        began_s = time.perf_counter()
        self._here.send(item)
        if not self._answers(began_s):
            self._end()
            return Answer(None, f"hung for {self._hang_s:g} s", time.perf_counter() - began_s, 0.0, 0)
        try:
            value, cpu_s, extra_bytes = self._here.recv()
        except EOFError:
            self._process.join(10)
            died = _cause(self._process.exitcode)
            self._process = None
            return Answer(None, died, time.perf_counter() - began_s, 0.0, 0)
        return Answer(value, "", time.perf_counter() - began_s, cpu_s, extra_bytes)

    def _answers(self, began_s: float) -> bool:
        """Whether something comes before it is taken to hang."""
        process = psutil.Process(self._process.pid)
        before_s = _cpu_s(process)
        while not self._here.poll(self._hang_s / 4):
            waited_s = time.perf_counter() - began_s
            if _cpu_s(process) - before_s > self._hang_s or waited_s > _BUSY * self._hang_s:
                return False
        return True

    def start(self) -> None:
        """Begin, where it does not run; what is measured later is then without it."""
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, self._prepare, self._room_bytes), daemon=True)
        self._process.start()
        self.starts += 1
        there.close()
        if not self._here.poll(600):
            raise TimeoutError("the child did not get ready")
        self._here.recv()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._process = None


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has just died, which the pipe tells
        return 0.0
    return float(times.user + times.system)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"died of {signal.Signals(-exit_code).name}"
    return f"ended with code {exit_code}"


def _work(pipe: Connection, prepare: Callable[[], Callable[[Any], Any]], room_bytes: int) -> None:
    work = prepare()
    if sys.platform == "linux":
        limit = _status_bytes("VmSize") + room_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        before, cpu_s = _begin_peak(), time.process_time()
        value = work(item)
        pipe.send((value, time.process_time() - cpu_s, max(0, _peak() - before)))


def _begin_peak() -> int:
    """Forget the highest memory so far; gives what is in use now."""
    if sys.platform != "linux":
        return _peak()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not permitted here: then the highest of the process's whole life is compared
        return _status_bytes("VmHWM")
    return _status_bytes("VmRSS")


def _peak() -> int:
    if sys.platform == "linux":
        return _status_bytes("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def quiet_libraries() -> None:
    """What C libraries say goes nowhere; to be called in prepare."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
