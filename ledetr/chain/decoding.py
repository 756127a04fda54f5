"""Packets of one video track to frames; the same for files that are played, files that are exported, and streams."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

# Packets that cannot be decoded are skipped and counted; so many in a row mean that the rest is lost.
_BROKEN_IN_A_ROW = 300


def demuxed(container: Any, streams: Any) -> Iterator[Any]:
    """The packets of these streams, then one without data for each.

    Where a file or stream turns out to have more tracks than it had when it was opened, PyAV 18 looks for theirs too in
    its last step, when those of all others are out, and stumbles; they are none of ours.
    """
    try:
        yield from container.demux(streams)
    except IndexError:
        return


class PictureDecoder:
    """Decodes the packets of one video stream. time_base: seconds a tick.

    broken: packets that could not be decoded. damaged: pictures that came, but from data that was damaged or missing.
    """

    def __init__(self, stream: Any) -> None:
        self._rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = Fraction(stream.time_base or Fraction(1, 90000))
        self.broken = self.damaged = 0
        self._broken_in_a_row = 0
        self._last_pts: int | None = None

    def decode(self, packet: Any) -> list[av.VideoFrame]:
        """Frames in display order, none where the packet is damaged; InvalidDataError where all are, for long."""
        try:
            frames: list[av.VideoFrame] = packet.decode()
        except av.error.FFmpegError as error:  # InvalidDataError mostly; some decoders have other names for it
            self.broken += 1
            self._broken_in_a_row += 1
            if self._broken_in_a_row >= _BROKEN_IN_A_ROW:
                raise av.error.InvalidDataError(error.errno or 0, str(error.strerror)) from error
            return []
        self._broken_in_a_row = 0
        self.damaged += sum(frame.is_corrupt for frame in frames)
        return frames

    def decode_timed(self, packet: Any) -> list[av.VideoFrame]:
        """As decode; a frame without a time gets that of the one before plus its length."""
        frames = self.decode(packet)
        for frame in frames:
            if frame.pts is None:
                length = max(1, frame.duration or self.nominal_ticks)
                frame.pts = 0 if self._last_pts is None else self._last_pts + length
            self._last_pts = frame.pts
        return frames

    def jumped(self) -> None:
        """Forget the last time: the next packet stands elsewhere in the file."""
        self._last_pts = None
        self._broken_in_a_row = 0

    @property
    def nominal_ticks(self) -> int:
        """Length of a picture where nothing else is known."""
        return max(1, round(1 / (self._rate * self.time_base)))
