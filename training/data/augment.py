"""What is done to a picture and its boxes before the network sees them: one picture at a time, on bytes, on the CPU.

This is the plain form that faster ones are measured against. Every function takes its randomness as an argument, so a
sample is a pure function of (seed, sample number). Boxes are (N, 4) float32 left, top, right, bottom in pixels, where
pixel i reaches from i to i + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from training.config import AugmentConfig

CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
CROP_SCALE, CROP_ASPECT, CROP_TRIALS = (0.3, 1.0), (0.5, 2.0), 40
# Largest changes of brightness, contrast, saturation (factors) and hue (turns), each made with probability 0.5.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.125, 0.5, 0.5, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A picture on its way into the network."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    """(N,) int64."""
    weight: np.ndarray
    """(N,) float32."""
    crowd: np.ndarray
    """(N,) bool: regions to ignore."""
    annotated: np.ndarray
    """(C,) bool."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    def with_boxes(self, rgb: np.ndarray, boxes_xyxy: np.ndarray, kept: np.ndarray) -> "Sample":
        """New pixels, and those of the moved boxes that are kept."""
        return replace(
            self,
            rgb=rgb,
            boxes_xyxy=boxes_xyxy[kept].astype(np.float32),
            labels=self.labels[kept],
            weight=self.weight[kept],
            crowd=self.crowd[kept],
        )


def plain(sample: Sample, size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Flipped by chance and resized in the detector's own way, which skips pixels of large pictures."""
    sample = flipped(sample) if rng.random() < config.flip else sample
    return finished(resized(sample, size_hw, smooth=False), size_hw, config)


def strong(sample: Sample, size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Colour, zoom-out, crop, flip, resize, each by chance."""
    if rng.random() < config.photometric:
        sample = photometric(sample, rng)
    if rng.random() < config.zoom_out:
        sample = zoom_out(sample, config.zoom_out_most, rng)
    if rng.random() < config.iou_crop:
        sample = iou_crop(sample, rng)
    return plain(resized(sample, size_hw), size_hw, config, rng)


def strong_mosaic(
    samples: Sequence[Sample], size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """Four pictures in one, with colour and flip but neither zoom-out nor crop."""
    sample = mosaic(samples, size_hw, config, rng)
    if rng.random() < config.photometric:
        sample = photometric(sample, rng)
    return plain(sample, size_hw, config, rng)


def shrunk(sample: Sample, most_hw: tuple[int, int]) -> Sample:
    """Halved in effect where the picture is far larger than it can ever be used, so that the rest is quick."""
    height, width = sample.size_hw
    scale = max(most_hw[0] / height, most_hw[1] / width)
    if scale >= 1:
        return sample
    return resized(sample, (max(1, round(height * scale)), max(1, round(width * scale))))


def resized(sample: Sample, size_hw: tuple[int, int], *, smooth: bool = True) -> Sample:
    """Stretched to a size, without skipping pixels if smooth."""
    height, width = sample.size_hw
    if (height, width) == size_hw:
        return sample
    # Plain bilinear is what the detector sees in use; below half size it skips pixels.
    shrinks = smooth and (size_hw[0] * 2 < height or size_hw[1] * 2 < width)
    rgb = cv2.resize(
        sample.rgb, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    scale = np.array([size_hw[1] / width, size_hw[0] / height] * 2, np.float32)
    return replace(sample, rgb=rgb, boxes_xyxy=sample.boxes_xyxy * scale)


def finished(sample: Sample, size_hw: tuple[int, int], config: AugmentConfig) -> Sample:
    """Of the network's size, boxes clipped and those without a side of min_side_px left out."""
    height, width = size_hw
    boxes = sample.boxes_xyxy.clip(0, np.array([width, height, width, height], np.float32))
    kept = (boxes[:, 2:] - boxes[:, :2] >= config.min_side_px).all(1)
    return sample.with_boxes(sample.rgb, boxes, kept)


def flipped(sample: Sample) -> Sample:
    """Left and right exchanged."""
    boxes = sample.boxes_xyxy.copy()
    boxes[:, [0, 2]] = sample.rgb.shape[1] - boxes[:, [2, 0]]
    return replace(sample, rgb=np.ascontiguousarray(sample.rgb[:, ::-1]), boxes_xyxy=boxes)


def photometric(sample: Sample, rng: np.random.Generator) -> Sample:
    """Brightness, contrast, saturation and hue, each changed with probability 0.5."""
    wide: np.ndarray = sample.rgb.astype(np.float32) / 255
    if rng.random() < 0.5:
        wide = wide * np.float32(rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS))
    if rng.random() < 0.5:
        mean = cv2.cvtColor(wide, cv2.COLOR_RGB2GRAY).mean()
        wide = mean + (wide - mean) * np.float32(rng.uniform(1 - CONTRAST, 1 + CONTRAST))
    saturation = rng.uniform(1 - SATURATION, 1 + SATURATION) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-HUE, HUE) if rng.random() < 0.5 else 0.0
    if saturation != 1 or hue:
        hsv = cv2.cvtColor(wide.clip(0, 1), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * hue) % 360
        hsv[..., 1] = (hsv[..., 1] * saturation).clip(0, 1)
        wide = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)
    return replace(sample, rgb=np.rint(wide.clip(0, 1) * 255).astype(np.uint8))


