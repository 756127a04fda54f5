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
from pathlib import Path
from typing import Any

from ledetr.chain.inference import SCORE_FLOOR, FrameDetector
from ledetr.chain.mailbox import MEBIBYTE, ByteQueue
from ledetr.chain.output_files import say_what_is_kept
from ledetr.chain.overlay import RANDOM_WEIGHTS, Style
from ledetr.chain.recorder import container_of, holds
from ledetr.chain.resume import JobFile, Past, settings_hash
from ledetr.chain.split import Split
from ledetr.chain.trails import TrackView
from ledetr.chain.video_outputs import VideoOutputs, VideoReport
from ledetr.chain.video_reader import Copied, Cut, Item, Picture, VideoReader
from ledetr.detections import Detections
from ledetr.errors import Interrupted, UsageError
from ledetr.tracking import Tracker, Tracking
from ledetr.zones import ZonePlan

__all__ = ["VideoProgress", "VideoReport", "needs_matroska", "process_video", "style_of"]

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
        writers = VideoOutputs(reader, dst, side_files or {}, detector, style, view, split)
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


@contextmanager
def _ended_well(outputs: VideoOutputs, run: _Run) -> Any:
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
    outputs: VideoOutputs
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
