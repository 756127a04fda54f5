"""The fuzzer itself: healthy files are read, damage is the same each time, and what breaks is noticed."""

import shutil
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.child import Child


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    fuzz.write_good(folder)
    return folder


@pytest.mark.parametrize("kind", fuzz.READERS)
def test_what_is_healthy_is_read_and_damage_is_the_same_each_time(good: Path, tmp_path: Path, kind: str) -> None:
    data = (good / f"good.{kind}").read_bytes()
    for name in ("good.mp4", "good.png", "good.jpg"):
        shutil.copy2(good / name, tmp_path)
    path = tmp_path / f"case.{kind}"
    path.write_bytes(fuzz.broken(data, fuzz.Case(kind, -1, "")))
    read = fuzz.READERS[kind](path)
    assert read or (kind == "settings" and read == "")  # of settings the problem, which is none
    cases = [fuzz.broken(data, fuzz.Case(kind, number, "")) for number in (*range(20), *range(20))]
    assert cases[:20] == cases[20:] and len(set(cases[:20])) > 15 and data not in cases[:10]


def breaks() -> object:
    """For the child: dies, hangs or takes memory, as it is told."""
    import os
    import signal
    import time

    def work(word: str) -> str:
        if word == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "hang":
            time.sleep(60)
        if word == "spin":
            while True:
                pass
        if word == "eat":
            try:
                return str(len(bytearray(4 << 30)))
            except MemoryError:
                return "MemoryError"
        return word

    return work


def test_a_child_that_dies_or_hangs_is_told_and_started_again() -> None:
    with Child(breaks, room_bytes=1 << 30, hang_s=0.5) as child:  # type: ignore[arg-type]
        assert child.ask("fine").value == "fine"
        assert child.ask("die").died == "died of SIGSEGV"
        assert child.ask("hang").died == "hung for 0.5 s"
        assert child.ask("spin").died == "hung for 0.5 s"
        assert child.ask("eat").value == "MemoryError"
        assert child.ask("fine").value == "fine" and child.starts == 4


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_seconds_break_nothing() -> None:
    counts, bad = fuzz.fuzz(list(fuzz.READERS), 10.0, seed=1)
    assert bad == [] and counts.total() >= len(fuzz.READERS)