def zoom_out(sample: Sample, most: float, rng: np.random.Generator) -> Sample:
    """On a black canvas with sides 1 to `most` times as long, at any place."""
    height, width = sample.size_hw
    ratio = rng.uniform(1.0, most)
    tall, wide = int(height * ratio), int(width * ratio)
    top, left = int(rng.integers(0, tall - height + 1)), int(rng.integers(0, wide - width + 1))
    canvas = np.zeros((tall, wide, 3), np.uint8)
    canvas[top : top + height, left : left + width] = sample.rgb
    moved = sample.boxes_xyxy + np.array([left, top, left, top], np.float32)
    return replace(sample, rgb=canvas, boxes_xyxy=moved)


def iou_crop(sample: Sample, rng: np.random.Generator) -> Sample:
    """A window that overlaps some object by a drawn amount (SSD, arXiv:1512.02325); objects stay by their centres."""
    height, width = sample.size_hw
    objects = sample.boxes_xyxy[~sample.crowd]
    while True:
        least = CROP_OVERLAPS[int(rng.integers(len(CROP_OVERLAPS)))]
        if least >= 1 or not len(objects):
            return sample
        for _ in range(CROP_TRIALS):
            window = _drawn_window(height, width, rng)
            if window is None:
                continue
            inside = _centres_inside(objects, window)
            if inside.any() and _overlap(objects[inside], window).max() >= least:
                return cropped(sample, window)


def _drawn_window(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    wide, tall = (int(side * rng.uniform(*CROP_SCALE)) for side in (width, height))
    if not (wide and tall and CROP_ASPECT[0] < wide / tall < CROP_ASPECT[1]):
        return None
    left, top = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - tall + 1))
    return left, top, left + wide, top + tall


def _centres_inside(boxes_xyxy: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    x, y = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]).T / 2
    return np.asarray((window[0] < x) & (x < window[2]) & (window[1] < y) & (y < window[3]))


