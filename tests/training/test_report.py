"""The page about a run: what its log and folder say, whatever stopped the run; and its weights evaluated."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ledetr.errors import SourceError, UsageError, WeightsError
from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo
from training import report
from training.recipes import recipe_for
from training.run_log import read_log

NAMES = ["circle", "<b>square</b>"]


def start_row(**changes: Any) -> dict[str, Any]:
    config = recipe_for("finetune", "n").to_dict()
    return {"event": "start", "total": 300, "config": {**config, **changes}, "class_names": NAMES, "version": "0.1"}


def steps_row(step: int, loss: float | None) -> dict[str, Any]:
    figures = {"total": loss, "l1": 0.5, "denoising_l1": 0.25, "norm": 3.0, "lr": 1e-4, "pictures_per_s": 10.0 + step}
    return {"event": "steps", "step": step, "steps": 50, **figures, "skipped": 1, "left_out": 2}


def judged_row(step: int, decay: float, ap: float) -> dict[str, Any]:
    return {"event": "judged", "step": step, "decay": decay, "ap": ap, "ap50": 2 * ap, "ap_large": None}


def write_run(folder: Path, rows: list[dict[str, Any] | str]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [
        row if isinstance(row, str) else json.dumps({"time": f"2026-01-01T00:{number:02d}:00", **row})
        for number, row in enumerate(rows)
    ]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Stopped twice: once by a kill that cut a line, so that steps up to 200 were made again from 100 on."""
    rows: list[dict[str, Any] | str] = [
        start_row(batch=8),
        steps_row(50, 9.0),
        steps_row(100, 8.0),
        judged_row(100, 0.9, 0.1),
        judged_row(100, 0.99, 0.2),
        steps_row(150, 7.0),
        steps_row(200, 6.0),
        '{"event": "steps", "step": 2',
        {"event": "resume", "step": 100},
        steps_row(150, 7.5),
        steps_row(200, None),
        judged_row(200, 0.9, 0.3),
        judged_row(200, 0.99, 0.25),
    ]
    return write_run(tmp_path / "run", rows)


def test_steps_that_were_made_again_count_once(run: Path) -> None:
    log = read_log(run)
    assert [(row["step"], row["total"]) for row in log.steps] == [(50, 9.0), (100, 8.0), (150, 7.5), (200, None)]
    assert [(row["step"], row["ap"]) for row in log.judged] == [(100, 0.1), (100, 0.2), (200, 0.3), (200, 0.25)]
    assert (log.total, log.done, log.resumes, log.unreadable) == (300, 200, [100], 1)
    assert log.losses() == ["total", "denoising_l1", "l1"] and log.decays() == [0.9, 0.99]
    best = log.best()
    assert best is not None and (best["step"], best["decay"]) == (200, 0.9)


def test_going_back_after_a_setback_drops_what_was_in_vain(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        start_row(),
        steps_row(50, 9.0),
        steps_row(100, 99.0),
        {"event": "setback", "back_to": 50, "reason": "<i>not finite</i>"},
        steps_row(100, 8.0),
    ]
    log = read_log(write_run(tmp_path / "run", rows))
    assert [row["total"] for row in log.steps] == [9.0, 8.0]
    assert [row["back_to"] for row in log.setbacks] == [50]


