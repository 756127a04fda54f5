"""ledetr-app: make the session, open the window."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication

import ledetr
from ledetr_app.session import Session
from ledetr_app.settings import settings_path
from ledetr_app.ui.theme import CHOICES, Theme
from ledetr_app.ui.window import Window

log = logging.getLogger("ledetr_app")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the window until it is closed; the exit code."""
    options = _options(argv)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    qInstallMessageHandler(_log_qt_message)
    app = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(app, QApplication)
    app.setApplicationName("Le-DETR")
    app.setApplicationVersion(ledetr.__version__)
    app.setDesktopFileName("ledetr")
    session = Session(
        settings_file=None if options.safe else settings_path(),
        random_weights=options.random_weights,
        pictures=options.output,
        videos=options.output,
    )
    if options.theme is not None:
        session.set_theme(options.theme)
    window = Window(session, Theme(app, session.state.theme))
    window.show()
    # The window is on the screen before the model and the source begin to load.
    session.start(model=options.model, source=options.source)
    code = app.exec()
    left_behind = session.close()
    if left_behind:
        log.warning("did not end in time and were left behind: %s", ", ".join(left_behind))
    return code


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ledetr-app", description="Real-time object detection in a window.")
    parser.add_argument("source", nargs="?", help="file, folder, address, camera:0, screen:0 or test:720p30")
    parser.add_argument("-m", "--model", help="n, m, l, x or a weights file (default: the last one used, else n)")
    parser.add_argument("--theme", choices=CHOICES, help="colours (default: as chosen before, else the system's)")
    parser.add_argument("--safe", action="store_true", help="neither read nor write settings")
    parser.add_argument("--random-weights", action="store_true", help="let a scale without weights run untrained")
    parser.add_argument("--output", type=Path, help="folder for snapshots and recordings (default: the user's own)")
    parser.add_argument("--version", action="version", version=f"Le-DETR {ledetr.__version__}")
    return parser.parse_args(argv)


def _log_qt_message(kind: QtMsgType, context: QMessageLogContext, message: str) -> None:
    level = logging.WARNING if kind is QtMsgType.QtWarningMsg else logging.ERROR
    if kind in (QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg):
        level = logging.DEBUG
    log.log(level, "%s", message)


if __name__ == "__main__":
    sys.exit(main())