def _overlap(boxes_xyxy: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """IoU of each box with the window."""
    low, high = np.maximum(boxes_xyxy[:, :2], window[:2]), np.minimum(boxes_xyxy[:, 2:], window[2:])
    shared = (high - low).clip(0).prod(1)
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
    return np.asarray(shared / (area + (window[2] - window[0]) * (window[3] - window[1]) - shared))


def cropped(sample: Sample, window: tuple[int, int, int, int]) -> Sample:
    """The window's part; objects with their centre in it are kept and clipped, ignore regions by any overlap."""
    left, top, right, bottom = window
    inside = _centres_inside(sample.boxes_xyxy, window) | (sample.crowd & (_overlap(sample.boxes_xyxy, window) > 0))
    low, high = np.array([left, top] * 2, np.float32), np.array([right - left, bottom - top] * 2, np.float32)
    boxes = (sample.boxes_xyxy - low).clip(0, high)
    return sample.with_boxes(np.ascontiguousarray(sample.rgb[top:bottom, left:right]), boxes, inside)


def mosaic(
    samples: Sequence[Sample], size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """Four pictures, each with its short side half as long as the network's, on a 2 x 2 canvas that is then turned,
    scaled and shifted. Boxes become the rectangle around their turned corners; mostly hidden ones are left out."""
    parts = [_short_side(sample, min(size_hw) // 2) for sample in samples]
    cell_h, cell_w = (max(part.size_hw[axis] for part in parts) for axis in (0, 1))
    canvas = np.zeros((2 * cell_h, 2 * cell_w, 3), np.uint8)
    boxes = []
    for part, (row, column) in zip(parts, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        height, width = part.size_hw
        top, left = row * cell_h, column * cell_w
        canvas[top : top + height, left : left + width] = part.rgb
        boxes.append(part.boxes_xyxy + np.array([left, top] * 2, np.float32))
    united = _united(samples, canvas, np.concatenate(boxes))
    return warped(united, size_hw, _drawn_matrix(united.size_hw, size_hw, config, rng), config)


def _short_side(sample: Sample, side: int) -> Sample:
    scale = side / min(sample.size_hw)
    return resized(sample, (max(1, round(sample.size_hw[0] * scale)), max(1, round(sample.size_hw[1] * scale))))


def _united(samples: Sequence[Sample], rgb: np.ndarray, boxes_xyxy: np.ndarray) -> Sample:
    """The objects of all; a class counts as looked for where it was on every one."""
    return Sample(
        rgb=rgb,
        boxes_xyxy=boxes_xyxy.astype(np.float32),
        labels=np.concatenate([s.labels for s in samples]),
        weight=np.concatenate([s.weight for s in samples]),
        crowd=np.concatenate([s.crowd for s in samples]),
        annotated=np.logical_and.reduce([s.annotated for s in samples]),
    )


def _drawn_matrix(
    canvas_hw: tuple[int, int], size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """(2, 3) from the canvas to the output: turned and scaled about the centre, shifted, and stretched to size."""
    angle = np.deg2rad(rng.uniform(-config.mosaic_degrees, config.mosaic_degrees))
    scale = rng.uniform(*config.mosaic_scale)
    shift_x, shift_y = rng.uniform(-config.mosaic_shift, config.mosaic_shift, 2)
    height, width = canvas_hw
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([width / 2, height / 2])
    offset = centre - turn @ centre + np.array([shift_x * width, shift_y * height])
    stretch = np.array([size_hw[1] / width, size_hw[0] / height])
    return np.column_stack([turn * stretch[:, None], offset * stretch])


def warped(sample: Sample, size_hw: tuple[int, int], matrix: np.ndarray, config: AugmentConfig) -> Sample:
    """Moved by an affine map of pixel edges, (2, 3); black where nothing was."""
    # OpenCV counts from the centre of the first pixel, which is at half a pixel here.
    half = matrix.copy()
    half[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    rgb = cv2.warpAffine(sample.rgb, half, (size_hw[1], size_hw[0]), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    x0, y0, x1, y1 = sample.boxes_xyxy.T
    corners = np.stack([np.stack([x0, x1, x1, x0], -1), np.stack([y0, y0, y1, y1], -1)], -1)  # (N, 4, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    hull = np.concatenate([moved.min(1), moved.max(1)], 1)
    clipped = hull.clip(0, np.array([size_hw[1], size_hw[0]] * 2))
    area = np.maximum((hull[:, 2:] - hull[:, :2]).prod(1), 1e-6)
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = (sides.prod(1) / area >= config.min_visible) & (sides >= max(2.0, config.min_side_px)).all(1)
    return sample.with_boxes(rgb, clipped, kept)


def mixup(one: Sample, other: Sample, share: float) -> Sample:
    """Both pictures at once, of one size; the objects of both count fully."""
    rgb = cv2.addWeighted(one.rgb, share, other.rgb, 1 - share, 0.0)
    return _united([one, other], rgb, np.concatenate([one.boxes_xyxy, other.boxes_xyxy]))


def multi_scale_sides(base: int, repeat: int) -> tuple[int, ...]:
    """Sides from 0.75 to 1.25 of the base in steps of 32, the base `repeat` times; only the base for 0."""
    if not repeat:
        return (base,)
    low, high = round(0.75 * base / 32) * 32, round(1.25 * base / 32) * 32
    return (*range(low, base, 32), *[base] * repeat, *range(base + 32, high + 1, 32))
