"""The judge of benchmarks/golden.py is seen to notice what it is there for."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from benchmarks.golden import Facts, Row, judged

SEEN = Facts(
    pictures=tuple(Fraction(n, 25) for n in range(5)),
    others=(((Fraction(0), "a"), (Fraction(1, 40), "b")),),
    tags=("bt709", "tv", "bt709", "bt709"),
    turned=True,
)
MADE = replace(SEEN, turned=False)


def row(tmp_path: Path, made: Facts, *, result_bytes: int = 100_000) -> Row:
    source, result = tmp_path / "source.mp4", tmp_path / "result.mp4"
    source.write_bytes(bytes(100_000))
    result.write_bytes(bytes(result_bytes))
    return judged("clip", source, result, SEEN, made)


def test_what_is_the_same_passes_also_where_all_tracks_move_alike(tmp_path: Path) -> None:
    assert row(tmp_path, MADE).good
    moved = replace(MADE, pictures=tuple(t + 1 for t in MADE.pictures),
                    others=tuple(tuple((t + 1, data) for t, data in track) for track in MADE.others or ()))  # fmt: skip
    assert row(tmp_path, moved).good


@pytest.mark.parametrize(
    "wrong",
    [
        replace(MADE, pictures=MADE.pictures[:-1]),
        replace(MADE, pictures=(*MADE.pictures[:-1], MADE.pictures[-1] + Fraction(1, 90000))),
        replace(MADE, others=()),
        replace(MADE, others=(((Fraction(0), "a"), (Fraction(1, 40), "another")),)),
        replace(MADE, others=(((Fraction(1, 1000), "a"), (Fraction(1, 40) + Fraction(1, 1000), "b")),)),
        replace(MADE, tags=("bt709", "pc", "bt709", "bt709")),
        replace(MADE, turned=True),
        replace(MADE, complaint="corrupt decoded frame"),
    ],
)
def test_whatever_differs_fails(tmp_path: Path, wrong: Facts) -> None:
    assert not row(tmp_path, wrong).good


def test_one_that_is_too_large_fails(tmp_path: Path) -> None:
    assert row(tmp_path, MADE, result_bytes=150_000).good
    assert not row(tmp_path, MADE, result_bytes=151_000).good
