"""Source, detector and results held together: threads, states, and the numbers of what happens.

source thread > capture thread --mailbox--> inference thread > latest(), on_result --queue--> recording thread
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from ledetr.chain.capture import CaptureConfig
from ledetr.chain.clock import Clock, MonotonicClock
from ledetr.chain.guard import join_all
from ledetr.chain.inference import DetectorSlot, FrameDetector
from ledetr.chain.meters import Meters, MeterSnapshot
from ledetr.chain.overlay import RANDOM_WEIGHTS, Mark, marks_of
from ledetr.chain.recording import Recording, RecordingStatus
from ledetr.chain.results import (
    Eof,
    Event,
    Failed,
    ModelChanged,
    Opened,
    Reconnecting,
    RecordingEnded,
    Restored,
    Result,
    Stalled,
    Stopped,
    Timings,
)
from ledetr.chain.session import Session
from ledetr.chain.sources import (
    ArraysSpec,
    FolderSpec,
    FrameSource,
    ImageSpec,
    ListSpec,
    SourceInfo,
    SourceSpec,
    open_source,
)
from ledetr.chain.split import Split
from ledetr.chain.states import Signal, State, next_state
from ledetr.chain.streaming import stream
from ledetr.errors import LeDetrError, UsageError
from ledetr.tracking import Tracking

__all__ = [
    "Eof",
    "Event",
    "Failed",
    "FrameDetector",
    "MeterSnapshot",
    "ModelChanged",
    "Opened",
    "Pipeline",
    "Policy",
    "Position",
    "Reconnecting",
    "RecordingEnded",
    "RecordingStatus",
    "Restored",
    "Result",
    "Snapshot",
    "Stalled",
    "State",
    "Stopped",
    "Timings",
    "stream",
]

STOP_LIMIT_S = 0.5
# To complete a recording its packets are copied once more; a disk that takes longer is taken for stuck.
RECORDING_LIMIT_S = 30.0

# auto: every picture of an image or folder, the newest frame of anything else. every: the source waits for the
# detector. latest: the newest frame, whatever the source.
Policy: TypeAlias = Literal["auto", "every", "latest"]
_STILLS = (ImageSpec, FolderSpec, ListSpec, ArraysSpec)


@dataclass(frozen=True, slots=True)
class Position:
    """Of the newest result: its time, and its number in the file where that is known."""

    pts_s: float
    index: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one moment, read together. policy: the one in force, "every" or "latest"."""

    state: State
    ended: bool
    info: SourceInfo | None
    position: Position | None
    policy: Literal["every", "latest"]
    error: LeDetrError | None
    speed: float


