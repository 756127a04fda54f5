"""The class heads of a network for another set of classes: rows go by class name, never by number or shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ledetr.model.ledetr import LeDetr, build_model

PRIOR = -math.log(99.0)
"""Bias of a class that is not known yet: a probability of one percent."""


@dataclass(frozen=True, slots=True)
class HeadMatch:
    """Which classes of the data keep what the weights know of them, which are new, and which of the old are gone."""

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def table(self) -> str:
        """Three lines of plain text."""
        rows = (("kept", self.kept), ("new", self.new), ("dropped", self.dropped))
        return "\n".join(f"classes {what:8}{len(names):4}  {_listed(names)}" for what, names in rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


@torch.no_grad()
def with_classes(model: LeDetr, old_names: Sequence[str], new_names: Sequence[str]) -> tuple[LeDetr, HeadMatch]:
    """A copy of the network for the new classes. Shared names keep their rows, whatever their place; case is ignored.

    A new class starts as the mean of all old rows, with the bias of one percent. Everything else is copied.
    """
    index = {name.casefold(): row for row, name in enumerate(old_names)}
    source = [index.get(name.casefold(), -1) for name in new_names]
    adapted = build_model(model.config.with_classes(len(new_names)))
    state = model.state_dict()
    for name in adapted.state_dict():
        if _is_head(name):
            state[name] = _rows(name, state[name], source)
    adapted.load_state_dict(state)
    wanted = {name.casefold() for name in new_names}
    return adapted, HeadMatch(
        kept=tuple(name for name, row in zip(new_names, source, strict=True) if row >= 0),
        new=tuple(name for name, row in zip(new_names, source, strict=True) if row < 0),
        dropped=tuple(name for name in old_names if name.casefold() not in wanted),
    )


def _is_head(name: str) -> bool:
    """Tensors with one row for each class: all scores, and the embedding of noisy labels."""
    return name.startswith(("decoder.encoder_score.", "decoder.scores.", "decoder.denoising_embedding."))


def _rows(name: str, old: Tensor, source: Sequence[int]) -> Tensor:
    if name.startswith("decoder.denoising_embedding."):
        # its last row stands for an empty slot
        return torch.cat([_rows("", old[:-1], source), old[-1:]])
    fresh = old.mean(0) if old.dim() > 1 else torch.full_like(old[:1], PRIOR)[0]
    return torch.stack([fresh if row < 0 else old[row] for row in source])
