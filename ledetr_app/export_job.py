"""One file that is to be exported, how far it is, and both as they are kept on disk between two runs of the window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ledetr.chain.sources import SourceSpec, VideoSpec, mask_url, parse_source
from ledetr.chain.video_reader import Cut
from ledetr.cli.detect_jobs import Job, Wish, planned_jobs
from ledetr.errors import UsageError
from ledetr.paths import printable
from ledetr.tracking import Tracking
from ledetr.zones import ZonePlan, plan_of
from ledetr_app.model_loader import ModelWish

VIDEO = "video"
SIDES = ("csv", "json", "jsonl", "coco", "mot")
OUTPUTS = (VIDEO, *SIDES)


class Status(Enum):
    """Where a row of the queue stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """source: a path or address. start_s, end_s: the part of it, in seconds from its first picture, end_s excluded;
    None = to its end. model: what finds the boxes. conf: lowest score, None = the model's own. class_names: only
    these; None = all. outputs: some of OUTPUTS; "video" is the source with boxes. folder: where they go.
    tracked: things in a video have ids; so long as track_buffer_s one may be hidden. zones: where they are counted.
    """

    source: str
    model: ModelWish
    outputs: tuple[str, ...]
    folder: str
    start_s: float = 0.0
    end_s: float | None = None
    conf: float | None = None
    class_names: tuple[str, ...] | None = None
    labels: bool = True
    scores: bool = True
    tracked: bool = False
    track_buffer_s: float = 2.0
    zones: ZonePlan | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise ValueError(f"outputs are some of {', '.join(OUTPUTS)}, got {self.outputs}")
        if self.start_s < 0 or (self.end_s is not None and self.end_s <= self.start_s):
            raise ValueError(f"from {self.start_s} s to {self.end_s} s is no part of a video")

    @property
    def name(self) -> str:
        """For people: the name of a file, or an address without its password."""
        return mask_url(self.source) if "://" in self.source else printable(Path(self.source).name or self.source)

    @property
    def tracks(self) -> bool:
        """MOT is about ids; of a video, the user may want them too, and zones count them."""
        wanted = self.tracked or self.zones is not None
        return "mot" in self.outputs or (wanted and isinstance(self.spec(), VideoSpec))

    def spec(self) -> SourceSpec:
        """What the source is. Raises UsageError."""
        return parse_source(self.source)

    def wish(self) -> Wish:
        """What `ledetr detect` would be asked for. A video goes on where an earlier run of the same job stopped."""
        return Wish(
            conf=self.conf,
            labels=self.labels,
            scores=self.scores,
            codec=None,
            crf=None,
            audio=True,
            overwrite=False,
            resume=isinstance(self.spec(), VideoSpec) and VIDEO in self.outputs and not self.tracks,
            cut=Cut(start_s=self.start_s, end_s=self.end_s),
            every_frame=None,
            retries=3,
            tracking=Tracking(buffer_s=self.track_buffer_s) if self.tracks else None,
            zones=self.zones if self.tracks else None,
        )

    def plan(self) -> tuple[Job, Wish]:
        """What and how, as `ledetr detect` takes it; makes the folder. Raises UsageError, OutputError."""
        wish, sides = self.wish(), {kind: Path(self.folder) for kind in self.outputs if kind != VIDEO}
        # With a folder as its output the job gets the names that the command line would give it there.
        (job,) = planned_jobs([self.source], f"{self.folder}/", sides, wish)
        return (job if VIDEO in self.outputs else Job(job.spec, None, job.side_files)), wish


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A job and how it goes. number: its name in the queue. frames, total: pictures done, of about how many.

    fps: end to end. sentence: what went wrong. paths: what was written.
    """

    number: int
    job: ExportJob
    status: Status = Status.WAITING
    frames: int = 0
    total: int | None = None
    fps: float = 0.0
    seconds_left: float | None = None
    sentence: str = ""
    paths: tuple[str, ...] = field(default=())

    @property
    def part(self) -> float | None:
        """0..1 of it is done; None where nobody knows."""
        if self.status is Status.DONE:
            return 1.0
        return min(1.0, self.frames / self.total) if self.total else None


def row_to_json(row: ExportRow) -> dict[str, Any]:
    """What the next run needs of it."""
    zones = row.job.zones
    job = asdict(row.job) | {"zones": None if zones is None else zones.to_json()}
    return {"job": job, "status": row.status.value, "sentence": row.sentence, "paths": list(row.paths)}


def row_of_json(document: Mapping[str, Any], number: int) -> ExportRow:
    """A row as it was kept; raises ValueError, TypeError or KeyError for anything else.

    What was running waits again: the run that did it is gone.
    """
    job = dict(document["job"])
    wish = dict(job.pop("model"))
    if not all(isinstance(job[name], str) for name in ("source", "folder")) or "\0" in job["source"]:
        raise TypeError("a source and a folder are texts")
    names, zones = job.pop("class_names"), job.pop("zones", None)
    outputs = tuple(str(name) for name in job.pop("outputs"))
    made = ExportJob(
        **job,
        model=ModelWish(**wish),
        outputs=outputs,
        zones=None if zones is None else plan_of(zones),
        class_names=None if names is None else tuple(str(name) for name in names),
    )
    status = Status(document["status"])
    return ExportRow(
        number,
        made,
        Status.WAITING if status is Status.RUNNING else status,
        sentence=str(document["sentence"]),
        paths=tuple(str(path) for path in document["paths"]),
    )


def class_ids_of(names: tuple[str, ...] | None, known: tuple[str, ...]) -> list[int] | None:
    """The numbers of these names in a model; None = all. UsageError where it knows none of them."""
    if names is None:
        return None
    ids = [number for number, name in enumerate(known) if name in names]
    if not ids:
        raise UsageError(f"The model knows none of the chosen classes: {', '.join(names[:5])}; choose others.")
    return ids
