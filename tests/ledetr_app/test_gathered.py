"""What was gathered: bounded, in order, each frame once; the rows that a plain list of all boxes would give."""

from fractions import Fraction

import numpy as np
import pytest

from ledetr.chain.pipeline import Result
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta
from ledetr_app.class_filter import ClassFilter
from ledetr_app.gathered import NO_INDEX, NO_TRACK, Gathered

ALL = ClassFilter(0.0)
NAMES = ("person", "dog")
RGB = np.zeros((8, 8, 3), np.uint8)


def result(pts: int, number: int = 0, index: int | None = None) -> Result:
    meta = FrameMeta("clip", 1, 0, pts, Fraction(1, 10), 0, 8, 8, index=index)
    return Result(Frame(meta, RGB), Detections.empty(), number=number)


def boxes(*rows: tuple[int, float, int | None], model_id: str = "n", names: tuple[str, ...] = NAMES) -> Detections:
    """(class id, score, track) of each; the box is [class id, 0, 4, score]."""
    tracks = [row[2] for row in rows]
    return Detections(
        np.array([[c, 0, 4, s] for c, s, _ in rows], np.float32).reshape(-1, 4),
        np.array([s for _, s, _ in rows], np.float32),
        np.array([c for c, _, _ in rows], np.int64),
        None if None in tracks else np.array(tracks, np.int64),
        class_names=names,
        category_ids=(1, 18),
        model_id=model_id,
    )


def test_rows_are_in_the_order_of_time_whatever_was_looked_at_first() -> None:
    gathered = Gathered()
    for pts in (5, 6, 1, 2):
        gathered.add(result(pts, index=pts), boxes((0, 0.9, None), (1, pts / 10, None)))
    rows = gathered.rows(ALL, by_track=False)
    assert rows.pts_s.tolist() == [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.6, 0.6]
    assert rows.index.tolist() == [1, 1, 2, 2, 5, 5, 6, 6]
    assert rows.score[1::2] == pytest.approx([0.1, 0.2, 0.5, 0.6])
    assert [rows.name(row) for row in range(2)] == ["person", "dog"]
    assert rows.xyxy[1].tolist() == pytest.approx([1, 0, 4, 0.1])
    assert (rows.track == NO_TRACK).all()


def test_a_frame_that_comes_again_takes_the_place_of_the_old_one() -> None:
    gathered = Gathered()
    gathered.add(result(3), boxes((0, 0.9, None), (0, 0.8, None)))
    gathered.add(result(4), boxes((0, 0.7, None)))
    gathered.add(result(3), boxes((1, 0.6, None)))
    rows = gathered.rows(ALL, by_track=False)
    assert rows.class_id.tolist() == [1, 0]
    assert (len(gathered), rows.index.tolist()) == (2, [NO_INDEX, NO_INDEX])


def test_a_live_clock_that_begins_anew_replaces_nothing() -> None:
    gathered = Gathered()
    gathered.begin(live=True)
    for number, pts in enumerate((8, 9, 0, 1), 1):
        gathered.add(result(pts, number), boxes((0, 0.9, None)))
    assert gathered.rows(ALL, by_track=False).pts_s.tolist() == [0.8, 0.9, 0.0, 0.1]


def test_the_filter_acts_on_what_is_there() -> None:
    gathered = Gathered()
    gathered.add(result(1), boxes((0, 0.9, None), (1, 0.4, None)))
    assert len(gathered.rows(ClassFilter(0.5), by_track=False)) == 1
    assert gathered.rows(ClassFilter(0.1, shown=frozenset({"dog"})), by_track=False).class_id.tolist() == [1]
    (picture,) = gathered.pictures(ClassFilter(0.5))
    assert picture.detections.names == ["person"]


