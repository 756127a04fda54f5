"""Files that appear whole under their name, or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    Same folder, so that the rename stays on one disk. On an error the temporary file is removed and `path` is as it
    was before. Raises OSError as the writing does.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder in `folder` to write these files to; they move out, in this order, when the block ends well.

    On an error the temporary folder is removed and `folder` is as it was before. Raises OSError as the writing does.
    """
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        yield part
        for name in names:
            (part / name).replace(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sha256_of(path: Path, *, start: int = 0) -> str:
    """Hexadecimal SHA-256 of a file from byte `start` on, read in small pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
