"""A recording of what is seen: results go through a byte-bound queue to a writer thread of their own.

Each written picture is one that has a result, with its own time; old boxes are never put on a new picture. Where the
source is live and the disk too slow, pictures are left out and counted; a file waits instead.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ledetr.chain.mailbox import DEFAULT_QUEUE_BYTES, ByteQueue
from ledetr.chain.overlay import Mark, draw_marks
from ledetr.chain.recorder import VideoWriter, choose_codec
from ledetr.chain.results import Result
from ledetr.chain.split import Split, SplitWriter
from ledetr.errors import LeDetrError, OutputError
from ledetr.frame import Frame

QUEUE_BYTES = DEFAULT_QUEUE_BYTES


@dataclass(frozen=True, slots=True)
class RecordingStatus:
    """How far a recording is. seconds: its length. dropped: pictures left out because the disk was too slow."""

    path: Path
    seconds: float
    nbytes: int
    frames: int
    dropped: int


class Recording:
    """One output file and its thread. done(path, error, parts) is called once, from that thread.

    split: several files in its place, see SplitWriter; path is then that of the first one, and parts has all.
    marks: the marks drawn on a result, e.g. with the thresholds of the moment; None writes clean pictures.
    """

    def __init__(
        self,
        path: Path,
        *,
        marks: Callable[[Result], Sequence[Mark]] | None,
        rate: Fraction | None,
        may_drop: bool,
        split: Split | None = None,
        done: Callable[[Path | None, LeDetrError | None, tuple[Path, ...]], None],
    ) -> None:
        choose_codec(path, None)
        self._path = path
        self._marks = marks
        self._rate = rate
        self._may_drop = may_drop
        self._split = split
        self._done = done
        self._queue: ByteQueue[Result] = ByteQueue(QUEUE_BYTES)
        self._timeline: Timeline | None = None
        self._writer: VideoWriter | SplitWriter | None = None
        self._dropped = 0
        self.path: Path | None = None
        self.error: LeDetrError | None = None
        self.thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self.thread.start()

    def offer(self, result: Result) -> None:
        """Have the result written; a second look at the same frame is not."""
        if result.again:
            return
        written = self._queue.put(result, result.frame.rgb.nbytes, timeout_s=0 if self._may_drop else None)
        if not written and not self._queue.closed:
            self._dropped += 1

    def finish_soon(self) -> None:
        """Write what waits, then complete the file; returns at once."""
        self._queue.close(drain=True)

    def finish(self, timeout_s: float | None = None) -> Path:
        """Write what waits, complete the file and give its path; raises the error that ended it, or OutputError."""
        self.finish_soon()
        self.thread.join(timeout_s)
        if self.thread.is_alive():
            raise OutputError(f"The recording {self._path.name} is not complete after {timeout_s:g} s; it goes on.")
        if self.error is not None:
            raise self.error
        if self.path is None:
            raise OutputError(f"The recording {self._path.name} holds no picture, so no file was written.")
        return self.path

    @property
    def ending(self) -> bool:
        """Whether it takes no more pictures."""
        return self._queue.closed

    @property
    def parts(self) -> tuple[Path, ...]:
        """Those that are whole, where it is split."""
        return tuple(self._writer.parts) if isinstance(self._writer, SplitWriter) else ()

    @property
    def status(self) -> RecordingStatus:
        """How far it is."""
        writer = self._writer
        if writer is None:
            return RecordingStatus(self._path, 0.0, 0, 0, self._dropped)
        return RecordingStatus(writer.path, writer.seconds, writer.nbytes, writer.frames, self._dropped)

    def _run(self) -> None:
        try:
            while (result := self._queue.take()) is not None:
                self._write(result)
            self.path = self._writer.finish() if self._writer is not None else None
        except BaseException as error:  # told to the user by done; the picture goes on without the recording
            self._give_up(error)
        self._done(self.path, self.error, self.parts)

    def _give_up(self, error: BaseException) -> None:
        self._queue.close()
        self.error = error if isinstance(error, LeDetrError) else OutputError(f"The recording broke off: {error}.")
        if self._writer is not None:
            try:
                self.path = self._writer.keep_partial()
            except (LeDetrError, OSError):  # the first cause is the one to tell
                self.path = None

    def _write(self, result: Result) -> None:
        frame = result.frame
        if self._writer is None or self._timeline is None:
            self._timeline = Timeline(frame.meta.time_base, self._rate)
            self._writer = self._open_writer(frame)
        if frame.rgb.shape[:2] != self._writer.size_hw:
            raise OutputError("The recording ended because the picture changed its size; start another one.")
        rgb = frame.rgb if self._marks is None else draw_marks(frame.rgb, self._marks(result))
        self._writer.write(rgb, self._timeline.pts_of(frame))

    def _open_writer(self, frame: Frame) -> VideoWriter | SplitWriter:
        meta = frame.meta
        form: dict[str, Any] = {
            "width": meta.width,
            "height": meta.height,
            "time_base": meta.time_base,
            "rate": self._rate,
            "colour": meta.colour,
        }
        return VideoWriter(self._path, **form) if self._split is None else SplitWriter(self._path, self._split, **form)


class Timeline:
    """Times of the recording: those of the source from zero on, joined where the source jumps."""

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._time_base = time_base
        self._gap = max(1, round(1 / ((rate or Fraction(25)) * time_base)))
        self._epoch: int | None = None
        self._shift = 0
        self._last_in = 0
        self._last_out = -self._gap

    def pts_of(self, frame: Frame) -> int:
        """In ticks of the first frame's time base."""
        pts = round(frame.meta.pts * frame.meta.time_base / self._time_base)
        if frame.meta.epoch != self._epoch or pts <= self._last_in:
            self._shift = self._last_out + self._gap - pts
            self._epoch = frame.meta.epoch
        self._last_in, self._last_out = pts, pts + self._shift
        return self._last_out
