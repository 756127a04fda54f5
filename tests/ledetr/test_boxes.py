"""Box geometry: hand-worked rows, round trips, and overlap counted pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ledetr.boxes import box_iou, clip_xyxy, cxcywh_to_xyxy, xywh_to_xyxy, xyxy_to_cxcywh, xyxy_to_xywh

# One addition and one halving of numbers up to 1e4 in double precision.
EXACT_TO_ROUNDING = 1e-9

boxes_of_any_shape = arrays(np.float64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.floats(-1e4, 1e4))


@pytest.mark.parametrize("convert", [cxcywh_to_xyxy, xyxy_to_cxcywh, xyxy_to_xywh, xywh_to_xyxy])
def test_no_boxes_stay_no_boxes(convert) -> None:
    assert convert(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert convert(np.zeros((2, 3, 4), np.float32)).shape == (2, 3, 4)
    assert convert(np.zeros((1, 4), np.float32)).dtype == np.float32


def test_hand_worked_rows() -> None:
    corners = np.array([[10.0, 20.0, 14.0, 28.0]])
    assert xyxy_to_cxcywh(corners).tolist() == [[12, 24, 4, 8]]
    assert cxcywh_to_xyxy(np.array([[12.0, 24.0, 4.0, 8.0]])).tolist() == corners.tolist()
    assert xyxy_to_xywh(corners).tolist() == [[10, 20, 4, 8]]
    assert xywh_to_xyxy(np.array([[10.0, 20.0, 4.0, 8.0]])).tolist() == corners.tolist()


@given(boxes_of_any_shape)
def test_there_and_back(boxes: np.ndarray) -> None:
    np.testing.assert_allclose(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, atol=EXACT_TO_ROUNDING)
    np.testing.assert_allclose(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes, atol=EXACT_TO_ROUNDING)


def test_conversions_leave_their_input_alone() -> None:
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    for convert in (cxcywh_to_xyxy, xyxy_to_cxcywh, xyxy_to_xywh, xywh_to_xyxy, lambda b: clip_xyxy(b, 2, 2)):
        convert(boxes)
    assert boxes.tolist() == [[1, 2, 3, 4]]


def test_iou_of_nothing() -> None:
    none, one = np.zeros((0, 4)), np.array([[0.0, 0.0, 1.0, 1.0]])
    assert box_iou(none, one).shape == (0, 1)
    assert box_iou(one, none).shape == (1, 0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 0, 3, 2], 2 / 6),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),  # they only touch
        ([0, 0, 2, 2], [5, 5, 6, 6], 0.0),
        ([0, 0, 4, 4], [1, 1, 2, 3], 2 / 16),
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),  # empty boxes overlap nothing, not even themselves
        ([3, 3, 1, 1], [0, 0, 4, 4], 0.0),  # corners the wrong way round: empty
    ],
)
def test_iou_by_hand(a: list[float], b: list[float], expected: float) -> None:
    assert box_iou(np.array([a], float), np.array([b], float))[0, 0] == pytest.approx(expected)


whole_box = st.tuples(*[st.integers(0, 12)] * 4)


@given(st.lists(whole_box, min_size=1, max_size=4), st.lists(whole_box, min_size=1, max_size=4))
def test_iou_equals_counting_cells(a: list[tuple[int, ...]], b: list[tuple[int, ...]]) -> None:
    def cells(box: tuple[int, ...]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    expected = [[len(cells(p) & cells(q)) / max(1, len(cells(p) | cells(q))) for q in b] for p in a]
    np.testing.assert_allclose(box_iou(np.array(a, float), np.array(b, float)), expected)


def test_clip() -> None:
    boxes = np.array([[-5.0, -5.0, 700.0, 500.0], [10.0, 10.0, 20.0, 20.0]], np.float32)
    clipped = clip_xyxy(boxes, 640, 480)
    assert clipped.tolist() == [[0, 0, 640, 480], [10, 10, 20, 20]]
    assert clipped.dtype == np.float32
