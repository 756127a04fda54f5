import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ledetr.chain import video_file
from ledetr.chain.capture import CaptureConfig
from ledetr.chain.clock import FakeClock
from ledetr.chain.pipeline import (
    STOP_LIMIT_S,
    Eof,
    Failed,
    ModelChanged,
    Opened,
    Pipeline,
    Reconnecting,
    Restored,
    Stalled,
    State,
    Stopped,
)
from ledetr.chain.sources import SourceLost, VideoSpec, parse_source
from ledetr.errors import LeDetrError, SourceError

SPEC = VideoSpec(Path("scripted.mp4"))  # only its name is used: the opener is ours
FAST = CaptureConfig(paced=False)


class Player:
    """A pipeline on a scripted source, with what it said."""

    def __init__(self, source: Any, detector: Any = None, **kwargs: Any) -> None:
        self.events: list[Any] = []
        self.results: list[Any] = []
        self.sources: list[Any] = []
        self.make = source if callable(source) else lambda **_: source
        self.pipeline = Pipeline(
            detector, opener=self._open, on_event=self.events.append, on_result=self._on_result, **kwargs
        )

    def _open(self, spec: Any, *, clock: Any, epoch: int) -> Any:
        source = self.make(clock=clock, epoch=epoch)
        self.sources.append(source)
        return source

    def _on_result(self) -> None:
        self.results.append(self.pipeline.latest())

    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]

    def numbers(self) -> list[int]:
        return [result.frame.meta.pts for result in self.results]


@pytest.fixture
def player(request) -> Callable[..., Player]:
    """Makes players, and closes them in the end, whatever happened."""
    made: list[Player] = []

    def make(*args: Any, **kwargs: Any) -> Player:
        made.append(Player(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.pipeline.close()


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _threads_of_this_test() -> None:
    """So that a test that fails and leaves a thread behind does not fail the next ones too."""
    _before.clear()
    _before.update(threading.enumerate())


def alive() -> list[str]:
    """Names of the chain's threads that this test started and that run."""
    names = ("capture", "inference", "source", "recording")
    return [thread.name for thread in threading.enumerate() if thread not in _before and thread.name.startswith(names)]


def test_every_plays_each_frame_in_order_and_parks(player, scripted_source, fake_detector, wait_until) -> None:
    detector = fake_detector()
    p = player(lambda **kw: scripted_source(count=20, **kw), detector, policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: p.kinds() == [Opened, Eof] and len(p.results) == 20)
    assert p.numbers() == list(range(20)) == detector.seen
    assert [result.number for result in p.results] == list(range(1, 21))
    for result in p.results:
        assert result.detections.xyxy[0, 0] == result.frame.meta.pts  # the boxes belong to this very frame
    snapshot = p.pipeline.snapshot()
    assert (snapshot.state, snapshot.ended, snapshot.position.index) == (State.PAUSED, True, 19)
    meters = p.pipeline.meters.snapshot()
    assert (meters.captured, meters.published, meters.dropped, meters.discarded) == (20, 20, 0, 0)
    p.pipeline.stop()
    assert p.kinds() == [Opened, Eof, Stopped] and p.sources[0].closed.is_set() and alive() == []


def test_tries_that_hang_do_not_pile_up(player, scripted_source, wait_until, monkeypatch) -> None:
    monkeypatch.setattr("ledetr.chain.capture._MARGIN_S", 0.02)
    monkeypatch.setattr("ledetr.chain.capture._RETRY_DELAYS_S", (0.0,))
    let_go, tries = threading.Event(), []

    def lost(_: int) -> None:
        raise SourceLost("gone")

    def make(*, clock: Any, epoch: int) -> Any:
        tries.append(epoch)
        if len(tries) > 1:
            let_go.wait(30)
        return scripted_source(live=True, clock=clock, epoch=epoch, before_read=lost if len(tries) == 1 else _nothing)

    p = player(make, config=replace(FAST, open_deadline_s=0.0))
    p.pipeline.open(SPEC)
    wait_until(lambda: p.kinds().count(Reconnecting) >= 20)
    assert len(tries) == 1 + 4
    let_go.set()
    wait_until(lambda: Restored in p.kinds())


def _nothing(_: int) -> None:
    """Before a read."""


def test_what_it_says_never_waits_for_the_capture_thread(player, scripted_source, wait_until) -> None:
    # The capture thread moves the state while it holds its own lock; to ask the other way round would wait for ever.
    p = player(lambda **kw: scripted_source(count=2, **kw), policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.ended)
    answers: list[Any] = []
    with p.pipeline._session.capture._changed:
        asking = threading.Thread(target=lambda: answers.append(p.pipeline.snapshot()), daemon=True)
        asking.start()
        asking.join(5)
    assert [answer.ended for answer in answers] == [True]


def test_timings_are_in_order(player, scripted_source, fake_detector, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=1, **kw), fake_detector(), policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: p.results)
    t = p.results[0].timings
    assert t.captured_ns <= t.taken_ns < t.preprocessed_ns < t.inferred_ns < t.postprocessed_ns
    assert t.preprocessed_ns - t.taken_ns == 1_000_000 and t.inferred_ns - t.preprocessed_ns == 2_000_000
    assert t.painted_ns == 0
    p.pipeline.painted(p.results[0])
    assert t.painted_ns >= t.published_ns
    assert p.pipeline.meters.snapshot().stage_ms["postprocess"] == pytest.approx(3.0)


def test_latest_replaces_what_inference_did_not_take(player, scripted_source, fake_detector, wait_until) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        let_go.wait(30)

    p = player(lambda **kw: scripted_source(count=30, **kw), fake_detector(work=work), policy="latest", config=FAST)
    p.pipeline.open(SPEC)
    assert entered.wait(10)
    wait_until(lambda: Eof in p.kinds())
    let_go.set()
    wait_until(lambda: len(p.results) >= 2 and p.numbers()[-1] == 29)
    meters = p.pipeline.meters.snapshot()
    assert meters.captured == 30 == meters.published + meters.dropped
    assert meters.published == len(p.results) and meters.dropped >= 27


def test_no_detector_means_frames_with_nothing_found(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=3, **kw), None, policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: len(p.results) == 3)
    assert [len(result.detections) for result in p.results] == [0, 0, 0]
    assert p.results[0].detections.model_id == "" and p.results[0].timings.inferred_ns == 0


