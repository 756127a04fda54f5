"""A video file for export: upright pictures with their exact times, and the packets of its other tracks, in file order.

Unlike VideoFile, which plays, this reads every track in one pass, so that sound can be copied beside the pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np

from ledetr.chain.colour import colour_of, is_hdr, orientation_of, output_colour, upright_rgb
from ledetr.chain.decoding import PictureDecoder, demuxed
from ledetr.chain.video_file import open_video_container, picture_stream
from ledetr.errors import SourceError
from ledetr.frame import Colour
from ledetr.paths import printable

# So many packets are looked at for where the tracks begin.
_FIRST_PACKETS = 1000
# How far behind the end of the pictures a sparse track, such as subtitles, is still looked for.
_PATIENCE_S = 2
# libavformat's AVFMT_TS_DISCONT: formats such as MPEG-TS, whose clock begins anywhere.
_CLOCK_BEGINS_ANYWHERE = 0x0200


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """rgb: (H, W, 3) uint8, upright, writable. pts, duration: in the time base of the video; duration 0 if unknown."""

    rgb: np.ndarray
    pts: int
    duration: int


@dataclass(frozen=True, slots=True, eq=False)
class Copied:
    """A packet of another track, to be copied as it is."""

    packet: Any


Item: TypeAlias = Picture | Copied


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part is wanted: seconds from the first picture; at most so many pictures; every stride-th one."""

    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        if self.start_s < 0 or (self.end_s is not None and self.end_s <= self.start_s):
            raise ValueError(f"from {self.start_s} s to {self.end_s} s is no part of a video")
        if self.stride < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise ValueError(f"stride and max_frames must be at least 1, got {self.stride} and {self.max_frames}")

    @property
    def is_whole(self) -> bool:
        """Whether every picture is wanted."""
        return self == Cut()


