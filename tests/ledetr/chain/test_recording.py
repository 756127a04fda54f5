import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.chain.capture import CaptureConfig
from ledetr.chain.overlay import BoxMark
from ledetr.chain.pipeline import Pipeline, RecordingEnded, State, Stopped
from ledetr.chain.sources import VideoSpec, open_source, parse_source
from ledetr.errors import OutputError, UsageError

SPEC = VideoSpec(Path("scripted.mp4"))


@pytest.fixture
def pipeline(scripted_source, fake_detector) -> Iterator[Pipeline]:
    """Ten frames of 64 x 48 at 25 a second, of which each waits for the one before; opened paused."""
    one = Pipeline(
        fake_detector(),
        policy="every",
        config=CaptureConfig(paced=False),
        opener=lambda _, **kw: scripted_source(size=(64, 48), **kw),
    )
    one.events = []
    one.on_event = one.events.append
    yield one
    one.close()


def opened(pipeline: Pipeline, wait_until: Any) -> Pipeline:
    pipeline.open(SPEC, paused=True)
    wait_until(lambda: pipeline.latest() is not None)
    return pipeline


def read_back(path: Path) -> tuple[list[Fraction], list[np.ndarray]]:
    source = open_source(parse_source(path))
    times, pictures = [], []
    while (frame := source.read()) is not None:
        times.append(frame.meta.pts * frame.meta.time_base)
        pictures.append(frame.rgb)
    return times, pictures


def test_each_result_is_written_with_its_time(pipeline, wait_until, tmp_path) -> None:
    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "out.mp4", with_boxes=False)
    pipeline.play()
    wait_until(lambda: pipeline.ended and pipeline.latest().frame.meta.pts == 9)
    assert pipeline.recording is not None
    assert pipeline.stop_recording() == tmp_path / "out.mp4"
    assert pipeline.recording is None
    times, pictures = read_back(tmp_path / "out.mp4")
    # Frame 0 was shown before the recording began; its times begin at zero.
    assert times == [Fraction(i, 25) for i in range(9)]
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    assert RecordingEnded(tmp_path / "out.mp4") in pipeline.events
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not list(tmp_path.glob("*.part*")) and container.streams.video[0].frames == 9


def test_marks_are_drawn_on_their_own_frame(pipeline, wait_until, tmp_path) -> None:
    opened(pipeline, wait_until)
    marked: list[int] = []

    def marks(result: Any) -> list[BoxMark]:
        marked.append(result.frame.meta.pts)
        return [BoxMark((8.0, 8.0, 56.0, 40.0), (255, 255, 255), 8)] if result.frame.meta.pts % 2 else []

    pipeline.start_recording(tmp_path / "out.mp4", marks=marks)
    pipeline.play()
    wait_until(lambda: pipeline.ended and pipeline.latest().frame.meta.pts == 9)
    pipeline.stop_recording()
    assert marked == list(range(1, 10))
    _, pictures = read_back(tmp_path / "out.mp4")
    assert [bool(picture[24, 8, 1] > 128) for picture in pictures] == [bool(i % 2) for i in range(1, 10)]


def test_a_seek_is_joined_without_a_hole(pipeline, wait_until, tmp_path) -> None:
    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "out.mp4")
    for target, number in ((0.32, 8), (0.04, 1)):
        pipeline.seek(target)
        wait_until(lambda number=number: pipeline.latest().frame.meta.pts == number)
    pipeline.step(1)
    wait_until(lambda: pipeline.latest().frame.meta.pts == 2)
    pipeline.step(-1)
    wait_until(lambda: pipeline.latest().frame.meta.pts == 1)
    pipeline.stop_recording()
    times, _ = read_back(tmp_path / "out.mp4")
    assert times == [Fraction(i, 25) for i in range(4)]


def test_boxes_of_random_weights_are_recorded_with_a_notice(pipeline, wait_until, fake_detector) -> None:
    opened(pipeline, wait_until)
    detector = fake_detector()
    pipeline.set_detector(detector)
    wait_until(lambda: len(pipeline.latest().detections))
    texts = [[getattr(mark, "text", None) for mark in pipeline._default_marks(pipeline.latest())]]
    detector.random_weights = True
    texts.append([getattr(mark, "text", None) for mark in pipeline._default_marks(pipeline.latest())])
    assert texts[1] == [*texts[0], "random weights"]


def test_a_second_look_is_not_recorded(pipeline, wait_until, tmp_path, fake_detector) -> None:
    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "out.mp4")
    pipeline.step(1)
    wait_until(lambda: pipeline.latest().frame.meta.pts == 1)
    pipeline.set_detector(fake_detector("b"))
    wait_until(lambda: pipeline.latest().again)
    pipeline.stop_recording()
    assert len(read_back(tmp_path / "out.mp4")[0]) == 1


