"""The recipes against the tables they come from."""

import math

import pytest

from ledetr.errors import UsageError
from training.pretrain_recipes import CosineSchedule, distil, imagenet_effvit, imagenet_paper, recipe_for


def test_the_papers_table() -> None:
    """Table 6: AdamW, lr 1e-3, warm-up 20 epochs from 1e-6, min 5e-6, cosine 300 + 10, decay 0.05; script defaults."""
    config = imagenet_paper("x")
    assert (config.epochs, config.warm_up_epochs, config.cool_down_epochs) == (310, 20, 10)
    optimiser = config.optimiser
    assert (optimiser.lr, optimiser.weight_decay, optimiser.clip) == (1e-3, 0.05, 5.0)
    assert config.batch == optimiser.recipe_batch == 1024 and optimiser.factor(128) == pytest.approx(1 / 8)
    augment = config.augment
    assert (augment.rand_ops, augment.rand_magnitude, augment.rand_std) == (2, 9.0, 0.5)
    assert (augment.mixup + augment.cutmix, augment.mixup_alpha, augment.cutmix_alpha) == (1.0, 0.8, 1.0)
    assert (config.smoothing, augment.erase, config.sizes, config.loss) == (0.1, 0.25, (224,), "softmax")

    schedule = config.schedule(3100)
    rates = {epoch: optimiser.lr * schedule.factor(10 * epoch) for epoch in (0, 10, 20, 150, 300, 309)}
    by_hand = {epoch: 5e-6 + (1e-3 - 5e-6) / 2 * (1 + math.cos(math.pi * epoch / 300)) for epoch in (20, 150)}
    assert rates == pytest.approx({0: 1e-6, 10: 5.005e-4, 300: 5e-6, 309: 5e-6} | by_hand)


@pytest.mark.parametrize(("scale", "mix", "mesa"), [("m", 0.2, 2.0), ("l", 0.4, 2.75)])
def test_efficientvits_table(scale: str, mix: float, mesa: float) -> None:
    config = imagenet_effvit(scale)
    optimiser, augment = config.optimiser, config.augment
    assert (config.epochs, config.warm_up_epochs, config.sizes) == (320, 20, (128, 160, 192, 224))
    assert (optimiser.lr, optimiser.weight_decay, optimiser.clip) == (1.5e-4 * 8, 0.1, 2.0)
    assert (augment.rand_ops, augment.rand_magnitude, augment.erase) == (2, 5.0, 0.2)
    assert (augment.mixup, augment.cutmix, config.mesa, config.mesa_from) == (mix, mix, mesa, 0.25)
    assert (config.loss, config.smoothing, config.drop_path, config.drop_path_from) == ("binary", 0.1, 0.1, 2 / 3)
    assert (config.ema_decay, config.norm_pictures) == (0.9998, 16_000)
    schedule = config.schedule(3200)
    factors = [schedule.factor(step) for step in (0, 100, 200, 1700, 3199)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-5)


def test_distillation_needs_no_labels_and_mimics_all_three_strides() -> None:
    config = distil("m")
    assert config.distil is not None and all(weight > 0 for weight in config.distil.feature_weights)
    assert config.decay(1000) == pytest.approx(1 - 1 / 40)


def test_a_schedule_of_any_length_keeps_its_parts() -> None:
    for total in (1, 2, 7, 100):
        schedule = imagenet_paper().schedule(total)
        assert all(0 < schedule.factor(step) <= 1 for step in range(total))
    with pytest.raises(ValueError, match="follow each other"):
        CosineSchedule(total=5, warm_up=4, cool_down=3, start_ratio=0, final_ratio=0, warm_up_inside=False)


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="the recipes are imagenet-paper, imagenet-effvit, distil"):
        recipe_for("imagenet", "m")
