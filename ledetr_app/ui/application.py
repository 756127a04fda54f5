"""The Qt application around one window."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication

import ledetr
from ledetr_app.session import Session
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.window import Window

log = logging.getLogger("ledetr_app")


def show_window(session: Session, begin: Callable[[], None]) -> int:
    """Run the window until it is closed; its exit code. begin is called once the window is on the screen."""
    qInstallMessageHandler(_log_qt_message)
    app = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(app, QApplication)
    app.setApplicationName("Le-DETR")
    app.setApplicationVersion(ledetr.__version__)
    app.setDesktopFileName("ledetr")
    window = Window(session, Theme(app, session.state.theme))
    window.show()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C in the terminal and the end of the desktop session close the window as its button does. Python looks
        # for signals between two of its own instructions, which the timer of the status bar gives it twice a second.
        signal.signal(number, lambda *_: window.close())
    begin()
    return app.exec()


def _log_qt_message(kind: QtMsgType, _context: QMessageLogContext, message: str) -> None:
    level = logging.WARNING if kind is QtMsgType.QtWarningMsg else logging.ERROR
    if kind in (QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg):
        level = logging.DEBUG
    log.log(level, "%s", message)
