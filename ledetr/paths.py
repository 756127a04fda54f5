"""A file's name as it can be shown, and whether the file can be read, in one sentence."""

import os
import re
import stat
from pathlib import Path

from ledetr.errors import SourceError


def printable(name: str) -> str:
    """A file name as it can be shown and logged: bytes that are no UTF-8, and control characters, become U+FFFD."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def check_regular_file(path: Path) -> None:
    """Raises SourceError with the reason where path is not a readable file with something in it."""
    name = printable(path.name or str(path))
    try:
        status = path.stat()
    except FileNotFoundError:
        raise SourceError(
            f"Cannot open {name!r}: there is no such file; check the path {printable(str(path))}."
        ) from None
    except OSError as error:
        raise SourceError(f"Cannot open {name!r}: {error.strerror or error}.") from None
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"Cannot open {name!r}: it is a folder, and a file was expected.")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"Cannot open {name!r}: it is not an ordinary file but a device or pipe.")
    if status.st_size == 0:
        raise SourceError(f"Cannot open {name!r}: the file is empty (0 bytes).")
    if not os.access(path, os.R_OK):
        raise SourceError(f"Cannot open {name!r}: reading it is not permitted; check its permissions.")
