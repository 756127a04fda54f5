"""A line for an address; it unfolds under the toolbar instead of a dialog."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QLineEdit, QPushButton, QWidget

from ledetr_app.session import Session


class AddressBar(QFrame):
    """Enter opens, Esc folds. The text is forgotten when it folds, since a password may be in it."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("addressBar")
        self._session = session
        label = QLabel(self.tr("Address"))
        label.setProperty("tone", "muted")
        self.line = QLineEdit()
        self.line.setPlaceholderText(self.tr("rtsp://, http://, srt:// … or camera:0, screen:0, test:720p30"))
        self.line.setAccessibleName(self.tr("Address to open"))
        self.open_button = QPushButton(self.tr("Open"))
        self.open_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 8, 12, 8)
        row.setSpacing(10)
        row.addWidget(label)
        row.addWidget(self.line, 1)
        row.addWidget(self.open_button)
        self.line.returnPressed.connect(self._open)
        self.open_button.clicked.connect(self._open)
        self.hide()

    def unfold(self) -> None:
        """Show and take the keyboard."""
        self.show()
        self.line.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def fold(self) -> None:
        """Hide and forget."""
        self.line.clear()
        self.hide()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc folds."""
        if event.key() == Qt.Key.Key_Escape:
            self.fold()
        else:
            super().keyPressEvent(event)

    def _open(self) -> None:
        text = self.line.text().strip()
        if text:
            self.fold()
            self._session.open_source(text)
