"""`ledetr detect FOLDER --jobs N` and `--cluster ADDRESS`: many videos at a time, each by one worker as a whole."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import typer

from ledetr.chain.images import natural_key
from ledetr.chain.images_out import check_folder
from ledetr.chain.resume import identity_of, settings_hash
from ledetr.chain.side_files import SIDE_FILE_ENDINGS
from ledetr.chain.sources import FolderSpec, VideoSpec, parse_source
from ledetr.chain.spread import Crew, Died, Done, Event, Failed, LocalCrew, Said, spread
from ledetr.chain.spread_ray import RayCrew
from ledetr.chain.stage import Stage, owned, owner_folders
from ledetr.chain.video import VideoProgress
from ledetr.cli.detect_jobs import Job, Outcome, Wish, default_target, make_folder
from ledetr.cli.detect_report import engine_of, failed_rows, found_line, print_engine, result_row
from ledetr.cli.interruption import stop_on_ctrl_c
from ledetr.cli.one_document import one_document
from ledetr.cli.progress import Show, shown_progress
from ledetr.detector import Detector
from ledetr.errors import BackendUnavailable, Interrupted, PartialFailure, SourceError, UsageError, WeightsError
from ledetr.weights_file import find_weights

# By name, so that the pictures, lists and notes that lie beside videos are left alone.
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
     ".3g2", ".ogv", ".mxf", ".nut", ".vob", ".asf")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelWish:
    """Which model, and how it is to run; see Detector.load."""

    model: str
    backend: str
    device: str
    precision: str
    imgsz: int | None
    random_weights: bool

    @property
    def options(self) -> dict[str, Any]:
        """For Detector.load, besides the model."""
        return {name: value for name, value in asdict(self).items() if name != "model"}


@dataclass(frozen=True, slots=True)
class DetectTask:
    """One video, as a worker does it; what comes home is a row of `--json` and the engine that made it."""

    job: Job
    wish: Wish
    model: ModelWish
    class_names: tuple[str, ...] | None
    stage: Stage

    @property
    def name(self) -> str:
        """Of the video."""
        return self.job.spec.display_name

    def __call__(self, attempt: int, say: Callable[[Any], None], stop: threading.Event) -> dict[str, Any]:
        """Do it where nobody has done it yet, from where a worker before left it."""
        again = attempt > 0 or self.wish.resume
        receipt = self.stage.receipt() if again else None
        if receipt is not None:
            return receipt
        # Ids of things cannot be taken over; then a video is begun afresh.
        resume = self.stage.begin(resume=again and self.wish.tracking is None)
        detector = _loaded(self.model)
        class_ids = None if self.class_names is None else detector.class_ids(self.class_names)
        wish = replace(self.wish, class_ids=class_ids, overwrite=True, resume=resume)
        report = self._staged_job().run(detector, wish, lambda progress: say(_Part.of(progress)), stop)
        given = {"row": result_row(self.job, report), "engine": engine_of(detector)}
        self.stage.write_receipt(given)
        return given

    def _staged_job(self) -> Job:
        staged = self.stage.staged
        return Job(self.job.spec, staged.pop("video", None), staged)


@dataclass(frozen=True, slots=True)
class _Part:
    """How far a video is. share: 0..1, None where the file does not say how long it is."""

    frames: int
    share: float | None

    @classmethod
    def of(cls, progress: VideoProgress) -> _Part:
        return cls(progress.frames, min(1.0, progress.frames / progress.total) if progress.total else None)


@lru_cache(maxsize=1)
def _loaded(model: ModelWish) -> Detector:
    """Of this process; a worker keeps it for its next video."""
    return Detector.load(model.model, **model.options)


def detect_spread(
    sources: Sequence[str],
    output: str | None,
    side_folders: Mapping[str, Path],
    wish: Wish,
    model: ModelWish,
    class_names: Sequence[str] | None,
    *,
    workers: int | None,
    cluster: str | None,
    json: bool,
    quiet: bool,
) -> None:
    """Find objects in many videos at a time. Raises LeDetrError; PartialFailure names every video that failed."""
    with one_document(json) as document:
        jobs = video_jobs(sources, output, side_folders, wish)
        outcome = Outcome()
        jobs = [job for job in jobs if outcome.survives(job, lambda job: job.check(wish), single=len(jobs) == 1)]
        outcome.raise_if_all_failed(jobs)
        tasks = _tasks(jobs, wish, model, class_names)
        with owned(owner_folders([task.stage for task in tasks])):
            run = _Run(tasks, outcome, wish)
            run.take_what_is_done()
            if run.left:
                with (
                    closing(_crew(cluster, workers, len(run.left), model)) as crew,
                    stop_on_ctrl_c() as stop,
                    shown_progress("", unit="videos", quiet=quiet) as show,
                ):
                    run.to_the_end(crew, stop, show)
            run.raise_if_stopped()
            if not outcome.failed:
                for task in tasks:
                    task.stage.clear()
        document.update(run.document())
        if not json:
            run.print_summary()
    run.raise_for_failures()


def video_jobs(sources: Sequence[str], output: str | None, side_folders: Mapping[str, Path], wish: Wish) -> list[Job]:
    """One job for each video of the folders and files that are named, and a name of its own for each result."""
    paths = [path.absolute() for source in sources for path in _videos(source)]
    if len(set(paths)) < len(paths):
        raise UsageError("A video is named twice; name each once.")
    whole_folders = {Path(source).absolute() for source in sources if Path(source).is_dir()}
    folder = _output_folder(sources, output, side_folders)
    for made in [*([] if folder is None else [folder]), *side_folders.values()]:
        if made.is_file() or (not made.is_dir() and made.suffix):
            raise UsageError(f"{made} names one file, and many videos are to be done; give a folder.")
        # A later run on that folder would take the results for sources.
        check_folder([path for path in paths if path.parent in whole_folders], made)
        make_folder(made)
    stems = Counter(path.stem.casefold() for path in paths)
    jobs = []
    for path in paths:
        name = path.stem if stems[path.stem.casefold()] == 1 else path.name
        spec = VideoSpec(path)
        target = None if folder is None else folder / f"{name}_boxes{default_target(spec, folder, wish).suffix}"
        sides = {kind: made.absolute() / f"{name}{SIDE_FILE_ENDINGS[kind]}" for kind, made in side_folders.items()}
        jobs.append(Job(spec, target, sides))
    return jobs


def _videos(source: str) -> list[Path]:
    spec = parse_source(source)
    if isinstance(spec, VideoSpec):
        return [spec.path]
    if not isinstance(spec, FolderSpec):
        raise UsageError(f"{spec.display_name} is no folder of videos; --jobs and --cluster are for those.")
    if not spec.path.is_dir():
        raise SourceError(f"Cannot open {spec.display_name!r}: there is no such folder.")
    found = [path for path in spec.path.glob(spec.pattern or "*") if path.suffix.lower() in VIDEO_SUFFIXES]
    if not found:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise SourceError(f"{spec.display_name!r} holds no videos ({kinds}).")
    return sorted(found, key=lambda path: natural_key(str(path)))


def _output_folder(sources: Sequence[str], output: str | None, side_folders: Mapping[str, Path]) -> Path | None:
    """None where only lists of boxes are wanted."""
    if output is not None:
        return Path(output).absolute()
    if side_folders:
        return None
    if len(sources) == 1 and Path(sources[0]).is_dir():
        return Path(f"{Path(sources[0]).resolve().name}_boxes").absolute()
    return Path.cwd()


def _tasks(jobs: Sequence[Job], wish: Wish, model: ModelWish, class_names: Sequence[str] | None) -> list[DetectTask]:
    names = None if class_names is None else tuple(class_names)
    weights = None
    if not model.random_weights:
        path = find_weights(model.model)
        weights = identity_of(path)
        if Path(model.model).is_file():
            model = replace(model, model=str(path.absolute()))  # a worker may live in another folder
    how = {"wish": replace(wish, overwrite=False, resume=False), "model": model, "weights": weights, "classes": names}
    tasks = []
    for job in jobs:
        assert isinstance(job.spec, VideoSpec)
        finals = {**({} if job.target is None else {"video": job.target}), **job.side_files}
        made_of = settings_hash({**how, "source": identity_of(job.spec.path)})
        tasks.append(DetectTask(job, wish, model, names, Stage(next(iter(finals.values())).name, finals, made_of)))
    return tasks


def _crew(cluster: str | None, workers: int | None, tasks: int, model: ModelWish) -> Crew:
    if cluster is not None:
        return RayCrew(cluster, workers, gpus=model.device == "auto" or model.device.startswith("cuda"))
    assert workers is not None  # one of the two flags brought us here
    return LocalCrew(min(workers, tasks))


@dataclass(slots=True)
class _Run:
    """All tasks of one command, and what became of them."""

    tasks: Sequence[DetectTask]
    outcome: Outcome
    wish: Wish
    left: list[int] = field(default_factory=list)
    _rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    _engine: dict[str, Any] = field(default_factory=dict)
    _parts: dict[int, _Part] = field(default_factory=dict)
    _deaths: list[str] = field(default_factory=list)
    _ended: int = 0
    _made_frames: int = 0
    _wall_s: float = 0.0
    _stopped: bool = False

    def take_what_is_done(self) -> None:
        """With --resume, what an earlier run of the same command has finished is not done again."""
        for number, task in enumerate(self.tasks):
            given = task.stage.receipt() if self.wish.resume else None
            if given is None:
                self.left.append(number)
            else:
                self._done(number, given)

    def to_the_end(self, crew: Crew, stop: threading.Event, show: Show) -> None:
        """Let the crew do what is left. Raises what makes every further video fail too."""
        started_s = time.perf_counter()
        for event in spread([self.tasks[number] for number in self.left], crew, stop=stop):
            self._take(replace(event, number=self.left[event.number]))
            self._wall_s = time.perf_counter() - started_s
            self._show(show)

    def _take(self, event: Event) -> None:
        name = self.tasks[event.number].name
        match event:
            case Said(number, part):
                self._parts[number] = part
            case Died(number, how):
                self._deaths.append(f"A worker died at {name} ({how}); another one went on with it.")
            case Done(number, given):
                self._made_frames += given["row"]["frames"]
                self._done(number, given)
            case Failed(_, Interrupted()):
                self._stopped = True
            case Failed(_, WeightsError() | BackendUnavailable() as error):
                raise error
            case Failed(_, error):
                self.outcome.failed.append((name, error))
        if not isinstance(event, Said):
            self._parts.pop(event.number, None)
            self._ended += not isinstance(event, Died)

    def _done(self, number: int, given: dict[str, Any]) -> None:
        """Give the files their final names; the receipt then says which."""
        task, row = self.tasks[number], given["row"]
        if "handed_out" not in given:
            names = task.stage.hand_out(overwrite=self.wish.overwrite)
            row["output"] = str(names["video"]) if "video" in names else None
            row["side_files"] = {kind: str(path) for kind, path in names.items() if kind != "video"}
            task.stage.write_receipt({**given, "handed_out": True})
        self._rows[number] = row
        self._engine = given["engine"]

    def _show(self, show: Show) -> None:
        frames = self._made_frames + sum(part.frames for part in self._parts.values())
        made = self._ended + sum(part.share or 0.0 for part in self._parts.values())
        left_s = self._wall_s / made * (len(self.left) - made) if made else None
        rate = frames / self._wall_s if self._wall_s and frames else None
        show(len(self.tasks) - len(self.left) + self._ended, len(self.tasks), left_s, fps=rate)

    def raise_if_stopped(self) -> None:
        """After Ctrl-C."""
        if self._stopped:
            raise Interrupted(
                f"Stopped as asked; {len(self._rows)} of {len(self.tasks)} videos are done, and the same command with "
                "--resume goes on with the others."
            )

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            **self._engine,
            "results": [self._rows[number] for number in sorted(self._rows)],
            "failed": failed_rows(self.outcome),
            "deaths": list(self._deaths),
        }

    def print_summary(self) -> None:
        """The model, a few lines for each video, and the sum."""
        if self._engine:
            print_engine(self._engine)
        for _, row in sorted(self._rows.items()):
            places = ", ".join(path for path in (row["output"], *row["side_files"].values()) if path is not None)
            typer.echo(f"{row['source']} -> {places}")
            typer.echo(f"  {row['frames']} pictures, {found_line(row['boxes'], row['boxes_by_class'])}")
            for note in row["notes"]:
                typer.echo(f"  {note}")
        for line in self._deaths:
            typer.echo(line)
        frames = sum(row["frames"] for row in self._rows.values())
        typer.echo(f"{len(self._rows)} of {len(self.tasks)} videos, {frames} pictures, {self._wall_s:.1f} s in all")

    def raise_for_failures(self) -> None:
        """A sentence for each video that failed, then PartialFailure; the error itself where all failed."""
        failed = self.outcome.failed
        if not failed:
            return
        if not self._rows:
            raise failed[0][1]
        for _, error in failed:
            typer.echo(f"ledetr: {error}", err=True)
        raise PartialFailure(
            f"{len(failed)} of the videos could not be done, the other {len(self._rows)} are; with --resume only those "
            "are tried again."
        )
