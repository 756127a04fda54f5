"""Checkpoints: exact, complete at every moment, refused when wrong, and free of code."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ledetr.errors import OutputError, WeightsError
from training import checkpoint
from training.checkpoint import Checkpoints, NotFiniteError, Snapshot
from training.ema import EmaBank
from training.optim import GuardedStep, build_adamw, moments_of, parameter_groups, restore_moments

ROOT = Path(__file__).parents[2]


def snapshot(step, value=None, size=10):
    fill = float(step if value is None else value)
    return Snapshot(
        step=step,
        weights={"model/a": torch.full((size,), fill), "ema/0/a": torch.full((2, 3), fill), "n": torch.tensor(step)},
        moments={"exp_avg/a": torch.full((size,), fill, dtype=torch.float64)},
        extra={"names": ["cat", "dog"], "seed": 3},
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    store = Checkpoints(tmp_path / "run")
    assert store.last() is None and store.best() is None
    path = store.save(snapshot(7))
    loaded = store.load()
    assert loaded.step == 7 and loaded.extra == {"names": ["cat", "dog"], "seed": 3}
    for kind in ("weights", "moments"):
        saved, got = getattr(snapshot(7), kind), getattr(loaded, kind)
        assert saved.keys() == got.keys()
        assert all(got[name].equal(value) and got[name].dtype == value.dtype for name, value in saved.items())
    assert names(path) == ["manifest.json", "moments-0.safetensors", "weights-0.safetensors"]
    assert store.load(path).step == 7


def test_parts_stay_small_and_odd_tensors_survive(tmp_path):
    shared = torch.randn(50)
    weights = {
        "twice": shared,
        "again": shared,  # two names of one tensor
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.randn(30).bfloat16(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
        "parameter": nn.Parameter(torch.randn(20)),
        "large": torch.randn(500),
    }
    store = Checkpoints(tmp_path, part_bytes=400)
    path = store.save(Snapshot(step=1, weights=weights))
    loaded = store.load().weights
    assert all(loaded[name].equal(value) for name, value in weights.items())
    sizes = [file.stat().st_size for file in path.glob("weights-*.safetensors")]
    assert len(sizes) >= 3
    assert sum(size > 400 + 400 for size in sizes) == 1  # the header counts too; one tensor alone is larger


def test_last_two_best_and_milestones_are_kept(tmp_path):
    store = Checkpoints(tmp_path)
    for step, metric, milestone in [
        (1, 0.2, False),
        (2, 0.5, False),
        (3, 0.4, True),
        (4, None, False),
        (5, 0.5, False),
    ]:
        store.save(snapshot(step), metric=metric, milestone=milestone)
    assert names(tmp_path) == [
        "best.json",
        "last.json",
        "step-000000002",
        "step-000000003",
        "step-000000004",
        "step-000000005",
    ]
    assert store.last().step == 5 and store.best().step == 2 and store.best().metric == 0.5
    store.save(snapshot(6), metric=0.6)
    assert [n for n in names(tmp_path) if n.startswith("step")] == [f"step-00000000{n}" for n in (3, 5, 6)]
    assert store.load("best").step == 6


def test_a_run_that_went_back_keeps_its_newest(tmp_path):
    store = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        store.save(snapshot(step))
    again = store.save(snapshot(20, value=99))  # after a roll-back the same step comes again
    assert again.name == "step-000000020-1"
    assert store.load().weights["model/a"][0] == 99
    store.save(snapshot(25))
    assert [n for n in names(tmp_path) if n.startswith("step")] == ["step-000000020-1", "step-000000025"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["weights", "moments"])
def test_what_is_not_finite_is_never_written(tmp_path, bad, kind):
    store = Checkpoints(tmp_path)
    store.save(snapshot(1))
    before = names(tmp_path)
    broken = {"weights": {"a": torch.ones(3)}, "moments": {}} | {kind: {"exp_avg/b": torch.tensor([1.0, bad])}}
    with pytest.raises(NotFiniteError, match="step 2 is not saved because 'exp_avg/b' has a value that is not finite"):
        Checkpoints(tmp_path).save(Snapshot(step=2, **broken))
    assert names(tmp_path) == before and store.load().step == 1


@pytest.mark.parametrize("call", range(30))
def test_a_failure_at_any_system_call_leaves_a_loadable_run(tmp_path, monkeypatch, call):
    """Every rename and flush in turn fails as a full disk does."""
    store = Checkpoints(tmp_path)
    store.save(snapshot(1), metric=0.1)
    count = 0

    def failing(original):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count - 1 == call:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", failing(os.fsync))
        patch.setattr(checkpoint.Path, "rename", failing(Path.rename))
        patch.setattr(checkpoint.Path, "replace", failing(Path.replace))
        patch.setattr(checkpoint.Path, "write_text", failing(Path.write_text))
        try:
            store.save(snapshot(2), metric=0.2)
            assert count <= call  # nothing failed: the save makes fewer calls than this
        except OutputError as error:
            assert "No space left on device; free space" in str(error)
    assert store.load().step in (1, 2) and store.load("best").step in (1, 2)
    store.save(snapshot(3), metric=0.3)
    assert store.load().step == store.load("best").step == 3
    assert not [name for name in names(tmp_path) if name.startswith(".")]


WRITER = """
import sys, torch
from training.checkpoint import Checkpoints, Snapshot
store, step = Checkpoints(sys.argv[1], part_bytes=1 << 18), int(sys.argv[2])
while True:
    step += 1
    weights = {f"w{i}": torch.full((40_000,), float(step)) for i in range(8)}
    moments = {"m": torch.full((1000,), float(step))}
    store.save(Snapshot(step=step, weights=weights, moments=moments), metric=float(step))
    print(step, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_kill_at_any_moment_leaves_a_loadable_run(tmp_path):
    store, newest = Checkpoints(tmp_path), 0
    for round_number in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(newest)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert writer.stdout.readline() == f"{newest + 1}\n"  # at least one save is complete
            time.sleep(0.1 + 0.037 * round_number)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        for which in ("last", "best"):
            loaded = store.load(which)
            assert {value.unique().item() for value in loaded.weights.values()} == {loaded.step}
            assert loaded.moments["m"].unique().item() == loaded.step
        assert store.last().step > newest
        newest = store.last().step


def test_damage_is_found_before_anything_is_used(tmp_path):
    store = Checkpoints(tmp_path)
    path = store.save(snapshot(1))
    file = path / "weights-0.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    with pytest.raises(WeightsError, match=r"damaged: weights-0\.safetensors is not what the manifest says"):
        store.load()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(WeightsError, match="damaged"):
        store.load()
    file.unlink()
    with pytest.raises(WeightsError, match="damaged"):
        store.load()
    file.write_bytes(good)
    assert store.load().step == 1
    (path / "manifest.json").write_text("{")
    with pytest.raises(WeightsError, match=r"manifest\.json cannot be read"):
        store.load()
    (path / "manifest.json").unlink()
    with pytest.raises(WeightsError, match="is no checkpoint"):
        store.load()


def test_no_checkpoint_yet(tmp_path):
    with pytest.raises(WeightsError, match="no last checkpoint in"):
        Checkpoints(tmp_path / "new").load()


def test_loading_runs_no_code_and_stays_in_its_folder(tmp_path):
    store = Checkpoints(tmp_path / "run")
    path = store.save(snapshot(1))

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    data = pickle.dumps(Evil())
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest["files"][0]
    (path / entry["name"]).write_bytes(data)
    entry["bytes"], entry["sha256"] = len(data), checkpoint.sha256_of(path / entry["name"])
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        store.load()
    assert not (tmp_path / "ran").exists()

    entry["name"] = "../../outside.safetensors"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="not a plain file name"):
        store.load()
    (tmp_path / "run" / "last.json").write_text(json.dumps({"name": "..", "step": 1, "metric": None}))
    with pytest.raises(WeightsError, match="not a plain file name"):
        store.load()


