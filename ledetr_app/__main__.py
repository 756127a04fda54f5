"""ledetr-app: make the session, open the window."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ledetr
from ledetr.errors import LeDetrError
from ledetr_app import desktop_entry
from ledetr_app.export_queue import exports_folder
from ledetr_app.handed import Handed
from ledetr_app.session import Session
from ledetr_app.settings import THEMES, settings_path
from ledetr_app.ui.application import show_window

# Python's lock changes hands after so long, by default 5 ms: with a few busy threads in front of it the window's
# thread then waits for several of these at each picture.
SWITCH_INTERVAL_S = 0.001


def main(argv: Sequence[str] | None = None) -> int:
    """Run the window until it is closed; the exit code."""
    options = _options(argv)
    if options.install_desktop or options.uninstall_desktop:
        return _change_menu(install=options.install_desktop)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    session = Session(
        settings_file=None if options.safe else settings_path(),
        random_weights=options.random_weights,
        pictures=options.output,
        videos=options.output,
        exports=None if options.safe else exports_folder(),
    )
    if options.theme is not None:
        session.set_theme(options.theme)
    handed = Handed.of(options.sources)

    def begin() -> None:
        """The window is on the screen before the model and the source begin to load."""
        session.start(model=options.model or handed.weights)
        session.open_files(handed.sources)

    code = show_window(session, begin=begin)
    left_behind = session.close()
    if left_behind:
        logging.getLogger("ledetr_app").warning("left behind, still busy: %s", ", ".join(left_behind))
        logging.shutdown()
        # Everything of ours is written and closed. A thread inside a driver or an engine would crash Python's own end.
        os._exit(code)
    return code


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ledetr-app", description="Real-time object detection in a window.")
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="source",
        help="file, folder, address, camera:0, screen:0 or test:720p30; several are a queue; weights are the model",
    )
    parser.add_argument(
        "-m", "--model", help="n, m, l, x or a file: .safetensors, .onnx, .xml (default: the last one used, else n)"
    )
    parser.add_argument("--theme", choices=THEMES, help="colours (default: as chosen before, else the system's)")
    parser.add_argument("--safe", action="store_true", help="neither read nor write settings")
    parser.add_argument("--random-weights", action="store_true", help="let a scale without weights run untrained")
    parser.add_argument("--output", type=Path, help="folder for snapshots and recordings (default: the user's own)")
    menu = parser.add_mutually_exclusive_group()
    menu.add_argument("--install-desktop", action="store_true", help="put Le-DETR into the menu of this Linux desktop")
    menu.add_argument("--uninstall-desktop", action="store_true", help="take it out of the menu again")
    parser.add_argument("--version", action="version", version=f"Le-DETR {ledetr.__version__}")
    return parser.parse_args(argv)


def _change_menu(*, install: bool) -> int:
    try:
        paths = desktop_entry.install() if install else desktop_entry.uninstall()
    except LeDetrError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command line's own words
        return error.exit_code
    for path in paths:
        print(path)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
