import os
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest

from ledetr.chain import stream
from ledetr.chain.clock import FakeClock
from ledetr.chain.sources import ArraysSpec, SourceLost
from ledetr.chain.test_pattern import read_counter
from ledetr.errors import LeDetrError, SourceError


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("capture", "source"))]


def test_every_frame_in_order_and_then_nothing_runs(fake_detector) -> None:
    detector = fake_detector()
    results = list(stream("test:64x48p30?frames=50&live=0", detector))
    assert [read_counter(result.frame.rgb) for result in results] == list(range(50))
    assert [result.number for result in results] == list(range(1, 51))
    assert all(result.detections.model_id == "fake" and result.timings.published_ns for result in results)
    assert alive() == []


def test_a_video_file_and_no_detector(make_video) -> None:
    results = list(stream(make_video(), None))
    assert len(results) == 25 and all(len(result.detections) == 0 for result in results)


def test_leaving_the_loop_closes_the_source(fake_detector) -> None:
    results = stream("test:64x48p30?live=0", fake_detector())
    for result in results:
        if result.number == 3:
            break
    results.close()
    assert alive() == []


def test_nothing_is_opened_before_the_first_step() -> None:
    results = stream("no such file.mp4", None)
    with pytest.raises(SourceError, match="there is no such file"):
        next(results)
    assert alive() == []


def test_a_wrong_spelling_is_said_at_once() -> None:
    with pytest.raises(SourceError, match="are not opened"):
        stream("ftp://host/a.mp4", None)


def test_it_reads_no_further_ahead_than_its_bound(fake_detector) -> None:
    taken = []

    def arrays():
        for i in range(1000):
            taken.append(i)
            yield np.full((1000, 1000, 3), i % 256, np.uint8)  # 3 MB each

    results = stream(ArraysSpec(arrays()), fake_detector())
    next(results)
    next(results)
    assert len(taken) <= 2 + 22 + 3  # given, 64 MiB of them waiting, and those in the hands of the reader
    results.close()


def test_an_error_in_the_middle_comes_after_the_frames_before_it(make_video, fake_detector) -> None:
    def arrays():
        for i in range(5):
            yield np.full((4, 4, 3), i, np.uint8)
        raise SourceError("the well is dry")

    seen = []
    with pytest.raises(SourceError, match="the well is dry"):
        for result in stream(ArraysSpec(arrays()), fake_detector()):
            seen.append(int(result.frame.rgb[0, 0, 0]))
    assert seen == [0, 1, 2, 3, 4] and alive() == []


def test_a_detector_that_fails_ends_the_loop(fake_detector) -> None:
    def work() -> None:
        raise RuntimeError("no memory")

    with pytest.raises(LeDetrError, match="failed on a frame") as caught:
        list(stream("test:64x48p30?live=0", fake_detector(work=work)))
    assert isinstance(caught.value.__cause__, RuntimeError) and alive() == []


def test_live_gives_the_newest(fake_detector, wait_until) -> None:
    clock = FakeClock()
    results = stream("test:64x48p25", fake_detector(), clock=clock)
    assert next(results).frame.meta.pts == 0
    for _ in range(10):
        wait_until(lambda: clock.sleepers())
        clock.advance(40_000_000)
    # Frames 1 to 10 came while nobody asked; frame 10 may still be on its way.
    wait_until(lambda: 440_000_000 in clock.sleepers().values())
    assert next(results).frame.meta.pts == 10
    results.close()


def test_a_lost_source_is_tried_again_and_then_raised(monkeypatch, scripted_source, fake_detector) -> None:
    class Impatient(FakeClock):
        def sleep_until(self, t_ns, stop) -> bool:
            self.advance(max(0, t_ns - self.now_ns()))
            return not stop.is_set()

    def lost(number: int) -> None:
        if number == 2:
            raise SourceLost("cable pulled")

    def open_it(spec, *, clock, epoch):
        return scripted_source(live=True, count=None, epoch=epoch, before_read=lost)

    monkeypatch.setattr("ledetr.chain.streaming.open_source", open_it)
    seen = []
    with pytest.raises(SourceLost, match="cable pulled"):
        for result in stream("rtsp://host/x", fake_detector(), every_frame=True, retries=3, clock=Impatient()):
            seen.append((result.frame.meta.epoch, result.frame.meta.pts))
    assert seen == [(epoch, pts) for epoch in range(4) for pts in range(2)] and alive() == []


def test_real_clip_has_all_its_frames(clip, fake_detector) -> None:
    results = list(stream(clip("vtest_vfr.mp4"), fake_detector()))
    assert len(results) == 75
    times = [result.frame.meta.pts * result.frame.meta.time_base for result in results]
    assert times == sorted(set(times)) and times[0] == Fraction(39, 1000)


def test_the_chain_loads_no_torch_and_no_qt() -> None:
    code = (
        "import sys, ledetr.chain; "
        "print([name for name in ('torch', 'PySide6', 'mss', 'openvino', 'onnxruntime') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"
