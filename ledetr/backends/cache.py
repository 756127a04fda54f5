"""Converted networks kept on disk, so that a model is converted once per machine and version.

An entry is a folder named by the hash of its key. It appears by one rename, carries the SHA-256 of its files, and is
thrown away when they do not match. Nothing here is ever needed: without a writable cache, engines convert each time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs

from ledetr.files import sha256_of

LIST_NAME = "entry.json"
log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Folder of all converted networks, in the user's cache folder; it need not exist and may be deleted."""
    return platformdirs.user_cache_path("ledetr", appauthor=False) / "engines"


def find_entry(key: Mapping[str, str | int]) -> Path | None:
    """The folder of an intact entry, or None; a damaged one is removed with a log line."""
    folder = _folder(key)
    if not folder.is_dir():
        return None
    try:
        listed = json.loads((folder / LIST_NAME).read_text(encoding="utf-8"))
        # The names come from the entry itself, so they are not followed anywhere: only what lies in the folder counts.
        intact = listed["key"] == dict(key) and listed["files"] == _hashes(folder)
    except (OSError, ValueError, KeyError, TypeError):
        intact = False
    if intact:
        return folder
    discard_entry(key, "it does not match its checksums")
    return None


def discard_entry(key: Mapping[str, str | int], why: str) -> None:
    """Remove an entry, with the reason in the log."""
    log.warning("converted model %s is removed and made anew: %s", _folder(key).name, why)
    shutil.rmtree(_folder(key), ignore_errors=True)


def store_entry(key: Mapping[str, str | int], write: Callable[[Path], None]) -> Path | None:
    """Let `write` put its files into a fresh folder and keep that as the entry; None where the disk does not allow."""
    folder = _folder(key)
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        write(part)
        (part / LIST_NAME).write_text(json.dumps({"key": dict(key), "files": _hashes(part)}), encoding="utf-8")
        os.rename(part, folder)  # noqa: PTH104  (Path.rename does the same; this one is known to refuse a full folder)
    except OSError as error:
        if folder.is_dir():  # another process was quicker: its entry is as good
            return find_entry(key)
        log.warning("converted model is not kept in %s: %s", folder.parent, error)
        return None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _folder(key: Mapping[str, str | int]) -> Path:
    text = json.dumps(dict(key), sort_keys=True)
    return cache_root() / hashlib.sha256(text.encode()).hexdigest()[:32]


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != LIST_NAME}