def test_going_on_is_exact(tmp_path):
    """k steps, save, load, k steps equal 2k steps bit for bit: weights, averages and moments."""

    def build():
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {"backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "head": nn.Linear(4, 2)}
        )
        groups = parameter_groups(model, lr=1e-2, backbone_lr=1e-3, weight_decay=0.1)
        return model, groups, build_adamw(groups), EmaBank(model, (0.9, 0.5))

    def train(model, optimizer, bank, start, stop):
        guard = GuardedStep(model, optimizer, 0.1)
        for step in range(start, stop):
            x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model["head"](model["backbone"](x).mean((2, 3))).square().sum().backward()
            _, bad = guard.step()
            bank.update(step, bad)

    model, groups, optimizer, bank = build()
    train(model, optimizer, bank, 0, 3)
    weights = {f"model/{k}": v for k, v in model.state_dict().items()}
    weights |= {f"ema/{k}": v for k, v in bank.tensors().items()}
    store = Checkpoints(tmp_path)
    store.save(Snapshot(step=3, weights=weights, moments=moments_of(optimizer, groups)))
    train(model, optimizer, bank, 3, 6)

    other, other_groups, other_optimizer, other_bank = build()
    loaded = store.load()
    other.load_state_dict({k.removeprefix("model/"): v for k, v in loaded.weights.items() if k.startswith("model/")})
    other_bank.load_tensors({k.removeprefix("ema/"): v for k, v in loaded.weights.items() if k.startswith("ema/")})
    restore_moments(other_optimizer, other_groups, dict(loaded.moments))
    train(other, other_optimizer, other_bank, loaded.step, 6)

    for ours, theirs in (
        (model.state_dict(), other.state_dict()),
        (bank.tensors(), other_bank.tensors()),
        (moments_of(optimizer, groups), moments_of(other_optimizer, other_groups)),
    ):
        assert ours.keys() == theirs.keys()
        assert all(value.equal(theirs[name]) for name, value in ours.items())
