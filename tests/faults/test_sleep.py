"""F22: the machine sleeps for ten minutes. The clock jumps; pictures go on as if nothing had been."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.chain.capture import CaptureConfig
from ledetr.chain.clock import FakeClock
from ledetr.chain.pipeline import Pipeline, Restored
from ledetr.chain.sources import SourceLost, TestPatternSpec, VideoSpec, open_source
from ledetr.chain.video import process_video
from ledetr.tracking import Tracking

TEN_MINUTES_NS = 600_000_000_000
# The clock is ours, and the deadlines of reads are not: a test on a busy machine may take longer than a camera.
PATIENT = CaptureConfig(read_deadline_s=60.0)
LIVE = TestPatternSpec(width=64, height=48, rate=Fraction(10))


@pytest.mark.parametrize("counts", ["the clock counts the sleep", "the clock stops in the sleep"])
def test_a_live_source_goes_on_in_a_new_epoch(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None], one_box: Any, counts: str
) -> None:
    clock = FakeClock()
    asleep_s = [0.0]
    monkeypatch.setattr(time, "time", lambda: 1e9 + clock.now_ns() / 1e9 + asleep_s[0])
    results: list[Any] = []

    def settle() -> None:
        """Until every picture that was taken is a result, and the source waits for the time of the next one."""
        wait_until(
            lambda: (
                any(name.startswith("source") for name in clock.sleepers())
                and player.meters.snapshot().captured == len(results) > 0
            )
        )

    def walk(steps: int) -> None:
        for _ in range(steps):
            settle()
            clock.advance(100_000_000)
        settle()

    with Pipeline(one_box(), clock=clock, policy="every", tracking=Tracking(), config=PATIENT) as player:
        player.on_result = lambda: results.append(player.latest())
        player.open(LIVE)
        walk(5)
        if counts == "the clock counts the sleep":
            clock.advance(TEN_MINUTES_NS)
            settle()
        else:
            asleep_s[0] = 600.0
        before = len(results)
        walk(5)
        frames = [result.frame.meta for result in results]
        # It goes on at its pace: a picture for each step of the clock, none raced through to catch up.
        assert len(results) == before + 5 and [meta.pts for meta in frames] == list(range(len(frames)))
    assert {meta.epoch for meta in frames} == {0, 1}
    woke = next(number for number, meta in enumerate(frames) if meta.epoch == 1)
    assert frames[woke].discontinuity and [meta.epoch for meta in frames] == [0] * woke + [1] * (len(frames) - woke)
    ids = [int(result.detections.tracker_id[0]) for result in results]
    assert set(ids[:woke]) == {1} and 1 not in ids[woke:]


def make_clip(path: Path, frames: int = 100) -> Path:
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 30 + 2 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_a_file_that_plays_goes_on_where_it_was(tmp_path: Path, wait_until: Callable[..., None], one_box: Any) -> None:
    clock, results = FakeClock(), []
    with Pipeline(one_box(), clock=clock) as player:
        player.on_result = lambda: results.append(player.latest())
        player.open(VideoSpec(make_clip(tmp_path / "clip.mp4", 100)))
        for step in range(10):
            wait_until(lambda step=step: len(results) == step + 1 and "capture" in clock.sleepers())
            clock.advance(40_000_000)
        wait_until(lambda: len(results) == 11 and "capture" in clock.sleepers())
        clock.advance(TEN_MINUTES_NS)
        for _ in range(5):
            number = len(results)
            wait_until(lambda: "capture" in clock.sleepers())
            clock.advance(40_000_000)
            wait_until(lambda number=number: len(results) > number)
        # A picture that the next one overtook may be missing; ten minutes of them may not.
        shown = [result.frame.meta.index for result in results]
        assert shown[:11] == list(range(11)) and np.diff(shown).min() == 1 and np.diff(shown).max() <= 2
        assert not player.ended


def test_an_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_box: Any) -> None:
    real, slept, seen = time.monotonic, [0.0], itertools.count()

    def sleep_at_30(_: np.ndarray) -> None:
        if next(seen) == 30:
            slept[0] = 600.0

    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: real() + slept[0])
    clip = make_clip(tmp_path / "clip.mp4")
    report = process_video(clip, tmp_path / "out.mp4", one_box(sleep_at_30), side_files={"json": tmp_path / "out.json"})
    assert report.frames == 100 and report.wall_s > 600
    with av.open(str(clip)) as one, av.open(str(tmp_path / "out.mp4")) as two:
        times = [[frame.pts * frame.time_base for frame in container.decode(video=0)] for container in (one, two)]
    assert times[0] == times[1] and len(times[0]) == 100


def test_a_loss_that_the_sleep_made_is_tried_again_at_once(wait_until: Callable[..., None], one_box: Any) -> None:
    """While it waits before a try, the sleep is part of the wait."""
    clock, tries = FakeClock(), []

    class Once:
        """A live source whose second read is a connection that the sleep has cut."""

        def __init__(self, inner: Any, lost: bool) -> None:
            self._inner, self._lost, self._reads = inner, lost, 0
            self.info, self.seek = inner.info, inner.seek
            self.interrupt, self.close = inner.interrupt, inner.close

        def read(self, skip_to_s: float | None = None) -> Any:
            self._reads += 1
            if self._lost and self._reads == 2:
                raise SourceLost("cut")
            return self._inner.read(skip_to_s)

    def opener(spec: Any, *, clock: Any, epoch: int) -> Any:
        tries.append(epoch)
        return Once(open_source(spec, clock=clock, epoch=epoch), lost=len(tries) == 1)

    events: list[Any] = []
    with Pipeline(one_box(), clock=clock, opener=opener, config=PATIENT, on_event=events.append) as player:
        player.open(LIVE)
        wait_until(lambda: len(tries) == 1 and "capture" in clock.sleepers())
        clock.advance(TEN_MINUTES_NS)
        wait_until(lambda: any(isinstance(event, Restored) for event in events))
    assert tries == [0, 1]
