"""Schedules at the points where they change, and the 80-epoch table of the paper's recipe."""

import math

import pytest

from training.schedule import (
    LrSchedule,
    deim_schedule,
    ema_decay,
    ema_decay_for,
    scaled_lr,
    warm_up_steps,
)


def test_rate_where_the_parts_meet():
    schedule = LrSchedule(total=1000, warm_up=100, flat_end=500, tail=100, final_ratio=0.4)
    assert schedule.factor(0) == 0
    assert schedule.factor(50) == pytest.approx(0.25)
    assert schedule.factor(100) == schedule.factor(101) == schedule.factor(500) == 1
    assert schedule.factor(700) == pytest.approx(0.7)  # half way down
    assert schedule.factor(600) == pytest.approx(0.4 + 0.6 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule.factor(899) == pytest.approx(0.4, abs=1e-4)
    assert schedule.factor(900) == schedule.factor(999) == schedule.factor(5000) == 0.4
    assert all(0 <= schedule.factor(step) <= 1 for step in range(1100))


def test_rate_without_warm_up_or_tail():
    schedule = LrSchedule(total=10, warm_up=0, flat_end=0, tail=0)
    assert schedule.factor(0) == 1 and schedule.factor(10) == 0.5
    flat = LrSchedule(total=10, warm_up=0, flat_end=10, tail=0, final_ratio=1.0)
    assert {flat.factor(step) for step in range(12)} == {1.0}


@pytest.mark.parametrize(
    ("epochs", "warm", "plain", "expected"),
    [
        (80, 4, 8, (4, 40, 72)),  # the paper's 80 epochs by DEIM's pattern
        (58, 4, 8, (4, 29, 50)),  # DEIM L and X
        (102, 4, 12, (4, 49, 90)),  # DEIM M
        (160, 4, 12, (4, 78, 148)),  # DEIM N
    ],
)
def test_published_windows(epochs, warm, plain, expected):
    per_epoch = 1833  # 117,266 pictures of COCO in batches of 64
    schedule, windows = deim_schedule(epochs=epochs, steps_per_epoch=per_epoch, warm_epochs=warm, plain_epochs=plain)
    assert (windows.strong_from, windows.mosaic_until, windows.strong_until) == tuple(e * per_epoch for e in expected)
    assert schedule.flat_end == windows.mosaic_until and schedule.warm_up == 2000
    assert schedule.factor(windows.strong_until) == schedule.final_ratio == 0.5
    on = [epoch for epoch in range(epochs) if windows.strong(epoch * per_epoch)]
    mosaic = [epoch for epoch in range(epochs) if windows.mosaic(epoch * per_epoch)]
    assert on == list(range(expected[0], expected[2])) and mosaic == list(range(expected[0], expected[1]))


def test_warm_up_never_eats_a_short_run():
    assert warm_up_steps(146_640) == 2000
    assert warm_up_steps(50_000) == 2000
    assert warm_up_steps(3000) == 120
    assert warm_up_steps(10) == 0


def test_ema_ramp():
    for step in (0, 1, 999, 1000, 20_000):
        assert ema_decay(step, 0.9999) == pytest.approx(0.9999 * (1 - math.exp(-step / 1000)))
    assert ema_decay(0, 0.9999) == 0
    assert ema_decay_for(45_000) == pytest.approx(0.9994, abs=1e-4)


def test_square_root_rule():
    assert scaled_lr(1.25e-4, 64, 64) == 1.25e-4
    assert scaled_lr(1.25e-4, 16, 64) == pytest.approx(6.25e-5)


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="follow each other"):
        LrSchedule(total=100, warm_up=50, flat_end=40, tail=10)
    with pytest.raises(ValueError, match="too few"):
        deim_schedule(epochs=10, steps_per_epoch=5, warm_epochs=4, plain_epochs=8)
    with pytest.raises(ValueError, match="from 0"):
        LrSchedule(total=10, warm_up=0, flat_end=5, tail=0).factor(-1)
