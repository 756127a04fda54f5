"""Counters, rates and ages of a chain: the same numbers in the window, the bench and JSON.

Three kinds of loss stay apart: replaced before inference, replaced before painting, and thrown away on purpose
(seek, stop, a live source that is paused).
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ledetr.chain.clock import Clock
from ledetr.chain.results import Result

T = TypeVar("T")

RATE_WINDOW_NS = 2_000_000_000
AGE_WINDOW_NS = 10_000_000_000
# Bounds the memory of a window of time where events come faster than any screen or camera.
_MOST_EVENTS = 5_000


@dataclass(frozen=True, slots=True)
class MeterSnapshot:
    """Numbers of one moment.

    *_fps: events a second over the last 2 s. age: painted (or published, where nothing paints) minus captured, ms,
    over 10 s, None without a frame. stage_ms: mean of each stage over 10 s.
    captured = published + dropped_before_inference + discarded + in_flight, exactly, once nothing moves.
    published = painted + dropped_before_paint + those that wait for paint. dropped: both kinds of drop together.
    damaged: pictures of a live source that came damaged, and may be among the others, or too late, and are not.
    """

    capture_fps: float
    infer_fps: float
    render_fps: float
    dropped: int
    age_p50_ms: float | None
    age_p95_ms: float | None
    stage_ms: dict[str, float] = field(default_factory=dict)
    captured: int = 0
    published: int = 0
    painted: int = 0
    dropped_before_inference: int = 0
    dropped_before_paint: int = 0
    discarded: int = 0
    damaged: int = 0


class _Window(Generic[T]):
    """Values of the last AGE_WINDOW_NS; older ones are let go as newer ones come."""

    def __init__(self) -> None:
        self._values: deque[tuple[int, T]] = deque(maxlen=_MOST_EVENTS)

    def add(self, at_ns: int, value: T) -> None:
        self._values.append((at_ns, value))
        while at_ns - self._values[0][0] > AGE_WINDOW_NS:
            self._values.popleft()

    def since(self, now_ns: int) -> list[T]:
        return [value for at_ns, value in self._values if now_ns - at_ns <= AGE_WINDOW_NS]


class Meters:
    """Fed by the threads of a chain, read by anyone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin at zero, e.g. with a new source."""
        with self._lock:
            self._captures: deque[int] = deque(maxlen=_MOST_EVENTS)
            self._publishes: deque[int] = deque(maxlen=_MOST_EVENTS)
            self._paints: deque[int] = deque(maxlen=_MOST_EVENTS)
            self._ages: _Window[float] = _Window()
            self._stages: _Window[dict[str, float]] = _Window()
            self._captured = self._published = self._painted = 0
            self._dropped_before_inference = self._dropped_before_paint = self._discarded = self._damaged = 0
            self._last_painted = 0
            self._first_number: int | None = None
            self._since_ns: int | None = None

    def on_captured(self) -> None:
        """A frame left the source."""
        with self._lock:
            self._captured += 1
            self._since_ns = self._clock.now_ns() if self._since_ns is None else self._since_ns
            self._captures.append(self._clock.now_ns())

    def on_damaged(self, count: int) -> None:
        """Pictures of a live source came damaged, or too late."""
        with self._lock:
            self._damaged += count

    def on_dropped(self, count: int) -> None:
        """Frames were replaced by newer ones before inference."""
        with self._lock:
            self._dropped_before_inference += count

    def on_discarded(self, count: int) -> None:
        """Frames were thrown away on purpose."""
        with self._lock:
            self._discarded += count

    def on_published(self, result: Result) -> None:
        """A result is out. One that was made again from the same frame is not counted again."""
        with self._lock:
            if result.again:
                return
            if self._first_number is None:
                self._first_number = result.number
                self._last_painted = result.number - 1
            self._published += 1
            self._publishes.append(result.timings.published_ns)
            self._stages.add(result.timings.published_ns, _stage_ms(result))
            if not self._painted:
                self._ages.add(result.timings.published_ns, _age_ms(result, result.timings.published_ns))

    def on_painted(self, result: Result) -> None:
        """A result reached the screen; painting it again changes nothing."""
        with self._lock:
            if self._first_number is None or result.number < self._first_number or result.timings.painted_ns:
                return
            now_ns = self._clock.now_ns()
            result.timings.painted_ns = now_ns
            self._paints.append(now_ns)
            if result.number <= self._last_painted:
                return
            if not self._painted:
                self._ages = _Window()
            self._painted += 1
            self._dropped_before_paint += result.number - self._last_painted - 1
            self._last_painted = result.number
            if not result.again:
                self._ages.add(now_ns, _age_ms(result, now_ns))

    def snapshot(self) -> MeterSnapshot:
        """The numbers now."""
        with self._lock:
            now_ns = self._clock.now_ns()
            ages = self._ages.since(now_ns)
            return MeterSnapshot(
                capture_fps=self._rate(self._captures, now_ns),
                infer_fps=self._rate(self._publishes, now_ns),
                render_fps=self._rate(self._paints, now_ns),
                dropped=self._dropped_before_inference + self._dropped_before_paint,
                age_p50_ms=float(np.percentile(ages, 50)) if ages else None,
                age_p95_ms=float(np.percentile(ages, 95)) if ages else None,
                stage_ms=_means(self._stages.since(now_ns)),
                captured=self._captured,
                published=self._published,
                painted=self._painted,
                dropped_before_inference=self._dropped_before_inference,
                dropped_before_paint=self._dropped_before_paint,
                discarded=self._discarded,
                damaged=self._damaged,
            )

    def _rate(self, events_ns: deque[int], now_ns: int) -> float:
        """Events a second in the window that ends now; a shorter one right after the first frame."""
        if self._since_ns is None:
            return 0.0
        window_ns = min(RATE_WINDOW_NS, max(now_ns - self._since_ns, RATE_WINDOW_NS // 10))
        return sum(now_ns - at_ns < window_ns for at_ns in events_ns) / (window_ns / 1e9)


def _age_ms(result: Result, at_ns: int) -> float:
    return (at_ns - result.timings.captured_ns) / 1e6


def _stage_ms(result: Result) -> dict[str, float]:
    t = result.timings
    steps = [("wait", t.captured_ns, t.taken_ns)]
    if t.inferred_ns:  # without a detector there are no stages
        steps += [
            ("preprocess", t.taken_ns, t.preprocessed_ns),
            ("infer", t.preprocessed_ns, t.inferred_ns),
            ("postprocess", t.inferred_ns, t.postprocessed_ns),
        ]
    return {name: (end - start) / 1e6 for name, start, end in steps}


def _means(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            sums.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}
