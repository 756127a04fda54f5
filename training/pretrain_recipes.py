"""Recipes of pretraining: functions that return a whole PretrainConfig, every value said.

Sources: "imagenet-paper" is Le-DETR's table 6 (arXiv:2602.21010), whose numbers equal the classification configs of
SHI-Labs/Neighborhood-Attention-Transformer; what the table leaves open (augmentation, smoothing, clipping) is that
script's default. "imagenet-effvit" is mit-han-lab/efficientvit, applications/efficientvit_cls/configs/imagenet.
"distil" is ours. Contradiction carried openly: the paper says "batch 128", the script takes 128 for each of several
processes; 8 are assumed, so 1024.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ledetr.errors import UsageError
from training.config import OptimiserConfig
from training.data.classify_augment import ClassifyAugment
from training.schedule import ema_decay_for


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """Rate as a function of the step: linear warm-up, half a cosine, a constant end. Ratios are of the full rate."""

    total: int
    warm_up: int
    cool_down: int
    start_ratio: float
    final_ratio: float
    warm_up_inside: bool
    """The cosine's way starts at step 0 and the warm-up hides its beginning; else it starts behind the warm-up."""

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up <= self.total - self.cool_down <= self.total:
            raise ValueError(f"the parts of the schedule must follow each other inside the run, got {self}")

    def factor(self, step: int) -> float:
        """What every base learning rate is multiplied with at this step; steps count from 0."""
        if step < 0:
            raise ValueError(f"steps count from 0, got {step}")
        if step < self.warm_up:
            return self.start_ratio + (1 - self.start_ratio) * step / self.warm_up
        end, begin = self.total - self.cool_down, 0 if self.warm_up_inside else self.warm_up
        if step >= end:
            return self.final_ratio
        way = (step - begin) / (end - begin)
        return self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * way))


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """What the student has in common with the teacher. Weights are of means over positions and pictures."""

    kind: Literal["cosine", "mse"]
    """Distance of maps: 1 - cosine over channels, or squared error; both of maps with mean 0 and variance 1."""
    feature_weights: tuple[float, float, float]
    """At strides 8, 16 and 32; 0 leaves a stride out."""
    logit_weight: float
    temperature: float
    label_weight: float
    """Of the true labels, where the folder has them."""
    statistics_pictures: int
    """From which the mean and the variance of the teacher's maps are taken, before the first step."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run. Lengths in epochs of a full run; a run of another length keeps its shape."""

    recipe: str
    scale: str
    epochs: float
    """The whole run, warm-up and cool-down included."""
    warm_up_epochs: float
    warm_up_inside: bool
    cool_down_epochs: float
    start_lr: float
    final_lr: float
    batch: int
    """Pictures of one step, over all processes; even, because pictures are mixed in pairs."""
    optimiser: OptimiserConfig
    sizes: tuple[int, ...]
    """Sides of the input, one drawn for each step; multiples of 32."""
    judge_side: int
    judge_crop: float
    """Side of the middle square that is judged, in shorter sides of the picture."""
    augment: ClassifyAugment
    loss: Literal["softmax", "binary"]
    smoothing: float
    drop_path: float
    """Of the last block; rises linearly over the blocks that have any."""
    drop_path_from: float
    """Blocks before this share of all have none."""
    mesa: float
    """Weight of the moving average's answers as targets (self-distillation); 0: none."""
    mesa_from: float
    """Share of the run before which there are none."""
    ema_decay: float | None
    """None: a memory of 4 % of the run."""
    ema_ramp: float
    norm_pictures: int
    """From which the batch statistics are estimated anew at the end; 0: they stay as they are."""
    evaluations: int
    distil: DistilConfig | None
    seed: int

    def steps(self, pictures: int) -> int:
        """Length of the run on so many pictures."""
        return max(1, round(self.epochs * pictures / self.batch))

    def schedule(self, total: int) -> CosineSchedule:
        """The rate in a run of `total` steps."""
        return CosineSchedule(
            total=total,
            warm_up=round(total * self.warm_up_epochs / self.epochs),
            cool_down=round(total * self.cool_down_epochs / self.epochs),
            start_ratio=self.start_lr / self.optimiser.lr,
            final_ratio=self.final_lr / self.optimiser.lr,
            warm_up_inside=self.warm_up_inside,
        )

    def decay(self, total: int) -> float:
        """Decay of the average in a run of `total` steps."""
        return ema_decay_for(total) if self.ema_decay is None else self.ema_decay

    def to_dict(self) -> Mapping[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def imagenet_paper(scale: str = "l") -> PretrainConfig:
    """The paper's own: 300 epochs of a cosine and 10 of cool-down."""
    return PretrainConfig(
        recipe="imagenet-paper",
        scale=scale,
        epochs=310,
        warm_up_epochs=20,
        warm_up_inside=True,
        cool_down_epochs=10,
        start_lr=1e-6,
        final_lr=5e-6,
        batch=1024,
        optimiser=OptimiserConfig(
            lr=1e-3,
            backbone_lr=1e-3,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            clip=5.0,
            recipe_batch=1024,
            scaling="linear",
        ),
        sizes=(224,),
        judge_side=224,
        judge_crop=0.875,
        # the script's colour jitter of 0.4 is without effect beside RandAugment
        augment=ClassifyAugment(
            crop_scale=(0.08, 1.0),
            crop_ratio=(3 / 4, 4 / 3),
            flip=0.5,
            rand_ops=2,
            rand_magnitude=9.0,
            rand_std=0.5,
            rand_probability=0.5,
            erase=0.25,
            erase_area=(0.02, 1 / 3),
            mixup=0.5,
            mixup_alpha=0.8,
            cutmix=0.5,
            cutmix_alpha=1.0,
        ),
        loss="softmax",
        smoothing=0.1,
        drop_path=0.1,
        drop_path_from=0.0,
        mesa=0.0,
        mesa_from=1.0,
        ema_decay=0.9998,
        ema_ramp=2000.0,
        norm_pictures=0,
        evaluations=31,
        distil=None,
        seed=0,
    )


def imagenet_effvit(scale: str = "l") -> PretrainConfig:
    """EfficientViT-L's: 20 epochs of warm-up before 300, random sizes, binary loss, self-distillation."""
    large = scale in ("l", "x")
    return PretrainConfig(
        recipe="imagenet-effvit",
        scale=scale,
        epochs=320,
        warm_up_epochs=20,
        warm_up_inside=False,
        cool_down_epochs=0,
        start_lr=0.0,
        final_lr=0.0,
        batch=1024,
        optimiser=OptimiserConfig(
            lr=1.2e-3,  # 1.5e-4 for each of 8 processes of 128
            backbone_lr=1.2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.999),
            clip=2.0,
            recipe_batch=1024,
            scaling="linear",
        ),
        sizes=(128, 160, 192, 224),
        judge_side=224,
        judge_crop=0.95,
        augment=ClassifyAugment(
            crop_scale=(0.08, 1.0),
            crop_ratio=(3 / 4, 4 / 3),
            flip=0.5,
            rand_ops=2,
            rand_magnitude=5.0,
            rand_std=0.0,
            rand_probability=1.0,
            erase=0.2,
            erase_area=(0.02, 1 / 3),
            mixup=0.4 if large else 0.2,
            mixup_alpha=0.8,
            cutmix=0.4 if large else 0.2,
            cutmix_alpha=1.0,
        ),
        loss="binary",
        smoothing=0.1,
        drop_path=0.1,
        drop_path_from=2 / 3,
        mesa=2.75 if large else 2.0,
        mesa_from=0.25,
        ema_decay=0.9998,
        ema_ramp=2000.0,
        norm_pictures=16_000,
        evaluations=32,
        distil=None,
        seed=0,
    )