def test_open_paused_shows_the_first_frame_only(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(**kw), policy="every", config=FAST)
    p.pipeline.open(SPEC, paused=True)
    wait_until(lambda: len(p.results) == 1)
    assert p.pipeline.state is State.PAUSED and p.numbers() == [0]
    p.pipeline.play()
    wait_until(lambda: Eof in p.kinds() and len(p.results) == 10)
    assert p.numbers() == list(range(10))


def test_step_walks_to_and_fro(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(**kw), policy="every", config=FAST)
    p.pipeline.open(SPEC, paused=True)
    walk = [0]
    for step in (1, 1, 1, -1, -1, 1, -1, -1, -1):
        wait_until(lambda: len(p.results) == len(walk))
        p.pipeline.step(step)
        walk.append(max(0, walk[-1] + step))
    wait_until(lambda: len(p.results) == len(walk))
    assert p.numbers() == walk and p.pipeline.state is State.PAUSED


def test_step_back_beyond_memory_reads_again(player, scripted_source, wait_until) -> None:
    config = replace(FAST, history_bytes=0)
    p = player(lambda **kw: scripted_source(count=100, **kw), policy="every", config=config)
    p.pipeline.open(SPEC, paused=True)
    wait_until(lambda: p.numbers() == [0])
    p.pipeline.seek(3.0)  # frame 75 of 25 a second
    wait_until(lambda: p.numbers()[-1] == 75)
    for number in (74, 73, 72):
        p.pipeline.step(-1)
        wait_until(lambda number=number: p.numbers()[-1] == number)
    p.pipeline.step(1)
    wait_until(lambda: p.numbers()[-1] == 73)
    epochs = [result.frame.meta.epoch for result in p.results]
    assert epochs == sorted(epochs)


def test_step_at_both_ends_stays(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=2, **kw), policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.ended and p.numbers() == [0, 1])
    for step, numbers, ended in (
        (-1, [0, 1, 0], False),
        (-1, [0, 1, 0, 0], False),
        (1, [0, 1, 0, 0, 1], False),
        (1, [0, 1, 0, 0, 1], True),
    ):
        p.pipeline.step(step)
        wait_until(lambda numbers=numbers, ended=ended: (p.numbers(), p.pipeline.ended) == (numbers, ended))
    with pytest.raises(ValueError, match="a step is"):
        p.pipeline.step(2)


def test_seek_while_paused_shows_that_frame(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=100, **kw), policy="every", config=FAST)
    p.pipeline.open(SPEC, paused=True)
    for pts_s, number in ((2.0, 50), (0.39, 10), (99.0, 99), (-1.0, 0)):
        p.pipeline.seek(pts_s)
        wait_until(lambda number=number: p.numbers() and p.numbers()[-1] == number)
    assert p.pipeline.state is State.PAUSED
    assert p.pipeline.position.pts_s == 0


