"""The source button: everything that can be opened, and what was opened lately."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from ledetr_app.session import Session
from ledetr_app.ui.shortcuts import Actions
from ledetr_app.ui.text import plain
from ledetr_app.ui.theme import Theme

LONGEST_NAME = 60


class SourcePanel(QToolButton):
    """A button with a menu; the same menu stands in the menu bar."""

    def __init__(self, session: Session, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._theme = theme
        self._recents: tuple[str, ...] | None = None
        self._cameras: tuple[tuple[str, str], ...] | None = None
        self.setObjectName("sourceButton")
        self.setText(" " + self.tr("Open"))
        self.setAccessibleName(self.tr("Open a source"))
        self.setToolTip(self.tr("Open a file, folder, camera or address"))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        theme.bind_icon(self, "open", "on_accent")
        self.menu_of_sources = QMenu(self.tr("Source"), self)
        self.cameras_menu = QMenu(self.tr("Camera"), self.menu_of_sources)
        self.recents_menu = QMenu(self.tr("Recent"), self.menu_of_sources)
        self._fill(actions)
        self.setMenu(self.menu_of_sources)
        self.menu_of_sources.aboutToShow.connect(session.look_for_cameras)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        if state.recents != self._recents:
            self._recents = state.recents
            self._list_recents(state.recents)
        if state.cameras != self._cameras:
            self._cameras = state.cameras
            self._list_cameras(state.cameras)

    def _fill(self, actions: Actions) -> None:
        menu = self.menu_of_sources
        for name in ("open_file", "open_folder", "open_address"):
            menu.addAction(actions[name])
        menu.addMenu(self.cameras_menu)
        menu.addSeparator()
        menu.addAction(actions["open_sample"])
        menu.addAction(actions["open_pattern"])
        menu.addSeparator()
        menu.addMenu(self.recents_menu)
        self._theme.bind_icon(self.cameras_menu, "camera")
        self._theme.bind_icon(self.recents_menu, "clock")

    def _list_recents(self, recents: tuple[str, ...]) -> None:
        self.recents_menu.clear()
        self.recents_menu.setEnabled(bool(recents))
        for text in recents:
            name = text if "://" in text else Path(text).name or text
            action = self.recents_menu.addAction(plain(name[:LONGEST_NAME]))
            action.triggered.connect(lambda _checked=False, text=text: self._session.open_source(text))

    def _list_cameras(self, cameras: tuple[tuple[str, str], ...] | None) -> None:
        self.cameras_menu.clear()
        if not cameras:
            words = self.tr("Looking for cameras …") if cameras is None else self.tr("No camera found")
            self.cameras_menu.addAction(words).setEnabled(False)
        for spelling, name in cameras or ():
            action = self.cameras_menu.addAction(plain(name[:LONGEST_NAME]))
            action.triggered.connect(lambda _checked=False, text=spelling: self._session.open_source(text))
