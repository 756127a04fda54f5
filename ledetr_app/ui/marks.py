"""The second painter of ledetr.chain.overlay: the same marks as vectors, sharp at any scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPainter, QPen

from ledetr.chain.overlay import BoxMark, LabelMark, Mark, font_file

_RIM = QColor(16, 18, 22)


def paint_marks(painter: QPainter, marks: Sequence[Mark]) -> None:
    """Paint in order. The painter's unit is that of the marks; its scale may be anything."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for mark in marks:
        if isinstance(mark, BoxMark):
            _paint_box(painter, mark)
        else:
            _paint_label(painter, mark)


def _paint_box(painter: QPainter, mark: BoxMark) -> None:
    x0, y0, x1, y1 = mark.xyxy
    rim_px = 2 * max(1, round(mark.line_px / 4))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for colour, width in ((_RIM, mark.line_px + rim_px), (QColor(*mark.colour_rgb), mark.line_px)):
        pen = QPen(colour, width)
        pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        painter.setPen(pen)
        painter.drawRect(QRectF(x0, y0, x1 - x0, y1 - y0))


def _paint_label(painter: QPainter, mark: LabelMark) -> None:
    x0, y0, x1, y1 = mark.tile_xyxy
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(*mark.colour_rgb))
    painter.drawRoundedRect(QRectF(x0, y0, x1 - x0, y1 - y0), mark.radius_px, mark.radius_px)
    painter.setPen(QColor(*mark.text_rgb))
    painter.setFont(_font(mark.font_px))
    painter.drawText(QPointF(*mark.baseline_xy), mark.text)


@cache
def _family() -> str:
    """The bundled font, the one the recorder draws with; without it tiles and text would not fit each other."""
    number = QFontDatabase.addApplicationFont(str(font_file()))
    families = QFontDatabase.applicationFontFamilies(number)
    if not families:
        raise RuntimeError(f"Qt does not read {font_file()}")
    return families[0]


@cache
def _font(size_px: int) -> QFont:
    font = QFont(_family())
    font.setPixelSize(size_px)
    font.setBold(True)
    font.setStretch(QFont.Stretch.SemiCondensed)
    font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    return font
