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


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """bgrx: (h, w, 4) uint8, blue green red and an unused byte: 32-bit RGB as a little-endian screen wants it.

    result: the frame and its boxes the picture was made from. Sizes are device pixels.
    """

    result: Result
    bgrx: np.ndarray

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in device pixels."""
        return self.bgrx.shape[1], self.bgrx.shape[0]


def fitted_size(source_wh: tuple[int, int], room_wh: tuple[int, int]) -> tuple[int, int]:
    """Largest size with the source's aspect ratio inside the room, at least 1 x 1."""
    (source_w, source_h), (room_w, room_h) = source_wh, room_wh
    if source_w * room_h > source_h * room_w:
        return max(1, room_w), max(1, round(source_h * room_w / source_w))
    return max(1, round(source_w * room_h / source_h)), max(1, room_h)


def prepare(result: Result, room_wh: tuple[int, int]) -> Picture:
    """The result's frame scaled into room_wh device pixels, as 32-bit RGB."""
    rgb = result.frame.rgb
    size_wh = fitted_size((rgb.shape[1], rgb.shape[0]), room_wh)
    smaller = size_wh[0] < rgb.shape[1]
    scaled = cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return Picture(result, cv2.cvtColor(scaled, cv2.COLOR_RGB2BGRA))


class DisplayPrep:
    """A thread that keeps `picture` equal to the newest result at the newest size, and calls on_ready after each."""

    def __init__(self, latest: Callable[[], Result | None], on_ready: Callable[[], None]) -> None:
        self._latest = latest
        self._on_ready = on_ready
        self._room_wh = (960, 540)
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

    def close(self, timeout_s: float = 2.0) -> bool:
        """End the thread; False when it did not end in time."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        done: tuple[Result, tuple[int, int]] | None = None
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            result, room_wh = self._latest(), self._room_wh
            if result is None:
                if self.picture is not None:
                    self.picture, done = None, None
                    self._on_ready()
                continue
            if done is not None and done[0] is result and done[1] == room_wh:
                continue
            self.picture = prepare(result, room_wh)
            self.prepared += 1
            done = (result, room_wh)
            self._on_ready()