def test_play_at_the_end_begins_again(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=3, **kw), policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.ended)
    p.pipeline.play()
    wait_until(lambda: len(p.results) == 6 and p.pipeline.ended)
    assert p.numbers() == [0, 1, 2, 0, 1, 2]


def test_dragging_does_the_newest_wish_only(player, scripted_source, wait_until) -> None:
    reading, let_go = threading.Event(), threading.Event()

    def slow(number: int) -> None:
        reading.set()
        let_go.wait(30)

    p = player(lambda **kw: scripted_source(count=100, before_read=slow, **kw), policy="every", config=FAST)
    p.pipeline.open(SPEC, paused=True)
    assert reading.wait(10)
    for target in range(50):
        p.pipeline.seek(target / 25)
    let_go.set()
    wait_until(lambda: p.numbers() and p.numbers()[-1] == 49)
    assert p.numbers() in ([49], [0, 49])  # the frame being read at that moment may still come through


def test_old_epochs_never_appear(player, scripted_source, fake_detector, wait_until) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        let_go.wait(30)

    p = player(lambda **kw: scripted_source(count=100, **kw), fake_detector(work=work), policy="every", config=FAST)
    p.pipeline.open(SPEC, paused=True)
    assert entered.wait(10)  # frame 0 is in the detector
    p.pipeline.seek(2.0)
    wait_until(lambda: p.sources[0].epoch == 1)
    let_go.set()
    wait_until(lambda: p.results)
    assert p.numbers()[0] == 50
    meters = p.pipeline.meters.snapshot()
    assert (meters.captured, meters.published, meters.discarded) == (2, 1, 1)


def test_pause_holds_the_frame_and_play_goes_on(player, scripted_source, wait_until) -> None:
    clock = FakeClock()
    p = player(lambda **kw: scripted_source(count=50, **kw), clock=clock, policy="every")
    p.pipeline.open(SPEC)
    wait_until(lambda: p.numbers() == [0] and "capture" in clock.sleepers())
    p.pipeline.pause()
    wait_until(lambda: not clock.sleepers())
    clock.advance(10_000_000_000)
    assert p.numbers() == [0] and p.pipeline.state is State.PAUSED
    p.pipeline.play()
    wait_until(lambda: p.numbers() == [0, 1] and "capture" in clock.sleepers())  # due at once after a pause
    clock.advance(40_000_000)
    wait_until(lambda: p.numbers() == [0, 1, 2])


def test_a_file_is_played_at_its_pace_and_speed(player, scripted_source, wait_until) -> None:
    clock = FakeClock()
    p = player(lambda **kw: scripted_source(count=50, rate=Fraction(10), **kw), clock=clock)
    p.pipeline.open(SPEC)
    for number in range(3):
        wait_until(lambda number=number: clock.sleepers().get("capture") == (number + 1) * 100_000_000)
        assert p.numbers() == list(range(number + 1))
        clock.advance(100_000_000)
    wait_until(lambda: p.numbers() == [0, 1, 2, 3])
    p.pipeline.set_speed(2.0)
    wait_until(lambda: p.numbers() == [0, 1, 2, 3, 4])  # the new plan begins with the frame at hand
    wait_until(lambda: clock.sleepers().get("capture") == 350_000_000)
    clock.advance(50_000_000)
    wait_until(lambda: p.numbers()[-1] == 5)


def test_a_file_preview_leaves_out_what_inference_is_too_slow_for(
    player, scripted_source, fake_detector, wait_until
) -> None:
    clock = FakeClock()
    detector = fake_detector(work=lambda: clock.sleep_until(clock.now_ns() + 250_000_000, threading.Event()))
    p = player(lambda **kw: scripted_source(count=21, rate=Fraction(10), **kw), detector, clock=clock)
    p.pipeline.open(SPEC)
    while not p.pipeline.ended:
        wait_until(lambda: p.pipeline.ended or "capture" in clock.sleepers())
        clock.advance(50_000_000)
    wait_until(lambda: clock.advance(50_000_000) or p.numbers()[-1] == 20)
    assert p.pipeline.policy == "latest"
    assert p.numbers() == sorted(p.numbers()) and 6 <= len(p.results) <= 11  # 2 s at four a second, and the last
    for result in p.results:
        assert result.detections.xyxy[0, 0] == result.frame.meta.pts


