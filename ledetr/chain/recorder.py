"""Annotated pictures to a video file that keeps exact times, survives a cut, and appears whole or not at all.

MP4 is written in fragments, at least one a second, so that a part file plays up to its last two seconds whatever
happens; at the end its packets are copied, not encoded again, into the final form with the index in front. Matroska
needs no second form, but rounds times to 1 ms, so it is used only where it is the final choice.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.frame import PictureType

from ledetr.chain.colour import output_colour, rgb_to_video_frame, tag_encoder
from ledetr.chain.output_files import DiskWatch, choose_target, keep_partial, output_error, publish, reserve_part
from ledetr.chain.resume import Segment, is_filler
from ledetr.errors import OutputError, UsageError
from ledetr.frame import Colour

KEY_FRAME_PERIOD_S = 2
_LONGEST_REORDER_S = 60  # no encoder shows a picture so much later than it decodes it
_FEW = 16  # more pictures than x265 reorders


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoCodec:
    """An encoder and how we run it. crf: its default quality, lower is better; None where it is lossless.

    capped: whether it takes a limit of its bits a second besides, see VideoWriter.
    """

    encoder: str
    containers: tuple[str, ...]
    crf: int | None
    options: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    capped: bool = False


CODECS: dict[str, VideoCodec] = {
    "h264": VideoCodec(
        encoder="libx264",
        containers=("mp4", "mov", "matroska"),
        crf=20,
        options={"preset": "veryfast", "forced-idr": "1"},
        capped=True,
    ),
    "hevc": VideoCodec(
        encoder="libx265",
        containers=("mp4", "mov", "matroska"),
        crf=23,
        options={"preset": "veryfast", "forced-idr": "1", "x265-params": "log-level=error"},
    ),
    "av1": VideoCodec(encoder="libsvtav1", containers=("mp4", "matroska", "webm"), crf=32, options={"preset": "9"}),
    "vp9": VideoCodec(
        encoder="libvpx-vp9",
        containers=("mp4", "matroska", "webm"),
        crf=32,
        options={"b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
    ),
    "ffv1": VideoCodec(encoder="ffv1", containers=("matroska",), crf=None, options={"level": "3", "slicecrc": "1"}),
}
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}

# A fragment, or cluster, a second: that, and what the encoder holds back, is what a kill can take.
_FRAGMENTED = {
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
_MATROSKA = {"cluster_time_limit": "1000", "flush_packets": "1"}
_APPLE_HEVC = "hvc1"  # the other tag, hev1, is not opened by Apple's players
# What a muxer writes itself; copying it from the source would be a lie.
_OWN_METADATA = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that a file name asks for; raises UsageError for another ending."""
    name = CONTAINERS.get(path.suffix.lower())
    if name is None:
        allowed = ", ".join(CONTAINERS)
        raise UsageError(f"{path.name} does not say what kind of video to write; end the name in one of {allowed}.")
    return name


def choose_codec(path: Path, codec: str | None) -> str:
    """The codec asked for, else the usual one of the container; raises UsageError where they do not go together."""
    container = container_of(path)
    if codec is None:
        return "vp9" if container == "webm" else "h264"
    if codec not in CODECS:
        raise UsageError(f"The codec {codec!r} is not known; there are {', '.join(CODECS)}.")
    if container not in CODECS[codec].containers:
        endings = [ending for ending, name in CONTAINERS.items() if name in CODECS[codec].containers]
        raise UsageError(f"{path.suffix} files do not hold {codec}; end the name in {' or '.join(endings)}.")
    return codec


def holds(container: str, stream: Any) -> bool:
    """Whether packets of this source stream can be copied into that container untouched."""
    with av.open(io.BytesIO(), "w", format=container) as probe:
        try:
            probe.add_stream_from_template(stream, opaque=True)
        except ValueError:
            return False
    return True


