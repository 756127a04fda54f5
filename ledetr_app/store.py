"""The one place where the state is replaced, and where errors and good news become part of it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledetr.chain.pipeline import Result
from ledetr.errors import LeDetrError
from ledetr_app.model_loader import NoWeightsHere
from ledetr_app.state import Problem, SessionState, Toast


class Store:
    """state: replaced whole, from any thread, read by anyone without a lock. shown: the result on the screen.

    on_change is called from any thread when the state is a newer one; it must return at once.
    """

    def __init__(self, state: SessionState) -> None:
        self.state = state
        self.shown: Result | None = None
        self.on_change: Callable[[], None] = nothing
        self._lock = threading.Lock()
        self._serial = 0

    def change(self, **changes: Any) -> None:
        """Replace fields of the state; silent where they are the same."""
        with self._lock:
            new = replace(self.state, **changes)
            if new == self.state:
                return
            self.state = new
        self.on_change()

    def report(self, error: BaseException) -> None:
        """Show an error; the one way in for every thread."""
        self.change(problem=problem_of(error))

    def toast(self, text: str, path: Path | None) -> None:
        """Good news for a few seconds. path: the file that it speaks of."""
        with self._lock:
            self._serial += 1
            serial = self._serial
        self.change(toast=Toast(text, path, serial))

    @property
    def source_name(self) -> str:
        """What is open, as a part of file names."""
        source = self.state.source
        return "picture" if source is None else source.display_name


def problem_of(error: BaseException) -> Problem:
    """One sentence and its details. Our own errors are sentences already; any other is a fault of ours and says so."""
    if isinstance(error, NoWeightsHere):
        return Problem(f"{error}.", gentle=True)
    details = "".join(traceback.format_exception(error))
    if isinstance(error, LeDetrError):
        sentence = str(error).rstrip(".")
        return Problem(sentence[:1].upper() + sentence[1:] + ".", details)
    return Problem(f"Something went wrong inside Le-DETR ({type(error).__name__}): {error}", details)


def nothing() -> None:
    """Nobody listens yet, or no more."""
