"""What runs of every kind have in common: optimiser, averages, log and checkpoints of one process, and the way from
one step to the next. A kind of run adds its network, its losses and how it is judged.
"""

import json
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ledetr import __version__
from ledetr.errors import UsageError
from training.checkpoint import Checkpoints, Snapshot
from training.config import OptimiserConfig, differing_fields
from training.distributed import Team
from training.ema import EmaBank
from training.launch import Outcome
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

RECENT_STEPS, MOST_SKIPPED = 200, 10
ASK_EVERY = 10
"""Steps between two times at which several processes ask each other whether to stop."""
FIRST_SAVE_S = 5.0
"""How long saving is thought to take before it was measured."""

Judged = tuple[float, Mapping[str, Any]]
"""The metric that tells the best checkpoint, and what shall be saved with it."""


class Config(Protocol):
    """What the recipe of a run says, whatever it trains."""

    @property
    def batch(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def optimiser(self) -> OptimiserConfig: ...


class Trained(Protocol):
    """What a run must say about itself."""

    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> Config: ...
    @property
    def total(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def save_every(self) -> int: ...
    @property
    def quiet(self) -> bool: ...


class Step(Protocol):
    """This process's part of one step."""

    @property
    def step(self) -> int: ...


class Rate(Protocol):
    """The share of the highest rate at a step."""

    def factor(self, step: int) -> float: ...


AnyJob = TypeVar("AnyJob", bound=Trained)
AnyModel = TypeVar("AnyModel", bound=nn.Module)
AnyBatch = TypeVar("AnyBatch", bound=Step)


def _nobody_measures(part: str) -> None:
    """What `mark` is outside a measurement."""


def judged_steps(job: Trained) -> list[int]:
    """The numbers of steps after which a run is judged."""
    return sorted({round(job.total * (k + 1) / job.config.evaluations) for k in range(job.config.evaluations)})


class RunState(ABC, Generic[AnyJob, AnyModel, AnyBatch]):
    """One process of a run. The network is ready to train: on its device, frozen where it shall be."""

    def __init__(
        self, job: AnyJob, team: Team, model: AnyModel, rate: Rate, *, decays: Collection[float], ema_ramp: float
    ) -> None:
        self.job, self.team, self.model, self.rate = job, team, model, rate
        rates = job.config.optimiser
        factor = rates.factor(job.config.batch)
        self.groups = parameter_groups(
            model, lr=rates.lr * factor, backbone_lr=rates.backbone_lr * factor, weight_decay=rates.weight_decay
        )
        self.optimizer = build_adamw(self.groups, betas=rates.betas)
        self.guard = GuardedStep(model, self.optimizer, rates.clip)
        self.ema = EmaBank(model, tuple(decays), ema_ramp)
        self.checkpoints = Checkpoints(job.folder / "checkpoints")
        self.slower = 1.0
        """What the rate is multiplied with beside its schedule."""
        self.save_s = FIRST_SAVE_S
        self.saved_at = 0
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.skips: list[tuple[int, int]] = []
        self.clock = time.monotonic()
        self.mark: Callable[[str], None] = _nobody_measures
        """Called with "forward", "criterion", "backward" and "optimiser" as each part of a step ends."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on: plain values that fit JSON."""

    @abstractmethod
    def losses(self, batch: AnyBatch) -> dict[str, Tensor]:
        """The losses of this process's part, "total" among them, with their gradients left in the parameters."""

    @abstractmethod
    def judge(self, step: int, progress: RunProgress) -> Judged:
        """How good the averages are; only the first process is asked."""

    @abstractmethod
    def too_many_skips(self, count: int, first: int, step: int) -> NoReturn:
        """Raise what ends the run, or this attempt at it: `count` of the steps from `first` to `step` were not made."""

    def begin(self) -> None:
        """Before step 0 of a new run."""
        if self.team.first:
            self.log({"event": "start", "total": self.job.total, **self._described()})

    def check_finite(self, step: int) -> None:
        """Called before a checkpoint; may raise what too_many_skips raises."""

    def in_vain(self, step: int) -> bool:
        """Whether to end because the run, just judged, got no better: the same in every process."""
        return False

    def more_figures(self) -> dict[str, Any]:
        """What the next line of the log says beside losses and rate."""
        return {}

    def advance(self, stream: Iterable[AnyBatch], first: int, stop: threading.Event, deadline: float) -> Outcome:
        """Make the steps of the stream, which begins with `first`, to the end, or to a stop."""
        job, team, step = self.job, self.team, first
        judged_after = judged_steps(job)
        with RunProgress(job.total, first, quiet=job.quiet or not team.first) as progress:
            for batch in stream:
                self.step(batch)
                step = batch.step + 1
                progress.step(step)
                if step % job.log_every == 0 or step == job.total:
                    self.report(step, progress)
                leave = False
                if step < job.total and (team.world == 1 or step % ASK_EVERY == 0):
                    leave = team.any(stop.is_set() or time.monotonic() > deadline - 2 * self.save_s)
                if step in judged_after and not leave:
                    self.check_finite(step)
                    self.save(step, self.judge(step, progress) if team.first else None)
                    self.clock = time.monotonic()
                    if self.in_vain(step):
                        return Outcome(step=step, total=job.total, interrupted=False, in_vain=True)
                elif leave or step % job.save_every == 0 or step == job.total:
                    self.check_finite(step)
                    self.save(step)
                if leave:
                    break
        return Outcome(step=step, total=job.total, interrupted=stop.is_set())

    def step(self, batch: AnyBatch) -> Tensor:
        """One step of the optimiser; () bool whether it was left out. The host waits for nothing but the losses."""
        set_lr(self.optimizer, self.rate.factor(batch.step) * self.slower)
        self.optimizer.zero_grad()
        losses = self.losses(batch)
        self.team.sum_gradients(self.guard.parameters)
        norm, bad = self.guard.step()
        self.ema.update(batch.step, bad)
        for name, value in {**losses, "norm": norm / self.team.world}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.summed += 1
        self.mark("optimiser")
        return bad

    def resume(self) -> int:
        """The next step: that of the last checkpoint, or 0. UsageError if the run was started with other words."""
        if self.checkpoints.last() is None:
            self.begin()
            self.skips = [(0, 0)]
            return 0
        snapshot = self.checkpoints.load()
        self._refuse_another_run(snapshot.extra)
        self.model.load_state_dict(below(snapshot.weights, "model/"))
        self.ema.load_tensors(below(snapshot.weights, "ema/"))
        restore_moments(self.optimizer, self.groups, dict(snapshot.moments))
        self.guard.reload_statistics()
        if self.team.first:
            self.log({"event": "resume", "step": snapshot.step})
        self.saved_at, self.skips = snapshot.step, [(snapshot.step, 0)]
        return snapshot.step

    def _refuse_another_run(self, extra: Mapping[str, Any]) -> None:
        mine = json.loads(json.dumps(self.identity()))
        differing = differing_fields(mine, {key: extra.get(key) for key in mine})
        if differing:
            raise UsageError(
                f"the run in {str(self.job.folder)!r} was started otherwise ({'; '.join(differing[:3])}); "
                "give the same options to go on with it, or another folder with -o"
            )

    def report(self, step: int, progress: RunProgress) -> None:
        """The means since the last report, over all processes, to the log and to people."""
        names = sorted(self.sums)
        totals = self.team.sum(torch.stack([self.sums[name].double() for name in names])).tolist()
        seconds = time.monotonic() - self.clock
        means = {name: total / self.summed for name, total in zip(names, totals, strict=True)}
        rate = self.summed * self.job.config.batch / seconds
        skipped = int(self.guard.skipped)
        if self.team.first:
            figures = {name: round(value, 5) if math.isfinite(value) else None for name, value in means.items()}
            lr = self.optimizer.param_groups[0]["lr"]
            self.log(
                {"event": "steps", "step": step, "steps": self.summed, **figures, "lr": lr}
                | {"pictures_per_s": round(rate, 2), "skipped": skipped, **self.more_figures()}
            )
            progress.report(step, means["total"], rate, (self.job.total - step) * seconds / self.summed)
        self.sums, self.summed, self.clock = {}, 0, time.monotonic()
        self._refuse_divergence(step, skipped)

    def _refuse_divergence(self, step: int, skipped: int) -> None:
        self.skips = [(at, count) for at, count in self.skips if at > step - RECENT_STEPS] or [self.skips[-1]]
        before = self.skips[0][1]
        if skipped - before > MOST_SKIPPED:
            self.too_many_skips(skipped - before, max(at for at, count in self.skips if count == before), step)
        self.skips.append((step, skipped))

    def save(self, step: int, judged: Judged | None = None) -> None:
        """A checkpoint from which the run goes on exactly."""
        self.saved_at = step
        if not self.team.first:
            return
        began = time.monotonic()
        weights = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        weights |= {f"ema/{name}": value for name, value in self.ema.tensors().items()}
        metric, extra = (None, {}) if judged is None else judged
        snapshot = Snapshot(
            step=step,
            weights=weights,
            moments=moments_of(self.optimizer, self.groups),
            extra=self._described() | dict(extra),
        )
        self.checkpoints.save(snapshot, metric=metric)
        self.save_s = time.monotonic() - began

    def tables(self) -> str:
        """Groups of parameters, for the beginning of a run."""
        return table_of_groups(self.groups)

    def log(self, row: dict[str, Any]) -> None:
        """One line of log.jsonl."""
        self.job.folder.mkdir(parents=True, exist_ok=True)
        with (self.job.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **row}) + "\n")

    def _described(self) -> dict[str, Any]:
        return self.identity() | {"version": __version__}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
