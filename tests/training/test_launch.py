"""Runs that torchrun started, and runs that are told to stop from outside; each in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model
from ledetr.weights import WeightsInfo, save_weights
from training.checkpoint import Checkpoints
from training.data.shapes import write_shapes
from training.train import main

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network that knows three classes."""
    torch.manual_seed(0)
    config = ledetr_tiny(3)
    info = WeightsInfo(
        name="tiny",
        config=config,
        class_names=("circle", "square", "triangle"),
        category_ids=(1, 2, 3),
        input_hw=config.input_hw,
    )
    path = tmp_path_factory.mktemp("start") / "tiny.safetensors"
    save_weights(path, build_model(config), info)
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "steps"]


@pytest.mark.timeout(900)  # three interpreters start, each with torch
def test_two_processes_of_torchrun_have_the_losses_of_one_and_speak_once(start: Path, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "set", "coco", 24)
    words = [str(data), "-m", str(start), "--device", "cpu", "--batch", "8", "--steps", "3", "--threads", "1"]
    words += ["--log-every", "1", "--evaluations", "1"]
    main([*words, "-o", str(tmp_path / "one"), "-q"])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "training.train", *words, "-o", str(tmp_path / "two")],
        env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2, 3]
    for expected, found in zip(one, two, strict=True):
        assert found["total"] == pytest.approx(expected["total"], rel=1e-5 if found["step"] == 1 else 2e-3)
    assert done.stdout.splitlines() == [str(tmp_path / "two" / "ledetr_tiny.safetensors")]
    for sentence in ("pictures to learn from", "rest no decay", "recipe finetune: 3 steps of 8 pictures", "AP50"):
        assert done.stderr.count(sentence) == 1, done.stderr


@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be answered")
def test_a_polite_kill_of_ledetr_train_stops_all_its_processes(start: Path, tmp_path: Path) -> None:
    """The pipe has an end only when every process that holds it is gone."""
    data = write_shapes(tmp_path / "set", "coco", 24)
    words = ["train", str(data), "-m", str(start), "-o", str(tmp_path / "run"), "--device", "cpu", "--batch", "4"]
    words += ["--threads", "1", "--processes", "2", "--log-every", "1", "--evaluations", "1", "-q"]
    with subprocess.Popen(
        [sys.executable, "-m", "ledetr.cli.main", *words],
        env=ENVIRONMENT, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        log = tmp_path / "run" / "log.jsonl"
        try:
            while not log.is_file() or '"steps"' not in log.read_text():
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            process.terminate()
            stdout, stderr = process.communicate(timeout=600)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    step = Checkpoints(tmp_path / "run" / "checkpoints").load().step
    assert process.returncode == 130 and stdout == "" and 0 < step < 3000
    assert stderr == f"ledetr: stopped at step {step} of 3000; the same command goes on from there\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be answered")
def test_a_command_that_does_not_answer_a_polite_kill_ends_by_it(tmp_path: Path) -> None:
    """What labels knows nothing worth saving; its end is told as a shell tells it, 128 and the signal."""
    (tmp_path / "endless.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(800)\n")
    code = "import sys; from ledetr.cli import training; sys.exit(training.call_training('endless', []))"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(250) == 128 + signal.SIGTERM
        assert process.stdout.read() == "", "the child is gone too"
