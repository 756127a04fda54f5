"""A thread that does one thing after the other, so that the window never waits for a disk or a device."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Worker:
    """Runs submitted calls in order. What they raise goes to on_error; nothing is swallowed."""

    def __init__(self, name: str, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._calls: deque[tuple[str | None, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None], *, newest_of: str | None = None) -> None:
        """Queue a call. Of waiting calls with the same newest_of only the newest is run, e.g. while a slider moves."""
        with self._changed:
            if newest_of is not None and self._calls and self._calls[-1][0] == newest_of:
                self._calls.pop()
            self._calls.append((newest_of, call))
            self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Run what is waiting, then end; False when that took longer than timeout_s and the thread was left behind."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._closing)
                if not self._calls:
                    return
                _, call = self._calls.popleft()
            try:
                call()
            except Exception as error:  # the edge of this thread: every error reaches the one place that shows it
                self._on_error(error)
