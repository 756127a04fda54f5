"""`ledetr detect` as it is typed: what it writes, what it says, and its exit codes."""

import json
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from ledetr.backends.base import BackendInfo
from ledetr.chain.recorder import VideoWriter
from ledetr.cli import detect as detect_module
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr.detector import Detector
from ledetr.errors import WeightsError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES


class FakeDetector(Detector):
    """Sees one person everywhere. loads: what was asked of Detector.load."""

    model_id = "n"
    class_names = COCO_NAMES
    category_ids = COCO_CATEGORY_IDS
    score_threshold = 0.37
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self, loads: list[dict[str, Any]]) -> None:
        self.loads = loads
        self.random_weights = False
        self.frames = 0
        self.at_frame: Callable[[int], None] = lambda number: None

    def load(self, model: str, **options: Any) -> "FakeDetector":
        self.loads.append({"model": model, **options})
        self.random_weights = options["random_weights"]
        return self

    def __enter__(self) -> "FakeDetector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        self.at_frame(self.frames)
        self.frames += 1
        found = Detections(
            np.array([[5, 5, 40, 40], [8, 8, 50, 45]], np.float32),
            np.array([0.9, 0.38], np.float32),
            np.array([0, 16]),
            class_names=COCO_NAMES,
            category_ids=COCO_CATEGORY_IDS,
        )
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDetector:
    fake = FakeDetector([])
    monkeypatch.setattr(detect_module, "Detector", fake)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return a_video(tmp_path / "clip.mp4")


def a_video(path: Path, frames: int = 20) -> Path:
    writer = VideoWriter(path, width=64, height=48, time_base=Fraction(1, 25), rate=Fraction(25))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 5 * number % 250, np.uint8), number)
    return writer.finish()


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_and_its_json(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "clip.mp4", "-m", "n", "-o", "out.mp4", "--save-json", "out.json"]) == 0

    assert frames_of(tmp_path / "out.mp4") == 20
    document = json.loads((tmp_path / "out.json").read_text())
    assert len(document["frames"]) == 20 and document["source"] == "clip.mp4"
    out, err = capsys.readouterr()
    assert "20 pictures, 40 boxes (person 20, dog 20)" in out and "fps end to end" in out
    assert err == ""


def test_the_threshold_of_the_weights_holds_unless_another_is_given(video: Path, tmp_path: Path) -> None:
    main(["detect", "clip.mp4", "--save-json", "a.json", "-q"])
    main(["detect", "clip.mp4", "--save-json", "b.json", "-q", "--conf", "0.5"])
    boxes = [len(json.loads((tmp_path / n).read_text())["frames"][0]["detections"]) for n in ("a.json", "b.json")]
    assert boxes == [2, 1]


