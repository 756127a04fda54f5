"""What is open, chosen and running, and the commands that change it. Plain objects, no Qt.

Commands return at once and may be called from the GUI thread: what takes time is done by the threads below, and the
outcome is a new `state`. Threads: "session" (opens, stops, records), "files" (snapshots, lists, settings), "tables"
(rows of results), "model loader" (short-lived), and those of the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ledetr.backends import device_names
from ledetr.chain.camera import list_cameras
from ledetr.chain.clock import Clock, MonotonicClock
from ledetr.chain.meters import MeterSnapshot
from ledetr.chain.pipeline import Event, Opened, Pipeline, RecordingEnded, Result
from ledetr.detections import Detections
from ledetr.weights_file import find_weights
from ledetr_app.compare import Compare
from ledetr_app.display import Display
from ledetr_app.exporting import Exporting
from ledetr_app.heat import Heat
from ledetr_app.keeping import Keeping
from ledetr_app.model_choice import ModelChoice
from ledetr_app.model_loader import LoadDetector
from ledetr_app.player import Player
from ledetr_app.playing_queue import PlayingQueue
from ledetr_app.remembered import Remembered
from ledetr_app.results import Results
from ledetr_app.settings import Settings
from ledetr_app.state import SessionState
from ledetr_app.store import Store, nothing
from ledetr_app.tracks import Tracks
from ledetr_app.worker import Worker
from ledetr_app.zone_book import ZoneBook, plans_to_json

STOP_LIMIT_S = 5.0


class Session:
    """The whole application without its window: the parts, and the threads and the state that they share.

    settings_file: None = nothing is remembered (as with --safe). load_detector: how a choice of model becomes a
    detector. list_devices: what it can run on. pictures, videos: folders that snapshots and recordings go to.
    exports: folder that keeps the queue of exports for the next start; None = nothing does.
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
        exports: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or MonotonicClock()
        self.on_result: Callable[[], None] = nothing
        self.allows_random_weights = random_weights
        self.remembered = Remembered(settings_file)
        self.store = store = Store(self.remembered.first_state())
        self.pipeline = Pipeline(None, clock=self.clock, on_result=self._on_result, on_event=self._on_event)
        self._control = control = Worker("session", store.report)
        self._files = files = Worker("files", store.report)
        self._tables = tables = Worker("tables", store.report)
        self._closed = False

        self.player = Player(store, self.pipeline, control, self.clock)
        self.queue = PlayingQueue(store, self.player)
        self.tracks = Tracks(store, self.pipeline, control)
        self.display = Display(store, self.tracks)
        self.results = Results(store, self.player, work=tables, files=files, folder=videos)
        self.zones = ZoneBook(store, files, self.remembered.zones())
        self.keeping = Keeping(
            store, self.pipeline, self.display, control=control, files=files, pictures=pictures, videos=videos
        )
        self.models = ModelChoice(
            store,
            self.pipeline,
            files,
            load_detector=load_detector,
            find=find,
            list_devices=list_devices,
            random_weights=random_weights,
        )
        self.compare = Compare(
            store, self.models.load, newest=self.player.latest, source=lambda: self.player.source_key
        )
        self.compare.on_ready = self._on_compared
        self.heat = Heat(
            store, detector=lambda: self.models.detector, source=lambda: self.player.source_key, clock=self.clock
        )
        self.exporting = Exporting(
            store,
            self.models.load,
            source=lambda: self.player.source_key,
            zones=self.zones.plan_for,
            folder=videos,
            kept_in=exports,
        )
        self.player.before_change = self.keeping.stop_recording
        self.player.on_opened = self.models.on_loaded = self._save_settings_soon
        self.tracks.on_reset = self.results.gathered.forget_ids
        self.zones.on_kept = self._keep_zones
        self.zones.switch_tracking = self.tracks.set_tracking
        self._name_commands()

    def _name_commands(self) -> None:
        """What the window says to the session is said to one of its parts."""
        queue, player, models, display, keeping = self.queue, self.player, self.models, self.display, self.keeping
        self.open_source, self.open_files = queue.open_source, queue.open_files
        self.play_queued, self.play_neighbour = queue.play_queued, queue.play_neighbour
        self.remove_queued, self.clear_queue = queue.remove_queued, queue.clear_queue
        self.set_queue_panel = queue.set_panel
        self.play, self.pause, self.toggle_play, self.stop = player.play, player.pause, player.toggle_play, player.stop
        self.seek, self.seek_by, self.step = player.seek, player.seek_by, player.step
        self.set_in, self.set_out, self.set_point_here = player.set_in, player.set_out, player.set_point_here
        self.set_loop, self.clear_points = player.set_loop, player.clear_points
        self.set_speed, self.change_speed = player.set_speed, player.change_speed
        self.latest = self.compare.latest
        self.set_model, self.set_device, self.set_precision = models.set_model, models.set_device, models.set_precision
        self.set_decoder_layers, self.look_for_devices = models.set_decoder_layers, models.look_for_devices
        self.set_conf, self.set_classes, self.show = display.set_conf, display.set_classes, display.show
        self.set_class_conf, self.clear_class_confs = display.set_class_conf, display.clear_class_confs
        self.set_line_weight, self.set_view = display.set_line_weight, display.set_view
        self.set_shown, self.select_at = display.set_shown, display.select_at
        self.clear_selection = display.clear_selection
        self.seen, self.marks, self.marks_to_keep = display.seen, display.marks, display.marks_to_keep
        self.snapshot, self.toggle_recording = keeping.snapshot, keeping.toggle_recording
        self.recording_status = keeping.recording_status
        self.report, self.remember = self.store.report, self.remembered.remember

    def start(self, *, model: str | None = None, source: str | Path | None = None) -> None:
        """Load the model (default: the remembered one) and open the source, if any. Returns at once."""
        self.set_model(model or self.state.model)
        if source is not None:
            self.open_source(source)

    def look_for_cameras(self) -> None:
        """List the cameras again."""
        self._files.submit(self._look_for_cameras, newest_of="cameras")

    # Parts of the window

    def set_theme(self, theme: str) -> None:
        """ "system", "light" or "dark"."""
        self.store.change(theme=theme)

    def set_side_panel(self, shown: bool) -> None:
        """Unfold or fold the class list."""
        self.store.change(side_panel=shown)

    def set_stats(self, shown: bool) -> None:
        """The numbers of the meters over the picture, or not."""
        self.store.change(stats=shown)

    def dismiss_problem(self) -> None:
        """The user has read it."""
        self.store.change(problem=None)

    # What the window reads

    @property
    def state(self) -> SessionState:
        """The newest state."""
        return self.store.state

    @property
    def settings(self) -> Settings:
        """What was remembered so far."""
        return self.remembered.settings

    @property
    def on_change(self) -> Callable[[], None]:
        """Who is told of a newer state."""
        return self.store.on_change

    @on_change.setter
    def on_change(self, listener: Callable[[], None]) -> None:
        self.store.on_change = listener

    @property
    def shown(self) -> Result | None:
        """The result that the window has turned to."""
        return self.store.shown

    @property
    def selected(self) -> Detections | None:
        """See Display.selected."""
        return self.display.selected

    @property
    def has_random_weights(self) -> bool:
        """Whether the running model has learnt nothing."""
        return self.models.has_random_weights

    def painted(self, result: Result) -> None:
        """The result is on the screen now, for the meters."""
        self.pipeline.painted(result)

    def meters(self) -> MeterSnapshot:
        """Rates, age and drops as they are now."""
        return self.pipeline.meters.snapshot()

    # The end

    def close(self) -> list[str]:
        """End everything, in any state. Returns the names of threads that did not end in time and were left behind."""
        if self._closed:
            return []
        self._closed = True
        self.on_result = self.on_change = nothing
        self.queue.close()
        left = [] if self.models.close_loader(STOP_LIMIT_S) else ["model loader"]
        left += [] if self.exporting.close(STOP_LIMIT_S) else ["exports"]
        left += [] if self.compare.close(STOP_LIMIT_S) else ["compare"]
        left += [] if self.heat.close(STOP_LIMIT_S) else ["heat"]
        self._control.submit(self.keeping.stop_recording)
        left += [] if self._control.close(STOP_LIMIT_S) else ["session"]
        self.pipeline.close()
        self.models.close_detector()
        self._save_settings_soon()
        left += [] if self._tables.close(STOP_LIMIT_S) else ["tables"]
        left += [] if self._files.close(STOP_LIMIT_S) else ["files"]
        return left

    # In other threads

    def _look_for_cameras(self) -> None:
        self.store.change(cameras=tuple((f"camera:{camera.id}", camera.name) for camera in list_cameras()))

    def _save_settings_soon(self) -> None:
        self.remembered.save_soon(self.store, self._files)

    def _keep_zones(self) -> None:
        self.remembered.remember(zones=plans_to_json(self.zones.kept))
        self._save_settings_soon()

    def _on_result(self) -> None:
        latest = self.pipeline.latest()
        if latest is not None:
            self.tracks.follow(latest)
            self.results.follow(latest)
        self.player.follow_result()
        self.compare.poke()
        latest = self.player.latest()
        if latest is not None:
            self.heat.add(latest)
        self.on_result()

    def _on_compared(self) -> None:
        self.on_result()
        self.store.on_change()  # the frame on the screen may be the same, with a second opinion now

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RecordingEnded):
            self.keeping.follow_end(event)
        if isinstance(event, Opened):
            self.tracks.begin()
            self.results.begin(live=event.info.live)
            self.zones.follow_source(self.player.source_key)
        self.player.follow_event(event)
        self.on_result()
