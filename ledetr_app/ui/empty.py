"""What stands in the picture's place while nothing is open: where to begin, in one click."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from ledetr_app.session import Session
from ledetr_app.ui.text import plain, tip
from ledetr_app.ui.theme import Theme, svg_pixmap

SHOWN_RECENTS = 3
TILE_GAP = 10
MARGIN = 24


class EmptyState(QWidget):
    """Shown while no source is open; every button is one of the window's own commands."""

    def __init__(self, session: Session, theme: Theme, starts: list[QAction], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._theme = theme
        self._recents: tuple[str, ...] | None = None
        self._sign = QLabel()
        self._sign.setAlignment(Qt.AlignmentFlag.AlignCenter)
        headline = QLabel(self.tr("Drop a video here, or choose a source"))
        font = headline.font()
        font.setPointSizeF(font.pointSizeF() * 1.5)
        font.setBold(True)
        headline.setFont(font)
        hint = QLabel(self.tr("Files, folders, cameras and network streams. Everything stays on this computer."))
        hint.setProperty("tone", "muted")
        for label in (headline, hint):
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            label.setWordWrap(True)
        tiles = QHBoxLayout()
        self._tiles = QGridLayout()
        self._tiles.setSpacing(TILE_GAP)
        tiles.addStretch(1)
        tiles.addLayout(self._tiles)
        tiles.addStretch(1)
        self.buttons = [self._tile(action) for action in starts]
        self._columns = 0
        self._place_tiles()
        self._recent_column = QVBoxLayout()
        self._recent_column.setSpacing(2)
        column = QVBoxLayout(self)
        column.setSpacing(0)
        column.addStretch(3)
        column.addWidget(self._sign)
        column.addSpacing(18)
        column.addWidget(headline)
        column.addSpacing(6)
        column.addWidget(hint)
        column.addSpacing(24)
        column.addLayout(tiles)
        column.addSpacing(18)
        column.addLayout(self._recent_column)
        column.addStretch(4)
        theme.changed.connect(self._paint_sign)
        self._paint_sign()
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        self.setVisible(not state.has_source and not state.opening)
        if state.recents != self._recents:
            self._recents = state.recents
            self._list_recents()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Beside wide panels the tiles stand in more rows."""
        self._place_tiles()

    def _place_tiles(self) -> None:
        """In as few rows as the words in them allow."""
        widest = max(button.sizeHint().width() for button in self.buttons) + TILE_GAP
        fitting = max(1, (self.width() - MARGIN) // widest)
        all_of_them = sum(button.sizeHint().width() + TILE_GAP for button in self.buttons)
        count = len(self.buttons)
        columns = count if all_of_them <= self.width() - MARGIN else -(-count // -(-count // fitting))
        if columns != self._columns:
            self._columns = columns
            for number, button in enumerate(self.buttons):
                self._tiles.addWidget(button, number // columns, number % columns)

    def _tile(self, action: QAction) -> QPushButton:
        button = QPushButton(" " + action.text().rstrip("…"))
        button.setProperty("kind", "tile")
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.clicked.connect(action.trigger)
        self._theme.bind_icon(button, action.property("icon_name") or "open", "accent")
        button.setAccessibleName(button.text().strip())
        return button

    def _list_recents(self) -> None:
        while (item := self._recent_column.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        for text in (self._recents or ())[:SHOWN_RECENTS]:
            name = Path(text).name if "://" not in text else text
            button = QPushButton(" " + plain(name))
            button.setToolTip(tip(text))
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setAccessibleName(self.tr("Open {name} again").format(name=name))
            button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
            self._theme.bind_icon(button, "clock", "muted")
            button.clicked.connect(lambda _checked=False, text=text: self._session.open_source(text))
            self._recent_column.addWidget(button, 0, Qt.AlignmentFlag.AlignHCenter)

    def _paint_sign(self) -> None:
        self._sign.setPixmap(svg_pixmap("app", self._theme.tokens.text, 72, self.devicePixelRatioF()))
