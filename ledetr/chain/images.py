"""Pictures as a source: one file, a folder, a glob or a list.

Every picture gets one second, so that a folder can be shown; whoever wants them all at once does not pace. In a folder
or list a picture that cannot be read is noted in `unreadable` and left out; a single one is an error.
"""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np

from ledetr.chain.clock import Clock
from ledetr.chain.sources import IMAGE_SUFFIXES, FolderSpec, ImageSpec, ListSpec, SourceInfo
from ledetr.errors import SourceError
from ledetr.frame import Frame, FrameMeta
from ledetr.paths import check_regular_file, printable
from ledetr.pictures import read_picture

_LIST_LIMIT_BYTES = 64 * 1024 * 1024


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key in which frame2 comes before frame10; names that differ in case or zeros only keep a fixed order."""
    parts: list[tuple[int, int | str]] = [
        (0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in re.split(r"(\d+)", text)
    ]
    return [*parts, (2, text)]


def list_images(spec: ImageSpec | FolderSpec | ListSpec) -> list[Path]:
    """The picture files that spec names, in the order in which they come. Raises SourceError where there are none."""
    if isinstance(spec, ImageSpec):
        return [spec.path]
    if isinstance(spec, ListSpec):
        return _listed(spec)
    return _in_folder(spec)


def _in_folder(spec: FolderSpec) -> list[Path]:
    name = spec.display_name
    if not spec.path.is_dir():
        raise SourceError(f"Cannot open {name!r}: there is no folder {printable(str(spec.path))}.")
    try:
        found = [path for path in spec.path.glob(spec.pattern or "*") if path.suffix.lower() in IMAGE_SUFFIXES]
        paths = [path for path in found if path.is_file()]
    except (OSError, ValueError, NotImplementedError) as error:
        raise SourceError(f"Cannot look into {name!r}: {error}.") from None
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"{name!r} holds no pictures ({kinds}).")
    return sorted(paths, key=lambda path: [natural_key(part) for part in path.parts])


def _listed(spec: ListSpec) -> list[Path]:
    check_regular_file(spec.path)
    name = spec.display_name
    if spec.path.stat().st_size > _LIST_LIMIT_BYTES:
        raise SourceError(f"Cannot open {name!r}: a list of pictures may have at most 64 MiB.")
    try:
        lines = spec.path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SourceError(f"Cannot open {name!r}: it is not a text file with one picture a line.") from None
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    paths = [spec.path.parent / entry for entry in entries if "\0" not in entry]
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        raise SourceError(f"{name!r} names no pictures; write one path a line, relative to the file.")
    return paths


class Images:
    """The open pictures; see FrameSource. unreadable: (path, error) of those left out so far."""

    def __init__(self, spec: ImageSpec | FolderSpec | ListSpec, *, clock: Clock, epoch: int = 0) -> None:
        self._paths = list_images(spec)
        self._single = isinstance(spec, ImageSpec)
        self._clock = clock
        self._epoch = epoch
        self._seq = 0
        self._next = 0
        self.unreadable: list[tuple[Path, SourceError]] = []
        self.path: Path | None = None
        first = self._first_readable()
        self._pending: tuple[int, np.ndarray] | None = first
        height, width = first[1].shape[:2]
        self.info = SourceInfo(
            source_id=spec.display_name,
            display_name=spec.display_name,
            live=False,
            width=width,
            height=height,
            rate=Fraction(1),
            frame_count=len(self._paths),
            duration_s=float(len(self._paths)),
            time_base=Fraction(1),
            seekable=True,
        )

    def _first_readable(self) -> tuple[int, np.ndarray]:
        first = self._load_next()
        if first is not None:
            return first
        raise SourceError(f"None of the {len(self._paths)} pictures can be read; the first: {self.unreadable[0][1]}")

    def _load_next(self) -> tuple[int, np.ndarray] | None:
        while self._next < len(self._paths):
            index, self._next = self._next, self._next + 1
            try:
                return index, read_picture(self._paths[index])
            except SourceError as error:
                if self._single:
                    raise
                if all(path != self._paths[index] for path, _ in self.unreadable):
                    self.unreadable.append((self._paths[index], error))
        return None

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The next picture that can be read; its file is then in `path`."""
        loaded, self._pending = self._pending or self._load_next(), None
        if loaded is None:
            return None
        index, rgb = loaded
        self.path = self._paths[index]
        meta = _still_meta(self.info, rgb, index, self._epoch, self._seq, self._clock)
        self._seq += 1
        return Frame(meta, rgb)

    def seek(self, pts_s: float) -> None:
        """Go on with the first picture at or after pts_s (picture 0 is at 0 s), or the last one."""
        self._next = min(max(0, -int(-pts_s // 1)), len(self._paths) - 1)
        self._pending = None
        self._epoch += 1
        self._seq = 0

    def interrupt(self) -> None:
        """A file answers by itself; nothing to do."""

    def close(self) -> None:
        """No file is held open between two reads."""
        self._next = len(self._paths)
        self._pending = None


def _still_meta(info: SourceInfo, rgb: np.ndarray, index: int, epoch: int, seq: int, clock: Clock) -> FrameMeta:
    return FrameMeta(
        source_id=info.source_id,
        epoch=epoch,
        seq=seq,
        pts=index,
        time_base=info.time_base,
        t_capture_ns=clock.now_ns(),
        width=rgb.shape[1],
        height=rgb.shape[0],
        index=index,
    )


def open_images(spec: ImageSpec | FolderSpec | ListSpec, *, clock: Clock, epoch: int = 0) -> Images:
    """Open a picture, folder or list. Raises SourceError."""
    return Images(spec, clock=clock, epoch=epoch)