@pytest.mark.parametrize("how", ["stop", "close", "open", "fail"])
def test_whatever_ends_the_source_completes_the_file(pipeline, wait_until, tmp_path, how) -> None:
    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "out.mp4")
    pipeline.step(1)
    wait_until(lambda: pipeline.latest().frame.meta.pts == 1)
    if how == "open":
        pipeline.open(SPEC)
    elif how == "fail":

        def work() -> None:
            raise RuntimeError("broken")

        pipeline.detector.work = work
        pipeline.play()
    else:
        getattr(pipeline, how)()
    wait_until(lambda: RecordingEnded(tmp_path / "out.mp4") in pipeline.events)
    assert len(read_back(tmp_path / "out.mp4")[0]) == 1
    assert how != "fail" or pipeline.state is State.FAILED


def test_an_error_ends_the_recording_and_not_the_picture(pipeline, wait_until, tmp_path) -> None:
    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "missing folder" / "out.mp4")
    pipeline.step(1)
    wait_until(lambda: any(isinstance(event, RecordingEnded) for event in pipeline.events))
    ended = pipeline.events[-1]
    assert ended.path is None and "missing folder" in str(ended.error)
    pipeline.play()
    wait_until(lambda: pipeline.ended)
    with pytest.raises(OutputError, match="missing folder"):
        pipeline.stop_recording()


def test_an_error_in_the_marks_keeps_what_was_written(pipeline, wait_until, tmp_path) -> None:
    opened(pipeline, wait_until)

    def marks(result: Any) -> list[Any]:
        if result.frame.meta.pts == 5:
            raise ZeroDivisionError("user code")
        return []

    pipeline.start_recording(tmp_path / "out.mp4", marks=marks)
    pipeline.play()
    wait_until(lambda: any(isinstance(event, RecordingEnded) for event in pipeline.events))
    ended = next(event for event in pipeline.events if isinstance(event, RecordingEnded))
    assert "user code" in str(ended.error) and ended.path is not None and "partial" in ended.path.name
    assert len(read_back(ended.path)[0]) == 4
    wait_until(lambda: pipeline.ended)


def test_a_recording_that_hangs_is_left_to_itself_and_named(pipeline, wait_until, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ledetr.chain.pipeline.RECORDING_LIMIT_S", 0.05)
    reached, let_go = threading.Event(), threading.Event()

    def hang(_: Any) -> list[Any]:
        reached.set()
        assert let_go.wait(30)
        return []

    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "out.mp4", marks=hang)
    pipeline.play()
    assert reached.wait(10)
    pipeline.close()
    assert pipeline.events[-1] == Stopped(("recording",))
    let_go.set()
    wait_until(lambda: isinstance(pipeline.events[-1], RecordingEnded))
    assert read_back(tmp_path / "out.mp4")[0]  # it was only late


def test_no_picture_means_no_file(pipeline, wait_until, tmp_path) -> None:
    opened(pipeline, wait_until)
    pipeline.start_recording(tmp_path / "out.mp4")
    with pytest.raises(OutputError, match="holds no picture"):
        pipeline.stop_recording()
    assert list(tmp_path.iterdir()) == []


def test_wrong_moments_and_names(pipeline, wait_until, tmp_path) -> None:
    with pytest.raises(UsageError, match="Nothing is open"):
        pipeline.start_recording(tmp_path / "out.mp4")
    with pytest.raises(UsageError, match="No recording is running"):
        pipeline.stop_recording()
    opened(pipeline, wait_until)
    with pytest.raises(UsageError, match="end the name in"):
        pipeline.start_recording(tmp_path / "out.txt")
    pipeline.start_recording(tmp_path / "out.mp4")
    with pytest.raises(UsageError, match="is running already"):
        pipeline.start_recording(tmp_path / "out2.mp4")


def test_a_live_source_leaves_pictures_out_where_the_disk_is_slow(
    scripted_source, fake_detector, wait_until, tmp_path, monkeypatch
) -> None:
    from ledetr.chain import recording as module

    let_go, writing = threading.Event(), threading.Event()
    monkeypatch.setattr(module, "QUEUE_BYTES", 3 * 64 * 48 * 3)
    gate = threading.Semaphore(0)

    def before_read(_: int) -> None:
        gate.acquire(timeout=10)

    def marks(_: Any) -> list[Any]:
        writing.set()
        let_go.wait(30)
        return []

    with Pipeline(
        fake_detector(),
        policy="every",
        opener=lambda _, **kw: scripted_source(count=21, live=True, size=(64, 48), before_read=before_read, **kw),
    ) as pipeline:
        pipeline.open(SPEC)
        wait_until(lambda: pipeline.state is State.RUNNING)
        pipeline.start_recording(tmp_path / "out.mp4", marks=marks)
        gate.release()
        assert writing.wait(10)
        gate.release(30)
        wait_until(lambda: pipeline.ended and pipeline.latest().frame.meta.pts == 20)  # the picture never waited
        assert pipeline.recording.dropped == 21 - 1 - 3
        let_go.set()
        pipeline.stop_recording()
        times, _ = read_back(tmp_path / "out.mp4")
        assert times == [Fraction(i, 25) for i in range(4)]
