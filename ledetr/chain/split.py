"""A recording in parts: a new file after so much time or so many bytes, each of them whole and beginning at zero.

Every part has an encoder of its own, so it begins with a key frame, holds all its pictures, and plays by itself; none
is lost or doubled where two parts meet. Packets of sound go to the part in whose time they begin.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.chain.recorder import KEY_FRAME_PERIOD_S, VideoWriter
from ledetr.chain.side_files import SideFile, SideHeader, open_side_files
from ledetr.errors import UsageError

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9}
_LEAST_BYTES = 1_000_000
# What the encoder holds back, and the fragment that is being filled, are not on the disk yet.
_AHEAD_S = 3
# How long the end of a part is kept open for sound that lies behind its pictures in the file.
_PATIENCE_S = 2


@dataclass(frozen=True, slots=True)
class Split:
    """When a part is full: after seconds of video, or before it has more than nbytes; exactly one of them is given."""

    seconds: Fraction | None = None
    nbytes: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.nbytes is None):
            raise ValueError("a split is either by time or by size")
        if self.seconds is not None and self.seconds < 1:
            raise UsageError("A part of a recording lasts at least 1 s; write for example --split 10m.")
        if self.nbytes is not None and self.nbytes < _LEAST_BYTES:
            raise UsageError("A part of a recording has at least 1 MB; write for example --split 500MB.")


def parse_split(text: str) -> Split:
    """10m, 90s, 1.5h, 500MB or 4GB. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([a-z]+)", text.strip().lower())
    number, unit = match.groups() if match else ("", "")
    if unit in _UNITS:
        return Split(seconds=Fraction(number) * _UNITS[unit])
    if unit in _SIZES:
        return Split(nbytes=int(Fraction(number) * _SIZES[unit]))
    raise UsageError(f"{text!r} does not say how long or large a part is; write for example 10m, 1h or 500MB.")


def part_path(path: Path, number: int) -> Path:
    """`name_001.mp4` and so on; number counts from 1."""
    return path.with_name(f"{path.stem}_{number:03}{path.suffix}")


