"""A video file, frame by frame, with the exact times that stand in it."""

from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ledetr.chain.clock import Clock
from ledetr.chain.colour import colour_of, orientation_of, upright_rgb
from ledetr.chain.decoding import PictureDecoder, demuxed
from ledetr.chain.sources import OPEN_DEADLINE_S, READ_DEADLINE_S, SourceInfo, VideoSpec
from ledetr.errors import SourceError
from ledetr.frame import Frame, FrameMeta
from ledetr.paths import check_regular_file, printable

# Containers that hold their pictures themselves. Playlists, scripts and device formats are not here, so that a file
# cannot make the reader open other files or addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,nut,mxf,gif,apng,ivf,obu,"
    "h264,hevc,av1,vvc,m4v,mjpeg,yuv4mpegpipe,dv,wtv,rm,gxf,nsv,dirac,vc1,swf,avif,webp,"
    "wav,mp3,aac,flac,ac3,eac3,aiff,amr,caf,w64,opus"
)


def open_video_file(spec: VideoSpec, *, clock: Clock, epoch: int = 0) -> "VideoFile":
    """Open a video file. Raises SourceError."""
    return VideoFile(open_video_container(spec.path), spec.display_name, clock=clock, epoch=epoch)


class VideoFile:
    """A container that can be sought, open; see FrameSource.

    The container is closed by close, and where this constructor raises SourceError.
    """

    def __init__(self, container: InputContainer, name: str, *, clock: Clock, epoch: int = 0) -> None:
        self._container = container
        self._name = name
        self._clock = clock
        self._epoch = epoch
        self._seq = 0
        self._index: int | None = 0
        self._since_jump: list[tuple[int | None, int | None]] | None = None  # decoding time and time of each packet
        try:
            self._stream = picture_stream(container, name)
            self._stream.thread_type = "AUTO"
            self._decoder = PictureDecoder(self._stream)
            self._frames = self._decode()
            # The first frame is decoded at once: only it tells how the picture is turned, and whether there is one.
            self._pending = self._next_decoded()
            if self._pending is None:
                raise SourceError(f"{name!r} holds no picture that can be decoded; it may be cut or damaged.")
            self._orientation = orientation_of(self._pending)
            self.info = self._describe(self._pending)
        except BaseException:
            container.close()
            raise

    def _describe(self, first: av.VideoFrame) -> SourceInfo:
        stream, container = self._stream, self._container
        width, height = self._orientation.upright_size(first.width, first.height)
        duration_s: float | None = None
        if stream.duration is not None:
            duration_s = float(stream.duration * self._time_base)
        elif container.duration is not None:
            duration_s = container.duration / av.time_base
        return SourceInfo(
            source_id=self._name,
            display_name=self._name,
            live=False,
            width=width,
            height=height,
            rate=stream.average_rate or stream.guessed_rate,
            frame_count=stream.frames or None,
            duration_s=duration_s,
            time_base=self._time_base,
            has_audio=bool(container.streams.audio),
            seekable=True,
            start_s=float(_pts(first) * self._time_base),
        )

    @property
    def _time_base(self) -> Fraction:
        return self._decoder.time_base

    @property
    def broken(self) -> int:
        """Packets that could not be decoded so far."""
        return self._decoder.broken

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The next frame; None at the end. What is skipped is decoded and not converted."""
        decoded, self._pending = self._pending or self._next_decoded(), None
        if decoded is not None and skip_to_s is not None:
            decoded = self._skipped_to(decoded, round(Fraction(skip_to_s) / self._time_base))
        return None if decoded is None else self._frame(decoded)

    def _skipped_to(self, decoded: av.VideoFrame, target: int) -> av.VideoFrame:
        while _pts(decoded) < target and (following := self._next_decoded()) is not None:
            decoded = following
            self._count()
        return decoded

    def _frame(self, decoded: av.VideoFrame) -> Frame:
        t_capture_ns = self._clock.now_ns()
        orientation = orientation_of(decoded) if decoded.side_data.get("DISPLAYMATRIX") else self._orientation
        rgb = upright_rgb(decoded, orientation)
        meta = FrameMeta(
            source_id=self.info.source_id,
            epoch=self._epoch,
            seq=self._seq,
            pts=_pts(decoded),
            time_base=self._time_base,
            t_capture_ns=t_capture_ns,
            width=rgb.shape[1],
            height=rgb.shape[0],
            rotation_deg=orientation.rotation_deg,
            colour=colour_of(decoded),
            index=self._index,
        )
        self._count()
        return Frame(meta, rgb)

    def _count(self) -> None:
        self._seq += 1
        self._index = None if self._index is None else self._index + 1

    def _next_decoded(self) -> av.VideoFrame | None:
        try:
            return next(self._frames, None)
        except av.error.FFmpegError as error:
            raise SourceError(f"{self._name!r} cannot be read any further ({_reason(error)}).") from None

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Decoded frames in display order, each with a time."""
        for packet in demuxed(self._container, self._stream):
            if self._since_jump is not None and packet.size:
                self._since_jump.append((packet.dts, packet.pts))
            yield from self._decoder.decode_timed(packet)

    def seek(self, pts_s: float) -> None:
        """Go on with the first frame at or after pts_s, or the last frame where there is none; a new epoch begins.

        Frames between the key frame and the target are decoded and not converted.
        """
        target = max(round(Fraction(pts_s) / self._time_base), self._start_pts)
        self._pending = self._decoded_at(target)
        self._epoch += 1
        self._seq = 0
        self._index = None if self._pending is None else self._index_of(self._pending)
        self._since_jump = None

    def _index_of(self, decoded: av.VideoFrame) -> int | None:
        """The number of the frame in the file after a jump; None where only counting from the start could tell."""
        from_start = _pts(decoded) - self._start_pts
        if from_start <= 0:
            return 0
        if (number := self._number_by_packets(_pts(decoded))) is not None:
            return number
        if self._frame_ticks == 0:
            return None
        frames = from_start / self._frame_ticks
        return round(frames) if abs(frames - round(frames)) * self._frame_ticks <= self._rounding_ticks else None

    def _number_by_packets(self, pts: int) -> int | None:
        """Pictures before it: of all packets before the jump, and of those since then that are shown earlier."""
        packets, ticks = self._since_jump, self._all_packet_ticks
        if not packets or not ticks or any(dts is None or time is None for dts, time in packets):
            return None
        first = bisect_left(ticks, packets[0][0] or 0)
        if first == len(ticks) or ticks[first] != packets[0][0]:
            return None
        return first + sum(time is not None and time < pts for _, time in packets)

    @cached_property
    def _all_packet_ticks(self) -> list[int]:
        """When each packet is decoded, as the file's index says; empty where not every packet is in it, and shown."""
        entries = list(self._stream.index_entries)
        ticks = [entry.timestamp for entry in entries]
        whole = len(ticks) == self._stream.frames and all(a < b for a, b in pairwise(ticks))
        return ticks if whole and not any(entry.is_discard for entry in entries) else []

    @cached_property
    def _frame_ticks(self) -> Fraction:
        """Ticks from frame to frame where the file's index shows that all are alike, but for rounding; else 0."""
        ticks = [entry.timestamp for entry in self._stream.index_entries]
        if len(ticks) < 2 or len(ticks) != self._stream.frames:
            return Fraction(0)  # not every frame is in the index
        step = Fraction(ticks[-1] - ticks[0], len(ticks) - 1)
        alike = all(abs(ticks[0] + i * step - tick) <= self._rounding_ticks for i, tick in enumerate(ticks))
        return step if alike and step > 4 * self._rounding_ticks else Fraction(0)

    @property
    def _rounding_ticks(self) -> Fraction:
        # Many a writer rounds times to 1 ms whatever the time base.
        return max(Fraction(1), Fraction(1, 1000) / self._time_base)

    @property
    def _start_pts(self) -> int:
        return round(Fraction(self.info.start_s) / self._time_base)

    def _decoded_at(self, target: int) -> av.VideoFrame | None:
        # Where the index is poor the first picture after a jump may lie behind the target; then jump further back.
        start = self._start_pts
        for back_s in (0.0, 2.0, 10.0, 60.0, float("inf")):
            jump = start if back_s == float("inf") else max(start, target - round(back_s / self._time_base))
            self._jump(jump)
            frame = self._next_decoded()
            if frame is not None and (_pts(frame) <= target or jump <= start):
                break
        last = frame
        while frame is not None and _pts(frame) < target:
            last, frame = frame, self._next_decoded()
        return frame or last

    def _jump(self, pts: int) -> None:
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except av.error.FFmpegError as error:
            raise SourceError(f"Cannot seek in {self._name!r} ({_reason(error)}).") from None
        self._decoder.jumped()
        self._since_jump = []
        self._frames = self._decode()

    def interrupt(self) -> None:
        """A file answers by itself; nothing to do."""

    def close(self) -> None:
        """Close the file."""
        self._frames = iter(())
        self._pending = None
        self._container.close()


