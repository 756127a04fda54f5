"""Views: boxes stay on what they frame, recipes depend on their number only."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledetr.errors import SourceError
from training.data.coco import Picture, split_tune
from training.data.views import Tile, View, draw_view, view_recipe

# An edge may move by the rounding of a crop to whole pixels, enlarged with it.
EDGE_PX = 3.0


def painted(folder: Path, number: int, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> Picture:
    """A black picture with one rectangle, and its box."""
    height, width = 200 + 10 * number, 300 - 20 * number
    rgb = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = box
    rgb[y0:y1, x0:x1] = colour
    path = folder / f"picture_{number}.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    return Picture(
        path.stem, path, np.array([box], np.float32), np.array([number]), np.zeros(1, bool), labelled=number < 3
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    folder = tmp_path_factory.mktemp("pictures")
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    boxes = [(40, 50, 140, 120), (10, 10, 90, 190), (100, 60, 200, 160), (5, 100, 60, 140), (60, 30, 180, 200)]
    return [painted(folder, i, box, colour) for i, (box, colour) in enumerate(zip(boxes, colours, strict=True))]


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 10_000))
def test_boxes_frame_the_painted_rectangles(pictures: list[Picture], number: int) -> None:
    """Each rectangle is found again in the pixels by its colour, at the place its box says."""
    view = view_recipe(pictures, number)
    plain = View(view.tiles, (1.0, 0.0, 1.0))
    drawn = draw_view(pictures, plain, 256)
    for box, label in zip(drawn.boxes_cxcywh, drawn.labels, strict=True):
        colour = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)][label])
        x0, y0 = (box[:2] - box[2:] / 2) * 256
        x1, y1 = (box[:2] + box[2:] / 2) * 256
        near = np.abs(drawn.pixels.astype(int) - colour).max(-1) < 100
        window = near[
            max(round(y0 - EDGE_PX), 0) : round(y1 + EDGE_PX), max(round(x0 - EDGE_PX), 0) : round(x1 + EDGE_PX)
        ]
        ys, xs = np.nonzero(window)
        found = (xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
        assert found == pytest.approx((x1 - x0, y1 - y0), abs=2 * EDGE_PX + 1)  # the window is rounded too


def test_recipe_depends_on_its_number_only(pictures: list[Picture]) -> None:
    assert view_recipe(pictures, 77) == view_recipe(pictures, 77)
    assert view_recipe(pictures, 77) != view_recipe(pictures, 78)
    assert view_recipe(pictures, 77, seed=1) != view_recipe(pictures, 77)


def test_each_picture_comes_whole_once_first(pictures: list[Picture]) -> None:
    for number in range(len(pictures)):
        (tile,) = view_recipe(pictures, number).tiles
        assert (tile.picture, tile.crop, tile.place) == (number, (0, 0, 1, 1), (0, 0, 1, 1))


@settings(max_examples=40, deadline=None)
@given(number=st.integers(5, 10_000))
def test_mosaics_never_mix_labelled_and_unlabelled(pictures: list[Picture], number: int) -> None:
    tiles = view_recipe(pictures, number).tiles
    assert len({pictures[t.picture].labelled for t in tiles}) == 1


def test_mirrored_box_by_hand(pictures: list[Picture]) -> None:
    """Box 40..140 of a picture 300 wide, mirrored, is 160..260."""
    whole = (0.0, 0.0, 1.0, 1.0)
    drawn = draw_view(pictures, View((Tile(0, whole, whole, True),), (1.0, 0.0, 1.0)), 100)
    assert drawn.boxes_cxcywh[0] == pytest.approx([0.7, 85 / 200, 100 / 300, 70 / 200], abs=1e-5)


def test_mostly_hidden_box_is_dropped(pictures: list[Picture]) -> None:
    """A crop that keeps 30 of 100 columns of the rectangle keeps the rectangle's pixels but not its box."""
    view = View((Tile(0, (110 / 300, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0), False),), (1.0, 0.0, 1.0))
    drawn = draw_view(pictures, view, 100)
    assert len(drawn.boxes_cxcywh) == 0 and drawn.pixels[..., 0].max() == 255


def test_unreadable_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_text("not a picture")
    none = Picture("broken", path, np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool), True)
    with pytest.raises(SourceError, match=r"Cannot open 'broken\.jpg'"):
        draw_view([none], view_recipe([none], 0), 64)


def test_split_is_the_same_everywhere_and_disjoint() -> None:
    pictures = [
        Picture(f"{i:012d}", Path(), np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool), True)
        for i in range(1000)
    ]
    train, tune = split_tune(pictures)
    assert len(train) + len(tune) == 1000 and 60 < len(tune) < 125
    assert {p.key for p in train}.isdisjoint(p.key for p in tune)
    again, _ = split_tune(list(reversed(pictures)))
    assert {p.key for p in again} == {p.key for p in train}
