"""A video file to the same file with boxes: same frames, same times, same sound, upright, same colours.

    read --queue--> detect, track --queue--> draw, encode, write

The last stage runs in the caller's thread. Packets of sound and subtitles travel through the same queues, so that
they keep their place beside the pictures.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ledetr.chain.inference import SCORE_FLOOR, FrameDetector
from ledetr.chain.mailbox import MEBIBYTE, ByteQueue
from ledetr.chain.output_files import kept_in, output_error, say_what_is_kept
from ledetr.chain.overlay import RANDOM_WEIGHTS, Style, draw_marks
from ledetr.chain.recorder import VideoWriter, container_of, holds
from ledetr.chain.resume import JobFile, Past, settings_hash
from ledetr.chain.side_files import PictureResult, SideFile, SideHeader, open_side_files
from ledetr.chain.split import Split, SplitSides, SplitWriter
from ledetr.chain.trails import TrackView
from ledetr.chain.video_reader import Copied, Cut, Item, Picture, VideoReader
from ledetr.detections import Detections
from ledetr.errors import Interrupted, UsageError
from ledetr.tracking import Tracker, Tracking
from ledetr.zones import ShapeCount, ZonePlan

# Enough for every stage to be busy; a longer queue would only delay a stop.
_QUEUE_BYTES = 64 * MEBIBYTE
_JOIN_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True)
class VideoProgress:
    """frames: written so far; total: of about how many, None where unknown. fps: end to end, over the whole run."""

    frames: int
    total: int | None
    fps: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoReport:
    """What was done. path: of the video, None where none was wanted. side_files: by format, where they are. Both are
    those of the first part, where there are parts.

    media_s: length of the result. wall_s: from opening the source to the file under its final name. stage_ms: mean
    per picture of read (decode and convert), detect, and write (draw, encode, mux); they overlap. notes: sentences.
    tracks: how many things had an id while they were shown. zones: counts of zones and lines.
    """

    path: Path | None
    side_files: Mapping[str, Path]
    frames: int
    boxes: int
    boxes_by_class: Mapping[str, int]
    media_s: float
    wall_s: float
    stage_ms: Mapping[str, float]
    notes: tuple[str, ...] = ()
    tracks: int = 0
    zones: tuple[ShapeCount, ...] = ()
    parts: tuple[Path, ...] = ()

    @property
    def fps(self) -> float:
        """End to end: pictures a second of reading, detecting, drawing, encoding and writing together."""
        return self.frames / self.wall_s if self.wall_s > 0 else 0.0


def style_of(
    detector: FrameDetector,
    conf: float | None,
    class_ids: Sequence[int] | None,
    labels: bool,
    scores: bool,
    by_track: bool = False,
) -> Style:
    """What is drawn of this detector's results; conf: its own threshold where not given."""
    notice = RANDOM_WEIGHTS if detector.random_weights else None
    return Style(detector.score_threshold if conf is None else conf, class_ids, labels, scores, notice, by_track)


