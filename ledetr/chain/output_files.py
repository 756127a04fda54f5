"""Where a result may be written: free names, part files, a rename at the end, and an eye on the disk.

Nothing is ever half-written under its final name, and no file that was there before is touched without being asked.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ledetr.errors import LeDetrError, OutputError, UsageError
from ledetr.files import flush_to_disk

MEGABYTE = 1_000_000
_CHECK_PERIOD_S = 1.0


def output_error(path: Path, error: Exception) -> OutputError:
    """The sentence for a write that failed: an OSError, or an error of FFmpeg, which has the same fields."""
    code: int | None = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk that holds {path.parent} is full; free some space or choose another folder.")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"Writing in the folder {path.parent} is not permitted; choose another one with -o.")
    if code == errno.ENAMETOOLONG:
        return OutputError(f"The name {path.name[:40]}... is too long for this disk; choose a shorter one with -o.")
    reason = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return OutputError(f"Cannot write {path}: {reason[:1].lower()}{reason[1:]}.")


def choose_target(path: Path, *, overwrite: bool = False, sources: Iterable[Path] = ()) -> Path:
    """The name a result will get: path itself, or with overwrite=False the next free one, `name (2).mp4`.

    Raises UsageError where it is one of the sources, also through links; OutputError where the folder is missing or
    path is a folder.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where the name is too long, which is said later
        raise OutputError(f"{path} is a folder, and a file name was expected.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; make it first or choose another one.")
    for source in sources:
        if same_file(path, source):
            raise UsageError(f"The result would replace its own source {source}; choose another name with -o.")
    return path if overwrite else free_name(path)


def same_file(a: Path, b: Path) -> bool:
    """Whether both names lead to one file: through symbolic links, hard links, or spelling."""
    try:
        return a.samefile(b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def free_name(path: Path) -> Path:
    """path where nothing has that name yet, else `name (2).ext`, `name (3).ext` and so on."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free


def reserve_part(target: Path) -> Path:
    """Make an empty file `name.part.mp4` beside the target and give its path; proves that writing is possible.

    A part file of that name that is already there may be all that is left of an earlier run, and is left alone.
    """
    part = target.with_name(f"{target.stem}.part{target.suffix}")
    while True:
        part = free_name(part)
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue  # another process was faster
        except OSError as error:
            raise output_error(target, error) from error
        return part


def check_writable(folder: Path) -> None:
    """Raises OutputError where no file can be made in the folder; one that is missing yet, where it cannot be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(f"{there} is a file, and a folder was expected.")
    reserve_part(there / "try").unlink()


def publish(part: Path, target: Path, *, overwrite: bool = False) -> Path:
    """Give a finished file its final name in one step, on disk before that; the name it got comes back.

    Without overwrite a file that appeared meanwhile is kept, and the next free name is taken.
    """
    try:
        flush_to_disk(part)
        if overwrite:
            part.replace(target)
        else:
            target = _rename_to_free(part, target)
        flush_to_disk(target.parent)
    except OSError as error:
        raise output_error(target, error) from error
    return target


def keep_partial(part: Path, target: Path) -> Path:
    """Name an unfinished but usable file `name.partial.mp4`, or the next free name."""
    try:
        return _rename_to_free(part, target.with_name(f"{target.stem}.partial{target.suffix}"))
    except OSError as error:
        raise output_error(target, error) from error


def kept_in(pictures: int, paths: Iterable[Path | None]) -> str:
    """Half a sentence on what an early end left; None stands for an output that has nothing."""
    names = [str(path) for path in paths if path is not None]
    return f"{pictures} pictures are kept in {' and '.join(names)}" if names else "nothing was written"


def say_what_is_kept(error: BaseException, keep: Callable[[], str]) -> None:
    """Keep what the error leaves unfinished, and add where to its sentence; it stays the first cause whatever happens.

    keep: does it, and gives half a sentence, "" for nothing to say.
    """
    try:
        kept = keep()
    except OutputError as second:
        kept = f"what was written so far stays in the part file ({second})"
    if kept and isinstance(error, LeDetrError):
        error.args = (f"{str(error).rstrip('.')}; {kept}.",)
    elif kept:
        error.add_note(f"{kept}.")


def _rename_to_free(part: Path, target: Path) -> Path:
    while True:
        free = free_name(target)
        try:
            os.link(part, free)  # fails where the name is taken, which a rename would not
        except FileExistsError:
            continue
        except OSError:
            part.rename(free)  # a disk without hard links, e.g. FAT
        else:
            part.unlink()
        return free


class DiskWatch:
    """Says in time that a disk runs full: below max(500 MB, 2 % of it), but never more than a tenth of it.

    The tenth is for small disks, such as a 4 GB stick, which would else be full when empty.
    """

    def __init__(self, folder: Path, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._now_s = now_s
        self._next_s = -float("inf")

    def check(self) -> None:
        """Raises OutputError when too little is left; looks at the disk at most once a second."""
        now_s = self._now_s()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _CHECK_PERIOD_S
        usage = shutil.disk_usage(self._folder)
        reserve = min(max(500 * MEGABYTE, usage.total // 50), usage.total // 10)
        if usage.free < reserve:
            raise OutputError(
                f"The disk that holds {self._folder} is nearly full: {_size(usage.free)} are left, and "
                f"{_size(reserve)} are kept free; free some space or choose another folder."
            )

    def check_room_for(self, nbytes: int) -> None:
        """Raises OutputError where a file of this size does not fit any more."""
        free = shutil.disk_usage(self._folder).free
        if free < nbytes * 1.01 + 65536:
            raise OutputError(
                f"The disk that holds {self._folder} is full: {_size(nbytes)} are needed to complete the file and "
                f"{_size(free)} are left; free some space or choose another folder."
            )


def _size(nbytes: int) -> str:
    if nbytes < MEGABYTE:
        return f"{nbytes // 1000} kB"
    return f"{nbytes / MEGABYTE:.0f} MB" if nbytes >= 10 * MEGABYTE else f"{nbytes / MEGABYTE:.1f} MB"
