"""Time as an object, so that a test can own it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in nanoseconds. Wall time is never taken from it."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary origin; never goes back."""
        ...

    def sleep_until(self, t_ns: int, stop: threading.Event) -> bool:
        """Wait until now_ns() >= t_ns; False at once when stop is set first."""
        ...


class MonotonicClock:
    """The clock of the machine."""

    def now_ns(self) -> int:
        """Nanoseconds of the machine's monotonic clock."""
        return time.monotonic_ns()

    def sleep_until(self, t_ns: int, stop: threading.Event) -> bool:
        """Wait until now_ns() >= t_ns; False at once when stop is set first."""
        while (left_ns := t_ns - self.now_ns()) > 0:
            if stop.wait(left_ns / 1e9):
                return False
        return not stop.is_set()


class FakeClock:
    """A clock that stands still until it is advanced; sleepers in other threads wake when their time has come."""

    # A stop event that another thread sets cannot wake a sleeper by itself; it is looked at this often (real seconds).
    _STOP_POLL_S = 0.005

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._changed = threading.Condition()
        self._sleepers: dict[int, tuple[str, int]] = {}

    def now_ns(self) -> int:
        """The time it was last advanced to."""
        with self._changed:
            return self._now_ns

    def advance(self, ns: int) -> None:
        """Move on by ns (>= 0) and wake those whose time has come."""
        if ns < 0:
            raise ValueError(f"a clock cannot go back, got {ns} ns")
        with self._changed:
            self._now_ns += ns
            self._changed.notify_all()

    def sleepers(self) -> dict[str, int]:
        """Thread name to the time it sleeps until, of those whose time has not come yet."""
        with self._changed:
            return {name: until for name, until in self._sleepers.values() if until > self._now_ns}

    def sleep_until(self, t_ns: int, stop: threading.Event) -> bool:
        """Wait until the clock was advanced to t_ns; False when stop is set first."""
        thread = threading.current_thread()
        with self._changed:
            self._sleepers[id(thread)] = (thread.name, t_ns)
            try:
                while self._now_ns < t_ns and not stop.is_set():
                    self._changed.wait(self._STOP_POLL_S)
            finally:
                del self._sleepers[id(thread)]
        return not stop.is_set()
