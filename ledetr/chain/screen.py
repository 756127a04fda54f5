"""The screen, or a part of it, as a live source."""

import os
import platform
import threading
import time
from fractions import Fraction

import mss
import numpy as np
from mss.exception import ScreenShotError

from ledetr.chain.clock import Clock
from ledetr.chain.sources import ScreenSpec, SourceInfo
from ledetr.errors import SourceError
from ledetr.frame import Frame, FrameMeta

RATE = Fraction(30)
_TIME_BASE = Fraction(1, 1_000_000)


class Screen:
    """The open screen; see FrameSource. pts counts microseconds from the first picture."""

    def __init__(self, spec: ScreenSpec, *, clock: Clock, epoch: int = 0) -> None:
        if platform.system() == "Linux" and os.environ.get("WAYLAND_DISPLAY"):
            raise SourceError("The screen cannot be read under Wayland; log in with an X11 session to use it.")
        self._name = spec.display_name
        self._clock = clock
        self._epoch = epoch
        self._seq = 0
        self._start_ns: int | None = None
        self._next_tick = 0
        self._stop = threading.Event()
        try:
            self._grabber = mss.mss()
            self._area = self._area_of(spec)
        except ScreenShotError as error:
            raise SourceError(f"Cannot read {self._name}: {error}; is there a display?") from None
        self.info = SourceInfo(
            source_id=self._name,
            display_name=self._name,
            live=True,
            width=self._area["width"],
            height=self._area["height"],
            rate=RATE,
            frame_count=None,
            duration_s=None,
            time_base=_TIME_BASE,
        )

    def _area_of(self, spec: ScreenSpec) -> dict[str, int]:
        screens = self._grabber.monitors[1:]  # the first entry is all screens together
        if spec.index >= len(screens):
            raise SourceError(f"There is no {self._name}; this machine has {len(screens)}, counted from 0.")
        screen = screens[spec.index]
        if spec.region is None:
            return {key: int(screen[key]) for key in ("left", "top", "width", "height")}
        x, y, width, height = spec.region
        if x < 0 or y < 0 or x + width > screen["width"] or y + height > screen["height"]:
            raise SourceError(
                f"The part {spec.region} does not lie on {self._name}, which is {screen['width']} x {screen['height']}."
            )
        return {"left": int(screen["left"]) + x, "top": int(screen["top"]) + y, "width": width, "height": height}

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The screen at its next moment; moments that were missed are left out."""
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns()
        missed_to = -(-(self._clock.now_ns() - self._start_ns) * RATE // 1_000_000_000)
        tick = max(self._next_tick, int(missed_to))
        self._next_tick = tick + 1
        due_ns = self._start_ns + int(-(-tick * 1_000_000_000 // RATE))
        if not self._clock.sleep_until(due_ns, self._stop):
            return None
        try:
            shot = self._grabber.grab(self._area)
        except ScreenShotError as error:
            raise SourceError(f"Cannot read {self._name} any further: {error}.") from None
        captured_ns = self._clock.now_ns()
        bgra = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        rgb = np.ascontiguousarray(bgra[:, :, 2::-1])
        self._seq += 1
        return Frame(self._meta(rgb, captured_ns), rgb)

    def _meta(self, rgb: np.ndarray, captured_ns: int) -> FrameMeta:
        assert self._start_ns is not None  # read sets it
        return FrameMeta(
            source_id=self.info.source_id,
            epoch=self._epoch,
            seq=self._seq - 1,
            pts=(captured_ns - self._start_ns) // 1000,
            time_base=_TIME_BASE,
            t_capture_ns=captured_ns,
            width=rgb.shape[1],
            height=rgb.shape[0],
            wall_time_s=time.time(),
        )

    def seek(self, pts_s: float) -> None:
        """A screen has no past."""
        raise ValueError("a screen cannot be sought")

    def interrupt(self) -> None:
        """Wake a read that waits for its moment; no more pictures come."""
        self._stop.set()

    def close(self) -> None:
        """Let the screen go."""
        self._stop.set()
        self._grabber.close()