def test_a_file_that_cannot_be_converted_at_its_pace_keeps_its_pace(make_video, monkeypatch, wait_until) -> None:
    clock, real = FakeClock(), video_file.upright_rgb

    def slow(*args: Any) -> Any:
        clock.advance(100_000_000)  # of the 40 ms that a frame has
        return real(*args)

    monkeypatch.setattr(video_file, "upright_rgb", slow)
    path = make_video(time_base=Fraction(1, 25), pts=range(100))
    with Pipeline(clock=clock) as pipeline:
        shown: list[Any] = []
        pipeline.on_result = lambda: shown.append(pipeline.latest())
        pipeline.open(parse_source(path))
        while not pipeline.ended:
            wait_until(lambda: pipeline.ended or "capture" in clock.sleepers())
            clock.advance(max([0, *(until - clock.now_ns() for until in clock.sleepers().values())]))
        wait_until(lambda: shown and shown[-1].frame.meta.index == 99)
        assert clock.now_ns() < 4_500_000_000  # 4 s of video; each converted it would be 10 s
        times = [result.frame.meta.pts_s for result in shown]
        assert times == sorted(times) and len(times) >= 15
        assert [result.frame.meta.index for result in shown] == [round(time * 25) for time in times]
        meters = pipeline.meters.snapshot()
        assert meters.captured == 100 == meters.published + meters.dropped
        pipeline.step(-1)  # not what was shown before, but the frame before
        wait_until(lambda: shown[-1].frame.meta.index == 98)


def test_switching_to_every_frame_acts_at_once(player, scripted_source, fake_detector, wait_until) -> None:
    gate = threading.Semaphore(0)
    p = player(
        lambda **kw: scripted_source(count=100, **kw), fake_detector(work=gate.acquire), policy="every", config=FAST
    )
    p.pipeline.open(SPEC)
    for _ in range(10):
        gate.release()
    wait_until(lambda: len(p.results) == 10)
    assert (
        p.numbers() == list(range(10)) and p.pipeline.meters.snapshot().captured <= 13
    )  # given, in the model, in the mailbox, at its door
    p.pipeline.set_policy("latest")
    gate.release(200)
    wait_until(lambda: p.pipeline.ended)
    assert p.pipeline.policy == "latest"


# Models.


def test_the_model_changes_between_two_frames_and_the_old_one_is_released(
    player, scripted_source, fake_detector, wait_until
) -> None:
    released: list[str] = []

    def release(old: Any) -> None:
        old.close()
        released.append(old.model_id)

    detectors = [fake_detector(f"m{i}") for i in range(50)]
    p = player(lambda **kw: scripted_source(count=None, **kw), detectors[0], policy="every", config=FAST)
    p.pipeline.open(SPEC)
    for detector in detectors[1:]:
        seen = len(p.results)
        p.pipeline.set_detector(detector, release=release)
        wait_until(lambda seen=seen: len(p.results) > seen + 1)
    wait_until(lambda: len(released) == 49)
    assert released == [f"m{i}" for i in range(49)]
    used = [result.detections.model_id for result in p.results]
    assert all(int(a[1:]) <= int(b[1:]) for a, b in itertools.pairwise(used))
    assert p.numbers() == list(range(len(p.results)))  # the picture never stopped
    assert [event.model_id for event in p.events if isinstance(event, ModelChanged)] == [f"m{i}" for i in range(1, 50)]


def test_a_model_in_use_is_released_only_when_it_comes_back(player, scripted_source, fake_detector, wait_until) -> None:
    entered, let_go, released = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        let_go.wait(30)

    p = player(lambda **kw: scripted_source(**kw), fake_detector("slow", work), policy="every", config=FAST)
    p.pipeline.open(SPEC)
    assert entered.wait(10)
    p.pipeline.set_detector(None, release=lambda old: released.set())
    assert not released.is_set() and p.pipeline.detector is None
    let_go.set()
    assert released.wait(10)
    wait_until(lambda: len(p.results) == 10)
    assert [result.detections.model_id for result in p.results] == ["slow"] + [""] * 9


def test_while_paused_the_frame_is_looked_at_again(player, scripted_source, fake_detector, wait_until) -> None:
    p = player(lambda **kw: scripted_source(**kw), fake_detector("a"), policy="every", config=FAST)
    p.pipeline.open(SPEC, paused=True)
    wait_until(lambda: len(p.results) == 1)
    p.pipeline.set_detector(fake_detector("b"))
    wait_until(lambda: len(p.results) == 2)
    first, second = p.results
    assert (first.detections.model_id, second.detections.model_id) == ("a", "b")
    assert second.frame is first.frame and second.again and second.number == first.number
    meters = p.pipeline.meters.snapshot()
    assert (meters.captured, meters.published) == (1, 1)


