"""Seeks one after the other, always to the newest wish, so that a drag shows pictures on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Seeks:
    """Holds a wish back until the picture of the seek before it is there; of wishes held back only the newest counts.

    Without this a drag would throw away every picture before the detector is done with it. go: begins a seek to a
    time in seconds; it must return at once and not call back.
    """

    def __init__(self, go: Callable[[float], None]) -> None:
        self._go = go
        self._lock = threading.Lock()
        self._held: float | None = None
        self._newest = 0.0
        self._before: int | None = (
            None  # epoch of the picture that was there when the seek began; None: none is going on
        )

    @property
    def target_s(self) -> float | None:
        """Where the seek that is going on, and the wishes after it, will lead; None: none is going on."""
        with self._lock:
            return None if self._before is None else self._newest

    def want(self, pts_s: float, epoch: int) -> None:
        """Seek now or as soon as it makes sense. epoch: of the newest picture."""
        with self._lock:
            self._newest = pts_s
            if self._before is not None:
                self._held = pts_s
                return
            self._before = epoch
        self._go(pts_s)

    def arrived(self, epoch: int) -> None:
        """A picture of this epoch is there."""
        with self._lock:
            if self._before is None or epoch <= self._before:
                return
            held, self._held = self._held, None
            self._before = None if held is None else epoch
        if held is not None:
            self._go(held)

    def over(self, *, forget: bool) -> None:
        """No picture will come of the seek that is going on. forget: nor is what was wished after it of use."""
        with self._lock:
            held, self._held = None if forget else self._held, None
            self._before = None
        if held is not None:
            self._go(held)
