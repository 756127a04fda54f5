"""Feature cache for the distillation of N: each view is seen once by the frozen lower trunk and by the teacher.

Stored in float16, one folder a shard: c3 (40 channels, stride 8) and c4 (112, stride 16) of EfficientNet-Lite0; t16 and
t32 (96 each) of the teacher's encoder; the boxes of the view. A shard appears under its name only when it is whole, so
the cache can be stopped at any moment, extended, and read while it grows.
"""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ledetr.model.backbone import LiteNat
from ledetr.model.config import LiteNatConfig, ledetr_n
from training.data.coco import Picture
from training.data.views import DrawnView, draw_view, view_recipe
from training.teachers import FemtoMaps, cpu_config, load_lite0

SHARD_VIEWS = 256
BATCH = 8
MAX_BOXES = 100
# The first stage that is trained on cached maps; everything below it is frozen.
FIRST_TRAINED_STAGE = 5


class LowerTrunk(nn.Module):
    """Normalised pixels to the maps at strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        config = ledetr_n()
        assert isinstance(config.backbone, LiteNatConfig)
        self.backbone = LiteNat(config.backbone)
        load_lite0(self.backbone)
        self.mean, self.std = config.pixel_mean, config.pixel_std

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone.stem((pixels - self.mean) / self.std)
        maps = []
        for stage in self.backbone.stages[:FIRST_TRAINED_STAGE]:
            x = stage(x)
            maps.append(x)
        return maps[2], maps[4]


@dataclass(frozen=True, slots=True)
class CacheJob:
    """What a worker needs to write shards; plain values, so that it can be sent to another process."""

    pictures: tuple[Picture, ...]
    folder: Path
    teacher: Path
    seed: int
    size: int


def write_cache(job: CacheJob, *, views: int, workers: int) -> None:
    """Write every missing shard up to `views` views; each worker is a process with one thread."""
    missing = [s for s in range(-(-views // SHARD_VIEWS)) if not shard_path(job.folder, s).is_dir()]
    job.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        for done in pool.map(_write_shard_group, [job] * workers, [missing[i::workers] for i in range(workers)]):
            print(f"wrote {done} shards", flush=True)


def shard_path(folder: Path, shard: int) -> Path:
    """Folder of a shard."""
    return folder / f"shard_{shard:05d}"


def _write_shard_group(job: CacheJob, shards: Sequence[int]) -> int:
    os.nice(5)
    torch.set_num_threads(1)
    student, teacher = _compile_student(job.size), FemtoMaps(job.teacher, batch=BATCH, size=job.size)
    for shard in shards:
        _write_shard(job, shard, student, teacher)
        print(f"shard {shard} written", flush=True)
    return len(shards)


def _compile_student(size: int):  # type: ignore[no-untyped-def]  # an openvino.CompiledModel
    from ledetr.backends.openvino_runtime import openvino as ov

    trunk = LowerTrunk().eval()
    example = torch.zeros(BATCH, 3, size, size)
    model = ov.convert_model(trunk, example_input=example, input=[list(example.shape)])
    return ov.Core().compile_model(model, "CPU", cpu_config(1))


def _write_shard(job: CacheJob, shard: int, student, teacher: FemtoMaps) -> None:  # type: ignore[no-untyped-def]
    maps: dict[str, list[np.ndarray]] = {"c3": [], "c4": [], "t16": [], "t32": []}
    drawn: list[DrawnView] = []
    for first in range(shard * SHARD_VIEWS, (shard + 1) * SHARD_VIEWS, BATCH):
        views = [
            draw_view(job.pictures, view_recipe(job.pictures, n, seed=job.seed), job.size)
            for n in range(first, first + BATCH)
        ]
        pixels = np.stack([v.pixels for v in views]).transpose(0, 3, 1, 2).astype(np.float32)
        lower = student(pixels)
        for name, value in zip(maps, (lower[0], lower[1], *teacher(pixels)), strict=True):
            maps[name].append(value.astype(np.float16))
        drawn += views
    arrays = {name: np.concatenate(parts) for name, parts in maps.items()}
    _save_folder(shard_path(job.folder, shard), {**arrays, **_padded_boxes(drawn)})


def _padded_boxes(views: Sequence[DrawnView]) -> dict[str, np.ndarray]:
    """boxes (V, MAX_BOXES, 4) cxcywh, labels (V, MAX_BOXES) with -1 for none, crowd, and which views are labelled."""
    boxes = np.zeros((len(views), MAX_BOXES, 4), np.float32)
    labels = np.full((len(views), MAX_BOXES), -1, np.int16)
    crowd = np.zeros((len(views), MAX_BOXES), bool)
    for i, view in enumerate(views):
        # Crowds last: where there are too many boxes, single objects stay.
        order = np.argsort(view.crowd, kind="stable")[:MAX_BOXES]
        boxes[i, : len(order)] = view.boxes_cxcywh[order]
        labels[i, : len(order)] = view.labels[order]
        crowd[i, : len(order)] = view.crowd[order]
    return {"boxes": boxes, "labels": labels, "crowd": crowd, "labelled": np.array([v.labelled for v in views])}


def _save_folder(path: Path, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", array)
    part.replace(path)
