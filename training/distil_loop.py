"""The loop of the distillation: batches from the cache, one process or several, stopped and resumed at any step."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from ledetr.model.ledetr import LeDetr
from ledetr.weights import load_model
from training.checkpoint import Checkpoints, Snapshot
from training.depthwise import use_channels_last_depthwise
from training.distil_cache import FIRST_TRAINED_STAGE, SHARD_VIEWS
from training.distil_losses import LossWeights, Teacher, set_training_mode, starting_model, step_losses
from training.ema import EmaBank
from training.optim import (
    GuardedStep,
    ParameterGroup,
    build_adamw,
    moments_of,
    parameter_groups,
    restore_moments,
    set_lr,
)

LOG_EVERY, SAVE_EVERY, STOP_EVERY = 50, 200, 10


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """One phase. Learning rates are for a batch of 16; the schedule is in fractions of `steps`."""

    phase: str
    steps: int
    first_stage: int = FIRST_TRAINED_STAGE
    train_decoder: bool = False
    batch: int = 16
    lr: float = 2e-3
    trunk_lr: float = 5e-4
    decoder_lr: float = 0.0
    weight_decay: float = 1e-4
    warm_up: float = 0.03
    flat_until: float = 0.3
    final_lr: float = 0.03
    clip: float = 15.0
    ema: float = 0.997
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0


def maps_phase(steps: int) -> DistilConfig:
    """The last stage and the encoder learn the teacher's maps; the decoder is the teacher's and stays."""
    return DistilConfig(phase="maps", steps=steps)


def boxes_phase(steps: int) -> DistilConfig:
    """True boxes and the teacher's detections, through the decoder, which moves slowly; the maps still guide."""
    return DistilConfig(
        phase="boxes",
        steps=steps,
        train_decoder=True,
        lr=6e-4,
        trunk_lr=2e-4,
        decoder_lr=1e-4,
        flat_until=0.4,
        weights=LossWeights(maps=0.5, dense=0.5, boxes=0.05),
    )


def deep_phase(steps: int) -> DistilConfig:
    """As boxes_phase, with the stages from stride 8 on: small objects need the finer features to move."""
    return DistilConfig(
        phase="deep",
        steps=steps,
        first_stage=3,
        train_decoder=True,
        lr=4e-4,
        trunk_lr=2e-4,
        decoder_lr=1e-4,
        flat_until=0.4,
        weights=LossWeights(maps=0.5, dense=0.5, boxes=0.05),
    )


def trunk_phase(steps: int) -> DistilConfig:
    """As maps_phase, with the stages from stride 8 on free too, for what stage 5 alone cannot imitate.

    Half as many views a second as maps_phase: for a run that has seen its fill of views at that speed.
    """
    return DistilConfig(phase="trunk", steps=steps, first_stage=3, lr=1e-3, trunk_lr=4e-4)


def answers_phase(steps: int) -> DistilConfig:
    """As trunk_phase, and through the decoder: an error of the maps counts by what it does to classes and boxes.

    The decoder may follow a little, since maps that are not quite the teacher's are read best by another decoder.
    """
    return DistilConfig(
        phase="answers",
        steps=steps,
        first_stage=3,
        train_decoder=True,
        lr=1e-3,
        trunk_lr=4e-4,
        decoder_lr=1e-4,
        weights=LossWeights(maps=0.5, dense=0.5, answers=0.3),
    )


PHASES = {"maps": maps_phase, "trunk": trunk_phase, "answers": answers_phase, "boxes": boxes_phase, "deep": deep_phase}


