"""The inference thread: takes the newest frame, asks the detector and the tracker, publishes the result."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ledetr.backends.base import BackendInfo
from ledetr.chain.clock import Clock
from ledetr.chain.mailbox import Mailbox
from ledetr.chain.results import Result, Timings
from ledetr.detections import Detections
from ledetr.errors import LeDetrError
from ledetr.frame import Frame
from ledetr.tracking import Tracker, Tracking

SCORE_FLOOR = 0.05


class StageTimes(Protocol):
    """How long each stage of one detection took."""

    @property
    def preprocess_ms(self) -> float:
        """Frame to network pixels."""
        ...

    @property
    def infer_ms(self) -> float:
        """The network."""
        ...

    @property
    def postprocess_ms(self) -> float:
        """Outputs to detections."""
        ...


class FrameDetector(Protocol):
    """What the chain needs of a detector; ledetr.Detector is one. It has its own lock."""

    model_id: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    score_threshold: float
    random_weights: bool

    @property
    def info(self) -> BackendInfo:
        """The engine that really runs."""
        ...

    def detect_frame(
        self, rgb: Any, *, score_floor: float = ..., max_detections: int = ...
    ) -> tuple[Detections, StageTimes]:
        """rgb: (H, W, 3) uint8, read-only. Detections in its pixels, best first."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class DetectorSlot:
    """The detector in use. It can be replaced at any time; the old one is released once no frame is in its hands."""

    def __init__(self, detector: FrameDetector | None) -> None:
        self._lock = threading.Lock()
        self._current = detector
        self._users: dict[int, int] = {}
        self._releases: dict[int, tuple[FrameDetector, Callable[[FrameDetector], None]]] = {}

    @property
    def current(self) -> FrameDetector | None:
        """The detector that the next frame will meet."""
        with self._lock:
            return self._current

    def swap(
        self, detector: FrameDetector | None, release: Callable[[FrameDetector], None] | None
    ) -> FrameDetector | None:
        """Put another in its place; release(old) is called once nothing uses the old one. Gives the old one."""
        with self._lock:
            old, self._current = self._current, detector
            if old is None or old is detector or release is None:
                return old
            in_use = self._users.get(id(old), 0) > 0
            if in_use:
                self._releases[id(old)] = (old, release)
        if not in_use:
            release(old)
        return old

    @contextmanager
    def use(self) -> Iterator[FrameDetector | None]:
        """The current detector, kept from release while a frame is in its hands."""
        with self._lock:
            detector = self._current
            self._users[id(detector)] = self._users.get(id(detector), 0) + 1
        try:
            yield detector
        finally:
            due = None
            with self._lock:
                self._users[id(detector)] -= 1
                if not self._users[id(detector)]:
                    del self._users[id(detector)]
                    if detector is not self._current:
                        due = self._releases.pop(id(detector), None)
            if due is not None:
                due[1](due[0])


def detect_one(frame: Frame, detector: FrameDetector | None, clock: Clock) -> tuple[Detections, Timings]:
    """Detections of the frame, and its timings up to postprocessed; no detector finds nothing.

    Raises LeDetrError; anything else that the detector raises becomes the cause of one.
    """
    timings = Timings(captured_ns=frame.meta.t_capture_ns, taken_ns=clock.now_ns())
    if detector is None:
        return Detections.empty(), timings
    try:
        detections, stages = detector.detect_frame(frame.rgb, score_floor=SCORE_FLOOR)
    except LeDetrError:
        raise
    except Exception as error:
        text = f"Model {detector.model_id!r} failed on a frame ({type(error).__name__}: {error}); choose another model."
        raise LeDetrError(text) from error
    timings.preprocessed_ns = timings.taken_ns + round(stages.preprocess_ms * 1e6)
    timings.inferred_ns = timings.preprocessed_ns + round(stages.infer_ms * 1e6)
    timings.postprocessed_ns = timings.inferred_ns + round(stages.postprocess_ms * 1e6)
    return detections, timings


class TrackerSlot:
    """Where a thread keeps its tracker. tracking may be set from any thread: from the next frame on ids begin at 1, or
    with None there are none. The tracker itself is made and used by one thread only."""

    def __init__(self, tracking: Tracking | None) -> None:
        self._lock = threading.Lock()
        self._wanted = tracking
        self._changed = True
        self._tracker: Tracker | None = None

    def set_tracking(self, tracking: Tracking | None) -> None:
        """Also the same one once more, to begin anew."""
        with self._lock:
            self._wanted, self._changed = tracking, True

    def track(self, frame: Frame, detections: Detections, detector: FrameDetector | None) -> Detections:
        """The detections of the next frame with ids where tracking is on."""
        with self._lock:
            wanted, changed, self._changed = self._wanted, self._changed, False
        if changed:
            self._tracker = None if wanted is None else Tracker(wanted)
        if self._tracker is None:
            return detections
        if detector is None:
            return self._tracker.follow(detections, frame.meta)
        return self._tracker.follow(detections, frame.meta, start_score=detector.score_threshold)


class Inference:
    """The thread between the mailbox and the results.

    publish is called with each result whose epoch is not before valid_from(); discard with the number of frames thrown
    away; fail with the first error, after which the thread ends.
    """

    def __init__(
        self,
        mailbox: Mailbox[Frame],
        slot: DetectorSlot,
        clock: Clock,
        *,
        tracking: Tracking | None = None,
        valid_from: Callable[[], int],
        publish: Callable[[Result], None],
        discard: Callable[[int], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._mailbox = mailbox
        self._slot = slot
        self._clock = clock
        self._valid_from = valid_from
        self._publish = publish
        self._discard = discard
        self._fail = fail
        self.tracker = TrackerSlot(tracking)
        self._again = threading.Event()
        self._shown: Frame | None = None
        self.thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def detect_again(self) -> None:
        """Look at the last frame once more, e.g. because the model changed while paused."""
        self._again.set()
        self._mailbox.nudge()

    def _run(self) -> None:
        try:
            while not self._mailbox.closed:
                frame = self._mailbox.take()
                asked_again = self._again.is_set()
                self._again.clear()
                if frame is not None:
                    self._handle(frame, again=False)
                elif asked_again and self._shown is not None:
                    self._handle(self._shown, again=True)
        except BaseException as error:  # the pipeline carries it up as the first cause
            self._fail(error)

    def _handle(self, frame: Frame, *, again: bool) -> None:
        if frame.meta.epoch < self._valid_from():
            self._discard(0 if again else 1)
            return
        with self._slot.use() as detector:
            detections, timings = detect_one(frame, detector, self._clock)
            detections = self.tracker.track(frame, detections, detector)
        if self._mailbox.closed or frame.meta.epoch < self._valid_from():
            self._discard(0 if again else 1)
            return
        timings.published_ns = self._clock.now_ns()
        self._shown = frame
        self._publish(Result(frame, detections, timings, again=again))