def process_video(
    src: Path,
    dst: Path | None,
    detector: FrameDetector,
    *,
    conf: float | None = None,
    class_ids: Sequence[int] | None = None,
    labels: bool = True,
    scores: bool = True,
    side_files: Mapping[str, Path] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    audio: bool = True,
    overwrite: bool = False,
    cut: Cut | None = None,
    resume: bool = False,
    split: Split | None = None,
    tracking: Tracking | None = None,
    zones: ZonePlan | None = None,
    progress: Callable[[VideoProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> VideoReport:
    """Detect on every frame of a video file, and write it with boxes to dst, and detections to side_files.

    dst: None for side files alone; the next free name is taken unless overwrite. side_files: paths by format, one of
    "json", "jsonl", "csv", "coco", "mot". conf: the detector's own threshold where not given. cut: which part.
    resume: go on where an earlier run of the same job was cut off, however that ended; a note says so, or why not.
    split: write `name_001.mp4`, `name_002.mp4` and so on, and side files beside each, in place of one.
    tracking: gives the boxes ids that stay with things, and draws trails. zones: where to count them; needs tracking.
    progress: called after each picture, from the calling thread. stop: set it from anywhere to end at the current
    picture; what there is becomes `name.partial.mp4` and Interrupted is raised.
    Raises SourceError, OutputError, UsageError; what a stage raises ends all of them and comes out here, after what
    was written so far was kept as partial.
    """
    started_s = time.perf_counter()
    style = style_of(detector, conf, class_ids, labels, scores, by_track=tracking is not None)
    if resume and (tracking is not None or "mot" in (side_files or {})):
        # Which thing has which id is known to the run that gave them alone.
        raise UsageError("Ids cannot be taken over from an earlier run; do without resume or without tracking.")
    if split is not None and (resume or dst is None):
        raise UsageError("Parts are of a video, and are made in one go; do without split or without resume.")
    view = TrackView(style, tracking, zones)
    stopped = stop or threading.Event()
    with VideoReader(src, cut=cut or Cut(), stopped=stopped) as reader:
        copied, notes = _copied_tracks(reader, dst, audio=audio)
        writers = _Outputs(reader, dst, side_files or {}, detector, style, view, split)
        made_how = {
            "style": style,
            "encoding": (codec, crf, audio, None if dst is None else dst.suffix),
            "cut": cut or Cut(),
            "model": (detector.model_id, detector.info),
            "side files": sorted(side_files or {}),
            "ids": (tracking, zones),
        }
        job = None if dst is None or split is not None else JobFile(dst, src, settings_hash(made_how))
        past = job.past() if job is not None and resume else None
        notes += _notes_on_resume(resume, past)
        whole = (cut or Cut()).is_whole
        writers.open(src, copied, codec=codec, crf=crf, overwrite=overwrite, whole=whole, job=job, past=past)
        run = _Run(reader, detector, writers, stopped, style, None if tracking is None else Tracker(tracking))
        with _ended_well(writers, run):
            run.to_the_end(copied, progress)
        notes += _notes_on_pictures(reader)
        return writers.report(time.perf_counter() - started_s, run.stage_ms, notes)


def needs_matroska(src: Path) -> bool:
    """Whether the file has sound that an MP4 cannot hold untouched."""
    with VideoReader(src, cut=Cut(), stopped=threading.Event()) as reader:
        return not all(holds("mp4", stream) for stream in reader.container.streams.audio)


def _copied_tracks(reader: VideoReader, dst: Path | None, *, audio: bool) -> tuple[list[Any], list[str]]:
    """The tracks whose packets go along, and a sentence for each that cannot."""
    if dst is None:
        return [], []
    container = container_of(dst)
    copied, notes = [], []
    for stream in reader.container.streams:
        if stream is reader.stream or (stream.type == "audio" and not audio):
            continue
        # A sound track that does not fit is not left out quietly: the writer refuses it, and says what to do.
        if stream.type == "audio" or (stream.type == "subtitle" and holds(container, stream)):
            copied.append(stream)
        else:
            notes.append(f"Track {stream.index} ({stream.type}) is left out: {dst.suffix} files cannot hold it.")
    return copied, notes


def _notes_on_pictures(reader: VideoReader) -> list[str]:
    notes = []
    if reader.bits > 8:
        kind = "high dynamic range" if reader.is_hdr else "standard range"
        notes.append(f"The source has {reader.bits} bits a colour ({kind}); the result has 8, standard range.")
    if reader.broken:
        notes.append(f"{reader.broken} damaged packets of the source could not be decoded.")
    return notes


def _notes_on_resume(resume: bool, past: Past | None) -> list[str]:
    if not resume:
        return []
    if past is None:
        return ["There was nothing to go on from that fits this source and these settings; it was begun afresh."]
    return [f"Went on after {past.frames} pictures of an earlier run; boxes are counted from there."]


class _Outputs:
    """The video writer and the side files of one run: opened, fed and ended together."""

    def __init__(
        self,
        reader: VideoReader,
        dst: Path | None,
        side_paths: Mapping[str, Path],
        detector: FrameDetector,
        style: Style,
        view: TrackView,
        split: Split | None = None,
    ) -> None:
        self._reader = reader
        self._dst = dst
        self._side_paths = side_paths
        self._detector = detector
        self._style = style
        self._view = view
        self._split = split
        self._video: VideoWriter | SplitWriter | None = None
        self._whole_sides: dict[str, SideFile] = {}
        self._split_sides: SplitSides | None = None
        self._part_began = 0
        self._classes: Counter[str] = Counter()
        self.frames = 0
        self._last_end_s = self._first_s = 0.0
        self._job: JobFile | None = None
        self._past: Past | None = None

    def open(
        self,
        src: Path,
        copied: Sequence[Any],
        *,
        codec: str | None,
        crf: int | None,
        overwrite: bool,
        whole: bool,
        job: JobFile | None,
        past: Past | None,
    ) -> None:
        reader = self._reader
        self._job, self._past = job, past
        shift_s = reader.shift_s
        if self._dst is not None and container_of(self._dst) in ("matroska", "webm"):
            shift_s += reader.lead_in_s(copied)
        header = SideHeader(
            reader.name, self._detector.model_id, self._detector.random_weights, self._detector.class_names
        )
        form: dict[str, Any] = {
            "width": reader.size_wh[0],
            "height": reader.size_wh[1],
            "time_base": reader.time_base,
            "rate": reader.rate,
            "colour": reader.colour,
            "codec": codec,
            "crf": crf,
            "sample_aspect": reader.sample_aspect,
            "copied": copied,
            "metadata": reader.container.metadata,
            "shift_s": shift_s,
            "overwrite": overwrite,
            "sources": [src],
        }
        try:
            if self._dst is not None and self._split is not None:
                self._open_split(self._dst, self._split, header, form)
                return
            if self._dst is not None:
                self._video = VideoWriter(
                    self._dst,
                    chapters=reader.container.chapters() if whole and not reader.shift_s else (),
                    before=() if past is None else past.segments,
                    **form,
                )
            if past is not None:
                self._go_on(past, shift_s)
            self._whole_sides = open_side_files(
                self._side_paths, header, overwrite=overwrite, sources=[src],
                before=None if past is None else past.sides, pictures=self.frames,
            )  # fmt: skip
            if isinstance(self._video, VideoWriter):
                self._note_parts(self._video.part, {kind: side.part for kind, side in self._sides.items()})
        except BaseException:
            self.abort()
            raise

    def _open_split(self, dst: Path, split: Split, header: SideHeader, form: dict[str, Any]) -> None:
        common = {"overwrite": form["overwrite"], "sources": form["sources"]}
        self._split_sides = sides = SplitSides(self._side_paths, header, **common)

        def begin(number: int) -> None:
            sides.begin(number)
            self._part_began = self.frames

        self._video = SplitWriter(dst, split, on_part=begin, **form)

    @property
    def _sides(self) -> dict[str, SideFile]:
        """Those that are open."""
        return self._whole_sides if self._split_sides is None else self._split_sides.open

    def _go_on(self, past: Past, shift_s: Fraction) -> None:
        """shift_s: what stands between times of the source and of the result."""
        self._reader.go_on(past.last_s - shift_s, past.frames, past.packets[1:])
        self.frames = past.frames
        self._first_s, self._last_end_s = float(past.first_s - shift_s), float(past.last_s - shift_s)

    def _note_parts(self, part: Path, sides: Mapping[str, Path]) -> None:
        """In the job file, so that another run can go on from here."""
        assert self._job is not None  # there is one wherever there is a video
        before = () if self._past is None else self._past.segments
        try:
            self._job.write([*(segment.path for segment in before), part], sides)
        except OSError as error:
            raise output_error(self._job.path, error) from error

    def copy(self, packet: Any) -> None:
        if self._video is not None:
            self._video.copy(packet)

    def add(self, picture: Picture, detections: Detections) -> None:
        shown = self._style.shown(detections)
        pts_s = float(picture.pts * self._reader.time_base)
        if isinstance(self._video, SplitWriter):
            self._video.make_room(picture.pts)
        for side in self._sides.values():
            side.add(PictureResult(self.frames - self._part_began, pts_s, shown))
        marks = self._view.marks(shown, pts_s, (picture.rgb.shape[0], picture.rgb.shape[1]))
        if self._video is not None:
            draw_marks(picture.rgb, marks)
            self._video.write(picture.rgb, picture.pts, picture.duration)
        self._first_s = pts_s if self.frames == 0 else self._first_s
        self._last_end_s = pts_s + float(picture.duration * self._reader.time_base)
        self._classes.update(shown.names)
        self.frames += 1

    @property
    def made(self) -> int:
        """Pictures of this run alone."""
        return self.frames - (0 if self._past is None else self._past.frames)

    def finish(self) -> None:
        if self._video is not None:
            self._video.finish()
        if self._split_sides is not None:
            self._split_sides.finish()
        for side in self._whole_sides.values():
            side.finish()
        if self._job is not None:
            self._job.done()

    def keep_partial(self) -> str:
        """Half a sentence on what was kept."""
        if self.frames == 0:
            self.abort()
            return "nothing was written"
        video = None if self._video is None else self._video.keep_partial()
        sides = {kind: side.keep_partial() for kind, side in self._sides.items()}
        if self._job is not None and video is not None:
            self._note_parts(video, sides)
            self._job.released()
        elif self._job is not None and self._past is None:
            self._job.path.unlink(missing_ok=True)  # nothing to go on from
        return kept_in(self.frames, [*([] if self._video is None else [video]), *sides.values()])

    def abort(self) -> None:
        for output in (self._video, *self._sides.values()):
            if output is not None:
                output.abort()
        if self._job is not None and self._past is None:
            self._job.path.unlink(missing_ok=True)

    def report(self, wall_s: float, stage_ms: Mapping[str, float], notes: Sequence[str]) -> VideoReport:
        parts = tuple(self._video.parts) if isinstance(self._video, SplitWriter) else ()
        sides = {kind: side.path for kind, side in self._whole_sides.items()}
        return VideoReport(
            path=parts[0] if parts else None if self._video is None else self._video.path,
            side_files=sides if self._split_sides is None else self._split_sides.paths,
            frames=self.frames,
            boxes=self._classes.total(),
            boxes_by_class=dict(self._classes.most_common()),
            media_s=self._last_end_s - self._first_s,
            wall_s=wall_s,
            stage_ms=stage_ms,
            notes=tuple(notes),
            tracks=self._view.tracks,
            zones=self._view.zones,
            parts=parts,
        )


@contextmanager
def _ended_well(outputs: _Outputs, run: _Run) -> Any:
    """Files finished where all went well, else kept as partial and said so in the error."""
    try:
        yield
        if not run.was_cut_short:
            outputs.finish()
            return
    except KeyboardInterrupt:
        raise  # asked twice: the part files stay as they are
    except BaseException as error:
        say_what_is_kept(error, outputs.keep_partial)
        raise
    stopped = Interrupted("Stopped as asked.")
    say_what_is_kept(stopped, outputs.keep_partial)
    raise stopped


@dataclass(slots=True, eq=False)
class _Detected:
    picture: Picture
    detections: Detections


@dataclass(eq=False)
class _Run:
    """The three stages of one video and their two queues. The first error of any stage is the one that comes out."""

    reader: VideoReader
    detector: FrameDetector
    outputs: _Outputs
    stopped: threading.Event
    style: Style
    tracker: Tracker | None
    _read: ByteQueue[Item] = field(default_factory=lambda: ByteQueue(_QUEUE_BYTES))
    _found: ByteQueue[_Detected | Copied] = field(default_factory=lambda: ByteQueue(_QUEUE_BYTES))
    _causes: list[BaseException] = field(default_factory=list)
    _spent_s: Counter[str] = field(default_factory=Counter)
    _dropped: bool = False

    @property
    def was_cut_short(self) -> bool:
        """Whether stop came before the last picture was through."""
        return self.reader.cut_short or self._dropped

    @property
    def stage_ms(self) -> dict[str, float]:
        return {stage: 1000 * spent / max(1, self.outputs.made) for stage, spent in self._spent_s.items()}

    def to_the_end(self, copied: Sequence[Any], progress: Callable[[VideoProgress], None] | None) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(lambda: self._read_all(copied), self._read), daemon=True),
            threading.Thread(target=self._guarded, args=(self._detect_all, self._found), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self._write_all(progress)
        finally:
            self._read.close()
            self._found.close()
            for thread in threads:
                thread.join(_JOIN_LIMIT_S)  # one that is stuck in a driver is left to itself
        if self._causes:
            raise self._causes[0]

    def _guarded(self, stage: Callable[[], None], output: ByteQueue[Any]) -> None:
        """Run a stage; its error is kept for the caller, and the stage after it gets to its end either way."""
        try:
            stage()
        except BaseException as error:  # carried to the caller's thread
            self._causes.append(error)
            self._read.close(drain=output is self._read)
        output.close(drain=True)

    def _read_all(self, copied: Sequence[Any]) -> None:
        items = self.reader.items(copied)
        while True:
            with self._timed("read"):
                item = next(items, None)
            if item is None or not self._read.put(item, _nbytes(item)):
                return

    def _detect_all(self) -> None:
        score_floor = min(SCORE_FLOOR, self.style.conf)
        while (item := self._read.take()) is not None:
            if self.stopped.is_set():
                self._dropped = True
                return
            found: _Detected | Copied
            if isinstance(item, Picture):
                with self._timed("detect"):
                    found = _Detected(item, self._tracked(item, score_floor))
            else:
                found = item
            if not self._found.put(found, _nbytes(item)):
                return

    def _tracked(self, picture: Picture, score_floor: float) -> Detections:
        """What is found in a picture, with ids where there is a tracker."""
        detections, _ = self.detector.detect_frame(picture.rgb, score_floor=score_floor)
        if self.tracker is None:
            return detections
        pts_s = float(picture.pts * self.reader.time_base)
        return self.tracker.update(detections, pts_s, start_score=self.style.conf)

    def _write_all(self, progress: Callable[[VideoProgress], None] | None) -> None:
        started_s = time.perf_counter()
        while (item := self._found.take()) is not None:
            with self._timed("write"):
                if isinstance(item, Copied):
                    self.outputs.copy(item.packet)
                    continue
                self.outputs.add(item.picture, item.detections)
            if progress is not None:
                progress(self._progress(time.perf_counter() - started_s))

    def _progress(self, spent_s: float) -> VideoProgress:
        done, total = self.outputs.frames, self.reader.expected_pictures
        made = self.outputs.made
        left_s = None if total is None else max(0, total - done) * spent_s / made
        return VideoProgress(done, total, made / spent_s if spent_s else 0.0, left_s)

    @contextmanager
    def _timed(self, stage: str) -> Any:
        started_s = time.perf_counter()
        yield
        self._spent_s[stage] += time.perf_counter() - started_s  # type: ignore[assignment]


def _nbytes(item: Item) -> int:
    return item.rgb.nbytes if isinstance(item, Picture) else int(item.packet.size)
