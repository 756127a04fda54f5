"""How far a job is, on stderr: a bar on a terminal, else one plain line each ten seconds; nothing where quiet."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class Show(Protocol):
    """Says that so many are done; total, rate and time left where they are known."""

    def __call__(self, done: int, total: int | None, seconds_left: float | None, fps: float | None = None) -> None: ...


@contextmanager
def shown_progress(name: str, *, unit: str, quiet: bool, rate_unit: str | None = None) -> Iterator[Show]:
    """A function to call with each step. name: of the job, "" for none; unit: what is counted, in the plural.

    rate_unit: what the rate is of; default frames a second.
    """
    if quiet:
        yield lambda done, total, seconds_left, fps=None: None
    elif sys.stderr.isatty():
        # A name is outside text, in which brackets are no markup.
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name or unit, total=None, rate="")
            yield lambda done, total, seconds_left, fps=None: bar.update(
                task,
                completed=done,
                total=total and max(total, done),
                rate="" if fps is None else f"{fps:.1f} {rate_unit or 'fps'}",
            )
    else:
        yield _plain_lines(f"{name}: " if name else "", unit, rate_unit or "fps end to end")


@contextmanager
def counted(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A function to call with how many of `total` are done; `what` names them in the plural."""
    started_s = time.monotonic()
    with shown_progress("", unit=what, quiet=quiet) as show:
        yield lambda done: show(done, total, (time.monotonic() - started_s) / done * (total - done) if done else None)


def _plain_lines(name: str, unit: str, rate_unit: str) -> Show:
    said_s = time.monotonic()

    def show(done: int, total: int | None, seconds_left: float | None, fps: float | None = None) -> None:
        nonlocal said_s
        if time.monotonic() - said_s < _SECONDS_BETWEEN_LINES:
            return
        said_s = time.monotonic()
        of = "" if total is None else f" of {total}"
        rate = "" if fps is None else f", {fps:.1f} {rate_unit}"
        left = "" if seconds_left is None else f", {seconds_left:.0f} s left"
        sys.stderr.write(f"{name}{done}{of} {unit}{rate}{left}\n")
        sys.stderr.flush()

    return show
