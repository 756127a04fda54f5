"""The distillation loop on a synthetic cache: what is compared, and that stopping leaves no trace."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import ledetr_n
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo
from training import distil_cache, distil_loop, distil_losses
from training.checkpoint import Checkpoints
from training.distil import scaled
from training.distil_cache import MAX_BOXES
from training.distil_loop import (
    CachedViews,
    RunOptions,
    answers_phase,
    batches,
    boxes_phase,
    lr_factor,
    maps_phase,
    train,
)
from training.distil_losses import (
    LossWeights,
    Teacher,
    answer_losses,
    map_losses,
    set_training_mode,
    step_losses,
    targets_of,
)

VIEWS, SIDE = 8, 4  # a view of 64 x 64 pixels


def synthetic_batch(views: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = SIDE

    def maps(channels: int, size: int) -> Tensor:
        return torch.rand(views, channels, size, size, generator=generator)

    labels = torch.full((views, MAX_BOXES), -1, dtype=torch.int16)
    labels[:, :2] = torch.tensor([3, 7], dtype=torch.int16)
    boxes = torch.zeros(views, MAX_BOXES, 4)
    boxes[:, :2] = torch.tensor([[0.3, 0.4, 0.2, 0.2], [0.6, 0.6, 0.5, 0.3]])
    crowd = torch.zeros(views, MAX_BOXES, dtype=torch.bool)
    crowd[:, 1] = True
    return {
        "c3": maps(40, 2 * side),
        "c4": maps(112, side),
        "t16": maps(96, side),
        "t32": maps(96, side // 2),
        "boxes": boxes,
        "labels": labels,
        "crowd": crowd,
        "labelled": torch.arange(views) % 2 == 0,
    }


@pytest.fixture
def model() -> LeDetr:
    torch.manual_seed(0)
    return build_model(ledetr_n())


def teacher_of(model: LeDetr) -> Teacher:
    return Teacher(build_model(ledetr_n()).eval().requires_grad_(False).decoder, (torch.ones(96), torch.ones(96)))


def test_equal_maps_cost_nothing(model: LeDetr) -> None:
    batch, teacher = synthetic_batch(), teacher_of(model)
    wanted = (batch["t16"], batch["t32"])
    error, entropy = map_losses(list(wanted), wanted, teacher)
    assert error == 0 and entropy == 0
    error, entropy = map_losses([m + 0.5 for m in wanted], wanted, teacher)
    assert error == pytest.approx(2 * 0.25, rel=1e-5) and entropy > 0


def test_positions_with_objects_weigh_more(model: LeDetr) -> None:
    """A teacher that is sure of one cell: the same error costs more there than elsewhere."""
    teacher = teacher_of(model)
    torch.nn.init.zeros_(teacher.decoder.encoder_score.weight)
    torch.nn.init.constant_(teacher.decoder.encoder_score.bias, -6.0)
    teacher.decoder.encoder_score.weight.data[0, 0] = 12.0
    theirs = torch.zeros(1, 96, 2, 2)
    theirs[0, 0, 0, 0] = 1.0
    flat = torch.zeros(1, 96, 1, 1)
    on, off = theirs.clone(), theirs.clone()
    on[0, 5, 0, 0] += 1.0
    off[0, 5, 1, 1] += 1.0
    assert map_losses([on, flat], (theirs, flat), teacher)[0] > 2 * map_losses([off, flat], (theirs, flat), teacher)[0]


def with_opinions(teacher: Teacher) -> Teacher:
    """A decoder as built says one percent everywhere; with random heads it has something to say."""
    torch.manual_seed(1)
    for score in (teacher.decoder.encoder_score, *teacher.decoder.scores):
        torch.nn.init.normal_(score.weight, std=0.5)
    for mlp in (teacher.decoder.encoder_box, teacher.decoder.initial_box, *teacher.decoder.corners):
        torch.nn.init.normal_(mlp.layers[-1].weight, std=0.1)
    return teacher


def test_answers_at_the_chosen_positions_are_the_answers_of_the_forward_pass(model: LeDetr) -> None:
    batch = synthetic_batch()
    decoder, maps = with_opinions(teacher_of(model)).decoder, [batch["t16"], batch["t32"]]
    memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
    count = min(decoder.config.queries, memory.shape[1])
    positions = decoder.encoder_score(memory).amax(-1).topk(count, 1).indices
    with torch.no_grad():
        logits, boxes = decoder(maps)
        answers = decoder.answers_at(maps, positions)
    assert torch.allclose(answers.logits[-1], logits, atol=1e-5)
    assert torch.allclose(answers.boxes_cxcywh[-1], boxes, atol=1e-6)
    assert len(answers.logits) == len(decoder.layers)


def test_equal_maps_get_equal_answers(model: LeDetr) -> None:
    batch, teacher = synthetic_batch(), with_opinions(teacher_of(model))
    wanted = [batch["t16"], batch["t32"]]
    assert answer_losses(teacher.decoder, wanted, wanted, teacher) == pytest.approx(0, abs=1e-5)


def test_answers_pull_the_maps_toward_the_teachers(model: LeDetr) -> None:
    """Descent on the maps themselves, through a decoder that stays: the loss falls by more than half."""
    batch, teacher = synthetic_batch(), with_opinions(teacher_of(model))
    wanted = [batch["t16"], batch["t32"]]
    ours = [(m + 0.3 * torch.randn_like(m)).requires_grad_() for m in wanted]
    optimizer = torch.optim.Adam(ours, lr=0.02)
    losses = []
    for _ in range(40):
        loss = answer_losses(teacher.decoder, ours, wanted, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.1 and min(losses[-5:]) < losses[0] / 2
    assert all(p.grad is None for p in teacher.decoder.parameters())


def test_targets_are_true_boxes_where_there_are_and_the_teachers_elsewhere(model: LeDetr) -> None:
    batch, teacher = synthetic_batch(), teacher_of(model)
    torch.nn.init.normal_(teacher.decoder.encoder_score.weight, std=0.5)
    for score in teacher.decoder.scores:
        torch.nn.init.normal_(score.weight, std=2.0)
    targets = targets_of(batch, teacher, 0.35)
    assert targets.valid[0].nonzero().flatten().tolist() == [0], "the crowd box is no target"
    assert targets.labels[0, 0] == 3 and targets.weight[0, 0] == 1
    assert targets.boxes_cxcywh[0, 0].tolist() == pytest.approx([0.3, 0.4, 0.2, 0.2])
    assert targets.ignore_valid is not None and targets.ignore_xyxy is not None
    assert targets.ignore_valid[0].nonzero().flatten().tolist() == [1] and not targets.ignore_valid[1].any()
    assert targets.ignore_xyxy[0, 1].tolist() == pytest.approx([0.35, 0.45, 0.85, 0.75])
    with torch.no_grad():
        logits, _ = teacher.decoder([batch["t16"], batch["t32"]])
    sure = int((logits[1].sigmoid() >= 0.35).sum())
    assert sure > 0 and int(targets.valid[1].sum()) == min(sure, MAX_BOXES)
    assert (targets.weight[1, :sure] >= 0.35).all()


def test_only_what_is_trained_moves(model: LeDetr) -> None:
    batch, teacher = synthetic_batch(), teacher_of(model)
    set_training_mode(model, 5, decoder=False)
    losses = step_losses(model, batch, teacher, LossWeights(), first_stage=5, noise_seed=0)
    losses["total"].backward()
    learns = {
        name.split(".")[0] + "." + name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None
    }
    assert "decoder" not in {name.split(".")[0] for name in learns}
    assert {n for n in learns if n.startswith("backbone")} == {"backbone.stages"}
    assert all(p.grad is None for p in model.backbone.stages[:5].parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_rates_grow_with_the_root_of_the_batch() -> None:
    config = scaled(answers_phase(100), 64)
    assert config.batch == 64
    assert (config.lr, config.trunk_lr, config.decoder_lr) == pytest.approx((2e-3, 8e-4, 2e-4))
    assert scaled(answers_phase(100), None) == answers_phase(100)


@pytest.mark.gpu
def test_the_device_gives_the_losses_of_the_cpu(model: LeDetr) -> None:
    batch, teacher = synthetic_batch(), teacher_of(model)
    weights = LossWeights(answers=0.3, boxes=0.05)
    set_training_mode(model, 3, decoder=True)
    ours = step_losses(model, batch, teacher, weights, first_stage=3, noise_seed=0)
    there = Teacher(teacher.decoder.cuda(), (torch.ones(96).cuda(), torch.ones(96).cuda()))
    moved = {name: value.cuda() for name, value in batch.items()}
    theirs = step_losses(model.cuda(), moved, there, weights, first_stage=3, noise_seed=0)
    # Noise of the boxes differs between devices, so their loss is left out.
    for name in ("maps", "dense", "answers"):
        assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=0.05), name
    theirs["total"].backward()


def test_schedule_by_hand() -> None:
    config = maps_phase(1000)
    assert lr_factor(0, config) == pytest.approx(1 / 31)
    assert lr_factor(30, config) == lr_factor(299, config) == 1.0
    assert lr_factor(650, config) == pytest.approx((1 + 0.03) / 2, abs=1e-3)
    assert lr_factor(1000, config) == pytest.approx(0.03)


def write_cache(folder: Path) -> None:
    for shard in range(2):
        part = folder / f"shard_{shard:05d}"
        part.mkdir(parents=True)
        for name, value in synthetic_batch(VIEWS).items():
            array = value.numpy()
            if name in ("c3", "c4", "t16", "t32"):
                array = array + shard
            np.save(part / f"{name}.npy", array.astype(np.float16) if name in ("c3", "c4", "t16", "t32") else array)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    """A run whose teacher is a fresh decoder and whose trunk is random: no public file is needed."""
    monkeypatch.setattr(distil_loop, "SHARD_VIEWS", VIEWS)
    for name in ("load_lite0",):
        monkeypatch.setattr(distil_losses, name, lambda *_: None)
    for name in ("load_femto_decoder", "load_femto_fusion"):
        monkeypatch.setattr(distil_losses, name, lambda *_: None)
    assert distil_cache.SHARD_VIEWS == 256
    write_cache(tmp_path / "cache")
    save_file({"none": torch.zeros(1)}, tmp_path / "teacher.safetensors")
    return RunOptions(
        run=tmp_path / "run",
        cache=tmp_path / "cache",
        teacher=tmp_path / "teacher.safetensors",
        config=maps_phase(4),
        threads=1,
    )


def test_batches_are_a_function_of_the_step(options: RunOptions) -> None:
    views = CachedViews(options.cache)
    assert len(views) == 2 * VIEWS
    whole = [b["t16"] for b in batches(views, maps_phase(4), 0, 0, 1)]
    later = [b["t16"] for b in batches(views, maps_phase(4), 2, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], later, strict=True))
    halves = [[b["t16"] for b in batches(views, maps_phase(4), 0, rank, 2)] for rank in range(2)]
    for full, even, odd in zip(whole, *halves, strict=True):
        assert torch.equal(full[0::2], even) and torch.equal(full[1::2], odd)


@pytest.mark.parametrize("phase", [maps_phase, boxes_phase])
def test_stopped_and_resumed_equals_uninterrupted(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch, phase: object, tmp_path: Path
) -> None:
    """Bit for bit, weights and averages: a stop after two of four steps, then a new process' worth of state."""
    config = phase(4)  # type: ignore[operator]
    whole = replace(options, config=config, run=tmp_path / "whole")
    whole.run.mkdir()
    train(0, whole)
    parts = replace(options, config=config, run=tmp_path / "parts")
    parts.run.mkdir()
    monkeypatch.setattr(distil_loop, "STOP_EVERY", 1)
    calls = iter([False, True])
    monkeypatch.setattr(distil_loop, "_time_is_up", lambda *_: next(calls, False))
    train(0, parts)
    assert Checkpoints(parts.run / config.phase).load().step == 2
    train(0, parts)
    ours, theirs = (Checkpoints(o.run / config.phase).load() for o in (parts, whole))
    assert ours.step == theirs.step == 4
    assert ours.weights.keys() == theirs.weights.keys()
    different = [k for k, v in theirs.weights.items() if not torch.equal(v, ours.weights[k])]
    assert different == []


def test_next_phase_starts_from_the_average(options: RunOptions, tmp_path: Path) -> None:
    options.run.mkdir()
    train(0, options)
    averaged = distil_loop.averaged_weights(options.run / "maps")
    later = replace(
        options, config=replace(boxes_phase(1), lr=0.0, trunk_lr=0.0, decoder_lr=0.0), init=options.run / "maps"
    )
    train(0, later)
    after = Checkpoints(options.run / "boxes").load().weights
    trained = [k for k in averaged if k.endswith("weight") and "norm" not in k]
    assert all(torch.equal(averaged[k], after[f"model/{k}"]) for k in trained)


def test_a_weights_file_is_a_start_too(model: LeDetr, tmp_path: Path) -> None:
    """Half precision is what ships, so the start is equal to its rounding."""
    path = tmp_path / "n.safetensors"
    info = WeightsInfo(
        name="n", config=model.config, class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS, input_hw=(416, 416)
    )
    save_weights(path, model, info)
    start = distil_loop.averaged_weights(path)
    assert start.keys() == model.state_dict().keys()
    assert all(torch.allclose(v, start[k].to(v.dtype), rtol=1e-3, atol=1e-6) for k, v in model.state_dict().items())
