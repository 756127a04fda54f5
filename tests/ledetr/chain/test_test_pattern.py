import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledetr.chain.clock import FakeClock
from ledetr.chain.sources import open_source, parse_source
from ledetr.chain.test_pattern import box_at, read_counter


def read_all(text: str) -> list:
    source = open_source(parse_source(text))
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


def test_it_counts_in_the_picture_and_repeats_itself() -> None:
    first, second = read_all("test:320x240p30?frames=5&live=0"), read_all("test:320x240p30?frames=5&live=0")
    assert [read_counter(frame.rgb) for frame in first] == [0, 1, 2, 3, 4]
    assert [frame.meta.pts for frame in first] == [0, 1, 2, 3, 4]
    assert first[0].meta.time_base == Fraction(1, 30)
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one.rgb, two.rgb) and not one.rgb.flags.writeable


@example(12588949, 32, 16)  # five days in, where a float of seconds is coarse
@given(st.integers(0, 2**24 - 1), st.integers(32, 200), st.integers(16, 200))
def test_any_number_can_be_read_back(number: int, width: int, height: int) -> None:
    source = open_source(parse_source(f"test:{width}x{height}p30?live=0"))
    source.seek(number / 30)
    frame = source.read()
    assert read_counter(frame.rgb) == number == frame.meta.pts
    left, top, side = box_at(number, width, height)
    assert (frame.rgb[top : top + side, left : left + side] == 255).all()
    assert 0 <= left <= width - side and height // 8 <= top <= height - side


def test_the_count_survives_a_lossy_codec(tmp_path) -> None:
    frames = read_all("test:320x240p30?frames=12&live=0")
    path = tmp_path / "pattern.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": "35"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame.rgb, "rgb24")))
        output.mux(stream.encode(None))
    source = open_source(parse_source(path))
    assert [read_counter(source.read().rgb) for _ in frames] == list(range(12))


def test_dropped_frames_are_the_same_each_time() -> None:
    numbers = [frame.meta.pts for frame in read_all("test:64x48p30?frames=200&live=0&drop=0.25")]
    assert numbers == [frame.meta.pts for frame in read_all("test:64x48p30?frames=200&live=0&drop=0.25")]
    assert 30 < 200 - len(numbers) < 70
    assert numbers != [frame.meta.pts for frame in read_all("test:64x48p30?frames=200&live=0&drop=0.25&seed=1")]
    frames = read_all("test:64x48p30?frames=200&live=0&drop=0.25")
    assert [frame.meta.seq for frame in frames] == list(range(len(frames)))
    assert [read_counter(frame.rgb) for frame in frames[:3]] == numbers[:3]


def test_live_frames_come_at_their_time(wait_until) -> None:
    clock = FakeClock(5)
    source = open_source(parse_source("test:64x48p25"), clock=clock)
    got = []
    reader = threading.Thread(target=lambda: [got.append(source.read()) for _ in range(3)], name="reader")
    reader.start()
    wait_until(lambda: clock.sleepers() == {"reader": 40_000_005})
    assert len(got) == 1
    clock.advance(40_000_000)
    wait_until(lambda: clock.sleepers() == {"reader": 80_000_005})
    clock.advance(40_000_000)
    reader.join(5)
    assert [frame.meta.t_capture_ns for frame in got] == [5, 40_000_005, 80_000_005]
    assert source.info.live and not source.info.seekable


def test_jitter_comes_late_at_most_that_much(wait_until) -> None:
    clock = FakeClock()
    source = open_source(parse_source("test:64x48p25?jitter=8"), clock=clock)
    times = []
    reader = threading.Thread(target=lambda: [times.append(source.read().meta.t_capture_ns) for _ in range(20)])
    reader.start()
    while reader.is_alive():
        wait_until(lambda: clock.sleepers() or not reader.is_alive())
        clock.advance(max([0, *(until - clock.now_ns() for until in clock.sleepers().values())]))
    late_ms = [time_ns / 1e6 - 40 * i for i, time_ns in enumerate(times)]
    assert all(0 <= late <= 8 for late in late_ms) and len(set(late_ms)) > 10


def test_interrupt_ends_a_waiting_read() -> None:
    source = open_source(parse_source("test:64x48p25"), clock=FakeClock())
    assert source.read() is not None
    answers = []
    reader = threading.Thread(target=lambda: answers.append(source.read()))
    reader.start()
    source.interrupt()
    reader.join(5)
    assert answers == [None]


def test_seek_begins_an_epoch_and_stays_in_range() -> None:
    source = open_source(parse_source("test:64x48p25?frames=10&live=0"), epoch=4)
    assert source.read().meta.epoch == 4
    for pts_s, number in ((0.2, 5), (0.21, 6), (99, 9), (-5, 0)):
        source.seek(pts_s)
        frame = source.read()
        assert (frame.meta.pts, frame.meta.seq) == (number, 0)
    assert frame.meta.epoch == 8


def test_a_picture_without_counter() -> None:
    with pytest.raises(ValueError, match="no counter"):
        read_counter(np.zeros((48, 64, 3), np.uint8))
