"""The recipes against the tables they come from (paper's table 6; DEIM's and D-FINE's configurations)."""

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from ledetr.errors import UsageError
from training.config import TrainConfig, differing_fields
from training.data.augment import multi_scale_sides
from training.recipes import RECIPES, paper, paper_deim, recipe_for
from training.schedule import deim_schedule

STEPS_PER_EPOCH = 1848  # of COCO at batch 64


@pytest.mark.parametrize("scale", ["m", "l", "x"])
def test_the_papers_table(scale: str) -> None:
    recipe = paper(scale)
    assert (recipe.optimiser.lr, recipe.optimiser.backbone_lr, recipe.batch, recipe.epochs) == (1.25e-4, 5e-5, 64, 80)
    assert recipe.optimiser.factor(recipe.batch) == 1 and recipe.optimiser.weight_decay == 1.25e-4
    assert recipe.frozen_stages == (0, 1) and recipe.freeze_backbone_norms
    assert recipe.ema_decays[0] == 0.9999 and recipe.ema_ramp == 1000
    weights = recipe.loss.term_weights
    assert weights == {"class": 1, "l1": 5, "giou": 2, "fgl": 0.15, "ddf": 1.5} and recipe.loss.class_kind == "mal"
    assert (recipe.label_noise, recipe.box_noise, recipe.optimiser.clip) == (0.5, 1.0, 0.1)


@pytest.mark.parametrize("scale", ["m", "l", "x"])
def test_the_papers_stages_are_4_40_72_of_80(scale: str) -> None:
    total = 80 * STEPS_PER_EPOCH
    rate, windows = paper(scale).schedule.resolve(total)
    expected_rate, expected_windows = deim_schedule(epochs=80, steps_per_epoch=STEPS_PER_EPOCH)
    assert rate == expected_rate and windows == expected_windows
    assert rate.warm_up == 2000 and windows.mosaic_until == 40 * STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("scale", "lr", "backbone_lr", "decay", "batch", "epochs", "stages", "ratio", "repeat"),
    [
        ("n", 8e-4, 4e-4, 1e-4, 128, 160, (4, 78, 148), 1.0, 0),
        ("m", 4e-4, 4e-5, 1e-4, 32, 102, (4, 49, 90), 0.5, 6),
        ("l", 5e-4, 2.5e-5, 1.25e-4, 32, 58, (4, 29, 50), 0.5, 4),
        ("x", 5e-4, 5e-6, 1.25e-4, 32, 58, (4, 29, 50), 0.5, 3),
    ],
)
def test_deims_table(
    scale: str,
    lr: float,
    backbone_lr: float,
    decay: float,
    batch: int,
    epochs: int,
    stages: tuple[int, int, int],
    ratio: float,
    repeat: int,
) -> None:
    recipe = paper_deim(scale)
    given = recipe.optimiser
    assert (given.lr, given.backbone_lr, given.weight_decay, given.recipe_batch) == (lr, backbone_lr, decay, batch)
    assert (recipe.epochs, recipe.batch, recipe.augment.multi_scale_repeat) == (epochs, 64, repeat)
    assert given.factor(4 * batch) == 2, "the rate follows the root of the batch"
    rate, windows = recipe.schedule.resolve(epochs * 1000)
    assert (windows.strong_from, windows.mosaic_until, windows.strong_until) == tuple(1000 * s for s in stages)
    assert (
        rate.flat_end == windows.mosaic_until and rate.final_ratio == ratio and rate.tail == 1000 * (epochs - stages[2])
    )


def test_augmentation_is_d_fines_and_deims() -> None:
    augment = paper("l").augment
    assert (augment.photometric, augment.zoom_out, augment.iou_crop, augment.flip) == (0.5, 0.5, 0.8, 0.5)
    assert (augment.mosaic, augment.mosaic_degrees, augment.mosaic_shift, augment.mosaic_scale) == (
        0.5,
        10,
        0.1,
        (0.5, 1.5),
    )
    assert (augment.mixup, augment.mixup_share, augment.min_side_px) == (0.5, (0.45, 0.55), 1)
    assert multi_scale_sides(640, 3) == (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
    assert multi_scale_sides(640, 0) == (640,)


def test_finetune_makes_enough_steps_of_a_small_set() -> None:
    recipe = recipe_for("finetune", "n")
    assert recipe.steps(40) == 3000 and recipe.steps(16_000) == 60_000
    rate, windows = recipe.schedule.resolve(3000)
    assert rate.warm_up == 120 and windows.mosaic_until == 1800 and rate.tail == 300
    assert recipe.decays(3000) == (1 - 1 / 120,)


def test_every_value_is_said() -> None:
    """No field of a run's config has a default; the loss's defaults are the table's, tested above."""

    def check(kind: Any) -> None:
        for field in fields(kind):
            assert field.default is field.default_factory, f"{kind.__name__}.{field.name} has a default"

    recipe = recipe_for("paper", "l")
    check(TrainConfig)
    for part in (recipe.optimiser, recipe.schedule, recipe.augment):
        assert is_dataclass(part)
        check(type(part))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("scale", ["n", "m", "l", "x", "tiny"])
@pytest.mark.parametrize("total", [1, 7, 3000])
def test_every_recipe_has_a_schedule_for_any_length(name: str, scale: str, total: int) -> None:
    rate, windows = recipe_for(name, scale).schedule.resolve(total)
    assert all(0 <= rate.factor(step) <= 1 for step in range(total))
    assert windows.strong_from <= windows.mosaic_until <= windows.strong_until <= total


def test_unknown_recipe_and_differences() -> None:
    with pytest.raises(UsageError, match="there is no recipe 'peper'; the recipes are paper, paper-deim"):
        recipe_for("peper", "n")
    one, other = paper("l").to_dict(), paper("m").to_dict()
    assert differing_fields(one, other) == ["augment.multi_scale_repeat: 4, was 6", "scale: l, was m"]