def open_video_container(path: Path) -> InputContainer:
    """The file opened for reading with our limits: formats and protocols are allow-lists. Raises SourceError."""
    check_regular_file(path)
    name = printable(path.name)
    # "file:" makes FFmpeg take the rest as a file name, whatever it looks like.
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        return av.open(f"file:{path}", options=options, timeout=(OPEN_DEADLINE_S, READ_DEADLINE_S))
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        raise SourceError(f"Cannot open {name!r}: {_why_unreadable(path, error)}.") from None


def _why_unreadable(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(64 * 1024)
    if head[4:8] == b"ftyp" and isinstance(error, av.error.InvalidDataError):
        return "the video was cut short, its index is missing (a recording or download that did not finish)"
    if b"\0" not in head and not head.startswith((b"RIFF", b"GIF")):
        return "it holds text, not a video"
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
        return "it is not a video that can be read, whatever its name says"
    return _reason(error)


def _reason(error: Exception) -> str:
    """FFmpeg's words without the file name that it appends."""
    return str(getattr(error, "strerror", None) or type(error).__name__)


def picture_stream(container: InputContainer, name: str) -> VideoStream:
    """The first video stream that is not a cover picture."""
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [stream for stream in container.streams.video if not stream.disposition & covers]
    if moving:
        return moving[0]
    if container.streams.audio:
        raise SourceError(f"{name!r} has sound but no pictures; choose a file with a video track.")
    raise SourceError(f"{name!r} has no video track; choose a file with a video track.")


def _pts(frame: av.VideoFrame) -> int:
    assert frame.pts is not None  # _decode gives every frame a time
    return int(frame.pts)