class CachedViews:
    """Random access to the shards that exist; the cache may grow meanwhile (call refresh)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[dict[str, np.ndarray]] = []
        self.names: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Open shards that have appeared."""
        for path in sorted(self.folder.glob("shard_*")):
            if path.name not in self.names:
                self.names.add(path.name)
                self.shards.append({f.stem: np.load(f, mmap_mode="r") for f in path.glob("*.npy")})

    def __len__(self) -> int:
        return len(self.shards) * SHARD_VIEWS

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Maps as float32, boxes and flags as they are."""
        rows = [(self.shards[i // SHARD_VIEWS], i % SHARD_VIEWS) for i in indices]
        out = {}
        for name in ("c3", "c4", "t16", "t32", "boxes", "labels", "crowd", "labelled"):
            values = np.stack([shard[name][row] for shard, row in rows])
            out[name] = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float16 else values)
        return out

    def variances(self) -> tuple[Tensor, Tensor]:
        """Variance of each channel of the teacher's maps over the first shard."""
        t16, t32 = (torch.from_numpy(self.shards[0][n].astype(np.float32)).var((0, 2, 3)) for n in ("t16", "t32"))
        return t16, t32


def batches(views: CachedViews, config: DistilConfig, start: int, rank: int, world: int) -> Iterator[dict[str, Tensor]]:
    """Batch of each step from `start` on; a global batch is a function of (seed, step), dealt out to the processes."""

    def load(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((config.seed, step))
        indices = rng.integers(0, len(views), config.batch)
        return views.batch([int(i) for i in indices[rank::world]])

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(load, start)
        for step in range(start, config.steps):
            current, ahead = ahead.result(), reader.submit(load, step + 1)
            if step % SAVE_EVERY == 0:
                views.refresh()
            yield current


def lr_factor(step: int, config: DistilConfig) -> float:
    """Linear warm-up, flat, cosine to final_lr."""
    at = step / config.steps
    if at < config.warm_up:
        return (step + 1) / (config.warm_up * config.steps + 1)
    if at < config.flat_until:
        return 1.0
    rest = (at - config.flat_until) / (1 - config.flat_until)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def groups_of(model: LeDetr, config: DistilConfig) -> list[ParameterGroup]:
    """Backbone, encoder and decoder at their own rates; one-dimensional parameters are not decayed."""
    groups = parameter_groups(model, lr=config.lr, backbone_lr=config.trunk_lr, weight_decay=config.weight_decay)
    out = []
    for group in groups:
        for part, lr in (("decoder", config.decoder_lr), ("", group.lr)):
            chosen = {n: p for n, p in group.parameters.items() if n.startswith("decoder.") == (part == "decoder")}
            name = f"{part} {group.name}".strip()
            out.append(ParameterGroup(name=name, lr=lr, weight_decay=group.weight_decay, parameters=chosen))
    return [group for group in out if group.parameters]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run reads and writes, and how long it may take. init: the folder of an earlier phase, or weights."""

    run: Path
    cache: Path
    teacher: Path
    config: DistilConfig
    minutes: float = math.inf
    init: Path | None = None
    processes: int = 1
    threads: int = 2
    nice: int = 0
    device: str = "cpu"


def train(rank: int, options: RunOptions) -> None:
    """The loop of one process of a run."""
    world, config = options.processes, options.config
    torch.set_num_threads(options.threads)
    os.nice(options.nice)
    if world > 1:
        meeting = f"file://{options.run.resolve()}/rendezvous"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    state = load_file(options.teacher)
    teacher_decoder = starting_model(state).to(options.device).eval().requires_grad_(False).decoder
    model = starting_model(state).to(options.device)
    if options.device == "cpu":
        use_channels_last_depthwise(model)
    set_training_mode(model, config.first_stage, decoder=config.train_decoder)
    views = CachedViews(options.cache)
    t16, t32 = (variance.to(options.device) for variance in views.variances())
    teacher = Teacher(teacher_decoder, (t16, t32))
    run = Run(model, options, views)
    start = run.resume()
    deadline = time.monotonic() + options.minutes * 60
    for step, batch in enumerate(batches(views, config, start, rank, world), start):
        set_lr(run.optimizer, lr_factor(step, config))
        losses = step_losses(
            model,
            {name: value.to(options.device) for name, value in batch.items()},
            teacher,
            config.weights,
            first_stage=config.first_stage,
            noise_seed=(config.seed * 1_000_003 + step) * world + rank,
        )
        run.optimizer.zero_grad()
        losses["total"].backward()
        average_gradients(run.guard.parameters, world)
        norm, bad = run.guard.step()
        run.ema.update(step, bad)
        last = step + 1 == config.steps or (step % STOP_EVERY == 0 and _time_is_up(deadline, world))
        if rank == 0:
            run.note(step, losses, norm)
            if (step + 1) % SAVE_EVERY == 0 or last:
                run.save(step + 1)
        if last:
            break
    if world > 1:
        dist.destroy_process_group()


def average_gradients(parameters: Sequence[Tensor], world: int) -> None:
    """One reduction of one flat buffer over all processes."""
    if world == 1:
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= world
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = g.view_as(p)


def _time_is_up(deadline: float, world: int) -> bool:
    """The first process decides for all, so that all stop at the same step."""
    decision = torch.tensor(float(time.monotonic() > deadline))
    if world > 1:
        dist.broadcast(decision, 0)
    return bool(decision)


class Run:
    """Optimiser, averages, log and checkpoints of a phase, in a folder of its own below the run's."""

    def __init__(self, model: LeDetr, options: RunOptions, views: CachedViews) -> None:
        self.model, self.options, self.views = model, options, views
        config = options.config
        self.groups = groups_of(model, config)
        self.optimizer = build_adamw(self.groups, betas=(0.9, 0.99))
        self.guard = GuardedStep(model, self.optimizer, config.clip)
        self.ema = EmaBank(model, (config.ema,), ramp=config.steps * 0.02)
        self.checkpoints = Checkpoints(options.run / config.phase)
        self.began, self.first_step, self.sums = time.monotonic(), 0, {"steps": 0.0}

    def resume(self) -> int:
        """The next step: of this phase's last checkpoint, or 0, from the averages of `init` where given."""
        if self.checkpoints.last() is not None:
            snapshot = self.checkpoints.load()
            self.model.load_state_dict(_below(snapshot.weights, "model/"))
            self.ema.load_tensors(_below(snapshot.weights, "ema/"))
            restore_moments(self.optimizer, self.groups, dict(snapshot.moments))
            self.guard.reload_statistics()
            self.first_step = snapshot.step
        elif self.options.init is not None:
            self.model.load_state_dict(averaged_weights(self.options.init))
            self.guard.reload_statistics()
            self.ema = EmaBank(self.model, self.ema.decays, self.ema.ramp)
        return self.first_step

    def save(self, step: int) -> None:
        """A checkpoint from which the run goes on exactly."""
        weights = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        weights |= {f"ema/{k}": v for k, v in self.ema.tensors().items()}
        extra = {"config": asdict(self.options.config), "views": len(self.views)}
        moments = moments_of(self.optimizer, self.groups)
        self.checkpoints.save(Snapshot(step=step, weights=weights, moments=moments, extra=extra))

    def note(self, step: int, losses: dict[str, Tensor], norm: Tensor) -> None:
        """Collect, and every LOG_EVERY steps write one JSON line."""
        self.sums["steps"] += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        if (step + 1) % LOG_EVERY:
            return
        count = self.sums.pop("steps")
        rate = (step + 1 - self.first_step) * self.options.config.batch / (time.monotonic() - self.began)
        row = {
            "phase": self.options.config.phase,
            "time": time.strftime("%H:%M:%S"),
            "step": step + 1,
            **{k: round(v / count, 4) for k, v in self.sums.items()},
            "norm": round(float(norm), 2),
            "skipped": int(self.guard.skipped),
            "views_per_s": round(rate, 1),
        }
        self.sums = {"steps": 0.0}
        line = json.dumps(row)
        print(line, flush=True)
        with (self.options.run / "log.jsonl").open("a") as file:
            file.write(line + "\n")


def averaged_weights(phase: Path) -> dict[str, Tensor]:
    """The averaged weights of a phase's last checkpoint, or those of a weights file: a new machine goes on from it."""
    if phase.is_file():
        return load_model(phase)[0].state_dict()
    return _below(Checkpoints(phase).load().weights, "ema/0/")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
