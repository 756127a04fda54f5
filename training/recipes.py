"""Named recipes: functions that return a whole TrainConfig, every value said.

Sources: "paper" is Le-DETR's table 6 (arXiv:2602.21010), with its open points by DEIM's rule; "paper_deim" is DEIM's
own values (Intellindust-AI-Lab/DEIM, configs/deim_dfine) at the paper's batch; N is ours and follows D-FINE-N.
Contradictions of the paper that are carried here openly: it calls its rate "larger" although 1.25e-4 at batch 64 is
below DEIM-L's 5e-4 at 32; its loss row says VFL although the criterion it names is DEIM's, so MAL is used.
"""

from collections.abc import Callable
from dataclasses import replace

from ledetr.errors import UsageError
from ledetr.losses import LossConfig
from training.config import AugmentConfig, OptimiserConfig, ScheduleConfig, TrainConfig

LOSS = LossConfig(
    class_kind="mal", class_weight=1.0, l1_weight=5.0, giou_weight=2.0, fgl_weight=0.15, ddf_weight=1.5, mal_gamma=1.5
)
# (lr, backbone lr, weight decay, batch), epochs, (strong and mosaic from, mosaic until, strong until), final ratio of
# the rate, repeats of the base size
DEIM = {
    "n": ((8e-4, 4e-4, 1e-4, 128), 160, (4, 78, 148), 1.0, 0),
    "m": ((4e-4, 4e-5, 1e-4, 32), 102, (4, 49, 90), 0.5, 6),
    "l": ((5e-4, 2.5e-5, 1.25e-4, 32), 58, (4, 29, 50), 0.5, 4),
    "x": ((5e-4, 5e-6, 1.25e-4, 32), 58, (4, 29, 50), 0.5, 3),
}


def paper(scale: str = "l") -> TrainConfig:
    """Le-DETR's own recipe for M, L and X; for N that of D-FINE-N with DEIM's stages."""
    if scale == "n":
        return replace(_deim("n", batch=128), recipe="paper")
    return TrainConfig(
        recipe="paper",
        scale=scale,
        epochs=80,
        least_steps=1,
        batch=64,
        optimiser=OptimiserConfig(
            lr=1.25e-4,
            backbone_lr=5e-5,
            weight_decay=1.25e-4,
            betas=(0.9, 0.999),
            clip=0.1,
            recipe_batch=64,
            scaling="sqrt",
        ),
        schedule=_stages(80, (4, 40, 72), final_ratio=0.5),
        augment=_dense_o2o(multi_scale_repeat=DEIM[scale][4]),
        loss=LOSS,
        label_noise=0.5,
        box_noise=1.0,
        ema_decays=(0.9999, 0.9998, 0.9995),
        ema_ramp=1000.0,
        frozen_stages=(0, 1),
        freeze_backbone_norms=True,
        slots=100,
        mosaic_slots=160,
        ignore_slots=16,
        evaluations=10,
        seed=0,
    )


def paper_deim(scale: str = "l") -> TrainConfig:
    """DEIM's rates, lengths and stages, at the paper's batch of 64; nothing is frozen."""
    return _deim(scale, batch=64)


def finetune(scale: str = "n") -> TrainConfig:
    """From detector weights to your own classes, on a few hundred to some ten thousand pictures."""
    return TrainConfig(
        recipe="finetune",
        scale=scale,
        epochs=60,
        least_steps=3000,
        batch=16,
        optimiser=OptimiserConfig(
            lr=4e-4 if scale == "n" else 2.5e-4,
            backbone_lr=1e-4 if scale == "n" else 2.5e-5,
            weight_decay=1e-4,
            betas=(0.9, 0.999),
            clip=0.1,
            recipe_batch=64,
            scaling="sqrt",
        ),
        schedule=ScheduleConfig(
            warm_up=0.04,
            warm_up_most=2000,
            strong_from=0.04,
            mosaic_until=0.6,
            flat_until=0.5,
            strong_until=0.9,
            final_ratio=0.05,
        ),
        augment=_dense_o2o(multi_scale_repeat=0 if scale == "n" else 6),
        loss=LOSS,
        label_noise=0.5,
        box_noise=1.0,
        ema_decays=(),
        ema_ramp=100.0,
        frozen_stages=(),
        freeze_backbone_norms=False,
        slots=100,
        mosaic_slots=160,
        ignore_slots=16,
        evaluations=5,
        seed=0,
    )


def small(scale: str = "n") -> TrainConfig:
    """From a pretrained trunk on a few thousand pictures: long, with much mosaic and a low rate for the trunk."""
    return TrainConfig(
        recipe="small",
        scale=scale,
        epochs=300,
        least_steps=15000,
        batch=128,
        optimiser=OptimiserConfig(
            lr=8e-4,
            backbone_lr=2e-4,
            weight_decay=1e-4,
            betas=(0.9, 0.999),
            clip=0.1,
            recipe_batch=128,
            scaling="sqrt",
        ),
        schedule=ScheduleConfig(
            warm_up=0.04,
            warm_up_most=2000,
            strong_from=0.03,
            mosaic_until=0.6,
            flat_until=0.5,
            strong_until=0.9,
            final_ratio=0.02,
        ),
        augment=replace(_dense_o2o(multi_scale_repeat=0), mosaic=0.7, mixup=0.3),
        loss=LOSS,
        label_noise=0.5,
        box_noise=1.0,
        ema_decays=(),
        ema_ramp=300.0,
        frozen_stages=(),
        freeze_backbone_norms=False,
        slots=100,
        mosaic_slots=160,
        ignore_slots=16,
        evaluations=5,
        seed=0,
    )


