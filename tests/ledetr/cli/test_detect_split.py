"""`ledetr detect --split`: through the real command line."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.backends.base import BackendInfo
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr.detector import Detector


class FindsNothing:
    model_id, random_weights, score_threshold = "n", False, 0.5
    class_names, category_ids = ("thing",), (1,)
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def detect_frame(self, rgb: np.ndarray, **_: Any) -> Any:
        from types import SimpleNamespace

        return Detections.empty(), SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def __enter__(self) -> "FindsNothing":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Detector, "load", classmethod(lambda *_, **__: FindsNothing()))
    monkeypatch.chdir(tmp_path)


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_stream_and_a_file_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["detect", "test:64x48p25?frames=60&live=0", "--split", "1s", "-o", "out.mp4", "--save-jsonl", "out.jsonl"]
    assert main(words) == 0
    assert "out_001.mp4, out_001.jsonl and 2 more parts" in capsys.readouterr().out
    assert [frames_of(tmp_path / f"out_00{number}.mp4") for number in (1, 2, 3)] == [25, 25, 10]
    assert [len(Path(f"out_00{number}.jsonl").read_text().splitlines()) for number in (1, 2, 3)] == [25, 25, 10]
    assert main(["detect", "out_001.mp4", "--split", "600MB", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["results"][0]
    assert row["parts"] == ["out_001_boxes_001.mp4"] and row["output"] == "out_001_boxes_001.mp4"
    assert frames_of(Path("out_001_boxes_001.mp4")) == 25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["test:bars", "--split", "soon"], "write for example 10m"),
        (["test:bars", "--split", "10m", "--resume"], "leave out --resume or --split"),
        (["test:bars", "--split", "10m", "--save-json", "a.json"], "gives none here"),
        (["a.png", "--split", "10m"], "gives none here"),
        (["folder/", "--split", "10m", "--jobs", "2"], "leave out --jobs"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
