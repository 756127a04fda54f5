"""A source and a detector as a plain generator of results, for people who write their own loop."""

import os
from collections.abc import Iterator

from ledetr.chain.capture import Capture, CaptureConfig
from ledetr.chain.clock import Clock, MonotonicClock
from ledetr.chain.guard import join_all
from ledetr.chain.inference import FrameDetector, TrackerSlot, detect_one
from ledetr.chain.mailbox import ByteQueue, Mailbox
from ledetr.chain.results import Eof, Event, Result
from ledetr.chain.sources import SourceSpec, open_source, parse_source
from ledetr.chain.states import Signal
from ledetr.frame import Frame
from ledetr.tracking import Tracking

_JOIN_S = 3.0
_AHEAD_BYTES = 64 * 1024 * 1024


def stream(
    source: "str | os.PathLike[str] | int | SourceSpec",
    detector: FrameDetector | None,
    *,
    every_frame: bool | None = None,
    retries: int | None = 10,
    tracking: Tracking | None = None,
    clock: Clock | None = None,
) -> Iterator[Result]:
    """Results of a source, one by one, in order; nothing is collected, and leaving the loop closes the source.

    every_frame: True loses nothing and lets the source wait; False takes the newest frame at the source's own pace.
    None means True for files and pictures, False for live sources. retries: how often a lost live source is tried
    again before its error is raised, None for ever. tracking: gives the boxes ids that stay with things.
    Raises LeDetrError in the loop.
    """
    spec = parse_source(source)
    every = not spec.live if every_frame is None else every_frame
    return _results(spec, detector, every, retries, tracking, clock or MonotonicClock())


def _results(
    spec: SourceSpec,
    detector: FrameDetector | None,
    every: bool,
    retries: int | None,
    tracking: Tracking | None,
    clock: Clock,
) -> Iterator[Result]:
    hand_over, tracker = _HandOver(every), TrackerSlot(tracking)
    config = CaptureConfig(paced=not every, every=every, history_bytes=0, retries=retries)
    capture = Capture(
        lambda epoch: open_source(spec, clock=clock, epoch=epoch), spec.display_name, clock, config, hand_over
    )
    capture.thread.start()
    try:
        number = 0
        while (frame := hand_over.take()) is not None:
            number += 1
            detections, timings = detect_one(frame, detector, clock)
            detections = tracker.track(frame, detections, detector)
            timings.published_ns = clock.now_ns()
            yield Result(frame, detections, timings, number)
        if hand_over.error is not None:
            raise hand_over.error
    finally:
        hand_over.close()
        capture.stop()
        join_all(capture.threads(), _JOIN_S)


class _HandOver:
    """What the capture thread reports to: a queue that loses nothing, or a mailbox in which the newest wins."""

    def __init__(self, every: bool) -> None:
        self._queue: ByteQueue[Frame] = ByteQueue(_AHEAD_BYTES)
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._every = every
        self.error: BaseException | None = None

    def take(self) -> Frame | None:
        """The next frame to look at, None at the end."""
        return self._queue.take() if self._every else self._mailbox.take()

    def close(self, drain: bool = False) -> None:
        """Wake both ends."""
        self._queue.close(drain)
        self._mailbox.close(drain)

    def on_frame(self, frame: Frame, every: bool) -> None:
        """Hand it over."""
        if every:
            self._queue.put(frame, frame.rgb.nbytes)
        else:
            self._mailbox.put(frame)

    def on_jump(self) -> None:
        """After a reconnect: frames from before it are still whole results, so they stay."""

    def on_captured(self) -> None:
        """Nobody counts."""

    def on_discarded(self) -> None:
        """Nobody counts."""

    def on_damaged(self, count: int) -> None:
        """Nobody counts."""

    def on_skipped(self, count: int) -> None:
        """Nobody counts."""

    def on_signal(self, signal: Signal) -> None:
        """A generator has no states."""

    def on_event(self, event: Event) -> None:
        """Only the end matters."""
        if isinstance(event, Eof):
            self.close(drain=True)

    def on_failed(self, error: BaseException) -> None:
        """Raised in the loop, after the frames that came before it."""
        self.error = error
        self.close(drain=True)
