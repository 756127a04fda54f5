"""`ledetr detect --track` as it is typed: ids in the lists, counts at zones, and what it refuses."""

import json
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from ledetr.backends.base import BackendInfo
from ledetr.chain.pipeline import Pipeline
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.sources import parse_source
from ledetr.chain.video import process_video
from ledetr.cli import detect as detect_module
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr.detector import Detector
from ledetr.errors import UsageError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.tracking import Tracking

FRAMES = 20


class WalkerDetector(Detector):
    """A person who walks 4 px a frame to the right and is not seen in frames 8 to 11, and a dog that sits."""

    model_id = "n"
    class_names = COCO_NAMES
    category_ids = COCO_CATEGORY_IDS
    score_threshold = 0.37
    random_weights = False
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self) -> None:
        self.frame = 0

    def __exit__(self, *_: object) -> None:
        return

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        x = 10 + 4 * (self.frame % FRAMES)
        boxes, scores, labels = [[x, 10, x + 20, 60], [100, 50, 120, 62]], [0.9, 0.5], [0, 16]
        if 8 <= self.frame % FRAMES < 12:
            boxes, scores, labels = boxes[1:], scores[1:], labels[1:]
        self.frame += 1
        found = Detections(
            np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels),
            class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS,
        )  # fmt: skip
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)


@pytest.fixture(autouse=True)
def _detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detect_module.Detector, "load", lambda *_, **__: WalkerDetector())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """20 frames of 128x64, ten a second."""
    path = tmp_path / "walk.mp4"
    writer = VideoWriter(path, width=128, height=64, time_base=Fraction(1, 10))
    for pts in range(FRAMES):
        writer.write(np.full((64, 128, 3), 90, np.uint8), pts)
    writer.finish()
    return path


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    path = tmp_path / "zones.json"
    path.write_text(
        json.dumps(
            {
                "zones": [{"name": "right half", "points": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}],
                "lines": [{"name": "gate", "start": [0.3, 1], "end": [0.3, 0]}],
            }
        )
    )
    return path


