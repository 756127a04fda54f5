"""The loop on toy shapes: exact resume, several processes as one, nothing lost when stopped."""

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from ledetr.detector import Detector
from ledetr.errors import UsageError
from ledetr.evaluation import detect_all
from ledetr.model.config import ledetr_tiny
from ledetr.weights import WeightsInfo, save_weights
from training.checkpoint import Checkpoints
from training.data.collate import picture_of
from training.data.read import read_splits
from training.data.shapes import write_shapes
from training.distributed import Team
from training.judge import coco_set_of, detect_pictures
from training.loop import Job, Run, best_model, train
from training.progress import RunProgress
from training.recipes import finetune, recipe_for
from training.setback import NotFinite, TrainingDiverged, first_odd_layer, read_setback


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), "coco", 24, ids=(2, 5, 9))


def job(folder: Path, shapes: Path, **changes: Any) -> Job:
    """Eight steps of four pictures on one thread."""
    data, tune = read_splits(shapes)
    values: dict[str, Any] = {
        "folder": folder,
        "config": replace(finetune("tiny"), batch=4, evaluations=1),
        "model": ledetr_tiny(3),
        "train": data,
        "tune": tune,
        "total": 8,
        "threads": 1,
        "log_every": 2,
        "save_every": 3,
        "quiet": True,
    }
    return Job(**(values | changes))


def rows(folder: Path, event: str = "steps") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def state(folder: Path) -> dict[str, torch.Tensor]:
    snapshot = Checkpoints(folder / "checkpoints").load()
    return {**snapshot.weights, **{f"moments/{k}": v for k, v in snapshot.moments.items()}}