def overfit(scale: str = "n") -> TrainConfig:
    """A few pictures by heart, without augmentation: shows that data and training work, and nothing else.

    The stages of high resolution stay: their backward pass is dear, and they are not what learns by heart.
    """
    return TrainConfig(
        recipe="overfit",
        scale=scale,
        epochs=80,
        least_steps=320,
        batch=8,
        optimiser=OptimiserConfig(
            lr=7e-4,
            backbone_lr=1.4e-4,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            clip=1.0,
            recipe_batch=8,
            scaling="sqrt",
        ),
        schedule=ScheduleConfig(
            warm_up=0.1,
            warm_up_most=100,
            strong_from=0.95,
            mosaic_until=0.95,
            flat_until=0.5,
            strong_until=0.95,
            final_ratio=0.02,
        ),
        augment=AugmentConfig(
            flip=0.0,
            photometric=0.0,
            zoom_out=0.0,
            zoom_out_most=1.0,
            iou_crop=0.0,
            mosaic=0.0,
            mosaic_degrees=0.0,
            mosaic_shift=0.0,
            mosaic_scale=(1.0, 1.0),
            mixup=0.0,
            mixup_share=(0.5, 0.5),
            multi_scale_repeat=0,
            min_side_px=0.0,
            min_visible=0.0,
        ),
        loss=LOSS,
        label_noise=0.2,
        box_noise=1.0,
        ema_decays=(),
        ema_ramp=5.0,
        frozen_stages=(0, 1, 2),
        freeze_backbone_norms=True,
        slots=100,
        mosaic_slots=100,
        ignore_slots=16,
        evaluations=2,
        seed=0,
    )


def _deim(scale: str, *, batch: int) -> TrainConfig:
    (lr, backbone_lr, weight_decay, recipe_batch), epochs, stages, final_ratio, repeat = DEIM[scale]
    return TrainConfig(
        recipe="paper-deim",
        scale=scale,
        epochs=epochs,
        least_steps=1,
        batch=batch,
        optimiser=OptimiserConfig(
            lr=lr,
            backbone_lr=backbone_lr,
            weight_decay=weight_decay,
            betas=(0.9, 0.999),
            clip=0.1,
            recipe_batch=recipe_batch,
            scaling="sqrt",
        ),
        schedule=_stages(epochs, stages, final_ratio=final_ratio),
        augment=_dense_o2o(multi_scale_repeat=repeat),
        loss=LOSS,
        label_noise=0.5,
        box_noise=1.0,
        ema_decays=(0.9999, 0.9998, 0.9995),
        ema_ramp=1000.0,
        frozen_stages=(),
        freeze_backbone_norms=False,
        slots=100,
        mosaic_slots=160,
        ignore_slots=16,
        evaluations=10,
        seed=0,
    )


def _stages(epochs: int, stages: tuple[int, int, int], *, final_ratio: float) -> ScheduleConfig:
    """DEIM's stages in epochs: strong augmentation and mosaic from, mosaic and flat rate until, strong until."""
    strong_from, mosaic_until, strong_until = stages
    return ScheduleConfig(
        warm_up=0.04,
        warm_up_most=2000,
        strong_from=strong_from / epochs,
        mosaic_until=mosaic_until / epochs,
        flat_until=mosaic_until / epochs,
        strong_until=strong_until / epochs,
        final_ratio=final_ratio,
    )


def _dense_o2o(*, multi_scale_repeat: int) -> AugmentConfig:
    """D-FINE's augmentation of single pictures, and DEIM's mosaic and mixup."""
    return AugmentConfig(
        flip=0.5,
        photometric=0.5,
        zoom_out=0.5,
        zoom_out_most=4.0,
        iou_crop=0.8,
        mosaic=0.5,
        mosaic_degrees=10.0,
        mosaic_shift=0.1,
        mosaic_scale=(0.5, 1.5),
        mixup=0.5,
        mixup_share=(0.45, 0.55),
        multi_scale_repeat=multi_scale_repeat,
        min_side_px=1.0,
        min_visible=0.25,
    )


RECIPES: dict[str, Callable[[str], TrainConfig]] = {
    "paper": paper,
    "paper-deim": paper_deim,
    "finetune": finetune,
    "small": small,
    "overfit": overfit,
}


def recipe_for(name: str, scale: str) -> TrainConfig:
    """A recipe by name for a scale; words other than n, m, l, x (own configs) are trained like n."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name](scale if scale in DEIM else "n")
