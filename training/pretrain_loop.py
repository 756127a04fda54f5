"""The loop of pretraining: one process or several, stopped and gone on with at any step.

Sample k of the run is picture perm(pass)[k mod N] with the view of (seed, pass, picture); step s consists of the
samples s * batch to (s + 1) * batch - 1. Places 2k and 2k + 1 of a step may be mixed, so a process takes whole pairs.
All that is random is a function of these numbers: nothing is saved but the next step, and on a CPU a run that was
stopped ends with the same bits as one that was not.
"""

import copy
import hashlib
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ledetr.errors import LeDetrError, UsageError
from ledetr.model.backbone import LiteNat, build_backbone
from ledetr.model.config import ModelConfig
from training.checkpoint import Checkpoints
from training.data.classify_augment import DROP, drawn_mixing, mixed, plain_view, view
from training.data.collate import order_of_pass, rng_of
from training.data.imagefolder import PictureSet
from training.distributed import Team, sync_batch_norms
from training.launch import Outcome, in_team
from training.loop import Precision
from training.pretrain_distil import STRIDES, Mimicry, Teacher, logit_loss, open_teacher
from training.pretrain_recipes import DistilConfig, PretrainConfig
from training.progress import RunProgress
from training.run_state import Judged, RunState, below
from training.teachers import load_lite0

SIZE = 103
"""What the number is drawn for that chooses the side of a step."""
JUDGE_BATCH = 32


class PretrainingDiverged(LeDetrError):
    """Too many steps had gradients that were not finite."""


@dataclass(frozen=True, kw_only=True)
class PretrainJob:
    """All that the processes of a run must know."""

    folder: Path
    config: PretrainConfig
    model: ModelConfig
    train: PictureSet
    held_out: PictureSet
    total: int
    teacher: str | None = None
    """Name of the teacher; None: labels only."""
    lite0_start: bool = True
    """N's trunk starts from the packaged ImageNet weights of EfficientNet-Lite0."""
    device: str = "cpu"
    precision: Precision = "fp32"
    processes: int = 1
    workers: int = 0
    threads: int | None = None
    minutes: float = math.inf
    log_every: int = 50
    save_every: int = 500
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassBatch:
    """This process's part of one step."""

    step: int
    pixels: Tensor
    """(b, 3, S, S) uint8."""
    labels: Tensor
    """(b,) int64, NO_LABEL where there is none."""
    places: Tensor
    """(b,) int64 places in the whole batch."""


def places_of(batch: int, rank: int, world: int) -> list[int]:
    """The places of a batch that a process fills: whole pairs, so that partners meet."""
    if batch % (2 * world):
        raise UsageError(
            f"a batch of {batch} cannot be dealt out in pairs to {world} processes: take a multiple of {2 * world}"
        )
    return [place for place in range(batch) if place // 2 % world == rank]


def side_of_step(config: PretrainConfig, step: int) -> int:
    """Side of the input of a step."""
    return config.sizes[int(rng_of(config.seed, SIZE, step).integers(len(config.sizes)))]


class Views(TorchDataset[tuple[int, np.ndarray, int]]):
    """Number, view and label of a sample by its number."""

    def __init__(self, data: PictureSet, config: PretrainConfig) -> None:
        self.data, self.config = data, config

    def __getitem__(self, number: int) -> tuple[int, np.ndarray, int]:
        config, pictures = self.config, len(self.data.entries)
        epoch, place = divmod(number, pictures)
        index = int(order_of_pass(config.seed, epoch, pictures)[place])
        entry = self.data.entries[index]
        side = side_of_step(config, number // config.batch)
        rgb = view(entry.read(), side, config.augment, seed=config.seed, epoch=epoch, index=index)
        return number, rgb, entry.label


@dataclass(frozen=True)
class _Collate:
    batch: int

    def __call__(self, samples: Sequence[tuple[int, np.ndarray, int]]) -> ClassBatch:
        rgb = np.stack([rgb for _, rgb, _ in samples])
        return ClassBatch(
            step=samples[0][0] // self.batch,
            pixels=torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))),
            labels=torch.tensor([label for _, _, label in samples]),
            places=torch.tensor([number % self.batch for number, _, _ in samples]),
        )


