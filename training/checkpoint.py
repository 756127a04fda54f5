"""Checkpoints that are there whole or not at all, whatever kills the process, and that run no code when loaded.

    FOLDER/step-000001000/manifest.json         step, metric, extra; every file with its size and SHA-256
    FOLDER/step-000001000/weights-0.safetensors weights and averages, in parts
    FOLDER/step-000001000/moments-0.safetensors the optimiser's state, in parts
    FOLDER/last.json  FOLDER/best.json          which of them is the newest, which the best, and how good it is

A checkpoint is written under a name that starts with a dot, flushed to the disk, renamed, read again, and only then
pointed to; older ones go last. At every moment between two system calls, `last` names a complete checkpoint.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ledetr.errors import LeDetrError, OutputError, WeightsError
from ledetr.files import flush_to_disk, sha256_of

FORMAT = 1
PART_BYTES = 48 * 2**20  # a part stays below the size at which common hosts refuse a file
UNFINISHED = ".part-"


class NotFiniteError(LeDetrError):
    """A state with an infinite or undefined number in it, which is never written."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a run needs to go on."""

    step: int
    """The next step to make."""
    weights: Mapping[str, Tensor]
    """Weights and averages under flat names, e.g. "model/...", "ema/0/..."."""
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    """State of the optimiser under flat names."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that fit JSON: config, class names, code version, seed."""


@dataclass(frozen=True, kw_only=True)
class Pointed:
    """What `last` or `best` points to."""

    path: Path
    step: int
    metric: float | None


