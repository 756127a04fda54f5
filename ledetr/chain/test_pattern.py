"""A source that needs no file and no camera: moving bars with the frame number in the picture.

The number stands twice in the top strip: as digits for people, and as black and white cells that read_counter reads
back, also after a lossy codec. Everything depends on the frame number alone, so each run gives the same pictures.
"""

import hashlib
import itertools
import threading
import time
from fractions import Fraction

import cv2
import numpy as np

from ledetr.chain.clock import Clock
from ledetr.chain.sources import SLEPT_S, SourceInfo, TestPatternSpec
from ledetr.frame import Frame, FrameMeta

COUNTER_BITS = 24
# The cells lie in the upper half of the strip: a white and a black one to find the levels, then the bits, high first.
_CELLS = COUNTER_BITS + 2
_STRIP_SHARE = 8  # the strip is this part of the height

_BARS_RGB = np.array(
    [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191)], np.uint8
)


class TestPattern:
    """The open test pattern; pts counts frames, time_base is one frame."""

    __test__ = False  # its name is not meant for pytest

    def __init__(self, spec: TestPatternSpec, *, clock: Clock, epoch: int = 0) -> None:
        self._spec = spec
        self._clock = clock
        self._epoch = epoch
        self._next = 0
        self._seq = 0
        self._start_ns: int | None = None
        self._stop = threading.Event()
        self._background = _draw_bars(spec.width, spec.height)
        self.info = SourceInfo(
            source_id=spec.display_name,
            display_name=spec.display_name,
            live=spec.live,
            width=spec.width,
            height=spec.height,
            rate=spec.rate,
            frame_count=spec.frames,
            duration_s=None if spec.frames is None else float(spec.frames / spec.rate),
            time_base=1 / spec.rate,
            seekable=not spec.live,
        )

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The next frame that is not dropped; where live, not before its time."""
        number = self._next
        while _dropped(number, self._spec):
            number += 1
        if self._stop.is_set() or (self._spec.frames is not None and number >= self._spec.frames):
            return None
        if self._spec.live and not self._wait_for(number):
            return None
        self._next = number + 1
        self._seq += 1
        return Frame(self._meta(number), self._draw(number))

    def _wait_for(self, number: int) -> bool:
        at_ns = int(number * 1_000_000_000 / self._spec.rate)
        if self._start_ns is None or self._clock.now_ns() - self._start_ns - at_ns > SLEPT_S * 1e9:
            self._start_ns = self._clock.now_ns() - at_ns  # after a sleep too, or it would race to catch up
        late_ns = int(_noise(number, self._spec.seed, "jitter") * self._spec.jitter_ms * 1e6)
        return self._clock.sleep_until(self._start_ns + at_ns + late_ns, self._stop)

    def _meta(self, number: int) -> FrameMeta:
        return FrameMeta(
            source_id=self.info.source_id,
            epoch=self._epoch,
            seq=self._seq - 1,
            pts=number,
            time_base=1 / self._spec.rate,
            t_capture_ns=self._clock.now_ns(),
            width=self._spec.width,
            height=self._spec.height,
            wall_time_s=time.time() if self._spec.live else None,
            index=number,
        )

    def _draw(self, number: int) -> np.ndarray:
        rgb = self._background.copy()
        _draw_counter(rgb, number)
        left, top, side = box_at(number, self._spec.width, self._spec.height)
        rgb[top : top + side, left : left + side] = 255
        return rgb

    def seek(self, pts_s: float) -> None:
        """Go on with the first frame at or after pts_s."""
        # Down to a millionth: days into the pattern a float is off by more than a billionth of a second.
        number = max(0, -int(-Fraction(pts_s).limit_denominator(10**6) * self._spec.rate // 1))
        if self._spec.frames is not None:
            number = min(number, self._spec.frames - 1)
        self._next = number
        self._epoch += 1
        self._seq = 0
        self._start_ns = None

    def interrupt(self) -> None:
        """Wake a read that waits for its time; no more frames come."""
        self._stop.set()

    def close(self) -> None:
        """Nothing is held."""
        self._stop.set()


def read_counter(rgb: np.ndarray) -> int:
    """The frame number in a picture of the test pattern; raises ValueError where the cells cannot be told apart."""
    levels = [float(rgb[cell].mean()) for cell in _cells(rgb.shape[1], rgb.shape[0])]
    white, black = levels[:2]
    if white - black < 64:
        raise ValueError(f"no counter in this picture: white cell {white:.0f}, black cell {black:.0f}")
    middle = (white + black) / 2
    return int("".join("1" if level > middle else "0" for level in levels[2:]), 2)


def box_at(number: int, width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side, in pixels, of the white square in frame number; it never touches the strip."""
    strip = height // _STRIP_SHARE
    side = max(2, min(width, height) // 8)
    return _bounce(7 * number, width - side), strip + _bounce(5 * number, height - strip - side), side


def _bounce(position: int, span: int) -> int:
    """position on a line 0..span that is walked to and fro."""
    if span <= 0:
        return 0
    position %= 2 * span
    return position if position <= span else 2 * span - position


def _draw_bars(width: int, height: int) -> np.ndarray:
    columns = _BARS_RGB[np.arange(width) * len(_BARS_RGB) // width]
    rgb = np.broadcast_to(columns, (height, width, 3)).copy()
    rgb[: height // _STRIP_SHARE] = 0
    return rgb


def _draw_counter(rgb: np.ndarray, number: int) -> None:
    height, width = rgb.shape[:2]
    strip = height // _STRIP_SHARE
    scale = strip / 2 / 30
    cv2.putText(rgb, f"{number:08d}", (2, strip - 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1)
    bits = [1, 0, *(number >> shift & 1 for shift in reversed(range(COUNTER_BITS)))]
    for cell, bit in zip(_cells(width, height), bits, strict=True):
        rgb[cell] = 255 * bit


def _cells(width: int, height: int) -> list[tuple[slice, slice]]:
    rows = slice(0, max(1, height // _STRIP_SHARE // 2))
    edges = [i * width // _CELLS for i in range(_CELLS + 1)]
    return [(rows, slice(low, max(high, low + 1))) for low, high in itertools.pairwise(edges)]


def _dropped(number: int, spec: TestPatternSpec) -> bool:
    return _noise(number, spec.seed, "drop") < spec.drop


def _noise(number: int, seed: int, purpose: str) -> float:
    """A number in 0..1 that depends on nothing but the arguments."""
    digest = hashlib.blake2b(f"{purpose}:{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
