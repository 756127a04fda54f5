"""The log of a run, read: what holds in the end, where the run was stopped, went on or went back meanwhile."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ledetr.errors import SourceError

NOT_LOSSES = frozenset({"step", "steps", "lr", "norm", "pictures_per_s", "skipped", "left_out"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """start: the first row, with config, model and classes. steps, judged: rows by rising step. resumes: steps at which
    the run went on. setbacks: rows that tell of going back. unreadable: lines that a kill has cut."""

    start: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    judged: Sequence[Mapping[str, Any]]
    resumes: Sequence[int]
    setbacks: Sequence[Mapping[str, Any]]
    unreadable: int

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return int(self.start["total"])

    @property
    def done(self) -> int:
        """The last step that is logged."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    def losses(self) -> list[str]:
        """Names of what was summed to the loss, the total first."""
        names = {key for row in self.steps for key, value in row.items() if _is_number(value)} - NOT_LOSSES
        return sorted(names, key=lambda name: (name != "total", name))

    def decays(self) -> list[float]:
        """Of the averages that were judged, rising."""
        return sorted({float(row["decay"]) for row in self.judged if _is_number(row.get("decay"))})

    def best(self) -> Mapping[str, Any] | None:
        """The judged row with the highest average precision; None before the first."""
        return max(self.judged, key=lambda row: row.get("ap") or 0.0, default=None)


def read_log(run: Path) -> RunLog:
    """The log in a run's folder. SourceError where there is none, or no run of this program began in it.

    A line that cannot be read is counted and passed over: a kill in the middle of a write leaves one. Rows of steps
    that were made again, from an older checkpoint on, are replaced by the later ones.
    """
    path = run / "log.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SourceError(
            f"{str(path)!r} cannot be read ({error.strerror or error}); give the folder that `ledetr train -o` wrote to"
        ) from error
    rows = [_row(line) for line in lines if line.strip()]
    known = [row for row in rows if row is not None]
    start = next((row for row in known if row.get("event") == "start" and type(row.get("total")) is int), None)
    if start is None or not isinstance(start.get("config"), dict):
        raise SourceError(f"{str(path)!r} does not tell of the start of a run, so it is no log of `ledetr train`")
    return RunLog(start=start, unreadable=len(rows) - len(known), **_what_holds(known))


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _what_holds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps: list[Mapping[str, Any]] = []
    judged: list[Mapping[str, Any]] = []
    resumes: list[int] = []
    setbacks: list[Mapping[str, Any]] = []
    for row in rows:
        event, step = row.get("event"), row.get("back_to" if row.get("event") == "setback" else "step")
        if type(step) is not int:
            continue
        if event in ("resume", "setback"):
            steps = [old for old in steps if old["step"] <= step]
            judged = [old for old in judged if old["step"] <= step]
        if event == "steps":
            steps.append(row)
        elif event == "judged":
            judged.append(row)
        elif event == "resume":
            resumes.append(step)
        elif event == "setback":
            setbacks.append(row)
    return {"steps": steps, "judged": judged, "resumes": resumes, "setbacks": setbacks}


def series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one figure; NaN where a row has none, which drawings leave out."""
    return [float(row["step"]) for row in rows], [_number(row.get(key)) for row in rows]


def seconds_of(row: Mapping[str, Any]) -> float | None:
    """The row's time in seconds since 1970, None where it is none."""
    try:
        return datetime.fromisoformat(str(row.get("time"))).timestamp()
    except ValueError:
        return None


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
