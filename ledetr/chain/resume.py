"""An export that goes on where an earlier one was cut off, also by kill -9 or a power cut.

Beside its part file an export keeps a job file: what it was made from and how, and which files hold its beginning.
What can be played of a part file is a closed segment; the next run begins at the first picture after it, in a part
file of its own, and at the end the packets of all segments are copied into one file. Whatever does not match the
job file starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import psutil

from ledetr.errors import UsageError
from ledetr.files import whole_file

_VERSION = 1
_END_BYTES = 64 * 1024
_LONG = 1 << 40  # ticks, more than any encoder reorders


@dataclass(frozen=True, slots=True)
class Segment:
    """The usable beginning of a part file. packets: how many of each track, the pictures first.

    first_s, last_s: times of its first and last picture. rounding_s: how far they may be off. extradata: what a
    decoder needs first.
    """

    path: Path
    packets: tuple[int, ...]
    first_s: Fraction
    last_s: Fraction
    rounding_s: Fraction
    extradata: bytes


def usable_segment(path: Path) -> Segment | None:
    """What can be kept of a part file; None where no picture is whole."""
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            known = [stream for stream in container.streams.video if stream.codec_context is not None]
            return _usable(path, container) if known and known[0] is container.streams.video[0] else None
    except (OSError, av.error.FFmpegError, UnicodeDecodeError):  # also tags that are no text
        return None


def _usable(path: Path, container: Any) -> Segment | None:
    video = container.streams.video[0]
    counts = [0] * len(container.streams)
    # Of each packet of the pictures: its time, its place in decoding order, and what came before it.
    seen: list[tuple[int, int, tuple[int, ...]]] = []
    for packet in _undamaged(container):
        if packet.stream is video:
            # Matroska gives no place in decoding order; what FFmpeg makes up lacks the first ones.
            seen.append((packet.pts, packet.pts - _LONG if packet.dts is None else packet.dts, tuple(counts)))
        counts[packet.stream_index] += 1
    kept = _shown_without_gap([pts for pts, _, _ in seen], [dts for _, dts, _ in seen])
    if kept == 0:
        return None
    times = [pts * video.time_base for pts, _, _ in seen[:kept]]
    rounding_s = Fraction(0) if "mp4" in container.format.name else Fraction(1, 1000)
    packets = seen[kept][2] if kept < len(seen) else tuple(counts)
    return Segment(path, packets, min(times), max(times), rounding_s, bytes(video.codec_context.extradata or b""))


def _undamaged(container: Any) -> Iterator[Any]:
    """The packets up to where the writer was cut off."""
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None or packet.is_corrupt:
            return
        if packet.size and packet.pts is not None and not is_filler(packet):
            yield packet


def _shown_without_gap(pts: Sequence[int], dts: Sequence[int]) -> int:
    """How many packets, in decoding order, hold every picture up to their last one.

    A picture that was lost is decoded after the last packet, and none is shown before it is decoded.
    """
    first_lost = dts[-1] + 1 if dts else 0
    latest = list(accumulate(pts, max))
    for kept in range(len(pts), 0, -1):
        if latest[kept - 1] < first_lost:
            return kept
        first_lost = min(first_lost, pts[kept - 1])
    return 0


def is_filler(packet: Any) -> bool:
    """Whether MP4's muxer made the packet itself, to fill the time between two subtitles."""
    codec = packet.stream.codec_context  # None for a track of no known kind
    return bool(codec is not None and codec.name == "mov_text" and packet.size <= 2)


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier run left. frames: pictures in its segments. packets: per track. last_s: of its last picture."""

    segments: tuple[Segment, ...]
    sides: Mapping[str, Path]

    @property
    def frames(self) -> int:
        """Pictures that need not be made again."""
        return self.packets[0]

    @property
    def packets(self) -> tuple[int, ...]:
        """Of all segments together, per track, the pictures first."""
        return tuple(sum(counts) for counts in zip(*(segment.packets for segment in self.segments), strict=True))

    @property
    def last_s(self) -> Fraction:
        """Time of the last picture, with what rounding may have taken from it."""
        return self.segments[-1].last_s + self.segments[-1].rounding_s

    @property
    def first_s(self) -> Fraction:
        """Time of the first picture."""
        return self.segments[0].first_s


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of everything that the result depends on besides the source."""
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()


