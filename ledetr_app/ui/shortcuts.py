"""Every command of the window as one QAction: its words, its keys, its icon, what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from PySide6.QtCore import QCoreApplication, QEvent, QObject, Qt
from PySide6.QtGui import QAction, QActionGroup, QKeyEvent, QKeySequence
from PySide6.QtWidgets import QAbstractButton, QAbstractItemView, QAbstractSlider, QApplication, QWidget

from ledetr import SCALES
from ledetr_app.display import LINE_WEIGHTS
from ledetr_app.session import Session
from ledetr_app.settings import THEMES
from ledetr_app.tracks import BUFFERS_S
from ledetr_app.ui.theme import Theme


@dataclass(frozen=True, slots=True)
class Command:
    """text: shown in menus, already in the user's language. keys: the first is shown, all work."""

    name: str
    text: str
    keys: tuple[str, ...]
    icon: str
    run: Callable[[], object]
    checkable: bool = False


class Actions:
    """All commands by name. They keep to mpv's and VLC's keys where those agree."""

    def __init__(self, session: Session, theme: Theme, window: QWidget) -> None:
        self._session = session
        self._actions: dict[str, QAction] = {}
        for command in [
            *_source_commands(session),
            *_player_commands(session),
            *_model_commands(session),
            *_track_commands(session),
        ]:
            self.add(command, theme, window)
        for names in (
            [f"theme_{c}" for c in THEMES],
            [f"line_{w:g}" for w in LINE_WEIGHTS],
            [f"buffer_{s:g}" for s in BUFFERS_S],
        ):
            group = QActionGroup(window)  # a click on the one that is chosen does not uncheck it
            for name in names:
                group.addAction(self[name])
        self.refresh()

    def add(self, command: Command, theme: Theme, window: QWidget) -> QAction:
        """One more command, e.g. one that only the window can carry out."""
        action = QAction(command.text, window)
        action.setShortcuts([QKeySequence(key) for key in command.keys])
        action.setShortcutContext(Qt.ShortcutContext.WindowShortcut)
        action.setCheckable(command.checkable)
        if command.icon:
            theme.bind_icon(action, command.icon)
            action.setProperty("icon_name", command.icon)
        action.triggered.connect(lambda _checked=False, run=command.run: run())
        window.addAction(action)
        self._actions[command.name] = action
        return action

    def __getitem__(self, name: str) -> QAction:
        return self._actions[name]

    def __iter__(self) -> Iterator[QAction]:
        return iter(self._actions.values())

    def refresh(self) -> None:
        """Check marks and greying follow the session."""
        state = self._session.state
        self["boxes"].setChecked(state.boxes)
        self["labels"].setChecked(state.labels)
        self["scores"].setChecked(state.scores)
        self["stats"].setChecked(state.stats)
        for weight in LINE_WEIGHTS:
            self[f"line_{weight:g}"].setChecked(state.line_weight == weight)
        self["side_panel"].setChecked(state.side_panel)
        self["loop"].setChecked(state.loop)
        self["record"].setChecked(state.recording is not None)
        self[f"theme_{state.theme}"].setChecked(True)
        for scale in SCALES:
            self[f"model_{scale}"].setChecked(state.model == scale)
        seekable = state.source is not None and state.source.seekable
        for name in (
            "back_5",
            "on_5",
            "back_1",
            "on_1",
            "back_60",
            "on_60",
            "to_start",
            "to_end",
            "slower",
            "faster",
            "real_time",
            "point_in",
            "point_out",
            "loop",
        ):
            self[name].setEnabled(seekable)
        self._refresh_tracks()
        self["queue_panel"].setChecked(state.queue_panel)
        self["queue_panel"].setEnabled(bool(state.queue.paths))
        self["next_file"].setEnabled(state.queue.neighbour(1) is not None)
        self["previous_file"].setEnabled(state.queue.neighbour(-1) is not None)
        self["clear_points"].setEnabled(state.in_s is not None or state.out_s is not None)
        for name in ("play", "stop", "step_back", "step_on"):
            self[name].setEnabled(state.has_source)

    def _refresh_tracks(self) -> None:
        state = self._session.state
        for name in ("tracking", "ids", "trails", "by_track", "results_panel", "zones_panel"):
            self[name].setChecked(getattr(state, name))
        for name in ("ids", "trails", "by_track", "reset_ids"):
            self[name].setEnabled(state.tracking)
        for seconds in BUFFERS_S:
            self[f"buffer_{seconds:g}"].setChecked(state.track_buffer_s == seconds)
        for name, tool in (("draw_zone", "zone"), ("draw_line", "line"), ("edit_zones", "edit")):
            self[name].setChecked(state.drawing.tool == tool)
            self[name].setEnabled(state.source is not None)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Actions", text)


