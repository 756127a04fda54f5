"""What is done to a picture before a classifier or a student sees it; on bytes, one picture at a time, on the CPU.

Every function takes its randomness as an argument, and the view of a picture is a pure function of (seed, pass,
index, size). Mixup and CutMix work on a whole batch, on the device, and are drawn by (seed, step).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

# What a random number is for; part of its key. Another range than that of detection's samples.
VIEW, MIX, DROP = 100, 101, 102
CROP_TRIALS = 10
# Spread of natural pictures about their middle, for the noise that erases a part.
NOISE_MEAN, NOISE_STD = 118.0, 58.0


@dataclass(frozen=True, kw_only=True)
class ClassifyAugment:
    """Probabilities and ranges."""

    crop_scale: tuple[float, float]
    """Share of the picture's area that a random crop takes."""
    crop_ratio: tuple[float, float]
    """Width by height of the crop."""
    flip: float
    rand_ops: int
    """Operations of RandAugment (arXiv:1909.13719) for each picture."""
    rand_magnitude: float
    """Their strength, of 10."""
    rand_std: float
    """Spread of the strength."""
    rand_probability: float
    """With which each of the chosen operations is made."""
    erase: float
    """Probability of a rectangle of noise (arXiv:1708.04896)."""
    erase_area: tuple[float, float]
    mixup: float
    """Probability for a batch; cutmix likewise, and never both: together at most 1."""
    mixup_alpha: float
    cutmix: float
    cutmix_alpha: float


def view(
    rgb: np.ndarray, side: int, config: ClassifyAugment, *, seed: int, epoch: int, index: int, strong: bool = True
) -> np.ndarray:
    """(side, side, 3) uint8: the view of picture `index` in pass `epoch`. Not strong: only cropped and flipped."""
    rng = np.random.default_rng((seed, VIEW, epoch, index))
    out = random_resized_crop(rgb, side, config, rng)
    if rng.random() < config.flip:
        out = np.ascontiguousarray(out[:, ::-1])
    if not strong:
        return out
    out = rand_augment(out, config, rng)
    return erased(out, config.erase_area, rng) if rng.random() < config.erase else out


def plain_view(rgb: np.ndarray, side: int, share: float) -> np.ndarray:
    """(side, side, 3) uint8: the middle square whose side is this share of the picture's shorter one."""
    height, width = rgb.shape[:2]
    square = max(1, round(min(height, width) * share))
    top, left = (height - square) // 2, (width - square) // 2
    return _resized(rgb[top : top + square, left : left + square], side)


def random_resized_crop(rgb: np.ndarray, side: int, config: ClassifyAugment, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of drawn area and shape as a square; the largest of an allowed shape where none drawn fits in."""
    height, width = rgb.shape[:2]
    low, high = (math.log(ratio) for ratio in config.crop_ratio)
    for _ in range(CROP_TRIALS):
        area = height * width * rng.uniform(*config.crop_scale)
        ratio = math.exp(rng.uniform(low, high))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
            return _resized(rgb[top : top + tall, left : left + wide], side)
    ratio = min(max(width / height, config.crop_ratio[0]), config.crop_ratio[1])
    wide, tall = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    top, left = (height - tall) // 2, (width - wide) // 2
    return _resized(rgb[top : top + tall, left : left + wide], side)


def _resized(rgb: np.ndarray, side: int) -> np.ndarray:
    shrinks = rgb.shape[0] > side or rgb.shape[1] > side
    resized = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)


def erased(rgb: np.ndarray, area: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A rectangle of this share of the area, of shape 0.3 to 3.3, becomes noise of the spread of natural pictures."""
    height, width = rgb.shape[:2]
    for _ in range(CROP_TRIALS):
        size, ratio = height * width * rng.uniform(*area), math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        tall, wide = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if 0 < tall < height and 0 < wide < width:
            top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
            out = rgb.copy()
            noise = rng.normal(NOISE_MEAN, NOISE_STD, (tall, wide, 3))
            out[top : top + tall, left : left + wide] = noise.clip(0, 255).astype(np.uint8)
            return out
    return rgb


def rand_augment(rgb: np.ndarray, config: ClassifyAugment, rng: np.random.Generator) -> np.ndarray:
    """A few operations drawn from OPERATIONS, each with a strength in 0..1 about the config's."""
    if not config.rand_ops:
        return rgb
    image = Image.fromarray(rgb)
    names = list(OPERATIONS)
    for choice in rng.integers(0, len(names), config.rand_ops):
        made = rng.random() < config.rand_probability
        strength = float(np.clip(rng.normal(config.rand_magnitude, config.rand_std) / 10, 0, 1))
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if made:
            image = OPERATIONS[names[int(choice)]](image, strength, sign)
    return np.array(image)


Operation = Callable[[Image.Image, float, float], Image.Image]


def _moved(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)
    )


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength, sign: kind(image).enhance(1 + sign * 0.9 * strength)


