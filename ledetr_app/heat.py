"""How much was found at each part of a file: of pictures that were shown, and of a scan in the background.

Bounded: a file has BINS parts, whatever its length, and a scan looks once at each that nobody has looked at. Kept is
how many boxes of each class reach each score, so that the bar follows thresholds and classes without another look.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ledetr.chain.clock import Clock
from ledetr.chain.inference import FrameDetector
from ledetr.chain.pipeline import Result, State
from ledetr.chain.sources import FrameSource, SourceInfo, open_source, parse_source
from ledetr.detections import Detections
from ledetr.errors import LeDetrError
from ledetr_app.class_filter import ClassFilter
from ledetr_app.model_loader import ModelWish
from ledetr_app.store import Store

BINS = 240
# Scores in steps of 0.05, as the threshold has them.
_STEP = 0.05
_LEVELS = 20
# While the file plays, the scan rests so many times as long as it looked.
_REST = 3.0


@dataclass(frozen=True, slots=True)
class Heated:
    """What a table is about: another source, or another model, has another table."""

    source: str
    info: SourceInfo
    wish: ModelWish


@dataclass(slots=True, eq=False)
class Table:
    """counts: (BINS, C, levels) uint8, the most boxes of a class in one picture of that part, from that score on.

    known: (BINS,) where somebody looked. empty: (BINS,) where no picture begins, so that the one before is still shown.
    version: grows with each look.
    """

    about: Heated
    class_names: tuple[str, ...]
    counts: np.ndarray
    known: np.ndarray = field(default_factory=lambda: np.zeros(BINS, bool))
    empty: np.ndarray = field(default_factory=lambda: np.zeros(BINS, bool))
    version: int = 0

    @classmethod
    def of(cls, about: Heated, class_names: tuple[str, ...]) -> Table:
        """Nobody has looked yet."""
        return cls(about, class_names, np.zeros((BINS, len(class_names), _LEVELS), np.uint8))

    def add(self, pts_s: float, detections: Detections) -> None:
        """One more picture."""
        place = bin_of(self.about.info, pts_s)
        levels = np.clip((detections.confidence / _STEP + 1e-4).astype(np.int64), 0, _LEVELS - 1)
        seen = np.zeros(self.counts.shape[1:], np.int64)
        np.add.at(seen, (detections.class_id, levels), 1)
        reaching = np.minimum(seen[:, ::-1].cumsum(1)[:, ::-1], 255).astype(np.uint8)
        np.maximum(self.counts[place], reaching, out=self.counts[place])
        self.known[place] = True
        self.empty[place] = False
        self.version += 1

    def pass_over(self, first: int, end: int) -> None:
        """No picture begins in these parts, but where one is known already."""
        self.empty[first:end] |= ~self.known[first:end]
        self.known[first:end] = True
        self.version += 1

    def heights(self, shown: ClassFilter) -> np.ndarray:
        """(BINS,) float: how many boxes pass the thresholds, -1 where nobody has looked."""
        wanted = [
            (number, min(_LEVELS - 1, math.ceil(shown.conf_of(name) / _STEP - 1e-6)))
            for number, name in enumerate(self.class_names)
            if shown.shown is None or name in shown.shown
        ]
        columns = np.array(wanted, np.int64).reshape(-1, 2)
        total = self.counts[:, columns[:, 0], columns[:, 1]].sum(1)
        heights = np.where(self.known, total, -1.0)
        before = np.maximum.accumulate(np.where(self.empty, 0, np.arange(BINS)))
        filled: np.ndarray = heights[before]
        return filled


class Heat:
    """detector: the running one. source: what opens the open file again. scanning: a scan goes on.

    Heights are read by the GUI thread, pictures come from the thread that infers, and the scan has its own.
    """

    def __init__(
        self, store: Store, *, detector: Callable[[], FrameDetector | None], source: Callable[[], str], clock: Clock
    ) -> None:
        self._store = store
        self._detector = detector
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._table: Table | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._open: FrameSource | None = None

    @property
    def scanning(self) -> bool:
        """A scan goes on."""
        return self._thread is not None

    @property
    def can_scan(self) -> bool:
        """A file is open, and a model runs."""
        return self._about() is not None

    @property
    def version(self) -> int:
        """Another number when the heights may be others."""
        about, table = self._about(), self._table
        return -1 if table is None or about != table.about else table.version

    def heights(self) -> np.ndarray | None:
        """(BINS,) boxes at each part of the open file with the present choices, -1 for unknown; None: nothing yet."""
        with self._lock:
            table = self._table
            if table is None or table.about != self._about():
                return None
            return table.heights(self._store.state.class_filter)

    def add(self, result: Result) -> None:
        """A picture that was looked at anyway. Any thread; quick."""
        about = self._about()
        if about is not None and result.frame.meta.source_id == about.info.source_id:
            self._add(about, result.frame.meta.pts_s, result.detections)

    def toggle_scan(self) -> None:
        """Begin to look at the whole file, or stop it."""
        if self.scanning:
            self.stop()
            return
        about = self._about()
        if about is not None:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(about, self._stop), name="heat", daemon=True)
            self._thread.start()
            self._store.on_change()

    def stop(self) -> None:
        """No scan any more; returns at once."""
        self._stop.set()
        source = self._open
        if source is not None:
            source.interrupt()

    def close(self, timeout_s: float) -> bool:
        """End the scan; False when it did not end in time."""
        self.stop()
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _about(self) -> Heated | None:
        """The file and model of now; None where there is no such bar."""
        state = self._store.state
        source, running, key = state.source, state.running, self._source()
        if source is None or running is None or source.live or not source.seekable or not source.duration_s or not key:
            return None
        return Heated(key, source, running.wish)

    def _add(self, about: Heated, pts_s: float, detections: Detections) -> None:
        with self._lock:
            if self._table is None or self._table.about != about:
                self._table = Table.of(about, detections.class_names)
            if detections.class_names == self._table.class_names and detections.model_id:
                self._table.add(pts_s, detections)

    # Thread "heat"

    def _run(self, about: Heated, stop: threading.Event) -> None:
        try:
            self._scan(about, stop)
        except LeDetrError as error:
            if not stop.is_set():
                self._store.report(error)
        except Exception as error:  # the edge of this thread
            self._store.report(error)
        finally:
            source, self._open = self._open, None
            if source is not None:
                source.close()
            self._thread = None
            self._store.on_change()

    def _scan(self, about: Heated, stop: threading.Event) -> None:
        self._open = source = open_source(parse_source(about.source), clock=self._clock, epoch=0)
        for place in spread(BINS):
            with self._lock:
                done = self._table is not None and self._table.about == about and bool(self._table.known[place])
            if done:
                continue
            if stop.is_set() or about != self._about():
                return
            began_s = time.perf_counter()
            self._look(about, source, place)
            if self._store.state.phase is State.RUNNING:
                stop.wait(_REST * (time.perf_counter() - began_s))

    def _look(self, about: Heated, source: FrameSource, place: int) -> None:
        """At the first picture from the beginning of that part on."""
        start_s = start_of(about.info, place)
        source.seek(start_s)
        frame, detector = source.read(start_s), self._detector()
        if frame is None or detector is None or about != self._about():
            return
        try:
            found, _ = detector.detect_frame(frame.rgb)
        except ValueError:
            if about == self._about():
                raise
            return  # the model was switched, and this one closed, meanwhile
        pts_s = frame.meta.pts_s
        self._add(about, pts_s, found)
        with self._lock:
            if self._table is not None and self._table.about == about:
                at = bin_of(about.info, pts_s)
                # Before the place only where this is the last picture of all: nothing begins after it.
                self._table.pass_over(*((place, at) if at >= place else (at + 1, BINS)))
        self._store.on_change()


def spread(count: int) -> list[int]:
    """0..count-1 in an order that soon has something everywhere: halves, then quarters, and so on."""
    bits = max(1, (count - 1).bit_length())
    order = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [place for place in order if place < count]


def bin_of(info: SourceInfo, pts_s: float) -> int:
    """Which part of the file a time is in."""
    assert info.duration_s is not None
    return min(max(int((pts_s - info.start_s) / info.duration_s * BINS), 0), BINS - 1)


def start_of(info: SourceInfo, place: int) -> float:
    """When a part begins."""
    assert info.duration_s is not None
    return info.start_s + info.duration_s * place / BINS