def frames_in(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["frames"]


def ids_of(name: str, frames: list[dict[str, Any]]) -> list[int]:
    return [row["tracker_id"] for frame in frames for row in frame["detections"] if row["class_name"] == name]


def test_ids_stay_through_a_gap_and_are_in_all_lists(video: Path) -> None:
    assert (
        main(["detect", str(video), "-q", "-o", "o.mp4", "--track", "--save-json", "o.json", "--save-mot", "o.txt"])
        == 0
    )
    frames = frames_in(Path("o.json"))
    assert ids_of("person", frames) == [1] * 16 and ids_of("dog", frames) == [2] * 20
    rows = [line.split(",") for line in Path("o.txt").read_text().splitlines()]
    assert len(rows) == 36 and rows[0] == ["1", "1", "10.00", "10.00", "20.00", "50.00", "0.9000", "1", "-1"]
    assert [int(row[0]) for row in rows if row[1] == "1"] == [*range(1, 9), *range(13, 21)]
    with av.open("o.mp4") as container:
        last = list(container.decode(video=0))[-1].to_ndarray(format="rgb24")
    assert last[60, 60:75].std() > 5  # the trail behind the walker


def test_the_buffer_is_seconds_and_each_source_begins_at_one(video: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    again.write_bytes(video.read_bytes())
    (tmp_path / "lists").mkdir()
    flags = ["--track", "--track-buffer", "0.3", "--save-json", "lists"]
    assert main(["detect", str(video), str(again), "-q", *flags]) == 0
    for name in ("walk.json", "again.json"):
        # Seen for the first time after the gap is not enough for a new id, so one box has none.
        assert ids_of("person", frames_in(tmp_path / "lists" / name)) == [1] * 8 + [None] + [3] * 7


def test_zones_and_lines_are_counted_and_drawn(video: Path, zones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(video), "-q", "--json", "-o", "o.mp4", "--track", "--zones", str(zones)]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["tracks"] == 2
    zone, line = result["zones"]
    # The middle of the feet is at x = 20 + 4 i; 64 is passed with frame 12, 38.4 with frame 5.
    assert (zone["in"], zone["out"], zone["now"], zone["visits"]) == ({"person": 1}, {}, {"person": 1, "dog": 1}, 2)
    assert zone["dwell_max_s"] == 1.9 and zone["dwell_mean_s"] == pytest.approx((1.9 + 0.7) / 2)
    assert (line["in"], line["out"]) == ({"person": 1}, {})
    with av.open("o.mp4") as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert (first[40:60, 126:].max(axis=1) > 200).any()  # the white rim of the zone


def test_the_summary_says_tracks_and_counts(video: Path, zones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(video), "-q", "--save-csv", "o.csv", "--track", "--zones", str(zones)]) == 0
    said = capsys.readouterr().out
    assert "  2 tracks\n" in said and "line gate: in 1 person, out 0" in said
    assert "zone right half: in 1 person, out 0; at the end 1 person + 1 dog; 2 visits of 1.3 s, at most 1.9 s" in said


def test_a_stream_is_tracked_as_a_video_is(zones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "test:128x64p10?frames=20&live=0"
    flags = ["--every-frame", "--track", "--zones", str(zones), "--save-json", "o.json"]
    assert main(["detect", source, "-q", "--json", "-o", "o.mp4", *flags]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["tracks"] == 2 and result["zones"][1]["in"] == {"person": 1}
    assert ids_of("person", frames_in(Path("o.json"))) == [1] * 16


def test_without_track_there_are_no_ids(video: Path) -> None:
    assert main(["detect", str(video), "-q", "--save-json", "o.json"]) == 0
    assert all("tracker_id" not in row for frame in frames_in(Path("o.json")) for row in frame["detections"])


@pytest.mark.parametrize(
    ("flags", "words", "code"),
    [
        (["--save-mot", "o.txt"], "--save-mot is about tracks; add --track.", 2),
        (["--track-buffer", "1"], "--track-buffer is about tracks; add --track.", 2),
        (["--zones", "zones.json"], "--zones is about tracks; add --track.", 2),
        (["--track", "--zones", "missing.json"], "The zones cannot be read from missing.json: No such file", 2),
        (["--track", "--resume"], "leave out --resume or --track.", 2),
        (["--track", "--track-buffer", "-1"], "--track-buffer", 2),
    ],
)
def test_what_cannot_work_is_one_sentence(
    video: Path, zones: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str, code: int
) -> None:
    assert main(["detect", str(video), "-q", "-o", "o.mp4", *flags]) == code
    assert words in capsys.readouterr().err
    assert not Path("o.mp4").exists()


def test_pictures_are_not_tracked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert main(["detect", "a.png", "-q", "-o", "b.png", "--track"]) == 2
    assert "--track needs a video or a stream" in capsys.readouterr().err


def test_a_program_cannot_resume_with_ids_either(video: Path) -> None:
    with pytest.raises(UsageError, match="Ids cannot be taken over"):
        process_video(video, Path("o.mp4"), WalkerDetector(), tracking=Tracking(), resume=True)
    assert not list(Path().glob("o*"))


def test_the_pipeline_gives_ids_and_begins_anew_when_asked() -> None:
    """Tracking set while it is open: ids from 1 each time, none after None."""
    got = threading.Event()
    with Pipeline(WalkerDetector(), policy="every", tracking=Tracking(), on_result=got.set) as pipeline:
        pipeline.open(parse_source("test:128x64p10?frames=20&live=0"), paused=True)
        assert got.wait(10) and pipeline.latest().detections.tracker_id.tolist() == [1, 2]
        for tracking, expected in ((Tracking(), [1, 2]), (None, None)):
            got.clear()
            pipeline.set_tracking(tracking)
            assert got.wait(10)
            ids = pipeline.latest().detections.tracker_id
            assert (None if ids is None else ids.tolist()) == expected
