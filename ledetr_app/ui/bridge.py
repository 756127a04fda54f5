"""From other threads to the window: at most one pending signal, and nothing in it.

Whatever happens elsewhere (a picture is ready, the state changed) sets a flag and wakes the GUI thread once. The slot
clears the flag first and then looks what is newest, so the event queue cannot grow however slow painting is.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from PySide6.QtCore import QObject, Qt, Signal

from ledetr_app.prep import DisplayPrep
from ledetr_app.session import Session


class Bridge(QObject):
    """woken: emitted in the GUI thread when there is something newer in session.state or prep.picture."""

    woken = Signal()
    _wake = Signal()

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lock = threading.Lock()
        self._pending = False
        self._closed = False
        self._sent = 0
        self._seen = 0
        self.most_pending = 0
        self._session = session
        self._wake.connect(self._on_wake, Qt.ConnectionType.QueuedConnection)
        self.prep = DisplayPrep(session.latest, self.poke)
        session.on_result = self.prep.poke
        session.on_change = self.poke
        self._hooks = sys.excepthook, threading.excepthook
        sys.excepthook = self._on_exception
        threading.excepthook = self._on_thread_exception

    def poke(self) -> None:
        """There is something newer. Any thread; returns at once."""
        with self._lock:
            if self._pending or self._closed:
                return
            self._pending = True
            self._sent += 1
            self.most_pending = max(self.most_pending, self._sent - self._seen)
            # Inside the lock, so that close() cannot let Qt delete this object between the check and the emit.
            self._wake.emit()

    def close(self) -> bool:
        """Listen no more and end display prep; False when its thread was left behind."""
        self._session.on_result = self._session.on_change = _nothing
        with self._lock:
            self._closed = True
        sys.excepthook, threading.excepthook = self._hooks
        return self.prep.close()

    def _on_wake(self) -> None:
        with self._lock:
            self._pending = False
            self._seen += 1
            if self._closed:
                return
        self.woken.emit()

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Exceptions in slots reach the same bar as all others, and the terminal."""
        self._hooks[0](kind, error, trace)
        if isinstance(error, Exception):
            self._session.report(error)

    def _on_thread_exception(self, args: threading.ExceptHookArgs) -> None:
        self._hooks[1](args)
        if isinstance(args.exc_value, Exception):
            self._session.report(args.exc_value)


def _nothing() -> None:
    """The window is closed."""
