"""Sources that are no files, given back as a video: what is written, and what an early end leaves."""

import json
from pathlib import Path
from typing import Any

import av
import pytest

from ledetr.chain.sources import ArraysSpec, TestPatternSpec
from ledetr.chain.stream_out import process_stream
from ledetr.errors import LeDetrError, OutputError, SourceError

PATTERN = TestPatternSpec(width=64, height=48, frames=6, live=False)


def counted(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def failing_at(number: int, fake_detector: Any) -> Any:
    """Fails on that picture, counted from 1."""
    detector = fake_detector()

    def work() -> None:
        if len(detector.seen) + 1 == number:
            raise LeDetrError("The engine broke.")

    detector.work = work
    return detector


def test_every_picture_is_in_the_video_and_in_the_list(tmp_path: Path, fake_detector: Any) -> None:
    side = {"json": tmp_path / "out.json"}
    report = process_stream(PATTERN, tmp_path / "out.mp4", fake_detector(), side_files=side)
    assert report.path == tmp_path / "out.mp4" and report.frames == counted(report.path) == 6
    frames = json.loads((tmp_path / "out.json").read_text())["frames"]
    assert [frame["pts_s"] for frame in frames] == [round(i / 30, 6) for i in range(6)]


def test_an_error_says_what_is_kept(tmp_path: Path, fake_detector: Any) -> None:
    with pytest.raises(LeDetrError) as caught:
        process_stream(
            PATTERN,
            tmp_path / "out.mp4",
            failing_at(4, fake_detector),
            side_files={"jsonl": tmp_path / "out.jsonl"},
        )
    video, lines = tmp_path / "out.partial.mp4", tmp_path / "out.partial.jsonl"
    assert str(caught.value) == f"The engine broke; 3 pictures are kept in {video} and {lines}."
    assert counted(video) == len(lines.read_text().splitlines()) == 3
    assert set(tmp_path.iterdir()) == {video, lines}


def test_an_error_before_the_first_picture_leaves_nothing(tmp_path: Path, fake_detector: Any) -> None:
    side = {"json": tmp_path / "out.json"}
    with pytest.raises(LeDetrError, match=r"^The engine broke\.$"):
        process_stream(PATTERN, tmp_path / "out.mp4", failing_at(1, fake_detector), side_files=side)
    with pytest.raises(SourceError, match="no arrays"):
        process_stream(ArraysSpec([]), tmp_path / "out.mp4", fake_detector(), side_files=side)
    assert list(tmp_path.iterdir()) == []


def test_the_first_cause_stays_where_nothing_can_be_kept(
    tmp_path: Path, fake_detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(part: Path, target: Path) -> Path:
        raise OutputError("The disk is gone.")

    monkeypatch.setattr("ledetr.chain.recorder.keep_partial", refuse)
    with pytest.raises(LeDetrError, match=r"^The engine broke; what .* part file \(The disk is gone\.\)\.$"):
        process_stream(PATTERN, tmp_path / "out.mp4", failing_at(3, fake_detector))
