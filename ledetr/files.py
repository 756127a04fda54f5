"""Files that appear whole under their name, or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    Same folder, so that the rename stays on one disk. On an error the temporary file is removed and `path` is as it
    was before. private: for its owner's eyes alone. Raises OSError as the writing does.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if private:
            part.unlink(missing_ok=True)  # what a killed process of this number left behind may be open to others
            part.touch(mode=0o600, exist_ok=False)
        yield part
        flush_to_disk(part)  # else a power cut may leave an empty file under the final name
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


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network and FUSE disks that have no fsync
            raise
    finally:
        os.close(descriptor)


def sha256_of(path: Path, *, start: int = 0) -> str:
    """Hexadecimal SHA-256 of a file from byte `start` on, read in small pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
