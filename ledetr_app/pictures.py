"""Where snapshots and recordings go, and how a snapshot is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
from platformdirs import user_pictures_path, user_videos_path

from ledetr.chain.overlay import Mark, draw_marks
from ledetr.chain.pipeline import Result
from ledetr.detections import Detections
from ledetr.errors import OutputError
from ledetr.files import whole_file

_USER_FOLDERS = {"pictures": user_pictures_path, "videos": user_videos_path}


def output_path(folder: Path | None, kind: str, source_name: str, suffix: str) -> Path:
    """A free name such as ~/Pictures/Le-DETR/street 2026-11-25 14-03-11.png; makes the folder. Raises OutputError.

    folder: None = the user's own folder of that kind, "pictures" or "videos".
    """
    folder = folder if folder is not None else _USER_FOLDERS[kind]() / "Le-DETR"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot save to {folder}: {error.strerror}; choose a folder you may write to") from error
    stem = f"{_file_stem(source_name)} {datetime.now():%Y-%m-%d %H-%M-%S}"
    path, number = folder / f"{stem}{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem} ({number}){suffix}", number + 1
    return path


def save_snapshot(
    path: Path, result: Result, seen: Detections, marks: Sequence[Mark], in_force: Mapping[str, Any]
) -> None:
    """Full-size PNG with the marks, and the detections that were seen as JSON of the same name. Raises OutputError.

    in_force: what else held at that moment, such as the score threshold, for the record.
    """
    meta = result.frame.meta
    rgb = draw_marks(result.frame.rgb.copy(), marks)
    encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1]
    document = {
        "picture": path.name,
        "source": meta.source_id,
        "index": meta.index,
        "pts_s": meta.pts_s,
        "width": meta.width,
        "height": meta.height,
        "model": seen.model_id,
        **in_force,
        "detections": seen.to_json(),
    }
    try:
        with whole_file(path) as part:
            part.write_bytes(encoded.tobytes())
        with whole_file(path.with_suffix(".json")) as part:
            part.write_text(json.dumps(document, indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the snapshot cannot be saved to {path.parent}: {error.strerror}") from error


def _file_stem(name: str) -> str:
    """A part of a file name that every system takes."""
    return re.sub(r"[^\w\- ]+", "_", Path(name).stem).strip(" _.")[:60] or "picture"
