"""Groups, and the step that leaves no trace when the gradient is not finite."""

import math

import pytest
import torch
from torch import nn

from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model
from training.optim import (
    GuardedStep,
    build_adamw,
    moments_of,
    parameter_groups,
    restore_moments,
    set_lr,
    table_of_groups,
)


class Toy(nn.Module):
    """Names that fooled patterns: "bn" in the middle, "norm" inside another word, a bias that is a scale."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.stem_bn_conv = nn.Conv2d(3, 4, 3, bias=True)
        self.backbone.bn = nn.BatchNorm2d(4)
        self.backbone.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.abnormal = nn.Linear(4, 4)
        self.names = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.offset = nn.Parameter(torch.zeros(()))
        self.shared = self.abnormal

    def forward(self, x):
        x = self.backbone.bn(self.backbone.stem_bn_conv(x)).mean((2, 3))
        return self.norm(self.abnormal(x + self.names.weight[0])) * self.scale + self.offset


def groups_of(model):
    return parameter_groups(model, lr=1e-3, backbone_lr=1e-4, weight_decay=0.1)


def test_groups_of_misleading_names():
    found = {group.name: list(group.parameters) for group in groups_of(Toy())}
    assert found == {
        "backbone decay": ["backbone.stem_bn_conv.weight"],
        "backbone no decay": ["backbone.stem_bn_conv.bias", "backbone.bn.weight", "backbone.bn.bias"],
        "rest decay": ["abnormal.weight"],
        "rest no decay": ["scale", "offset", "abnormal.bias", "names.weight", "norm.weight", "norm.bias"],
    }
    for group in groups_of(Toy()):
        assert group.lr == (1e-4 if group.name.startswith("backbone") else 1e-3)
        assert group.weight_decay == (0.0 if group.name.endswith("no decay") else 0.1)


def test_the_network_is_partitioned():
    model = build_model(ledetr_tiny())
    groups = groups_of(model)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(trainable)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    assert embeddings
    for group in groups:
        for name, parameter in group.parameters.items():
            assert parameter is trainable[name]
            assert name.startswith("backbone.") == group.name.startswith("backbone")
            assert (parameter.dim() <= 1 or id(parameter) in embeddings) == group.name.endswith("no decay")


def test_a_model_without_backbone_is_refused():
    with pytest.raises(ValueError, match="no child module 'backbone', it has 0"):
        groups_of(nn.Sequential(nn.Linear(1, 1)))


def test_table_names_counts_rates_and_examples():
    text = table_of_groups(groups_of(Toy()))
    lines = text.splitlines()
    assert len(lines) == 5 and lines[0].split()[:3] == ["group", "tensors", "parameters"]
    assert lines[1].split() == ["backbone", "decay", "1", "108", "0.0001", "0.1", "backbone.stem_bn_conv.weight"]
    assert "scale, names.weight, norm.bias" in lines[4]


def test_only_the_decayed_groups_shrink_without_a_gradient():
    model = Toy()
    groups = groups_of(model)
    optimizer = build_adamw(groups)
    before = {name: p.detach().clone() for g in groups for name, p in g.parameters.items()}
    for group in groups:
        for parameter in group.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group in groups:
        for name, parameter in group.parameters.items():
            factor = 1 - group.lr * group.weight_decay
            torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_set_lr_is_relative_to_the_base():
    optimizer = build_adamw(groups_of(Toy()))
    set_lr(optimizer, 0.5)
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2.5e-5, 2.5e-5, 2.5e-4, 2.5e-4])


def train_step(model, guard, x):
    guard.optimizer.zero_grad()
    model(x).square().sum().backward()
    return guard.step()


def everything(model, optimizer, groups):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state | {name: value.clone() for name, value in moments_of(optimizer, groups).items()}


@pytest.mark.parametrize("poison", ["gradient", "input"])
def test_a_step_that_is_not_finite_leaves_no_trace(poison):
    torch.manual_seed(0)
    model = Toy()
    groups = groups_of(model)
    optimizer = build_adamw(groups)
    guard = GuardedStep(model, optimizer, max_norm=0.1)
    x = torch.randn(4, 3, 6, 6)
    norm, bad = train_step(model, guard, x)
    assert norm > 0 and not bad and guard.skipped == 0
    before = everything(model, optimizer, groups)

    if poison == "input":
        _, bad = train_step(model, guard, torch.full_like(x, math.nan))
    else:
        optimizer.zero_grad()
        model(x).square().sum().backward()
        model.abnormal.weight.grad[0, 0] = math.inf
        before |= {k: v.clone() for k, v in model.state_dict().items() if "num_batches" in k}
        _, bad = guard.step()
    assert bad and guard.skipped == 1
    after = everything(model, optimizer, groups)
    for name, value in after.items():
        if "num_batches_tracked" not in name:  # a plain counter that nothing reads
            assert value.equal(before[name]), name

    _, bad = train_step(model, guard, x)  # and life goes on
    assert not bad and guard.skipped == 1
    now = everything(model, optimizer, groups)
    assert all(value.isfinite().all() for value in now.values())
    assert not now["abnormal.weight"].equal(before["abnormal.weight"])


def test_a_guarded_step_is_an_ordinary_one():
    """With finite gradients: the same as clip and AdamW by hand."""
    models = []
    for guarded in (True, False):
        torch.manual_seed(0)
        model = Toy()
        optimizer = build_adamw(groups_of(model))
        guard = GuardedStep(model, optimizer, max_norm=0.1)
        for step in range(3):
            x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            if guarded:
                guard.step()
            else:
                torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 0.1)
                optimizer.step()
        models.append(model.state_dict())
    for name, value in models[0].items():
        assert value.equal(models[1][name]), name


def test_moments_survive_by_name():
    def run(split):
        torch.manual_seed(0)
        model = Toy()
        groups = groups_of(model)
        optimizer = build_adamw(groups)
        for step in range(4):
            if step == split:
                saved = {name: value.clone() for name, value in moments_of(optimizer, groups).items()}
                groups = groups_of(model)
                optimizer = build_adamw(groups)
                restore_moments(optimizer, groups, dict(reversed(saved.items())))
            x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
            train_step(model, GuardedStep(model, optimizer, 1.0), x)
        return everything(model, optimizer, groups)

    whole, resumed = run(None), run(2)
    assert whole.keys() == resumed.keys() and any(name.startswith("exp_avg_sq/") for name in whole)
    for name, value in whole.items():
        assert value.equal(resumed[name]), name


def test_moments_of_another_network_are_refused():
    groups = groups_of(Toy())
    optimizer = build_adamw(groups)
    with pytest.raises(ValueError, match=r"'exp_avg/nowhere.weight' belongs to no parameter"):
        restore_moments(optimizer, groups, {"exp_avg/nowhere.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"has the shape \(2,\), its parameter \(4, 4\)"):
        restore_moments(optimizer, groups, {"exp_avg/abnormal.weight": torch.zeros(2)})
