"""What the chain hands out: a frame with its detections and the moments of its way, and the events of a source."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ledetr.chain.sources import SourceInfo
from ledetr.detections import Detections
from ledetr.errors import LeDetrError
from ledetr.frame import Frame


@dataclass(slots=True)
class Timings:
    """When each step of one frame was done, in ns of the chain's clock; 0 where the step did not happen (yet)."""

    captured_ns: int = 0
    taken_ns: int = 0
    preprocessed_ns: int = 0
    inferred_ns: int = 0
    postprocessed_ns: int = 0
    published_ns: int = 0
    painted_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A frame and what was found in it.

    number: 1, 2, 3, ... over the life of a pipeline. again: a new look at the frame of the result with this number,
    with another model.
    """

    frame: Frame
    detections: Detections
    timings: Timings = field(default_factory=Timings)
    number: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """The source is open and frames will come."""

    info: SourceInfo


@dataclass(frozen=True, slots=True)
class Eof:
    """The source has ended; its last frame stays."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """A live source is lost, for this reason; its last frame came silent_s seconds ago."""

    silent_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """Try number attempt (from 1) begins in next_in_s seconds."""

    attempt: int
    next_in_s: float


@dataclass(frozen=True, slots=True)
class Restored:
    """The source is back after gap_s seconds; info was read again and may differ."""

    gap_s: float
    info: SourceInfo


@dataclass(frozen=True, slots=True)
class Failed:
    """It is over: the first cause, in one sentence for the user."""

    error: LeDetrError


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """From the next frame on this model looks; "" for none."""

    model_id: str


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """A recording is complete at path, or was ended by error and path holds what there was (None: nothing).

    parts: all files that are whole, where it was split; path is then the first of them.
    """

    path: Path | None
    error: LeDetrError | None = None
    parts: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing runs any more. orphans: names of threads that did not end in time and were left to themselves."""

    orphans: tuple[str, ...] = ()


Event: TypeAlias = Opened | Eof | Stalled | Reconnecting | Restored | Failed | ModelChanged | RecordingEnded | Stopped
