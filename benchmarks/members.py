"""What a member of the bad-input corpus is, and how most of them are made."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.good_files import write_video

REFUSED, WEIGHTS, HANDLED, EITHER = (3,), (4,), (0,), (0, 3)
EVAL = ("eval", "{}", "--resamples", "0", "--images")


@dataclass(frozen=True, slots=True)
class Member:
    """One thing to give to the command line.

    name: of the file in the corpus, or the address itself. group: of the table in the design. codes: exit codes that
    are right. make: writes the file at a path. words: what stands before the name on the command line; a {} in them is
    the name. frames: how many pictures the result must have, where it is handled. fixed: the same bytes everywhere.
    named: what the sentence names in its place.
    """

    name: str
    group: str
    codes: tuple[int, ...] = REFUSED
    make: Callable[[Path], object] | None = None
    words: tuple[str, ...] = ("detect",)
    frames: int | None = None
    fixed: bool = False
    named: str = ""


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def filmed(**form: Any) -> Callable[[Path], object]:
    return lambda path: write_video(path, **form)


def spoilt(change: Callable[[bytes], bytes], **form: Any) -> Callable[[Path], object]:
    """A video that is written well, then changed."""
    return lambda path: path.write_bytes(change(write_video(path, **form).read_bytes()))


def flipped(data: bytes, bits: int, part: str, seed: int) -> bytes:
    """Bits of the first 200 bytes (header), of the last 2000 (index), or of anything between (payload) turned over."""
    chance = random.Random(f"{seed} {bits} {part} {len(data)}")
    low, high = {
        "header": (0, min(200, len(data))),
        "index": (max(0, len(data) - 2000), len(data)),
        "payload": (min(200, len(data) // 4), max(len(data) // 4 + 1, len(data) - 200)),
    }[part]
    broken = bytearray(data)
    for _ in range(bits):
        broken[chance.randrange(low, high)] ^= 1 << chance.randrange(8)
    return bytes(broken)
