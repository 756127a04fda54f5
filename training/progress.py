"""How far a run is, for people: a bar on a terminal, one plain line at each report elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class RunProgress:
    """Reports go to stderr. quiet: nothing is said."""

    def __init__(self, total: int, first: int, *, quiet: bool = False) -> None:
        self.total, self.quiet, self.ap = total, quiet, ""
        self._said = 0.0
        self._bar: Progress | None = None
        if not quiet and sys.stderr.isatty():
            columns = (
                TextColumn("steps"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=total, completed=first)
            self._bar.start()

    def step(self, done: int) -> None:
        """So many steps are made."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def report(self, done: int, loss: float, pictures_per_s: float, left_s: float) -> None:
        """The figures since the last report."""
        words = f"loss {loss:.3f}  {pictures_per_s:.1f} pictures/s{self.ap}"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=words)
        elif not self.quiet and (time.monotonic() - self._said > SECONDS_BETWEEN_LINES or done == self.total):
            self._said = time.monotonic()
            sys.stderr.write(f"step {done} of {self.total}  {words}  {left_s / 60:.0f} min left\n")

    def judged(self, done: int, ap: float, ap50: float) -> None:
        """Average precision on the tune split, 0..1."""
        self.ap = f"  AP {100 * ap:.1f}"
        self.note(f"step {done} of {self.total}  AP {100 * ap:.1f}, AP50 {100 * ap50:.1f} on the tune split")

    def note(self, words: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(words)
        elif not self.quiet:
            sys.stderr.write(f"{words}\n")

    def __enter__(self) -> "RunProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