class Checkpoints:
    """The checkpoints of one run in one folder. One process writes, any number may read."""

    def __init__(self, folder: str | Path, *, keep: int = 2, part_bytes: int = PART_BYTES) -> None:
        if keep < 1:
            raise ValueError(f"at least one checkpoint must be kept, got {keep}")
        self.folder, self.keep, self.part_bytes = Path(folder), keep, part_bytes

    def save(self, snapshot: Snapshot, *, metric: float | None = None, milestone: bool = False) -> Path:
        """Write a snapshot and point `last` at it, and `best` if its metric is higher than that of any before.

        milestone: keep this one for good. Raises NotFiniteError and writes nothing if a number is not finite,
        OutputError if the disk refuses; `last` and `best` are then as they were.
        """
        _check_finite(snapshot)
        final = self._free_name(snapshot.step)
        part = self.folder / f"{UNFINISHED}{final.name}-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            part.mkdir()
            self._write_files(part, snapshot, metric, milestone)
            part.rename(final)
            flush_to_disk(self.folder)
            _verified_manifest(final)
            best = self.best()
            self._point("last", final, snapshot.step, metric)
            if metric is not None and (best is None or best.metric is None or metric > best.metric):
                self._point("best", final, snapshot.step, metric)
            self._delete_old(final)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(
                f"cannot write the checkpoint {str(final)!r}: {reason}; free space or choose another folder"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return final

    def load(self, which: Literal["last", "best"] | Path = "last", device: str = "cpu") -> Snapshot:
        """The snapshot that `last` or `best` names, or that of a checkpoint's own folder.

        Sizes and checksums are compared first. Raises WeightsError if there is none or if it is damaged.
        """
        if isinstance(which, Path):
            path = which
        else:
            pointed = self._pointed(which)
            if pointed is None:
                raise WeightsError(f"there is no {which} checkpoint in {str(self.folder)!r} yet")
            path = pointed.path
        manifest = _verified_manifest(path)
        tensors: dict[str, dict[str, Tensor]] = {"weights": {}, "moments": {}}
        for entry in manifest["files"]:
            tensors[entry["kind"]] |= _read(path / entry["name"], device)
        return Snapshot(
            step=manifest["step"], weights=tensors["weights"], moments=tensors["moments"], extra=manifest["extra"]
        )

    def last(self) -> Pointed | None:
        """The newest complete checkpoint, None before the first."""
        return self._pointed("last")

    def best(self) -> Pointed | None:
        """The checkpoint with the highest metric so far, None before the first with a metric."""
        return self._pointed("best")

    def _free_name(self, step: int) -> Path:
        """A new folder even for a step that was saved before: the one that is pointed to is never touched."""
        path, again = self.folder / f"step-{step:09d}", 1
        while path.exists():
            path, again = self.folder / f"step-{step:09d}-{again}", again + 1
        return path

    def _write_files(self, part: Path, snapshot: Snapshot, metric: float | None, milestone: bool) -> None:
        entries = []
        for kind, tensors in (("weights", snapshot.weights), ("moments", snapshot.moments)):
            for index, chunk in enumerate(_parts(tensors, self.part_bytes)):
                path = part / f"{kind}-{index}.safetensors"
                save_file(chunk, path)
                flush_to_disk(path)
                entries.append(
                    {"name": path.name, "kind": kind, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
                )
        manifest = {
            "format": FORMAT,
            "step": snapshot.step,
            "metric": metric,
            "milestone": milestone,
            "extra": dict(snapshot.extra),
            "files": entries,
        }
        _write_flushed(part / "manifest.json", json.dumps(manifest, indent=1, allow_nan=False))
        flush_to_disk(part)

    def _point(self, which: str, path: Path, step: int, metric: float | None) -> None:
        """Replace a pointer in one system call."""
        part = self.folder / f"{UNFINISHED}{which}.json"
        _write_flushed(part, json.dumps({"name": path.name, "step": step, "metric": metric}))
        part.replace(self.folder / f"{which}.json")
        flush_to_disk(self.folder)

    def _pointed(self, which: str) -> Pointed | None:
        pointer = self.folder / f"{which}.json"
        try:
            value = json.loads(pointer.read_text())
            name, step, metric = str(value["name"]), int(value["step"]), value["metric"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{str(pointer)!r} is damaged; name a checkpoint folder beside it instead") from error
        _check_plain_name(name, pointer)
        return Pointed(path=self.folder / name, step=step, metric=None if metric is None else float(metric))

    def _delete_old(self, newest: Path) -> None:
        """All but the newest few, the best and the milestones; by time, because a run may have gone back."""
        pointed = self.best()
        kept = {newest, *([pointed.path] if pointed else [])}
        others = [path for path in self.folder.glob("step-*") if path != newest]
        others.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        for path in others[self.keep - 1 :]:
            if path not in kept and not _is_milestone(path):
                self._forget(path)

    def _forget(self, path: Path) -> None:
        """Out of sight first: a checkpoint that is half deleted must not bear its name."""
        gone = self.folder / f"{UNFINISHED}gone-{path.name}-{os.getpid()}"
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a killed process left behind."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _check_finite(snapshot: Snapshot) -> None:
    for kind in (snapshot.weights, snapshot.moments):
        for name, tensor in kind.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NotFiniteError(
                    f"the state at step {snapshot.step} is not saved because {name!r} has a value that is not finite; "
                    "go on from the last checkpoint with a lower learning rate"
                )


def _parts(tensors: Mapping[str, Tensor], part_bytes: int) -> Iterator[dict[str, Tensor]]:
    """The tensors as plain copies on the host, in portions of about this size; a larger tensor is alone in its part."""
    chunk: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        # a copy of its own for each: modules may share a tensor, a file may not
        host = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        if chunk and size + host.nbytes > part_bytes:
            yield chunk
            chunk, size = {}, 0
        chunk[name] = host
        size += host.nbytes
    if chunk:
        yield chunk


def _read(path: Path, device: str) -> dict[str, Tensor]:
    try:
        return load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{str(path)!r} cannot be read as safetensors: {error}") from error


def _verified_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint all of whose files are as they were written."""
    damaged = f"the checkpoint {str(path)!r} is damaged"
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        files, version = manifest["files"], manifest["format"]
        step, extra = manifest["step"], manifest["extra"]
    except FileNotFoundError as error:
        raise WeightsError(f"{str(path)!r} is no checkpoint: it has no manifest.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{damaged}: its manifest.json cannot be read; take an older one") from error
    if version != FORMAT or not isinstance(step, int) or not isinstance(extra, dict):
        raise WeightsError(f"the checkpoint {str(path)!r} has format {version!r}, this version reads format {FORMAT}")
    for entry in files:
        name = str(entry.get("name"))
        _check_plain_name(name, path / "manifest.json")
        file = path / name
        if entry.get("kind") not in ("weights", "moments"):
            raise WeightsError(f"{damaged}: {name} is of an unknown kind; take an older one")
        if not file.is_file() or file.stat().st_size != entry.get("bytes") or sha256_of(file) != entry.get("sha256"):
            raise WeightsError(f"{damaged}: {name} is not what the manifest says; take an older one")
    return dict(manifest)


def _check_plain_name(name: str, where: Path) -> None:
    """A name from a file must stay inside its folder."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise WeightsError(f"{str(where)!r} names {name!r}, which is not a plain file name")


def _is_milestone(path: Path) -> bool:
    try:
        return bool(json.loads((path / "manifest.json").read_text()).get("milestone"))
    except (OSError, ValueError, AttributeError):
        return False


def _write_flushed(path: Path, text: str) -> None:
    path.write_text(text)
    flush_to_disk(path)