def test_release_without_anything_open_is_at_once(player, scripted_source, fake_detector) -> None:
    p = player(lambda **kw: scripted_source(**kw), fake_detector("a"))
    released: list[str] = []
    p.pipeline.set_detector(fake_detector("b"), release=lambda old: released.append(old.model_id))
    assert released == ["a"] and p.events == [ModelChanged("b")]
    p.pipeline.set_detector(p.pipeline.detector, release=lambda old: released.append(old.model_id))
    assert released == ["a"]


# Errors.


@pytest.mark.parametrize("moment", ["open", "first", "middle"])
@pytest.mark.parametrize("cause", [SourceError("the file is broken"), ValueError("a bug")])
def test_the_first_cause_is_carried_up(player, scripted_source, fake_detector, wait_until, moment, cause) -> None:
    at = {"first": 0, "middle": 5}.get(moment)

    def before_read(number: int) -> None:
        if number == at:
            raise cause

    def make(**kw: Any) -> Any:
        if moment == "open":
            raise cause
        return scripted_source(before_read=before_read, **kw)

    p = player(make, fake_detector(), policy="every", config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: Failed in p.kinds())
    error = next(event.error for event in p.events if isinstance(event, Failed))
    assert error is cause or (type(error) is LeDetrError and error.__cause__ is cause)
    assert p.pipeline.state is State.FAILED and p.pipeline.error is error
    wait_until(lambda: alive() == [])
    assert moment == "open" or p.sources[0].closed.is_set()
    p.pipeline.stop()
    assert p.pipeline.state is State.IDLE


def test_a_failing_model_ends_with_its_cause(player, scripted_source, fake_detector, wait_until) -> None:
    cause = RuntimeError("CUDA error: out of memory")

    def work() -> None:
        raise cause

    p = player(lambda **kw: scripted_source(**kw), fake_detector("x", work), config=FAST)
    p.pipeline.open(SPEC)
    wait_until(lambda: Failed in p.kinds())
    assert "'x' failed on a frame" in str(p.pipeline.error) and p.pipeline.error.__cause__ is cause
    wait_until(lambda: alive() == [])
    p.pipeline.set_detector(None)
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.ended and p.numbers()[-1] == 9)  # the window is alive, and so is the next try


def test_an_exception_in_a_callback_ends_the_session(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(**kw), config=FAST)
    cause = KeyError("user code")

    def on_result() -> None:
        raise cause

    p.pipeline.on_result = on_result
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.state is State.FAILED and alive() == [])
    assert p.pipeline.error.__cause__ is cause


def test_a_read_that_hangs_fails_in_time(player, scripted_source, wait_until) -> None:
    let_go = threading.Event()
    config = replace(FAST, read_deadline_s=-0.4)  # the margin of 0.5 s comes on top
    p = player(lambda **kw: scripted_source(before_read=lambda _: let_go.wait(30), **kw), config=config)
    p.pipeline.open(SPEC)
    wait_until(lambda: Failed in p.kinds())
    assert "sent no picture for" in str(p.pipeline.error)
    p.pipeline.stop()
    assert p.events[-1].orphans == ("source scripted.mp4",)
    let_go.set()
    wait_until(lambda: alive() == [])


# Stop.