def test_without_a_name_the_result_lies_in_the_current_folder(video: Path, tmp_path: Path) -> None:
    assert main(["detect", "clip.mp4", "-q"]) == 0
    assert main(["detect", "clip.mp4", "-q"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "clip_boxes.mp4", "clip_boxes (2).mp4"}


def test_side_files_alone_write_no_video(video: Path, tmp_path: Path) -> None:
    assert main(["detect", "clip.mp4", "--save-csv", "out.csv", "--save-coco", "coco.json", "-q"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.csv", "coco.json"}


def test_json_is_one_document_and_nothing_else(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "clip.mp4", "-o", "out.mp4", "--json", "--classes", "Person"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1 and document["failed"] == []
    assert document["backend"]["name"] == "fake" and document["random_weights"] is False
    (result,) = document["results"]
    assert (result["frames"], result["boxes_by_class"], result["output"]) == (20, {"person": 20}, "out.mp4")
    assert result["fps_end_to_end"] > 0


def test_options_reach_the_detector(video: Path, detector: FakeDetector) -> None:
    main(["detect", "clip.mp4", "-q", "-m", "x.safetensors", "--device", "cpu", "--backend", "onnx", "--imgsz", "416"])
    assert detector.loads == [
        {"model": "x.safetensors", "backend": "onnx", "device": "cpu", "precision": "auto", "imgsz": 416,
         "random_weights": False}
    ]  # fmt: skip


def test_random_weights_are_said_everywhere(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["detect", "clip.mp4", "--random-weights", "--save-json", "out.json", "-q"])
    assert "RANDOM WEIGHTS" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["random_weights"] is True


def test_parts_of_a_video(video: Path, tmp_path: Path) -> None:
    assert main(["detect", "clip.mp4", "-o", "a.mp4", "--start", "0.2", "--end", "0:00.6", "-q"]) == 0
    assert main(["detect", "clip.mp4", "-o", "b.mp4", "--max-frames", "3", "--stride", "2", "-q"]) == 0
    assert (frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4")) == (10, 3)


def test_a_folder_of_pictures_and_a_picture(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / "in" / name)
    assert main(["detect", "in", "-o", "out", "-q"]) == 0
    assert main(["detect", "in/1.png", "-q"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "2.png"]
    assert (tmp_path / "1_boxes.png").exists()


def test_several_sources_go_into_a_folder(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        a_video(tmp_path / name)
    (tmp_path / "lists").mkdir()
    assert main(["detect", "a.mp4", "b.mp4", "-o", "out/", "--save-jsonl", "lists", "-q"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_boxes.mp4", "b_boxes.mp4"]
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["a.jsonl", "b.jsonl"]


def test_a_test_pattern_is_a_source(tmp_path: Path) -> None:
    assert main(["detect", "test:64x48p25?live=0&frames=8", "-o", "out.mp4", "-q"]) == 0
    assert frames_of(tmp_path / "out.mp4") == 8


def test_one_bad_source_among_others_is_exit_6(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("hello\n" * 20)
    assert main(["detect", "text.mp4", "clip.mp4", "nope.mp4", "-o", "out", "--json"]) == 6
    out, err = capsys.readouterr()
    assert [row["source"] for row in json.loads(out)["failed"]] == ["text.mp4", "nope.mp4"]
    assert err.count("\n") == 1 and "text.mp4" in err and "nope.mp4" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip_boxes.mp4"]


BAD = {
    "missing source": (["nope.mp4"], 3, "no such file"),
    "text as a video": (["text.mp4"], 3, "it holds text"),
    "empty file": (["empty.mp4"], 3, "is empty"),
    "no pictures in the folder": (["void"], 3, "holds no pictures"),
    "unknown class": (["clip.mp4", "--classes", "person,dgo"], 2, "did you mean 'dog'?"),
    "no class": (["clip.mp4", "--classes", ","], 2, "names no class"),
    "folder under a file": (["pictures", "-o", "clip.mp4/out"], 1, "is a file, and a folder was expected"),
    "folder as its own target": (["pictures", "-o", "pictures"], 2, "among their own sources"),
    "source as target": (["clip.mp4", "-o", "clip.mp4", "--overwrite"], 2, "its own source"),
    "missing folder": (["clip.mp4", "-o", "nowhere/out.mp4"], 1, "does not exist"),
    "ending that is no video": (["clip.mp4", "-o", "out.doc"], 2, "what kind of video"),
    "codec and ending": (["clip.mp4", "-o", "out.webm", "--codec", "h264"], 2, "do not hold h264"),
    "one file for two": (["clip.mp4", "clip.mp4", "-o", "out.mp4"], 2, "give a folder"),
    "one JSON for two": (["clip.mp4", "clip.mp4", "--save-json", "a.json"], 2, "give a folder that exists"),
    "end before start": (["clip.mp4", "--start", "3", "--end", "2"], 2, "not after --start"),
    "no time": (["clip.mp4", "--start", "soon"], 2, "is no time"),
    "scheme": (["concat:a.mp4|b.mp4"], 3, "not opened"),
    "flag": (["clip.mp4", "--confidence", "1"], 2, "--conf"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_work_is_one_sentence_before_a_model_is_loaded(
    name: str, video: Path, tmp_path: Path, detector: FakeDetector, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, sentence = BAD[name]
    (tmp_path / "text.mp4").write_text("hello\n" * 20)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "void").mkdir()
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "1.png")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    assert main(["detect", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and sentence in err and "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert name == "unknown class" or detector.loads == []  # only the model knows its classes


def test_a_model_that_cannot_be_loaded_is_exit_4(video: Path, tmp_path: Path, detector: FakeDetector) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise WeightsError("no weights here")

    detector.load = refuse  # type: ignore[method-assign, assignment]
    assert main(["detect", "clip.mp4", "-o", "out.mp4"]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_a_partial_that_plays_and_exits_130(
    tmp_path: Path, detector: FakeDetector, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    a_video(tmp_path / "long.mp4", frames=300)
    handler = signal.getsignal(number)
    detector.at_frame = lambda frame: signal.raise_signal(number) if frame == 40 else None

    assert main(["detect", "long.mp4", "-o", "out.mp4", "--save-json", "out.json"]) == 130
    err = capsys.readouterr().err
    assert "Ctrl-C again" in err and "out.partial.mp4" in err and "Traceback" not in err
    kept = {"long.mp4", "out.partial.mp4", "out.partial.json", "out.mp4.job.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    frames = frames_of(tmp_path / "out.partial.mp4")
    assert 0 < frames < 300 and len(json.loads((tmp_path / "out.partial.json").read_text())["frames"]) == frames
    assert signal.getsignal(number) is handler


def test_progress_off_a_terminal_is_a_plain_line_now_and_then(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ledetr.cli.progress._SECONDS_BETWEEN_LINES", 0.0)
    assert main(["detect", "clip.mp4", "-o", "out.mp4"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20 and lines[9].startswith("clip.mp4: 10 of 20 pictures, ")
    assert "fps end to end" in lines[9] and lines[-1].endswith("0 s left")


def test_a_folder_that_refuses_is_one_sentence(
    video: Path, monkeypatch: pytest.MonkeyPatch, detector: FakeDetector, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    Path("in").mkdir()
    Image.new("RGB", (8, 8)).save("in/1.png")
    monkeypatch.setattr("ledetr.chain.output_files.os.open", refuse)
    for words in (["clip.mp4", "-o", "out.mp4"], ["in", "-o", "out"], ["in", "-o", "out/sub"]):
        assert main(["detect", *words]) == 1
        assert "not permitted" in capsys.readouterr().err and detector.loads == []
