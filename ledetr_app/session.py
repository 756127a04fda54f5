"""What is open, chosen and running, and the commands that change it. Plain objects, no Qt.

Commands return at once and may be called from the GUI thread: what takes time is done by the threads below, and the
outcome is a new `state`. Threads: "session" (opens, stops, records), "files" (snapshots, settings, the list of
weights), "model loader" (short-lived), and those of the pipeline.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import ledetr
from ledetr.backends import device_names
from ledetr.chain.camera import list_cameras
from ledetr.chain.clock import Clock, MonotonicClock
from ledetr.chain.meters import MeterSnapshot
from ledetr.chain.overlay import RANDOM_WEIGHTS, Mark, Pen, marks_of, notice_mark
from ledetr.chain.pipeline import (
    Eof,
    Event,
    Failed,
    FrameDetector,
    Opened,
    Pipeline,
    Reconnecting,
    RecordingEnded,
    Restored,
    Result,
    Stalled,
    State,
    Stopped,
)
from ledetr.chain.recording import RecordingStatus
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
from ledetr.detections import Detections
from ledetr.errors import LeDetrError
from ledetr.weights_file import find_weights, search_folders
from ledetr_app.model_loader import LoadDetector, ModelLoader, ModelWish, NoWeightsHere
from ledetr_app.pictures import output_path, save_snapshot
from ledetr_app.playlist import Playlist
from ledetr_app.seeking import Seeks
from ledetr_app.selection import Selection, follow, select
from ledetr_app.settings import MAX_RECENTS, LoadedSettings, Settings, load_settings, save_settings
from ledetr_app.state import Loss, Problem, RunningModel, SessionState, Toast
from ledetr_app.viewport import View
from ledetr_app.worker import Worker

log = logging.getLogger("ledetr_app")

CONF_RANGE = (0.05, 0.95)
SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)
LINE_WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0)
STOP_LIMIT_S = 5.0


class Session:
    """The whole application without its window.

    settings_file: None = nothing is remembered (as with --safe). load_detector: how a choice of model becomes a
    detector. list_devices: what it can run on. pictures, videos: folders that snapshots and recordings go to.
    on_result and on_change are called from any thread when there is a newer result or state; they must return at once.
    """

    def __init__(
        self,
        *,
        settings_file: Path | None = None,
        random_weights: bool = False,
        load_detector: LoadDetector | None = None,
        list_devices: Callable[[], Mapping[str, str]] = device_names,
        find: Callable[[str], Path] = find_weights,
        pictures: Path | None = None,
        videos: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or MonotonicClock()
        self.on_result: Callable[[], None] = _nothing
        self.on_change: Callable[[], None] = _nothing
        self.allows_random_weights = random_weights
        self._find = find
        self._list_devices = list_devices
        self._wish: ModelWish | None = None
        self._settings_file = settings_file
        loaded = LoadedSettings(Settings()) if settings_file is None else load_settings(settings_file)
        self.settings = loaded.settings
        self._folders = {"pictures": pictures, "videos": videos}
        self._lock = threading.Lock()
        self._serial = 0
        self._closed = False
        self._detector: FrameDetector | None = None
        self._shown: Result | None = None
        self._selection: Selection | None = None
        self._plays = True  # what the user wants; pictures and stepping do not lead to the next of the queue
        self._is_video = False
        self.state = _initial_state(loaded)
        self.pipeline = Pipeline(None, clock=self.clock, on_result=self._on_result, on_event=self._on_event)
        self._control = Worker("session", self.report)
        self._seeks = Seeks(self._begin_seek)
        self._files = Worker("files", self.report)
        self._loader = ModelLoader(load_detector or self._load_detector, self._on_loaded, self._on_load_failed)
        self._files.submit(self._look_for_weights)

    def start(self, *, model: str | None = None, source: str | Path | None = None) -> None:
        """Load the model (default: the remembered one) and open the source, if any. Returns at once."""
        self.set_model(model or self.state.model)
        if source is not None:
            self.open_source(source)

    # Source

    def open_source(self, source: str | Path) -> None:
        """Open a path, address, camera or test pattern in place of what is open; the queue waits."""
        self._change(queue=self.state.queue.playing(None))
        self._open_soon(source)

    def open_files(self, paths: Sequence[str]) -> None:
        """Open one path; several become the queue, and are played in turn."""
        if len(paths) == 1:
            self.open_source(paths[0])
        elif paths:
            self._change(queue=Playlist.of(paths), queue_panel=True)
            self.play_queued(0)

    def play_queued(self, row: int) -> None:
        """Play this one of the queue now."""
        queue = self.state.queue
        if 0 <= row < len(queue.paths):
            self._change(queue=queue.playing(row))
            self._open_soon(queue.paths[row])

    def play_neighbour(self, by: int) -> None:
        """Play the next (1) or the previous (-1) file of the queue."""
        row = self.state.queue.neighbour(by)
        if row is not None:
            self.play_queued(row)

    def remove_queued(self, row: int) -> None:
        """Take one out of the queue; what is played goes on."""
        queue = self.state.queue
        if 0 <= row < len(queue.paths):
            self._change(queue=queue.without(row))

    def clear_queue(self) -> None:
        """Forget the queue; what is played goes on."""
        self._change(queue=Playlist())

    def set_queue_panel(self, shown: bool) -> None:
        """Unfold or fold the list of the queue."""
        self._change(queue_panel=shown)

    def _open_soon(self, source: str | Path) -> None:
        self._plays = True
        self._change(opening=mask_url(str(source)) if "://" in str(source) else Path(source).name, problem=None)
        self._control.submit(lambda: self._open(source))

    def play(self) -> None:
        """Go on; from the end of a file, begin again."""
        self._plays = True
        self._control.submit(self._then_sync(self.pipeline.play))

    def pause(self) -> None:
        """Hold the picture."""
        self._plays = False
        self._control.submit(self._then_sync(self.pipeline.pause))

    def toggle_play(self) -> None:
        """Play when held or ended, pause when playing."""
        state = self.state
        if state.phase is State.RUNNING and not state.ended:
            self.pause()
        elif state.has_source:
            self.play()

    def stop(self) -> None:
        """Close the source; legal in every state."""
        self._change(opening="", loss=None)
        self._control.submit(self._stop)

    def seek(self, pts_s: float) -> None:
        """Show the first frame at or after pts_s seconds; of quick calls only the newest is carried out.

        Quick: before the picture of the call before it is there.
        """
        source = self.state.source
        if source is None or not source.seekable:
            return
        pts_s = max(source.start_s, pts_s)
        if source.duration_s is not None:
            pts_s = min(pts_s, source.start_s + source.duration_s)
        latest = self.pipeline.latest()
        self._seeks.want(pts_s, -1 if latest is None else latest.frame.meta.epoch)

    def seek_by(self, seconds: float) -> None:
        """Seek from the picture that is shown, or from the one that was sought and is on its way."""
        shown, target_s = self._shown, self._seeks.target_s
        if shown is not None:
            self.seek((shown.frame.meta.pts_s if target_s is None else target_s) + seconds)

    def set_in(self, pts_s: float | None) -> None:
        """The part of the file that matters begins here, and is looped; None: it begins with the file."""
        out_s = self.state.out_s
        keep_out = pts_s is None or out_s is None or out_s > pts_s
        self._set_part(pts_s, out_s if keep_out else None)

    def set_out(self, pts_s: float | None) -> None:
        """The part of the file that matters ends here, and is looped; None: it ends with the file."""
        in_s = self.state.in_s
        keep_in = pts_s is None or in_s is None or in_s < pts_s
        self._set_part(in_s if keep_in else None, pts_s)

    def set_point_here(self, which: str) -> None:
        """The picture that is shown is the first ("in") or the last ("out") of the part that matters."""
        shown = self._shown
        if shown is not None:
            {"in": self.set_in, "out": self.set_out}[which](shown.frame.meta.pts_s)

    def set_loop(self, loop: bool) -> None:
        """Play the part between the points, or the whole file, again and again."""
        if self._is_file():
            self._change(loop=loop)
            self._control.submit(self._hand_on_loop, newest_of="loop")

    def clear_points(self) -> None:
        """The whole file matters, and it is played once."""
        self._change(in_s=None, out_s=None, loop=False)
        self._control.submit(self._hand_on_loop, newest_of="loop")

    def set_speed(self, speed: float) -> None:
        """Play files slower or faster, 0.25 to 4 times; kept for the next file."""
        speed = min(max(speed, SPEEDS[0]), SPEEDS[-1])
        self._change(speed=speed)
        self._control.submit(lambda: self.pipeline.set_speed(speed), newest_of="speed")

    def change_speed(self, steps: int) -> None:
        """To the next speed up (1) or down (-1)."""
        nearest = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.state.speed))
        self.set_speed(SPEEDS[min(max(nearest + steps, 0), len(SPEEDS) - 1)])

    def step(self, frames: int) -> None:
        """One frame on (1) or back (-1), paused."""
        if self.state.has_source:
            self._plays = False
            self._control.submit(self._then_sync(lambda: self.pipeline.step(frames)))

    def look_for_cameras(self) -> None:
        """List the cameras again."""
        self._files.submit(self._look_for_cameras, newest_of="cameras")

    # Model and display

    def set_model(self, model: str) -> None:
        """Load a scale or a weights file beside the running model, then swap between two frames."""
        self._want(self.state.wish_for(model))

    def set_device(self, device: str) -> None:
        """Run the model there: "auto" or one of state.devices; loads it anew, the running one goes on meanwhile."""
        self._want(replace(self.state.wish, device=device))

    def set_precision(self, precision: str) -> None:
        """Run the model in "fp32", "fp16", "bf16" or what suits the device, "auto"."""
        self._want(replace(self.state.wish, precision=precision))

    def set_decoder_layers(self, layers: int | None) -> None:
        """Use so many of the model's decoder layers: fewer are faster and a little less exact; None: as trained."""
        self._want(replace(self.state.wish, decoder_layers=layers))

    def look_for_devices(self) -> None:
        """List what a model can run on, once."""
        if self.state.devices is None:
            self._files.submit(lambda: self._change(devices=self._list_devices()), newest_of="devices")

    def set_conf(self, conf: float) -> None:
        """Score threshold, kept within 0.05..0.95. Costs no inference: the boxes are there already."""
        self._change(own_conf=round(min(max(conf, CONF_RANGE[0]), CONF_RANGE[1]), 2))

    def set_classes(self, names: frozenset[str] | None) -> None:
        """Show only these class names; None: all."""
        self._change(shown_classes=names)

    def show(self, *, boxes: bool | None = None, labels: bool | None = None, scores: bool | None = None) -> None:
        """Switch parts of the overlay; None leaves a part as it is."""
        changes = {"boxes": boxes, "labels": labels, "scores": scores}
        self._change(**{name: value for name, value in changes.items() if value is not None})

    def set_line_weight(self, weight: float) -> None:
        """Thinner or thicker lines, 0.5 to 3 times the usual."""
        self._change(line_weight=min(max(weight, LINE_WEIGHTS[0]), LINE_WEIGHTS[-1]))

    def set_class_conf(self, name: str, conf: float | None) -> None:
        """A threshold for one class alone, kept within 0.05..0.95; None: that of all."""
        others = {other: value for other, value in self.state.class_conf.items() if other != name}
        own = {} if conf is None else {name: round(min(max(conf, CONF_RANGE[0]), CONF_RANGE[1]), 2)}
        self._change(class_conf=others | own)

    def clear_class_confs(self) -> None:
        """One threshold for all classes."""
        self._change(class_conf={})

    def set_view(self, view: View) -> None:
        """Look at another part of the picture, or at all of it."""
        self._change(view=view)

    def select_at(self, x: float, y: float) -> None:
        """Select the box at this point of the picture that is shown; none where there is none."""
        shown, self._selection = self._shown, None
        if shown is not None and self.state.boxes:
            self._selection = select(shown, self.state.class_filter.mask(shown.detections), x, y)
        self.on_change()

    def clear_selection(self) -> None:
        """No box is selected."""
        self._selection = None
        self.on_change()

    @property
    def selected(self) -> Detections | None:
        """One row: the selected box as it is in the picture that is shown; None where none is, or it is not seen."""
        selection = self._selection
        if selection is None or selection.found is None or not self.state.boxes:
            return None
        return selection.found if self.state.class_filter.mask(selection.found)[0] else None

    def set_theme(self, theme: str) -> None:
        """ "system", "light" or "dark"."""
        self._change(theme=theme)

    def set_side_panel(self, shown: bool) -> None:
        """Unfold or fold the class list."""
        self._change(side_panel=shown)

    def set_stats(self, shown: bool) -> None:
        """The numbers of the meters over the picture, or not."""
        self._change(stats=shown)

    def marks(
        self, result: Result, size_hw: tuple[int, int] | None = None, fitted_hw: tuple[int, int] | None = None
    ) -> list[Mark]:
        """What is drawn over that result with the present choices.

        size_hw: of the picture as it is drawn on, by default in its own pixels. A small picture that is shown large
        gets lines and letters for the large one. fitted_hw: the size that these are right for, where it is another.
        """
        state, meta = self.state, result.frame.meta
        if not state.boxes:
            return []
        height, width = size_hw or (meta.height, meta.width)
        seen = self.seen(result)
        scale_xy = np.array([width / meta.width, height / meta.height], np.float32)
        return marks_of(
            replace(seen, xyxy=seen.xyxy * np.tile(scale_xy, 2)),
            conf=0.0,
            labels=state.labels,
            scores=state.scores,
            size_hw=(height, width),
            pen=Pen.of(fitted_hw or (height, width), weight=state.line_weight),
        )

    def marks_to_keep(self, result: Result) -> list[Mark]:
        """The same for a file or the clipboard, where the picture itself must say that the weights are random."""
        marks = self.marks(result)
        if not (self.has_random_weights and self.state.boxes):
            return marks
        notice = notice_mark(RANDOM_WEIGHTS, (result.frame.meta.height, result.frame.meta.width))
        return marks if notice is None else [*marks, notice]

    @property
    def has_random_weights(self) -> bool:
        """Whether the running model has learnt nothing."""
        running = self.state.running
        return running is not None and running.random_weights

    def seen(self, result: Result) -> Detections:
        """Its detections that pass the thresholds and the class filter."""
        return result.detections[self.state.class_filter.mask(result.detections)]

    # Output

    def snapshot(self, *, boxes: bool = True) -> None:
        """Save the picture that is shown in full size, with or without boxes, and its detections beside it."""
        result = self._shown
        if result is None:
            self._change(problem=Problem("There is no picture to save yet: open a source first."))
            return
        marks = self.marks_to_keep(result) if boxes else []
        name, seen = self._source_name(), self.seen(result)
        in_force = {
            "conf": self.state.conf,
            "class_conf": dict(self.state.class_conf),
            "random_weights": self.has_random_weights,
        }
        self._files.submit(lambda: self._save_snapshot(name, result, seen, marks, in_force))

    def toggle_recording(self) -> None:
        """Start or end a recording of what is seen."""
        if self.state.recording is not None:
            self._control.submit(self._stop_recording)
        elif self.state.has_source:
            self._control.submit(self._start_recording)
        else:
            self._change(problem=Problem("There is nothing to record yet: open a source first."))

    def recording_status(self) -> RecordingStatus | None:
        """Length and size so far; None when nothing is recorded."""
        return self.pipeline.recording

    # What the window reads

    def latest(self) -> Result | None:
        """Newest result; None when nothing is open."""
        return self.pipeline.latest() if self.state.has_source else None

    def set_shown(self, result: Result | None) -> None:
        """The window turns to this result: position, counts, snapshots and steps are about it from now on."""
        if result is None:
            self._selection = None
        elif self._selection is not None and result is not self._shown:
            self._selection = follow(self._selection, result, self.state.class_filter.mask(result.detections))
        self._shown = result

    def painted(self, result: Result) -> None:
        """The result is on the screen now, for the meters."""
        self.pipeline.painted(result)

    @property
    def shown(self) -> Result | None:
        """The result that the window has turned to."""
        return self._shown

    def meters(self) -> MeterSnapshot:
        """Rates, age and drops as they are now."""
        return self.pipeline.meters.snapshot()

    # Problems and settings

    def report(self, error: BaseException) -> None:
        """Show an error; the one way in for every thread."""
        self._change(problem=problem_of(error))

    def dismiss_problem(self) -> None:
        """The user has read it."""
        self._change(problem=None)

    def remember(self, **changes: Any) -> None:
        """Keep fields of Settings that only the window knows, e.g. its geometry."""
        with self._lock:
            self.settings = replace(self.settings, **changes)

    def close(self) -> list[str]:
        """End everything, in any state. Returns the names of threads that did not end in time and were left behind."""
        if self._closed:
            return []
        self._closed = True
        self.on_result = self.on_change = _nothing
        left = [] if self._loader.close(STOP_LIMIT_S) else ["model loader"]
        self._control.submit(self._stop_recording)
        left += [] if self._control.close(STOP_LIMIT_S) else ["session"]
        self.pipeline.close()
        if self._detector is not None:
            self._detector.close()
        self._save_settings_later()
        left += [] if self._files.close(STOP_LIMIT_S) else ["files"]
        return left

    def _want(self, wish: ModelWish) -> None:
        state = self.state
        if state.loading is not None and self._wish == wish:
            return
        self._wish = wish
        running = state.running is not None and state.running.wish == wish
        self._change(loading=None if running else wish.choice, **_choices(wish))
        if running:
            self._loader.want(None)
            return
        self._change(problem=None)
        self._loader.want(wish)

    def _set_part(self, in_s: float | None, out_s: float | None) -> None:
        if not self._is_file():
            return
        self._change(in_s=in_s, out_s=out_s, loop=in_s is not None or out_s is not None)
        self._control.submit(self._hand_on_loop, newest_of="loop")

    def _is_file(self) -> bool:
        source = self.state.source
        return source is not None and source.seekable

    # Threads "session" and "files"

    def _open(self, source: str | Path) -> None:
        try:
            spec = parse_source(source)
            self._change(opening=spec.display_name, loss=None)
            self._stop_recording()
            self.pipeline.open(spec)
        except LeDetrError as error:
            self._change(opening="", problem=problem_of(error))
            self._play_on()
            return
        self._is_video = isinstance(spec, VideoSpec)
        text = _memorable(spec, source)
        if text is not None:
            self._change(recents=(text, *(r for r in self.state.recents if r != text))[:MAX_RECENTS])
            self._save_settings_later()
        self._sync()

    def _stop(self) -> None:
        self._stop_recording()
        self.pipeline.stop()
        self._change(source=None, opening="", loss=None, ended=False)
        self._sync()

    def _begin_seek(self, pts_s: float) -> None:
        self._control.submit(self._then_sync(lambda: self.pipeline.seek(pts_s)), newest_of="seek")

    def _hand_on_loop(self) -> None:
        state = self.state
        if state.loop:
            self.pipeline.set_loop(state.in_s, state.out_s)
        else:
            self.pipeline.clear_loop()

    def _start_recording(self) -> None:
        path = output_path(self._folders["videos"], "videos", self._source_name(), ".mp4")
        self.pipeline.start_recording(path, with_boxes=True, marks=self.marks_to_keep)
        self._change(recording=path)

    def _stop_recording(self) -> None:
        if self.state.recording is None:
            return
        self._change(recording=None)
        if self.pipeline.recording is not None:
            self.pipeline.stop_recording(wait=False)

    def _save_snapshot(
        self, name: str, result: Result, seen: Detections, marks: Sequence[Mark], in_force: Mapping[str, Any]
    ) -> None:
        path = output_path(self._folders["pictures"], "pictures", name, ".png")
        save_snapshot(path, result, seen, marks, in_force)
        self._toast(f"Snapshot saved: {path.name}", path)

    def _look_for_weights(self) -> None:
        self._change(has_weights={scale: self._is_there(scale) for scale in ledetr.SCALES})

    def _look_for_cameras(self) -> None:
        self._change(cameras=tuple((f"camera:{camera.id}", camera.name) for camera in list_cameras()))

    def _save_settings_later(self) -> None:
        if self._settings_file is None:
            return
        path, settings = self._settings_file, self._current_settings()
        self._files.submit(lambda: save_settings(path, settings), newest_of="settings")

    def _current_settings(self) -> Settings:
        state = self.state
        names = None if state.shown_classes is None else tuple(sorted(state.shown_classes))
        with self._lock:
            self.settings = replace(
                self.settings,
                **self._model_to_remember(),
                conf=state.own_conf,
                class_names=names,
                class_conf=dict(state.class_conf),
                line_weight=state.line_weight,
                boxes=state.boxes,
                labels=state.labels,
                scores=state.scores,
                side_panel=state.side_panel,
                theme=state.theme,
                recents=state.recents,
            )
            return self.settings

    def _model_to_remember(self) -> dict[str, Any]:
        """What runs, not what was only wished."""
        running, settings = self.state.running, self.settings
        if running is not None:
            return _choices(running.wish)
        return _choices(ModelWish(settings.model, settings.device, settings.precision, settings.decoder_layers))

    # Thread "model loader"

    def _load_detector(self, wish: ModelWish) -> FrameDetector:
        choice = wish.choice
        there = choice not in ledetr.SCALES or self._is_there(choice)
        if not there and not self.allows_random_weights:
            raise NoWeightsHere(self._missing_sentence(choice))
        detector = ledetr.Detector.load(
            choice,
            device=wish.device,
            precision=wish.precision,
            decoder_layers=wish.decoder_layers,
            random_weights=not there,
        )
        detector.warm_up()
        return detector

    def _is_there(self, scale: str) -> bool:
        try:
            return self._find(scale).is_file()
        except LeDetrError:
            return False

    def _missing_sentence(self, scale: str) -> str:
        ready = [s.upper() for s in ledetr.SCALES if self._is_there(s)]
        instead = f", or choose {' or '.join(ready)}" if ready else ""
        return (
            f"Model {scale.upper()} has no weights on this computer yet: "
            f"put ledetr_{scale}.safetensors into {search_folders()[-1]}{instead}"
        )

    def _on_loaded(self, wish: ModelWish, detector: FrameDetector) -> None:
        self.pipeline.set_detector(detector, release=self._release)
        self._detector = detector
        self._change(running=RunningModel.of(wish, detector), loading=None, **_choices(wish))
        self._save_settings_later()

    def _release(self, detector: FrameDetector) -> None:
        """Nothing uses the old model any more; it is closed away from the thread that infers."""
        self._files.submit(detector.close)

    def _on_load_failed(self, wish: ModelWish, error: BaseException) -> None:
        running = self.state.running
        self._change(loading=None, problem=problem_of(error), **_choices(running.wish if running else wish))

    # Threads of the pipeline

    def _on_result(self) -> None:
        latest = self.pipeline.latest()
        if latest is not None:
            self._seeks.arrived(latest.frame.meta.epoch)
        self._sync()
        self.on_result()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Opened | Eof | Failed | Stopped):
            self._seeks.over(forget=not isinstance(event, Eof))
        match event:
            case Opened(info):
                self._on_opened(info)
            case Eof():
                self._change(ended=True)
                if self._is_video:
                    self._play_on()
            case Stalled():
                self._change(loss=Loss(self.clock.now_ns()))
            case Reconnecting(attempt, next_in_s):
                since_ns = self.state.loss.since_ns if self.state.loss is not None else self.clock.now_ns()
                self._change(loss=Loss(since_ns, attempt, next_in_s))
            case Restored():
                self._change(loss=None)
            case Failed(error):
                self._change(source=None, opening="", loss=None, problem=problem_of(error))
                self._play_on()
            case RecordingEnded(path, error):
                self._on_recording_ended(path, error)
            case Stopped(orphans):
                if orphans:
                    log.warning("did not end in time and were left to themselves: %s", ", ".join(orphans))
                self._change(source=None, loss=None, ended=False)
        self._sync()
        self.on_result()

    def _play_on(self) -> None:
        """The next of the queue, where one of it has come to its end, good or bad, while it was played."""
        queue = self.state.queue
        following = queue.neighbour(1)
        if queue.at is None or following is None or not self._plays or self.state.opening:
            return
        problem = self.state.problem
        self.play_queued(following)
        self._change(problem=problem)  # of the file before; it stays until the user has read it

    def _on_opened(self, info: SourceInfo) -> None:
        self._change(source=info, opening="", loss=None, ended=False, in_s=None, out_s=None, loop=False, view=View())

    def _on_recording_ended(self, path: Path | None, error: LeDetrError | None) -> None:
        self._change(recording=None)
        if error is not None:
            self.report(error)
        elif path is not None:
            self._toast(f"Recording saved: {path.name}", path)

    # State

    def _then_sync(self, command: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            command()
            self._sync()

        return run

    def _sync(self) -> None:
        """Follow the pipeline's own state."""
        phase, ended = self.pipeline.state, self.pipeline.ended
        if (phase, ended) != (self.state.phase, self.state.ended):
            self._change(phase=phase, ended=ended)

    def _toast(self, text: str, path: Path | None) -> None:
        self._serial += 1
        self._change(toast=Toast(text, path, self._serial))

    def _change(self, **changes: Any) -> None:
        with self._lock:
            new = replace(self.state, **changes)
            if new == self.state:
                return
            self.state = new
        self.on_change()

    def _source_name(self) -> str:
        source = self.state.source
        return "picture" if source is None else source.display_name


def _choices(wish: ModelWish) -> dict[str, Any]:
    """A wish as fields of the state."""
    return {
        "model": wish.choice,
        "device": wish.device,
        "precision": wish.precision,
        "decoder_layers": wish.decoder_layers,
    }


def problem_of(error: BaseException) -> Problem:
    """One sentence and its details. Our own errors are sentences already; any other is a fault of ours and says so."""
    if isinstance(error, NoWeightsHere):
        return Problem(f"{error}.", gentle=True)
    details = "".join(traceback.format_exception(error))
    if isinstance(error, LeDetrError):
        sentence = str(error).rstrip(".")
        return Problem(sentence[:1].upper() + sentence[1:] + ".", details)
    return Problem(f"Something went wrong inside Le-DETR ({type(error).__name__}): {error}", details)


def _memorable(spec: SourceSpec, source: str | Path) -> str | None:
    """What opens the source again; None for an address with secrets in it, which is never written down."""
    if isinstance(spec, UrlSpec):
        return spec.url if spec.display_name == spec.url else None
    if isinstance(spec, VideoSpec | ImageSpec | ListSpec) or (isinstance(spec, FolderSpec) and spec.pattern is None):
        return str(spec.path.absolute())
    return str(source)


def _initial_state(loaded: LoadedSettings) -> SessionState:
    settings, problem = loaded.settings, None
    if loaded.problem:
        where = f" It was set aside as {loaded.set_aside.name}." if loaded.set_aside is not None else ""
        problem = Problem(f"The settings file could not be used as it was: {loaded.problem}.{where}")
    return SessionState(
        model=settings.model,
        device=settings.device,
        precision=settings.precision,
        decoder_layers=settings.decoder_layers,
        own_conf=settings.conf,
        shown_classes=None if settings.class_names is None else frozenset(settings.class_names),
        class_conf=settings.class_conf,
        line_weight=settings.line_weight,
        boxes=settings.boxes,
        labels=settings.labels,
        scores=settings.scores,
        side_panel=settings.side_panel,
        theme=settings.theme,
        recents=settings.recents,
        problem=problem,
    )


def _nothing() -> None:
    """Nobody listens yet, or no more."""
