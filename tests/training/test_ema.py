"""Averages against the recursion written out, one tensor and one step at a time."""

import math

import pytest
import torch
from torch import nn

from training.ema import EmaBank


def toy():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(4, 4))
    model[2].bias.requires_grad_(False)
    model.register_buffer("table", torch.arange(3.0))
    return model


def change(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=g))
            else:
                tensor.add_(1)


@pytest.mark.parametrize("flagged", [False, True])
def test_recursion(flagged):
    model = toy()
    bank = EmaBank(model, (0.9, 0.5), ramp=3.0)
    expected = [{k: v.double().clone() for k, v in model.state_dict().items()} for _ in range(2)]
    copied = {"2.bias", "table", "1.num_batches_tracked"}
    for step in range(6):
        change(model, step)
        bank.update(step, bad=torch.tensor(False) if flagged else None)
        for decay, average in zip((0.9, 0.5), expected, strict=True):
            d = decay * (1 - math.exp(-(step + 1) / 3))
            for name, value in model.state_dict().items():
                average[name] = value.double() if name in copied else d * average[name] + (1 - d) * value
    for index in range(2):
        for name, value in bank.averages[index].items():
            torch.testing.assert_close(value.double(), expected[index][name], atol=1e-6, rtol=1e-5)


def test_batch_statistics_are_averaged_not_copied():
    model = toy()
    bank = EmaBank(model, (0.9,), ramp=1e-9)
    before = bank.averages[0]["1.running_var"].clone()
    change(model, 0)
    bank.update(0)
    torch.testing.assert_close(bank.averages[0]["1.running_var"], 0.9 * before + 0.1 * model[1].running_var)


def test_a_skipped_step_moves_nothing():
    model = toy()
    bank = EmaBank(model)
    change(model, 0)
    bank.update(0)
    before = {name: value.clone() for name, value in bank.tensors().items()}
    with torch.no_grad():
        model[0].weight.add_(1)
    bank.update(1, bad=torch.tensor(True))
    for name, value in bank.tensors().items():
        assert value.equal(before[name]), name


def test_bank_does_not_touch_the_model_nor_share_memory():
    model = toy()
    bank = EmaBank(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bank.averages[0]["0.weight"].add_(5)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not bank.averages[0]["0.weight"].requires_grad


def test_follows_weights_that_were_loaded():
    model, other = toy(), toy()
    bank = EmaBank(model, (0.0,))
    change(other, 3)
    model.load_state_dict(other.state_dict())
    bank.update(0)
    assert bank.averages[0]["0.weight"].equal(other[0].weight)


def test_save_load_and_copy():
    model = toy()
    bank = EmaBank(model, (0.9, 0.5))
    change(model, 1)
    bank.update(0)
    again = EmaBank(toy(), (0.9, 0.5))
    again.load_tensors({name: value.clone() for name, value in bank.tensors().items()})
    target = toy()
    again.copy_to(target, 1)
    for name, value in target.state_dict().items():
        assert value.equal(bank.averages[1][name])
    with pytest.raises(ValueError, match="names differ"):
        EmaBank(toy(), (0.9,)).load_tensors(bank.tensors())
    with pytest.raises(ValueError, match=r"decays must be in \[0, 1\)"):
        EmaBank(toy(), (1.0,))
