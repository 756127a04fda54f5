"""Mouse and keys that draw zones and lines on the picture, and what is seen of it."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPainterPath, QPen

from ledetr.zones import Line, Point, Zone
from ledetr_app.drawing import moved, nearest_point, points_of, shapes_of
from ledetr_app.session import Session

REACH_PX = 12.0  # a point is taken hold of from this far
STEP, LONG_STEP = 0.005, 0.05  # of the picture, for each press of an arrow
_RIM = QColor(16, 18, 22)
_LIGHT = QColor(255, 255, 255)
_DRAWN = QColor(240, 228, 66)

_ARROWS = {
    Qt.Key.Key_Left: (-1, 0),
    Qt.Key.Key_Right: (1, 0),
    Qt.Key.Key_Up: (0, -1),
    Qt.Key.Key_Down: (0, 1),
}
_KEYS = {*_ARROWS, Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Backspace, Qt.Key.Key_Delete}


class ZoneHand:
    """Each method that takes an event says whether it was meant for the zones. Places are 0..1 of the picture."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def busy(self) -> bool:
        """A tool is in the hand."""
        return self._session.state.drawing.tool != ""

    def press(self, event: QMouseEvent, at: Point, size_wh: tuple[float, float]) -> bool:
        """A corner more, or a point taken hold of. size_wh: of the picture in logical pixels.

        Without a tool the points of the selected shape can be taken, since they are seen.
        """
        zones, drawing = self._session.zones, self._session.state.drawing
        if event.button() != Qt.MouseButton.LeftButton:
            return False
        if drawing.tool in ("", "edit"):
            found = nearest_point(self._session.state.zones, at, size_wh, REACH_PX)
            if found is not None and (drawing.tool == "edit" or found[0] == drawing.selected):
                zones.grab(*found)
                return True
            if drawing.tool == "edit":
                zones.select(None)
            return drawing.tool == "edit"
        if self._closes(at, size_wh):
            zones.finish()
        else:
            zones.add_point(at)
        return True

    def move(self, event: QMouseEvent, at: Point) -> bool:
        """The next corner would be here, or the point that is held."""
        drawing = self._session.state.drawing
        held = drawing.grabbed is not None and bool(event.buttons() & Qt.MouseButton.LeftButton)
        if drawing.tool in ("zone", "line") or held:
            self._session.zones.point_to(at)
        return self.busy or held

    def release(self, event: QMouseEvent) -> bool:
        """A point that was held is let go."""
        held = self._session.state.drawing.grabbed is not None
        if held:
            self._session.zones.drop()
        return self.busy or held

    def double_click(self, event: QMouseEvent) -> bool:
        """Its first click set the last corner: a zone is closed."""
        if self._session.state.drawing.tool == "zone" and len(self._session.state.drawing.points) >= 3:
            self._session.zones.finish()
            return True
        return self.busy

    def wants(self, key: int) -> bool:
        """Whether the key is for the zones now, and not a shortcut of the window."""
        return key in _KEYS if self.busy else key == Qt.Key.Key_Delete and self._has_selected()

    def key(self, event: QKeyEvent) -> bool:
        """Arrows lead, Space sets or takes the next point, Enter closes, Backspace takes back, Delete removes."""
        key = Qt.Key(event.key())
        if not self.wants(key):
            return False
        zones, drawing = self._session.zones, self._session.state.drawing
        if key in _ARROWS:
            self._lead(_ARROWS[key], long=bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier))
        elif key == Qt.Key.Key_Space:
            (zones.grab_next if drawing.tool == "edit" else zones.add_point)()
        elif key == Qt.Key.Key_Backspace:
            zones.take_back_point()
        elif key == Qt.Key.Key_Delete:
            zones.remove_selected()
        elif drawing.tool == "line":
            zones.add_point()
        elif drawing.tool == "zone":
            zones.finish()
        else:
            zones.take("edit")
        return True

    def words(self) -> str:
        """What can be done now, in one line."""
        tool = self._session.state.drawing.tool
        return {
            "zone": _tr("Click the corners. Enter closes the zone, Backspace takes a corner back, Esc cancels"),
            "line": _tr("Click both ends: what goes from its left to its right goes in. Esc cancels"),
            "edit": _tr("Drag points. Space takes the next one, arrows move it, Delete removes the shape, Esc ends"),
            "": "",
        }[tool]

    def paint(self, painter: QPainter, picture: QRectF) -> None:
        """Handles of what can be moved, and the shape that is being drawn."""
        state = self._session.state
        drawing, shapes = state.drawing, shapes_of(state.zones)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for row, shape in enumerate(shapes):
            if drawing.tool == "edit" or row == drawing.selected:
                self._paint_handles(painter, picture, shape, drawing.grabbed if row == drawing.selected else None)
        if drawing.tool in ("zone", "line"):
            ends = [_at(picture, point) for point in (*drawing.points, drawing.cursor)]
            _line(painter, ends, closed=False)
            for end in ends[:-1]:
                _handle(painter, end, strong=False)
            _cross(painter, ends[-1])

    def _paint_handles(self, painter: QPainter, picture: QRectF, shape: Zone | Line, grabbed: int | None) -> None:
        points, cursor = points_of(shape), self._session.state.drawing.cursor
        if grabbed is not None and points[grabbed] != cursor:
            points = _moved_points(shape, grabbed, cursor)
            _line(painter, [_at(picture, point) for point in points], closed=isinstance(shape, Zone))
        for number, point in enumerate(points):
            _handle(painter, _at(picture, point), strong=number == grabbed)

    def _lead(self, way: tuple[int, int], *, long: bool) -> None:
        zones, drawing = self._session.zones, self._session.state.drawing
        step = LONG_STEP if long else STEP
        by = (way[0] * step, way[1] * step)
        if drawing.tool == "edit":
            zones.move_grabbed(by)
        else:
            zones.point_to((drawing.cursor[0] + by[0], drawing.cursor[1] + by[1]))

    def _closes(self, at: Point, size_wh: tuple[float, float]) -> bool:
        """A click on the first corner."""
        points = self._session.state.drawing.points
        if self._session.state.drawing.tool != "zone" or len(points) < 3:
            return False
        (x0, y0), (x, y), (width, height) = points[0], at, size_wh
        return abs(x - x0) * width <= REACH_PX and abs(y - y0) * height <= REACH_PX

    def _has_selected(self) -> bool:
        return self._session.state.drawing.selected is not None


