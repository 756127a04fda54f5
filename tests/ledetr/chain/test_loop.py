"""A part of a file played again and again."""

import itertools
import threading
from pathlib import Path

import pytest

from ledetr.chain.capture import CaptureConfig
from ledetr.chain.clock import FakeClock
from ledetr.chain.pipeline import Pipeline, State
from ledetr.chain.sources import VideoSpec

SPEC = VideoSpec(Path("scripted.mp4"))  # only its name is used: the opener is ours
FAST = CaptureConfig(paced=False)


@pytest.fixture
def open_looping(scripted_source):
    """Opens 20 frames at 25 a second, paused on the first, with a loop; gives the pipeline and what came out."""
    made = []

    def make(start_s, end_s, detector=None, **kwargs):
        numbers = []
        pipeline = Pipeline(
            detector,
            opener=lambda spec, clock, epoch: scripted_source(count=20, clock=clock, epoch=epoch),
            on_result=lambda: numbers.append(pipeline.latest().frame.meta.pts),
            **{"policy": "every", "config": FAST, **kwargs},
        )
        made.append(pipeline)
        pipeline.open(SPEC, paused=True)
        pipeline.set_loop(start_s, end_s)
        return pipeline, numbers

    yield make
    for pipeline in made:
        pipeline.close()


def looped(numbers, first, last):
    """The numbers that come after 0 where first..last are played again and again."""
    expected = itertools.chain(range(last + 1), itertools.cycle(range(first, last + 1)))
    return list(itertools.islice(expected, len(numbers)))


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "last"), [(0.2, 0.4, 5, 10), (None, 0.08, 0, 2), (0.6, None, 15, 19)]
)
def test_every_frame_of_the_loop_again_and_again(open_looping, wait_until, start_s, end_s, first, last) -> None:
    pipeline, numbers = open_looping(start_s, end_s)
    pipeline.play()
    wait_until(lambda: len(numbers) > 50)
    pipeline.pause()
    wait_until(lambda: pipeline.state is State.PAUSED)
    assert numbers == looped(numbers, first, last)
    assert not pipeline.ended


def test_without_the_loop_it_ends(open_looping, wait_until) -> None:
    pipeline, numbers = open_looping(0.2, 0.4)
    pipeline.play()
    wait_until(lambda: len(numbers) > 30)
    pipeline.clear_loop()
    wait_until(lambda: pipeline.ended and numbers[-1] == 19)


def test_a_seek_behind_the_loop_leads_out_of_it(open_looping, wait_until) -> None:
    pipeline, numbers = open_looping(0.2, 0.4)
    pipeline.seek(0.6)
    wait_until(lambda: numbers and numbers[-1] == 15)
    pipeline.play()
    wait_until(lambda: pipeline.ended and numbers[-1] == 19)
    assert numbers[-5:] == [15, 16, 17, 18, 19]
    pipeline.play()  # again, from where the loop begins
    wait_until(lambda: 5 in numbers[numbers.index(19) :])


def test_a_loop_shorter_than_one_inference_still_shows_pictures(open_looping, fake_detector, wait_until) -> None:
    """Each round is a jump; were the frame in the detector's hands stale after it, none would ever be shown."""
    rounds = threading.Event()
    detector = fake_detector(work=lambda: rounds.wait(0.15))
    pipeline, numbers = open_looping(0.2, 0.24, detector, policy="latest", config=CaptureConfig())
    wait_until(lambda: numbers == [0])
    pipeline.seek(0.2)
    wait_until(lambda: numbers[-1] == 5)
    pipeline.play()
    wait_until(lambda: len(numbers) > 6)
    assert set(numbers[2:]) <= {5, 6}
    rounds.set()


def test_the_last_frame_of_a_round_has_its_time(open_looping, wait_until) -> None:
    clock = FakeClock()
    pipeline, numbers = open_looping(0.0, 0.08, clock=clock, config=CaptureConfig())
    wait_until(lambda: numbers == [0])
    pipeline.play()
    for shown, until_ms in (([0, 1], 40), ([0, 1, 2], 80), ([0, 1, 2, 0], 120), ([0, 1, 2, 0, 1], 160)):
        wait_until(lambda until_ms=until_ms: clock.sleepers().get("capture") == until_ms * 1_000_000)
        assert numbers == shown
        clock.advance(40_000_000)


def test_a_loop_that_ends_before_it_begins_is_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="begins before it ends"):
        Pipeline().set_loop(2.0, 1.0)
