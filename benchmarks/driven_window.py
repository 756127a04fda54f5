"""The real window, driven by a program: what window_lateness.py, screenshots.py and record_window.py have in common."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication

from ledetr_app.__main__ import SWITCH_INTERVAL_S
from ledetr_app.session import Session
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.window import Window

LOAD_LIMIT_S = 900.0
OPEN_LIMIT_S = 120.0
LOOK_MS = 20


class DrivenWindow:
    """Session, window and the event loop, from a program that runs straight on. theme: as in Settings."""

    def __init__(self, *, theme: str = "light", **of_session: Any) -> None:
        app = QApplication.instance() or QApplication(sys.argv[:1])
        assert isinstance(app, QApplication)
        sys.setswitchinterval(SWITCH_INTERVAL_S)  # as the program itself does
        self.app = app
        self.session = Session(**of_session)
        self.session.set_theme(theme)
        self.window = Window(self.session, Theme(app, theme))
        self.window.show()

    def wait(self, condition: Callable[[], object], limit_s: float, *, must: bool = True) -> None:
        """Let the window live until the condition holds; an error after limit_s, or nothing where it need not hold."""
        loop, timer, end_s = QEventLoop(), QTimer(), time.perf_counter() + limit_s
        timer.timeout.connect(lambda: loop.quit() if condition() or time.perf_counter() > end_s else None)
        timer.start(LOOK_MS)
        loop.exec()
        if must and not condition():
            raise SystemExit(f"it did not happen within {limit_s:.0f} s; the window says: {self.session.state.problem}")

    def live(self, seconds: float) -> None:
        """Let the window live."""
        self.wait(lambda: False, seconds, must=False)

    def use(self, model: str) -> None:
        """Switch to a model and wait until it runs."""
        self.session.set_model(model)
        self.wait(lambda: self.session.state.loading is None and self.session.state.running, LOAD_LIMIT_S)

    def open(self, source: str | Path) -> None:
        """Open a source and wait for its first picture."""
        self.session.open_source(source)
        self.wait(lambda: self.session.state.source and not self.session.state.opening, OPEN_LIMIT_S)
        self.wait(lambda: self.session.shown, OPEN_LIMIT_S)

    def hold_at(self, pts_s: float) -> None:
        """Hold the open file at the picture of that time, with its boxes."""
        session = self.session
        session.pause()
        session.seek(pts_s)

        def there() -> bool:
            shown = session.shown
            at = shown is not None and -0.01 < shown.frame.meta.pts_s - pts_s < 1
            return at and shown is not None and bool(shown.detections.model_id)

        self.wait(there, OPEN_LIMIT_S)

    def close(self) -> None:
        """End everything."""
        self.window.close()
        self.session.close()
