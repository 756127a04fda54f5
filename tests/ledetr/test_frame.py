"""A frame and the exact moment it belongs to."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

from ledetr.frame import Frame, FrameMeta


def meta(**changes) -> FrameMeta:
    fields = {
        "source_id": "clip", "epoch": 0, "seq": 3, "pts": 3003, "time_base": Fraction(1, 30000),
        "t_capture_ns": 5, "width": 7, "height": 5,
    }  # fmt: skip
    return FrameMeta(**{**fields, **changes})


def test_time_is_exact_until_it_is_shown() -> None:
    assert meta().pts_s == pytest.approx(0.1001)
    # Ten hours at 30000/1001: the float of the product, not a product of floats.
    late = meta(pts=36_000 * 30_000, time_base=Fraction(1, 30_000))
    assert late.pts_s == 36_000.0


def test_the_picture_is_read_only_and_belongs_to_its_meta() -> None:
    frame = Frame(meta(), np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        frame.rgb[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        frame.meta.seq = 4
    assert repr(frame) == "Frame('clip', epoch=0, seq=3, pts_s=0.100, 7x5)"


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        (np.zeros((5, 7, 3), np.float32), "must be .* uint8"),
        (np.zeros((5, 7), np.uint8), "must be .* uint8"),
        (np.zeros((5, 7, 4), np.uint8), "must be .* uint8"),
        (np.zeros((7, 5, 3), np.uint8), r"rgb is \(7, 5\), meta says \(5, 7\)"),
    ],
)
def test_other_arrays_are_refused(rgb: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Frame(meta(), rgb)
