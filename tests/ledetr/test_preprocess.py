"""A picture to network pixels, and boxes there and back; sizes odd, extreme and never only square."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledetr.preprocess import Placement, preprocess

# cv2 weighs with 11 bits and rounds once more than the reference does.
ONE_GREY_LEVEL = 1
# float32 holds 24 bits; pictures are up to 65535 pixels wide.
PIXEL_ROUNDING = 0.02

sides = st.integers(1, 300)


def bilinear(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Plain bilinear interpolation with pixel centres at half, in double precision."""

    def weights(source: int, target: int) -> np.ndarray:
        matrix = np.zeros((target, source))
        for i in range(target):
            x = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
            low = int(x)
            matrix[i, low] += 1 - (x - low)
            matrix[i, min(low + 1, source - 1)] += x - low
        return matrix

    rows = np.tensordot(weights(rgb.shape[0], height), rgb.astype(float), axes=1)
    return np.tensordot(weights(rgb.shape[1], width), rows, axes=(1, 1)).transpose(1, 0, 2)


@settings(deadline=None, max_examples=40)
@given(height=sides, width=sides, seed=st.integers(0, 100))
def test_equals_plain_bilinear_interpolation(height: int, width: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels, placement = preprocess(rgb, (64, 96))
    assert pixels.shape == (64, 96, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert placement == Placement((height, width), (64, 96))
    assert np.abs(pixels - bilinear(rgb, 64, 96)).max() <= ONE_GREY_LEVEL


def test_the_right_size_is_left_as_it_is() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    rgb.flags.writeable = False
    pixels, _ = preprocess(rgb, (32, 64))
    assert np.array_equal(pixels, rgb)
    turned = rgb.transpose(1, 0, 2)
    assert preprocess(turned, (64, 32))[0].flags.c_contiguous


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_anything_but_an_rgb_picture_is_refused(rgb: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"rgb must be a non-empty \(H, W, 3\) uint8 array, got \("):
        preprocess(rgb, (32, 32))


def test_placement_by_hand() -> None:
    placement = Placement(source_hw=(480, 640), input_hw=(416, 416))
    boxes = placement.to_source(np.array([[0.25, 0.5, 0.75, 1.0]]))
    assert boxes.tolist() == [[160, 240, 480, 480]] and boxes.dtype == np.float32
    assert placement.to_input(boxes).tolist() == [[0.25, 0.5, 0.75, 1.0]]
    assert placement.to_source(np.zeros((0, 4))).shape == (0, 4)
    assert placement.to_source(np.array([[-0.5, -0.1, 1.5, 2.0]])).tolist() == [[0, 0, 640, 480]]


@given(
    height=st.integers(1, 65535),
    width=st.integers(1, 65535),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_there_and_back(height: int, width: int, corners: tuple[float, ...]) -> None:
    placement = Placement((height, width), (416, 640))
    boxes = np.array([corners]) * [width, height, width, height]
    np.testing.assert_allclose(placement.to_source(placement.to_input(boxes)), boxes, atol=PIXEL_ROUNDING)


def test_a_mark_in_the_picture_lands_where_placement_says() -> None:
    """A white square in a black picture of an odd shape: its edges in network pixels, taken back, are its edges."""
    rgb = np.zeros((181, 333, 3), np.uint8)
    rgb[60:120, 100:200] = 255
    pixels, placement = preprocess(rgb, (96, 160))
    rows, columns = (np.flatnonzero(pixels[..., 0].max(axis) > 127) for axis in (1, 0))
    edges = np.array([[columns[0] / 160, rows[0] / 96, (columns[-1] + 1) / 160, (rows[-1] + 1) / 96]])
    one_network_pixel = 333 / 160
    np.testing.assert_allclose(placement.to_source(edges), [[100, 60, 200, 120]], atol=one_network_pixel)