def _solarize_add(image: Image.Image, strength: float, _: float) -> Image.Image:
    """Dark values become brighter, as in AutoAugment's search space."""
    added = round(110 * strength)
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


# All grow with the strength, so that a mean strength means something ("inc1" of the usual scripts).
OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "invert": lambda image, strength, sign: ImageOps.invert(image),
    "rotate": lambda image, strength, sign: image.rotate(
        30 * sign * strength, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)
    ),
    "posterize": lambda image, strength, sign: ImageOps.posterize(image, max(1, 4 - int(4 * strength))),
    "solarize": lambda image, strength, sign: ImageOps.solarize(image, 256 - round(256 * strength)),
    "solarize_add": _solarize_add,
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, strength, sign: _moved(image, (1, 0.3 * sign * strength, 0, 0, 1, 0)),
    "shear_y": lambda image, strength, sign: _moved(image, (1, 0, 0, 0.3 * sign * strength, 1, 0)),
    "translate_x": lambda image, strength, sign: _moved(image, (1, 0, 0.45 * sign * strength * image.width, 0, 1, 0)),
    "translate_y": lambda image, strength, sign: _moved(image, (1, 0, 0, 0, 1, 0.45 * sign * strength * image.height)),
}


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How the two pictures of each pair of a batch are put together. share: of the first of them, in 0..1."""

    share: float = 1.0
    window: tuple[int, int, int, int] | None = None
    """Top, left, bottom, right of what comes from the partner, pixels; None: both are added."""


def drawn_mixing(config: ClassifyAugment, side: int, *, seed: int, step: int) -> Mixing:
    """What is done to the batch of a step. The window's part of the area is exactly what the labels get."""
    rng = np.random.default_rng((seed, MIX, step))
    chance = rng.random()
    if chance < config.mixup:
        return Mixing(share=float(rng.beta(config.mixup_alpha, config.mixup_alpha)))
    if chance >= config.mixup + config.cutmix:
        return Mixing()
    cut = math.sqrt(1 - rng.beta(config.cutmix_alpha, config.cutmix_alpha))
    centre = rng.integers(0, side, 2)
    low, high = np.clip(centre - round(side * cut) // 2, 0, side), np.clip(centre + round(side * cut) // 2, 0, side)
    top, left, bottom, right = int(low[0]), int(low[1]), int(high[0]), int(high[1])
    return Mixing(share=1 - (bottom - top) * (right - left) / side**2, window=(top, left, bottom, right))


def mixed(values: Tensor, mixing: Mixing, *, pixels: bool) -> Tensor:
    """(B, ...) float: pictures, or (B, C) labels, with those of the partner; places 2k and 2k + 1 are partners."""
    if mixing.share == 1:
        return values
    partner = values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    if mixing.window is None or not pixels:
        return torch.lerp(partner, values, mixing.share)
    top, left, bottom, right = mixing.window
    out = values.clone()
    out[..., top:bottom, left:right] = partner[..., top:bottom, left:right]
    return out
