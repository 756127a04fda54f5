"""Results of many tasks that appear once and whole: each task works in folders of its own, and one process hands out.

Beside every final place lies a folder `unfinished`, in it one folder for each task. A worker writes there and nowhere
else, and at the end a receipt, which is what makes the task done. Only the process that gave the tasks moves finished
files to their final names. So a worker that dies, before or behind any of its steps, leaves nothing that could be
taken for a result, and nothing is made twice.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ledetr.chain.output_files import output_error, publish
from ledetr.chain.resume import still_runs
from ledetr.errors import OutputError, UsageError
from ledetr.files import whole_file

UNFINISHED = "unfinished"
_RECEIPT = "receipt.json"
_OWNER = "owner.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """The folders of one task. key: its name in them. finals: where its results go in the end, by what they are.

    made_of: says from what and how they are made; a receipt that says something else counts for nothing.
    """

    key: str
    finals: Mapping[str, Path]
    made_of: str

    @property
    def staged(self) -> dict[str, Path]:
        """Where the task writes its results, by what they are."""
        return {kind: self._folder(final) / final.name for kind, final in self.finals.items()}

    def _folder(self, final: Path) -> Path:
        return final.parent / UNFINISHED / self.key

    @property
    def _folders(self) -> list[Path]:
        return sorted({self._folder(final) for final in self.finals.values()})

    @property
    def _receipt(self) -> Path:
        return self._folder(next(iter(self.finals.values()))) / _RECEIPT

    def begin(self, *, resume: bool) -> bool:
        """Make the folders; whether there is something in them to go on with. Without resume they are emptied."""
        left = resume and any(True for folder in self._folders for _ in folder.glob("*.job.json"))
        with _as_output_error(self._receipt):
            for folder in self._folders:
                if folder.exists() and not left:
                    shutil.rmtree(folder)
                folder.mkdir(parents=True, exist_ok=True)
        return left

    def receipt(self) -> dict[str, Any] | None:
        """What the task gave when it was done; None where it is not, or was made of something else."""
        try:
            kept = json.loads(self._receipt.read_text(encoding="utf-8"))
            given = kept["given"] if kept["made_of"] == self.made_of else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return given if isinstance(given, dict) else None

    def write_receipt(self, given: Mapping[str, Any]) -> None:
        """The task is done; its results lie whole in their folders. given: JSON values."""
        with _as_output_error(self._receipt), whole_file(self._receipt, private=True) as part:
            part.write_text(json.dumps({"made_of": self.made_of, "given": given}, indent=1), encoding="utf-8")

    def hand_out(self, *, overwrite: bool) -> dict[str, Path]:
        """Move the results of a task that is done to their final names; the names they got come back.

        Where it was done before, the names that were asked for. Without overwrite the next free name is taken.
        """
        names = {}
        for kind, path in self.staged.items():
            final = self.finals[kind]
            names[kind] = publish(path, final, overwrite=overwrite) if path.exists() else final
        return names

    def clear(self) -> None:
        """Take the folders away, and `unfinished` with the last one."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others are in it
                folder.parent.rmdir()


@contextmanager
def owned(folders: Sequence[Path]) -> Iterator[None]:
    """One process at a time hands out in these folders. Raises UsageError where another one does, OutputError."""
    owners = [folder / UNFINISHED / _OWNER for folder in folders]
    for owner in owners:
        _take(owner)
    try:
        yield
    finally:
        for owner in owners:
            owner.unlink(missing_ok=True)
            with suppress(OSError):  # something is left to go on with
                owner.parent.rmdir()


def _take(owner: Path) -> None:
    process = psutil.Process()
    me = {"host": socket.gethostname(), "pid": process.pid, "began_s": process.create_time()}
    with suppress(OSError, ValueError, KeyError, TypeError):
        other = json.loads(owner.read_text(encoding="utf-8"))
        if other["host"] != me["host"] or still_runs(int(other["pid"]), float(other["began_s"])):
            raise UsageError(
                f"Process {other['pid']} on {other['host']} works in {owner.parent}; wait for it or stop it, and where "
                f"it is gone, remove {owner}."
            )
    with _as_output_error(owner):
        owner.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(owner) as part:
            part.write_text(json.dumps(me), encoding="utf-8")


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error) from error


def owner_folders(stages: Sequence[Stage]) -> list[Path]:
    """The folders in which these stages hand out, each once."""
    return sorted({final.parent for stage in stages for final in stage.finals.values()}, key=os.fspath)
