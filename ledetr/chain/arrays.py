"""Python arrays as a source; the library's way in for pictures from anywhere."""

from collections.abc import Iterator, Sized
from fractions import Fraction
from typing import Any

import numpy as np

from ledetr.chain.clock import Clock
from ledetr.chain.sources import ArraysSpec, SourceInfo
from ledetr.errors import SourceError
from ledetr.frame import Frame, FrameMeta

# Given times are kept to the microsecond.
_GIVEN_TIME_BASE = Fraction(1, 1_000_000)


class Arrays:
    """The open iterable; see FrameSource. It is read once, cannot be sought, and its arrays are copied."""

    def __init__(self, spec: ArraysSpec, *, clock: Clock, epoch: int = 0) -> None:
        self._items: Iterator[Any] = iter(spec.arrays)
        self._clock = clock
        self._epoch = epoch
        self._index = 0
        self._pending: tuple[np.ndarray, Fraction | None] | None = self._next_item()
        if self._pending is None:
            raise SourceError("There are no arrays to look at: the iterable is empty.")
        rgb, pts_s = self._pending
        self.info = SourceInfo(
            source_id=spec.display_name,
            display_name=spec.display_name,
            live=False,
            width=rgb.shape[1],
            height=rgb.shape[0],
            rate=spec.rate if pts_s is None else None,
            frame_count=len(spec.arrays) if isinstance(spec.arrays, Sized) else None,
            duration_s=None,
            time_base=1 / spec.rate if pts_s is None else _GIVEN_TIME_BASE,
            start_s=0.0 if pts_s is None else float(pts_s),
        )

    def _next_item(self) -> tuple[np.ndarray, Fraction | None] | None:
        for item in self._items:
            rgb, pts_s = item if isinstance(item, tuple) else (item, None)
            if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
                got = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
                raise ValueError(f"arrays must be (H, W, 3) uint8 RGB, got {got}")
            return np.array(rgb, order="C"), None if pts_s is None else Fraction(pts_s)
        return None

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The next array."""
        item, self._pending = self._pending or self._next_item(), None
        if item is None:
            return None
        rgb, pts_s = item
        index, self._index = self._index, self._index + 1
        meta = FrameMeta(
            source_id=self.info.source_id,
            epoch=self._epoch,
            seq=index,
            pts=index if pts_s is None else round(pts_s / self.info.time_base),
            time_base=self.info.time_base,
            t_capture_ns=self._clock.now_ns(),
            width=rgb.shape[1],
            height=rgb.shape[0],
            index=index,
        )
        return Frame(meta, rgb)

    def seek(self, pts_s: float) -> None:
        """An iterable cannot go back."""
        raise ValueError("arrays cannot be sought")

    def interrupt(self) -> None:
        """What the iterable does cannot be ended from here."""

    def close(self) -> None:
        """Let the iterable go."""
        self._items = iter(())
        self._pending = None
