"""The loop: one process or several that train one detector, stopped and gone on with at any step.

Nothing about the data is saved but the number of the next step; rate, averages' decay, augmentation, order and noise
are functions of it. On a CPU a run that was stopped ends with the same bits as one that was not.
"""

import copy
import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F

from ledetr.errors import UsageError
from ledetr.evaluation import Scores, score
from ledetr.losses import DenoisingConfig, criterion, make_denoising
from ledetr.model.backbone import freeze_norms
from ledetr.model.config import ModelConfig
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.model.outputs import DenoisingQueries, TrainOutputs
from ledetr.weights import load_model
from training.accumulate import backward_in_parts
from training.backbone_file import load_backbone
from training.checkpoint import Checkpoints
from training.config import TrainConfig, differing_fields
from training.data.collate import Batch, Samples, batches, picture_of, size_of_step
from training.data.dataset import Dataset
from training.distributed import Team, sync_batch_norms
from training.heads import HeadMatch, with_classes
from training.judge import coco_set_of, detect_pictures
from training.launch import Outcome, in_team
from training.progress import RunProgress
from training.run_state import Judged, RunState, below, judged_steps
from training.setback import (
    SLOWER,
    NotFinite,
    Setback,
    TrainingDiverged,
    first_odd_layer,
    read_setback,
    write_bundle,
    write_setback,
)
from training.teachers import load_lite0

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that the processes of a run must know."""

    folder: Path
    """Where log and checkpoints go."""
    config: TrainConfig
    model: ModelConfig
    """With the classes of the data."""
    train: Dataset
    tune: Dataset
    total: int
    """Steps of the whole run."""
    start: Path | None = None
    """Weights file to start from; None: random values."""
    imagenet_trunk: bool = False
    """Without weights to start from: give N's trunk the ImageNet weights of EfficientNet-Lite0."""
    backbone: Path | None = None
    """Without weights to start from: a file of training.pretrain for the trunk."""
    rebuild: Callable[[LeDetr], LeDetr] | None = None
    """Makes another network of the one that the rest describes, for comparisons; draws from torch's own numbers."""
    device: str = "cpu"
    precision: Precision = "fp32"
    processes: int = 1
    workers: int = 0
    """Processes that make pictures ready, for each training process."""
    threads: int | None = None
    """Of each training process; as torch decides if None."""
    minutes: float = math.inf
    accumulate: int = 1
    """Parts in which each process makes its share of a step."""
    patience: int | None = None
    """Stop when so many judgings in a row found nothing better; None: never."""
    log_every: int = 50
    save_every: int = 500
    quiet: bool = False


def starting_model(job: Job) -> tuple[LeDetr, HeadMatch | None]:
    """The network before step 0, the same in every process, and how its class heads were matched."""
    torch.manual_seed(job.config.seed)
    model, match = _as_described(job)
    return (model if job.rebuild is None else job.rebuild(model)), match


def _as_described(job: Job) -> tuple[LeDetr, HeadMatch | None]:
    if job.start is None:
        model = build_model(job.model)
        if job.imagenet_trunk and job.model.backbone.kind == "lite":
            load_lite0(model.backbone)  # type: ignore[arg-type]  # of this kind, as was just tested
        if job.backbone is not None:
            load_backbone(job.backbone, model.backbone, job.model)
        return model, None
    loaded, info = load_model(job.start)
    model, match = with_classes(loaded, info.class_names, job.train.class_names)
    model.config = replace(model.config, input_hw=job.model.input_hw)  # nothing inside depends on it
    if model.config != job.model:
        differing = differing_fields(job.model.to_dict(), model.config.to_dict())
        raise UsageError(f"{str(job.start)!r} holds another network than the run: {differing[0]}")
    return model, match


def train(rank: int, job: Job) -> Outcome:
    """One process's whole run, or what is left of it."""
    with in_team(rank, job) as (team, stop):
        return _train(team, job, stop)


def _train(team: Team, job: Job, stop: threading.Event) -> Outcome:
    deadline = time.monotonic() + 60 * job.minutes
    while True:
        run = Run(job, team)
        try:
            first = run.resume()
            if first in judged_steps(job) and in_vain(job, first):
                return Outcome(step=first, total=job.total, interrupted=False, in_vain=True)
            return run.advance(run.batches(first), first, stop, deadline)
        except NotFinite as error:
            run.go_back(error)


