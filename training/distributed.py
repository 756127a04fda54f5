"""Several processes that train as one: sums, decisions and batch statistics over all of them.

Losses are sums over the pictures of a process divided by counts over all processes, so gradients are summed, never
averaged; the batch of one process and the same batch dealt out to several then give the same step.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Place:
    """The numbers that torchrun gave this process."""

    rank: int
    world: int
    local_rank: int
    """Among the processes of this machine, which have a GPU each."""


def torchrun_place() -> Place | None:
    """This process's numbers under torchrun, None without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    rank, world, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Place(rank=rank, world=world, local_rank=local_rank)


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process among all. With a world of one nothing is sent anywhere."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, without gradient; the same collective in every step."""
        if self.world == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, wish: bool) -> bool:
        """Whether any process wishes so; all get the same answer. Waits for the device where there are several."""
        if self.world == 1:
            return wish
        return bool(self.sum(torch.tensor(float(wish), device=self.device)) > 0)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """One reduction of one flat buffer."""
        if self.world == 1:
            return
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        dist.all_reduce(flat)
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)


def join_team(device: str, *, rank: int, world: int, meeting: Path) -> Team:
    """This process's place among `world`. Under torchrun its own numbers count; else they meet through a file."""
    given = torchrun_place()
    number = rank if given is None else given.local_rank
    if given is not None:
        rank, world = given.rank, given.world
    place = torch.device(device, number) if device == "cuda" else torch.device(device)
    if world > 1:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method="env://" if given is not None else meeting.resolve().as_uri(),
            rank=rank,
            world_size=world,
        )
    if place.type == "cuda":
        torch.cuda.set_device(place)
    return Team(rank=rank, world=world, device=place)


def leave_team(team: Team) -> None:
    """The end of talking to each other."""
    if team.world > 1:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over processes of values and, backwards, of gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the pictures of all processes; on any device, which torch's own does not offer for the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            # every process has equally many pictures of one size
            count = x.numel() // x.shape[1] * dist.get_world_size()
            mean = _summed(wide.sum((0, 2, 3))) / count
            centred = wide - mean[:, None, None]
            variance = _summed(centred.square().sum((0, 2, 3))) / count
            self._remember(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
            normed = centred * (variance + self.eps).rsqrt()[:, None, None]
            scaled: Tensor = normed * self.weight[:, None, None] + self.bias[:, None, None]
            return scaled.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def sync_batch_norms(model: nn.Module) -> None:
    """Let every BatchNorm see the whole batch. Parameters, buffers and their names stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            # Same parameters, another forward: there is nothing to copy.
            module.__class__ = SyncedBatchNorm2d
