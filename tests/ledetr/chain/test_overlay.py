"""Marks: where they lie, what they say, and that they can be read by everybody."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr.chain.overlay import (
    PALETTE,
    BoxMark,
    LabelMark,
    class_colour,
    draw_marks,
    font_px,
    line_px,
    marks_of,
    notice_mark,
)
from ledetr.detections import Detections

NAMES = ("person", "a rather long class name, longer than most", "dog")
HD = (720, 1280)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4].copy(), table[:, 4].copy(), table[:, 5].astype(np.int64), class_names=NAMES)


def labels_of(marks: list) -> list[LabelMark]:
    return [mark for mark in marks if isinstance(mark, LabelMark)]


def test_nothing_found_is_nothing_to_draw() -> None:
    assert marks_of(found(), conf=0.5, size_hw=HD) == []


def test_boxes_come_before_labels_and_the_best_comes_last() -> None:
    marks = marks_of(found((100, 100, 200, 200, 0.9, 0), (300, 300, 400, 400, 0.6, 2)), conf=0.5, size_hw=HD)

    assert [type(mark) for mark in marks] == [BoxMark, BoxMark, LabelMark, LabelMark]
    assert [mark.text for mark in labels_of(marks)] == ["dog 0.60", "person 0.90"]
    assert marks[1].xyxy == (100, 100, 200, 200)


def test_threshold_and_classes_choose() -> None:
    detections = found((0, 0, 50, 50, 0.9, 0), (0, 0, 50, 50, 0.6, 2), (0, 0, 50, 50, 0.4, 0))

    assert len(labels_of(marks_of(detections, conf=0.5, size_hw=HD))) == 2
    assert len(labels_of(marks_of(detections, conf=0.0, class_ids=[2], size_hw=HD))) == 1


def test_text_can_be_left_out() -> None:
    detections = found((100, 100, 200, 200, 0.9, 0))

    assert [mark.text for mark in labels_of(marks_of(detections, conf=0, scores=False, size_hw=HD))] == ["person"]
    assert labels_of(marks_of(detections, conf=0, labels=False, size_hw=HD)) == []


def test_a_notice_is_drawn_over_everything() -> None:
    marks = marks_of(found((0, 0, 50, 50, 0.9, 0)), conf=0.5, notice="random weights", size_hw=HD)
    assert isinstance(marks[-1], LabelMark) and marks[-1].text == "random weights"


@given(
    size=st.tuples(st.integers(1, 2200), st.integers(1, 4000)),
    box=st.tuples(*[st.floats(-0.2, 1.2)] * 4),
    class_id=st.integers(0, 2),
)
def test_no_mark_leaves_the_picture(size: tuple[int, int], box: tuple[float, ...], class_id: int) -> None:
    height, width = size
    x0, x1 = sorted((box[0] * width, box[2] * width))
    y0, y1 = sorted((box[1] * height, box[3] * height))
    marks = marks_of(found((x0, y0, x1, y1, 0.5, class_id)), conf=0, notice="random weights", size_hw=size)

    for mark in labels_of(marks):
        left, top, right, bottom = mark.tile_xyxy
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert left < mark.baseline_xy[0] < right and top < mark.baseline_xy[1] < bottom
    half = line_px(size) / 2
    if min(size) > 2 * half:
        line = marks[0].xyxy
        assert half <= line[0] <= line[2] <= width - half and half <= line[1] <= line[3] <= height - half


def test_a_label_stands_on_its_box_and_inside_where_there_is_no_room() -> None:
    on_box, inside = (
        labels_of(marks_of(found((100, top, 300, 400, 0.9, 0)), conf=0, size_hw=HD))[0].tile_xyxy for top in (200, 3)
    )
    assert abs(on_box[3] - 200) <= line_px(HD) and inside[1] <= 3


def test_the_worse_of_two_boxes_in_one_place_has_its_label_below() -> None:
    marks = marks_of(found((100, 200, 300, 400, 0.9, 0), (102, 202, 300, 400, 0.8, 0)), conf=0, size_hw=HD)
    worse, better = labels_of(marks)
    assert better.tile_xyxy[3] < 210 and worse.tile_xyxy[1] > 390


def test_a_picture_too_small_for_text_gets_boxes_alone() -> None:
    assert len(marks_of(found((0, 0, 8, 8, 0.9, 0)), conf=0, size_hw=(8, 8))) == 1
    assert notice_mark("random weights", (8, 8)) is None


@pytest.mark.parametrize(
    ("size_hw", "line", "letters"),
    [((480, 640), 2, 13), ((720, 1280), 3, 17), ((1080, 1920), 5, 25), ((2160, 3840), 9, 51)],
)
def test_lines_and_letters_grow_with_the_picture(size_hw: tuple[int, int], line: int, letters: int) -> None:
    assert (line_px(size_hw), font_px(size_hw)) == (line, letters)


def test_the_line_lies_on_the_edges_of_the_box() -> None:
    rgb = np.full((720, 1280, 3), 128, np.uint8)
    colour = class_colour(0)
    draw_marks(rgb, [BoxMark((100.0, 200.0, 300.0, 400.0), colour, 4)])

    for y, x in [(200, 200), (399, 200), (300, 100), (300, 299)]:
        assert tuple(rgb[y, x]) == colour
    assert tuple(rgb[300, 200]) == (128, 128, 128) and tuple(rgb[190, 200]) == (128, 128, 128)


def test_a_label_is_opaque_in_its_colour_and_holds_text() -> None:
    rgb = np.full((720, 1280, 3), 128, np.uint8)
    (label,) = labels_of(marks_of(found((400, 300, 600, 500, 0.9, 0)), conf=0, size_hw=HD))
    draw_marks(rgb, [label])
    left, top, right, bottom = label.tile_xyxy
    tile = rgb[top:bottom, left:right].reshape(-1, 3)

    assert (tile == label.colour_rgb).all(-1).mean() > 0.4
    assert (np.abs(tile.astype(int) - label.text_rgb).max(-1) < 30).mean() > 0.08
    rgb[top:bottom, left:right] = 128
    assert (rgb == 128).all()


def test_drawing_is_in_place_only_where_that_is_allowed() -> None:
    mark = BoxMark((10.0, 10.0, 40.0, 40.0), (255, 0, 0), 2)
    writable = np.zeros((50, 50, 3), np.uint8)
    assert draw_marks(writable, [mark]) is writable and writable.any()

    frozen = np.zeros((50, 50, 3), np.uint8)
    frozen.flags.writeable = False
    assert draw_marks(frozen, [mark]).any() and not frozen.any()


def test_a_label_outside_the_picture_is_refused() -> None:
    label = LabelMark("x", (40, 0, 60, 10), (42, 8), 10, (0, 0, 0), (255, 255, 255))
    with pytest.raises(ValueError, match="does not lie in a picture of 50x50"):
        draw_marks(np.zeros((50, 50, 3), np.uint8), [label])


def luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance of WCAG 2.1."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("class_id", range(len(PALETTE)))
def test_text_has_the_contrast_that_accessibility_asks_for(class_id: int) -> None:
    (label,) = labels_of(marks_of(found((100, 100, 200, 200, 0.9, class_id)), conf=0, size_hw=HD))
    light, dark = sorted((luminance(label.colour_rgb), luminance(label.text_rgb)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_no_two_colours_look_alike_to_the_colour_blind(deficiency: str) -> None:
    linear = (np.array(PALETTE) / 255) ** 2.2
    seen = 255 * np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1) ** (1 / 2.2)
    nearest = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
    assert nearest > 25  # of 441; two greens that differ by 25 are told apart side by side
