"""`ledetr bench`: the shape of its document, and that models take turns."""

import json
from pathlib import Path

import numpy as np
import pytest

from ledetr.cli.bench import Series, measure
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr.detector import StageTimes


def test_the_document(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", str(tiny_weights), "--imgsz", "64,96", "--backend", "torch-cpu", "--threads", "1", "--json"]
    assert main([*words, "--runs", "3", "--warmup", "1", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert {"machine", "versions", "results", "schema_version"} <= set(document)
    assert document["versions"]["torch"] and document["machine"]["processor"]
    assert [row["imgsz"] for row in document["results"]] == [64, 96]
    for row in document["results"]:
        assert (row["model"], row["backend"], row["device"], row["precision"], row["batch"], row["runs"]) == (
            "ledetr_tiny", "torch-cpu", "cpu", "fp32", 1, 3,
        )  # fmt: skip
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["p95_ms"]
        assert row["frame_to_boxes_ms"] > row["min_ms"]
        assert row["params_m"] > 0 and row["gflops"] > 0 and row["random_weights"] is False
    assert document["results"][0]["gflops"] < document["results"][1]["gflops"]


class Turn:
    """A detector that only notes its turn."""

    def __init__(self, name: str, turns: list[str]) -> None:
        self.name, self.turns = name, turns

    def detect_frame(self, rgb: np.ndarray) -> tuple[Detections, StageTimes]:
        self.turns.append(self.name)
        return Detections.empty(), StageTimes(1.0, float(len(self.turns)), 1.0)


def test_models_take_turns_and_the_warm_up_is_forgotten() -> None:
    turns: list[str] = []
    both = [Series(Turn("a", turns)), Series(Turn("b", turns))]
    measure(both, runs=3, warmup=2)
    assert turns == ["a", "b"] * 5
    assert both[0].infer_ms == [5.0, 7.0, 9.0]
    assert len(both[1].frame_ms) == 3


@pytest.mark.parametrize(
    ("words", "exit_code", "sentence"),
    [
        (["--imgsz", "4x"], 2, "such as 416,640, got '4x'"),
        (["--models", ","], 2, "expected names or numbers"),
        (["--models", "nn"], 4, "unknown model 'nn'"),
        (["--models", "absent.safetensors"], 4, "absent.safetensors"),
    ],
)
def test_wrong_words(words: list[str], exit_code: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == exit_code
    out, err = capsys.readouterr()
    assert out == "" and sentence in err
