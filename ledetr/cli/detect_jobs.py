"""What `ledetr detect` is asked to do, as one job a source: read where, write where, and how it went."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ledetr.chain.images import list_images
from ledetr.chain.images_out import ImagesReport, check_folder, process_images
from ledetr.chain.output_files import choose_target, output_error, reserve_part
from ledetr.chain.recorder import choose_codec
from ledetr.chain.side_files import SIDE_FILE_ENDINGS
from ledetr.chain.sources import FolderSpec, ImageSpec, ListSpec, SourceSpec, VideoSpec, parse_source
from ledetr.chain.split import Split, part_path
from ledetr.chain.stream_out import process_stream
from ledetr.chain.video import VideoProgress, VideoReport, needs_matroska, process_video
from ledetr.chain.video_reader import Cut, VideoReader
from ledetr.detector import Detector
from ledetr.errors import LeDetrError, PartialFailure, SourceError, UsageError
from ledetr.pictures import read_picture
from ledetr.tracking import Tracking
from ledetr.zones import ZonePlan

Stills: TypeAlias = ImageSpec | FolderSpec | ListSpec
Report: TypeAlias = VideoReport | ImagesReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What holds for all sources."""

    conf: float | None
    labels: bool
    scores: bool
    codec: str | None
    crf: int | None
    audio: bool
    overwrite: bool
    resume: bool
    cut: Cut
    every_frame: bool | None
    retries: int
    split: Split | None = None
    tracking: Tracking | None = None
    zones: ZonePlan | None = None
    class_ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One source and where its results go. target: None for side files alone."""

    spec: SourceSpec
    target: Path | None
    side_files: dict[str, Path]

    def check(self, wish: Wish) -> None:
        """Refuse what cannot work before a model is loaded: source unreadable, target not writable."""
        if wish.tracking is not None and isinstance(self.spec, Stills):
            raise UsageError(
                f"{self.spec.display_name} holds pictures without times; --track needs a video or a stream."
            )
        if wish.tracking is not None and wish.resume:
            raise UsageError("Ids cannot be taken over from an earlier run; leave out --resume or --track.")
        if wish.split is not None:
            self._check_split(wish)
        sources: list[Path] = []
        if isinstance(self.spec, VideoSpec):
            sources = [self.spec.path]
            with VideoReader(self.spec.path, cut=wish.cut, stopped=threading.Event()):
                pass
        elif isinstance(self.spec, Stills):
            sources = list_images(self.spec)
            if isinstance(self.spec, ImageSpec):
                read_picture(self.spec.path)
        if self.target is not None and not isinstance(self.spec, Stills):
            choose_codec(self.target, wish.codec)
        files = [] if self.target is None else [self.target]
        if self.target is not None and isinstance(self.spec, FolderSpec | ListSpec):
            check_folder(sources, self.target)
            files = []
        files += self.side_files.values()
        for path in files if wish.split is None else [part_path(path, 1) for path in files]:
            reserve_part(choose_target(path, overwrite=wish.overwrite, sources=sources)).unlink()

    def _check_split(self, wish: Wish) -> None:
        if isinstance(self.spec, Stills) or self.target is None:
            raise UsageError(f"--split is for videos that are written; {self.spec.display_name} gives none here.")
        if wish.resume:
            raise UsageError("A video in parts is made in one go; leave out --resume or --split.")

    def run(
        self, detector: Detector, wish: Wish, progress: Callable[[VideoProgress], None], stop: threading.Event
    ) -> Report:
        """Do it; stop ends it early. Raises LeDetrError."""
        common: dict[str, Any] = {
            "conf": wish.conf,
            "class_ids": wish.class_ids,
            "labels": wish.labels,
            "scores": wish.scores,
            "side_files": self.side_files,
            "overwrite": wish.overwrite,
            "progress": progress,
            "stop": stop,
        }
        if isinstance(self.spec, Stills):
            return process_images(self.spec, self.target, detector, max_frames=wish.cut.max_frames, **common)
        common |= {"tracking": wish.tracking, "zones": wish.zones}
        encoding: dict[str, Any] = {"codec": wish.codec, "crf": wish.crf, "split": wish.split}
        if isinstance(self.spec, VideoSpec):
            return process_video(
                self.spec.path,
                self.target,
                detector,
                cut=wish.cut,
                audio=wish.audio,
                resume=wish.resume,
                **encoding,
                **common,
            )
        return process_stream(
            self.spec,
            self.target,
            detector,
            every_frame=wish.every_frame,
            retries=wish.retries,
            max_frames=wish.cut.max_frames,
            **encoding,
            **common,
        )


@dataclass(slots=True)
class Outcome:
    """What became of each source."""

    done: list[tuple[Job, Report]] = field(default_factory=list)
    failed: list[tuple[str, LeDetrError]] = field(default_factory=list)

    def survives(self, job: Job, check: Callable[[Job], None], *, single: bool) -> bool:
        """Whether the check passes; a bad source among several is noted, anything else is raised."""
        try:
            check(job)
        except SourceError as error:
            if single:
                raise
            self.failed.append((job.spec.display_name, error))
            return False
        return True

    def run(
        self,
        job: Job,
        detector: Detector,
        wish: Wish,
        progress: Callable[[VideoProgress], None],
        stop: threading.Event,
        *,
        single: bool,
    ) -> None:
        """Do a job; a bad source among several is noted, anything else is raised."""
        try:
            report = job.run(detector, wish, progress, stop)
        except SourceError as error:
            if single:
                raise
            self.failed.append((job.spec.display_name, error))
            return
        self.done.append((job, report))
        if isinstance(report, ImagesReport):
            self.failed += [(path.name, error) for path, error in report.failed]

    def raise_if_all_failed(self, left: Sequence[Job]) -> None:
        """Where no job is left to do: the first error."""
        if not left and self.failed:
            raise self.failed[0][1]

    def raise_for_failures(self) -> None:
        """At the end: PartialFailure where some sources failed, their error where all did."""
        if self.failed and not self.done:
            raise self.failed[0][1]
        if self.failed:
            reasons = "; ".join(f"{error}".rstrip(".") for _, error in self.failed[:3])
            more = f"; and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
            raise PartialFailure(
                f"{len(self.failed)} of the inputs could not be done, the others are: {reasons}{more}."
            )


def planned_jobs(sources: Sequence[str], output: str | None, side_paths: dict[str, Path], wish: Wish) -> list[Job]:
    """One job a source. output: what -o says; side_paths: what --save-... says. Raises UsageError."""
    specs = [parse_source(source) for source in sources]
    several = len(specs) > 1
    into_folder = output is not None and (several or output.endswith(("/", "\\")) or Path(output).is_dir())
    if several and output is not None and Path(output).suffix and not Path(output).is_dir():
        raise UsageError(f"{output} names one file, and there are {len(specs)} sources; give a folder with -o.")
    if output is not None and into_folder:
        make_folder(Path(output))
    jobs = []
    for spec in specs:
        target: Path | None = None
        if output is not None and (not into_folder or (isinstance(spec, FolderSpec | ListSpec) and not several)):
            target = Path(output)
        elif output is not None or not side_paths:
            target = default_target(spec, Path(output or "."), wish)
        jobs.append(Job(spec, target, _side_targets(spec, side_paths, several)))
    return jobs


def default_target(spec: SourceSpec, folder: Path, wish: Wish) -> Path:
    """Where the result of a source goes in a folder, if nothing else was said."""
    stem = _stem(spec)
    if isinstance(spec, FolderSpec | ListSpec):
        return folder / f"{stem}_boxes"
    if isinstance(spec, ImageSpec):
        return folder / f"{stem}_boxes{spec.path.suffix}"
    if wish.codec == "ffv1" or (isinstance(spec, VideoSpec) and wish.audio and _sound_needs_matroska(spec)):
        return folder / f"{stem}_boxes.mkv"
    return folder / f"{stem}_boxes.mp4"


def _sound_needs_matroska(spec: VideoSpec) -> bool:
    try:
        return needs_matroska(spec.path)
    except SourceError:
        return False  # the check of the job says what is wrong


def _side_targets(spec: SourceSpec, side_paths: dict[str, Path], several: bool) -> dict[str, Path]:
    targets = {}
    for kind, path in side_paths.items():
        if path.is_dir():
            targets[kind] = path / f"{_stem(spec)}{SIDE_FILE_ENDINGS[kind]}"
        elif several:
            raise UsageError(f"--save-{kind} {path} names one file for several sources; give a folder that exists.")
        else:
            targets[kind] = path
    return targets


def _stem(spec: SourceSpec) -> str:
    """A file name for results of this source, without anything that a file name cannot hold."""
    if isinstance(spec, VideoSpec | ImageSpec | ListSpec):
        return spec.path.stem
    if isinstance(spec, FolderSpec):
        return spec.path.resolve().name or "pictures"
    kept = [letter if letter.isalnum() or letter in "-." else "_" for letter in spec.display_name.split("://")[-1]]
    return "".join(kept).strip("_.")[:80] or "stream"


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def cut_of(start: str | None, end: str | None, max_frames: int | None, stride: int) -> Cut:
    """The part of a video that the flags name. Raises UsageError."""
    start_s = _seconds("--start", start) or 0.0
    end_s = _seconds("--end", end)
    if end_s is not None and end_s <= start_s:
        raise UsageError(f"--end {end} is not after --start {start or 0}.")
    return Cut(start_s=start_s, end_s=end_s, max_frames=max_frames, stride=stride)


def _seconds(flag: str, text: str | None) -> float | None:
    """12.5, 1:02.5 or 1:02:03 in seconds."""
    if text is None:
        return None
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(not 0 <= part < float("inf") for part in parts):
        raise UsageError(f"{flag} {text} is no time; write seconds (12.5) or hours:minutes:seconds (1:02:03).")
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def tracking_of(track: bool, buffer_s: float | None, zones: Path | None, save_mot: Path | None) -> Tracking | None:
    """How the flags want things to be tracked. Raises UsageError where a flag needs --track and it is not there."""
    needs = {"--track-buffer": buffer_s, "--zones": zones, "--save-mot": save_mot}
    if not track:
        asked = [flag for flag, value in needs.items() if value is not None]
        if asked:
            raise UsageError(f"{asked[0]} is about tracks; add --track.")
        return None
    return Tracking() if buffer_s is None else Tracking(buffer_s=buffer_s)


def class_names_of(classes: str | None) -> list[str] | None:
    """The names in --classes person,car; UsageError where it holds none."""
    if classes is None:
        return None
    names = [part.strip() for part in classes.split(",") if part.strip()]
    if not names:
        raise UsageError("--classes names no class; write for example --classes person,car.")
    return names