def test_the_page_of_a_run(run: Path, structure_of: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    check = {
        "pictures": 23,
        "boxes": 35,
        "classes": [{"name": NAMES[1], "boxes": 9, "pictures": 8}],
        "problems": [{"level": "warning", "kind": "tiny box", "text": "a box is <tiny>"}, {"level": "note"}],
    }
    (run / "check.json").write_text(json.dumps(check))
    Image.new("RGB", (64, 32), "red").save(run / "contact_sheet.png")
    report.main([str(run)])
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    structure = structure_of((run / "report.html").read_text("utf-8"))
    assert structure.seen.count("h2") == 5 and structure.seen.count("img") == 1
    text = " ".join(structure.text.split())
    assert "batch 8 16" in text, "this run's value and the recipe's"
    assert "a box is <tiny>" in text and NAMES[1] in text and "1 warnings and errors" in text
    assert "went on after a stop at step 100" in text and "1 lines of the log are cut" in text
    assert "30.0 best AP on the tune split" in text and "135.0 pictures/s, median" in text
    assert structure.seen.count("polyline") == 1 + 3 + 2 + 4, "throughput, losses, norm and rate, AP of two averages"


def test_a_recipe_as_it_stands_has_no_differences(tmp_path: Path, structure_of: Callable[[str], Any]) -> None:
    run = write_run(tmp_path / "run", [start_row()])
    report.main([str(run), "-o", str(tmp_path / "x" / "page.html")])
    text = structure_of((tmp_path / "x" / "page.html").read_text("utf-8")).text
    assert "with every value as it stands" in text and "Nothing was logged yet" in text and "not judged yet" in text


def test_a_recipe_of_another_version_is_said_to_be_unknown(tmp_path: Path, structure_of: Callable[[str], Any]) -> None:
    run = write_run(tmp_path / "run", [start_row(recipe="<old>")])
    report.main([str(run)])
    assert "Recipe <old>, which this version does not know" in structure_of((run / "report.html").read_text()).text


def test_long_curves_are_thinned_to_means() -> None:
    x, y = report._thinned(list(range(2000)), [1.0, 3.0, float("nan")] * 666 + [5.0, 5.0])
    assert len(x) == len(y) == 667
    assert (x[0], y[0]) == (1.0, 2.0) and (x[-1], y[-1]) == (1998.5, 5.0)


@pytest.mark.parametrize(
    "text", [None, "", "[]\n{}\n", '{"event": "start", "total": "many", "config": {}}\n', "\xff\n"]
)
def test_what_is_no_run(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text, encoding="latin-1")
    words = "cannot be read" if text is None else "does not tell of the start of a run"
    with pytest.raises(SourceError, match=words):
        report.main([str(tmp_path)])
    assert not (tmp_path / "report.html").exists()


def test_without_weights_there_is_nothing_to_evaluate(run: Path) -> None:
    (run / "set.json").write_text('{"images": [], "categories": [], "annotations": []}')
    with pytest.raises(WeightsError, match="no weights file yet"):
        report.main([str(run), "--data", str(run / "set.json")])
    assert not (run / "report.html").exists()


def test_the_weights_of_the_run_are_evaluated(run: Path, structure_of: Callable[[str], Any]) -> None:
    config = ledetr_tiny()
    config = replace(config, decoder=replace(config.decoder, classes=2))
    torch.manual_seed(0)
    info = WeightsInfo(
        name="tiny", config=config, class_names=("circle", "square"), category_ids=(1, 2), input_hw=config.input_hw,
        score_threshold=0.001, trained_on="toy pictures",
    )  # fmt: skip
    save_weights(run / "ledetr_tiny.safetensors", build_model(config).eval(), info)
    (run / "set").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(run / "set" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "circle"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 40, 40]}],
    }
    (run / "set.json").write_text(json.dumps(content))
    report.main([str(run), "--data", str(run / "set.json"), "-q"])
    text = structure_of((run / "report.html").read_text("utf-8")).text
    for expected in ("Worst pictures", "toy pictures", "training.report", "ms a picture, median"):
        assert expected in text


def test_event_files_need_tensorboard(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        report.main([str(run), "--tensorboard", str(run / "events")])
    assert not (run / "report.html").exists()


def test_every_number_goes_to_tensorboard(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A writer in its place notes what it is given: name, value, step and the time of the row."""
    given: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(run / "events")

        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def add_scalar(self, *values: Any) -> None:
            given.append(values)

    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    report.main([str(run), "--tensorboard", str(run / "events")])
    values = {(name, step): value for name, value, step, _ in given}
    assert values["train/total", 150] == 7.5 and ("train/total", 200) not in values
    assert values["tune_0.9/ap", 200] == 0.3
    times = [time for name, _, _, time in given if name == "train/lr"]
    assert times[1] - times[0] == 60.0
    assert f"{len(given)} values written" in capsys.readouterr().err