class VideoWriter:
    """One output video; used from one thread.

    path: what it will be called (see choose_target). width, height: of the pictures that will come; odd sizes are
    padded by one line, since 4:2:0 has none. time_base: the unit of every pts. rate: nominal, for the rate control
    alone; no time is ever made from it. copied: source streams whose packets will be handed to `copy`. shift_s is
    added to every time, pictures and packets alike. most_bits_per_s: on the average, also where the quality asked for
    needs more; codecs that cannot keep to it do not. before: what earlier runs made of the same video; it is
    joined at the end.
    Ends with exactly one of finish, keep_partial and abort. Raises OutputError when the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        rate: Fraction | None = None,
        colour: Colour | None = None,
        codec: str | None = None,
        crf: int | None = None,
        most_bits_per_s: int | None = None,
        sample_aspect: Fraction | None = None,
        copied: Sequence[Any] = (),
        metadata: Mapping[str, str] | None = None,
        chapters: Sequence[Any] = (),
        shift_s: Fraction = Fraction(0),
        overwrite: bool = False,
        sources: Sequence[Path] = (),
        before: Sequence[Segment] = (),
    ) -> None:
        self.codec_name = choose_codec(path, codec)
        self.path = choose_target(path, overwrite=overwrite, sources=sources)
        self.size_hw = (height, width)
        self.frames = 0
        self._container_name = container_of(path)
        self._overwrite = overwrite
        self._colour = output_colour(colour or Colour(), height, height)
        self._time_base = time_base
        self._nominal_ticks = max(1, round(1 / ((rate or Fraction(30)) * time_base)))
        self._shift_s = shift_s
        self._chapters = list(chapters)
        self._before = before
        self._disk = DiskWatch(self.path.parent)
        self._disk.check()
        self._closed = self._published = False
        self._first_pts: int | None = None
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._last_duration = 0
        self._durations: dict[int, int] = {}
        self._next_key_pts: int | None = None
        self.part = reserve_part(self.path)
        try:
            self._open(metadata or {}, copied, rate, self._quality(crf, most_bits_per_s), sample_aspect)
        except BaseException:
            self.part.unlink(missing_ok=True)
            raise

    def _open(
        self,
        metadata: Mapping[str, str],
        copied: Sequence[Any],
        rate: Fraction | None,
        quality: Mapping[str, str],
        sample_aspect: Fraction | None,
    ) -> None:
        ticks = {"movie_timescale": str(_common_ticks([self._time_base, *(s.time_base for s in copied)]))}
        self._final_options = {"movflags": "faststart", **ticks}
        options = _MATROSKA if self._is_matroska else {**_FRAGMENTED, **ticks}
        with self._disk_errors():
            self._output = av.open(f"file:{self.part}", "w", format=self._container_name, options=dict(options))
        self._output.metadata.update({k: v for k, v in metadata.items() if k.lower() not in _OWN_METADATA})
        if self._is_matroska and self._chapters:
            self._output.set_chapters(self._chapters)
        self._video = self._add_encoder(rate or Fraction(30), quality, sample_aspect)
        self._bare: dict[int, Any] = {}
        self._copies = {id(stream): self._add_copy(stream) for stream in copied}

    @property
    def _is_matroska(self) -> bool:
        return self._container_name in ("matroska", "webm")

    def _quality(self, crf: int | None, most_bits_per_s: int | None) -> dict[str, str]:
        """The encoder's options."""
        codec = CODECS[self.codec_name]
        options = {} if codec.crf is None else {"crf": str(codec.crf if crf is None else crf)}
        if most_bits_per_s is not None and codec.capped:
            # Bits may be saved up from key frame to key frame. Of 50, 70 and 90 % of them at the start, 70 keep short
            # clips below the goal at the least loss (benchmarks/sizes.py).
            saved = KEY_FRAME_PERIOD_S * most_bits_per_s
            options |= {"maxrate": str(most_bits_per_s), "bufsize": str(saved)}
            options["rc_init_occupancy"] = str(saved * 7 // 10)
        return options

    def _add_encoder(self, rate: Fraction, quality: Mapping[str, str], sample_aspect: Fraction | None) -> Any:
        codec = CODECS[self.codec_name]
        height, width = self.size_hw
        options = {**codec.options, **quality}
        stream: Any = self._output.add_stream(codec.encoder, rate=rate.limit_denominator(1_000_000), options=options)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = codec.pix_fmt
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.gop_size = max(1, round(KEY_FRAME_PERIOD_S * rate))
        if sample_aspect is not None and sample_aspect > 0:
            context.sample_aspect_ratio = sample_aspect
        if self._container_name in ("mp4", "mov") and self.codec_name == "hevc":
            context.codec_tag = _APPLE_HEVC
        tag_encoder(context, self._colour)
        return stream

    def _add_copy(self, source: Any) -> Any:
        try:
            stream: Any = self._output.add_stream_from_template(source, opaque=True)
        except ValueError:
            raise OutputError(
                f"{self.path.suffix} files cannot hold the track {source.index} ({source.name}); "
                f"end the name in .mkv, or leave the sound out with --no-audio."
            ) from None
        stream.metadata.update(source.metadata)
        stream.disposition = source.disposition
        if not self._is_matroska and source.codec_context.name == "aac" and not source.codec_context.extradata:
            # MPEG-TS puts a header (ADTS) on each packet. MP4's muxer takes it off by itself, but not in fragments.
            self._bare[id(source)] = BitStreamFilterContext("aac_adtstoasc", source)
        return stream

    def write(self, rgb: np.ndarray, pts: int, duration: int | None = None) -> None:
        """Encode one picture (H, W, 3) uint8 that is shown from pts on, in units of time_base.

        A pts that does not grow is moved to one tick after the last: players and muxers allow no other order.
        """
        if rgb.shape[:2] != self.size_hw:
            raise ValueError(f"the picture is {rgb.shape[:2]}, the video {self.size_hw}")
        self._disk.check()
        pts += round(self._shift_s / self._time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
        frame = rgb_to_video_frame(_even(rgb), self._colour, CODECS[self.codec_name].pix_fmt)
        # A last picture of no length would fall out of the track.
        duration = duration or self._nominal_ticks
        frame.pts, frame.time_base, frame.duration = pts, self._time_base, duration
        if self._next_key_pts is None or pts >= self._next_key_pts:
            frame.pict_type = PictureType.I
            self._next_key_pts = pts + int(KEY_FRAME_PERIOD_S / self._time_base)
        self._first_pts = pts if self._first_pts is None else self._first_pts
        self._last_pts, self._last_duration = pts, duration
        self._durations[pts] = duration
        with self._disk_errors():
            self._encode(frame)
        self.frames += 1

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """None: what the encoder still holds."""
        for packet in self._video.encode(frame):
            # Not every encoder hands the length on (libvpx does not).
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            packet.dts = self._sane_dts(packet)
            self._output.mux(packet)

    def _sane_dts(self, packet: Any) -> int:
        """Its place in decoding order. x265 gives chance numbers where a video has fewer than five pictures."""
        assert self._first_pts is not None
        earliest = self._first_pts - int(_LONGEST_REORDER_S / self._time_base)
        if earliest <= packet.dts <= packet.pts:
            self._last_dts = int(packet.dts)
        else:
            self._last_dts = self._first_pts - _FEW if self._last_dts is None else self._last_dts + 1
        return self._last_dts

    def copy(self, packet: Any) -> None:
        """Hand on a packet of one of the copied streams, as it is but for the shift."""
        stream = self._copies[id(packet.stream)]
        ticks = round(self._shift_s / packet.time_base)
        if packet.pts is not None:
            packet.pts += ticks
        if packet.dts is not None:
            packet.dts += ticks
        filtered = self._bare.get(id(packet.stream))
        with self._disk_errors():
            for one in [packet] if filtered is None else filtered.filter(packet):
                one.stream = stream
                self._output.mux(one)

    @property
    def seconds(self) -> float:
        """Length of what was written."""
        if self._first_pts is None or self._last_pts is None:
            return 0.0
        return float((self._last_pts - self._first_pts + self._last_duration) * self._time_base)

    @property
    def nbytes(self) -> int:
        """Bytes on disk so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def finish(self) -> Path:
        """Complete the file and give it its name, which comes back."""
        with self._disk_errors():
            self._close_encoder()
            if self._is_matroska and not self._before:
                done = self.part
            else:
                self._disk.check_room_for(self.nbytes + sum(one.path.stat().st_size for one in self._before))
                done = self._copy_to_final_form()
        self.path = publish(done, self.path, overwrite=self._overwrite)
        self.part.unlink(missing_ok=True)
        self._published = True
        return self.path

    def keep_partial(self) -> Path | None:
        """End early: what there is becomes `name.partial.mp4`, which comes back; None where there was no picture.

        Does what can be done on a full disk: the last two seconds may be missing there. A finished file stays so.
        """
        if self._published:
            return self.path
        try:
            self._close_encoder()
        except (OSError, av.error.FFmpegError):  # what was flushed before stays readable
            self._close_quietly()
        if self.frames == 0 or self.nbytes == 0:
            self.part.unlink(missing_ok=True)
            return None
        self.path = keep_partial(self.part, self.path)
        return self.path

    def abort(self) -> None:
        """Leave nothing behind; a finished file stays."""
        self._close_quietly()
        self.part.unlink(missing_ok=True)

    def _close_encoder(self) -> None:
        if self._closed:
            return
        if self.frames:
            self._encode(None)
        self._closed = True
        self._output.close()

    def _close_quietly(self) -> None:
        self._closed = True
        try:
            self._output.close()
        except (OSError, av.error.FFmpegError):  # the trailer did not fit; the file is given up or kept as it is
            return

    def _copy_to_final_form(self) -> Path:
        """The part file's packets in a file of the same kind with the index in front; the part file stays."""
        final = reserve_part(self.path)
        try:
            with ExitStack() as opened:
                # No picture was left to be made: then the part file has no tracks to speak of.
                paths = [*(one.path for one in self._before), *([self.part] if self.frames else [])]
                sources = [opened.enter_context(av.open(f"file:{path}")) for path in paths]
                output = opened.enter_context(self._final_container(final))
                metadata = sources[0].metadata.items()
                output.metadata.update({k: v for k, v in metadata if k.lower() not in _OWN_METADATA})
                if self._chapters:
                    output.set_chapters(self._chapters)
                self._copy_packets(sources, output)
        except BaseException:
            final.unlink(missing_ok=True)
            raise
        return final

    def _final_container(self, path: Path) -> Any:
        options = {} if self._is_matroska else self._final_options
        return av.open(f"file:{path}", "w", format=self._container_name, options=options)

    def _copy_packets(self, sources: Sequence[Any], output: Any) -> None:
        copies = {}
        for stream in sources[0].streams:
            if stream.type in ("video", "audio", "subtitle"):
                copy = copies[stream.index] = output.add_stream_from_template(stream, opaque=True)
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
        if self.codec_name == "hevc":
            copies[self._video.index].codec_context.codec_tag = _APPLE_HEVC
        last_dts_s: dict[int, Fraction] = {}
        for number, source in enumerate(sources):
            counts = self._before[number].packets if number < len(self._before) else None
            for packet in self._segment_packets(source, list(copies), counts):
                _keep_order(packet, last_dts_s)
                packet.stream = copies[packet.stream_index]
                output.mux(packet)

    def _segment_packets(self, source: Any, tracks: Sequence[int], counts: Sequence[int] | None) -> Iterator[Any]:
        """The packets of one part file; counts: how many of each track, all where not given."""
        time_base = source.streams[self._video.index].time_base
        last_duration = round((self._last_duration or self._nominal_ticks) * self._time_base / time_base)
        left = None if counts is None else list(counts)
        for packet in source.demux([source.streams[index] for index in tracks]):
            if not packet.size or packet.pts is None or (left is not None and is_filler(packet)):
                continue  # the demuxer's end mark, or what the muxer will make anew
            if left is not None:
                left[packet.stream_index] -= 1
                if left[packet.stream_index] < 0:
                    if max(left[index] for index in tracks) < 0:
                        return
                    continue
            if packet.stream_index == self._video.index and not packet.duration:
                packet.duration = last_duration  # fragments do not give the length of their last packet
            yield packet

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            raise output_error(self.path, error) from error


def _keep_order(packet: Any, last_dts_s: dict[int, Fraction]) -> None:
    """Give the packet a place in decoding order that grows.

    Where two segments meet, the second one's encoder begins to count before the end of the first; Matroska has none
    for the first packets.
    """
    last_s = last_dts_s.get(packet.stream_index)
    if packet.dts is None and last_s is None:
        packet.dts = packet.pts - _FEW
    elif last_s is not None and (packet.dts is None or packet.dts * packet.time_base <= last_s):
        packet.dts = int(last_s / packet.time_base) + 1
    last_dts_s[packet.stream_index] = packet.dts * packet.time_base


def _common_ticks(time_bases: Sequence[Fraction]) -> int:
    """Ticks a second in which the start of every track is exact; MP4 would else round it to 1 ms."""
    ticks = math.lcm(*(time_base.denominator for time_base in time_bases))
    return ticks if ticks < 2**31 else min(time_bases[0].denominator, 2**31 - 1)


def _even(rgb: np.ndarray) -> np.ndarray:
    """The picture with its last column and line doubled where their number is odd."""
    height, width = rgb.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return rgb
    return np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
