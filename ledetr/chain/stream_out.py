"""A camera, address, screen or test pattern to a video with boxes, as long as it lasts or until it is stopped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ledetr.chain.inference import FrameDetector
from ledetr.chain.output_files import kept_in, say_what_is_kept
from ledetr.chain.overlay import Mark, draw_marks
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.recording import Timeline
from ledetr.chain.results import Result
from ledetr.chain.side_files import PictureResult, SideFile, SideHeader, open_side_files
from ledetr.chain.sources import SourceSpec
from ledetr.chain.split import Split, SplitSides, SplitWriter
from ledetr.chain.streaming import stream
from ledetr.chain.trails import TrackView
from ledetr.chain.video import VideoProgress, VideoReport, style_of
from ledetr.detections import Detections
from ledetr.errors import OutputError, SourceError, UsageError
from ledetr.tracking import Tracking
from ledetr.zones import ZonePlan


def process_stream(
    spec: SourceSpec,
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
    overwrite: bool = False,
    every_frame: bool | None = None,
    max_frames: int | None = None,
    retries: int | None = 10,
    split: Split | None = None,
    tracking: Tracking | None = None,
    zones: ZonePlan | None = None,
    progress: Callable[[VideoProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> VideoReport:
    """Detect on a source that is not a file, and write what has results, each with its own time, and no sound.

    A live source gives its newest picture each time, unless every_frame; to stop it is its natural end, so the files
    are completed. Errors as process_video: what was written so far is kept as partial.
    """
    started_s = time.perf_counter()
    if split is not None and dst is None:
        raise UsageError("Parts are of a video, and none is written; do without split.")
    style = style_of(detector, conf, class_ids, labels, scores, by_track=tracking is not None)
    view = TrackView(style, tracking, zones)
    outputs = _StreamOutputs(spec, dst, detector, side_files or {}, codec, crf, overwrite, split)
    results = stream(spec, detector, every_frame=every_frame, retries=retries, tracking=tracking)
    classes: Counter[str] = Counter()
    try:
        for result in islice(results, max_frames):
            shown = style.shown(result.detections)
            marks = view.marks(shown, result.frame.meta.pts_s, (result.frame.meta.height, result.frame.meta.width))
            outputs.add(result, shown, marks)
            classes.update(shown.names)
            if progress is not None:
                spent_s = time.perf_counter() - started_s
                left_s = None if max_frames is None else (max_frames - outputs.frames) * spent_s / outputs.frames
                progress(VideoProgress(outputs.frames, max_frames, outputs.frames / spent_s, left_s))
            if stop is not None and stop.is_set():
                break
        if outputs.frames == 0:
            raise SourceError(f"{spec.display_name} sent no picture.")
        outputs.finish()
    except KeyboardInterrupt:
        raise  # asked twice: the part files stay as they are
    except BaseException as error:
        say_what_is_kept(error, outputs.keep_partial)
        raise
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()
    return VideoReport(
        path=outputs.video_path,
        side_files=outputs.side_paths,
        frames=outputs.frames,
        boxes=classes.total(),
        boxes_by_class=dict(classes.most_common()),
        media_s=outputs.seconds,
        wall_s=time.perf_counter() - started_s,
        stage_ms={},
        tracks=view.tracks,
        zones=view.zones,
        parts=outputs.parts,
    )


class _StreamOutputs:
    """The writer, opened at the first picture because only that has a size, and the side files."""

    def __init__(
        self,
        spec: SourceSpec,
        dst: Path | None,
        detector: FrameDetector,
        side_paths: Mapping[str, Path],
        codec: str | None,
        crf: int | None,
        overwrite: bool,
        split: Split | None,
    ) -> None:
        self._dst, self._codec, self._crf, self._overwrite = dst, codec, crf, overwrite
        self._split = split
        self._writer: VideoWriter | SplitWriter | None = None
        self._timeline: Timeline | None = None
        self.frames = 0
        header = SideHeader(spec.display_name, detector.model_id, detector.random_weights, detector.class_names)
        self._part_began = 0
        self._split_sides = None if split is None else SplitSides(side_paths, header, overwrite=overwrite)
        self._whole_sides = {} if split is not None else open_side_files(side_paths, header, overwrite=overwrite)

    @property
    def sides(self) -> dict[str, SideFile]:
        """Those that are open."""
        return self._whole_sides if self._split_sides is None else self._split_sides.open

    @property
    def side_paths(self) -> dict[str, Path]:
        if self._split_sides is not None:
            return self._split_sides.paths
        return {kind: side.path for kind, side in self._whole_sides.items()}

    @property
    def parts(self) -> tuple[Path, ...]:
        return tuple(self._writer.parts) if isinstance(self._writer, SplitWriter) else ()

    @property
    def video_path(self) -> Path | None:
        return self.parts[0] if self.parts else None if self._writer is None else self._writer.path

    @property
    def seconds(self) -> float:
        return 0.0 if self._writer is None else self._writer.seconds

    def add(self, result: Result, shown: Detections, marks: Sequence[Mark]) -> None:
        pts = 0
        if self._dst is not None:
            if self._writer is None or self._timeline is None:
                self._timeline = Timeline(result.frame.meta.time_base, None)
                self._writer = self._open_writer(self._dst, result)
            pts = self._timeline.pts_of(result.frame)
            if isinstance(self._writer, SplitWriter):
                self._writer.make_room(pts)
        for side in self.sides.values():
            side.add(PictureResult(self.frames - self._part_began, result.frame.meta.pts_s, shown))
        if self._writer is not None:
            self._write(self._writer, result, marks, pts)
        self.frames += 1

    def _open_writer(self, dst: Path, result: Result) -> VideoWriter | SplitWriter:
        meta = result.frame.meta
        form: dict[str, Any] = {
            "width": meta.width,
            "height": meta.height,
            "time_base": meta.time_base,
            "colour": meta.colour,
            "codec": self._codec,
            "crf": self._crf,
            "overwrite": self._overwrite,
        }
        if self._split is None:
            return VideoWriter(dst, **form)
        return SplitWriter(dst, self._split, on_part=self._begin_part, **form)

    def _begin_part(self, number: int) -> None:
        assert self._split_sides is not None  # there are parts
        self._split_sides.begin(number)
        self._part_began = self.frames

    def _write(self, writer: VideoWriter | SplitWriter, result: Result, marks: Sequence[Mark], pts: int) -> None:
        if result.frame.rgb.shape[:2] != writer.size_hw:
            raise OutputError("The picture changed its size, and one video has one size; start another one.")
        writer.write(draw_marks(result.frame.rgb, marks), pts)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.finish()
        if self._split_sides is not None:
            self._split_sides.finish()
        for side in self._whole_sides.values():
            side.finish()

    def keep_partial(self) -> str:
        """Half a sentence on what was kept; nothing to say where no picture came."""
        if self.frames == 0:
            self._abort()
            return ""
        kept = [] if self._writer is None else [self._writer.keep_partial()]
        return kept_in(self.frames, [*kept, *(side.keep_partial() for side in self.sides.values())])

    def _abort(self) -> None:
        for output in (self._writer, *self.sides.values()):
            if output is not None:
                output.abort()