def test_tracks_have_one_row_each_from_first_to_last_sight() -> None:
    gathered = Gathered()
    gathered.add(result(3, index=3), boxes((1, 0.5, 7), (0, 0.9, 2)))
    gathered.add(result(1, index=1), boxes((1, 0.7, 7), (0, 0.9, NO_TRACK)))
    rows = gathered.rows(ALL, by_track=True)
    assert rows.track.tolist() == [2, 7]
    assert rows.pts_s.tolist() == [0.3, 0.1] and rows.last_s.tolist() == [0.3, 0.3]
    assert rows.index.tolist() == [3, 1] and rows.frames.tolist() == [1, 2]
    assert rows.score == pytest.approx([0.9, 0.6]) and [rows.name(row) for row in range(2)] == ["person", "dog"]
    assert gathered.has_tracks


def test_ids_that_begin_anew_are_not_mixed_with_those_of_before() -> None:
    gathered = Gathered()
    gathered.add(result(1), boxes((0, 0.9, 1)))
    before = gathered.version
    gathered.forget_ids()
    gathered.add(result(2), boxes((1, 0.9, 1)))
    assert gathered.version > before + 1
    assert gathered.rows(ALL, by_track=False).track.tolist() == [NO_TRACK, 1]
    assert gathered.rows(ALL, by_track=True).class_id.tolist() == [1]


@pytest.mark.parametrize("limits", [(8, 1000), (1000, 30)], ids=["frames", "boxes"])
def test_memory_is_bounded_and_the_newest_stay(limits: tuple[int, int]) -> None:
    gathered = Gathered(most_frames=limits[0], most_boxes=limits[1])
    rng, kept = np.random.default_rng(1), []
    for pts in range(400):
        count = int(rng.integers(0, 5))
        gathered.add(result(pts, index=pts), boxes(*[(0, round(0.2 + 0.1 * i, 1), None) for i in range(count)]))
        kept += [(pts / 10, pts)] * count
    rows = gathered.rows(ALL, by_track=False)
    assert 0 < len(rows) <= limits[1] and len(gathered) <= limits[0]
    # Whatever is left is the end of the plain list of all that was ever added.
    assert list(zip(rows.pts_s.tolist(), rows.index.tolist(), strict=True)) == kept[-len(rows) :]
    assert rows.let_go + len(gathered) == 400
    assert gathered.nbytes < 256 * 100 + 1024 * 60


def test_more_boxes_in_one_frame_than_fit_are_cut_to_the_best() -> None:
    gathered = Gathered(most_boxes=40)
    gathered.add(result(1), boxes(*[(0, 1 - i / 100, None) for i in range(60)]))
    scores = gathered.rows(ALL, by_track=False).score
    assert len(scores) == 10 and scores.min() > 0.9


def test_pictures_hold_frames_without_boxes_too_and_number_themselves_where_the_source_cannot() -> None:
    gathered = Gathered()
    gathered.add(result(9), boxes())
    gathered.add(result(4), boxes((1, 0.4, 3)))
    first, second = gathered.pictures(ALL)
    assert (first.index, first.pts_s, second.index, second.pts_s) == (0, 0.4, 1, 0.9)
    assert first.detections.track_of(0) == 3 and first.detections.category_ids == (1, 18)
    assert len(second.detections) == 0
    gathered.begin()
    gathered.add(result(4, index=40), boxes((1, 0.4, 3)))
    assert [picture.index for picture in gathered.pictures(ALL)] == [40]


def test_models_with_the_same_names_go_on_and_others_begin_anew() -> None:
    gathered = Gathered()
    gathered.add(result(1), boxes((0, 0.9, None)))
    gathered.add(result(2), boxes((0, 0.9, None), model_id="m"))
    assert (gathered.models, len(gathered)) == (("n", "m"), 2)
    gathered.add(result(3), boxes((0, 0.9, None), model_id="mine", names=("cat",)))
    assert (gathered.models, len(gathered), gathered.class_names) == (("mine",), 1, ("cat",))


def test_version_grows_with_each_change() -> None:
    gathered = Gathered()
    before = gathered.version
    gathered.add(result(1), boxes())
    assert gathered.version > before