class Pipeline:
    """A player with a detector in it. Every method is legal in every state and returns at once, but for stop and close.

    on_result and on_event are called from worker threads and must return at once; an exception in them ends the
    session as Failed. A result is taken with latest(). opener: opens a source, with the arguments of open_source.
    """

    def __init__(
        self,
        detector: FrameDetector | None = None,
        *,
        clock: Clock | None = None,
        policy: Policy = "auto",
        tracking: Tracking | None = None,
        config: CaptureConfig | None = None,
        opener: Callable[..., FrameSource] = open_source,
        on_result: Callable[[], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._clock = clock or MonotonicClock()
        self._config = config or CaptureConfig()
        self._policy: Policy = policy
        self._opener = opener
        self._slot = DetectorSlot(detector)
        self._tracking = tracking
        self._lock = threading.RLock()
        self._state = State.IDLE
        self._session: Session | None = None
        self._recording: Recording | None = None
        self._latest: Result | None = None
        self._error: LeDetrError | None = None
        self._number = 0
        self._speed = 1.0
        self._closed = False
        self.meters = Meters(self._clock)
        self.on_result = on_result
        self.on_event = on_event

    # What is asked of it.

    def open(self, spec: SourceSpec, *, paused: bool = False) -> None:
        """Close what is open and open spec; it plays as soon as it is open, or shows its first frame where paused."""
        with self._lock:
            if self._closed:
                raise ValueError("this pipeline was closed")
            old = self._session
            self._move(Signal.STOP)
            self._move(Signal.OPEN)
            self._error = None
            self._latest = None
            self.meters.reset()
            session = self._session = Session(
                spec,
                self._opener,
                self,
                slot=self._slot,
                clock=self._clock,
                meters=self.meters,
                config=replace(self._config, every=self._every(spec)),
                tracking=self._tracking,
                paused=paused,
                after=old,
                stop_limit_s=STOP_LIMIT_S,
            )
        self._end_recording()
        if old is not None:
            old.cancel()
        session.capture.set_speed(self._speed)
        session.start()

    def play(self) -> None:
        """Go on; from the start where the file has ended."""
        if (session := self._session) is not None:
            session.capture.play()

    def pause(self) -> None:
        """Stay on the frame that is shown; a live source is read on, so that play goes on with now."""
        if (session := self._session) is not None:
            session.capture.pause()

    def seek(self, pts_s: float) -> None:
        """Show the first frame at or after pts_s; of several wishes only the newest is done. Files only."""
        if (session := self._session) is not None:
            session.capture.seek(pts_s)

    def step(self, frames: int) -> None:
        """Pause, and go one frame on (+1) or back (-1). Files only."""
        if frames not in (1, -1):
            raise ValueError(f"a step is +1 or -1, got {frames}")
        if (session := self._session) is not None:
            session.capture.step(frames)

    def set_loop(self, start_s: float | None, end_s: float | None) -> None:
        """Play a part of the open file again and again, both ends shown; None: from its start, to its end.

        A frame that was sought behind the part is played on to the end of the file. See clear_loop.
        """
        start_s = float("-inf") if start_s is None else start_s
        end_s = float("inf") if end_s is None else end_s
        if not start_s <= end_s:
            raise ValueError(f"a loop begins before it ends, got {start_s} to {end_s}")
        if (session := self._session) is not None:
            session.capture.set_loop((start_s, end_s))

    def clear_loop(self) -> None:
        """Play to the end of the file."""
        if (session := self._session) is not None:
            session.capture.set_loop(None)

    def set_speed(self, speed: float) -> None:
        """Play files faster or slower, 0.05 to 32; 1.0 is real time. Kept for the next source."""
        if not 0.05 <= speed <= 32:
            raise ValueError(f"speed must be 0.05 to 32, got {speed}")
        self._speed = speed
        if (session := self._session) is not None:
            session.capture.set_speed(speed)

    def set_policy(self, policy: Policy) -> None:
        """Whether frames may be left out; acts at once, and on later sources."""
        self._policy = policy
        if (session := self._session) is not None:
            session.capture.set_every(self._every(session.spec))

    def _every(self, spec: SourceSpec) -> bool:
        return self._policy == "every" or (self._policy == "auto" and isinstance(spec, _STILLS))

    def set_detector(
        self, detector: FrameDetector | None, *, release: Callable[[FrameDetector], None] | None = None
    ) -> None:
        """Look with another detector from the next frame on, or with none; while paused, look at this frame again.

        The old one is not closed here: release(old) is called, from whichever thread was last to use it, once no
        frame is in its hands; at once where nothing runs.
        """
        old = self._slot.swap(detector, release)
        if old is detector:
            return
        if (session := self._session) is not None and self.state is State.PAUSED:
            session.inference.detect_again()
        self._tell(ModelChanged("" if detector is None else detector.model_id))

    def set_tracking(self, tracking: Tracking | None) -> None:
        """Give ids from the next frame on, from 1, also where ids were given already; with None no more.

        Kept for later sources, each with ids from 1. While paused, this frame is looked at again.
        """
        with self._lock:
            self._tracking = tracking
            session = self._session
        if session is None:
            return
        session.inference.tracker.set_tracking(tracking)
        if self.state is State.PAUSED:
            session.inference.detect_again()

    def stop(self) -> None:
        """End whatever is open, within 0.5 s; threads that hang are orphaned and named in Stopped. Then IDLE."""
        with self._lock:
            session = self._session
            self._move(Signal.STOP)
        if session is None:
            return
        session.cancel()
        self._end_recording()
        orphans = session.join(STOP_LIMIT_S)
        with self._lock:
            if self._session is not session:
                return  # stopped by another caller, or something else was opened
            self._session = None
            self._move(Signal.CLOSED)
        self._tell(Stopped(orphans))

    def close(self) -> None:
        """Stop for good, and wait up to 30 s for a recording to be complete; one that hangs is named in Stopped.

        Legal more than once.
        """
        self.stop()
        with self._lock:
            self._closed = True
            recording = self._recording
        if recording is not None and (orphans := join_all([recording.thread], RECORDING_LIMIT_S)):
            self._tell(Stopped(tuple(thread.name for thread in orphans)))

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What it says.

    @property
    def state(self) -> State:
        """What it is doing."""
        with self._lock:
            return self._state

    @property
    def ended(self) -> bool:
        """Whether a file is parked on its last frame."""
        session = self._session
        return session is not None and session.capture.ended

    @property
    def info(self) -> SourceInfo | None:
        """Of the open source."""
        session = self._session
        return None if session is None else session.capture.info

    @property
    def position(self) -> Position | None:
        """Of the newest result."""
        result = self.latest()
        return None if result is None else Position(result.frame.meta.pts_s, result.frame.meta.index)

    @property
    def policy(self) -> Literal["every", "latest"]:
        """The policy in force."""
        session = self._session
        every = self._policy == "every" if session is None else self._every(session.spec)
        return "every" if every else "latest"

    @property
    def detector(self) -> FrameDetector | None:
        """The one that the next frame will meet."""
        return self._slot.current

    @property
    def tracking(self) -> Tracking | None:
        """How ids are given, None where none are."""
        return self._tracking

    @property
    def error(self) -> LeDetrError | None:
        """The first cause, in FAILED."""
        with self._lock:
            return self._error

    @property
    def speed(self) -> float:
        """How fast files are played."""
        return self._speed

    def snapshot(self) -> Snapshot:
        """All of that, read together."""
        with self._lock:
            return Snapshot(self._state, self.ended, self.info, self.position, self.policy, self._error, self._speed)

    def latest(self) -> Result | None:
        """The newest result of what is open, or of what was open last."""
        with self._lock:
            return self._latest

    def painted(self, result: Result) -> None:
        """The result is on the screen now."""
        self.meters.on_painted(result)

    # Recording.

    def start_recording(
        self,
        path: Path,
        *,
        with_boxes: bool = True,
        split: Split | None = None,
        marks: Callable[[Result], Sequence[Mark]] | None = None,
    ) -> None:
        """Record what is seen from the next result on; the file is made in a thread of its own.

        split: write parts, `name_001.mp4` and so on; RecordingEnded has the path of the first one and all of them.
        marks: what to draw on a result, by default all detections at the detector's own threshold. An error while
        writing ends the recording, not the picture: RecordingEnded tells. Raises UsageError where nothing is open, a
        recording runs already, or the name does not end as a video's.
        """
        info = self.info
        if info is None or self.state not in (State.RUNNING, State.PAUSED, State.RECONNECTING):
            raise UsageError("Nothing is open that could be recorded; open a source first.")
        with self._lock:
            if self._recording is not None and not self._recording.ending:
                raise UsageError("A recording is running already; stop it first.")
            self._recording = Recording(
                Path(path),
                marks=(marks or self._default_marks) if with_boxes else None,
                rate=info.rate,
                may_drop=info.live,
                split=split,
                done=self._on_recording_done,
            )

    def stop_recording(self, *, wait: bool = True) -> Path | None:
        """Complete the recording and give its path; without wait at once, with None, and RecordingEnded tells.

        Raises UsageError where none runs, and the error that ended it.
        """
        with self._lock:
            recording = self._recording
        if recording is None:
            raise UsageError("No recording is running.")
        if not wait:
            recording.finish_soon()
            return None
        try:
            return recording.finish()
        finally:
            with self._lock:
                self._recording = None if self._recording is recording else self._recording

    @property
    def recording(self) -> RecordingStatus | None:
        """How far the recording is, None where none runs."""
        with self._lock:
            recording = self._recording
        return None if recording is None or recording.ending else recording.status

    def _default_marks(self, result: Result) -> Sequence[Mark]:
        detector = self._slot.current
        if detector is None:
            return []
        notice = RANDOM_WEIGHTS if detector.random_weights else None
        size_hw = (result.frame.meta.height, result.frame.meta.width)
        return marks_of(result.detections, conf=detector.score_threshold, notice=notice, size_hw=size_hw)

    def _end_recording(self) -> None:
        with self._lock:
            recording = self._recording
        if recording is not None:
            recording.finish_soon()

    def _on_recording_done(self, path: Path | None, error: LeDetrError | None, parts: tuple[Path, ...]) -> None:
        self._tell(RecordingEnded(path, error, parts))

    # What its sessions report, as the SessionListener.

    def on_session_signal(self, session: Session, signal: Signal) -> None:
        """Move the state."""
        with self._lock:
            if session is self._session:
                self._move(signal)

    def on_session_event(self, session: Session, event: Event) -> None:
        """Tell the user."""
        if session is self._session:
            self._tell(event)

    def on_session_result(self, session: Session, result: Result) -> None:
        """Make it the latest, count it, record it, say so."""
        with self._lock:
            if session is not self._session or self._state in (State.STOPPING, State.FAILED):
                self.meters.on_discarded(0 if result.again else 1)
                return
            self._number += not result.again
            result = replace(result, number=self._number)
            self._latest = result
            self.meters.on_published(result)
            recording = self._recording
        if recording is not None:
            recording.offer(result)
        if self.on_result is not None:
            self.on_result()

    def on_session_failed(self, session: Session, error: BaseException) -> None:
        """The first cause ends the session and is carried up; later ones are its consequences."""
        known = error if isinstance(error, LeDetrError) else _unexpected(error)
        with self._lock:
            if session is not self._session or self._state in (State.STOPPING, State.FAILED):
                return
            self._error = known
            self._move(Signal.FAIL)
        session.cancel()
        self._end_recording()
        self._tell(Failed(known))

    def _move(self, signal: Signal) -> None:
        self._state = next_state(self._state, signal)

    def _tell(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(event)


def _unexpected(error: BaseException) -> LeDetrError:
    known = LeDetrError(f"Something broke that should not ({type(error).__name__}: {error}); please report it.")
    known.__cause__ = error
    return known
