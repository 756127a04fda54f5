from fractions import Fraction

import numpy as np
import pytest

from ledetr.chain.sources import ArraysSpec, open_source
from ledetr.errors import SourceError


def arrays(count: int) -> list[np.ndarray]:
    return [np.full((4, 6, 3), i, np.uint8) for i in range(count)]


def test_arrays_come_in_order_with_times_of_the_rate() -> None:
    source = open_source(ArraysSpec(arrays(3), Fraction(30000, 1001)))
    frames = [source.read() for _ in range(3)]
    assert source.read() is None
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [0, 1, 2]
    assert [frame.meta.pts * frame.meta.time_base for frame in frames] == [Fraction(1001 * i, 30000) for i in range(3)]
    assert source.info.frame_count == 3 and not source.info.seekable


def test_given_times_are_kept() -> None:
    source = open_source(ArraysSpec((array, t) for array, t in zip(arrays(3), (0.5, 0.75, 9), strict=True)))
    assert [source.read().meta.pts_s for _ in range(3)] == [0.5, 0.75, 9.0]
    assert source.info.frame_count is None


def test_the_callers_array_stays_writable_and_apart() -> None:
    mine = np.zeros((4, 6, 3), np.uint8)
    frame = open_source(ArraysSpec([mine])).read()
    mine[:] = 255
    assert frame.rgb.max() == 0 and not frame.rgb.flags.writeable


@pytest.mark.parametrize("wrong", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32), "a.jpg"])
def test_something_else_is_the_callers_mistake(wrong) -> None:
    with pytest.raises(ValueError, match=r"arrays must be \(H, W, 3\) uint8"):
        open_source(ArraysSpec([wrong]))


def test_no_arrays_at_all() -> None:
    with pytest.raises(SourceError, match="the iterable is empty"):
        open_source(ArraysSpec([]))
