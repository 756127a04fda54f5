import threading

import pytest

from ledetr.chain.clock import FakeClock, MonotonicClock


def test_monotonic_clock_waits_for_its_time() -> None:
    clock = MonotonicClock()
    until = clock.now_ns() + 5_000_000
    assert clock.sleep_until(until, threading.Event())
    assert clock.now_ns() >= until


def test_monotonic_clock_stops_at_once() -> None:
    clock, stop = MonotonicClock(), threading.Event()
    stop.set()
    assert not clock.sleep_until(clock.now_ns() + 60_000_000_000, stop)
    assert not clock.sleep_until(0, stop)


def test_fake_clock_moves_only_when_advanced(wait_until) -> None:
    clock, woke = FakeClock(100), threading.Event()
    sleeper = threading.Thread(target=lambda: clock.sleep_until(150, threading.Event()) and woke.set(), name="sleeper")
    sleeper.start()
    wait_until(lambda: clock.sleepers() == {"sleeper": 150})
    clock.advance(49)
    assert clock.now_ns() == 149 and not woke.is_set()
    clock.advance(1)
    sleeper.join(5)
    assert woke.is_set() and clock.sleepers() == {}


def test_fake_clock_sees_a_stop() -> None:
    clock, stop = FakeClock(), threading.Event()
    answers: list[bool] = []
    sleeper = threading.Thread(target=lambda: answers.append(clock.sleep_until(10, stop)))
    sleeper.start()
    stop.set()
    sleeper.join(5)
    assert answers == [False]


def test_fake_clock_cannot_go_back() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        FakeClock().advance(-1)
