"""From a data set to batches, as a pure function of the step: nothing to save, the same for any number of processes.

Sample k of the run is picture perm(pass)[k mod N] with the randomness of (seed, k); step s consists of the samples
s * batch to (s + 1) * batch - 1, and process r of W makes those with k mod W = r.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ledetr.losses import Targets
from ledetr.losses.targets import pad_targets
from ledetr.pictures import read_picture
from training.config import TrainConfig
from training.data import augment
from training.data.augment import Sample
from training.data.dataset import Picture
from training.schedule import AugmentationWindows

# What a random number is for; part of its key.
ORDER, AUGMENT, MIXUP, SIZE, OVERFLOW, NOISE = range(6)
MOST_KEPT_BYTES = 128 * 2**20
"""A set whose decoded pictures take less is kept in memory."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This process's part of one step."""

    step: int
    pixels: Tensor
    """(b, 3, H, W) uint8."""
    targets: Targets
    keys: Tensor
    """(b,) int64, one for each sample, for the noise of denoising."""
    left_out: int
    """Objects and ignore regions for which there was no slot."""


def rng_of(seed: int, purpose: int, number: int) -> np.random.Generator:
    """The random numbers of one purpose at one place of the run."""
    return np.random.default_rng((seed, purpose, number))


@functools.lru_cache(maxsize=4)
def order_of_pass(seed: int, number: int, pictures: int) -> np.ndarray:
    """(N,) order in which pass `number` takes the pictures."""
    return rng_of(seed, ORDER, number).permutation(pictures)


