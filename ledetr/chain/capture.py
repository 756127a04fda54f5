"""The capture thread: owns the source, obeys play, pause, seek and step, brings a lost source back.

It never hangs itself: the source sits behind a GuardedSource, and every wait ends when a command comes.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from ledetr.chain.clock import Clock
from ledetr.chain.guard import Cancelled, GuardedSource
from ledetr.chain.history import History
from ledetr.chain.pacer import Pacer
from ledetr.chain.results import Eof, Event, Opened, Reconnecting, Restored, Stalled
from ledetr.chain.sources import OPEN_DEADLINE_S, READ_DEADLINE_S, SLEPT_S, FrameSource, SourceInfo, SourceLost
from ledetr.chain.states import Signal
from ledetr.frame import Frame

# Python-level margin over the library's own limits, so that its better message comes first where it comes at all.
_MARGIN_S = 0.5
_RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
# A file that is read later than this leaves out what is late.
_LATE_S = 0.1
# A source that is lost again sooner than this was not really back: the tries are counted on.
_STEADY_NS = 10_000_000_000
# Calls into a driver that hangs for ever leave a thread each; from so many on no more tries are made until one ends.
_MOST_HUNG = 4
# How far back to look for the frame before the first one that is remembered.
_REWINDS_S = (2.0, 10.0, 60.0, float("inf"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """How a source is read. paced: frames of a file come at their time. every: none is meant to be missed."""

    paced: bool = True
    every: bool = False
    history_bytes: int = 128 * 1024 * 1024
    open_deadline_s: float = OPEN_DEADLINE_S
    read_deadline_s: float = READ_DEADLINE_S
    retries: int | None = None


class CaptureListener(Protocol):
    """Who takes the frames and is told what happens; all of it from the capture thread, but for on_signal."""

    def on_frame(self, frame: Frame, every: bool) -> None:
        """A frame to be looked at; where every, wait for room instead of replacing the one before."""
        ...

    def on_jump(self) -> None:
        """What waits to be looked at is of an old epoch."""
        ...

    def on_captured(self) -> None:
        """A frame came, whatever becomes of it."""
        ...

    def on_discarded(self) -> None:
        """It was thrown away because a live source is paused."""
        ...

    def on_damaged(self, count: int) -> None:
        """So many pictures of a live source came damaged, or too late to be shown."""
        ...

    def on_skipped(self, count: int) -> None:
        """Frames of a file were left out, because it cannot be read at its pace."""
        ...

    def on_signal(self, signal: Signal) -> None:
        """The state moves. Called under a lock, so that state and wish agree; must not call back, must not wait."""
        ...

    def on_event(self, event: Event) -> None:
        """Something to tell the user."""
        ...

    def on_failed(self, error: BaseException) -> None:
        """The first error; the thread ends."""
        ...


class Capture:
    """The thread between the source and the hand-over. open_it(epoch) opens the source, from another thread."""

    def __init__(
        self,
        open_it: Callable[[int], FrameSource],
        display_name: str,
        clock: Clock,
        config: CaptureConfig,
        listener: CaptureListener,
        *,
        paused: bool = False,
    ) -> None:
        self._open_it = open_it
        self._name = display_name
        self._clock = clock
        self._config = config
        self._listener = listener
        self._every = config.every
        self.pacer = Pacer(clock)
        self.epoch = 0
        self.valid_from = 0  # frames of an epoch before this one are stale
        self.info: SourceInfo | None = None
        self.guards: list[GuardedSource] = []
        self._history = History(config.history_bytes)
        self._shown: Frame | None = None
        self._next_seq = 0
        self._changed = threading.Condition()
        self._interrupt = threading.Event()  # set by every command; ends the wait for a frame's time
        self._stop = threading.Event()
        self._attempt = 0
        self._back_ns = -_STEADY_NS
        self._last_frame_ns = clock.now_ns()
        self._last_wall_s: float | None = None
        self._epochs_slept = 0  # how far epochs of this opening are ahead of what the source calls them
        self._damaged = 0
        self._paused = paused
        self._ended = False
        self._show_one = False
        self._seek_to: float | None = None
        self._loop: tuple[float, float] | None = None
        self._steps = 0
        self.thread = threading.Thread(target=self._run, name="capture", daemon=True)

    # Commands, from any thread; none of them waits.

    def play(self) -> None:
        """Go on; from the start where the file has ended."""
        with self._command():
            if self._paused and self._ended and self._seek_to is None and not self._steps:
                self._seek_to = float("-inf") if self._loop is None else self._loop[0]
            self._paused = False
            self._listener.on_signal(Signal.PLAY)

    def pause(self) -> None:
        """Stay on the frame that is shown. A live source is read on, and what it sends is discarded."""
        with self._command():
            self._paused = True
            self._listener.on_signal(Signal.PAUSE)

    def seek(self, pts_s: float) -> None:
        """Go to a time; of several wishes only the newest is done."""
        with self._command():
            self._seek_to = pts_s
            self._steps = 0

    def step(self, frames: int) -> None:
        """Pause, and go one frame on (+1) or back (-1)."""
        with self._command():
            self._paused = True
            self._steps += frames
            self._listener.on_signal(Signal.PAUSE)

    def set_loop(self, loop: tuple[float, float] | None) -> None:
        """Where playing has shown the last frame up to loop[1] seconds, go on at loop[0]; a seek leads out of it."""
        with self._command():
            self._loop = loop

    def set_every(self, every: bool) -> None:
        """Whether a frame waits for the one before it to be taken."""
        with self._command():
            self._every = every

    def set_speed(self, speed: float) -> None:
        """Play faster or slower, 1.0 is real time."""
        with self._command():
            self.pacer.set_speed(speed)

    def stop(self) -> None:
        """End as soon as possible; see join_all for the threads in threads()."""
        with self._command():
            self._stop.set()
            guards = list(self.guards)
        for guard in guards:
            guard.cancel()
            guard.close()

    def threads(self) -> list[threading.Thread]:
        """All that may still run."""
        with self._changed:
            return [self.thread, *(guard.thread for guard in self.guards)]

    @property
    def ended(self) -> bool:
        """Whether it is parked on the last frame."""
        # Without the lock: who asks may hold the pipeline's, and that one is taken inside ours when the state moves.
        return self._ended

    def _command(self) -> "_Command":
        return _Command(self._changed, self._interrupt)

    # The thread.

    def _run(self) -> None:
        try:
            self._open()
            while self._next_command():
                pass
        except Cancelled:
            pass
        except BaseException as error:  # the pipeline carries it up as the first cause
            self._listener.on_failed(error)
        finally:
            self._guard.close()

    def _open(self) -> None:
        self.info = self._open_guarded()
        with self._changed:
            self._show_one = self._paused and not self.info.live
            self._listener.on_signal(Signal.OPENED_PAUSED if self._paused else Signal.OPENED_PLAYING)
        self._last_frame_ns = self._clock.now_ns()
        self._listener.on_event(Opened(self.info))

    def _open_guarded(self) -> SourceInfo:
        epoch = self.epoch
        self._last_wall_s, self._epochs_slept, self._damaged = None, 0, 0
        self._guard = GuardedSource(lambda: self._open_it(epoch), self._name)
        with self._changed:
            hung = [guard for guard in self.guards if guard.thread.is_alive()]
            self.guards = [*hung, self._guard]
            if self._stop.is_set():
                raise Cancelled
        if len(hung) >= _MOST_HUNG:
            raise SourceLost(f"{self._name!r} has not answered in {len(hung)} tries; unplug it, or check its driver.")
        return self._guard.open(self._config.open_deadline_s + _MARGIN_S)

    def _next_command(self) -> bool:
        """Wait until there is something to do and do it; False at the end."""
        assert self.info is not None  # _open comes first
        live = self.info.live
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stop.is_set()
                    or self._seek_to is not None
                    or self._steps
                    or self._show_one
                    or (not self._ended and (live or not self._paused))
                )
            )
            if self._stop.is_set():
                return False
            self._interrupt.clear()
            seek_to, self._seek_to = self._seek_to, None
            step = (self._steps > 0) - (self._steps < 0)
            self._steps -= step
        if seek_to is not None:
            self._do_seek(seek_to)
        elif step:
            self._do_step(step)
        elif live:
            self._read_live()
        else:
            self._play_one()
        return True

    # Files.

    def _play_one(self) -> None:
        frame = self._history.upcoming() or self._read_into_history(self._skip_to_s())
        with self._changed:
            loop = None if self._show_one else self._loop
        if loop is not None and self._is_last_of(loop, frame):
            self._go_round(loop, frame)
            return
        if frame is None:
            self._end()
            return
        with self._changed:
            show_at_once, self._show_one = self._show_one, False
        if not show_at_once and self._config.paced:
            due_ns = self.pacer.due_ns(frame.meta.pts * frame.meta.time_base, may_slip=self._every)
            if not self._clock.sleep_until(due_ns, self._interrupt):
                return  # a command came; the frame stays upcoming
        self._show(frame)
        if show_at_once:
            self.pacer.reset()

    def _is_last_of(self, loop: tuple[float, float], following: Frame | None) -> bool:
        """Whether the frame that is shown is the last one in the loop."""
        inside = self._shown is not None and self._shown.meta.pts_s <= loop[1]
        return inside and (following is None or following.meta.pts_s > loop[1])

    def _go_round(self, loop: tuple[float, float], following: Frame | None) -> None:
        """Back to the start of the loop, once the frame that is shown had its time."""
        assert self.info is not None and self._shown is not None  # only called with a frame shown
        over = self._shown.meta.pts * self._shown.meta.time_base + 1 / (self.info.rate or Fraction(25))
        if following is not None:
            over = following.meta.pts * following.meta.time_base
        if self._config.paced and not self._clock.sleep_until(
            self.pacer.due_ns(over, may_slip=self._every), self._interrupt
        ):
            return  # a command came; it may change the loop
        # What waits for the detector stays valid: a loop may be shorter than one inference.
        self._jump(max(loop[0], self.info.start_s), keep=True)

    def _skip_to_s(self) -> float | None:
        """Where to go on when the source cannot be read at its pace: what is late already need not be converted."""
        due, shown = self.pacer.now(), self._shown
        if due is None or shown is None or self._every or not self._config.paced:
            return None
        late_s = float(due - shown.meta.pts * shown.meta.time_base)
        if late_s > SLEPT_S * self.pacer.speed:
            self.pacer.reset()  # nothing is that slow: the machine slept, and nobody saw what would be left out
            return None
        return float(due) if late_s > _LATE_S else None

    def _show(self, frame: Frame) -> None:
        self._history.move_to(frame)
        self._shown = frame
        self._listener.on_captured()
        # Its age counts from now, when it was due, not from when it was decoded ahead or first shown.
        meta = replace(frame.meta, t_capture_ns=self._clock.now_ns())
        self._listener.on_frame(Frame(meta, frame.rgb), self._every)

    def _read_into_history(self, skip_to_s: float | None = None) -> Frame | None:
        frame = self._guard.read(self._config.read_deadline_s + _MARGIN_S, skip_to_s)
        if frame is not None:
            skipped = frame.meta.seq - self._next_seq
            self._next_seq = frame.meta.seq + 1
            if skipped:
                self._listener.on_skipped(skipped)
                self._history.clear()  # a step back must not jump over the hole
            self._history.append(frame)
        return frame

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._paused = True
            self._show_one = False
            self._listener.on_signal(Signal.ENDED)
        self.pacer.reset()
        self._listener.on_event(Eof())

    def _do_seek(self, pts_s: float) -> None:
        assert self.info is not None  # _open comes first
        if not self.info.seekable:
            return
        self._jump(max(pts_s, self.info.start_s))
        with self._changed:
            self._ended = False
            self._show_one = True

    def _jump(self, pts_s: float, *, keep: bool = False) -> None:
        """keep: what was read before it is not stale."""
        self.epoch += 1
        if not keep:
            self.valid_from = self.epoch
            self._listener.on_jump()
        self._guard.seek(pts_s, self._config.read_deadline_s + _MARGIN_S)
        self._history.clear()
        self._next_seq = 0
        self.pacer.reset()

    def _do_step(self, step: int) -> None:
        assert self.info is not None  # _open comes first
        if self.info.live:
            return
        self.pacer.reset()
        if step > 0:
            frame = self._history.upcoming() or self._read_into_history()
            if frame is None and not self.ended:
                self._end()
        else:
            frame = self._history.previous() or (self._rewind() if self.info.seekable else None)
            with self._changed:
                self._ended = self._ended and frame is None
        if frame is not None:
            self._show(frame)

    def _rewind(self) -> Frame | None:
        """The frame before the oldest that is remembered, read again from an earlier place; None at the start."""
        assert self.info is not None  # _open comes first
        if self._shown is None:
            return None
        now = self._shown.meta.pts * self._shown.meta.time_base
        for back_s in _REWINDS_S:
            start_s = max(self.info.start_s, float(now) - back_s)
            self._jump(start_s)
            before = self._read_up_to(now)
            if before is not None or start_s <= self.info.start_s:
                break
        return before or self._history.upcoming()

    def _read_up_to(self, pts: Fraction) -> Frame | None:
        """Fill the history up to the frame at pts; the one before it."""
        before = None
        while (frame := self._read_into_history()) is not None and frame.meta.pts * frame.meta.time_base < pts:
            before = frame
            self._history.move_to(frame)
        return before

    # Live sources.

    def _read_live(self) -> None:
        try:
            frame = self._guard.read(self._config.read_deadline_s + _MARGIN_S)
        except SourceLost as error:
            self._count_damaged()
            self._bring_back(error)
            return
        self._count_damaged()
        if frame is None:
            self._end()
            return
        frame = self._awake(frame)
        self._listener.on_captured()
        self.epoch = self.valid_from = frame.meta.epoch
        with self._changed:
            wanted = not self._paused or self._show_one
            self._show_one = False
        if wanted:
            self._listener.on_frame(frame, self._every)
        else:
            self._listener.on_discarded()

    def _awake(self, frame: Frame) -> Frame:
        """The frame, in an epoch of its own where the machine slept before it, which its source may not know."""
        now_ns, wall_s = self._clock.now_ns(), frame.meta.wall_time_s
        gap_s = (now_ns - self._last_frame_ns) / 1e9
        if wall_s is not None and self._last_wall_s is not None:
            # Linux and macOS stop the monotonic clock while they sleep. A wall clock that is set looks the same.
            gap_s = max(gap_s, wall_s - self._last_wall_s)
        self._last_frame_ns, self._last_wall_s = now_ns, wall_s
        meta = replace(frame.meta, epoch=frame.meta.epoch + self._epochs_slept)
        if gap_s > SLEPT_S and meta.epoch == self.epoch:
            self._epochs_slept += 1
            meta = replace(meta, epoch=meta.epoch + 1, discontinuity=True)
        return Frame(meta, frame.rgb)

    def _count_damaged(self) -> None:
        damaged = self._guard.damaged
        if damaged > self._damaged:
            self._listener.on_damaged(damaged - self._damaged)
        self._damaged = damaged

    def _bring_back(self, lost: SourceLost) -> None:
        lost_ns = self._clock.now_ns()
        if lost_ns - self._back_ns >= _STEADY_NS:
            self._attempt = 0
        self._listener.on_signal(Signal.LOST)
        self._listener.on_event(Stalled((lost_ns - self._last_frame_ns) / 1e9, str(lost)))
        while True:
            self._attempt += 1
            self._guard.close()
            if self._config.retries is not None and self._attempt > self._config.retries:
                raise lost
            self._wait_before(self._attempt)
            self.epoch += 1
            self.valid_from = self.epoch
            try:
                self.info = self._open_guarded()
                break
            except SourceLost as error:
                lost = error
        self._listener.on_jump()
        with self._changed:
            self._listener.on_signal(Signal.RESTORED_PAUSED if self._paused else Signal.RESTORED_PLAYING)
        self._back_ns = self._last_frame_ns = self._clock.now_ns()
        self._listener.on_event(Restored((self._back_ns - lost_ns) / 1e9, self.info))

    def _wait_before(self, attempt: int) -> None:
        delay_s = _RETRY_DELAYS_S[min(attempt, len(_RETRY_DELAYS_S)) - 1]
        delay_s *= random.uniform(0.8, 1.0)  # so that many windows do not knock at once
        self._listener.on_event(Reconnecting(attempt, delay_s))
        if not self._clock.sleep_until(self._clock.now_ns() + round(delay_s * 1e9), self._stop):
            raise Cancelled


class _Command:
    """Holds the lock while a wish is written down, then wakes the thread."""

    def __init__(self, changed: threading.Condition, interrupt: threading.Event) -> None:
        self._changed = changed
        self._interrupt = interrupt

    def __enter__(self) -> None:
        self._changed.acquire()

    def __exit__(self, *_: object) -> None:
        self._interrupt.set()
        self._changed.notify_all()
        self._changed.release()
