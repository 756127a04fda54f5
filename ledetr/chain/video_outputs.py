"""What one export writes: the video, whole or in parts, and the lists of boxes, opened, fed and ended together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ledetr.chain.inference import FrameDetector
from ledetr.chain.output_files import kept_in, output_error
from ledetr.chain.overlay import Style, draw_marks
from ledetr.chain.recorder import VideoWriter, container_of
from ledetr.chain.resume import JobFile, Past
from ledetr.chain.side_files import PictureResult, SideFile, SideHeader, open_side_files
from ledetr.chain.split import Split, SplitSides, SplitWriter
from ledetr.chain.trails import TrackView
from ledetr.chain.video_reader import Picture, VideoReader
from ledetr.detections import Detections
from ledetr.zones import ShapeCount

# The goal is half as much again as the source; what the encoder has at the start comes to the limit.
_MOST_TO_SOURCE = 1.45
# Less than either makes mud of any picture, however small the source is, e.g. a screen on which nothing moves.
_LEAST_BITS_PER_PIXEL, _LEAST_BITS_PER_S = 0.01, 150_000


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


def most_bits_per_s(reader: VideoReader) -> int | None:
    """How many bits a second of pictures a result of usual quality may have, so that it does not outgrow its source.

    None where the source does not say how many it has.
    """
    if reader.bits_per_s is None or reader.rate is None:
        return None
    width, height = reader.size_wh
    least = _LEAST_BITS_PER_PIXEL * width * height * float(reader.rate)
    return round(max(least, _LEAST_BITS_PER_S, _MOST_TO_SOURCE * reader.bits_per_s))


class VideoOutputs:
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
        """All of them or none. copied: tracks whose packets go along. job, past: see resume.py."""
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
            "most_bits_per_s": most_bits_per_s(reader) if crf is None else None,
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
        """A packet of another track."""
        if self._video is not None:
            self._video.copy(packet)

    def add(self, picture: Picture, detections: Detections) -> None:
        """Draw on the picture and write it, and what was found in it."""
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
        """Everything is whole: give it its names."""
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
        """Leave nothing of this run behind."""
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