def picture_of(seed: int, sample: int, pictures: int) -> int:
    """Index of the picture that a sample is made from."""
    return int(order_of_pass(seed, sample // pictures, pictures)[sample % pictures])


def size_of_step(
    config: TrainConfig, windows: AugmentationWindows, step: int, base_hw: tuple[int, int]
) -> tuple[int, int]:
    """Height and width that the batch of a step is resized to; the base size from the plain end on."""
    if step >= windows.strong_until:
        return base_hw
    sides = augment.multi_scale_sides(max(base_hw), config.augment.multi_scale_repeat)
    side = sides[int(rng_of(config.seed, SIZE, step).integers(len(sides)))]
    return (side, side) if base_hw[0] == base_hw[1] else base_hw


class Samples(TorchDataset[Sample]):
    """Sample by number. Pictures of which nobody said what is on them teach nothing about what is not."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        classes: int,
        config: TrainConfig,
        windows: AugmentationWindows,
        size_hw: tuple[int, int],
    ) -> None:
        self.pictures, self.classes, self.config = pictures, classes, config
        self.windows, self.size_hw = windows, size_hw
        sizes = [picture.size_hw for picture in pictures]
        few = sum(3 * size[0] * size[1] if size else MOST_KEPT_BYTES + 1 for size in sizes) <= MOST_KEPT_BYTES
        self._decoded: dict[int, np.ndarray] | None = {} if few else None

    def __getitem__(self, number: int) -> Sample:
        step, place = divmod(number, self.config.batch)
        sample = self._single(number)
        rng = rng_of(self.config.seed, MIXUP, step)
        if self.windows.mosaic(step) and rng.random() < self.config.augment.mixup and self.config.batch > 1:
            share = float(rng.uniform(*self.config.augment.mixup_share))
            partner = step * self.config.batch + (place + 1) % self.config.batch
            sample = augment.mixup(sample, self._single(partner), share)
        return sample

    def _single(self, number: int) -> Sample:
        """Before mixup."""
        step, config = number // self.config.batch, self.config.augment
        rng = rng_of(self.config.seed, AUGMENT, number)
        first = self._read(picture_of(self.config.seed, number, len(self.pictures)))
        if not self.windows.strong(step):
            return augment.plain(first, self.size_hw, config, rng)
        first = self._shrunk(first)
        if self.windows.mosaic(step) and rng.random() < config.mosaic:
            others = [self._shrunk(self._read(int(i))) for i in rng.integers(0, len(self.pictures), 3)]
            return augment.strong_mosaic([first, *others], self.size_hw, config, rng)
        return augment.strong(first, self.size_hw, config, rng)

    def _read(self, index: int) -> Sample:
        picture = self.pictures[index]
        annotated = picture.annotated if picture.annotated is not None else np.ones(self.classes, bool)
        return Sample(
            rgb=self._pixels(index),
            boxes_xyxy=picture.boxes_xyxy,
            labels=picture.labels,
            weight=picture.weights(),
            crowd=picture.crowd,
            annotated=annotated & picture.labelled,
        )

    def _pixels(self, index: int) -> np.ndarray:
        """Decoded once where the whole set is small; nothing writes to them."""
        if self._decoded is None:
            return read_picture(self.pictures[index].path)
        if index not in self._decoded:
            self._decoded[index] = read_picture(self.pictures[index].path)
        return self._decoded[index]

    def _shrunk(self, sample: Sample) -> Sample:
        return augment.shrunk(sample, (2 * self.size_hw[0], 2 * self.size_hw[1]))


@dataclass(frozen=True, kw_only=True)
class Collate:
    """Samples of one step to tensors of fixed shape. numbers come with the samples, to draw what has no slot."""

    config: TrainConfig
    windows: AugmentationWindows
    size_hw: tuple[int, int]

    def __call__(self, numbered: Sequence[tuple[int, Sample]]) -> Batch:
        step = numbered[0][0] // self.config.batch
        slots = self.config.mosaic_slots if self.windows.mosaic(step) else self.config.slots
        scale = np.array([self.size_hw[1], self.size_hw[0]] * 2, np.float32)
        labels, boxes, weights, ignored, left_out = [], [], [], [], 0
        for number, sample in numbered:
            objects, regions = np.flatnonzero(~sample.crowd), np.flatnonzero(sample.crowd)
            rng = rng_of(self.config.seed, OVERFLOW, number)
            chosen = _at_most(objects, slots, rng)
            chosen_regions = _at_most(regions, self.config.ignore_slots, rng)
            left_out += len(objects) - len(chosen) + len(regions) - len(chosen_regions)
            labels.append(torch.from_numpy(sample.labels[chosen]))
            weights.append(torch.from_numpy(sample.weight[chosen]))
            boxes.append(torch.from_numpy(_cxcywh(sample.boxes_xyxy[chosen] / scale)))
            ignored.append(torch.from_numpy(sample.boxes_xyxy[chosen_regions] / scale))
        targets = pad_targets(
            labels, boxes, slots=slots, weights=weights, ignore_xyxy=ignored, ignore_slots=self.config.ignore_slots
        )
        annotated = torch.from_numpy(np.stack([sample.annotated for _, sample in numbered]))
        rgb = np.stack([sample.rgb for _, sample in numbered])
        return Batch(
            step=step,
            pixels=torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))),
            targets=replace(targets, annotated=annotated),
            keys=torch.tensor([number + (self.config.seed << 40) for number, _ in numbered], dtype=torch.int64),
            left_out=left_out,
        )


def _at_most(indices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return indices if len(indices) <= count else np.sort(rng.choice(indices, count, replace=False))


def _cxcywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    centres, sides = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.concatenate([centres, sides], 1).astype(np.float32)


class _Numbered(TorchDataset[tuple[int, Sample]]):
    """Samples with their numbers."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, number: int) -> tuple[int, Sample]:
        return number, self.samples[number]


def batches(
    samples: Samples,
    *,
    first: int,
    total: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    left_out: range = range(0),
) -> Iterator[Batch]:
    """This process's part of the steps `first` to `total` - 1, made ahead by worker processes where there are any.

    left_out: steps whose samples are never used; from the first of them on every step has the samples of a later one.
    """
    config = samples.config
    if config.batch % world:
        raise ValueError(f"a batch of {config.batch} cannot be dealt out evenly to {world} processes")
    takes = [step + len(left_out) if step >= left_out.start and left_out else step for step in range(first, total)]
    numbers = [list(range(of * config.batch + rank, (of + 1) * config.batch, world)) for of in takes]
    loader: DataLoader[tuple[int, Sample]] = DataLoader(
        _Numbered(samples),
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=Collate(config=config, windows=samples.windows, size_hw=samples.size_hw),
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    for step, batch in zip(range(first, total), loader, strict=True):
        yield replace(batch, step=step)


def _one_thread(worker: int) -> None:
    """Workers are many; threads inside each would only be in each other's way."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