def class_batches(
    data: PictureSet, config: PretrainConfig, *, first: int, total: int, rank: int, world: int, workers: int
) -> Iterator[ClassBatch]:
    """This process's part of the steps `first` to `total` - 1."""
    places = places_of(config.batch, rank, world)
    loader: DataLoader[Any] = DataLoader(
        Views(data, config),
        batch_sampler=[[step * config.batch + place for place in places] for step in range(first, total)],
        num_workers=workers,
        collate_fn=_Collate(config.batch),
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def plain_batches(data: PictureSet, side: int, crop: float, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures as they are judged: pixels (b, 3, S, S) uint8 and labels (b,); of a large set the first `most`, evenly
    taken."""
    entries = data.entries
    if most is not None and most < len(entries):
        entries = tuple(entries[i * len(entries) // most] for i in range(most))
    for start in range(0, len(entries), JUDGE_BATCH):
        part = entries[start : start + JUDGE_BATCH]
        rgb = np.stack([plain_view(entry.read(), side, crop) for entry in part])
        yield (
            torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))),
            torch.tensor([entry.label for entry in part]),
        )


class Student(nn.Module):
    """A backbone with what is needed to train it: a linear head for labels, one for the teacher's answers, adaptors.

    forward takes pixels (B, 3, H, W) float in 0..255 and gives the maps, label logits and teacher logits; a head that
    the run has no use for gives None.
    """

    def __init__(self, model: ModelConfig, classes: int, teacher: Teacher | None, distil: DistilConfig | None) -> None:
        super().__init__()
        self.mean, self.std = model.pixel_mean, model.pixel_std
        self.backbone = build_backbone(model.backbone)
        widths = self.backbone.widths
        self.head = nn.Linear(widths[-1], classes) if classes else None
        self.mimicry: Mimicry | None = None
        self.teacher_head: nn.Linear | None = None
        if teacher is not None and distil is not None:
            self.mimicry = Mimicry(widths, teacher.widths, distil)
            if distil.logit_weight:
                self.teacher_head = nn.Linear(widths[-1], teacher.classes)
        for head in (self.head, self.teacher_head):
            if head is not None:
                nn.init.trunc_normal_(head.weight, std=0.02)
                nn.init.zeros_(head.bias)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
        maps = self.backbone((pixels - self.mean) / self.std)
        pooled = maps[-1].mean((2, 3))
        label = self.head(pooled) if self.head is not None else None
        return maps, label, self.teacher_head(pooled) if self.teacher_head is not None else None


class DropPath:
    """Stochastic depth (arXiv:1603.09382) around any block that adds to its input, without touching the block.

    Which samples skip which block is a function of (seed, step, place in the whole batch, block).
    """

    def __init__(self, backbone: nn.Module, config: PretrainConfig) -> None:
        self.seed, self.batch = config.seed, config.batch
        blocks = [m for m in backbone.modules() if _adds_to_its_input(m)]
        begin = int(len(blocks) * config.drop_path_from)
        share = len(blocks) - begin
        self.rates = [config.drop_path * (i + 1) / share for i in range(share)]
        self.keep: Tensor | None = None
        if config.drop_path:
            for index, block in enumerate(blocks[begin:]):
                block.register_forward_hook(self._hook(index))

    def draw(self, batch: ClassBatch, device: torch.device) -> None:
        """Decide for this step. Before the first call, and in eval mode, nothing is skipped."""
        drawn = np.random.default_rng((self.seed, DROP, batch.step)).random((len(self.rates), self.batch))
        kept = torch.from_numpy(drawn[:, batch.places.numpy()] >= np.array(self.rates)[:, None])
        self.keep = kept.to(device)

    def _hook(self, index: int) -> Any:
        def scaled(block: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if not block.training or self.keep is None:
                return out
            weight = self.keep[index].to(out.dtype) / (1 - self.rates[index])
            return inputs[0] + (out - inputs[0]) * weight[:, None, None, None]

        return scaled


def _adds_to_its_input(module: nn.Module) -> bool:
    name = type(module).__name__
    return name in ("ResBlock", "NeighborhoodMixer") or bool(getattr(module, "shortcut", False))


def starting_student(job: PretrainJob, teacher: Teacher | None) -> Student:
    """The network before step 0, the same in every process."""
    torch.manual_seed(job.config.seed)
    student = Student(job.model, len(job.train.class_names), teacher, job.config.distil if teacher else None)
    if job.lite0_start and isinstance(student.backbone, LiteNat):
        load_lite0(student.backbone)
    return student


def pretrain(rank: int, job: PretrainJob) -> Outcome:
    """One process's whole run, or what is left of it."""
    with in_team(rank, job) as (team, stop):
        return _pretrain(team, job, stop)


def _pretrain(team: Team, job: PretrainJob, stop: threading.Event) -> Outcome:
    deadline = time.monotonic() + 60 * job.minutes
    run = PretrainRun(job, team)
    first = run.resume()
    stream = class_batches(
        job.train, job.config, first=first, total=job.total, rank=team.rank, world=team.world, workers=job.workers
    )
    return run.advance(stream, first, stop, deadline)


class PretrainRun(RunState[PretrainJob, Student, ClassBatch]):
    """One process of the training of a backbone."""

    def __init__(self, job: PretrainJob, team: Team) -> None:
        config = job.config
        self.teacher = open_teacher(job.teacher).to(team.device) if job.teacher is not None else None
        model = starting_student(job, self.teacher).to(team.device).train()
        if team.world > 1:
            sync_batch_norms(model)
        self.drop_path = DropPath(model.backbone, config)
        self.average: Student | None = None
        decays = (config.decay(job.total),)
        super().__init__(job, team, model, config.schedule(job.total), decays=decays, ema_ramp=config.ema_ramp)

    def begin(self) -> None:
        """Mean and variance of the teacher's maps on plain pictures are taken before the first step."""
        config = self.job.config
        if self.teacher is not None and self.model.mimicry is not None and config.distil is not None:
            stream = plain_batches(
                self.job.train, config.judge_side, config.judge_crop, config.distil.statistics_pictures
            )
            with torch.no_grad():
                maps = [self.teacher(pixels.to(self.team.device).float())[0] for pixels, _ in stream]
            self.model.mimicry.set_statistics(maps)
            self.ema.load_tensors({f"0/{name}": value for name, value in self.model.state_dict().items()})
        super().begin()

    def identity(self) -> dict[str, Any]:
        """Recipe, network, classes, teacher, length and pictures."""
        names = "\n".join(f"{entry.key} {entry.label}" for entry in self.job.train.entries)
        return {
            "config": dict(self.job.config.to_dict()),
            "model": self.job.model.to_dict(),
            "class_names": list(self.job.train.class_names),
            "teacher": self.job.teacher,
            "total": self.job.total,
            "pictures_sha256": hashlib.sha256(names.encode()).hexdigest(),
        }

    def losses(self, batch: ClassBatch) -> dict[str, Tensor]:
        """The terms, with their gradients left in the parameters."""
        terms = self.terms(batch)
        terms["total"].backward()
        return terms

    def terms(self, batch: ClassBatch) -> dict[str, Tensor]:
        """Sums over this process's pictures by the size of the whole batch; "total" has the gradient."""
        config, device = self.job.config, self.team.device
        mixing = drawn_mixing(config.augment, batch.pixels.shape[-1], seed=config.seed, step=batch.step)
        pixels = mixed(batch.pixels.to(device, non_blocking=True).float(), mixing, pixels=True)
        self.drop_path.draw(batch, device)
        narrow = torch.autocast(device.type, torch.bfloat16) if self.job.precision == "bf16" else nullcontext()
        with narrow:
            maps, logits, answers = self.model(pixels)
            taught = None
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(pixels)
            terms: dict[str, tuple[float, Tensor]] = {}
            if logits is not None:
                targets = mixed(self._targets(batch.labels.to(device)), mixing, pixels=False)
                weight = config.distil.label_weight if self.teacher is not None and config.distil else 1.0
                terms["label"] = weight, _class_loss(logits, targets, config.loss)
                if config.mesa and batch.step >= config.mesa_from * self.job.total:
                    terms["mesa"] = config.mesa, _class_loss(logits, self._average_says(pixels), config.loss)
        if taught is not None:
            terms |= self._distances(maps, answers, taught)
        sums = {name: values.sum() / config.batch for name, (_, values) in terms.items()}
        total = torch.stack([weight * sums[name] for name, (weight, _) in terms.items() if weight]).sum()
        return {**sums, "total": total}

    def _targets(self, labels: Tensor) -> Tensor:
        """(b, C) float: smoothed."""
        classes = len(self.job.train.class_names)
        smoothing = self.job.config.smoothing
        return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes

    def _distances(
        self, maps: list[Tensor], answers: Tensor | None, taught: tuple[list[Tensor], Tensor]
    ) -> dict[str, tuple[float, Tensor]]:
        distil, mimicry = self.job.config.distil, self.model.mimicry
        assert distil is not None and mimicry is not None
        terms = {}
        found = mimicry(maps, taught[0])
        for stride, weight, (loss, cosine) in zip(STRIDES, distil.feature_weights, found, strict=True):
            terms[f"map_{stride}"] = weight, loss
            terms[f"cosine_{stride}"] = 0.0, cosine.detach()
        if answers is not None:
            terms["logit"] = distil.logit_weight, logit_loss(answers, taught[1], distil.temperature)
        return terms

    @torch.no_grad()
    def _average_says(self, pixels: Tensor) -> Tensor:
        """(b, C) the moving average's answers as targets, in eval mode."""
        if self.average is None:
            self.average = copy.deepcopy(self.model).eval()
        _, logits, _ = functional_call(self.average, self.ema.averages[0], (pixels,))
        wide: Tensor = logits.float()
        return wide.sigmoid() if self.job.config.loss == "binary" else wide.softmax(-1)

    def too_many_skips(self, count: int, first: int, step: int) -> NoReturn:
        """PretrainingDiverged."""
        raise PretrainingDiverged(
            f"{count} of the last steps before step {step} had gradients that were not finite and were not made; "
            f"start again from the checkpoint in {str(self.checkpoints.folder)!r} with half the rate (--lr-scale)"
        )

    def judge(self, step: int, progress: RunProgress) -> Judged:
        """The moving average on the held-out pictures: its figure that counts is the metric."""
        model = copy.deepcopy(self.model)
        self.ema.copy_to(model, 0)
        figures = judged(model, self.teacher, self.job, self.team.device)
        self.log({"event": "judged", "step": step, **figures})
        progress.note(f"step {step} of {self.job.total}  {figure_words(figures)} on held-out pictures")
        return (figures["top1"] if "top1" in figures else figures["cosine"]), {}


def _class_loss(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """(b,) cross entropy against soft targets, over the softmax or of each class by itself."""
    if kind == "softmax":
        return -(targets * F.log_softmax(logits.float(), -1)).sum(-1)
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").sum(-1)


@torch.no_grad()
def judged(model: Student, teacher: Teacher | None, job: PretrainJob, device: torch.device) -> dict[str, float]:
    """Figures on the held-out pictures, in 0..1: top1 and top5 with labels; with a teacher the cosine of each stride's
    map and how often the best class is the teacher's."""
    model = model.eval().to(device)
    sums: dict[str, float] = {}
    stream = plain_batches(job.held_out, job.config.judge_side, job.config.judge_crop)
    for pixels, labels in stream:
        pixels, labels = pixels.to(device).float(), labels.to(device)
        maps, logits, answers = model(pixels)
        found: dict[str, Tensor] = {}
        if logits is not None and job.held_out.labelled:
            best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            found |= {"top1": best[:, 0], "top5": best.any(1)}
        if teacher is not None and model.mimicry is not None:
            theirs, truth = teacher(pixels)
            cosines = [cosine for _, cosine in model.mimicry(maps, theirs)]
            found |= {f"cosine_{stride}": cosine for stride, cosine in zip(STRIDES, cosines, strict=True)}
            found["cosine"] = torch.stack(cosines).mean(0)
            if answers is not None:
                found["agrees"] = answers.argmax(1) == truth.argmax(1)
        for name, values in found.items():
            sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    return {name: total / len(job.held_out.entries) for name, total in sums.items()}


def figure_words(figures: Mapping[str, float]) -> str:
    """The figures as words for people."""
    words = {
        "top1": "top-1",
        "top5": "top-5",
        "agrees": "best class as the teacher's",
        "cosine": "cosine to the teacher",
    }
    return ", ".join(
        f"{words.get(name, name.replace('_', ' at stride '))} {value:.3f}" for name, value in figures.items()
    )


@torch.no_grad()
def estimate_norms(backbone: nn.Module, inputs: Iterable[Tensor]) -> None:
    """The batch statistics of these normalised pictures in place of those the backbone has; it is then in eval mode.

    After training they are of mixed pictures of several sizes, and before it of none.
    """
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    backbone.train()
    for pixels in inputs:
        backbone(pixels)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    backbone.eval()


def finished_student(job: PretrainJob) -> tuple[Student, dict[str, float], dict[str, float], int]:
    """The average of the newest checkpoint with estimated batch statistics, its figures before and after that, and
    its step."""
    device = torch.device(job.device)
    teacher = open_teacher(job.teacher).to(device) if job.teacher is not None else None
    model = starting_student(job, teacher)
    snapshot = Checkpoints(job.folder / "checkpoints").load()
    model.load_state_dict(below(snapshot.weights, "ema/0/"))
    before = judged(model, teacher, job, device)
    after = before
    if job.config.norm_pictures:
        stream = plain_batches(job.train, job.config.judge_side, job.config.judge_crop, job.config.norm_pictures)
        model.to(device)
        estimate_norms(model.backbone, ((p.to(device).float() - model.mean) / model.std for p, _ in stream))
        after = judged(model, teacher, job, device)
    return model.cpu(), before, after, snapshot.step
