"""An export that was cut off goes on: the same pictures, times, sound and lists as one that was not."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from ledetr.backends.base import BackendInfo
from ledetr.chain import resume as resume_module
from ledetr.chain.resume import usable_segment
from ledetr.chain.video import VideoReport, process_video
from ledetr.chain.video_reader import Cut
from ledetr.detections import Detections
from ledetr.errors import Interrupted, OutputError, UsageError
from ledetr.tracking import Tracking

FRAMES = 250
# Steps of 20, 40 and 60 ms at 1/12800 s, so that a wrong place is a wrong time too.
STEPS = [256, 512, 768]
KINDS = ("json", "jsonl", "csv", "coco")


class OneBox:
    """Sees a box that depends on the picture; seen: how many it was given."""

    model_id = "one"
    class_names = ("thing",)
    category_ids = (7,)
    score_threshold = 0.5
    random_weights = False
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self, at_frame: Callable[[int], None] = lambda _: None) -> None:
        self.seen = 0
        self._at_frame = at_frame

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        self._at_frame(self.seen)
        self.seen += 1
        box = np.array([[0, 0, 1 + int(rgb[10, 10, 0]) // 8, 20]], np.float32)
        found = Detections(
            box, np.array([0.9], np.float32), np.array([0]), class_names=self.class_names,
            category_ids=self.category_ids, model_id=self.model_id, score_floor=score_floor,
        )  # fmt: skip
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        pass


def make_clip(path: Path, *, sound: bool = True) -> Path:
    times = np.concatenate([[0], np.cumsum([STEPS[i % 3] for i in range(FRAMES - 1)])])
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=25, options={"bf": "3", "g": "40", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 12800)
        audio: Any = output.add_stream("aac", rate=48000, layout="mono") if sound else None
        for number, time in enumerate(times):
            rgb = np.full((48, 64, 3), 30 + 7 * number % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 12800)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        noise = np.random.default_rng(0)
        for start in range(0, 48000 * FRAMES // 25 if sound else 0, 1024):
            block = av.AudioFrame.from_ndarray(noise.normal(0, 0.1, (1, 1024)).astype(np.float32), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            output.mux(audio.encode(block))
        if audio is not None:
            output.mux(audio.encode(None))
    return path


def pictures_of(path: Path) -> list[tuple[Fraction, int]]:
    """Time and brightness of every picture."""
    with av.open(str(path)) as container:
        return [
            (frame.pts * frame.time_base, int(frame.to_ndarray(format="gray")[40, 50]))
            for frame in container.decode(video=0)
        ]


def sound_of(path: Path) -> list[tuple[Fraction, str]]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(p.pts * p.time_base, hashlib.sha256(bytes(p)).hexdigest()) for p in packets]


def export(src: Path, dst: Path, detector: OneBox, **options: Any) -> VideoReport:
    sides = {kind: dst.with_suffix(f".{kind}") for kind in KINDS}
    return process_video(src, dst, detector, side_files=sides, **options)


def assert_same_results(one: Path, two: Path) -> None:
    assert [time for time, _ in pictures_of(one)] == [time for time, _ in pictures_of(two)]
    levels = np.array([[level for _, level in pictures_of(path)] for path in (one, two)])
    assert np.abs(levels[0] - levels[1]).max() <= 4  # the encoder began anew at another picture
    assert sound_of(one) == sound_of(two)
    for kind in KINDS:
        assert one.with_suffix(f".{kind}").read_bytes() == two.with_suffix(f".{kind}").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that was not cut off; the source lies beside it."""
    folder = tmp_path_factory.mktemp("whole")
    export(make_clip(folder / "clip.mp4"), folder / "whole.mp4", OneBox())
    return folder / "whole.mp4"


CHILD = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from {module} import OneBox, export
    def killed(progress):
        if progress.frames == {frame}:
            os.kill(os.getpid(), signal.SIGKILL)
    export(Path({src!r}), Path({dst!r}), OneBox(), progress=killed, resume={resume})