class SplitWriter:
    """Used as a VideoWriter, and makes one after the other; see there. form: its other arguments.

    path: of the part that is being written. parts: those that are whole. on_part: called with the number of each part
    before its first picture, from 1 on.
    """

    def __init__(
        self,
        path: Path,
        split: Split,
        *,
        time_base: Fraction,
        shift_s: Fraction = Fraction(0),
        on_part: Callable[[int], None] = lambda _: None,
        **form: Any,
    ) -> None:
        self._path = path
        self._split = split
        self._time_base = time_base
        self._shift_s = shift_s
        self._on_part = on_part
        self._form = form
        self._waiting: deque[Any] = deque()
        self._passed: set[int] = set()
        self._before: VideoWriter | None = None  # the part whose sound may still come
        self._before_s = 0.0
        self._first_pts: int | None = None
        self._cut_pts: int | None = None
        self.parts: list[Path] = []
        self._bytes_before = 0
        self._seconds_before = 0.0
        self.frames = 0
        self._number = 1
        self._writer = self._open(shift_s)
        self.size_hw = self._writer.size_hw

    def _open(self, shift_s: Fraction) -> VideoWriter:
        writer = VideoWriter(
            part_path(self._path, self._number), time_base=self._time_base, shift_s=shift_s, **self._form
        )
        try:
            self._on_part(self._number)
        except BaseException:
            writer.abort()
            raise
        return writer

    def write(self, rgb: np.ndarray, pts: int, duration: int | None = None) -> None:
        """Encode one picture, in the next part where this one is full."""
        self.make_room(pts)
        self._hand_on(pts * self._time_base)
        if self._cut_pts is not None and (pts - self._cut_pts) * self._time_base > _PATIENCE_S:
            self._finish_before()
        self._writer.write(rgb, pts, duration)
        self.frames += 1

    def make_room(self, pts: int) -> None:
        """Begin the next part where this one is full; before whatever belongs to the picture at pts is written."""
        if self._first_pts is None:
            self._first_pts = pts
        elif self._is_full(pts):
            self._next_part(pts)

    def copy(self, packet: Any) -> None:
        """Hand on a packet of a copied track to the part that has its time, once pictures have come so far."""
        self._waiting.append(packet)

    def _is_full(self, pts: int) -> bool:
        assert self._first_pts is not None  # asked only after the first picture
        passed_s = (pts - self._first_pts) * self._time_base
        if self._split.seconds is not None:
            return passed_s >= self._split.seconds
        assert self._split.nbytes is not None  # one of the two is given
        if passed_s < KEY_FRAME_PERIOD_S:
            return False
        written = self._writer.nbytes
        ahead = written * _AHEAD_S / max(1.0, float(passed_s) - _AHEAD_S)
        return written + ahead >= self._split.nbytes

    def _next_part(self, pts: int) -> None:
        self._hand_on(pts * self._time_base)
        self._finish_before()
        self._before, self._cut_pts, self._first_pts = self._writer, pts, pts
        self._passed.clear()
        self._seconds_before += self._writer.seconds
        self._number += 1
        self._writer = self._open(-pts * self._time_base)
        if not self._form.get("copied"):
            self._finish_before()

    def _hand_on(self, until_s: Fraction) -> None:
        """Packets that begin before until_s, to the part they belong to."""
        left: deque[Any] = deque()
        for packet in self._waiting:
            if _begins_s(packet) >= until_s:
                left.append(packet)
            else:
                self._part_of(packet).copy(packet)
        self._waiting = left

    def _part_of(self, packet: Any) -> VideoWriter:
        if self._before is None or self._cut_pts is None:
            return self._writer
        if _begins_s(packet) < self._cut_pts * self._time_base:
            return self._before
        self._passed.add(packet.stream.index)
        if len(self._passed) == len(self._form.get("copied", ())):
            self._finish_before()
        return self._writer

    def _finish_before(self) -> None:
        """Complete the part before this one, if that was not done."""
        if self._before is not None:
            before, self._before = self._before, None
            self.parts.append(before.finish())
            self._bytes_before += self.parts[-1].stat().st_size

    @property
    def path(self) -> Path:
        """Of the part that is being written."""
        return self._writer.path

    @property
    def seconds(self) -> float:
        """Length of all parts together."""
        return self._seconds_before + self._writer.seconds

    @property
    def nbytes(self) -> int:
        """Bytes on disk so far, of all parts."""
        return self._bytes_before + self._writer.nbytes

    def finish(self) -> Path:
        """Complete the last part; the path of the first one comes back."""
        for packet in self._waiting:
            self._part_of(packet).copy(packet)
        self._waiting.clear()
        self._finish_before()
        self.parts.append(self._writer.finish())
        return self.parts[0]

    def keep_partial(self) -> Path | None:
        """End early: parts that are full become whole, the last one `name_003.partial.mp4`, which comes back."""
        self._waiting.clear()
        self._finish_before()
        return self._writer.keep_partial() or (self.parts[-1] if self.parts else None)

    def abort(self) -> None:
        """Leave nothing of the part that is being written; parts that are whole stay."""
        if self._before is not None:
            self._before.abort()
            self._before = None
        self._writer.abort()


def _begins_s(packet: Any) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    return Fraction(0) if time is None else Fraction(time * packet.time_base)


class SplitSides:
    """Side files that begin anew with each part, under its number.

    open: those of this part, by format. paths: of the first part.
    """

    def __init__(self, paths: Mapping[str, Path], header: SideHeader, **form: Any) -> None:
        self._paths, self._header, self._form = paths, header, form
        self.open: dict[str, SideFile] = {}
        self.paths: dict[str, Path] = {}

    def begin(self, number: int) -> None:
        """Complete the lists of the part before, and open those of this one."""
        self.finish()
        paths = {kind: part_path(path, number) for kind, path in self._paths.items()}
        self.open = open_side_files(paths, self._header, **self._form)

    def finish(self) -> None:
        """Complete those that are open."""
        for kind, side in self.open.items():
            path = side.finish()
            self.paths.setdefault(kind, path)
        self.open = {}
