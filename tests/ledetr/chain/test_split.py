"""Recordings in parts: whole files with names in order, and nothing lost or doubled where they meet."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.chain import split as module
from ledetr.chain.capture import CaptureConfig
from ledetr.chain.output_files import DiskWatch
from ledetr.chain.pipeline import Pipeline, RecordingEnded
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.sources import TestPatternSpec, VideoSpec
from ledetr.chain.split import Split, SplitWriter, parse_split, part_path
from ledetr.chain.stream_out import process_stream
from ledetr.chain.test_pattern import read_counter
from ledetr.chain.video import process_video
from ledetr.errors import OutputError, UsageError

# Steps of 20, 40 and 60 ms, so that a wrong place is a wrong time too.
STEPS = [256, 512, 768]


def level(number: int) -> int:
    return 20 + 37 * number % 210


def make_clip(path: Path, *, frames: int = 150, sound: bool = True) -> Path:
    times = np.concatenate([[0], np.cumsum([STEPS[i % 3] for i in range(frames - 1)])])
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=25, options={"bf": "3", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 12800)
        audio: Any = output.add_stream("aac", rate=48000, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level(number), np.uint8), "rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 12800)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        noise = np.random.default_rng(0)
        for start in range(0, 48000 * frames // 25 if sound else 0, 1024):
            block = av.AudioFrame.from_ndarray(noise.normal(0, 0.1, (1, 1024)).astype(np.float32), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            output.mux(audio.encode(block))
        if audio is not None:
            output.mux(audio.encode(None))
    return path


def pictures_of(path: Path) -> list[tuple[Fraction, int]]:
    with av.open(str(path)) as container:
        return [(f.pts * f.time_base, int(f.to_ndarray(format="gray")[40, 50])) for f in container.decode(video=0)]


def packets_of(path: Path) -> list[tuple[Fraction, str]]:
    """Time and hash of every packet of sound."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(p.pts * p.time_base, hashlib.sha256(bytes(p)).hexdigest()) for p in packets]


def first_packet_is_key(path: Path) -> bool:
    with av.open(str(path)) as container:
        return bool(next(container.demux(video=0)).is_keyframe)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("10m", Split(seconds=Fraction(600))),
        ("90s", Split(seconds=Fraction(90))),
        ("1.5h", Split(seconds=Fraction(5400))),
        (" 2 min", Split(seconds=Fraction(120))),
        ("500MB", Split(nbytes=500_000_000)),
        ("4gb", Split(nbytes=4_000_000_000)),
    ],
)
def test_how_a_split_is_spelt(text: str, split: Split) -> None:
    assert parse_split(text) == split


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "-5m", "1e9s", "0s", "0.5s", "10kB", "5 apples", "m"])
def test_what_is_no_split_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="write for example"):
        parse_split(text)


def test_parts_of_a_file_hold_every_picture_once_with_its_time_its_sound_and_its_lists(
    tmp_path: Path, fake_detector: Any
) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    detector = fake_detector()
    detector.detect_frame = _quietly(detector)
    sides = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv")}
    report = process_video(
        clip, tmp_path / "out.mp4", detector, split=Split(seconds=Fraction(2)), side_files=sides, labels=False
    )
    wanted = pictures_of(clip)
    assert report.parts == tuple(part_path(tmp_path / "out.mp4", number) for number in (1, 2, 3))
    assert report.path == report.parts[0] and report.side_files["json"] == tmp_path / "out_001.json"
    assert report.frames == len(wanted) == 150
    assert report.media_s == pytest.approx(float(wanted[-1][0]) + 0.06, abs=0.05)
    seen, start = [], Fraction(0)
    for number, path in enumerate(report.parts, 1):
        pictures = pictures_of(path)
        assert pictures[0][0] == 0 and first_packet_is_key(path)
        start = wanted[len(seen)][0]
        assert start >= 2 * (number - 1)
        seen += [(time + start, bright) for time, bright in pictures]
        listed = json.loads((tmp_path / f"out_{number:03}.json").read_text())["frames"]
        assert [row["index"] for row in listed] == list(range(len(pictures)))
        assert [row["pts_s"] for row in listed] == [round(float(time + start), 6) for time, _ in pictures]
    assert [time for time, _ in seen] == [time for time, _ in wanted]
    assert np.abs(np.array([b for _, b in seen]) - [b for _, b in wanted]).max() <= 4
    _assert_sound_goes_with_its_time(clip, list(report.parts), wanted)
    assert {path.name for path in tmp_path.iterdir()} == {
        "clip.mp4", *(f"out_00{n}.{kind}" for n in (1, 2, 3) for kind in ("mp4", "json", "csv"))
    }  # fmt: skip


def _quietly(detector: Any) -> Any:
    """Finds nothing, so that no box covers the brightness."""
    from types import SimpleNamespace

    from ledetr.detections import Detections

    times = SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)
    return lambda rgb, **_: (Detections.empty(), times)


def _assert_sound_goes_with_its_time(clip: Path, parts: list[Path], wanted: list[tuple[Fraction, int]]) -> None:
    """Every packet once, in order, at its place in the part whose time it begins in, to a tick of the sound."""
    source, joined, at = packets_of(clip), [], 0
    for path in parts:
        start = wanted[at][0]
        joined += [(time + start, digest) for time, digest in packets_of(path)]
        at += len(pictures_of(path))
    assert [digest for _, digest in joined] == [digest for _, digest in source]
    off_s = [abs(float(one - two)) for (one, _), (two, _) in zip(joined, source, strict=True)]
    assert max(off_s) <= 1 / 48000 + 1e-9
    for path, (start, _) in zip(parts[1:], [wanted[len(pictures_of(parts[0]))]], strict=False):
        assert 0 <= packets_of(path)[0][0] < 0.03, start


