"""The frame of everything that stands beside the picture."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QFrame, QSizePolicy, QWidget

NARROW = 236


class SidePanel(QFrame):
    """As wide as it asks for, or as the widest of those that are unfolded; as high as there is room."""

    def __init__(self, parent: QWidget | None = None, *, width: int = NARROW) -> None:
        super().__init__(parent)
        self.setObjectName("sidePanel")
        self.ask_for(width)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

    def ask_for(self, width: int) -> None:
        """Be at least so wide, in logical pixels."""
        self._width = width
        self.setMinimumWidth(width)
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        """The width that was asked for, whatever the lists in it would like."""
        return QSize(self._width, super().sizeHint().height())
