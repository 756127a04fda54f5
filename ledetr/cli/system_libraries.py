"""Which shared libraries Qt needs from a Linux system, and the Debian package that has each.

Only the standard library is used: the set-up runs this file before anything is installed.
`python system_libraries.py offscreen` (or `window`) prints the Debian packages that are missing, one a line.
"""

import ctypes
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class SystemLibrary:
    """soname: what the loader looks for. package: its name in Debian 12 and Ubuntu."""

    soname: str
    package: str


# Even a window that is never shown needs these.
OFFSCREEN = (
    SystemLibrary("libEGL.so.1", "libegl1"),
    SystemLibrary("libGL.so.1", "libgl1"),
    SystemLibrary("libxkbcommon.so.0", "libxkbcommon0"),
    SystemLibrary("libdbus-1.so.3", "libdbus-1-3"),
    SystemLibrary("libfontconfig.so.1", "libfontconfig1"),
    SystemLibrary("libglib-2.0.so.0", "libglib2.0-0"),
)
# A window on an X display needs these as well.
X_DISPLAY = (
    SystemLibrary("libxcb-cursor.so.0", "libxcb-cursor0"),
    SystemLibrary("libxcb-icccm.so.4", "libxcb-icccm4"),
    SystemLibrary("libxcb-image.so.0", "libxcb-image0"),
    SystemLibrary("libxcb-keysyms.so.1", "libxcb-keysyms1"),
    SystemLibrary("libxcb-render-util.so.0", "libxcb-render-util0"),
    SystemLibrary("libxcb-shape.so.0", "libxcb-shape0"),
    SystemLibrary("libxcb-xkb.so.1", "libxcb-xkb1"),
    SystemLibrary("libxkbcommon-x11.so.0", "libxkbcommon-x11-0"),
)


def missing_libraries(*, window: bool) -> list[SystemLibrary]:
    """Those the loader cannot find; always none on Windows and macOS, where Qt brings its own."""
    if not sys.platform.startswith("linux"):
        return []
    wanted = OFFSCREEN + X_DISPLAY if window else OFFSCREEN
    return [library for library in wanted if not _loads(library.soname)]


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    for library in missing_libraries(window="window" in sys.argv[1:]):
        sys.stdout.write(f"{library.package}\n")
