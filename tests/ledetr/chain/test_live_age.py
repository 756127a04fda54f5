"""Never late, never growing: half an hour of a live source on the fake clock, with a model slower than the source."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ledetr.chain.clock import FakeClock
from ledetr.chain.mailbox import Mailbox
from ledetr.chain.pipeline import Pipeline
from ledetr.chain.sources import VideoSpec

PERIOD_NS = 1_000_000_000 // 30
MS = 1_000_000


@dataclass
class Simulation:
    """A live source at 30 fps, a model that takes infer_ms, and a clock that jumps from event to event."""

    source_class: Any
    detector_class: Any
    infer_ms: float
    on_result: Callable[["Simulation"], None] = lambda _: None
    clock: FakeClock = field(default_factory=FakeClock)
    ages: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.never = threading.Event()
        self.detector = self.detector_class(work=self._infer)
        self.pipeline = Pipeline(
            self.detector, clock=self.clock, opener=self._open, on_result=lambda: self.on_result(self)
        )

    def _open(self, _: Any, *, clock: Any, epoch: int) -> Any:
        self.source = self.source_class(
            count=None, rate=Fraction(30), live=True, clock=clock, epoch=epoch, before_read=self._wait_for_frame
        )
        return self.source

    def _wait_for_frame(self, number: int) -> None:
        self.clock.sleep_until(number * PERIOD_NS, self.source.interrupted)

    def _infer(self) -> None:
        self.clock.sleep_until(self.clock.now_ns() + int(self.infer_ms * MS), self.never)
        self.detector.seen.clear()

    def run(self, seconds: float) -> None:
        """Open, let the time pass, and stop the world (not the threads) at a moment when nothing moves."""
        self.pipeline.open(VideoSpec(Path("live")))
        self.mailbox: Mailbox[Any] = self.pipeline._session.mailbox
        while self.clock.now_ns() < seconds * 1e9:
            wakes = self._wait_until_all_sleep()
            self.clock.advance(min(wakes) - self.clock.now_ns())
        self._wait_until_all_sleep()

    def _wait_until_all_sleep(self) -> list[int]:
        # Nothing moves when the source waits for its next frame, so that the last one was handed over, and the
        # inference thread is in the model or waits at an empty mailbox.
        end = time.monotonic() + 30
        while True:
            sleepers = self.clock.sleepers()
            if "source live" in sleepers and (
                "inference" in sleepers or (self.mailbox.waiting and not len(self.mailbox))
            ):
                return list(sleepers.values())
            assert time.monotonic() < end, f"something hangs: {sleepers}"
            time.sleep(0)

    def in_flight(self) -> int:
        return len(self.mailbox) + ("inference" in self.clock.sleepers())


@pytest.fixture
def simulate(scripted_source, fake_detector) -> Callable[..., Simulation]:
    made: list[Simulation] = []

    def make(**kwargs: Any) -> Simulation:
        made.append(Simulation(scripted_source, fake_detector, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.never.set()
        one.pipeline.close()


def paint_at_once(simulation: Simulation) -> None:
    result = simulation.pipeline.latest()
    simulation.pipeline.painted(result)
    simulation.ages.append((result.timings.painted_ns, (result.timings.painted_ns - result.timings.captured_ns) / MS))


def slope_ms_per_half_hour(ages: list[tuple[int, float]]) -> float:
    at_s, age_ms = np.array(ages).T
    return float(np.polyfit(at_s / 1e9, age_ms, 1)[0] * 1800)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_age_is_bounded_for_half_an_hour(simulate) -> None:
    rss: dict[int, int] = {}

    def on_result(simulation: Simulation) -> None:
        paint_at_once(simulation)
        if len(simulation.ages) % 3000 == 0:
            rss[len(simulation.ages)] = psutil.Process().memory_info().rss

    simulation = simulate(infer_ms=100, on_result=on_result)
    simulation.run(1800)
    ages = [age for _, age in simulation.ages]
    # A frame waits at most one inference less the wait for a newer one, that is one period, and then is looked at.
    assert min(ages) >= 100 and max(ages) <= 100 + PERIOD_NS / MS + 0.001
    assert abs(slope_ms_per_half_hour(simulation.ages)) < 1
    meters = simulation.pipeline.meters.snapshot()
    assert meters.captured == meters.published + meters.dropped_before_inference + simulation.in_flight()
    assert meters.published == meters.painted == len(ages) and meters.captured > 53_900
    assert meters.age_p95_ms <= 134 and meters.capture_fps == pytest.approx(30, abs=0.6)
    # From minute 7 to minute 29. The ages that this test keeps are 9000 small tuples of it, about 1 MB.
    assert rss[12000] - rss[3000] < 3 * 2**20


@pytest.mark.parametrize("infer_ms", [10, 100, 500])
def test_age_and_counts(simulate, infer_ms) -> None:
    simulation = simulate(infer_ms=infer_ms, on_result=paint_at_once)
    simulation.run(20)
    ages = [age for _, age in simulation.ages]
    assert infer_ms <= min(ages) and max(ages) <= infer_ms + PERIOD_NS / MS + 0.001
    meters = simulation.pipeline.meters.snapshot()
    assert meters.captured == meters.published + meters.dropped_before_inference + simulation.in_flight()
    assert meters.discarded == 0
    assert (meters.dropped_before_inference == 0) == (infer_ms < 33)
    assert meters.infer_fps == pytest.approx(min(30, 1000 / infer_ms), abs=0.6)


def test_the_test_can_fail(simulate, monkeypatch) -> None:
    """With a queue in the mailbox's place, as others build it, the age grows without end."""

    class Queue(Mailbox):
        def put(self, item: Any) -> bool:
            with self._changed:
                self._items.append((item, 0))
                self._changed.notify_all()
                return True

    monkeypatch.setattr("ledetr.chain.session.Mailbox", Queue)
    simulation = simulate(infer_ms=100, on_result=paint_at_once)
    simulation.run(20)
    assert simulation.ages[-1][1] > 10_000 and slope_ms_per_half_hour(simulation.ages) > 100_000


def test_a_slow_painter_holds_nobody_up_and_what_it_misses_is_counted(simulate) -> None:
    """Paint takes 500 ms; what waits for it is one result, the newest, never a line of them."""
    free_at_ns = [0]

    def paint_when_free(simulation: Simulation) -> None:
        if simulation.clock.now_ns() >= free_at_ns[0]:
            simulation.pipeline.painted(simulation.pipeline.latest())
            free_at_ns[0] = simulation.clock.now_ns() + 500 * MS

    simulation = simulate(infer_ms=10, on_result=paint_when_free)
    simulation.run(30)
    meters = simulation.pipeline.meters.snapshot()
    assert meters.infer_fps == pytest.approx(30, abs=1) and meters.render_fps == pytest.approx(2, abs=0.5)
    assert meters.dropped_before_inference == 0
    unpainted = meters.published - meters.painted - meters.dropped_before_paint
    assert 0 <= unpainted <= 15 and meters.dropped_before_paint > 700
    assert meters.dropped == meters.dropped_before_paint
    assert meters.age_p95_ms < 11  # each picture that is painted was the newest
