"""Batches are a function of the step: resumed, split over processes or made ahead, they are the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.augment import Sample
from training.data.collate import Batch, Collate, Samples, batches, order_of_pass, picture_of, size_of_step
from training.data.read import read_dataset
from training.data.shapes import write_shapes
from training.recipes import finetune, paper
from training.schedule import AugmentationWindows

CONFIG = replace(finetune("n"), batch=4)
WINDOWS = AugmentationWindows(strong_from=1, mosaic_until=6, strong_until=8)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    data = read_dataset(write_shapes(tmp_path_factory.mktemp("shapes"), "coco", 10))
    return Samples(data.pictures, 3, CONFIG, WINDOWS, (96, 96))


def same(one: Batch, other: Batch) -> bool:
    pairs = [(one.pixels, other.pixels), (one.keys, other.keys)]
    pairs += [(value, vars(other.targets)[name]) for name, value in vars(one.targets).items()]
    return one.step == other.step and all(torch.equal(a, b) for a, b in pairs)


def test_a_step_is_the_same_wherever_one_starts(samples: Samples) -> None:
    run = list(batches(samples, first=0, total=9))
    later = list(batches(samples, first=5, total=9))
    assert all(same(a, b) for a, b in zip(run[5:], later, strict=True))
    assert run[0].pixels.shape == (4, 3, 96, 96) and run[0].pixels.dtype == torch.uint8
    assert run[0].targets.labels.shape == (4, 100) and run[3].targets.labels.shape == (4, 160)
    assert not same(run[3], replace(run[4], step=3))


def test_worker_processes_make_the_same_batches(samples: Samples) -> None:
    assert all(
        same(a, b)
        for a, b in zip(batches(samples, first=2, total=5), batches(samples, first=2, total=5, workers=1), strict=True)
    )


def test_processes_share_out_the_batch_of_one(samples: Samples) -> None:
    """Also where mixup takes its partner from another process's part."""
    whole = list(batches(samples, first=0, total=7))
    parts = [list(batches(samples, first=0, total=7, rank=rank, world=2)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for rank in (0, 1):
            assert torch.equal(batch.pixels[rank::2], parts[rank][step].pixels)
            assert torch.equal(batch.targets.boxes_cxcywh[rank::2], parts[rank][step].targets.boxes_cxcywh)
    with pytest.raises(ValueError, match="cannot be dealt out evenly to 3"):
        next(batches(samples, first=0, total=1, world=3))


def test_each_pass_takes_every_picture_once() -> None:
    for number in range(3):
        taken = [picture_of(5, sample, 10) for sample in range(10 * number, 10 * number + 10)]
        assert sorted(taken) == list(range(10))
    assert not np.array_equal(order_of_pass(5, 0, 10), order_of_pass(5, 1, 10))


def test_windows_open_and_close(samples: Samples) -> None:
    """Outside the window for strong augmentation a sample is its picture, resized and perhaps flipped."""
    for step in (0, 8):
        for number in range(4 * step, 4 * step + 4):
            sample = samples[number]
            picture = samples.pictures[picture_of(CONFIG.seed, number, 10)]
            assert len(sample.labels) == len(picture.labels)
    mixed = [len(samples[number].labels) for number in range(4, 24)]
    assert max(mixed) > 4, "mosaic and mixup bring more objects than any picture has"


def test_more_objects_than_slots_are_a_random_part_and_counted() -> None:
    n = 30
    boxes = np.tile(np.array([[10, 20, 30, 60]], np.float32), (n, 1))
    sample = Sample(
        rgb=np.zeros((96, 96, 3), np.uint8),
        boxes_xyxy=boxes,
        labels=np.arange(n) % 3,
        weight=np.linspace(0, 1, n, dtype=np.float32),
        crowd=np.arange(n) >= 25,
        annotated=np.ones(3, bool),
    )
    config = replace(CONFIG, slots=8, ignore_slots=2)
    collate = Collate(config=config, windows=WINDOWS, size_hw=(96, 96))
    batch = collate([(0, sample), (1, sample)])
    assert batch.left_out == 2 * (17 + 3)
    assert batch.targets.valid.all() and batch.targets.ignore_valid is not None and batch.targets.ignore_valid.all()
    assert not torch.equal(batch.targets.weight[0], batch.targets.weight[1]), "each sample draws its own part"
    expected = torch.tensor([20 / 96, 40 / 96, 20 / 96, 40 / 96])
    assert torch.allclose(batch.targets.boxes_cxcywh, expected.expand(2, 8, 4))


def test_pictures_nobody_looked_at_teach_no_background(samples: Samples) -> None:
    unlabelled = [replace(p, labelled=False) for p in samples.pictures]
    sample = Samples(unlabelled, 3, CONFIG, WINDOWS, (96, 96))[0]
    assert not sample.annotated.any()


def test_size_is_drawn_by_step_and_fixed_at_the_end() -> None:
    config = paper("l")
    windows = AugmentationWindows(strong_from=10, mosaic_until=50, strong_until=300)
    sizes = [size_of_step(config, windows, step, (640, 640)) for step in range(320)]
    assert {h for h, _ in sizes[:300]} == {480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800}
    assert set(sizes[300:]) == {(640, 640)} and sizes == [
        size_of_step(config, windows, s, (640, 640)) for s in range(320)
    ]
