"""Zoom and pan as numbers, by hand and by what must always hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr_app.viewport import LARGEST_ZOOM, View, fitted_size, panned, place, zoomed


@pytest.mark.parametrize(
    ("source", "room", "fitted"),
    [
        ((1920, 1080), (960, 540), (960, 540)),
        ((1920, 1080), (960, 800), (960, 540)),
        ((1920, 1080), (2000, 540), (960, 540)),
        ((100, 400), (400, 400), (100, 400)),
        ((4096, 1), (100, 100), (100, 1)),
        ((1, 4096), (100, 100), (1, 100)),
    ],
)
def test_fitted_size_by_hand(source, room, fitted):
    assert fitted_size(source, room) == fitted


sides = st.integers(1, 5000)
rooms = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
sources = st.tuples(sides, sides)


@given(sides, sides, sides, sides)
def test_fits_in_the_room_and_touches_it(source_w, source_h, room_w, room_h):
    width, height = fitted_size((source_w, source_h), (room_w, room_h))
    assert 1 <= width <= room_w
    assert 1 <= height <= room_h
    assert width == room_w or height == room_h


@pytest.mark.parametrize(
    ("view", "origin", "size", "visible"),
    [
        (View(), (0, 100), (800, 400), (0, 0, 400, 200)),
        (View(1.0), (200, 200), (400, 200), (0, 0, 400, 200)),
        (View(4.0), (-400, -100), (1600, 800), (100, 25, 300, 175)),
        (View(4.0, (0.0, 0.0)), (0, 0), (1600, 800), (0, 0, 200, 150)),
        (View(4.0, (1.0, 1.0)), (-800, -200), (1600, 800), (200, 50, 400, 200)),
        (View(2.5, (0.5, 0.5)), (-100, 50), (1000, 500), (40, 0, 360, 200)),
    ],
)
def test_place_by_hand(view, origin, size, visible):
    """A picture of 400 x 200 in a room of 800 x 600."""
    placed = place(view, (400, 200), (800, 600))
    assert (placed.origin_xy, placed.size_wh, placed.visible()) == (origin, size, visible)
    assert placed.can_pan is (size[0] > 800 or size[1] > 600)


@given(sources, rooms, st.floats(0.02, LARGEST_ZOOM), st.floats(0, 1), st.floats(0, 1))
def test_what_is_visible_covers_the_room_and_no_more(source, room, zoom, x, y):
    placed = place(View(zoom, (x, y)), source, room)
    x0, y0, x1, y1 = placed.visible()
    for axis, (low, high) in enumerate(((x0, x1), (y0, y1))):
        scale, origin = placed.scale_xy[axis], placed.origin_xy[axis]
        assert 0 <= low < high <= source[axis]
        seen = max(0, origin), min(room[axis], origin + placed.size_wh[axis])
        assert origin + low * scale <= seen[0] + 1e-6
        assert origin + high * scale >= seen[1] - 1e-6
        assert (high - low) * scale <= room[axis] + 2 * scale + 1  # bounds the work and the memory of a zoomed picture
        if placed.size_wh[axis] >= room[axis]:
            assert origin <= 0 <= room[axis] <= origin + placed.size_wh[axis]  # no empty edge


@pytest.mark.parametrize("at", [(400, 300), (100, 250), (790, 320)])
def test_the_point_under_the_pointer_stays(at):
    source, room, view = (400, 200), (800, 600), View()
    before = place(view, source, room).to_source(*at)
    for _ in range(6):
        view = zoomed(view, 1.25, at, source, room)
    after = place(view, source, room)
    assert view.zoom == pytest.approx(2 * 1.25**6)
    assert after.size_wh[0] > 800 and after.size_wh[1] > 600
    assert after.to_source(*at)[0] == pytest.approx(before[0], abs=0.5)
    assert after.to_source(*at)[1] == pytest.approx(before[1], abs=20)  # the edges above and below are closed first


def test_zoom_ends_at_fit_or_full_size_and_at_the_largest():
    large, small, room = (4000, 2000), (400, 200), (800, 600)
    assert zoomed(View(0.25), 0.1, (0, 0), large, room) == View()
    assert zoomed(View(), 0.1, (0, 0), small, room).zoom == 1.0
    assert zoomed(View(30.0), 8, (0, 0), small, room).zoom == LARGEST_ZOOM
    assert zoomed(View(1.0), 2.0, (0, 0), small, room) == View()  # two is what fits


def test_pan_goes_with_the_pointer_as_far_as_the_picture_goes():
    source, room = (400, 200), (800, 600)
    moved = panned(View(4.0), (30, -20), source, room)
    assert place(moved, source, room).origin_xy == (-370, -120)
    far = panned(View(4.0), (5000, -5000), source, room)
    assert place(far, source, room).origin_xy == (0, -200)
    assert panned(far, (-10, 0), source, room) == panned(View(4.0, far.centre_xy), (-10, 0), source, room)
    assert panned(View(), (30, 30), source, room) == View()