def in_vain(job: Job, step: int) -> bool:
    """Whether the run has been judged `patience` times since it was best. The checkpoints alone tell, so that a run
    that is started again knows it too."""
    best = Checkpoints(job.folder / "checkpoints").best()
    if job.patience is None or best is None:
        return False
    return sum(best.step < judged <= step for judged in judged_steps(job)) >= job.patience


class Run(RunState[Job, LeDetr, Batch]):
    """One process of the training of a detector."""

    def __init__(self, job: Job, team: Team) -> None:
        config = job.config
        model, self.match = starting_model(job)
        model = model.to(team.device)
        prepare(model, config, team)
        rate, self.windows = config.schedule.resolve(job.total)
        super().__init__(job, team, model, rate, decays=config.decays(job.total), ema_ramp=config.ema_ramp)
        decoder = job.model.decoder
        self.loss = replace(config.loss, up=decoder.up, reg_scale=decoder.reg_scale)
        self.noise = DenoisingConfig(
            classes=decoder.classes,
            slots=decoder.denoising,
            label_noise=config.label_noise,
            box_noise=config.box_noise,
        )
        self.setback = read_setback(job.folder)
        self.slower = 1.0 if self.setback is None else SLOWER
        self.left_out = 0
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=team.device)
        """() int64 first step that was not made, -1 if there is none, on the device."""

    def batches(self, first: int) -> Iterator[Batch]:
        """This process's part of the steps from `first` to the end."""
        job, team = self.job, self.team
        left_out = range(0) if self.setback is None else self.setback.left_out
        return batches(
            self.samples(),
            first=first,
            total=job.total,
            rank=team.rank,
            world=team.world,
            workers=job.workers,
            left_out=left_out,
        )

    def samples(self) -> Samples:
        """The pictures as this run augments them."""
        job = self.job
        return Samples(job.train.pictures, len(job.train.class_names), job.config, self.windows, job.model.input_hw)

    def begin(self) -> None:
        """A run that has gone back to its very beginning does not begin anew."""
        if self.setback is None:
            super().begin()

    def identity(self) -> dict[str, Any]:
        """Recipe, network, classes, length and pictures."""
        data = self.job.train
        names = "\n".join(picture.key for picture in data.pictures)
        return {
            "config": self.job.config.to_dict(),
            "model": self.job.model.to_dict(),
            "class_names": list(data.class_names),
            "category_ids": list(data.category_ids),
            "total": self.job.total,
            "pictures_sha256": hashlib.sha256(names.encode()).hexdigest(),
        }

    def step(self, batch: Batch) -> Tensor:
        """As every run's, and the first step that was left out is remembered."""
        bad = super().step(batch)
        self.first_bad = torch.where(bad & (self.first_bad < 0), batch.step, self.first_bad)
        self.left_out += batch.left_out
        return bad

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of this process's pictures, with their gradients left in the parameters."""
        device = self.team.device
        pixels, targets = batch.pixels.to(device, non_blocking=True), batch.targets.to(device, non_blocking=True)
        size_hw = size_of_step(self.job.config, self.windows, batch.step, self.job.model.input_hw)
        if size_hw != tuple(pixels.shape[2:]):
            pixels = F.interpolate(pixels.float(), size_hw, mode="bilinear", antialias=True, align_corners=False)
        noisy = make_denoising(targets, self.noise, batch.keys.to(device))

        narrow = partial(torch.autocast, device.type, torch.bfloat16, enabled=self.job.precision == "bf16")

        def forward(pixels: Tensor, noisy: DenoisingQueries) -> TrainOutputs:
            with narrow():
                outputs: TrainOutputs = self.model(pixels, noisy)
            return outputs

        def judged(outputs: TrainOutputs) -> dict[str, Tensor]:
            return criterion(outputs, targets, self.loss, noisy, average=self.team.sum)

        if self.job.accumulate > 1:
            return backward_in_parts(self.model, forward, pixels, noisy, self.job.accumulate, judged)
        outputs = forward(pixels, noisy)
        self.mark("forward")
        losses = judged(outputs)
        self.mark("criterion")
        losses["total"].backward()
        self.mark("backward")
        return losses

    def more_figures(self) -> dict[str, Any]:
        """Objects that had no slot."""
        return {"left_out": self.left_out}

    def too_many_skips(self, count: int, first: int, step: int) -> NoReturn:
        """NotFinite: the run goes back, once."""
        text = f"{count} of the last steps before step {step} had gradients that were not finite"
        raise NotFinite(text, first, step)

    def in_vain(self, step: int) -> bool:
        """Whether patience is at its end."""
        return self.job.patience is not None and self.team.any(self.team.first and in_vain(self.job, step))

    def check_finite(self, step: int) -> None:
        """NotFinite where the state could not be saved. It is the same in every process, so all raise or none."""
        state = [*self.model.state_dict().values(), *self.ema.tensors().values()]
        floating = [value for value in state if value.is_floating_point()]
        if not bool(torch.stack([value.isfinite().all() for value in floating]).all()):
            raise NotFinite(f"the weights at step {step} are not finite", self.saved_at, step)

    def go_back(self, error: NotFinite) -> None:
        """Let the next Run begin at the last checkpoint, more slowly and without the samples at fault.

        The second time: TrainingDiverged, with what is known of it in the folder "diverged".
        """
        if self.setback is not None:
            if self.team.first:
                self._write_bundle(error)
            raise TrainingDiverged(
                f"{error}, again after going back once to half the rate; the pictures and the layer at fault are in "
                f"{str(self.job.folder / 'diverged')!r}; mend the data or start in another folder with --lr-scale 0.25"
            )
        if self.team.first:
            setback = Setback(first=error.first, until=error.until, reason=str(error))
            write_setback(self.job.folder, setback)
            last = self.checkpoints.last()
            back_to = 0 if last is None else last.step
            self.log({"event": "setback", "back_to": back_to, "rate": SLOWER, **asdict(setback)})
        self.team.any(False)  # nobody reads the file before it is there

    def _write_bundle(self, error: NotFinite) -> None:
        first_bad = int(self.first_bad)
        step = error.first if first_bad < 0 else first_bad
        left_out = range(0) if self.setback is None else self.setback.left_out
        batch = next(batches(self.samples(), first=step, total=step + 1, left_out=left_out))
        layer, terms = first_odd_layer(self.model, batch, self.noise, self.loss)
        config, pictures = self.job.config, self.job.train.pictures
        numbers = [int(key) - (config.seed << 40) for key in batch.keys]
        report = {
            "reason": str(error),
            "step": step,
            "samples": [
                {"number": n, "picture": str(pictures[picture_of(config.seed, n, len(pictures))].path)} for n in numbers
            ],
            "first_layer_not_finite": layer,
            "terms_not_finite": terms,
        }
        write_bundle(self.job.folder / "diverged", report, batch, self.job.train.class_names)

    def judge(self, step: int, progress: RunProgress) -> Judged:
        """Average precision on the tune split of the best of the averages, and which it is."""
        data, best, which = coco_set_of(self.job.tune), None, 0
        for index, decay in enumerate(self.ema.decays):
            scores = score(
                data, detect_pictures(self._averaged(index), self.job.tune, device=self.team.device), resamples=0
            )
            self.log({"event": "judged", "step": step, "decay": decay, **scores.figures})
            if best is None or (scores.ap or 0.0) > (best.ap or 0.0):
                best, which = scores, index
        assert isinstance(best, Scores)
        progress.judged(step, best.ap or 0.0, best.figures["ap50"] or 0.0)
        return best.ap or 0.0, {"best_average": which}

    def _averaged(self, index: int) -> LeDetr:
        model = copy.deepcopy(self.model).eval()
        self.ema.copy_to(model, index)
        return model


def prepare(model: LeDetr, config: TrainConfig, team: Team) -> None:
    """Train mode, with what the recipe freezes, and batch statistics over all processes."""
    model.train()
    if config.frozen_stages:
        for part in [model.backbone.stem, *(model.backbone.stages[i] for i in config.frozen_stages)]:
            part.requires_grad_(False)
            freeze_norms(part)
    if config.freeze_backbone_norms:
        freeze_norms(model.backbone)
    if team.world > 1:
        sync_batch_norms(model)


def best_model(job: Job) -> tuple[LeDetr, int]:
    """The average that was judged best in the run so far, in eval mode on the CPU, and its step."""
    checkpoints = Checkpoints(job.folder / "checkpoints")
    snapshot = checkpoints.load("best" if checkpoints.best() is not None else "last")
    model = build_model(job.model)
    if job.rebuild is not None:
        model = job.rebuild(model)
    model.load_state_dict(below(snapshot.weights, f"ema/{snapshot.extra.get('best_average', 0)}/"))
    return model.eval(), snapshot.step
