"""Progress of a counted job on stderr: one bar on a terminal, one plain line each ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def counted(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A function to call with how many of `total` are done; `what` names them in the plural."""
    if quiet:
        yield lambda done: None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield _plain_lines(what, total)


def _plain_lines(what: str, total: int) -> Callable[[int], None]:
    started = said = time.monotonic()

    def progress(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < _SECONDS_BETWEEN_LINES and done < total:
            return
        said = now
        left_s = (now - started) / done * (total - done) if done else float("nan")
        sys.stderr.write(f"{done} of {total} {what}, {left_s:.0f} s left\n")

    return progress
