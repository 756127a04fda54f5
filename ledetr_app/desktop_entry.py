"""The entry in the menu of a Linux desktop: `ledetr gui --install-desktop`, and its way back.

Everything goes below the user's own data folder, by the rules of freedesktop.org: the entry with the kinds of files
that can be opened with it, the icon in each size, and the name of the kind of our weights files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ledetr.chain.output_files import output_error
from ledetr.errors import UsageError
from ledetr.files import whole_file
from ledetr_app.resources import asset

ICON_SIZES = (16, 22, 24, 32, 48, 64, 128, 256, 512)
_RESERVED = frozenset(" \t\n\"'\\><~|&;$*?#()`")
_REFRESH_LIMIT_S = 30


def data_home() -> Path:
    """Where the user's own entries live: XDG_DATA_HOME, else ~/.local/share."""
    named = os.environ.get("XDG_DATA_HOME", "")
    return Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "share"


def install(home: Path | None = None, *, python: str = sys.executable) -> list[Path]:
    """Write entry, icons and kinds of files below home (default: data_home()); what was written.

    python: the interpreter that has Le-DETR; the entry starts the window with it, wherever it is started from. All
    files are written or none: what an earlier installation left is replaced whole. Raises UsageError where this is no
    Linux, OutputError where the folder does not take them.
    """
    _only_on_linux()
    home = home or data_home()
    made = []
    try:
        for path, content in _contents(home, python).items():
            new = not path.exists()
            _write(path, content)
            if new:
                made.append(path)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise output_error(home, error) from error
    _refresh(home)
    return list(_contents(home, python))


def uninstall(home: Path | None = None) -> list[Path]:
    """Take away what install() wrote; what was there. Raises UsageError, OutputError."""
    _only_on_linux()
    home = home or data_home()
    there = [path for path in _contents(home, sys.executable) if path.exists()]
    try:
        for path in there:
            path.unlink()
    except OSError as error:
        raise output_error(home, error) from error
    _refresh(home)
    return there


def entry_text(python: str) -> str:
    """The entry, with the command written out for this interpreter; the kept one says `ledetr gui`."""
    start = f"{_quoted(python)} -m ledetr_app"
    lines = asset("linux/ledetr.desktop").read_text(encoding="utf-8").splitlines()
    lines = [line.replace("Exec=ledetr gui", f"Exec={_escaped(start)}", 1) for line in lines]
    return "\n".join(f"TryExec={_escaped(python)}" if line == "TryExec=ledetr" else line for line in lines) + "\n"


def _contents(home: Path, python: str) -> dict[Path, bytes]:
    icons = home / "icons" / "hicolor"
    return {
        home / "mime" / "packages" / "ledetr-mime.xml": asset("linux/ledetr-mime.xml").read_bytes(),
        icons / "scalable" / "apps" / "ledetr.svg": asset("icons/app.svg").read_bytes(),
        **{
            icons / f"{size}x{size}" / "apps" / "ledetr.png": asset(f"linux/icons/{size}.png").read_bytes()
            for size in ICON_SIZES
        },
        # Last, so that a menu never shows an entry whose icon is still missing.
        home / "applications" / "ledetr.desktop": entry_text(python).encode(),
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(content)


def _refresh(home: Path) -> None:
    """Let the desktop notice at once, with its own tools where they are there; without them it notices later."""
    commands: Sequence[tuple[str, Path]] = (
        ("update-mime-database", home / "mime"),
        ("update-desktop-database", home / "applications"),
    )
    for command, folder in commands:
        if shutil.which(command) and folder.is_dir():
            subprocess.run([command, str(folder)], capture_output=True, timeout=_REFRESH_LIMIT_S, check=False)


def _quoted(word: str) -> str:
    """A word of the key Exec: in quotes where it needs them, and % doubled, as it names what is opened."""
    word = word.replace("%", "%%")
    if not _RESERVED & set(word):
        return word
    for letter in '\\"`$':
        word = word.replace(letter, f"\\{letter}")
    return f'"{word}"'


def _escaped(value: str) -> str:
    """A value of any key: a backslash is written as two."""
    return value.replace("\\", "\\\\")


def _only_on_linux() -> None:
    if not sys.platform.startswith("linux"):
        raise UsageError("Menu entries of this kind are for Linux desktops; here, make a shortcut to ledetr-app.")
