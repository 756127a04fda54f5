"""Colours against the formulas of the standards, turns against NumPy, tags there and back."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ledetr.chain.colour import (
    Orientation,
    colour_of,
    orientation_of,
    orientation_of_matrix,
    output_colour,
    resolved,
    rgb_to_video_frame,
    upright_rgb,
)
from ledetr.chain.tone import to_standard_range
from ledetr.frame import Colour

# H.273 code: (Kr, Kb), from BT.709, BT.601 and BT.2020.
LUMA = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}
# One rounding at the converter and its 8-bit coefficients.
LEVELS = 1.3

PATCHES = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [255, 255, 0], [128, 128, 128], [200, 30, 90]],
    np.uint8,
)


def picture_of_patches() -> np.ndarray:
    """(16, 128, 3): eight patches of 16 x 16, so that chroma subsampling mixes nothing."""
    return np.repeat(np.repeat(PATCHES[None], 16, axis=0), 16, axis=1)


def yuv_by_formula(rgb: np.ndarray, matrix: int, full_range: bool) -> np.ndarray:
    kr, kb = LUMA[matrix]
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if full_range:
        return np.stack([255 * y, 255 * u + 128, 255 * v + 128], axis=-1)
    return np.stack([16 + 219 * y, 128 + 224 * u, 128 + 224 * v], axis=-1)


def plane(frame: av.VideoFrame, number: int) -> np.ndarray:
    data = frame.planes[number]
    return np.frombuffer(data, np.uint8).reshape(data.height, data.line_size)[:, : data.width]


@pytest.mark.parametrize("matrix", LUMA)
@pytest.mark.parametrize("full_range", [False, True])
def test_rgb_becomes_yuv_by_the_standards_formula(matrix: int, full_range: bool) -> None:
    frame = rgb_to_video_frame(picture_of_patches(), Colour(matrix=matrix, full_range=full_range))

    got = np.stack([plane(frame, 0)[8, 8::16], plane(frame, 1)[4, 4::8], plane(frame, 2)[4, 4::8]], axis=-1)
    assert np.abs(got - yuv_by_formula(PATCHES, matrix, full_range)).max() <= LEVELS
    assert colour_of(frame) == Colour(matrix=matrix, full_range=full_range)


@pytest.mark.parametrize("matrix", LUMA)
@pytest.mark.parametrize("full_range", [False, True])
def test_yuv_comes_back_as_the_same_rgb(matrix: int, full_range: bool) -> None:
    frame = rgb_to_video_frame(picture_of_patches(), Colour(matrix=matrix, full_range=full_range))

    assert np.abs(upright_rgb(frame)[8, 8::16].astype(int) - PATCHES).max() <= 2


def test_a_natural_picture_does_not_darken_on_the_way_through_rgb(clip) -> None:
    with av.open(str(clip("person_dog_aac_bt709.mp4"))) as container:
        frame = next(container.decode(video=0))
    again = rgb_to_video_frame(upright_rgb(frame), colour_of(frame))

    # swscale's fast path loses more than one level here.
    assert abs(plane(again, 0).astype(int) - plane(frame, 0)).mean() < 0.05
    assert abs(plane(again, 1).astype(int) - plane(frame, 1)).mean() < 0.1


@pytest.mark.parametrize(("height", "matrix"), [(480, 6), (719, 6), (720, 1), (1080, 1)])
def test_untagged_pictures_are_guessed_by_their_lines(height: int, matrix: int) -> None:
    assert resolved(Colour(), height) == Colour(matrix=matrix, full_range=False)


def test_what_is_tagged_is_not_guessed() -> None:
    tagged = Colour(matrix=6, full_range=True, primaries=1, transfer=1)
    assert resolved(tagged, 1080) == tagged


@pytest.mark.parametrize("height", [64, 720])
def test_an_untagged_frame_stays_untagged_and_uses_the_guess(height: int) -> None:
    red = np.full((height, 64, 3), (255, 0, 0), np.uint8)
    frame = rgb_to_video_frame(red, Colour())

    expected = yuv_by_formula(red[:1, 0], 1 if height >= 720 else 6, full_range=False)[0]
    assert abs(plane(frame, 0)[8, 8] - expected[0]) <= LEVELS
    assert colour_of(frame) == Colour()


def test_ten_bits_become_eight() -> None:
    frame = rgb_to_video_frame(picture_of_patches(), Colour(matrix=1, full_range=False), "yuv420p10le")
    assert np.abs(upright_rgb(frame)[8, 8::16].astype(int) - PATCHES).max() <= 2


def test_the_array_is_the_callers_own() -> None:
    rgb = upright_rgb(rgb_to_video_frame(picture_of_patches(), Colour()))
    assert rgb.flags.c_contiguous and rgb.flags.writeable and rgb.dtype == np.uint8


MATRICES = {
    Orientation(0): (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30),
    Orientation(1): (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30),
    Orientation(2): (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    Orientation(3): (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
    Orientation(0, mirrored=True): (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30),
}


@pytest.mark.parametrize(("orientation", "matrix"), MATRICES.items())
def test_matrices_written_by_hand(orientation: Orientation, matrix: tuple[int, ...]) -> None:
    assert orientation_of_matrix(matrix) == orientation


def test_a_matrix_of_zeros_turns_nothing() -> None:
    assert orientation_of_matrix((0,) * 9) == Orientation()


def test_width_and_height_change_places_with_a_quarter_turn() -> None:
    assert Orientation(1).upright_size(432, 768) == (768, 432)
    assert Orientation(2, mirrored=True).upright_size(432, 768) == (432, 768)


@pytest.mark.parametrize("degrees_left", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_file_turned_in_one_of_eight_ways_is_shown_upright(tmp_path: Path, degrees_left: int, mirrored: bool) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32], stored[:24, 32:], stored[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(25), options={"crf": "1"})
        stream.width, stream.height = 64, 48
        stream.set_display_rotation(degrees_left, hflip=mirrored)
        output.mux(stream.encode(rgb_to_video_frame(stored, Colour())))
        output.mux(stream.encode(None))

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    upright = upright_rgb(frame)

    # The writer says: turned to the left, then mirrored.
    expected = np.rot90(stored, degrees_left // 90)
    expected = expected[:, ::-1] if mirrored else expected
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 12  # lossy, with blurred edges between patches
    assert orientation_of(frame).mirrored == mirrored


def test_tags_of_the_source_are_the_tags_of_the_result() -> None:
    tags = Colour(matrix=6, full_range=False, primaries=6, transfer=6)
    assert output_colour(tags, 768, 432) == tags
    assert output_colour(Colour(), 480, 480) == Colour()


def test_a_guess_is_written_down_where_the_turn_would_change_it() -> None:
    assert output_colour(Colour(), stored_height=768, written_height=432) == Colour(matrix=1)


def test_curves_of_high_dynamic_range_are_not_put_on_standard_pictures() -> None:
    hdr = Colour(matrix=9, full_range=False, primaries=9, transfer=16)
    assert output_colour(hdr, 2160, 2160) == Colour(matrix=1, full_range=False, primaries=1, transfer=1)


# Codes of BT.2408 table 1: reference white (203 cd/m2) lies at 58 % of PQ and 75 % of HLG, grey (26) at 38 %.
@pytest.mark.parametrize(
    ("transfer", "level", "light"), [(16, 0.58, 1.0), (18, 0.75, 1.0), (16, 0.38, 26 / 203), (18, 0.38, 26 / 203)]
)
def test_light_of_high_dynamic_range_is_shown_at_the_standard_level(transfer: int, level: float, light: float) -> None:
    code = round(255 * level)
    shown = to_standard_range(np.full((2, 3, 3), code, np.uint8), transfer, 9)
    bent = light if light <= 0.75 else 0.75 + 0.25 * np.tanh((light - 0.75) / 0.25)
    assert shown.shape == (2, 3, 3) and np.ptp(shown) <= 1  # grey stays grey
    assert abs(int(shown[0, 0, 0]) - 255 * bent ** (1 / 2.4)) <= 4  # one step of an 8-bit PQ code is about 3 levels


@pytest.mark.parametrize("transfer", [16, 18])
def test_brighter_is_never_shown_darker(transfer: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    shown = to_standard_range(ramp, transfer, 9)[0, :, 1].astype(int)
    assert shown[0] == 0 and shown[-1] == 255 and (np.diff(shown) >= 0).all()


def test_a_frame_of_high_dynamic_range_is_read_in_standard_range() -> None:
    white = np.full((16, 16, 3), round(255 * 0.58), np.uint8)
    frame = rgb_to_video_frame(white, Colour(matrix=9, full_range=False, primaries=9, transfer=16), "yuv420p10le")
    assert 244 <= upright_rgb(frame).mean() <= 252


def test_a_matrix_that_yuv_cannot_have_is_replaced_by_the_one_used() -> None:
    assert output_colour(Colour(matrix=0, full_range=True), 1080, 1080) == Colour(matrix=1, full_range=True)