class VideoReader:
    """An open video file; a context manager. Raises SourceError at the door, and from items.

    The first picture is decoded at once: only it tells size, turn and colours. stopped: set from any thread, ends
    items early. cut_short: whether it did. size_wh: of the upright picture.
    """

    def __init__(self, path: Path, *, cut: Cut, stopped: threading.Event) -> None:
        self.name = printable(path.name)
        self._path = path
        self._cut = cut
        self._stopped = stopped
        self.cut_short = False
        self.pictures = 0
        self._packets = 0
        self._video_done = False
        self._after_pts: int | None = None
        self._skipped_packets: Sequence[int] = ()
        self._held: list[Any] | None = []
        self.container: Any = open_video_container(path)
        try:
            self.stream: Any = picture_stream(self.container, self.name)
            self.stream.thread_type = "AUTO"
            self._decoder = PictureDecoder(self.stream)
            self.time_base = self._decoder.time_base
            self._describe(_first_frame(path))
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def _describe(self, first: av.VideoFrame) -> None:
        orientation = orientation_of(first)
        self.size_wh = orientation.upright_size(first.width, first.height)
        self.bits = max((part.bits for part in first.format.components), default=8)
        self.source_colour = colour_of(first)
        self.colour: Colour = output_colour(self.source_colour, first.height, self.size_wh[1])
        aspect: Fraction | None = self.stream.sample_aspect_ratio
        self.sample_aspect = 1 / aspect if aspect and orientation.quarter_turns % 2 else aspect
        self.rate: Fraction | None = self.stream.average_rate or self.stream.guessed_rate
        self._first_pts = int(first.pts or 0)
        self._start_pts = self._first_pts + round(Fraction(self._cut.start_s) / self.time_base)
        end_s = self._cut.end_s
        self._end_pts = None if end_s is None else self._first_pts + round(Fraction(end_s) / self.time_base)

    def _seek(self, pts: int) -> None:
        try:
            self.container.seek(pts, stream=self.stream, backward=True)
        except av.error.FFmpegError as error:
            raise SourceError(f"Cannot seek in {self.name!r} ({error.strerror}).") from None

    @property
    def broken(self) -> int:
        """Packets that could not be decoded so far."""
        return self._decoder.broken

    @property
    def is_hdr(self) -> bool:
        """Whether the source has a curve of high dynamic range."""
        return is_hdr(self.source_colour)

    @property
    def bits_per_s(self) -> int | None:
        """Of the pictures that are wanted, on the average of the whole file; None where it does not say."""
        own = self.stream.bit_rate
        if not own and self.container.bit_rate:  # some formats give that of all tracks together alone
            own = self.container.bit_rate - sum(sound.bit_rate or 0 for sound in self.container.streams.audio)
        return int(own / self._cut.stride) if own and own > 0 else None

    @property
    def shift_s(self) -> Fraction:
        """What to add to every time of every track, so that none of the wanted pictures is before zero.

        0 wherever the source's own times can stay.
        """
        if self._start_pts != self._first_pts:
            return -self._start_pts * self.time_base
        if self.container.format.flags & _CLOCK_BEGINS_ANYWHERE and self.container.start_time is not None:
            return -Fraction(self.container.start_time, av.time_base)
        return max(Fraction(0), -self._first_pts * self.time_base)

    def lead_in_s(self, copied: Sequence[Any]) -> Fraction:
        """How far the copied tracks, even with shift_s, begin before zero, as AAC does; Matroska cannot hold that."""
        if not copied or self.shift_s < 0:
            return Fraction(0)  # begun later than the source: packets from before that are left out
        starts: dict[int, Fraction] = {}
        with open_video_container(self._path) as container:
            for packet in islice(container.demux([container.streams[one.index] for one in copied]), _FIRST_PACKETS):
                if packet.pts is not None:
                    starts.setdefault(packet.stream_index, packet.pts * packet.time_base)
                if len(starts) == len(copied):
                    break
        return max(Fraction(0), -min(starts.values(), default=Fraction(0)) - self.shift_s)

    @property
    def expected_pictures(self) -> int | None:
        """About how many pictures will come; None where the file does not say."""
        total: int | None = self.stream.frames
        if not total and self.rate and self.container.duration:
            total = round(self.container.duration / av.time_base * self.rate)
        if not total:
            return None
        if self.rate:
            total_s = float(total / self.rate)
            end_s = total_s if self._cut.end_s is None else min(total_s, self._cut.end_s)
            total = min(total, max(0, round((end_s - self._cut.start_s) * self.rate)))
        total = -(-total // self._cut.stride)
        return total if self._cut.max_frames is None else min(total, self._cut.max_frames)

    def go_on(self, after_s: Fraction, pictures: int, packets: Sequence[int]) -> None:
        """Before items: leave out the pictures up to after_s and so many packets of each copied track.

        after_s: a time of the source. pictures: how many these are, for max_frames.
        """
        self._after_pts = int(after_s / self.time_base)
        self.pictures = pictures
        self._skipped_packets = packets

    def items(self, copied: Sequence[Any] = ()) -> Iterator[Item]:
        """Pictures in display order, and packets of the copied tracks where they stand in the file; once only."""
        if self._start_pts != self._first_pts:
            self._seek(self._start_pts)
        passed: set[int] = set()
        left_out = {stream.index: count for stream, count in zip(copied, self._skipped_packets, strict=False)}
        seen = 0
        for packet in self._demux([self.stream, *copied]):
            if packet.stream is not self.stream:
                if self._wanted(packet, passed):
                    left_out[packet.stream.index] = left_out.get(packet.stream.index, 0) - 1
                    if left_out[packet.stream.index] < 0:
                        yield Copied(packet)
            elif not self._video_done:
                for frame in self._decode_from_group(packet):
                    if self._within(frame):
                        if self._after_pts is not None and int(frame.pts or 0) <= self._after_pts:
                            seen = 1  # the last of these is one that was wanted; count strides from it
                            continue
                        seen += 1
                        if (seen - 1) % self._cut.stride == 0 and not self._is_full(frame):
                            yield self._picture(frame)
            if self._video_done and (len(passed) == len(copied) or self._is_far_behind(packet)):
                return
            if self._stopped.is_set():
                self.cut_short = True
                return
        self._check_whole()

    def _within(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is wanted; the first one behind the end settles where all tracks end."""
        assert frame.pts is not None  # _decode gives every frame a time
        if self._end_pts is not None and frame.pts >= self._end_pts:
            self._end_pts, self._video_done = frame.pts, True
        return not self._video_done and frame.pts >= self._start_pts

    def _is_full(self, frame: av.VideoFrame) -> bool:
        """Whether there are enough pictures; then this frame is where all tracks end."""
        if self._cut.max_frames is None or self.pictures < self._cut.max_frames:
            return False
        self._end_pts, self._video_done = frame.pts, True
        return True

    def _wanted(self, packet: Any, passed: set[int]) -> bool:
        """Whether a packet of another track lies in the wanted part."""
        if packet.dts is None or packet.size == 0:
            return False  # the demuxer's end mark
        time = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
        if self._end_pts is not None and time >= self._end_pts * self.time_base:
            passed.add(packet.stream.index)
            return False
        return self._start_pts == self._first_pts or time >= self._start_pts * self.time_base

    def _is_far_behind(self, packet: Any) -> bool:
        assert self._end_pts is not None
        return packet.dts is not None and packet.dts * packet.time_base > self._end_pts * self.time_base + _PATIENCE_S

    def _picture(self, frame: av.VideoFrame) -> Picture:
        assert frame.pts is not None
        rgb = upright_rgb(frame)
        if (rgb.shape[1], rgb.shape[0]) != self.size_wh:
            at_s = float((frame.pts - self._first_pts) * self.time_base)
            raise SourceError(
                f"{self.name!r} changes its picture size at {at_s:.2f} s, from {self.size_wh[0]}x{self.size_wh[1]} to "
                f"{rgb.shape[1]}x{rgb.shape[0]}; one output video has one size, so split it there first."
            )
        self.pictures += 1
        return Picture(rgb, frame.pts, frame.duration or 0)

    def _demux(self, streams: Sequence[Any]) -> Iterator[Any]:
        try:
            yield from demuxed(self.container, streams)
        except av.error.FFmpegError as error:
            raise SourceError(f"{self.name!r} cannot be read any further ({error.strerror}).") from None

    def _decode_from_group(self, packet: Any) -> Iterator[av.VideoFrame]:
        """As _decode; where the beginning is left out, from the last key frame before what is wanted."""
        if self._after_pts is None or self._held is None:
            yield from self._decode(packet)
            return
        time = packet.dts if packet.pts is None else packet.pts
        wanted = time is None or time > self._after_pts
        if packet.is_keyframe and not wanted:
            self._packets += len(self._held)
            self._held = []
        self._held.append(packet)
        if wanted:
            held, self._held = self._held, None
            for one in held:
                yield from self._decode(one)

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        """Frames in display order, each with a time."""
        self._packets += packet.size > 0
        try:
            return self._decoder.decode_timed(packet)
        except av.error.InvalidDataError:
            raise SourceError(f"{self.name!r} cannot be decoded any further; it is damaged.") from None

    def _check_whole(self) -> None:
        """Raises SourceError when the file's own index lists more video packets than came."""
        listed = len(self.stream.index_entries)
        if self._start_pts == self._first_pts and self._packets < listed:
            raise SourceError(
                f"{self.name!r} ends early: {self._packets} of its {listed} pictures are there; it is cut or damaged."
            )
        if self.pictures == 0:
            raise SourceError(f"{self.name!r} has no picture in the part that was asked for.")


def _first_frame(path: Path) -> av.VideoFrame:
    """The first picture that can be decoded, from an opening of its own: some formats cannot go back to the start."""
    with open_video_container(path) as container:
        stream = picture_stream(container, printable(path.name))
        decoder = PictureDecoder(stream)
        with suppress(av.error.InvalidDataError):  # nothing but damage, said below
            for packet in demuxed(container, stream):
                for frame in decoder.decode(packet):
                    return frame
    raise SourceError(f"{printable(path.name)!r} holds no picture that can be decoded; it may be cut or damaged.")
