"""The recipes against the tables they come from (paper's table 6; DEIM's and D-FINE's configurations)."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import nn

from ledetr.errors import UsageError
from ledetr.model.config import VARIANTS
from ledetr.model.ledetr import build_model
from training.config import TrainConfig, differing_fields
from training.data.augment import multi_scale_sides
from training.data.collate import size_of_step
from training.optim import parameter_groups
from training.recipes import RECIPES, paper, paper_deim, recipe_for
from training.schedule import deim_schedule, ema_decay

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


@pytest.mark.parametrize(("scale", "repeat"), [("m", 6), ("l", 4), ("x", 3)])
def test_the_papers_run_step_by_step(scale: str, repeat: int) -> None:
    """Rate, averages, sizes and augmentation of the 80 epochs, at the steps where something changes."""
    recipe = paper(scale)
    total = recipe.steps(118_287)
    assert total == round(80 * 118_287 / 64) == 147_859
    rate, windows = recipe.schedule.resolve(total)
    epoch = total / 80
    on, mosaic_off, strong_off = (round(e * epoch) for e in (4, 40, 72))
    for step, strong, mosaic in (
        (0, False, False),
        (on - 1, False, False),
        (on, True, True),
        (mosaic_off - 1, True, True),
        (mosaic_off, True, False),
        (strong_off - 1, True, False),
        (strong_off, False, False),
        (total - 1, False, False),
    ):
        assert (windows.strong(step), windows.mosaic(step)) == (strong, mosaic), step
    assert rate.factor(1000) == 0.25 and rate.factor(2000) == rate.factor(mosaic_off) == 1
    half_way = (mosaic_off + strong_off) // 2
    assert rate.factor(half_way) == pytest.approx(0.75, abs=1e-4)
    assert rate.factor(strong_off) == rate.factor(total - 1) == 0.5
    assert recipe.decays(total) == (0.9999, 0.9998, 0.9995)
    for step in (1, 1000, 5000, total):
        expected = 0.9999 * (1 - math.exp(-step / 1000))
        assert ema_decay(step, recipe.decays(total)[0], recipe.ema_ramp) == pytest.approx(expected)
    sizes = {size_of_step(recipe, windows, step, (640, 640)) for step in range(400)}
    assert sizes == {(side, side) for side in range(480, 801, 32)}
    assert size_of_step(recipe, windows, strong_off, (640, 640)) == (640, 640)
    assert recipe.augment.multi_scale_repeat == repeat


@pytest.mark.parametrize("scale", ["n", "m", "l", "x"])
def test_groups_of_the_networks_themselves(scale: str) -> None:
    """Every norm, bias and parameter of one axis is free of decay; every matrix and filter is not; rates by part."""
    with torch.device("meta"):
        model = build_model(VARIANTS[scale]())
    recipe = paper(scale).optimiser
    groups = parameter_groups(model, lr=recipe.lr, backbone_lr=recipe.backbone_lr, weight_decay=recipe.weight_decay)
    of = {name: group for group in groups for name in group.parameters}
    assert of.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum(len(group.parameters) for group in groups) == len(of), "no parameter is in two groups"
    norms = biases = 0
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            group = of[f"{prefix}.{name}"]
            assert group.lr == (recipe.backbone_lr if prefix.startswith("backbone") else recipe.lr)
            is_norm = "Norm" in type(module).__name__ and not list(module.children())
            free = is_norm or name.endswith("bias") or parameter.dim() <= 1 or isinstance(module, nn.Embedding)
            assert group.weight_decay == (0 if free else recipe.weight_decay), f"{prefix}.{name}"
            norms, biases = norms + is_norm, biases + name.endswith("bias")
    assert norms > 20 and biases > 20


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
