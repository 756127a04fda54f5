"""The files that are played in turn."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ledetr_app.session import Session
from ledetr_app.ui.panels.side import SidePanel
from ledetr_app.ui.text import tip


class QueueList(QListWidget):
    """Enter plays a row, Delete takes it out."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter and Delete act on the chosen row."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._session.play_queued(self.currentRow())
        elif event.key() == Qt.Key.Key_Delete:
            self._session.remove_queued(self.currentRow())
        else:
            super().keyPressEvent(event)


class QueuePanel(SidePanel):
    """Shown while there is a list and the user has not folded it. The file that is played is marked, not only bold."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._done: object = None
        self._paths: tuple[str, ...] = ()
        self.title = QLabel()
        self.title.setProperty("tone", "strong")
        self.clear_button = QPushButton(self.tr("Clear"))
        self.clear_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.clear_button.clicked.connect(session.clear_queue)
        self.list = QueueList(session)
        self.list.setAccessibleName(self.tr("Files that are played in turn"))
        self.list.setToolTip(self.tr("Double click or Enter plays, Delete takes out"))
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.itemDoubleClicked.connect(lambda item: session.play_queued(self.list.row(item)))
        top = QHBoxLayout()
        top.addWidget(self.title, 1)
        top.addWidget(self.clear_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 10, 10, 10)
        column.setSpacing(8)
        column.addLayout(top)
        column.addWidget(self.list, 1)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        queue, shown = self._session.state.queue, self._session.state.queue_panel
        self.setVisible(shown and bool(queue.paths))
        if queue == self._done:
            return
        self._done = queue
        if queue.paths != self._paths:
            self._paths = queue.paths
            self._list()
        number = "–" if queue.at is None else str(queue.at + 1)
        self.title.setText(self.tr("Queue  {number} / {count}").format(number=number, count=len(queue.paths)))
        for row in range(self.list.count()):
            self._mark(row, row == queue.at)
        if queue.at is not None:
            self.list.scrollToItem(self.list.item(queue.at))

    def _list(self) -> None:
        row = self.list.currentRow()
        with QSignalBlocker(self.list):
            self.list.clear()
            for path in self._paths:
                item = QListWidgetItem()
                item.setToolTip(tip(path))
                self.list.addItem(item)
            self.list.setCurrentRow(min(row, len(self._paths) - 1))

    def _mark(self, row: int, playing: bool) -> None:
        item, name = self.list.item(row), Path(self._paths[row]).name or self._paths[row]
        item.setText(f"▶ {name}" if playing else name)
        font = item.font()
        font.setBold(playing)
        item.setFont(font)
