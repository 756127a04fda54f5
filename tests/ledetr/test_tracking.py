"""Ids on hand-made tracks, association against every possible pairing, and what must hold for any input."""

import importlib.util
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledetr.detections import Detections
from ledetr.frame import FrameMeta
from ledetr.tracking import NO_TRACK, Tracker, Tracking

PERSON, CAR = 0, 1
NAMES = ("person", "car")
Row = tuple[float, float, float, int]  # centre x, centre y, score, class


def found(*rows: Row, size: tuple[float, float] = (20, 50), names: tuple[str, ...] = NAMES) -> Detections:
    """Boxes of one size around these centres, best score first as the detector gives them."""
    ordered = sorted(rows, key=lambda row: -row[2])
    centre = np.array([row[:2] for row in ordered], np.float64).reshape(-1, 2)
    half = np.array(size) / 2
    return Detections(
        np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
        np.array([row[2] for row in ordered], np.float32),
        np.array([row[3] for row in ordered], np.int64),
        class_names=names,
    )


def ids(detections: Detections) -> list[int]:
    assert detections.tracker_id is not None
    return detections.tracker_id.tolist()


def meta(pts: int, *, source: str = "a", epoch: int = 0, discontinuity: bool = False) -> FrameMeta:
    return FrameMeta(source, epoch, 0, pts, Fraction(1, 10), 0, 640, 480, discontinuity=discontinuity)


def test_one_walker_keeps_one_id() -> None:
    tracker = Tracker()
    assert [ids(tracker.update(found((100 + 5 * i, 100, 0.9, PERSON)), i / 30)) for i in range(20)] == [[1]] * 20


def test_boxes_scores_and_order_stay_as_they_were() -> None:
    before = found((50, 60, 0.4, CAR), (200, 60, 0.9, PERSON))
    after = Tracker().update(before, 0.0)
    assert after.xyxy is before.xyxy and after.confidence is before.confidence and after.names == ["person", "car"]
    assert before.tracker_id is None


def test_frames_without_boxes() -> None:
    tracker = Tracker()
    assert ids(tracker.update(Detections.empty(), 0.0)) == []
    assert ids(tracker.update(found((50, 60, 0.9, PERSON)), 0.1)) == [NO_TRACK]  # seen once may be nothing
    assert ids(tracker.update(found((50, 60, 0.9, PERSON)), 0.2)) == [1]
    assert ids(tracker.update(Detections.empty(), 0.3)) == []
    assert ids(tracker.update(found((50, 60, 0.9, PERSON)), 0.4)) == [1]


def test_a_box_of_one_frame_uses_up_no_id() -> None:
    tracker = Tracker()
    tracker.update(found((50, 60, 0.9, PERSON)), 0.0)
    assert ids(tracker.update(found((50, 60, 0.9, PERSON), (300, 60, 0.8, PERSON)), 0.1)) == [1, NO_TRACK]
    for i in range(2, 4):
        last = tracker.update(found((50, 60, 0.9, PERSON), (500, 60, 0.8, PERSON)), i / 10)
    assert ids(last) == [1, 2]
    eager = Tracker(Tracking(confirm_frames=1))
    eager.update(found((50, 60, 0.9, PERSON)), 0.0)
    assert ids(eager.update(found((50, 60, 0.9, PERSON), (300, 60, 0.8, PERSON)), 0.1)) == [1, 2]


def test_two_who_cross_keep_their_ids() -> None:
    """At frame 20 they stand in the same place: only their speed tells them apart."""
    tracker = Tracker()
    for i in range(41):
        left, right = (100 + 5 * i, 100, 0.9, PERSON), (300 - 5 * i, 104, 0.8, PERSON)
        assert ids(tracker.update(found(left, right), i / 30)) == [1, 2], f"frame {i}"


@pytest.mark.parametrize(("hidden_s", "expected"), [(0.5, 1), (1.4, 1), (1.7, 2)])
def test_who_comes_back_within_the_buffer_is_the_same(hidden_s: float, expected: int) -> None:
    tracker = Tracker(Tracking(buffer_s=1.5))
    seen_s = [i / 30 for i in range(30)]
    for pts_s in seen_s:
        tracker.update(found((100 + 60 * pts_s, 100, 0.9, PERSON)), pts_s)
    back_s = seen_s[-1] + hidden_s
    for pts_s in np.arange(seen_s[-1] + 1 / 30, back_s - 1e-9, 1 / 30):
        tracker.update(Detections.empty(), float(pts_s))
    for pts_s in (back_s, back_s + 1 / 30):
        last = tracker.update(found((100 + 60 * pts_s, 100, 0.9, PERSON)), pts_s)
    assert ids(last) == [expected]