def test_parts_by_size_stay_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_detector: Any) -> None:
    monkeypatch.setattr(module, "_LEAST_BYTES", 1)
    spec = TestPatternSpec(width=128, height=96, frames=400, rate=Fraction(25), live=False)
    detector = fake_detector()
    detector.detect_frame = _quietly(detector)
    whole = process_stream(spec, tmp_path / "whole.mp4", detector)
    limit = (tmp_path / "whole.mp4").stat().st_size // 2
    report = process_stream(spec, tmp_path / "out.mp4", detector, split=Split(nbytes=limit))
    assert len(report.parts) >= 2 and report.frames == whole.frames == 400
    assert all(path.stat().st_size <= limit for path in report.parts)
    numbers = []
    for path in report.parts:
        with av.open(str(path)) as container:
            numbers += [read_counter(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert numbers == list(range(400))


def test_a_recording_of_the_window_is_split(
    tmp_path: Path, scripted_source: Any, fake_detector: Any, wait_until: Any
) -> None:
    events: list[Any] = []
    with Pipeline(
        fake_detector(),
        policy="every",
        config=CaptureConfig(paced=False),
        opener=lambda _, **kw: scripted_source(count=101, size=(64, 48), **kw),
        on_event=events.append,
    ) as pipeline:
        pipeline.open(VideoSpec(Path("x.mp4")), paused=True)
        wait_until(lambda: pipeline.latest() is not None)
        pipeline.start_recording(tmp_path / "out.mp4", with_boxes=False, split=Split(seconds=Fraction(1)))
        pipeline.play()
        wait_until(lambda: pipeline.ended and pipeline.latest().frame.meta.pts == 100)
        assert pipeline.stop_recording() == tmp_path / "out_001.mp4"
    ended = next(event for event in events if isinstance(event, RecordingEnded))
    assert ended.path == tmp_path / "out_001.mp4" and ended.error is None
    assert ended.parts == tuple(tmp_path / f"out_00{number}.mp4" for number in (1, 2, 3, 4))
    times = [[time for time, _ in pictures_of(path)] for path in ended.parts]
    assert times == [[Fraction(i, 25) for i in range(25)]] * 4


def test_an_early_end_keeps_whole_parts_and_the_last_as_partial(tmp_path: Path, fake_detector: Any) -> None:
    clip = make_clip(tmp_path / "clip.mp4", sound=False)
    detector = fake_detector()
    quiet, seen = _quietly(detector), []

    def fail(rgb: np.ndarray, **wishes: Any) -> Any:
        seen.append(1)
        if len(seen) == 70:
            raise ValueError("broken")
        return quiet(rgb, **wishes)

    detector.detect_frame = fail
    with pytest.raises(ValueError, match="broken"):
        process_video(
            clip, tmp_path / "out.mp4", detector, split=Split(seconds=Fraction(2)),
            side_files={"json": tmp_path / "out.json"},
        )  # fmt: skip
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"clip.mp4", "out_001.mp4", "out_001.json", "out_002.partial.mp4", "out_002.partial.json"}
    held = [len(pictures_of(tmp_path / name)) for name in ("out_001.mp4", "out_002.partial.mp4")]
    assert sum(held) == 69
    assert len(json.loads((tmp_path / "out_002.partial.json").read_text())["frames"]) == held[1]


def test_a_disk_that_fills_up_ends_it_with_a_sentence(
    tmp_path: Path, fake_detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []

    def full(self: DiskWatch) -> None:
        checks.append(self)
        if len(checks) > 60:
            raise OutputError("The disk is nearly full.")

    monkeypatch.setattr(DiskWatch, "check", full)
    spec = TestPatternSpec(width=64, height=48, frames=200, rate=Fraction(25), live=False)
    with pytest.raises(OutputError, match=r"nearly full; .*out_003\.partial\.mp4"):
        process_stream(spec, tmp_path / "out.mp4", fake_detector(), split=Split(seconds=Fraction(1)))
    assert {path.name for path in tmp_path.iterdir()} == {"out_001.mp4", "out_002.mp4", "out_003.partial.mp4"}


def test_names_that_are_taken_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out_002.mp4").write_bytes(b"mine")
    form = {"width": 64, "height": 48, "time_base": Fraction(1, 25)}
    writer = SplitWriter(tmp_path / "out.mp4", Split(seconds=Fraction(1)), **form)
    for number in range(60):
        writer.write(np.full((48, 64, 3), number, np.uint8), number)
    assert writer.seconds == pytest.approx(60 / 25, abs=0.05) and writer.frames == 60
    assert writer.finish() == tmp_path / "out_001.mp4"
    assert [path.name for path in writer.parts] == ["out_001.mp4", "out_002 (2).mp4", "out_003.mp4"]
    assert (tmp_path / "out_002.mp4").read_bytes() == b"mine"


def test_where_a_split_makes_no_sense(tmp_path: Path, fake_detector: Any) -> None:
    split, spec = Split(seconds=Fraction(1)), TestPatternSpec(width=64, height=48, frames=3, live=False)
    clip = make_clip(tmp_path / "clip.mp4", frames=3, sound=False)
    with pytest.raises(UsageError, match="without split"):
        process_video(clip, tmp_path / "out.mp4", fake_detector(), split=split, resume=True)
    with pytest.raises(UsageError, match="without split"):
        process_video(clip, None, fake_detector(), split=split)
    with pytest.raises(UsageError, match="without split"):
        process_stream(spec, None, fake_detector(), split=split)


def test_the_writer_that_is_split_is_used_as_the_one_that_is_not() -> None:
    wanted = {name for name in vars(VideoWriter) if not name.startswith("_")}
    assert wanted <= set(vars(SplitWriter)), "an output may hold either of them"
