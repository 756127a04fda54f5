"""Learning rate, EMA decay and augmentation as pure functions of the step: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass

LONGEST_WARM_UP = 2000
WARM_UP_SHARE = 0.04
EMA_HORIZON_SHARE = 0.04


@dataclass(frozen=True, kw_only=True)
class LrSchedule:
    """DEIM's schedule (arXiv:2412.04234) in steps: quadratic warm-up, flat, half a cosine, constant tail."""

    total: int
    warm_up: int
    flat_end: int
    tail: int
    final_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up <= self.flat_end <= self.total - self.tail <= self.total:
            raise ValueError(f"the parts of the schedule must follow each other inside the run, got {self}")

    def factor(self, step: int) -> float:
        """What every base learning rate is multiplied with at this step; steps count from 0."""
        if step < 0:
            raise ValueError(f"steps count from 0, got {step}")
        if step <= self.warm_up and self.warm_up:
            return (step / self.warm_up) ** 2
        if step <= self.flat_end:
            return 1.0
        if step >= self.total - self.tail:
            return self.final_ratio
        way = (step - self.flat_end) / (self.total - self.flat_end - self.tail)
        return self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * way))


@dataclass(frozen=True, kw_only=True)
class AugmentationWindows:
    """When what is done to the pictures, in steps."""

    strong_from: int
    """Before this step pictures are only flipped and resized."""
    mosaic_until: int
    """From strong_from on, mosaic and mixup are used up to this step."""
    strong_until: int
    """From here on only flipped and resized again, at the base resolution."""

    def strong(self, step: int) -> bool:
        """Whether colour, zoom-out and crop are used."""
        return self.strong_from <= step < self.strong_until

    def mosaic(self, step: int) -> bool:
        """Whether mosaic and mixup are used."""
        return self.strong_from <= step < self.mosaic_until


def warm_up_steps(total: int) -> int:
    """2000 as in DEIM, but at most 4 % of the run: on a small set 2000 steps would eat it."""
    return min(LONGEST_WARM_UP, int(WARM_UP_SHARE * total))


def deim_schedule(
    *,
    epochs: int,
    steps_per_epoch: int,
    warm_epochs: int = 4,
    plain_epochs: int = 8,
    final_ratio: float = 0.5,
    warm_up: int | None = None,
) -> tuple[LrSchedule, AugmentationWindows]:
    """Rate and augmentation of a run, by DEIM's pattern.

    The rate stays flat, and mosaic on, until warm_epochs plus half of the epochs before the plain tail:
    80 epochs with a tail of 8 give 4, 40 and 72. warm_up: steps, 4 % of the run and at most 2000 if None.
    """
    strong_end = epochs - plain_epochs
    flat_end = warm_epochs + strong_end // 2
    if not 0 <= warm_epochs <= flat_end <= strong_end:
        raise ValueError(f"{epochs} epochs are too few for {warm_epochs} warm and {plain_epochs} plain ones")
    total = epochs * steps_per_epoch
    schedule = LrSchedule(
        total=total,
        warm_up=warm_up_steps(total) if warm_up is None else warm_up,
        flat_end=flat_end * steps_per_epoch,
        tail=plain_epochs * steps_per_epoch,
        final_ratio=final_ratio,
    )
    windows = AugmentationWindows(
        strong_from=warm_epochs * steps_per_epoch,
        mosaic_until=flat_end * steps_per_epoch,
        strong_until=strong_end * steps_per_epoch,
    )
    return schedule, windows


def ema_decay(step: int, decay: float, ramp: float = 1000.0) -> float:
    """Decay of the average at this step: decay * (1 - e^(-step / ramp)), so that the start is soon forgotten."""
    return decay * (1 - math.exp(-step / ramp))


def ema_decay_for(total: int) -> float:
    """The decay whose memory is 4 % of the run: 0.9994 for 45,000 steps."""
    return 1 - 1 / max(1.0, EMA_HORIZON_SHARE * total)


def scaled_lr(lr: float, batch: int, recipe_batch: int) -> float:
    """The recipe's rate for another batch, by the square root of the ratio, as is usual for Adam."""
    return lr * math.sqrt(batch / recipe_batch)