@pytest.mark.parametrize("step_s", [1 / 60, 1 / 25, 0.2])
@pytest.mark.parametrize(("hidden_s", "expected"), [(0.8, 1), (1.3, 2)])
def test_the_buffer_is_seconds_at_any_rate(step_s: float, hidden_s: float, expected: int) -> None:
    tracker = Tracker(Tracking(buffer_s=1.0))
    for i in range(10):
        tracker.update(found((100, 100, 0.9, PERSON)), i * step_s)
    last_s = 9 * step_s
    pts_s = last_s + step_s
    while pts_s < last_s + hidden_s:
        tracker.update(Detections.empty(), pts_s)
        pts_s += step_s
    for i in range(2):
        last = tracker.update(found((100, 100, 0.9, PERSON)), last_s + hidden_s + i * step_s)
    assert ids(last) == [expected]


def test_variable_rate_is_followed_by_time_not_by_frame() -> None:
    """The runner is 60 px on after the long gaps: three widths, found only where speed and time are known."""
    tracker = Tracker()
    times_s = np.cumsum([0.0, *[0.03] * 15, 0.3, 0.03, 0.03, 0.3, 0.01, 0.25, 0.03])
    by_time = [ids(tracker.update(found((100 + 200 * t, 100, 0.9, PERSON)), float(t))) for t in times_s]
    assert by_time == [[1]] * len(times_s)
    shuffled = Tracker()
    by_frame = [ids(shuffled.update(found((100 + 200 * t, 100, 0.9, PERSON)), i / 33)) for i, t in enumerate(times_s)]
    assert by_frame[-1] != [1]  # the same boxes with made-up times are lost, so the case does test the time


def test_a_class_is_never_left_unless_asked() -> None:
    strict, loose = Tracker(), Tracker(Tracking(class_aware=False))
    for tracker, expected in ((strict, [NO_TRACK]), (loose, [1])):
        tracker.update(found((100, 100, 0.9, PERSON)), 0.0)
        assert ids(tracker.update(found((100, 100, 0.9, CAR)), 0.1)) == expected
    both = strict.update(found((100, 100, 0.9, CAR), (100, 100, 0.8, PERSON)), 0.2)
    assert ids(both) == [2, 1]


def test_a_weak_box_carries_a_track_but_begins_none() -> None:
    tracker = Tracker()
    tracker.update(found((100, 100, 0.9, PERSON)), 0.0)
    weak = tracker.update(found((102, 100, 0.2, PERSON), (300, 100, 0.2, PERSON)), 0.1)
    assert ids(weak) == [1, NO_TRACK] or ids(weak) == [NO_TRACK, 1]
    assert weak.xyxy[ids(weak).index(1), 0] == 92
    assert ids(tracker.update(found((104, 100, 0.05, PERSON)), 0.2)) == [NO_TRACK]  # below low_score


def test_a_second_box_on_the_same_thing_gets_no_id() -> None:
    tracker = Tracker()
    for i in range(4):
        last = tracker.update(found((100, 100, 0.9, PERSON), (101, 101, 0.6, PERSON)), i / 30)
    assert ids(last) == [1, NO_TRACK]


def test_start_score_is_the_detectors_unless_given() -> None:
    box = found((100, 100, 0.4, PERSON))
    assert ids(Tracker().update(box, 0.0)) == [NO_TRACK]
    assert ids(Tracker().update(box, 0.0, start_score=0.3)) == [1]
    assert ids(Tracker(Tracking(start_score=0.35)).update(box, 0.0, start_score=0.9)) == [1]


def test_a_jump_forgets_and_numbers_on_but_another_source_begins_at_one() -> None:
    tracker = Tracker()
    box = found((100, 100, 0.9, PERSON))
    assert ids(tracker.follow(box, meta(0))) == [1]
    assert ids(tracker.follow(box, meta(1))) == [1]
    assert ids(tracker.follow(box, meta(2, epoch=1))) == [2]
    assert ids(tracker.follow(box, meta(3, epoch=1, discontinuity=True))) == [3]
    assert ids(tracker.follow(box, meta(1, epoch=1))) == [4]  # the time went back
    assert ids(tracker.follow(box, meta(2, epoch=1))) == [4]
    assert ids(tracker.follow(box, meta(2, epoch=1))) == [4]  # the same frame once more
    assert ids(tracker.follow(box, meta(3, source="b", epoch=1))) == [1]


def test_another_models_classes_begin_anew() -> None:
    tracker = Tracker()
    assert ids(tracker.update(found((100, 100, 0.9, 0)), 0.0)) == [1]
    assert ids(tracker.update(found((100, 100, 0.9, 0), names=("screw", "nut")), 0.1)) == [2]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"buffer_s": -1}, "buffer_s is a number of seconds"),
        ({"buffer_s": float("nan")}, "buffer_s is a number of seconds"),
        ({"low_score": 1.5}, "low_score must be in 0..1"),
        ({"confirm_frames": 0}, "confirm_frames must be 1 or more"),
    ],
)
def test_impossible_values_are_refused(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tracking(**values)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="pts_s must be a time"):
        Tracker().update(found(), float("nan"))


