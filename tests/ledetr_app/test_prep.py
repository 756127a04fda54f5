from fractions import Fraction

import numpy as np
import pytest

from ledetr.chain.pipeline import Result
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta
from ledetr_app.prep import DisplayPrep, prepare
from ledetr_app.viewport import View


def result_of(rgb):
    meta = FrameMeta("s", 0, 0, 0, Fraction(1, 30), 0, rgb.shape[1], rgb.shape[0])
    return Result(Frame(meta, rgb), Detections.empty())


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


@pytest.mark.parametrize(
    ("zoom", "part", "size"),
    [(1.0, (14, 8, 44, 24), (30, 16)), (4.0, (25, 14, 33, 18), (32, 16)), (2.0, (21, 12, 37, 20), (32, 16))],
)
def test_zoomed_pictures_have_the_pixels_of_their_part_only(zoom, part, size):
    rgb = np.random.default_rng(0).integers(0, 256, (32, 58, 3), np.uint8)
    picture = prepare(result_of(rgb), (30, 16), View(zoom))
    x0, y0, x1, y1 = part
    assert (picture.part_xyxy, picture.size_wh) == (part, size)
    if zoom != 2.0:  # as they are, or each as a square; in between they are smoothed
        squares = np.kron(rgb[y0:y1, x0:x1], np.ones((int(zoom), int(zoom), 1), np.uint8))
        assert np.array_equal(picture.bgrx[..., 2::-1], squares)


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
        prep.set_view(View(2.0))
        wait_for(lambda: prep.picture.part_xyxy == (10, 0, 30, 20))
        count = prep.prepared
        prep.poke()  # nothing is newer: nothing is done
        newest[0] = None
        prep.poke()
        wait_for(lambda: prep.picture is None)
        assert prep.prepared == count
        assert ready[-1] is None
    finally:
        assert prep.close()
