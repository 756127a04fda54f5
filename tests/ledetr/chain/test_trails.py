"""Trails bounded by seconds, marks of zones, and the number of tracks."""

import numpy as np
import pytest

from ledetr.chain.overlay import (
    BoxMark,
    LabelMark,
    PathMark,
    Style,
    class_colour,
    draw_marks,
    marks_of,
    track_colour,
)
from ledetr.chain.trails import TrackView, Trails
from ledetr.detections import Detections
from ledetr.tracking import Tracking
from ledetr.zones import Line, Zone, ZonePlan

SIZE = (100, 200)


def tracked(*rows: tuple[int, float, float]) -> Detections:
    """Boxes 4 wide and 10 high that stand on these points: (id, x, y of the foot)."""
    return Detections(
        np.array([[x - 2, y - 10, x + 2, y] for _, x, y in rows], np.float32).reshape(-1, 4),
        np.full(len(rows), 0.9, np.float32),
        np.zeros(len(rows), np.int64),
        tracker_id=np.array([i for i, _, _ in rows], np.int64),
        class_names=("person",),
    )


def test_a_trail_is_the_way_of_the_feet_in_the_last_seconds() -> None:
    trails = Trails(length_s=1.0)
    for i in range(7):
        trails.add(tracked((3, 10.0 * i, 50), (-1, 5, 5)), 0.3 * i)
    (path,) = trails.marks(SIZE)
    assert isinstance(path, PathMark) and not path.closed and path.colour_rgb == track_colour(3)
    assert path.points_xy == ((30, 50), (40, 50), (50, 50), (60, 50))  # 0.9 s, at uneven times as well
    assert trails.marks(SIZE, by_track=False)[0].colour_rgb == class_colour(0)


def test_trails_end_with_time_and_at_a_jump_back() -> None:
    trails = Trails(length_s=1.0)
    for pts_s in (0.0, 0.1, 0.2):
        trails.add(tracked((1, 50, 50)), pts_s)
    trails.add(tracked(), 1.1)
    assert len(trails.marks(SIZE)[0].points_xy) == 2
    trails.add(tracked(), 1.3)
    assert trails.marks(SIZE) == [] and not trails._points and not trails._class_id
    trails.add(tracked((1, 50, 50)), 1.4)
    trails.add(tracked((1, 50, 50)), 0.0)
    assert trails.marks(SIZE) == []


def test_a_length_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="length_s is a number of seconds"):
        Trails(float("inf"))


def test_ids_stand_in_labels_and_colour_boxes() -> None:
    found = tracked((12, 50, 50), (-1, 150, 50))
    marks = marks_of(found, conf=0, by_track=True, size_hw=(1080, 1920))
    assert [mark.text for mark in marks if isinstance(mark, LabelMark)] == ["person 0.90", "#12 person 0.90"]
    boxes = [mark.colour_rgb for mark in marks if isinstance(mark, BoxMark)]
    assert boxes == [class_colour(0), track_colour(12)] and boxes[0] != boxes[1]
    only_ids = marks_of(found, conf=0, labels=False, size_hw=(1080, 1920))
    assert [mark.text for mark in only_ids if isinstance(mark, LabelMark)] == ["#12"]
    no_ids = marks_of(found, conf=0, ids=False, scores=False, size_hw=(1080, 1920))
    assert [mark.text for mark in no_ids if isinstance(mark, LabelMark)] == ["person", "person"]


@pytest.mark.parametrize("closed", [False, True])
def test_a_path_is_drawn_through_its_points(closed: bool) -> None:
    rgb = np.full((100, 200, 3), 128, np.uint8)
    draw_marks(rgb, [PathMark(((20, 20), (180, 20), (180, 80)), (255, 0, 0), 2, closed)])
    red = (rgb == [255, 0, 0]).all(-1)
    assert red[20, 30:170].all() and red[30:70, 180].all()
    middle = red[48:53, 98:103].any()  # the way back from the last point to the first
    assert middle == closed
    assert (rgb[90:] == 128).all()


def test_a_path_may_leave_the_picture() -> None:
    rgb = np.zeros((50, 50, 3), np.uint8)
    draw_marks(rgb, [PathMark(((-40.0, 25.0), (90.0, 25.0)), (0, 255, 0), 2)])
    assert (rgb[25, :] == [0, 255, 0]).all()


PLAN = ZonePlan((Zone("door", ((0.5, 0), (1, 0), (1, 1), (0.5, 1))),), (Line("gate", (0.5, 0), (0.5, 1)),))


def test_a_view_draws_zones_then_trails_then_boxes_and_counts() -> None:
    view = TrackView(Style(0.5, by_track=True), Tracking(), PLAN)
    for i in range(5):
        marks = view.marks(tracked((1, 60 + 20 * i, 50), (4, 20, 90)), i / 10, SIZE)
    kinds = [type(mark) for mark in marks]
    assert kinds.index(BoxMark) > max(i for i, kind in enumerate(kinds) if kind is PathMark)
    paths = [mark for mark in marks if isinstance(mark, PathMark)]
    assert paths[0].points_xy == ((100, 0), (200, 0), (200, 100), (100, 100)) and paths[0].closed
    assert paths[1].points_xy == ((100, 0), (100, 100)) and not paths[1].closed
    texts = [mark.text for mark in marks if isinstance(mark, LabelMark)]
    assert texts[:2] == ["door: now 1 in 1 out 0", "gate: in 0 out 1"]
    assert view.tracks == 2
    assert [(shape.name, dict(shape.entered), dict(shape.left)) for shape in view.zones] == [
        ("door", {"person": 1}, {}),
        ("gate", {}, {"person": 1}),
    ]


def test_tracks_are_counted_once_in_any_order() -> None:
    view = TrackView(Style(0.5), Tracking(), None)
    for i, ids in enumerate(([5], [5, 2], [2, 7], [3], [3, 5, 7], [1])):
        view.marks(tracked(*((k, 10 * k, 50) for k in ids)), float(i), SIZE)
    assert view.tracks == 5


def test_without_tracking_there_are_only_the_marks_of_the_style() -> None:
    style = Style(0.5)
    found = tracked((1, 50, 50))
    view = TrackView(style, None, None)
    assert view.marks(found, 0.0, SIZE) == style.marks(found, SIZE) and view.zones == () and view.tracks == 0
    with pytest.raises(ValueError, match="zones count tracks"):
        TrackView(style, None, PLAN)
