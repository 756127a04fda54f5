"""Display prep: the newest result scaled to the screen's own pixels, away from the GUI thread.

There is no queue: the thread is woken, looks what is newest, and prepares that. What came in between was never looked
at, so a slow screen costs pictures and never delay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ledetr.chain.pipeline import Result
from ledetr_app.viewport import View, place

FIT = View()
PIXELS_FROM_SCALE = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """bgrx: (h, w, 4) uint8, blue green red and an unused byte: 32-bit RGB as a little-endian screen wants it.

    result: the frame and its boxes the picture was made from. part_xyxy: the pixels of the frame that it shows.
    Sizes are device pixels.
    """

    result: Result
    bgrx: np.ndarray
    part_xyxy: tuple[int, int, int, int]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in device pixels."""
        return self.bgrx.shape[1], self.bgrx.shape[0]


def prepare(result: Result, room_wh: tuple[int, int], view: View = FIT) -> Picture:
    """What is seen of the result's frame in a room of room_wh device pixels, scaled, as 32-bit RGB."""
    rgb = result.frame.rgb
    placed = place(view, (rgb.shape[1], rgb.shape[0]), room_wh)
    x0, y0, x1, y1 = placed.visible()
    scale_x, scale_y = placed.scale_xy
    size_wh = max(1, round((x1 - x0) * scale_x)), max(1, round((y1 - y0) * scale_y))
    scaled = cv2.resize(rgb[y0:y1, x0:x1], size_wh, interpolation=_interpolation(scale_x))
    return Picture(result, cv2.cvtColor(scaled, cv2.COLOR_RGB2BGRA), (x0, y0, x1, y1))


def _interpolation(scale: float) -> int:
    """Who looks this closely wants to see the pixels."""
    if scale >= PIXELS_FROM_SCALE:
        return cv2.INTER_NEAREST
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR


class DisplayPrep:
    """A thread that keeps `picture` equal to the newest result at the newest size, and calls on_ready after each."""

    def __init__(self, latest: Callable[[], Result | None], on_ready: Callable[[], None]) -> None:
        self._latest = latest
        self._on_ready = on_ready
        self._room_wh = (960, 540)
        self._view = FIT
        self._wake = threading.Event()
        self._closing = False
        self.picture: Picture | None = None
        self.prepared = 0
        self._thread = threading.Thread(target=self._run, name="display prep", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """There may be something newer. Returns at once; any thread."""
        self._wake.set()

    def set_room(self, width_px: int, height_px: int) -> None:
        """The picture's room in device pixels changed."""
        if (width_px, height_px) != self._room_wh and width_px > 0 and height_px > 0:
            self._room_wh = (width_px, height_px)
            self.poke()

    def set_view(self, view: View) -> None:
        """Another part of the picture is looked at."""
        if view != self._view:
            self._view = view
            self.poke()

    def close(self, timeout_s: float = 2.0) -> bool:
        """End the thread; False when it did not end in time."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        done: tuple[Result, tuple[int, int], View] | None = None
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            result, room_wh, view = self._latest(), self._room_wh, self._view
            if result is None:
                if self.picture is not None:
                    self.picture, done = None, None
                    self._on_ready()
                continue
            if done is not None and done[0] is result and done[1:] == (room_wh, view):
                continue
            self.picture = prepare(result, room_wh, view)
            self.prepared += 1
            done = (result, room_wh, view)
            self._on_ready()