@pytest.fixture(scope="module")
def whole(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = train(0, job(folder, shapes))
    assert outcome.ended and outcome.step == 8 and not outcome.interrupted
    return folder


def test_log_says_what_happened(whole: Path) -> None:
    steps = rows(whole)
    assert [row["step"] for row in steps] == [2, 4, 6, 8] and all(row["skipped"] == 0 for row in steps)
    terms = ("class", "l1", "giou", "fgl", "ddf", "denoising_class", "total", "norm", "lr", "pictures_per_s")
    assert all(np.isfinite(row[term]) for row in steps for term in terms)
    judged = rows(whole, "judged")
    assert len(judged) == 1 and judged[0]["step"] == 8
    assert rows(whole, "start")[0]["category_ids"] == [2, 5, 9]


@pytest.mark.parametrize("stop_at", [1, 5])
def test_stopped_and_gone_on_ends_with_the_same_bits(
    stop_at: int, whole: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped inside and outside the window of mosaic, off the beat of saving."""
    calls = iter(range(100))
    monkeypatch.setattr(Team, "any", lambda self, wish: next(calls) == stop_at - 1)
    stopped = train(0, job(tmp_path, shapes))
    assert stopped.step == stop_at and not stopped.ended
    monkeypatch.undo()
    assert train(0, job(tmp_path, shapes)).ended
    expected, found = state(whole), state(tmp_path)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert train(0, job(tmp_path, shapes)).ended, "an ended run ends again at once"


@pytest.mark.parametrize("name", ["paper", "paper-deim", "small"])
def test_every_recipe_resumes_exactly(name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(recipe_for(name, "l"), batch=2, evaluations=1)
    train(0, job(tmp_path / "whole", shapes, config=config, total=4))
    calls = iter(range(100))
    monkeypatch.setattr(Team, "any", lambda self, wish: next(calls) == 1)
    assert train(0, job(tmp_path / "parts", shapes, config=config, total=4)).step == 2
    monkeypatch.undo()
    train(0, job(tmp_path / "parts", shapes, config=config, total=4))
    expected, found = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []


def test_two_processes_train_like_one(whole: Path, shapes: Path, tmp_path: Path) -> None:
    """The same losses with the same global batch; sums in another order differ in the last digits."""
    spawn(train, (job(tmp_path, shapes, processes=2),), 2)
    one, two = rows(whole), rows(tmp_path)
    for expected, found in zip(one, two, strict=True):
        assert found["total"] == pytest.approx(expected["total"], rel=2e-3)
        assert found["norm"] == pytest.approx(expected["norm"], rel=2e-2)
    assert two[0]["total"] == pytest.approx(one[0]["total"], rel=1e-5)


def test_a_process_without_any_object_does_not_hang(shapes: Path, tmp_path: Path) -> None:
    """Every second sample goes to the second process; here those pictures are empty. Then one goes on alone."""
    base = job(tmp_path, shapes, total=2)
    pictures = list(base.train.pictures)
    empty = [p.keep(np.zeros(len(p.labels), bool)) for p in pictures]
    never = replace(base.config.schedule, strong_from=1, mosaic_until=1, flat_until=1, strong_until=1)
    plain = replace(base.config, schedule=never)
    places = [picture_of(0, number, len(pictures)) for number in range(8)]
    for number, place in enumerate(places):
        if number % 2:
            pictures[place] = empty[place]
    mixed = replace(base, config=plain, train=replace(base.train, pictures=tuple(pictures)), processes=2)
    spawn(train, (mixed,), 2)
    assert len(rows(tmp_path)) == 1
    alone = replace(mixed, folder=tmp_path / "one", processes=1)
    train(0, alone)
    assert rows(tmp_path)[0]["total"] == pytest.approx(rows(tmp_path / "one")[0]["total"], rel=1e-4)


def test_another_number_of_processes_goes_on(
    shapes: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    monkeypatch.setattr(Team, "any", lambda self, wish: next(calls) == 3)
    assert train(0, job(tmp_path, shapes)).step == 4
    monkeypatch.undo()
    spawn(train, (job(tmp_path, shapes, processes=2),), 2)
    assert rows(tmp_path)[-1]["step"] == 8
    assert rows(tmp_path)[-1]["total"] == pytest.approx(rows(whole)[-1]["total"], rel=2e-3)


def test_other_options_are_refused(whole: Path, shapes: Path) -> None:
    changed = job(whole, shapes, config=replace(finetune("tiny"), batch=8, evaluations=1))
    with pytest.raises(UsageError, match=r"started otherwise \(config.batch: 8, was 4\); give the same options"):
        train(0, changed)


def test_a_polite_kill_saves_and_leaves(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Run.step

    def killed_in_step_two(self: Run, batch: Any) -> None:
        step(self, batch)
        if batch.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "step", killed_in_step_two)
    outcome = train(0, job(tmp_path, shapes))
    assert outcome.interrupted and outcome.step == 3
    assert Checkpoints(tmp_path / "checkpoints").load().step == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and threading.active_count() < 20


def test_time_is_kept(shapes: Path, tmp_path: Path) -> None:
    outcome = train(0, job(tmp_path, shapes, minutes=0.0))
    assert outcome.step == 1 and not outcome.interrupted, "one step at least, or nothing would ever be done"


def poisoned(bad: range) -> Any:
    """Run.losses with gradients that are not finite for batches with a sample of these numbers."""
    losses = Run.losses

    def call(self: Run, batch: Any) -> dict[str, torch.Tensor]:
        found = losses(self, batch)
        if any(int(key) in bad for key in batch.keys):
            for parameter in self.guard.parameters:
                if parameter.grad is not None:
                    parameter.grad *= float("nan")
        return found

    return call


def test_bad_gradients_leave_no_trace_and_many_end_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the samples: back once, at half the rate, then no further."""
    monkeypatch.setattr(Run, "losses", poisoned(range(10**6)))
    with pytest.raises(TrainingDiverged, match=r"12 of the last steps before step 12 .* again after going back once"):
        train(0, job(tmp_path, shapes, total=30, log_every=12, save_every=100))
    assert Checkpoints(tmp_path / "checkpoints").last() is None
    assert [row["back_to"] for row in rows(tmp_path, "setback")] == [0]
    report = json.loads((tmp_path / "diverged" / "report.json").read_text())
    assert report["step"] == 0 and report["first_layer_not_finite"] is None and report["terms_not_finite"] == []
    assert [sample["number"] for sample in report["samples"]] == [48, 49, 50, 51], "those of step 12, as 0-11 are left"
    assert report["samples"][0]["picture"].endswith(".png")
    assert len(list((tmp_path / "diverged").glob("picture-*.png"))) == 4

    run = Run(job(tmp_path / "other", shapes), Team())
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    averages = {name: value.clone() for name, value in run.ema.tensors().items()}
    run.step(next(run.batches(0)))
    after = run.model.state_dict()
    changed = [n for n in before if not torch.equal(before[n], after[n]) and "num_batches" not in n]
    changed += [n for n, v in run.ema.tensors().items() if not torch.equal(v, averages[n]) and "num_batches" not in n]
    assert changed == [] and int(run.guard.skipped) == 1 and int(run.first_bad) == 0


def test_samples_at_fault_are_left_out_after_a_setback(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of steps 8 to 19; the checkpoint of step 15 lies among them and is finite, as none of them was made."""
    monkeypatch.setattr(Run, "losses", poisoned(range(8 * 4, 20 * 4)))
    seen: list[tuple[int, int]] = []
    step = Run.step

    def noted(self: Run, batch: Any) -> None:
        seen.append((batch.step, int(batch.keys[0]) // 4))
        step(self, batch)

    monkeypatch.setattr(Run, "step", noted)
    outcome = train(0, job(tmp_path, shapes, total=24, save_every=5))
    assert outcome.ended and outcome.step == 24
    assert seen == [(s, s) for s in range(20)] + [(s, s + 12) for s in range(15, 24)]
    setback = read_setback(tmp_path)
    assert setback is not None and setback.left_out == range(8, 20)
    assert rows(tmp_path, "setback")[0]["back_to"] == 15
    last = rows(tmp_path)[-1]
    schedule, _ = job(tmp_path, shapes).config.schedule.resolve(24)
    base = 2.5e-5 * (4 / 64) ** 0.5  # of the backbone, the first group
    assert last["skipped"] == 0 and last["lr"] == pytest.approx(0.5 * base * schedule.factor(23))


def test_a_state_that_is_not_finite_is_a_setback_and_its_layer_is_found(shapes: Path, tmp_path: Path) -> None:
    run = Run(job(tmp_path, shapes), Team())
    run.check_finite(4)
    assert first_odd_layer(run.model, next(run.batches(0)), run.noise, run.loss) == (None, [])
    with torch.no_grad():
        next(run.model.backbone.stages[2].parameters()).fill_(float("inf"))
    with pytest.raises(NotFinite, match="the weights at step 4 are not finite") as caught:
        run.check_finite(4)
    assert (caught.value.first, caught.value.until) == (0, 4)
    layer, terms = first_odd_layer(run.model, next(run.batches(0)), run.noise, run.loss)
    assert layer is not None and layer.startswith("backbone.stages.2.") and {"class", "total"} <= set(terms)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_give_the_losses_and_gradients_of_the_whole(parts: int, shapes: Path, tmp_path: Path) -> None:
    """With batch statistics held, as they are those of a part otherwise. Three pictures of four have objects."""
    found = []
    for accumulate in (1, parts):
        run = Run(job(tmp_path, shapes, accumulate=accumulate), Team())
        for module in run.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        losses = run.losses(next(run.batches(0)))
        found.append((losses, {n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}))
    (whole, gradients), (in_parts, summed) = found
    for name, value in whole.items():
        assert in_parts[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-7), name
    assert gradients.keys() == summed.keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-3, atol=1e-6 * largest, msg=name)


def test_parts_count_each_picture_once_in_the_batch_statistics(shapes: Path, tmp_path: Path) -> None:
    run = Run(job(tmp_path, shapes, accumulate=2), Team())
    run.losses(next(run.batches(0)))
    counters = [v for n, v in run.model.named_buffers() if n.endswith("num_batches_tracked")]
    assert counters and all(int(counter) == 2 for counter in counters)


def test_patience_ends_a_run_that_gets_no_better(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {2: 0.3, 4: 0.4, 6: 0.4, 8: 0.1}
    monkeypatch.setattr(Run, "judge", lambda self, step, progress: (figures[step], {"best_average": 0}))
    config = replace(finetune("tiny"), batch=4, evaluations=6)
    patient = job(tmp_path, shapes, config=config, total=12, patience=2)
    outcome = train(0, patient)
    assert outcome.step == 8 and outcome.in_vain and outcome.ended and not outcome.interrupted
    assert best_model(patient)[1] == 4
    again = train(0, patient)
    assert again.step == 8 and again.ended, "started again it ends at once"
    figures |= {10: 0.5, 12: 0.2}
    assert train(0, replace(patient, patience=None)).step == 12


def test_frozen_parts_stay(shapes: Path, tmp_path: Path) -> None:
    config = replace(recipe_for("paper", "l"), batch=2, evaluations=1)
    run = Run(job(tmp_path, shapes, config=config, total=2), Team())
    names = {name for group in run.groups for name in group.parameters}
    assert not any(n.startswith(("backbone.stem.", "backbone.stages.0.", "backbone.stages.1.")) for n in names)
    assert any(n.startswith("backbone.stages.2.") for n in names)
    norms = [m for m in run.model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)


def test_judging_agrees_with_the_detector_that_users_get(whole: Path, shapes: Path, tmp_path: Path) -> None:
    data = job(whole, shapes)
    model, step = best_model(data)
    assert step == 8
    mine = detect_pictures(model, data.tune)
    info = WeightsInfo(
        name="tiny", config=model.config, class_names=data.train.class_names, category_ids=data.train.category_ids,
        input_hw=(96, 96),
    )  # fmt: skip
    save_weights(tmp_path / "tiny.safetensors", model, info, storage="fp32")
    with Detector.load(tmp_path / "tiny.safetensors", backend="torch-cpu") as detector:
        theirs = detect_all(detector, coco_set_of(data.tune))
    assert len(mine) == len(theirs)
    assert [r.category_id for r in mine[:20]] == [r.category_id for r in theirs[:20]]
    np.testing.assert_allclose([r.score for r in mine], [r.score for r in theirs], atol=1e-4)


def test_progress_without_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(10, 0) as progress:
        progress.step(5)
        progress.report(5, 1.5, 2.0, 60.0)
        progress.judged(10, 0.25, 0.5)
        progress.report(10, 1.25, 2.0, 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 5 of 10  loss 1.500  2.0 pictures/s  1 min left",
        "step 10 of 10  AP 25.0, AP50 50.0 on the tune split",
        "step 10 of 10  loss 1.250  2.0 pictures/s  AP 25.0  0 min left",
    ]
