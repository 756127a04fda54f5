"""The second painter of ledetr.chain.overlay: the same marks as vectors, sharp at any scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPainter, QPainterPath, QPen, QPolygonF

from ledetr.chain.overlay import BoxMark, LabelMark, Mark, PathMark, font_file

_RIM = QColor(16, 18, 22)
_SELECTED = QColor(255, 255, 255)
_CORNER_GAP = 5.0


def paint_marks(painter: QPainter, marks: Sequence[Mark]) -> None:
    """Paint in order. The painter's unit is that of the marks; its scale may be anything."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for mark in marks:
        if isinstance(mark, BoxMark):
            _paint_box(painter, mark)
        elif isinstance(mark, PathMark):
            _paint_path(painter, mark)
        else:
            _paint_label(painter, mark)


def paint_selection(painter: QPainter, rect: QRectF) -> None:
    """Bright corners on dark ones around a box, so that neither colour nor ground hides which one is meant."""
    outer = rect.adjusted(-_CORNER_GAP, -_CORNER_GAP, _CORNER_GAP, _CORNER_GAP)
    arm = max(6.0, min(24.0, outer.width() / 3, outer.height() / 3))
    path = QPainterPath()
    for x, y, dx, dy in (
        (outer.left(), outer.top(), arm, arm),
        (outer.right(), outer.top(), -arm, arm),
        (outer.right(), outer.bottom(), -arm, -arm),
        (outer.left(), outer.bottom(), arm, -arm),
    ):
        path.moveTo(x + dx, y)
        path.lineTo(x, y)
        path.lineTo(x, y + dy)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for colour, width in ((_RIM, 7.0), (_SELECTED, 3.5)):
        painter.setPen(QPen(colour, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
        painter.drawPath(path)


def _paint_box(painter: QPainter, mark: BoxMark) -> None:
    x0, y0, x1, y1 = mark.xyxy
    rim_px = 2 * max(1, round(mark.line_px / 4))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for colour, width in ((_RIM, mark.line_px + rim_px), (QColor(*mark.colour_rgb), mark.line_px)):
        pen = QPen(colour, width)
        pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        painter.setPen(pen)
        painter.drawRect(QRectF(x0, y0, x1 - x0, y1 - y0))


def _paint_path(painter: QPainter, mark: PathMark) -> None:
    path = QPainterPath()
    path.addPolygon(QPolygonF([QPointF(x, y) for x, y in mark.points_xy]))
    if mark.closed:
        path.closeSubpath()
    rim_px = 2 * max(1, round(mark.line_px / 4))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for colour, width in ((_RIM, mark.line_px + rim_px), (QColor(*mark.colour_rgb), mark.line_px)):
        pen = QPen(colour, width)
        pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
        pen.setCapStyle(Qt.PenCapStyle.RoundCap)
        painter.setPen(pen)
        painter.drawPath(path)


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
