"""Boxes go where the pixels go: rectangles are painted, moved, and found again by their colour."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledetr.preprocess import preprocess
from training.data import augment
from training.data.augment import Sample
from training.recipes import paper

CONFIG = paper("l").augment
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])
SIZE_HW = (160, 128)


def painted(height: int, width: int, boxes: list[tuple[int, int, int, int]], first: int = 0) -> Sample:
    """Rectangles of one pure colour each on black; a label is the number of its colour."""
    rgb = np.zeros((height, width, 3), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes, first):
        rgb[y0:y1, x0:x1] = COLOURS[number]
    n = len(boxes)
    return Sample(
        rgb=rgb,
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(first, first + n),
        weight=np.ones(n, np.float32),
        crowd=np.zeros(n, bool),
        annotated=np.ones(4, bool),
    )


def two_rectangles() -> Sample:
    return painted(90, 140, [(10, 15, 60, 55), (80, 20, 130, 80)])


def found_box(rgb: np.ndarray, label: int) -> list[float] | None:
    """Where a colour is, to a fraction of a pixel: rows and columns count by how much of the colour they hold."""
    likeness = 1 - np.abs(rgb.astype(float) - COLOURS[label]).max(-1) / 255
    likeness[likeness < 0.05] = 0
    if not likeness.any():
        return None
    columns, rows = likeness.max(0), likeness.max(1)
    box = []
    for profile in (columns, rows):
        inside = np.flatnonzero(profile > 0.5)
        first, last, wide = inside[0], inside[-1], np.pad(profile, 1)
        box.append(float(first + 1 - wide[first + 1] - wide[first]))
        box.append(float(last + wide[last + 1] + wide[last + 2]))
    return [box[0], box[2], box[1], box[3]]


def check_boxes(sample: Sample, tolerance_px: float) -> None:
    for box, label in zip(sample.boxes_xyxy, sample.labels, strict=True):
        found = found_box(sample.rgb, int(label))
        assert found is not None, f"the box of colour {label} holds none of it"
        assert found == pytest.approx(box.tolist(), abs=tolerance_px), f"colour {label}"


OPERATORS: dict[str, tuple[Callable[[Sample, np.random.Generator], Sample], float]] = {
    # An edge may fall anywhere within a pixel when sizes change, hence the tolerances.
    "flip": (lambda sample, rng: augment.flipped(sample), 0.01),
    "resize": (lambda sample, rng: augment.resized(sample, SIZE_HW), 1.0),
    "zoom out": (lambda sample, rng: augment.zoom_out(sample, 4.0, rng), 0.01),
    "shrink": (lambda sample, rng: augment.shrunk(sample, (45, 60)), 1.0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_move_boxes_with_pixels(name: str) -> None:
    operator, tolerance = OPERATORS[name]
    for seed in range(20):
        moved = operator(two_rectangles(), np.random.default_rng(seed))
        assert len(moved.labels) == 2 and moved.rgb.dtype == np.uint8
        check_boxes(moved, tolerance)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_crop(seed: int) -> None:
    sample = two_rectangles()
    moved = augment.iou_crop(sample, np.random.default_rng(seed))
    check_boxes(moved, 0.01)
    assert len(moved.labels) >= 1, "a crop is made around an object"
    assert moved.rgb.shape[0] >= 0.3 * 90 - 1 and moved.rgb.shape[1] >= 0.3 * 140 - 1


def test_crop_of_a_picture_without_objects_leaves_it() -> None:
    sample = painted(50, 60, [])
    assert augment.iou_crop(sample, np.random.default_rng(0)).rgb.shape == (50, 60, 3)


def test_ignore_regions_stay_by_overlap_and_do_not_guide_crops() -> None:
    region = replace(painted(90, 140, [(0, 0, 140, 90)]), crowd=np.ones(1, bool))
    assert augment.iou_crop(region, np.random.default_rng(0)).rgb.shape == (90, 140, 3)
    part = augment.cropped(region, (0, 0, 30, 30))
    assert part.boxes_xyxy.tolist() == [[0, 0, 30, 30]] and part.crowd.tolist() == [True]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_mosaic_without_turn_is_exact_to_a_pixel(seed: int) -> None:
    parts = [painted(60 + 20 * i, 90 - 10 * i, [(12, 10, 50, 40)], first=i) for i in range(4)]
    config = replace(CONFIG, mosaic_degrees=0.0, min_visible=0.99)
    moved = augment.mosaic(parts, SIZE_HW, config, np.random.default_rng(seed))
    assert moved.size_hw == SIZE_HW
    check_boxes(moved, 1.5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_turned_boxes_hold_their_object(seed: int) -> None:
    """A turned rectangle touches all four sides of the box around its corners."""
    parts = [painted(60 + 20 * i, 90 - 10 * i, [(12, 10, 50, 40)], first=i) for i in range(4)]
    moved = augment.mosaic(parts, SIZE_HW, replace(CONFIG, min_visible=0.999), np.random.default_rng(seed))
    check_boxes(moved, 2.5)  # a corner that is only touched fills little of its pixel


def test_mostly_hidden_boxes_are_left_out() -> None:
    sample = painted(100, 100, [(0, 0, 20, 20), (50, 50, 80, 80)])
    shift = np.array([[1.0, 0, -16.0], [0, 1.0, 0]])  # a fifth of the first box stays
    assert augment.warped(sample, (100, 100), shift, CONFIG).labels.tolist() == [1]
    nearer = np.array([[1.0, 0, -14.0], [0, 1.0, 0]])
    assert augment.warped(sample, (100, 100), nearer, CONFIG).labels.tolist() == [0, 1]


def test_affine_map_counts_from_the_edge_of_the_first_pixel() -> None:
    """Twice as large: pixel 10 to 20 becomes 20 to 40 exactly."""
    double = np.array([[2.0, 0, 0], [0, 2.0, 0]])
    moved = augment.warped(painted(40, 40, [(10, 10, 20, 20)]), (80, 80), double, CONFIG)
    assert moved.boxes_xyxy.tolist() == [[20, 20, 40, 40]]
    check_boxes(moved, 0.51)


def test_mixup_keeps_all_objects_and_mixes_pixels() -> None:
    one, other = painted(20, 20, [(0, 0, 10, 10)]), painted(20, 20, [(10, 10, 20, 20)], first=1)
    mixed = augment.mixup(one, replace(other, annotated=np.array([True, False, True, True])), 0.5)
    assert mixed.labels.tolist() == [0, 1] and mixed.annotated.tolist() == [True, False, True, True]
    assert mixed.rgb[5, 5].tolist() == [128, 0, 0] and mixed.rgb[15, 15].tolist() == [0, 128, 0]


def test_colour_changes_stay_in_their_bounds() -> None:
    rgb = np.full((8, 8, 3), (120, 100, 80), np.uint8)
    sample = replace(painted(8, 8, []), rgb=rgb)
    seen = np.array([augment.photometric(sample, np.random.default_rng(seed)).rgb[0, 0] for seed in range(300)])
    assert (seen == (120, 100, 80)).all(1).any() and len(np.unique(seen, axis=0)) > 100
    # grey 103.7; brightest 1.125 * (103.7 + 1.5 * 16.3) = 144.2, which saturation and hue leave; darkest 33
    assert 135 < seen.max() <= 145 and 32 <= seen.min() < 55


def test_thin_boxes_are_left_out_at_the_end() -> None:
    sample = painted(100, 100, [(10, 10, 11, 50), (20, 20, 60, 60)])
    small = augment.resized(sample, (50, 50))
    assert augment.finished(small, (50, 50), CONFIG).labels.tolist() == [1]


def test_plain_pictures_are_what_the_detector_sees() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    sample = replace(painted(300, 400, []), rgb=rgb)
    unflipped = augment.plain(sample, (64, 96), replace(CONFIG, flip=0.0), np.random.default_rng(0))
    assert np.array_equal(unflipped.rgb, preprocess(rgb, (64, 96))[0])