class JobFile:
    """The job file of one result; dst: the name that was asked for. Raises OSError where the disk refuses."""

    def __init__(self, dst: Path, src: Path, settings: str) -> None:
        self.path = dst.with_name(f"{dst.name}.job.json")
        self._folder = dst.parent
        self._job = {"version": _VERSION, "source": identity_of(src), "settings": settings}
        self._old: tuple[Path, ...] = ()

    def past(self) -> Past | None:
        """What an earlier run of the same job left; None where there is nothing, or something else.

        Raises UsageError while that run still goes on.
        """
        try:
            job = json.loads(self.path.read_text(encoding="utf-8"))
            if {key: job[key] for key in self._job} != self._job:
                return None
            running = still_runs(int(job["pid"]), float(job["pid_began_s"]))
            names = [str(name) for name in job["parts"]]
            sides = {str(kind): self._inside(name) for kind, name in job["sides"].items()}
            if any(Path(name).name != name for name in names):
                raise ValueError("a part of the video lies elsewhere")
            segments = [usable_segment(self._inside(name)) for name in names]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if running:
            raise UsageError(f"{self.path.name} belongs to process {job['pid']}, which still runs; wait or stop it.")
        kept = tuple(segment for segment in segments if segment is not None)
        if not kept or len({(len(segment.packets), segment.extradata) for segment in kept}) > 1:
            return None
        self._old = (*(segment.path for segment in kept), *sides.values())
        return Past(kept, sides)

    def _inside(self, name: str) -> Path:
        """A file of the job. Only an unfinished one beside it counts, whatever the job file says: it may be deleted.

        Lists of boxes may have been asked for elsewhere; then their names at least are those of unfinished ones.
        """
        path = Path(name)
        if ".part" not in path.name:
            raise ValueError(f"{name} is no unfinished file")
        return self._folder / path

    def write(self, parts: Sequence[Path], sides: Mapping[str, Path]) -> None:
        """Say which files hold the result so far, the newest last."""
        process = psutil.Process()
        job = {
            **self._job,
            "pid": process.pid,
            "pid_began_s": process.create_time(),
            "parts": [os.path.relpath(part, self._folder) for part in parts],
            "sides": {kind: os.path.relpath(side, self._folder) for kind, side in sides.items()},
        }
        with whole_file(self.path, private=True) as part:
            part.write_text(json.dumps(job, indent=1), encoding="utf-8")

    def released(self) -> None:
        """The run ended early and left what it says; the next one may go on."""
        job = json.loads(self.path.read_text(encoding="utf-8"))
        with whole_file(self.path, private=True) as part:
            part.write_text(json.dumps({**job, "pid": 0}, indent=1), encoding="utf-8")

    def done(self) -> None:
        """The result is whole: the job file and what earlier runs left may go."""
        for path in (self.path, *self._old):
            path.unlink(missing_ok=True)


def identity_of(src: Path) -> dict[str, Any]:
    """Tells a source from another: size, time of the last change, and a hash of both ends. Raises OSError."""
    stat = src.stat()
    digest = hashlib.sha256()
    with src.open("rb") as file:
        digest.update(file.read(_END_BYTES))
        file.seek(max(0, stat.st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns, "sha256": digest.hexdigest()}


def still_runs(pid: int, began_s: float) -> bool:
    """Whether another process with this number and this beginning, as psutil tells it, is there."""
    if pid in (0, os.getpid()):
        return False
    try:
        process = psutil.Process(pid)
        # One that ended and that its parent has not looked after yet runs no more.
        return process.status() != psutil.STATUS_ZOMBIE and bool(abs(process.create_time() - began_s) < 1)
    except psutil.NoSuchProcess:
        return False
