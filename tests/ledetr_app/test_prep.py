from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr.chain.pipeline import Result
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta
from ledetr_app.prep import DisplayPrep, fitted_size, prepare


def result_of(rgb):
    meta = FrameMeta("s", 0, 0, 0, Fraction(1, 30), 0, rgb.shape[1], rgb.shape[0])
    return Result(Frame(meta, rgb), Detections.empty())


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


@given(sides, sides, sides, sides)
def test_fits_in_the_room_and_touches_it(source_w, source_h, room_w, room_h):
    width, height = fitted_size((source_w, source_h), (room_w, room_h))
    assert 1 <= width <= room_w
    assert 1 <= height <= room_h
    assert width == room_w or height == room_h


def test_prepared_pixels_are_blue_green_red_in_screen_size():
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[...] = (10, 20, 30)
    picture = prepare(result_of(rgb), (30, 30))
    assert picture.bgrx.shape == (20, 30, 4)
    assert picture.bgrx.flags.c_contiguous
    assert picture.bgrx[5, 5].tolist() == [30, 20, 10, 255]
    assert picture.size_wh == (30, 20)


def test_same_size_keeps_every_pixel():
    rgb = np.random.default_rng(0).integers(0, 256, (33, 57, 3), np.uint8)
    assert np.array_equal(prepare(result_of(rgb), (57, 33)).bgrx[..., 2::-1], rgb)


def test_takes_the_newest_at_the_newest_size(wait_for):
    newest = [None]
    ready = []
    prep = DisplayPrep(lambda: newest[0], lambda: ready.append(prep.picture))
    try:
        newest[0] = result_of(np.zeros((20, 40, 3), np.uint8))
        prep.set_room(80, 80)
        wait_for(lambda: prep.picture is not None and prep.picture.size_wh == (80, 40))
        prep.set_room(40, 80)
        wait_for(lambda: prep.picture.size_wh == (40, 20))
        assert prep.picture.result is newest[0]
        count = prep.prepared
        prep.poke()  # nothing is newer: nothing is done
        newest[0] = None
        prep.poke()
        wait_for(lambda: prep.picture is None)
        assert prep.prepared == count
        assert ready[-1] is None
    finally:
        assert prep.close()
