"""While `ledetr detect` runs: how far it is, on stderr, and what Ctrl-C does."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ledetr.chain.video import VideoProgress

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def stop_on_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or a request to terminate) sets; the second Ctrl-C interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        sys.stderr.write("\nStopping at this picture; Ctrl-C again leaves at once.\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown_progress(name: str, *, quiet: bool) -> Iterator[Callable[[VideoProgress], None]]:
    """One bar on a terminal, one plain line each ten seconds elsewhere, nothing where quiet; on stderr."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[fps]:.1f} fps"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task: TaskID = bar.add_task(name, total=None, fps=0.0)
            yield lambda p: bar.update(task, completed=p.frames, total=p.total and max(p.total, p.frames), fps=p.fps)
    else:
        yield _plain_lines(name)


def _plain_lines(name: str) -> Callable[[VideoProgress], None]:
    said_s = time.monotonic()

    def show(progress: VideoProgress) -> None:
        nonlocal said_s
        if time.monotonic() - said_s < _SECONDS_BETWEEN_LINES:
            return
        said_s = time.monotonic()
        of = "" if progress.total is None else f" of {progress.total}"
        left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
        sys.stderr.write(f"{name}: {progress.frames}{of} pictures, {progress.fps:.1f} fps end to end{left}\n")
        sys.stderr.flush()

    return show
