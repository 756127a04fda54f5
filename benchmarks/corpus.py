"""The bad-input corpus: files, names and addresses that must be refused, or handled, and never break anything.

Everything is made here from slopes and numbers, with fixed seeds; nothing is downloaded. Members that are written byte
by byte are the same everywhere, and FIXED_SHA256 says so; the others depend on the encoders of the installed libraries.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus_documents import addresses, data_sets, onnx, weights
from benchmarks.corpus_media import bombs, cut, damaged, names, not_media, odd_pictures, odd_videos
from benchmarks.good_files import (
    image_bytes,
    write_tiny_weights,
    write_video,
)
from benchmarks.members import Member

MOST_BYTES = 20_000_000
FIXED_SHA256 = "80dd3f9ced94d502b98ec91383fe4858facd8b2362e0c2a71897c2a98c5e778a"


def members() -> list[Member]:
    """All of them."""
    return [
        *not_media(), *cut(), *damaged(), *odd_pictures(), *odd_videos(), *bombs(), *names(), *data_sets(),
        *weights(), *onnx(), *addresses(),
    ]  # fmt: skip


def write_corpus(folder: Path, chosen: Sequence[Member]) -> None:
    """Make them below the folder, and beside them the good files that some lead to."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.png").write_bytes(image_bytes("PNG"))
    write_video(folder / "good.mp4")
    write_tiny_weights(folder / "tiny.safetensors")
    (folder / "pictures").mkdir()
    for name in ("one", "two"):
        (folder / "pictures" / f"{name}.png").write_bytes(image_bytes("PNG"))
    (folder / "pictures" / "link.png").symlink_to(folder / "good.png")
    for member in chosen:
        if member.make is not None:
            member.make(folder / member.name)


def fixed_sha256(folder: Path, chosen: Sequence[Member]) -> str:
    """One hash over the members that are the same everywhere."""
    digest = hashlib.sha256()
    for member in sorted((one for one in chosen if one.fixed), key=lambda one: one.name):
        digest.update(os.fsencode(member.name) + b"\0" + (folder / member.name).read_bytes())
    return digest.hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of all files on the disk; holes are none."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir())