def distil(scale: str = "m") -> PretrainConfig:
    """A trunk without ImageNet: it learns to give a public teacher's maps on any pictures."""
    return PretrainConfig(
        recipe="distil",
        scale=scale,
        epochs=200,
        warm_up_epochs=6,
        warm_up_inside=False,
        cool_down_epochs=10,
        start_lr=1e-5,
        final_lr=2e-5,
        batch=64,
        optimiser=OptimiserConfig(
            lr=1e-3,
            backbone_lr=1e-3,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            clip=5.0,
            recipe_batch=64,
            scaling="sqrt",
        ),
        sizes=(192, 224, 256),
        judge_side=224,
        judge_crop=1.0,
        # mild, because the teacher answers to what it sees; erased or inverted pictures teach little
        augment=ClassifyAugment(
            crop_scale=(0.2, 1.0),
            crop_ratio=(3 / 4, 4 / 3),
            flip=0.5,
            rand_ops=1,
            rand_magnitude=3.0,
            rand_std=1.0,
            rand_probability=0.5,
            erase=0.0,
            erase_area=(0.02, 1 / 3),
            mixup=0.2,
            mixup_alpha=0.8,
            cutmix=0.0,
            cutmix_alpha=1.0,
        ),
        loss="softmax",
        smoothing=0.1,
        drop_path=0.0,
        drop_path_from=0.0,
        mesa=0.0,
        mesa_from=1.0,
        ema_decay=None,
        ema_ramp=100.0,
        norm_pictures=2048,
        evaluations=5,
        distil=DistilConfig(
            kind="cosine",
            feature_weights=(1.0, 1.0, 1.0),
            logit_weight=0.1,
            temperature=2.0,
            label_weight=0.5,
            statistics_pictures=256,
        ),
        seed=0,
    )


RECIPES: dict[str, Callable[[str], PretrainConfig]] = {
    "imagenet-paper": imagenet_paper,
    "imagenet-effvit": imagenet_effvit,
    "distil": distil,
}


def recipe_for(name: str, scale: str) -> PretrainConfig:
    """A recipe by name for a scale."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r} for pretraining; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name](scale)