def _source_commands(session: Session) -> list[Command]:
    return [
        Command(
            "open_pattern",
            _tr("Test pattern"),
            (),
            "pattern",
            lambda: session.open_source("test:720p30"),
        ),
        Command("stop", _tr("Stop"), ("Ctrl+W",), "stop", session.stop),
        Command("snapshot", _tr("Snapshot"), ("S",), "snapshot", session.snapshot),
        Command(
            "snapshot_clean",
            _tr("Snapshot without boxes"),
            ("Shift+S",),
            "",
            lambda: session.snapshot(boxes=False),
        ),
        Command("record", _tr("Record"), ("R",), "record", session.toggle_recording, checkable=True),
    ]


def _player_commands(session: Session) -> list[Command]:
    def by(seconds: float) -> Callable[[], None]:
        return lambda: session.seek_by(seconds)

    def to_end() -> None:
        source = session.state.source
        if source is not None and source.duration_s is not None:
            session.seek(source.start_s + source.duration_s)

    def to_start() -> None:
        source = session.state.source
        session.seek(source.start_s if source is not None else 0.0)

    return [
        Command("play", _tr("Play / pause"), ("Space",), "play", session.toggle_play),
        Command("step_back", _tr("One frame back"), (",",), "step_back", lambda: session.step(-1)),
        Command("step_on", _tr("One frame on"), (".",), "step_forward", lambda: session.step(1)),
        Command("back_5", _tr("5 seconds back"), ("Left",), "", by(-5)),
        Command("on_5", _tr("5 seconds on"), ("Right",), "", by(5)),
        Command("back_1", _tr("1 second back"), ("Shift+Left",), "", by(-1)),
        Command("on_1", _tr("1 second on"), ("Shift+Right",), "", by(1)),
        Command("back_60", _tr("1 minute back"), ("Ctrl+Left",), "", by(-60)),
        Command("on_60", _tr("1 minute on"), ("Ctrl+Right",), "", by(60)),
        Command("slower", _tr("Slower"), ("[",), "", lambda: session.change_speed(-1)),
        Command("faster", _tr("Faster"), ("]",), "", lambda: session.change_speed(1)),
        Command("real_time", _tr("Real time"), ("Backspace",), "", lambda: session.set_speed(1.0)),
        Command("to_start", _tr("To the start"), ("Home",), "", to_start),
        Command("to_end", _tr("To the end"), ("End",), "", to_end),
        Command("next_file", _tr("Next of the queue"), ("N", ">"), "", lambda: session.play_neighbour(1)),
        Command("previous_file", _tr("Previous of the queue"), ("P", "<"), "", lambda: session.play_neighbour(-1)),
        Command("point_in", _tr("In point here"), ("Shift+I",), "", lambda: session.set_point_here("in")),
        Command("point_out", _tr("Out point here"), ("Shift+O",), "", lambda: session.set_point_here("out")),
        Command("clear_points", _tr("Clear in and out points"), ("Shift+X",), "", session.clear_points),
        Command("loop", _tr("Loop"), ("Shift+L",), "loop", lambda: session.set_loop(not session.state.loop), True),
    ]


