"""One opened source with its capture and inference threads, from open to the end.

A session that does not end in time is left to itself; what it reports later is ignored, because the pipeline listens
to its current session only.
"""

from collections.abc import Callable
from typing import Protocol

from ledetr.chain.capture import Capture, CaptureConfig
from ledetr.chain.clock import Clock
from ledetr.chain.guard import join_all
from ledetr.chain.inference import DetectorSlot, Inference
from ledetr.chain.mailbox import Mailbox
from ledetr.chain.meters import Meters
from ledetr.chain.results import Event, Result
from ledetr.chain.sources import FrameSource, SourceSpec
from ledetr.chain.states import Signal
from ledetr.frame import Frame
from ledetr.tracking import Tracking


class SessionListener(Protocol):
    """Who is told what happens; all of it from the session's threads."""

    def on_session_signal(self, session: "Session", signal: Signal) -> None:
        """The state moves; called under a lock, must not call back."""
        ...

    def on_session_event(self, session: "Session", event: Event) -> None:
        """Something to tell the user."""
        ...

    def on_session_result(self, session: "Session", result: Result) -> None:
        """A result whose epoch is current."""
        ...

    def on_session_failed(self, session: "Session", error: BaseException) -> None:
        """The first error; the session is to be cancelled."""
        ...


class Session:
    """Threads and hand-over of one source. after: a session that is given time to end before this one opens."""

    def __init__(
        self,
        spec: SourceSpec,
        open_source: Callable[..., FrameSource],
        listener: SessionListener,
        *,
        slot: DetectorSlot,
        clock: Clock,
        meters: Meters,
        config: CaptureConfig,
        tracking: Tracking | None,
        paused: bool,
        after: "Session | None",
        stop_limit_s: float,
    ) -> None:
        self.spec = spec
        self.mailbox: Mailbox[Frame] = Mailbox()
        self._meters = meters
        self._after = after
        self._listener = listener

        def open_it(epoch: int) -> FrameSource:
            # A camera opens once only, so the source before gets its time to let go.
            if self._after is not None:
                self._after.join(stop_limit_s)
                self._after = None
            return open_source(spec, clock=clock, epoch=epoch)

        self.capture = Capture(open_it, spec.display_name, clock, config, self, paused=paused)
        self.inference = Inference(
            self.mailbox,
            slot,
            clock,
            tracking=tracking,
            valid_from=lambda: self.capture.valid_from,
            publish=lambda result: listener.on_session_result(self, result),
            discard=meters.on_discarded,
            fail=self.on_failed,
        )

    def start(self) -> None:
        """Begin."""
        self.inference.thread.start()
        self.capture.thread.start()

    # As the CaptureListener.

    def on_frame(self, frame: Frame, every: bool) -> None:
        """Leave it in the mailbox."""
        if every:
            self.mailbox.wait_empty()
        before = self.mailbox.dropped
        if self.mailbox.put(frame):
            self._meters.on_dropped(self.mailbox.dropped - before)
        else:
            self._meters.on_discarded(1)

    def on_jump(self) -> None:
        """Throw away the frame that waits for inference."""
        self._meters.on_discarded(self.mailbox.clear())

    def on_captured(self) -> None:
        """Count it."""
        self._meters.on_captured()

    def on_discarded(self) -> None:
        """Count it."""
        self._meters.on_discarded(1)

    def on_damaged(self, count: int) -> None:
        """Count them."""
        self._meters.on_damaged(count)

    def on_skipped(self, count: int) -> None:
        """They came and were dropped."""
        for _ in range(count):
            self._meters.on_captured()
        self._meters.on_dropped(count)

    def on_signal(self, signal: Signal) -> None:
        """Hand it on with our name."""
        self._listener.on_session_signal(self, signal)

    def on_event(self, event: Event) -> None:
        """Hand it on with our name."""
        self._listener.on_session_event(self, event)

    def on_failed(self, error: BaseException) -> None:
        """Hand it on with our name."""
        self._listener.on_session_failed(self, error)

    def cancel(self) -> None:
        """Ask all threads to end; returns at once, see join."""
        self.capture.stop()
        self._meters.on_discarded(self.mailbox.close())

    def join(self, limit_s: float) -> tuple[str, ...]:
        """Wait for the threads, limit_s together; the names of those that hang and are left to themselves."""
        return tuple(thread.name for thread in join_all([*self.capture.threads(), self.inference.thread], limit_s))
