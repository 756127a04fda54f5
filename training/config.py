"""What a training run is made of, as frozen dataclasses without defaults: a recipe says every value itself.

Lengths are shares of the run, so that a run of any length has the same shape.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ledetr.losses import LossConfig
from training.schedule import AugmentationWindows, LrSchedule, ema_decay_for

LrScaling = Literal["sqrt", "linear", "none"]


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW. The rates are those of a batch of recipe_batch; another batch scales them."""

    lr: float
    backbone_lr: float
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    """Largest norm of the gradient."""
    recipe_batch: int
    scaling: LrScaling
    """By the root of the ratio of batches (usual for Adam), by the ratio itself, or not at all."""

    def factor(self, batch: int) -> float:
        """What the rates are multiplied with for this batch."""
        ratio = batch / self.recipe_batch
        return {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[self.scaling]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Shares of the run, in this order; DEIM's pattern for rate and augmentation."""

    warm_up: float
    warm_up_most: int
    """Steps of warm-up at most, however long the run."""
    strong_from: float
    """Before it pictures are only flipped and resized."""
    mosaic_until: float
    flat_until: float
    """From here on the rate falls by half a cosine, to final_ratio."""
    strong_until: float
    """From here on pictures are only flipped and resized, at the base size and the final rate."""
    final_ratio: float

    def resolve(self, total: int) -> tuple[LrSchedule, AugmentationWindows]:
        """The same in steps of a run of `total`."""

        def at(share: float) -> int:
            return round(share * total)

        rate = LrSchedule(
            total=total,
            warm_up=min(self.warm_up_most, int(self.warm_up * total)),
            flat_end=at(self.flat_until),
            tail=total - at(self.strong_until),
            final_ratio=self.final_ratio,
        )
        windows = AugmentationWindows(
            strong_from=at(self.strong_from),
            mosaic_until=at(self.mosaic_until),
            strong_until=at(self.strong_until),
        )
        return rate, windows


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Probabilities and ranges. Mosaic and mixup have their own window in time."""

    flip: float
    photometric: float
    zoom_out: float
    zoom_out_most: float
    """Largest side of the black canvas in sides of the picture."""
    iou_crop: float
    mosaic: float
    mosaic_degrees: float
    mosaic_shift: float
    """Largest shift in sides of the canvas."""
    mosaic_scale: tuple[float, float]
    mixup: float
    """Probability for a whole batch."""
    mixup_share: tuple[float, float]
    """How much the first of the two pictures counts."""
    multi_scale_repeat: int
    """How often the base size stands in the list of sizes from 0.75 to 1.25 of it; 0: always the base size."""
    min_side_px: float
    """Boxes with a shorter side are left out."""
    min_visible: float
    """As are boxes of which less than this share of their area is left in a mosaic."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of the detector."""

    recipe: str
    scale: str
    epochs: float
    least_steps: int
    """A small data set is repeated until so many steps are made."""
    batch: int
    """Pictures of one step, over all processes."""
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    augment: AugmentConfig
    loss: LossConfig
    label_noise: float
    box_noise: float
    """Of the denoising queries."""
    ema_decays: tuple[float, ...]
    """Empty: one average whose memory is 4 % of the run."""
    ema_ramp: float
    """Steps in which the decay rises; an average of a short run remembers its start otherwise."""
    frozen_stages: tuple[int, ...]
    """Stages of the backbone that are not trained; the stem goes with them."""
    freeze_backbone_norms: bool
    slots: int
    """Objects of one picture at most; a picture with more keeps a random part, drawn anew each time."""
    mosaic_slots: int
    """The same while mosaic and mixup put several pictures into one."""
    ignore_slots: int
    evaluations: int
    """How often the tune split is judged, the end included."""
    seed: int

    def steps(self, pictures: int) -> int:
        """Length of the run on a data set of so many pictures."""
        return max(self.least_steps, round(self.epochs * pictures / self.batch), 1)

    def decays(self, total: int) -> tuple[float, ...]:
        """Decays of the averages in a run of `total` steps."""
        return self.ema_decays or (ema_decay_for(total),)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def differing_fields(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Full names of the values in which two configs differ, e.g. "optimiser.lr: 0.1, was 0.2"."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differing_fields(a, b, f"{prefix}{key}.")
        elif _plain(a) != _plain(b):
            found.append(f"{prefix}{key}: {a}, was {b}")
    return found


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