def _model_commands(session: Session) -> list[Command]:
    def score(step: float) -> Callable[[], None]:
        return lambda: session.set_conf(session.state.conf + step)

    models = [
        Command(
            f"model_{scale}",
            _tr("Model {scale}").format(scale=scale.upper()),
            (str(number),),
            "",
            partial(session.set_model, scale),
            checkable=True,
        )
        for number, scale in enumerate(SCALES, 1)
    ]
    names = {"system": _tr("Like the system"), "light": _tr("Light"), "dark": _tr("Dark")}
    themes = [Command(f"theme_{c}", names[c], (), "", partial(session.set_theme, c), checkable=True) for c in THEMES]
    lines = [
        Command(
            f"line_{weight:g}",
            _tr("Lines {weight:g}×").format(weight=weight),
            (),
            "",
            partial(session.set_line_weight, weight),
            checkable=True,
        )
        for weight in LINE_WEIGHTS
    ]
    return [
        *models,
        *themes,
        Command("score_up", _tr("Higher score threshold"), ("Up",), "", score(0.05)),
        Command("score_down", _tr("Lower score threshold"), ("Down",), "", score(-0.05)),
        Command("boxes", _tr("Boxes"), ("B",), "boxes", lambda: session.show(boxes=not session.state.boxes), True),
        Command("labels", _tr("Labels"), ("L",), "labels", lambda: session.show(labels=not session.state.labels), True),
        Command("scores", _tr("Scores"), (), "", lambda: session.show(scores=not session.state.scores), True),
        Command("stats", _tr("Numbers"), ("I",), "", lambda: session.set_stats(not session.state.stats), True),
        *lines,
        Command(
            "queue_panel",
            _tr("Queue"),
            ("Q",),
            "",
            lambda: session.set_queue_panel(not session.state.queue_panel),
            True,
        ),
        Command(
            "side_panel",
            _tr("Class list"),
            ("C",),
            "panel",
            lambda: session.set_side_panel(not session.state.side_panel),
            True,
        ),
    ]


def _track_commands(session: Session) -> list[Command]:
    def turn(part: str) -> Callable[[], None]:
        return lambda: session.show(**{part: not getattr(session.state, part)})

    zones, results = session.zones, session.results
    buffers = [
        Command(
            f"buffer_{seconds:g}",
            _tr("Hidden for up to {seconds:g} s").format(seconds=seconds),
            (),
            "",
            partial(session.tracks.set_buffer, seconds),
            checkable=True,
        )
        for seconds in BUFFERS_S
    ]
    return [
        Command(
            "tracking",
            _tr("Tracking"),
            ("T",),
            "track",
            lambda: session.tracks.set_tracking(not session.state.tracking),
            True,
        ),
        Command("ids", _tr("Ids"), ("D",), "", turn("ids"), True),
        Command("trails", _tr("Trails"), ("Shift+T",), "", turn("trails"), True),
        Command("by_track", _tr("Colour by track"), ("K",), "", turn("by_track"), True),
        Command("reset_ids", _tr("Ids from 1, counts from 0"), ("Shift+R",), "", session.tracks.reset),
        *buffers,
        Command("draw_zone", _tr("Draw a zone"), ("Z",), "zone", lambda: zones.take("zone"), True),
        Command("draw_line", _tr("Draw a line"), ("X",), "line", lambda: zones.take("line"), True),
        Command("edit_zones", _tr("Move points"), ("E",), "move", lambda: zones.take("edit"), True),
        Command(
            "zones_panel",
            _tr("Zones and lines"),
            ("Shift+Z",),
            "",
            lambda: zones.set_panel(not session.state.zones_panel),
            True,
        ),
        Command(
            "results_panel",
            _tr("Results"),
            ("Ctrl+R",),
            "table",
            lambda: results.set_panel(not session.state.results_panel),
            True,
        ),
    ]


class FocusKeys(QObject):
    """Lets a control that was reached with Tab keep the keys it needs, before they act as shortcuts.

    Buttons take focus from Tab only, so after a click the space bar still plays and pauses.
    """

    _NEEDS = (
        (QAbstractButton, {Qt.Key.Key_Space, Qt.Key.Key_Select}),
        (QAbstractSlider, {Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Up, Qt.Key.Key_Down}),
        (
            QAbstractItemView,
            {Qt.Key.Key_Space, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Home, Qt.Key.Key_End},
        ),
    )

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Claim the key for the focused control."""
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            focused = QApplication.focusWidget()
            for kind, keys in self._NEEDS:
                if isinstance(focused, kind) and event.key() in keys and not event.modifiers():
                    event.accept()
                    return True
        return False
