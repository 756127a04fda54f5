"""The open source and its time: play, pause, seek, step, speed, in and out points, loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ledetr.chain.clock import Clock
from ledetr.chain.pipeline import (
    Eof,
    Event,
    Failed,
    Opened,
    Pipeline,
    Reconnecting,
    Restored,
    Result,
    Stalled,
    State,
    Stopped,
)
from ledetr.chain.sources import (
    FolderSpec,
    ImageSpec,
    ListSpec,
    SourceInfo,
    SourceSpec,
    UrlSpec,
    VideoSpec,
    mask_url,
    parse_source,
)
from ledetr.errors import LeDetrError
from ledetr_app.seeking import Seeks
from ledetr_app.settings import MAX_RECENTS
from ledetr_app.state import Loss
from ledetr_app.store import Store, nothing, problem_of
from ledetr_app.viewport import View
from ledetr_app.worker import Worker

log = logging.getLogger("ledetr_app")

SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)


class Player:
    """Commands to the pipeline, carried out by the thread `control`, and what it tells put into the state.

    plays: what the user wants; pictures and stepping do not lead to the next of the queue. source_key: what the open
    source is called where something is kept for it; without passwords. stills: the open source, where it is pictures.
    before_change is called in that thread before another source opens or the open one closes; on_opened when a source
    was found good; on_over where one of them came to its end, good or bad; on_still where all its pictures were shown.
    """

    def __init__(self, store: Store, pipeline: Pipeline, control: Worker, clock: Clock) -> None:
        self._store = store
        self._pipeline = pipeline
        self._control = control
        self._clock = clock
        self._seeks = Seeks(self._begin_seek)
        self._is_video = False
        self.source_key = ""
        self.stills: ImageSpec | FolderSpec | ListSpec | None = None
        self.plays = True
        self.before_change: Callable[[], None] = nothing
        self.on_opened: Callable[[], None] = nothing
        self.on_over: Callable[[], None] = nothing
        self.on_still: Callable[[], None] = nothing

    # Commands

    def open_soon(self, source: str | Path) -> None:
        """Open it in place of what is open."""
        self.plays = True
        name = mask_url(str(source)) if "://" in str(source) else Path(source).name
        self._store.change(opening=name, problem=None)
        self._control.submit(lambda: self._open(source))

    def play(self) -> None:
        """Go on; from the end of a file, begin again."""
        self.plays = True
        self._control.submit(self._then_sync(self._pipeline.play))

    def pause(self) -> None:
        """Hold the picture."""
        self.plays = False
        self._control.submit(self._then_sync(self._pipeline.pause))

    def toggle_play(self) -> None:
        """Play when held or ended, pause when playing."""
        state = self._store.state
        if state.phase is State.RUNNING and not state.ended:
            self.pause()
        elif state.has_source:
            self.play()

    def stop(self) -> None:
        """Close the source; legal in every state."""
        self._store.change(opening="", loss=None)
        self._control.submit(self._stop)

    def seek(self, pts_s: float) -> None:
        """Show the first frame at or after pts_s seconds; of quick calls only the newest is carried out.

        Quick: before the picture of the call before it is there.
        """
        source = self._store.state.source
        if source is None or not source.seekable:
            return
        pts_s = max(source.start_s, pts_s)
        if source.duration_s is not None:
            pts_s = min(pts_s, source.start_s + source.duration_s)
        latest = self._pipeline.latest()
        self._seeks.want(pts_s, -1 if latest is None else latest.frame.meta.epoch)

    def seek_by(self, seconds: float) -> None:
        """Seek from the picture that is shown, or from the one that was sought and is on its way."""
        shown, target_s = self._store.shown, self._seeks.target_s
        if shown is not None:
            self.seek((shown.frame.meta.pts_s if target_s is None else target_s) + seconds)

    def set_in(self, pts_s: float | None) -> None:
        """The part of the file that matters begins here, and is looped; None: it begins with the file."""
        out_s = self._store.state.out_s
        keep_out = pts_s is None or out_s is None or out_s > pts_s
        self._set_part(pts_s, out_s if keep_out else None)

    def set_out(self, pts_s: float | None) -> None:
        """The part of the file that matters ends here, and is looped; None: it ends with the file."""
        in_s = self._store.state.in_s
        keep_in = pts_s is None or in_s is None or in_s < pts_s
        self._set_part(in_s if keep_in else None, pts_s)

    def set_point_here(self, which: str) -> None:
        """The picture that is shown is the first ("in") or the last ("out") of the part that matters."""
        shown = self._store.shown
        if shown is not None:
            {"in": self.set_in, "out": self.set_out}[which](shown.frame.meta.pts_s)

    def set_loop(self, loop: bool) -> None:
        """Play the part between the points, or the whole file, again and again."""
        if self._is_file():
            self._store.change(loop=loop)
            self._control.submit(self._hand_on_loop, newest_of="loop")

    def clear_points(self) -> None:
        """The whole file matters, and it is played once."""
        self._store.change(in_s=None, out_s=None, loop=False)
        self._control.submit(self._hand_on_loop, newest_of="loop")

    def set_speed(self, speed: float) -> None:
        """Play files slower or faster, 0.25 to 4 times; kept for the next file."""
        speed = min(max(speed, SPEEDS[0]), SPEEDS[-1])
        self._store.change(speed=speed)
        self._control.submit(lambda: self._pipeline.set_speed(speed), newest_of="speed")

    def change_speed(self, steps: int) -> None:
        """To the next speed up (1) or down (-1)."""
        nearest = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self._store.state.speed))
        self.set_speed(SPEEDS[min(max(nearest + steps, 0), len(SPEEDS) - 1)])

    def step(self, frames: int) -> None:
        """One frame on (1) or back (-1), paused."""
        if self._store.state.has_source:
            self.plays = False
            self._control.submit(self._then_sync(lambda: self._pipeline.step(frames)))

    def latest(self) -> Result | None:
        """Newest result; None when nothing is open."""
        return self._pipeline.latest() if self._store.state.has_source else None

    # What the pipeline tells, in its threads

    def follow_result(self) -> None:
        """There is a newer result."""
        latest = self._pipeline.latest()
        if latest is not None:
            self._seeks.arrived(latest.frame.meta.epoch)
        self._sync()

    def follow_event(self, event: Event) -> None:
        """Something happened to the source."""
        if isinstance(event, Opened | Eof | Failed | Stopped):
            self._seeks.over(forget=not isinstance(event, Eof))
        change = self._store.change
        match event:
            case Opened(info):
                self._on_opened(info)
            case Eof():
                change(ended=True)
                (self.on_over if self._is_video else self.on_still)()
            case Stalled():
                change(loss=Loss(self._clock.now_ns()))
            case Reconnecting(attempt, next_in_s):
                loss = self._store.state.loss
                since_ns = loss.since_ns if loss is not None else self._clock.now_ns()
                change(loss=Loss(since_ns, attempt, next_in_s))
            case Restored():
                change(loss=None)
            case Failed(error):
                change(source=None, opening="", loss=None, problem=problem_of(error))
                self.on_over()
            case Stopped(orphans):
                if orphans:
                    log.warning("did not end in time and were left to themselves: %s", ", ".join(orphans))
                change(source=None, loss=None, ended=False)
        self._sync()

    def _on_opened(self, info: SourceInfo) -> None:
        self._store.change(
            source=info, opening="", loss=None, ended=False, in_s=None, out_s=None, loop=False, view=View()
        )

    # In the thread `control`

    def _open(self, source: str | Path) -> None:
        try:
            spec = parse_source(source)
            self._store.change(opening=spec.display_name, loss=None)
            self.before_change()
            self.stills = spec if isinstance(spec, ImageSpec | FolderSpec | ListSpec) else None
            self.source_key = _memorable(spec, source) or spec.display_name
            self._pipeline.open(spec)
        except LeDetrError as error:
            self._store.change(opening="", problem=problem_of(error))
            self.on_over()
            return
        self._is_video = isinstance(spec, VideoSpec)
        self._add_to_recents(spec, source)
        self._sync()

    def _add_to_recents(self, spec: SourceSpec, source: str | Path) -> None:
        text = _memorable(spec, source)
        if text is not None:
            others = (recent for recent in self._store.state.recents if recent != text)
            self._store.change(recents=(text, *others)[:MAX_RECENTS])
            self.on_opened()

    def _stop(self) -> None:
        self.before_change()
        self._pipeline.stop()
        self._store.change(source=None, opening="", loss=None, ended=False)
        self._sync()

    def _begin_seek(self, pts_s: float) -> None:
        self._control.submit(self._then_sync(lambda: self._pipeline.seek(pts_s)), newest_of="seek")

    def _set_part(self, in_s: float | None, out_s: float | None) -> None:
        if self._is_file():
            self._store.change(in_s=in_s, out_s=out_s, loop=in_s is not None or out_s is not None)
            self._control.submit(self._hand_on_loop, newest_of="loop")

    def _hand_on_loop(self) -> None:
        state = self._store.state
        if state.loop:
            self._pipeline.set_loop(state.in_s, state.out_s)
        else:
            self._pipeline.clear_loop()

    def _is_file(self) -> bool:
        source = self._store.state.source
        return source is not None and source.seekable

    def _then_sync(self, command: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            command()
            self._sync()

        return run

    def _sync(self) -> None:
        """Follow the pipeline's own state."""
        phase, ended, state = self._pipeline.state, self._pipeline.ended, self._store.state
        if (phase, ended) != (state.phase, state.ended):
            self._store.change(phase=phase, ended=ended)


def _memorable(spec: SourceSpec, source: str | Path) -> str | None:
    """What opens the source again; None for an address with secrets in it, which is never written down."""
    if isinstance(spec, UrlSpec):
        return spec.url if spec.display_name == spec.url else None
    if isinstance(spec, VideoSpec | ImageSpec | ListSpec) or (isinstance(spec, FolderSpec) and spec.pattern is None):
        return str(spec.path.absolute())
    return str(source)