"""


def run_until_killed(src: Path, dst: Path, frame: int, *, resume: bool = False) -> None:
    script = textwrap.dedent(CHILD).format(
        folder=str(Path(__file__).parent), module=Path(__file__).stem, frame=frame, src=str(src), dst=str(dst),
        resume=resume,
    )  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("frame", [40, 117, 249])
def test_after_kill_it_goes_on_with_at_most_two_seconds_lost(whole: Path, tmp_path: Path, frame: int) -> None:
    src, dst = whole.with_name("clip.mp4"), tmp_path / "whole.mp4"
    run_until_killed(src, dst, frame)
    assert not dst.exists()
    detector = OneBox()
    report = export(src, dst, detector, resume=True)

    times = [time for time, _ in pictures_of(whole)]
    kept = FRAMES - detector.seen
    assert times[frame - 1] - times[kept] <= 2 and report.frames == FRAMES
    assert report.notes == (f"Went on after {kept} pictures of an earlier run; boxes are counted from there.",)
    assert_same_results(dst, whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["whole.mp4", *(f"whole.{kind}" for kind in KINDS)])


def test_killed_again_and_again(whole: Path, tmp_path: Path) -> None:
    src, dst = whole.with_name("clip.mp4"), tmp_path / "whole.mp4"
    chance = random.Random(4)
    for at in sorted(chance.sample(range(60, FRAMES), 3)):
        run_until_killed(src, dst, at, resume=True)
    export(src, dst, OneBox(), resume=True)
    assert_same_results(dst, whole)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", None), (".mkv", "ffv1"), (".mp4", "hevc"), (".mp4", "av1"), (".webm", None)]
)
def test_every_container_and_codec_goes_on(tmp_path: Path, suffix: str, codec: str | None) -> None:
    src, dst = make_clip(tmp_path / "clip.mp4", sound=suffix != ".webm"), tmp_path / f"out{suffix}"
    stopped_at(src, dst, 120, codec=codec)
    detector = OneBox()
    export(src, dst, detector, codec=codec, resume=True)

    assert detector.seen < FRAMES
    before, after = pictures_of(src), pictures_of(dst)
    shift = after[0][0] - before[0][0]
    rounding = 0 if suffix == ".mp4" else Fraction(1, 1000)
    assert len(after) == FRAMES
    assert max(abs(a[0] - b[0] - shift) for a, b in zip(after, before, strict=True)) <= rounding
    assert max(abs(a[1] - b[1]) for a, b in zip(after, before, strict=True)) <= 12
    assert [packet for _, packet in sound_of(dst)] == [packet for _, packet in sound_of(src)]


def stopped_at(src: Path, dst: Path, frame: int, **options: Any) -> None:
    stop = threading.Event()
    detector = OneBox(at_frame=lambda number: stop.set() if number == frame else None)
    with pytest.raises(Interrupted):
        export(src, dst, detector, stop=stop, **options)


@pytest.mark.parametrize(
    "cut", [Cut(start_s=1.5, end_s=7.0), Cut(stride=3), Cut(max_frames=150), Cut(start_s=0.5, stride=2, max_frames=90)]
)
def test_a_part_of_a_video_goes_on(whole: Path, tmp_path: Path, cut: Cut) -> None:
    src = whole.with_name("clip.mp4")
    export(src, tmp_path / "at_once.mp4", OneBox(), cut=cut)
    stopped_at(src, tmp_path / "twice.mp4", 60, cut=cut)
    detector = OneBox()
    report = export(src, tmp_path / "twice.mp4", detector, cut=cut, resume=True)
    assert "Went on after" in report.notes[0] and detector.seen < report.frames
    old, new = pictures_of(tmp_path / "at_once.mp4"), pictures_of(tmp_path / "twice.mp4")
    assert [time for time, _ in new] == [time for time, _ in old]
    assert sound_of(tmp_path / "twice.mp4") == sound_of(tmp_path / "at_once.mp4")


@pytest.mark.parametrize("change", ["source", "settings", "part"])
def test_what_does_not_fit_is_begun_afresh_and_said(whole: Path, tmp_path: Path, change: str) -> None:
    src, dst = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    src.write_bytes(whole.with_name("clip.mp4").read_bytes())
    stopped_at(src, dst, 100)
    options = {}
    if change == "source":
        src.write_bytes(src.read_bytes() + b"\0")
    elif change == "settings":
        options["crf"] = 30
    else:
        (tmp_path / "out.partial.mp4").write_bytes(b"\0" * 1000)
    detector = OneBox()
    report = export(src, dst, detector, resume=True, **options)
    assert detector.seen == FRAMES == len(pictures_of(dst))
    assert report.notes[0].startswith("There was nothing to go on from")


def test_a_run_with_ids_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    src, dst = whole.with_name("clip.mp4"), tmp_path / "out.mp4"
    stopped_at(src, dst, 100, tracking=Tracking())
    with pytest.raises(UsageError, match="Ids cannot be taken over"):
        export(src, dst, OneBox(), resume=True, tracking=Tracking())
    assert (tmp_path / "out.partial.mp4").exists() and not dst.exists()


def test_a_list_that_lost_its_end_is_said(whole: Path, tmp_path: Path) -> None:
    src, dst = whole.with_name("clip.mp4"), tmp_path / "out.mp4"
    stopped_at(src, dst, 100)
    rows = (tmp_path / "out.partial.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out.partial.jsonl").write_text("".join(rows[:10]))
    with pytest.raises(OutputError, match=r"out\.partial\.jsonl holds less .* without --resume"):
        export(src, dst, OneBox(), resume=True)
    assert (tmp_path / "out.partial.mp4").exists() and not dst.exists()


def test_a_job_that_still_runs_is_left_alone(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src, dst = whole.with_name("clip.mp4"), tmp_path / "out.mp4"
    stopped_at(src, dst, 100)
    monkeypatch.setattr(resume_module, "still_runs", lambda *_: True)
    with pytest.raises(UsageError, match="which still runs"):
        export(src, dst, OneBox(), resume=True)


def test_a_job_file_of_somebody_else_is_no_job(whole: Path, tmp_path: Path) -> None:
    src, dst = whole.with_name("clip.mp4"), tmp_path / "out.mp4"
    for text in ("", "[]", "{}", '{"version": 1}', "\0"):
        (tmp_path / "out.mp4.job.json").write_text(text)
        assert export(src, dst, OneBox(), cut=Cut(max_frames=5), resume=True, overwrite=True).frames == 5


def test_the_job_file_holds_no_more_than_it_needs(whole: Path, tmp_path: Path) -> None:
    stopped_at(whole.with_name("clip.mp4"), tmp_path / "out.mp4", 100)
    job = json.loads((tmp_path / "out.mp4.job.json").read_text())
    assert job["parts"] == ["out.partial.mp4"] and job["pid"] == 0
    assert job["sides"] == {kind: f"out.partial.{kind}" for kind in KINDS}


@pytest.mark.parametrize("share", [0.3, 0.55, 0.8, 0.999])
def test_a_part_file_cut_anywhere_keeps_a_beginning_without_gaps(whole: Path, tmp_path: Path, share: float) -> None:
    stopped_at(whole.with_name("clip.mp4"), tmp_path / "out.mp4", 200)
    part = tmp_path / "out.partial.mp4"
    times = [time for time, _ in pictures_of(part)]
    part.write_bytes(part.read_bytes()[: int(part.stat().st_size * share)])
    segment = usable_segment(part)
    assert segment is not None
    assert segment.last_s == times[segment.packets[0] - 1] and segment.first_s == times[0]
