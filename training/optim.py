"""Parameter groups by a walk over the modules, the fused optimiser, and a step that leaves no trace if it went wrong.

Names of layers decide nothing here: look-alike patterns on names are how other projects came to decay their norms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    """One of "backbone decay", "backbone no decay", "rest decay", "rest no decay"."""
    lr: float
    weight_decay: float
    parameters: dict[str, nn.Parameter]
    """By full name, in the order of the walk."""


def parameter_groups(
    model: nn.Module, *, lr: float, backbone_lr: float, weight_decay: float, backbone: str = "backbone"
) -> list[ParameterGroup]:
    """The four groups {backbone, rest} x {decay, no decay}, empty ones included.

    Not decayed: every parameter with at most one axis (norms, biases, scales) and every embedding. Frozen parameters
    are in no group; a parameter that two modules share is in one, under its first name. backbone: name of the child
    module with its own rate; ValueError if the model has no such child.
    """
    children = dict(model.named_children())
    if backbone not in children:
        raise ValueError(f"the model has no child module {backbone!r}, it has {', '.join(children)}")
    groups = {
        (part, decays): ParameterGroup(
            name=f"{part} {'decay' if decays else 'no decay'}",
            lr=backbone_lr if part == "backbone" else lr,
            weight_decay=weight_decay if decays else 0.0,
            parameters={},
        )
        for part in ("backbone", "rest")
        for decays in (True, False)
    }
    in_backbone = {id(parameter) for parameter in children[backbone].parameters()}
    for name, parameter, module in _walk(model):
        part = "backbone" if id(parameter) in in_backbone else "rest"
        decays = parameter.dim() > 1 and not isinstance(module, nn.Embedding)
        groups[part, decays].parameters[name] = parameter
    return list(groups.values())


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Every trainable parameter once, with its full name and the module that owns it."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}" if prefix else name, parameter, module


def table_of_groups(groups: Sequence[ParameterGroup]) -> str:
    """The groups as a table in plain text: how many, at what rate, and three names of each."""
    rows = [("group", "tensors", "parameters", "lr", "decay", "for example")]
    for group in groups:
        names = list(group.parameters)
        examples = [names[index] for index in sorted({0, len(names) // 2, len(names) - 1})] if names else []
        rows.append(
            (
                group.name,
                str(len(names)),
                f"{sum(p.numel() for p in group.parameters.values()):,}",
                f"{group.lr:g}",
                f"{group.weight_decay:g}",
                ", ".join(examples),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in range(1, 5)), row[5]]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def build_adamw(groups: Sequence[ParameterGroup], *, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """Fused AdamW over the groups that have parameters; each keeps its own rate under "base_lr"."""
    return torch.optim.AdamW(
        [
            {
                "params": list(group.parameters.values()),
                "lr": group.lr,
                "base_lr": group.lr,
                "weight_decay": group.weight_decay,
                "name": group.name,
            }
            for group in groups
            if group.parameters
        ],
        betas=betas,
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's rate is its base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class GuardedStep:
    """Clip and step, but leave weights, moments and batch statistics as they were if the gradient is not finite.

    The decision stays on the device: nothing waits for it. Only one device per object.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        self.optimizer, self.max_norm = optimizer, max_norm
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._statistics = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        self._good_statistics = [statistic.clone() for statistic in self._statistics]
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.parameters[0].device)
        """() int64 number of steps that were not made, on the device."""

    @torch.no_grad()
    def step(self) -> tuple[Tensor, Tensor]:
        """Use the gradients. Returns the norm before clipping and whether the step was skipped, both () on the device.

        A loss that is not finite gives a gradient norm that is not; so does a single bad gradient.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm, foreach=True)
        bad = ~norm.isfinite()
        self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # read by the fused kernel
        self.optimizer.step()
        for statistic, good in zip(self._statistics, self._good_statistics, strict=True):
            # a forward pass with a value that is not finite has already reached the running statistics
            statistic.copy_(torch.where(bad, good, statistic))
        if self._statistics:
            torch._foreach_copy_(self._good_statistics, self._statistics)
        self.skipped += bad
        return norm, bad

    @torch.no_grad()
    def reload_statistics(self) -> None:
        """Take the model's present batch statistics for good ones, after loading a checkpoint."""
        for statistic, good in zip(self._statistics, self._good_statistics, strict=True):
            good.copy_(statistic)


def moments_of(optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors "exp_avg/NAME", ...: by name, so that no order of parameters matters."""
    return {
        f"{key}/{name}": value
        for group in groups
        for name, parameter in group.parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup], moments: dict[str, Tensor]
) -> None:
    """The inverse of moments_of; ValueError when a moment has no parameter or the wrong shape."""
    parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
    states: dict[str, dict[str, Tensor]] = {}
    for full_name, value in moments.items():
        key, name = full_name.split("/", 1)
        if name not in parameters:
            raise ValueError(f"the moment {full_name!r} belongs to no parameter that is trained now")
        if value.dim() and value.shape != parameters[name].shape:
            raise ValueError(
                f"the moment {full_name!r} has the shape {tuple(value.shape)}, "
                f"its parameter {tuple(parameters[name].shape)}"
            )
        # a copy in the layout of the parameter, which the fused kernel relies on
        moment = (
            torch.empty_like(parameters[name]) if value.dim() else value.new_empty((), device=parameters[name].device)
        )
        states.setdefault(name, {})[key] = moment.copy_(value)
    optimizer.state.clear()
    for name, state in states.items():
        optimizer.state[parameters[name]] = state
