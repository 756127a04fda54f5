"""A dot in a class's colour."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap


@cache
def swatch_icon(colour_rgb: tuple[int, int, int]) -> QIcon:
    """Round, 12 of 16 logical pixels, crisp at a scale of 2."""
    pixmap = QPixmap(32, 32)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(*colour_rgb))
    painter.drawEllipse(QRectF(4, 4, 24, 24))
    painter.end()
    pixmap.setDevicePixelRatio(2)
    return QIcon(pixmap)