class Hang:
    """Something that hangs when it is called until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, *_: Any) -> None:
        self.reached.set()
        assert self.let_go.wait(60)


class Scene:
    """A player brought into one situation; hang is what is stuck in it, if anything."""

    def __init__(self, player: Any, scripted_source: Any, fake_detector: Any, wait_until: Any) -> None:
        self.hang = Hang()
        self.first: dict[str, Any] = {"count": None}  # how the first source differs from later ones
        self.open_hangs_at: int | None = None
        self.seek_hangs = False
        self.detector = fake_detector()
        self.opened = 0
        self._source = scripted_source
        self._wait_until = wait_until
        self.p = player(self._make, self.detector, policy="latest", config=FAST, clock=FakeClock())

    def _make(self, **kw: Any) -> Any:
        self.opened += 1
        mine = self.opened
        if mine == self.open_hangs_at:
            self.hang()
        source = self._source(**({"count": 4} if mine > 1 else self.first), **kw)
        if self.seek_hangs and mine == 1:
            source.seek = self.hang
        return source

    def until(self, condition: Callable[[], Any]) -> None:
        self._wait_until(condition)

    def open(self, **kw: Any) -> None:
        self.p.pipeline.open(SPEC, **kw)

    # The situations.

    def opening_stuck(self) -> None:
        self.open_hangs_at = 1
        self.open()
        assert self.hang.reached.wait(10)

    def running(self) -> None:
        self.open()
        self.until(lambda: self.p.results)

    def running_read_stuck(self) -> None:
        self.first["before_read"] = lambda number: number == 3 and self.hang()
        self.open()
        assert self.hang.reached.wait(10)

    def running_infer_stuck(self) -> None:
        self.detector.work = self.hang
        self.open()
        assert self.hang.reached.wait(10)

    def paused(self) -> None:
        self.open(paused=True)
        self.until(lambda: self.p.results)

    def paused_step_stuck(self) -> None:
        self.first["before_read"] = lambda number: number == 1 and self.hang()
        self.paused()
        self.p.pipeline.step(1)
        assert self.hang.reached.wait(10)

    def paused_seek_stuck(self) -> None:
        self.seek_hangs = True
        self.paused()
        self.p.pipeline.seek(5.0)
        assert self.hang.reached.wait(10)

    def paused_model_stuck(self) -> None:
        self.paused()
        self.p.pipeline.set_detector(type(self.detector)("next", self.hang))
        assert self.hang.reached.wait(10)

    def ended(self) -> None:
        self.first["count"] = 4
        self.open()
        self.until(lambda: self.p.pipeline.ended)

    def ended_infer_stuck(self) -> None:
        self.first["count"] = 1
        self.detector.work = self.hang
        self.open()
        assert self.hang.reached.wait(10)
        self.until(lambda: self.p.pipeline.ended)

    def failed(self) -> None:
        self.first["before_read"] = self._fail_at_3
        self.open()
        self.until(lambda: self.p.pipeline.state is State.FAILED)

    def failed_infer_stuck(self) -> None:
        self.first["before_read"] = lambda number: number == 3 and (self.hang.reached.wait(10), self._fail_at_3(3))
        self.detector.work = self.hang
        self.open()
        self.until(lambda: self.p.pipeline.state is State.FAILED)

    def _fail_at_3(self, number: int) -> None:
        if number == 3:
            raise SourceError("failed on purpose")

    def reconnecting(self) -> None:
        def lost(number: int) -> None:
            if number == 1:
                raise SourceLost("gone")

        self.first |= {"live": True, "before_read": lost}
        self.open()
        self.until(lambda: self.p.pipeline.state is State.RECONNECTING)

    def reconnecting_open_stuck(self) -> None:
        self.open_hangs_at = 2
        self.reconnecting()
        clock = self.p.pipeline._clock
        self.until(lambda: clock.advance(10**9) or self.hang.reached.is_set())


SITUATIONS = [name for name in vars(Scene) if name[0] != "_" and name not in ("until", "open")]


@pytest.fixture
def scene(player, scripted_source, fake_detector, wait_until) -> Any:
    """A Scene whose hang is let go in the end."""
    one = Scene(player, scripted_source, fake_detector, wait_until)
    yield one
    one.hang.let_go.set()


@pytest.mark.parametrize("command", ["stop", "close"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_stop_from_everywhere(scene, situation, command) -> None:
    getattr(scene, situation)()
    p = scene.p
    began = time.monotonic()
    getattr(p.pipeline, command)()
    assert time.monotonic() - began < STOP_LIMIT_S + 1.0  # the second is for a machine that does other things too
    assert p.pipeline.state is State.IDLE
    p.pipeline.stop()  # idempotent
    assert p.kinds().count(Stopped) == 1 and isinstance(p.events[-1], Stopped)
    stuck = situation.endswith("_stuck")
    assert len(p.events[-1].orphans) == stuck == len(alive())
    events, results = len(p.events), len(p.results)
    scene.hang.let_go.set()
    scene.until(lambda: alive() == [])
    assert all(source.closed.is_set() for source in p.sources)
    assert (len(p.events), len(p.results)) == (events, results)  # an orphan that comes back reaches nobody


@pytest.mark.parametrize("situation", SITUATIONS)
def test_open_another_from_everywhere(scene, situation, monkeypatch) -> None:
    monkeypatch.setattr("ledetr.chain.pipeline.STOP_LIMIT_S", 1.5)  # so that a wait is told from a busy machine
    getattr(scene, situation)()
    p = scene.p
    scene.open_hangs_at = None
    p.pipeline.set_detector(None)
    before = len(p.results)
    began = time.monotonic()
    p.pipeline.open(SPEC)
    assert time.monotonic() - began < 1.0  # it never waits
    scene.until(lambda: p.pipeline.ended and p.pipeline.state is State.PAUSED)
    scene.until(lambda: len(p.results) > before and p.numbers()[-1] == 3)
    assert p.pipeline.error is None
    p.pipeline.close()
    scene.hang.let_go.set()
    scene.until(lambda: alive() == [])
    assert all(source.closed.is_set() for source in p.sources)


def test_every_command_is_legal_when_idle_and_after_close(player, scripted_source) -> None:
    p = player(lambda **kw: scripted_source(**kw))
    for _ in range(2):
        p.pipeline.play()
        p.pipeline.pause()
        p.pipeline.seek(1.0)
        p.pipeline.step(1)
        p.pipeline.set_speed(2.0)
        p.pipeline.set_policy("every")
        p.pipeline.stop()
        assert p.pipeline.state is State.IDLE and p.events == [] and p.pipeline.latest() is None
        assert p.pipeline.snapshot().info is None and p.pipeline.recording is None
        p.pipeline.close()
    with pytest.raises(ValueError, match="was closed"):
        p.pipeline.open(SPEC)


def test_stop_from_a_callback(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(**kw), config=FAST)
    p.pipeline.on_result = p.pipeline.stop
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.state is State.IDLE and alive() == [])


def test_a_storm_of_commands_ends_in_order(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=500, **kw), policy="every", config=FAST)
    p.pipeline.open(SPEC)

    def storm(seed: int) -> None:
        for i in range(60):
            [
                p.pipeline.play,
                p.pipeline.pause,
                lambda: p.pipeline.step(1),
                lambda: p.pipeline.step(-1),
                lambda i=i: p.pipeline.seek((i * 7 + seed) % 20),
                lambda: p.pipeline.set_detector(None),
            ][(i * 5 + seed) % 6]()

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    p.pipeline.seek(19.0)
    p.pipeline.pause()
    wait_until(lambda: p.pipeline.latest() is not None and p.pipeline.latest().frame.meta.pts >= 475)
    wait_until(lambda: p.pipeline.state is State.PAUSED)
    p.pipeline.stop()
    assert alive() == []
    meters = p.pipeline.meters.snapshot()
    assert meters.captured == meters.published + meters.dropped_before_inference + meters.discarded


# Live sources.


def test_a_lost_live_source_is_brought_back(player, scripted_source, wait_until) -> None:
    clock = FakeClock()

    def make(**kw: Any) -> Any:
        if len(p.sources) in (1, 2):
            p.sources.append(None)
            raise SourceLost("still away")

        def before_read(number: int) -> None:
            if number == 3 and len(p.sources) == 1:
                raise SourceLost("cable pulled")
            if number == 5:
                clock.sleep_until(1 << 62, source.interrupted)

        size = (8, 6) if len(p.sources) == 0 else (16, 12)
        source = scripted_source(count=None, live=True, size=size, before_read=before_read, **kw)
        return source

    p = player(make, clock=clock, policy="every")
    p.pipeline.open(VideoSpec(Path("cam")))
    wait_until(lambda: p.kinds() == [Opened, Stalled, Reconnecting])
    assert p.events[1].reason == "cable pulled" and p.pipeline.state is State.RECONNECTING
    assert p.pipeline.latest().frame.meta.pts == 2  # the last picture stays
    for attempt, most_s in ((1, 0.5), (2, 1.0), (3, 2.0)):
        wait_until(lambda attempt=attempt: p.kinds().count(Reconnecting) == attempt and "capture" in clock.sleepers())
        wait = p.events[-1]
        assert wait.attempt == attempt and 0.8 * most_s <= wait.next_in_s <= most_s
        clock.advance(round(most_s * 1e9))
    wait_until(lambda: Restored in p.kinds() and p.numbers() == [0, 1, 2, 0, 1, 2, 3, 4])
    restored = p.events[-1]
    assert restored.gap_s == pytest.approx(3.5) and (restored.info.width, restored.info.height) == (16, 12)
    assert p.pipeline.info is restored.info and p.pipeline.state is State.RUNNING
    epochs = [result.frame.meta.epoch for result in p.results]
    assert epochs == sorted(epochs) and epochs[3] > epochs[2]
    p.pipeline.stop()
    wait_until(lambda: alive() == [])


def test_a_flapping_source_is_tried_more_and_more_slowly(player, scripted_source, wait_until) -> None:
    clock = FakeClock()
    flaps = 12

    def flap(number: int) -> None:
        if number == 1 and len(p.sources) <= flaps:
            raise SourceLost("gone again")
        if number == 1:
            clock.sleep_until(clock.now_ns() + 11_000_000_000, p.sources[-1].interrupted)
        if number == 2 and len(p.sources) == flaps + 1:
            raise SourceLost("gone after 11 steady seconds")

    p = player(lambda **kw: scripted_source(count=None, live=True, before_read=flap, **kw), clock=clock)
    p.pipeline.open(SPEC)
    for tries in range(1, flaps + 1):
        wait_until(lambda tries=tries: p.kinds().count(Reconnecting) == tries and "capture" in clock.sleepers())
        assert len(alive()) <= 4  # no thread is left behind by a try
        clock.advance(10_000_000_000)
    delays_s = [event.next_in_s for event in p.events if isinstance(event, Reconnecting)]
    assert delays_s[0] <= 0.5 and min(delays_s[5:]) >= 8 and max(delays_s) <= 10
    wait_until(lambda: p.kinds()[-1] is Restored and "source scripted.mp4" in clock.sleepers())
    clock.advance(11_000_000_000)
    wait_until(lambda: p.kinds()[-1] is Reconnecting)
    assert p.events[-1].attempt == 1
    assert all(source.closed.is_set() for source in p.sources[:-1])


def test_a_wrong_password_at_the_return_ends_the_tries(player, scripted_source, wait_until) -> None:
    clock = FakeClock()

    def lost(number: int) -> None:
        raise SourceLost("gone")

    def make(**kw: Any) -> Any:
        if p.sources:
            raise SourceError("rtsp://user:***@host refused the user name or password; check both.")
        return scripted_source(live=True, before_read=lost, **kw)

    p = player(make, clock=clock)
    p.pipeline.open(SPEC)
    wait_until(lambda: Reconnecting in p.kinds() and "capture" in clock.sleepers())
    clock.advance(10**9)
    wait_until(lambda: p.pipeline.state is State.FAILED)
    assert p.kinds() == [Opened, Stalled, Reconnecting, Failed]


def test_stop_while_waiting_for_the_return(player, scripted_source, wait_until) -> None:
    def lost(number: int) -> None:
        raise SourceLost("gone")

    p = player(lambda **kw: scripted_source(live=True, before_read=lost, **kw), clock=FakeClock())
    p.pipeline.open(SPEC)
    wait_until(lambda: p.pipeline.state is State.RECONNECTING)
    p.pipeline.stop()
    assert p.pipeline.state is State.IDLE and alive() == []


def test_a_silent_live_source_stalls_and_is_left_to_itself(player, scripted_source, wait_until) -> None:
    let_go, clock = threading.Event(), FakeClock()

    def make(**kw: Any) -> Any:
        first = not p.sources
        return scripted_source(count=None, live=True, before_read=lambda n: n == 2 and first and let_go.wait(30), **kw)

    p = player(make, clock=clock, config=CaptureConfig(read_deadline_s=-0.4))
    p.pipeline.open(SPEC)
    wait_until(lambda: Reconnecting in p.kinds() and "capture" in clock.sleepers())
    assert p.kinds()[:3] == [Opened, Stalled, Reconnecting]
    clock.advance(10**9)
    wait_until(lambda: Restored in p.kinds())
    p.pipeline.stop()
    assert "source scripted.mp4" in p.events[-1].orphans
    let_go.set()
    wait_until(lambda: alive() == [] and p.sources[0].closed.is_set())


def test_a_paused_live_source_is_read_on(player, scripted_source, wait_until) -> None:
    clock = FakeClock()
    gate = threading.Semaphore(0)

    def before_read(number: int) -> None:
        while not gate.acquire(timeout=0.01):
            if source[0].interrupted.is_set():
                return

    source: list[Any] = []

    def make(**kw: Any) -> Any:
        source.append(scripted_source(count=None, live=True, before_read=before_read, **kw))
        return source[-1]

    p = player(make, clock=clock, policy="every")
    p.pipeline.open(SPEC)
    gate.release()
    wait_until(lambda: p.numbers() == [0])
    p.pipeline.pause()
    gate.release(5)
    wait_until(lambda: source[0].next == 6 and p.pipeline.meters.snapshot().discarded == 5)
    p.pipeline.seek(0)  # means nothing here
    p.pipeline.step(-1)
    p.pipeline.play()
    gate.release()
    wait_until(lambda: p.numbers() == [0, 6])


def test_opening_another_source_closes_the_first(player, scripted_source, wait_until) -> None:
    p = player(lambda **kw: scripted_source(count=None, **kw), config=FAST)
    for count in range(1, 6):
        p.pipeline.open(SPEC)
        wait_until(lambda count=count: len(p.sources) == count and p.pipeline.latest() is not None)
    wait_until(lambda: all(source.closed.is_set() for source in p.sources[:-1]))
    assert len(alive()) == 3
    p.pipeline.close()
    assert alive() == [] and p.sources[-1].closed.is_set()
