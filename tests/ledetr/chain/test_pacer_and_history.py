from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr.chain.clock import FakeClock
from ledetr.chain.history import History
from ledetr.chain.pacer import Pacer
from ledetr.frame import Frame, FrameMeta

MS = 1_000_000


def test_frames_are_due_by_their_own_times() -> None:
    clock = FakeClock(7)
    pacer = Pacer(clock)
    assert pacer.due_ns(Fraction(100), may_slip=False) == 7  # the first is due at once, wherever its clock begins
    assert pacer.due_ns(Fraction(100) + Fraction(1001, 24000), may_slip=False) == 7 + 41_708_333
    assert pacer.due_ns(Fraction(160), may_slip=False) == 7 + 60_000_000_000  # a long gap is real


def test_speed_and_its_range() -> None:
    clock = FakeClock()
    pacer = Pacer(clock, speed=4.0)
    assert pacer.now() is None
    pacer.due_ns(Fraction(0), may_slip=False)
    assert pacer.due_ns(Fraction(1), may_slip=False) == 250 * MS
    clock.advance(125 * MS)
    assert pacer.now() == Fraction(1, 2)
    pacer.set_speed(0.5)
    assert pacer.due_ns(Fraction(1), may_slip=False) == 125 * MS
    assert pacer.due_ns(Fraction(2), may_slip=False) == 2125 * MS
    for speed in (0, -1, 100, float("nan")):
        with pytest.raises(ValueError, match="speed must be"):
            pacer.set_speed(speed)


def test_a_little_late_is_caught_up_and_much_is_given_up() -> None:
    clock = FakeClock()
    pacer = Pacer(clock)
    pacer.due_ns(Fraction(0), may_slip=False)
    clock.advance(200 * MS)
    assert pacer.due_ns(Fraction(1, 10), may_slip=False) == 100 * MS  # late: shown at once, the plan stands
    assert pacer.due_ns(Fraction(3, 10), may_slip=False) == 300 * MS
    clock.advance(1000 * MS)
    assert pacer.due_ns(Fraction(4, 10), may_slip=False) == 1200 * MS  # a new plan, from now
    assert pacer.due_ns(Fraction(5, 10), may_slip=False) == 1300 * MS


def test_where_no_frame_may_be_missed_the_plan_slips() -> None:
    clock = FakeClock()
    pacer = Pacer(clock)
    pacer.due_ns(Fraction(0), may_slip=True)
    clock.advance(150 * MS)
    assert pacer.due_ns(Fraction(1, 10), may_slip=True) == 150 * MS
    assert pacer.due_ns(Fraction(2, 10), may_slip=True) == 250 * MS


def frame(pts: int, side: int = 4) -> Frame:
    meta = FrameMeta("s", 0, pts, pts, Fraction(1, 10), 0, side, side)
    return Frame(meta, np.zeros((side, side, 3), np.uint8))


def test_walking_in_the_history() -> None:
    history = History(10**6)
    assert (history.upcoming(), history.previous()) == (None, None)
    frames = [frame(i) for i in range(3)]
    for one in frames:
        history.append(one)
    assert history.upcoming() is frames[0]
    history.move_to(frames[1])
    assert (history.previous(), history.upcoming()) == (frames[0], frames[2])
    history.clear()
    assert (history.upcoming(), history.previous()) == (None, None)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=80), st.integers(0, 2000))
def test_the_history_keeps_its_bounds(gaps: list[int], max_bytes: int) -> None:
    history = History(max_bytes)
    pts, frames = 0, []
    for gap in gaps:
        pts += gap
        frames.append(frame(pts))
        history.append(frames[-1])
        history.move_to(frames[-1])
    back = []
    while (previous := history.previous()) is not None:
        back.append(previous)
        history.move_to(previous)
    kept = [*back[::-1], frames[-1]]
    assert kept == frames[-len(kept) :]
    # When a frame comes, what lies over the bounds before the one shown goes; the new one then stands on top.
    assert sum(one.rgb.nbytes for one in kept) <= max(max_bytes, 48) + 48
    assert len(kept) <= 2 or kept[-2].meta.pts - kept[0].meta.pts <= 20
