from fractions import Fraction

import numpy as np
import pytest

from ledetr.chain.clock import FakeClock
from ledetr.chain.meters import Meters
from ledetr.chain.results import Result, Timings
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta

MS = 1_000_000


class Feed:
    """Meters on a fake clock, and results with an age."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.meters = Meters(self.clock)
        self.number = 0

    def result(self, age_ms: float, *, again: bool = False) -> Result:
        now_ns = self.clock.now_ns()
        captured_ns = int(now_ns - age_ms * MS)
        meta = FrameMeta("s", 0, 0, 0, Fraction(1, 30), captured_ns, 1, 1)
        timings = Timings(captured_ns, captured_ns + MS, captured_ns + 2 * MS, captured_ns + 5 * MS, now_ns, now_ns)
        self.number += not again
        frame = Frame(meta, np.zeros((1, 1, 3), np.uint8))
        return Result(frame, Detections.empty(), timings, self.number, again)


def test_nothing_happened_yet() -> None:
    snapshot = Feed().meters.snapshot()
    assert (snapshot.capture_fps, snapshot.infer_fps, snapshot.render_fps, snapshot.dropped) == (0, 0, 0, 0)
    assert snapshot.age_p50_ms is None and snapshot.stage_ms == {}


def test_rates_are_events_over_two_seconds() -> None:
    feed = Feed()
    for i in range(300):
        feed.clock.advance(10 * MS)
        feed.meters.on_captured()
        if i % 4 == 0:
            feed.meters.on_published(feed.result(5))
    snapshot = feed.meters.snapshot()
    assert (snapshot.capture_fps, snapshot.infer_fps, snapshot.render_fps) == (100, 25, 0)
    feed.clock.advance(1000 * MS)
    assert feed.meters.snapshot().capture_fps == 50
    feed.clock.advance(1000 * MS)
    assert feed.meters.snapshot().capture_fps == 0  # at idle the numbers say so


def test_a_rate_right_after_the_start_is_not_too_low() -> None:
    feed = Feed()
    for _ in range(50):
        feed.meters.on_captured()
        feed.clock.advance(10 * MS)
    assert feed.meters.snapshot().capture_fps == pytest.approx(100, abs=2)


def test_age_is_published_until_something_paints_then_painted() -> None:
    feed = Feed()
    for age_ms in range(1, 101):
        feed.meters.on_published(feed.result(age_ms))
    snapshot = feed.meters.snapshot()
    assert (snapshot.age_p50_ms, snapshot.age_p95_ms) == pytest.approx((50.5, 95.05))
    result = feed.result(30)
    feed.meters.on_published(result)
    feed.clock.advance(12 * MS)
    feed.meters.on_painted(result)
    assert feed.meters.snapshot().age_p95_ms == pytest.approx(42)
    feed.clock.advance(11_000 * MS)
    assert feed.meters.snapshot().age_p50_ms is None


def test_stages_are_means() -> None:
    feed = Feed()
    feed.clock.advance(1000 * MS)
    for _ in range(3):
        feed.meters.on_published(feed.result(9))
    assert feed.meters.snapshot().stage_ms == pytest.approx(
        {"wait": 1.0, "preprocess": 1.0, "infer": 3.0, "postprocess": 4.0}
    )


def test_what_a_painter_misses_is_counted_once() -> None:
    feed = Feed()
    results = [feed.result(1) for _ in range(10)]
    for result in results:
        feed.meters.on_published(result)
    feed.clock.advance(1)
    for result in (results[1], results[1], results[4], results[4], results[9]):
        feed.meters.on_painted(result)
    snapshot = feed.meters.snapshot()
    assert (snapshot.published, snapshot.painted, snapshot.dropped_before_paint) == (10, 3, 7)
    again = feed.result(1, again=True)
    feed.meters.on_published(again)
    feed.meters.on_painted(again)
    snapshot = feed.meters.snapshot()
    assert (snapshot.published, snapshot.painted, snapshot.dropped) == (10, 3, 7)


def test_a_result_of_the_source_before_does_not_count() -> None:
    feed = Feed()
    old = feed.result(1)
    feed.meters.on_published(old)
    feed.meters.reset()
    feed.meters.on_painted(old)
    new = feed.result(1)
    feed.meters.on_published(new)
    feed.meters.on_painted(old)
    feed.meters.on_painted(new)
    snapshot = feed.meters.snapshot()
    assert (snapshot.published, snapshot.painted, snapshot.dropped_before_paint) == (1, 1, 0)
