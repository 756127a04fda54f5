"""A sheet over the picture: the keys, or what this program is. Not a dialog: nothing waits for it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from ledetr_app.ui.theme import Theme


class Sheet(QFrame):
    """A title and rows of two plain texts each, in as many columns as asked for."""

    def __init__(self, title: str, theme: Theme, parent: QWidget, columns: int = 1) -> None:
        super().__init__(parent)
        self.setObjectName("sheet")
        self.setAccessibleName(title)
        self._columns = columns
        self._over = parent
        heading = QLabel(title)
        heading.setProperty("tone", "strong")
        close = QToolButton()
        close.setProperty("flat", True)
        close.setAccessibleName(self.tr("Close"))
        close.setToolTip(self.tr("Close (Esc)"))
        close.clicked.connect(self.hide)
        theme.bind_icon(close, "close")
        top = QHBoxLayout()
        top.addWidget(heading, 1)
        top.addWidget(close)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(16)
        self._grid.setVerticalSpacing(8)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 16, 16, 20)
        column.setSpacing(12)
        column.addLayout(top)
        column.addLayout(self._grid)
        self.hide()

    def fill(self, rows: list[tuple[str, str]]) -> None:
        """Rows of (name, value); once."""
        lines = -(-len(rows) // self._columns)
        for number, (name, value) in enumerate(rows):
            block, line = divmod(number, lines)
            left, right = QLabel(name), QLabel(value)
            left.setProperty("tone", "muted")
            right.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            for label in (left, right):
                label.setTextFormat(Qt.TextFormat.PlainText)
            self._grid.addWidget(left, line, 3 * block)
            self._grid.addWidget(right, line, 3 * block + 1)
            if block:
                self._grid.setColumnMinimumWidth(3 * block - 1, 24)

    def toggle(self) -> None:
        """Show in the middle of the parent, or hide."""
        if self.isVisible():
            self.hide()
            return
        self.place()
        self.show()
        self.raise_()

    def place(self) -> None:
        """Middle of the parent."""
        self.adjustSize()
        room = self._over.size()
        self.move((room.width() - self.width()) // 2, max(0, (room.height() - self.height()) // 2))
