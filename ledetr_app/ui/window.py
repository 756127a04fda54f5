"""Makes the panels and wires them, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QMimeData, QRect, Qt, QTimer
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QGuiApplication,
    QMouseEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QMainWindow, QMenu, QVBoxLayout, QWidget

import ledetr
from ledetr_app.display import LINE_WEIGHTS
from ledetr_app.handed import Handed
from ledetr_app.resources import sample_clip
from ledetr_app.session import Session
from ledetr_app.tracks import BUFFERS_S
from ledetr_app.ui.address import AddressBar
from ledetr_app.ui.bridge import Bridge
from ledetr_app.ui.compare_menu import CompareMenu
from ledetr_app.ui.empty import EmptyState
from ledetr_app.ui.errors import ErrorBar
from ledetr_app.ui.panels.classes import ClassPanel
from ledetr_app.ui.panels.display import DisplayPanel
from ledetr_app.ui.panels.engine import EngineMenus
from ledetr_app.ui.panels.exports import ExportsPanel
from ledetr_app.ui.panels.model import ModelPanel
from ledetr_app.ui.panels.queue import QueuePanel
from ledetr_app.ui.panels.recording import RecordingPanel
from ledetr_app.ui.panels.results import ResultsPanel
from ledetr_app.ui.panels.source import SourcePanel
from ledetr_app.ui.panels.stats import StatsPanel
from ledetr_app.ui.panels.timeline import TimelinePanel
from ledetr_app.ui.panels.zones import ZonesPanel
from ledetr_app.ui.sheet import Sheet
from ledetr_app.ui.shortcuts import Actions, Command, FocusKeys
from ledetr_app.ui.stats_overlay import StatsOverlay
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.toast import ToastBox
from ledetr_app.ui.video_view import VideoView
from ledetr_app.viewport import ZOOM_STEP, View

MINIMUM_SIZE = (960, 600)
FIRST_SIZE = (1280, 800)
POINTER_HIDES_MS = 2000


class Window(QMainWindow):
    """The main window over one session. Closing it ends the session's threads through `closed`."""

    def __init__(self, session: Session, theme: Theme) -> None:
        super().__init__()
        self.session = session
        self.theme = theme
        self.setMinimumSize(*MINIMUM_SIZE)
        self.setAcceptDrops(True)
        self.bridge = Bridge(session, self)
        self.actions_by_name = Actions(session, theme, self)
        self._add_own_commands()
        self._make_parts()
        self._lay_out()
        self._make_menus()
        self._pointer = QTimer(self)
        self._pointer.setSingleShot(True)
        self._pointer.setInterval(POINTER_HIDES_MS)
        self._pointer.timeout.connect(lambda: self.view.setCursor(Qt.CursorShape.BlankCursor))
        self._focus_keys = FocusKeys(self)
        self._app = theme.app
        self._app.installEventFilter(self._focus_keys)
        self.bridge.woken.connect(self._on_woken)
        self.view.double_clicked.connect(self.toggle_fullscreen)
        self._state: object = None
        self._restore_geometry()
        self.refresh()
        self.view.setFocus()

    def refresh(self) -> None:
        """Every part follows the session."""
        state = self._state = self.session.state
        if state.theme != self.theme.choice:
            self.theme.set_choice(state.theme)
        source = state.source.display_name if state.source is not None else state.opening
        self.setWindowTitle(f"{source} – Le-DETR" if source else "Le-DETR")
        self.actions_by_name.refresh()
        for part in self._parts:
            part.refresh()
        self.view.taken_left = self.stats_overlay.geometry().right() if self.stats_overlay.isVisible() else 0

    def closeEvent(self, event: QCloseEvent) -> None:
        """Gone from the screen at once; what still has to end is ended by the caller of the event loop."""
        if not self.isFullScreen():
            rect = self.normalGeometry()
            geometry = (rect.x(), rect.y(), rect.width(), rect.height())
            self.session.remember(geometry=geometry, maximized=self.isMaximized())
        self._app.removeEventFilter(self._focus_keys)
        self.bridge.close()
        event.accept()

    # Fullscreen: the picture alone

    def toggle_fullscreen(self) -> None:
        """In or out."""
        if self.isFullScreen():
            self.leave_fullscreen()
            return
        self._was_maximized = self.isMaximized()
        for part in self._chrome:
            part.hide()
        self.menuBar().hide()
        self.showFullScreen()
        self._pointer.start()

    def leave_fullscreen(self) -> None:
        """Esc: out of fullscreen; also folds what lies over the picture, and no box is selected any more.

        While a zone is drawn it only puts the tool away.
        """
        if self.session.state.drawing.tool:
            self.session.zones.cancel()
            return
        self.address.fold()
        self.keys_sheet.hide()
        self.about_sheet.hide()
        self.session.clear_selection()
        self.session.zones.select(None)
        if not self.isFullScreen():
            return
        self.menuBar().show()
        for part in self._chrome:
            part.show()
        if self._was_maximized:
            self.showMaximized()
        else:
            self.showNormal()
        self._pointer.stop()
        self.view.unsetCursor()
        self.refresh()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """The pointer comes back when it moves."""
        if self.isFullScreen():
            self.view.unsetCursor()
            self._pointer.start()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """What floats over the picture keeps its place."""
        super().resizeEvent(event)
        QTimer.singleShot(0, self, self._place_floating)

    # Drag and drop

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Say yes to files, folders and addresses."""
        if _dropped(event.mimeData()):
            event.acceptProposedAction()
            self.view.set_drop_welcome(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        """Never mind."""
        self.view.set_drop_welcome(False)

    def dropEvent(self, event: QDropEvent) -> None:
        """Weights become the model, a COCO file is compared with, anything else the source; several files the queue."""
        self.view.set_drop_welcome(False)
        texts = _dropped(event.mimeData())
        if not texts:
            return
        event.acceptProposedAction()
        handed = Handed.of(texts)
        if handed.weights is not None:
            self.session.set_model(handed.weights)
        if handed.annotations is not None:
            self.session.compare.with_annotations(handed.annotations)
        self.session.open_files(handed.sources)

    # Building

    def _add_own_commands(self) -> None:
        session = self.session
        for command in [
            Command("open_file", self.tr("Open file…"), ("Ctrl+O",), "film", self._ask_for_file),
            Command("open_folder", self.tr("Open folder…"), ("Ctrl+Shift+O",), "folder", self._ask_for_folder),
            Command("open_address", self.tr("Open address…"), ("Ctrl+L",), "link", lambda: self.address.unfold()),
            Command("open_camera", self.tr("Camera"), (), "camera", lambda: session.open_source("camera:0")),
            Command("open_sample", self.tr("Sample clip"), (), "play", self._open_sample),
            Command("fullscreen", self.tr("Fullscreen"), ("F", "F11"), "fullscreen", self.toggle_fullscreen),
            Command("zoom_in", self.tr("Larger"), ("+", "=", "Ctrl++"), "", lambda: self.view.zoom_by(ZOOM_STEP)),
            Command("zoom_out", self.tr("Smaller"), ("-", "Ctrl+-"), "", lambda: self.view.zoom_by(1 / ZOOM_STEP)),
            Command("zoom_fit", self.tr("Fit the window"), ("0", "Ctrl+0"), "", lambda: session.set_view(View())),
            Command("zoom_full", self.tr("100 %"), ("Ctrl+1",), "", lambda: self.view.zoom_to(1.0)),
            Command("leave_fullscreen", self.tr("Leave fullscreen"), ("Esc",), "", self.leave_fullscreen),
            Command("keys", self.tr("Keyboard shortcuts"), ("?", "F1"), "", lambda: self.keys_sheet.toggle()),
            Command("about", self.tr("About Le-DETR"), (), "", lambda: self.about_sheet.toggle()),
            Command("copy", self.tr("Copy picture"), ("Ctrl+C",), "", lambda: self._copy_picture(boxes=False)),
            Command(
                "copy_boxes",
                self.tr("Copy picture with boxes"),
                ("Ctrl+Shift+C",),
                "",
                lambda: self._copy_picture(boxes=True),
            ),
            Command("scan_file", self.tr("Scan the file for its heat bar"), ("H",), "", session.heat.toggle_scan, True),
            Command("compare", self.tr("Compare or not"), ("V",), "", lambda: self.compare.toggle()),
            Command("exports", self.tr("Exports"), ("Ctrl+E",), "", self._toggle_exports),
            Command("quit", self.tr("Quit"), ("Ctrl+Q",), "", self.close),
        ]:
            self.actions_by_name.add(command, self.theme, self)
        self.actions_by_name["open_sample"].setEnabled(sample_clip() is not None)

    def _make_parts(self) -> None:
        session, theme, actions = self.session, self.theme, self.actions_by_name
        self.source = SourcePanel(session, theme, actions)
        self.recording = RecordingPanel(session, theme, actions)
        self.model = ModelPanel(session)
        self.engine = EngineMenus(session, self)
        self.display = DisplayPanel(session, actions)
        self.compare = CompareMenu(session, self)
        self.address = AddressBar(session)
        self.errors = ErrorBar(session, theme)
        self.view = VideoView(session, self.bridge.prep, theme)
        starts = ["open_sample"] if sample_clip() is not None else []
        starts += ["open_file", "open_folder", "open_camera", "open_address", "open_pattern"]
        self.empty = EmptyState(session, theme, [actions[name] for name in starts], self.view)
        self.classes = ClassPanel(session)
        self.queue = QueuePanel(session)
        self.results = ResultsPanel(session)
        self.zones = ZonesPanel(session, actions, self._ask_for_zones, self._ask_where_zones_go)
        self.exports = ExportsPanel(session, session.exporting, theme)
        self.timeline = TimelinePanel(session, theme, actions)
        self.stats = StatsPanel(session)
        self.toast = ToastBox(session, self.view)
        self.stats_overlay = StatsOverlay(session, self.view)
        self.keys_sheet = Sheet(self.tr("Keyboard shortcuts"), theme, self, columns=3)
        self.about_sheet = Sheet(self.tr("About Le-DETR"), theme, self)
        self.about_sheet.fill([
            (self.tr("Version"), ledetr.__version__),
            (self.tr("Licence"), self.tr("Apache-2.0; weights and libraries have their own, see assets/CREDITS.md")),
            (self.tr("Privacy"), self.tr("No telemetry, no update check, no download")),
        ])  # fmt: skip
        self._parts = (
            self.source,
            self.recording,
            self.model,
            self.engine,
            self.compare,
            self.display,
            self.errors,
            self.view,
            self.empty,
            self.classes,
            self.queue,
            self.results,
            self.zones,
            self.exports,
            self.timeline,
            self.stats,
            self.stats_overlay,
            self.toast,
        )

    def _lay_out(self) -> None:
        bar = QFrame()
        bar.setObjectName("bar")
        row = QHBoxLayout(bar)
        row.setContentsMargins(12, 7, 12, 7)
        row.setSpacing(10)
        row.addWidget(self.source)
        row.addWidget(self.recording)
        row.addStretch(1)
        row.addWidget(self.model)
        row.addSpacing(14)
        row.addWidget(self.display)
        over = QHBoxLayout(self.view)
        over.setContentsMargins(0, 0, 0, 0)
        over.addWidget(self.empty)
        middle = QHBoxLayout()
        middle.setSpacing(0)
        middle.addWidget(self.view, 1)
        side = QWidget()
        panels = QVBoxLayout(side)
        panels.setContentsMargins(0, 0, 0, 0)
        panels.setSpacing(0)
        panels.addWidget(self.classes, 3)
        for panel in (self.queue, self.results, self.zones):
            panels.addWidget(panel, 2)
        middle.addWidget(side)
        beside = QWidget()  # fullscreen hides it, whatever stands in it
        column_of_exports = QVBoxLayout(beside)
        column_of_exports.setContentsMargins(0, 0, 0, 0)
        column_of_exports.addWidget(self.exports)
        middle.addWidget(beside)
        central = QWidget()
        column = QVBoxLayout(central)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        for widget in (bar, self.address, self.errors):
            column.addWidget(widget)
        column.addLayout(middle, 1)
        column.addWidget(self.timeline)
        self.setCentralWidget(central)
        self.setStatusBar(self.stats)
        self._chrome = (bar, side, beside, self.timeline, self.stats)
        self._was_maximized = False

    def _make_menus(self) -> None:
        bar, a = self.menuBar(), self.actions_by_name
        contents: list[tuple[str, list[str | None]]] = [
            (self.tr("&File"), ["open_file", "open_folder", "open_address", None, "snapshot", "snapshot_clean",
                                "copy", "copy_boxes", "record", None, "exports", None, "quit"]),
            (self.tr("&Play"), ["play", "stop", None, "step_on", "step_back", None, "on_5", "back_5", "on_1", "back_1",
                                "on_60", "back_60", "to_start", "to_end", None,
                                "next_file", "previous_file", None, "point_in", "point_out", "clear_points",
                                "loop", "scan_file", None, "slower", "faster", "real_time"]),
            (self.tr("&Model"), ["model_n", "model_m", "model_l", "model_x", None, "device", "precision", "layers",
                                 None, "compare", "compare_with", None, "score_up", "score_down"]),
            (self.tr("&Tracks"), ["tracking", "buffer", "reset_ids", None, "ids", "trails", "by_track", None,
                                  "draw_zone", "draw_line", "edit_zones", "zones_panel", None, "results_panel"]),
            (self.tr("&View"), ["boxes", "labels", "scores", "lines", "stats", "side_panel", "queue_panel", None,
                                "zoom_in", "zoom_out", "zoom_fit", "zoom_full", None,
                                "theme_system", "theme_light", "theme_dark", None, "fullscreen"]),
            (self.tr("&Help"), ["keys", "about"]),
        ]  # fmt: skip
        submenus = {
            "device": self.engine.device,
            "precision": self.engine.precision,
            "layers": self.engine.layers,
            "compare_with": self.compare,
            "buffer": self._menu_of(self.tr("Memory"), [f"buffer_{seconds:g}" for seconds in BUFFERS_S]),
            "lines": self._menu_of(self.tr("Line width"), [f"line_{weight:g}" for weight in LINE_WEIGHTS]),
        }
        for title, names in contents:
            menu = bar.addMenu(title)
            for name in names:
                if name is None:
                    menu.addSeparator()
                elif name in submenus:
                    menu.addMenu(submenus[name])
                else:
                    menu.addAction(a[name])
        single = [name for _, names in contents for name in names if name is not None and name not in submenus]
        in_order = [a[name] for name in single] + [a["leave_fullscreen"]]
        self.keys_sheet.fill([
            (action.text().rstrip("…"), ", ".join(key.toString() for key in action.shortcuts()))
            for action in in_order
            if action.shortcuts()
        ])  # fmt: skip
        bar.insertMenu(bar.actions()[1], self.source.menu_of_sources)

    def _menu_of(self, title: str, names: list[str]) -> QMenu:
        menu = QMenu(title, self)
        for name in names:
            menu.addAction(self.actions_by_name[name])
        return menu

    # Slots

    def _on_woken(self) -> None:
        if self.session.state is self._state:
            self.view.refresh()
            self.timeline.show_position()
            self.classes.show_counts()
            self.stats.show_selection()
            self.results.show_rows()
            self.exports.refresh()
            self.compare.refresh()
            return
        self.refresh()

    def _copy_picture(self, *, boxes: bool) -> None:
        image = self.view.full_size_image(boxes=boxes)
        if image is not None:
            QGuiApplication.clipboard().setImage(image)

    def _toggle_exports(self) -> None:
        exporting = self.session.exporting
        exporting.set_shown(not exporting.form.shown)

    def _ask_for_file(self) -> None:
        self._ask(QFileDialog.FileMode.ExistingFiles, self.tr("Open videos or pictures"))

    def _ask_for_folder(self) -> None:
        self._ask(QFileDialog.FileMode.Directory, self.tr("Open a folder of pictures"))

    def _ask(self, mode: QFileDialog.FileMode, title: str) -> None:
        dialog = QFileDialog(self, title)
        dialog.setFileMode(mode)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.filesSelected.connect(self.session.open_files)
        dialog.open()  # not exec(): the picture goes on meanwhile

    def _ask_for_zones(self) -> None:
        self._ask_for_path(self.tr("Load zones"), QFileDialog.AcceptMode.AcceptOpen, self.session.zones.load)

    def _ask_where_zones_go(self) -> None:
        self._ask_for_path(self.tr("Save zones"), QFileDialog.AcceptMode.AcceptSave, self.session.zones.save)

    def _ask_for_path(self, title: str, mode: QFileDialog.AcceptMode, take: Callable[[Path], None]) -> None:
        dialog = QFileDialog(self, title)
        dialog.setAcceptMode(mode)
        dialog.setNameFilter(self.tr("Zones (*.json)"))
        dialog.setDefaultSuffix("json")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda text: take(Path(text)))
        dialog.open()  # not exec(): the picture goes on meanwhile

    def _open_sample(self) -> None:
        path = sample_clip()
        if path is not None:
            self.session.open_source(path)

    def _place_floating(self) -> None:
        place: list[Callable[[], None]] = [self.toast.place, self.keys_sheet.place, self.about_sheet.place]
        for move in place:
            move()

    def _restore_geometry(self) -> None:
        """Where it was, if some screen still has that place."""
        settings = self.session.settings
        self.resize(*FIRST_SIZE)
        if settings.geometry is not None:
            rect = QRect(*settings.geometry)
            if any(screen.availableGeometry().contains(rect.center()) for screen in QGuiApplication.screens()):
                self.setGeometry(rect)
        if settings.maximized:
            self.setWindowState(Qt.WindowState.WindowMaximized)


def _dropped(data: QMimeData) -> list[str]:
    """Paths and addresses of what is dragged."""
    if data.hasUrls():
        return [url.toLocalFile() if url.isLocalFile() else url.toString() for url in data.urls()]
    text = data.text().strip() if data.hasText() else ""
    return [text] if text and "\n" not in text and len(text) <= 4096 else []