def _moved_points(shape: Zone | Line, number: int, to: Point) -> tuple[Point, ...]:
    try:
        return points_of(moved(shape, number, to))
    except ValueError:  # a line without length, for as long as the mouse stands on its other end
        return points_of(shape)


def _at(picture: QRectF, point: Point) -> QPointF:
    return QPointF(picture.left() + point[0] * picture.width(), picture.top() + point[1] * picture.height())


def _line(painter: QPainter, points: list[QPointF], *, closed: bool) -> None:
    path = QPainterPath(points[0])
    for point in points[1:]:
        path.lineTo(point)
    if closed:
        path.closeSubpath()
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for colour, width in ((_RIM, 4.0), (_DRAWN, 2.0)):
        style = Qt.PenStyle.DashLine if colour is _DRAWN else Qt.PenStyle.SolidLine
        painter.setPen(QPen(colour, width, style))
        painter.drawPath(path)


def _handle(painter: QPainter, at: QPointF, *, strong: bool) -> None:
    painter.setPen(QPen(_RIM, 2))
    painter.setBrush(_DRAWN if strong else _LIGHT)
    radius = 7.0 if strong else 5.0
    painter.drawEllipse(at, radius, radius)


def _cross(painter: QPainter, at: QPointF) -> None:
    for colour, width in ((_RIM, 4.0), (_DRAWN, 2.0)):
        painter.setPen(QPen(colour, width))
        painter.drawLine(at - QPointF(9, 0), at + QPointF(9, 0))
        painter.drawLine(at - QPointF(0, 9), at + QPointF(0, 9))


def _tr(text: str) -> str:
    return QCoreApplication.translate("ZoneHand", text)