def best_by_trying_all(overlap: np.ndarray, least: float) -> float:
    """Greatest sum of overlaps over all ways to pair rows with columns, pairs below least left out."""
    worth = np.where(overlap >= least, overlap, 0.0)
    worth = worth if worth.shape[0] <= worth.shape[1] else worth.T
    rows, columns = worth.shape
    return max(sum(worth[i, c] for i, c in enumerate(choice)) for choice in permutations(range(columns), rows))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.integers(0, 5), st.floats(0.05, 0.9), st.integers(0, 2**32 - 1))
def test_pairs_are_the_best_of_all(rows: int, columns: int, least: float, seed: int) -> None:
    overlap = np.random.default_rng(seed).random((rows, columns))
    r, c = Tracker().best_pairs(overlap, least)
    assert len(set(r)) == len(r) and len(set(c)) == len(c) and (overlap[r, c] >= least).all()
    assert overlap[r, c].sum() == pytest.approx(best_by_trying_all(overlap, least))


boxes = st.tuples(st.floats(0, 300), st.floats(0, 300), st.floats(0, 1), st.sampled_from([PERSON, CAR]))
clips = st.lists(st.tuples(st.floats(0, 1.5), st.lists(boxes, max_size=8)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(clips, st.booleans())
def test_any_clip_gives_unique_growing_ids_and_the_same_ones_again(clip: list, class_aware: bool) -> None:
    def run() -> list[list[int]]:
        tracker, pts_s, given_ids = Tracker(Tracking(class_aware=class_aware)), 0.0, []
        for dt_s, rows in clip:
            pts_s += dt_s
            given_ids.append(ids(tracker.update(found(*rows), pts_s)))
        return given_ids

    first = run()
    assert run() == first
    highest = 0
    for frame, (_, rows) in zip(first, clip, strict=True):
        known = [i for i in frame if i != NO_TRACK]
        assert len(frame) == len(rows) and len(set(known)) == len(known) and all(i > 0 for i in known)
        new = sorted(i for i in known if i > highest)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest = max([highest, *known])


@settings(max_examples=30, deadline=None)
@given(clips)
def test_a_class_aware_id_has_one_class(clip: list) -> None:
    tracker, pts_s = Tracker(), 0.0
    class_of: dict[int, int] = {}
    for dt_s, rows in clip:
        pts_s += dt_s
        tracked = tracker.update(found(*rows), pts_s)
        for i, label in zip(ids(tracked), tracked.class_id.tolist(), strict=True):
            assert i == NO_TRACK or class_of.setdefault(i, label) == label


def test_no_box_that_is_no_number_begins_a_track() -> None:
    broken = found((float("nan"), 100, 0.9, PERSON), (100, 100, 0.8, PERSON))
    tracker = Tracker()
    assert [ids(tracker.update(broken, i / 10)) for i in range(3)] == [[NO_TRACK, 1]] * 3


def walkers(seed: int, frames: int = 60) -> list[Detections]:
    """Six people on straight ways at 30 frames a second, each seen nine times in ten."""
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(100, 500, (6, 2)), rng.uniform(-2, 2, (6, 2))
    return [
        found(*[(*(start[k] + i * speed[k]), 0.9 - k / 100, PERSON) for k in range(6) if rng.random() < 0.9])
        for i in range(frames)
    ]


@pytest.mark.skipif(importlib.util.find_spec("trackers") is None, reason="the package trackers is not installed")
@pytest.mark.parametrize("seed", range(5))
def test_the_same_pairs_as_bytetrack_of_another_house(seed: int) -> None:
    """Ids differ in number, so what is compared is which boxes share one."""
    from trackers import ByteTrackTracker

    ours, theirs = Tracker(Tracking(buffer_s=1.0)), ByteTrackTracker(frame_rate=30, lost_track_buffer=30)
    links: dict[tuple[int, int], int] = {}
    for i, detections in enumerate(walkers(seed)):
        a = ids(ours.update(detections, i / 30))
        other = theirs.update(detections.to_supervision())
        b = {tuple(box): int(k) for box, k in zip(other.xyxy.tolist(), other.tracker_id, strict=True)}
        for box, mine in zip(detections.xyxy.tolist(), a, strict=True):
            if mine != NO_TRACK and b.get(tuple(box), -1) >= 0:
                links[mine, b[tuple(box)]] = links.get((mine, b[tuple(box)]), 0) + 1
    agreed = sum(max(n for (m, _), n in links.items() if m == mine) for mine in {m for m, _ in links})
    assert agreed >= 0.97 * sum(links.values())
