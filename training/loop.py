"""The loop: one process or several that train one detector, stopped and gone on with at any step.

Nothing about the data is saved but the number of the next step; rate, averages' decay, augmentation, order and noise
are functions of it. On a CPU a run that was stopped ends with the same bits as one that was not.
"""

import copy
import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ledetr import __version__
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
from training.checkpoint import Checkpoints, Snapshot
from training.config import TrainConfig, differing_fields
from training.data.collate import Batch, Samples, batches, picture_of, size_of_step
from training.data.dataset import Dataset
from training.distributed import Team, join_team, leave_team, sync_batch_norms
from training.ema import EmaBank
from training.heads import HeadMatch, with_classes
from training.judge import coco_set_of, detect_pictures
from training.optim import (
    GuardedStep,
    build_adamw,
    moments_of,
    parameter_groups,
    restore_moments,
    set_lr,
    table_of_groups,
)
from training.progress import RunProgress
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

RECENT_STEPS, MOST_SKIPPED = 200, 10
ASK_EVERY = 10
"""Steps between two times at which several processes ask each other whether to stop."""
FIRST_SAVE_S = 5.0
"""How long saving is thought to take before it was measured."""

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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a run stands."""

    step: int
    total: int
    interrupted: bool
    in_vain: bool = False
    """It was ended early because it got no better."""

    @property
    def ended(self) -> bool:
        """Whether no steps are left to make."""
        return self.in_vain or self.step >= self.total


def starting_model(job: Job) -> tuple[LeDetr, HeadMatch | None]:
    """The network before step 0, the same in every process, and how its class heads were matched."""
    torch.manual_seed(job.config.seed)
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
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    team = join_team(job.device, rank=rank, world=job.processes, meeting=job.folder / "meeting")
    try:
        with stop_on_signals() as stop:
            return _train(team, job, stop)
    finally:
        leave_team(team)


def _train(team: Team, job: Job, stop: threading.Event) -> Outcome:
    deadline = time.monotonic() + 60 * job.minutes
    while True:
        run = Run(job, team)
        try:
            return _advance(run, stop, deadline)
        except NotFinite as error:
            run.go_back(error)


def _advance(run: "Run", stop: threading.Event, deadline: float) -> Outcome:
    """From the last checkpoint to the end, or to a stop."""
    job, team = run.job, run.team
    first = step = run.resume()
    judged_after = judged_steps(job)
    if first in judged_after and in_vain(job, first):
        return Outcome(step=first, total=job.total, interrupted=False, in_vain=True)
    with RunProgress(job.total, first, quiet=job.quiet or not team.first) as progress:
        for batch in run.batches(first):
            run.step(batch)
            step = batch.step + 1
            progress.step(step)
            if step % job.log_every == 0 or step == job.total:
                run.report(step, progress)
            leave = False
            if step < job.total and (team.world == 1 or step % ASK_EVERY == 0):
                leave = team.any(stop.is_set() or time.monotonic() > deadline - 2 * run.save_s)
            if step in judged_after and not leave:
                run.check_finite(step)
                run.save(step, run.judge(step, progress) if team.first else None)
                if job.patience is not None and team.any(team.first and in_vain(job, step)):
                    return Outcome(step=step, total=job.total, interrupted=False, in_vain=True)
            elif leave or step % job.save_every == 0 or step == job.total:
                run.check_finite(step)
                run.save(step)
            if leave:
                break
    return Outcome(step=step, total=job.total, interrupted=stop.is_set())


def judged_steps(job: Job) -> list[int]:
    """The numbers of steps after which the tune split is judged."""
    return sorted({round(job.total * (k + 1) / job.config.evaluations) for k in range(job.config.evaluations)})


def in_vain(job: Job, step: int) -> bool:
    """Whether the run has been judged `patience` times since it was best. The checkpoints alone tell, so that a run
    that is started again knows it too."""
    best = Checkpoints(job.folder / "checkpoints").best()
    if job.patience is None or best is None:
        return False
    return sum(best.step < judged <= step for judged in judged_steps(job)) >= job.patience


class Run:
    """Network, optimiser, averages, log and checkpoints of one process."""

    def __init__(self, job: Job, team: Team) -> None:
        self.job, self.team, config = job, team, job.config
        model, self.match = starting_model(job)
        self.model = model.to(team.device)
        self.norms_fixed = self._prepare()
        factor = config.optimiser.factor(config.batch)
        self.groups = parameter_groups(
            self.model,
            lr=config.optimiser.lr * factor,
            backbone_lr=config.optimiser.backbone_lr * factor,
            weight_decay=config.optimiser.weight_decay,
        )
        self.optimizer = build_adamw(self.groups, betas=config.optimiser.betas)
        self.guard = GuardedStep(self.model, self.optimizer, config.optimiser.clip)
        self.ema = EmaBank(self.model, config.decays(job.total), config.ema_ramp)
        self.rate, self.windows = config.schedule.resolve(job.total)
        decoder = job.model.decoder
        self.loss = replace(config.loss, up=decoder.up, reg_scale=decoder.reg_scale)
        self.noise = DenoisingConfig(
            classes=decoder.classes,
            slots=decoder.denoising,
            label_noise=config.label_noise,
            box_noise=config.box_noise,
        )
        self.checkpoints = Checkpoints(job.folder / "checkpoints")
        self.save_s = FIRST_SAVE_S
        self.setback = read_setback(job.folder)
        self.saved_at = 0
        self.sums: dict[str, Tensor] = {}
        self.summed, self.left_out = 0, 0
        self.skips: list[tuple[int, int]] = []
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=team.device)
        """() int64 first step that was not made, -1 if there is none, on the device."""
        self.clock = time.monotonic()

    def _prepare(self) -> bool:
        """Train mode, with what the recipe freezes; whether any batch statistics stay as they are."""
        self.model.train()
        backbone, config = self.model.backbone, self.job.config
        frozen = [backbone.stem, *(backbone.stages[i] for i in config.frozen_stages)] if config.frozen_stages else []
        for part in frozen:
            part.requires_grad_(False)
            freeze_norms(part)
        if config.freeze_backbone_norms:
            freeze_norms(backbone)
        if self.team.world > 1:
            sync_batch_norms(self.model)
        return bool(frozen) or config.freeze_backbone_norms

    def batches(self, first: int) -> Iterator[Batch]:
        """This process's part of the steps from `first` to the end."""
        job, team = self.job, self.team
        left_out = range(0) if self.setback is None else self.setback.left_out
        return batches(
            self._samples(),
            first=first,
            total=job.total,
            rank=team.rank,
            world=team.world,
            workers=job.workers,
            left_out=left_out,
        )

    def _samples(self) -> Samples:
        job = self.job
        return Samples(job.train.pictures, len(job.train.class_names), job.config, self.windows, job.model.input_hw)

    def resume(self) -> int:
        """The next step: that of the last checkpoint, or 0. UsageError if the run was started with other words."""
        if self.checkpoints.last() is None:
            if self.team.first and self.setback is None:
                self._log({"event": "start", "total": self.job.total, **self._extra()})
            self.skips = [(0, 0)]
            return 0
        snapshot = self.checkpoints.load()
        self._refuse_another_run(snapshot.extra)
        self.model.load_state_dict(below(snapshot.weights, "model/"))
        self.ema.load_tensors(below(snapshot.weights, "ema/"))
        restore_moments(self.optimizer, self.groups, dict(snapshot.moments))
        self.guard.reload_statistics()
        if self.team.first:
            self._log({"event": "resume", "step": snapshot.step})
        self.saved_at, self.skips = snapshot.step, [(snapshot.step, 0)]
        return snapshot.step

    def _refuse_another_run(self, extra: Mapping[str, Any]) -> None:
        mine = json.loads(json.dumps(self._extra()))
        keys = ("config", "model", "class_names", "category_ids", "total", "pictures_sha256")
        differing = differing_fields({k: mine.get(k) for k in keys}, {k: extra.get(k) for k in keys})
        if differing:
            raise UsageError(
                f"the run in {str(self.job.folder)!r} was started otherwise ({'; '.join(differing[:3])}); "
                "give the same options to go on with it, or another folder with -o"
            )

    def _extra(self) -> dict[str, Any]:
        data = self.job.train
        names = "\n".join(picture.key for picture in data.pictures)
        return {
            "config": self.job.config.to_dict(),
            "model": self.job.model.to_dict(),
            "class_names": list(data.class_names),
            "category_ids": list(data.category_ids),
            "total": self.job.total,
            "pictures_sha256": hashlib.sha256(names.encode()).hexdigest(),
            "version": __version__,
        }

    def step(self, batch: Batch) -> None:
        """One step of the optimiser. The host waits for nothing but the assignment."""
        slower = 1.0 if self.setback is None else SLOWER
        set_lr(self.optimizer, self.rate.factor(batch.step) * slower)
        self.optimizer.zero_grad()
        losses = self._losses(batch)
        self.team.sum_gradients(self.guard.parameters)
        norm, bad = self.guard.step()
        self.first_bad = torch.where(bad & (self.first_bad < 0), batch.step, self.first_bad)
        self.ema.update(batch.step, bad)
        for name, value in {**losses, "norm": norm / self.team.world}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.summed += 1
        self.left_out += batch.left_out

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
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
        losses = judged(forward(pixels, noisy))
        losses["total"].backward()
        return losses

    def report(self, step: int, progress: RunProgress) -> None:
        """The means since the last report, over all processes, to the log and to people."""
        names = sorted(self.sums)
        totals = self.team.sum(torch.stack([self.sums[name].double() for name in names])).tolist()
        seconds = time.monotonic() - self.clock
        means = {name: total / self.summed for name, total in zip(names, totals, strict=True)}
        rate = self.summed * self.job.config.batch / seconds
        skipped = int(self.guard.skipped)
        if self.team.first:
            self._log(
                {
                    "event": "steps",
                    "step": step,
                    "steps": self.summed,
                    **{name: round(value, 5) if math.isfinite(value) else None for name, value in means.items()},
                    "lr": self.optimizer.param_groups[0]["lr"],
                    "pictures_per_s": round(rate, 2),
                    "skipped": skipped,
                    "left_out": self.left_out,
                }
            )
            left_s = (self.job.total - step) * seconds / self.summed
            progress.report(step, means["total"], rate, left_s)
        self.sums, self.summed, self.clock = {}, 0, time.monotonic()
        self._refuse_divergence(step, skipped)

    def _refuse_divergence(self, step: int, skipped: int) -> None:
        self.skips = [(at, count) for at, count in self.skips if at > step - RECENT_STEPS] or [self.skips[-1]]
        before = self.skips[0][1]
        if skipped - before > MOST_SKIPPED:
            first = max(at for at, count in self.skips if count == before)
            text = f"{skipped - before} of the last steps before step {step} had gradients that were not finite"
            raise NotFinite(text, first, step)
        self.skips.append((step, skipped))

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
            self._log({"event": "setback", "back_to": back_to, "rate": SLOWER, **asdict(setback)})
        self.team.any(False)  # nobody reads the file before it is there

    def _write_bundle(self, error: NotFinite) -> None:
        first_bad = int(self.first_bad)
        step = error.first if first_bad < 0 else first_bad
        left_out = range(0) if self.setback is None else self.setback.left_out
        batch = next(batches(self._samples(), first=step, total=step + 1, left_out=left_out))
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

    def judge(self, step: int, progress: RunProgress) -> tuple[float, int]:
        """Average precision on the tune split of the best of the averages, and which it is."""
        data, best, which = coco_set_of(self.job.tune), None, 0
        for index, decay in enumerate(self.ema.decays):
            scores = score(
                data, detect_pictures(self._averaged(index), self.job.tune, device=self.team.device), resamples=0
            )
            self._log({"event": "judged", "step": step, "decay": decay, **scores.figures})
            if best is None or (scores.ap or 0.0) > (best.ap or 0.0):
                best, which = scores, index
        assert isinstance(best, Scores)
        progress.judged(step, best.ap or 0.0, best.figures["ap50"] or 0.0)
        self.clock = time.monotonic()
        return best.ap or 0.0, which

    def _averaged(self, index: int) -> LeDetr:
        model = copy.deepcopy(self.model).eval()
        self.ema.copy_to(model, index)
        return model

    def save(self, step: int, judged: tuple[float, int] | None = None) -> None:
        """A checkpoint from which the run goes on exactly; judged: metric, and which average it is of."""
        self.saved_at = step
        if not self.team.first:
            return
        began = time.monotonic()
        weights = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        weights |= {f"ema/{name}": value for name, value in self.ema.tensors().items()}
        extra = self._extra() | {"best_average": 0 if judged is None else judged[1]}
        snapshot = Snapshot(step=step, weights=weights, moments=moments_of(self.optimizer, self.groups), extra=extra)
        self.checkpoints.save(snapshot, metric=None if judged is None else judged[0])
        self.save_s = time.monotonic() - began

    def tables(self) -> str:
        """Groups of parameters, for the beginning of a run."""
        return table_of_groups(self.groups)

    def _log(self, row: dict[str, Any]) -> None:
        self.job.folder.mkdir(parents=True, exist_ok=True)
        with (self.job.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **row}) + "\n")


def best_model(job: Job) -> tuple[LeDetr, int]:
    """The average that was judged best in the run so far, in eval mode on the CPU, and its step."""
    checkpoints = Checkpoints(job.folder / "checkpoints")
    snapshot = checkpoints.load("best" if checkpoints.best() is not None else "last")
    model = build_model(job.model)
    model.load_state_dict(below(snapshot.weights, f"ema/{snapshot.extra['best_average']}/"))
    return model.eval(), snapshot.step


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C or a polite kill; a second one acts as it would without us."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
