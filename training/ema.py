"""A bank of moving averages of the weights: several memories side by side, chosen between once, at the end."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.schedule import ema_decay


class EmaBank:
    """One average per decay. Trained weights and batch statistics are averaged, everything else is copied.

    The decay at a step is a pure function of the step, so the averages are the whole state.
    """

    def __init__(
        self, model: nn.Module, decays: Sequence[float] = (0.9999, 0.9998, 0.9995), ramp: float = 1000.0
    ) -> None:
        if not decays or not all(0 <= decay < 1 for decay in decays):
            raise ValueError(f"decays must be in [0, 1), at least one, got {tuple(decays)}")
        self.decays, self.ramp = tuple(decays), ramp
        self._source = model.state_dict(keep_vars=True)  # the live tensors, so updates need no new walk
        averaged = _averaged_ids(model)
        self._moving = [name for name, tensor in self._source.items() if id(tensor) in averaged]
        self._copied = [name for name, tensor in self._source.items() if id(tensor) not in averaged]
        self.averages = [{name: tensor.detach().clone() for name, tensor in self._source.items()} for _ in self.decays]
        """One state dict per decay."""

    @torch.no_grad()
    def update(self, step: int, bad: Tensor | None = None) -> None:
        """Let the averages follow the model after this step, counted from 0.

        bad: () bool on the device; where True, nothing moves, as after a step that was skipped. Call it once a step.
        """
        live = [self._source[name].detach() for name in self._moving]
        for decay, average in zip(self.decays, self.averages, strict=True):
            weight = 1 - ema_decay(step + 1, decay, self.ramp)
            kept = [average[name] for name in self._moving]
            if bad is None:
                torch._foreach_lerp_(kept, live, weight)
            else:
                way = torch._foreach_sub(live, kept)
                torch._foreach_mul_(way, weight * ~bad)
                torch._foreach_add_(kept, way)
            if self._copied:
                torch._foreach_copy_([average[name] for name in self._copied], [self._source[n] for n in self._copied])

    @torch.no_grad()
    def copy_to(self, model: nn.Module, index: int = 0) -> None:
        """Put an average into a model of the same shape, e.g. the copy that is evaluated."""
        model.load_state_dict(self.averages[index])

    def tensors(self) -> dict[str, Tensor]:
        """All averages as flat tensors "0/NAME", "1/NAME", ...; not copied."""
        return {f"{index}/{name}": t for index, average in enumerate(self.averages) for name, t in average.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of tensors; ValueError when the names are not those of this bank."""
        mine = self.tensors()
        if mine.keys() != tensors.keys():
            odd = sorted(mine.keys() ^ tensors.keys())
            raise ValueError(f"the averages do not fit this model: {len(odd)} names differ, the first is {odd[0]!r}")
        for name, tensor in mine.items():
            tensor.copy_(tensors[name])


def _averaged_ids(model: nn.Module) -> set[int]:
    """Tensors that take part in the average: floating parameters that are trained, and batch statistics."""
    trained = {id(p) for p in model.parameters() if p.requires_grad and p.is_floating_point()}
    statistics = {
        id(buffer)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    }
    return trained | statistics
