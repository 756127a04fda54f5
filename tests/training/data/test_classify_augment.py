"""Views for classifiers: pure functions of their numbers, right in size, shape and place."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.classify_augment import (
    OPERATIONS,
    Mixing,
    drawn_mixing,
    erased,
    mixed,
    plain_view,
    rand_augment,
    random_resized_crop,
    view,
)
from training.pretrain_recipes import imagenet_paper

PAPER = imagenet_paper().augment
RGB = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_the_same_numbers_give_the_same_view_and_others_another() -> None:
    numbers = {"seed": 1, "epoch": 2, "index": 3}
    first = view(RGB, 32, PAPER, **numbers)
    np.random.seed(99)  # noqa: NPY002 - state of others must not matter
    assert np.array_equal(first, view(RGB, 32, PAPER, **numbers)) and first.shape == (32, 32, 3)
    for key in numbers:
        assert not np.array_equal(first, view(RGB, 32, PAPER, **(numbers | {key: 7}))), key


def test_a_crop_of_everything_is_the_picture_resized() -> None:
    whole = replace(PAPER, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    square = RGB[:, 15:75]
    assert np.array_equal(random_resized_crop(square, 60, whole, np.random.default_rng(0)), square)
    # no square of the whole area fits into a wide picture: the largest square in the middle is taken
    assert np.array_equal(random_resized_crop(RGB, 60, whole, np.random.default_rng(0)), square)


def test_crops_have_the_drawn_area_and_shape() -> None:
    """A picture whose pixels say where they are: the crop's extent is read off its corners."""
    height, width = 200, 250
    place = np.zeros((height, width, 3), np.uint8)
    place[..., 0], place[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    shares, ratios = [], []
    for seed in range(200):
        crop = random_resized_crop(place, 64, PAPER, np.random.default_rng(seed)).astype(float)
        wide, tall = np.ptp(crop[..., 0]) + 1, np.ptp(crop[..., 1]) + 1
        shares.append(wide * tall / (height * width))
        ratios.append(wide / tall)
    # resizing blurs the border by up to two pixels
    assert 0.05 < min(shares) < 0.15 and 0.85 < max(shares) <= 1.0
    assert 0.68 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.45


def test_the_plain_view_is_the_middle() -> None:
    marked = np.zeros((40, 80, 3), np.uint8)
    marked[:, 20:60] = 200
    assert (plain_view(marked, 16, 1.0) == 200).all()
    assert (plain_view(marked[:, :60], 16, 1.0)[:, :4] == 0).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_the_size_and_does_something(name: str) -> None:
    from PIL import Image

    flat = (RGB // 2 + 40).astype(np.uint8)
    for sign in (1.0, -1.0):
        out = np.array(OPERATIONS[name](Image.fromarray(flat), 0.9, sign))
        assert out.shape == flat.shape and out.dtype == np.uint8 and not np.array_equal(out, flat)


@pytest.mark.parametrize(
    "name", ["rotate", "color", "contrast", "brightness", "shear_x", "translate_y", "solarize_add"]
)
def test_operations_of_strength_nothing_do_nothing(name: str) -> None:
    from PIL import Image

    assert np.array_equal(np.array(OPERATIONS[name](Image.fromarray(RGB), 0.0, 1.0)), RGB)


def test_no_operations_means_none() -> None:
    rng = np.random.default_rng(0)
    assert rand_augment(RGB, replace(PAPER, rand_ops=0), rng) is RGB
    assert np.array_equal(rand_augment(RGB, replace(PAPER, rand_probability=0.0), rng), RGB)


def test_erasing_changes_one_rectangle_of_the_drawn_area() -> None:
    flat = np.full((64, 64, 3), 255, np.uint8)
    shares = []
    for seed in range(100):
        rows, columns = np.nonzero((erased(flat, (0.02, 1 / 3), np.random.default_rng(seed)) != 255).any(2))
        shares.append(len(rows) / 64**2)
        assert len(rows) >= 0.95 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "a full rectangle, all of it noise"
    assert 0.015 < min(shares) < 0.06 and 0.25 < max(shares) < 0.35


def test_mixed_pictures_and_labels_agree_by_hand() -> None:
    pixels = torch.tensor([0.0, 100.0, 200.0, 240.0])[:, None, None, None].expand(4, 3, 4, 4)
    labels = torch.eye(4)
    added = Mixing(share=0.75)
    assert mixed(pixels, added, pixels=True)[:, 0, 0, 0].tolist() == [25.0, 75.0, 210.0, 230.0]
    assert mixed(labels, added, pixels=False)[0].tolist() == [0.75, 0.25, 0, 0]
    cut = Mixing(share=1 - 2 / 16, window=(1, 2, 2, 4))
    out = mixed(pixels, cut, pixels=True)
    assert out[0, 0].sum() == 200 and out[0, 0, 1, 2:].tolist() == [100.0, 100.0] and out[3, 0, 1, 3] == 200
    assert mixed(labels, cut, pixels=False)[1].tolist() == [0.125, 0.875, 0, 0]
    assert mixed(pixels, Mixing(), pixels=True) is pixels


def test_mixing_is_a_function_of_the_step_and_the_window_gives_its_area() -> None:
    drawn = [drawn_mixing(PAPER, 32, seed=0, step=step) for step in range(300)]
    assert drawn[:5] == [drawn_mixing(PAPER, 32, seed=0, step=step) for step in range(5)]
    windows = [m for m in drawn if m.window is not None]
    assert 100 < len(windows) < 200, "half of the batches"
    for mixing in windows:
        assert mixing.window is not None
        top, left, bottom, right = mixing.window
        assert 0 <= top <= bottom <= 32 and 0 <= left <= right <= 32
        assert mixing.share == pytest.approx(1 - (bottom - top) * (right - left) / 1024)
    none = replace(PAPER, mixup=0.0, cutmix=0.0)
    assert drawn_mixing(none, 32, seed=0, step=1) == Mixing()
