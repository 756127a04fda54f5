"""A source behind a thread of its own, so that a driver or network call that hangs can be left to itself.

FFmpeg's own limits should end a call in time; they do not cover name look-ups, drivers and bugs. This one does: every
call has a deadline, cancel ends the wait at once, and what hangs is orphaned: its thread closes the source when the
call comes back, if ever.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ledetr.chain.sources import FrameSource, SourceInfo, SourceLost
from ledetr.frame import Frame

T = TypeVar("T")


class Cancelled(Exception):
    """The wait was ended by cancel; not an error of the source."""


class Overdue(SourceLost):
    """The source did not answer before its deadline."""


class _Call(Generic[T]):
    def __init__(self, run: Callable[[], T]) -> None:
        self.run = run
        self.finished = False
        self.value: T | None = None
        self.error: BaseException | None = None


class GuardedSource:
    """open, read, seek and close of one source, each with a deadline in real seconds; called from one thread."""

    def __init__(self, open_it: Callable[[], FrameSource], display_name: str) -> None:
        self._open_it = open_it
        self._name = display_name
        self._source: FrameSource | None = None
        self._changed = threading.Condition()
        self._calls: deque[_Call[object]] = deque()
        self._cancelled = False
        self._abandoned = False
        self._ending = False
        self.thread = threading.Thread(target=self._work, name=f"source {display_name}", daemon=True)

    def open(self, deadline_s: float) -> SourceInfo:
        """Open it; raises SourceError, Overdue or Cancelled."""
        self.thread.start()
        return self._ask(self._do_open, deadline_s, f"{self._name!r} did not answer within {deadline_s:g} s.")

    def read(self, deadline_s: float, skip_to_s: float | None = None) -> Frame | None:
        """See FrameSource.read; raises SourceError, Overdue or Cancelled."""
        return self._ask(
            lambda: self._do_read(skip_to_s), deadline_s, f"{self._name!r} sent no picture for {deadline_s:g} s."
        )

    def seek(self, pts_s: float, deadline_s: float) -> None:
        """See FrameSource.seek."""
        self._ask(lambda: self._do_seek(pts_s), deadline_s, f"Seeking in {self._name!r} took over {deadline_s:g} s.")

    @property
    def damaged(self) -> int:
        """Pictures so far that came damaged or too late; 0 for a source that cannot tell."""
        return int(getattr(self._source, "damaged", 0))

    def cancel(self) -> None:
        """From any thread: end the wait of the caller with Cancelled, now and for all later calls."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
        if self._source is not None:
            self._source.interrupt()

    def close(self) -> None:
        """Have the source closed by its own thread as soon as that is free; returns at once, see join."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._source is not None:
            self._source.interrupt()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; False where it hangs."""
        if self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join(max(0.0, timeout_s))
        return not self.thread.is_alive()

    def _ask(self, run: Callable[[], T], deadline_s: float, overdue: str) -> T:
        call = _Call(run)
        with self._changed:
            if self._abandoned:
                raise Overdue(overdue)
            self._calls.append(call)  # type: ignore[arg-type]  # only run, value and error of it are used
            self._changed.notify_all()
            self._changed.wait_for(lambda: call.finished or self._cancelled, deadline_s)
            if self._cancelled:
                raise Cancelled
            if not call.finished:
                self._abandoned = True
                raise Overdue(overdue)
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[return-value]  # finished without error, so it holds what run gave

    def _work(self) -> None:
        while (call := self._next_call()) is not None:
            try:
                call.value = call.run()
            except BaseException as error:  # carried to the caller, who raises it
                call.error = error
            with self._changed:
                call.finished = True
                self._changed.notify_all()
        if self._source is not None:
            self._source.close()

    def _next_call(self) -> _Call[object] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._ending)
            return None if self._ending else self._calls.popleft()

    def _do_open(self) -> SourceInfo:
        self._source = self._open_it()
        return self._source.info

    def _do_read(self, skip_to_s: float | None) -> Frame | None:
        assert self._source is not None  # open comes first
        return self._source.read(skip_to_s)

    def _do_seek(self, pts_s: float) -> None:
        assert self._source is not None  # open comes first
        self._source.seek(pts_s)


def join_all(threads: list[threading.Thread], limit_s: float) -> list[threading.Thread]:
    """Wait for the threads, limit_s together; those that still run. The calling thread itself is not waited for."""
    end = time.monotonic() + limit_s
    for thread in threads:
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join(max(0.0, end - time.monotonic()))
    return [thread for thread in threads if thread.is_alive() and thread is not threading.current_thread()]
