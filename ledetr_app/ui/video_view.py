"""The picture: blits what display prep made and paints the marks over it. Does nothing else."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QElapsedTimer, QEvent, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QApplication, QSizePolicy, QWidget

from ledetr.chain.pipeline import State
from ledetr_app.prep import DisplayPrep, Picture
from ledetr_app.session import Session
from ledetr_app.ui.compare_view import CompareLayer, Paper
from ledetr_app.ui.marks import paint_marks, paint_selection
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.zone_hand import ZoneHand
from ledetr_app.viewport import ZOOM_STEP, Placed, View, panned, place, zoomed

OPENING_AFTER_MS = 300


class VideoView(QWidget):
    """Shows prep.picture and session.marks over it. A result counts as painted when paintEvent is done with it."""

    double_clicked = Signal()

    def __init__(self, session: Session, prep: DisplayPrep, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(self.tr("Picture"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._session = session
        self._prep = prep
        self._theme = theme
        self._picture: Picture | None = None
        self._image: QImage | None = None
        self.hand = ZoneHand(session)
        self.setMouseTracking(True)
        self._crossed = False
        self.compare = CompareLayer(session, self)
        self._opening = QElapsedTimer()
        self._pressed: QPointF | None = None
        self._dragged: QPointF | None = None
        self.drop_welcome = False
        self.taken_left = 0  # logical pixels that something lies over, where no words are written
        self.words: list[str] = []  # what was last written over the picture
        self._ticks = QTimer(self)
        self._ticks.setInterval(100)
        self._ticks.timeout.connect(self.update)
        theme.changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """Room for a 720p picture at two thirds."""
        return QSize(960, 540)

    def refresh(self) -> None:
        """There is something newer: take it and ask for one repaint."""
        picture = self._prep.picture
        if picture is not self._picture:
            # The array is held beside the image that wraps it, until both are replaced.
            self._picture = picture
            self._image = None if picture is None else _image_of(picture)
            self._session.set_shown(None if picture is None else picture.result)
        self._prep.set_view(self._session.state.view)
        self._watch_opening()
        self.compare.place(self.picture_rect, QRectF(self.rect()))
        if self.hand.busy is not self._crossed:
            self._crossed = self.hand.busy
            self.setCursor(Qt.CursorShape.CrossCursor if self._crossed else Qt.CursorShape.ArrowCursor)
        self.update()

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Larger or smaller; the point at (logical pixels, by default the middle) stays where it is."""
        placed = self._placed()
        if placed is not None:
            ratio = self.devicePixelRatioF()
            at = at or QRectF(self.rect()).center()
            at_px = (at.x() * ratio, at.y() * ratio)
            self._set_view(zoomed(self._session.state.view, factor, at_px, placed.source_wh, placed.room_wh))

    def zoom_to(self, zoom: float) -> None:
        """So many screen pixels per pixel of the picture."""
        placed = self._placed()
        if placed is not None:
            self.zoom_by(zoom / placed.scale_xy[0])

    def set_drop_welcome(self, welcome: bool) -> None:
        """Something that can be opened hovers over the window."""
        self.drop_welcome = welcome
        self.update()

    def full_size_image(self, *, boxes: bool) -> QImage | None:
        """The shown frame in its own pixels, for the clipboard; None when there is none."""
        result = self._session.shown
        if result is None:
            return None
        rgb = result.frame.rgb
        image = QImage(rgb.data, rgb.shape[1], rgb.shape[0], rgb.strides[0], QImage.Format.Format_RGB888).copy()
        if boxes:
            painter = QPainter(image)
            paint_marks(painter, self._session.marks_to_keep(result))
            painter.end()
        return image

    @property
    def picture_rect(self) -> QRectF:
        """Where the whole picture is, in logical pixels, on whole device pixels; it may reach out of the view."""
        placed = self._placed()
        if placed is None:
            return QRectF()
        return self._rect_of(placed, (0, 0, *placed.source_wh))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Ground, picture, marks, then what there is to say."""
        # A window moved to another screen has other device pixels; this is where it is noticed.
        self._prep.set_room(*self._room())
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(self._theme.tokens.stage))
        if self._picture is not None and self._image is not None:
            self._paint_picture(painter, self._picture, self._image)
        self._paint_words(painter)
        if self.drop_welcome:
            painter.setPen(QPen(QColor(self._theme.tokens.accent), 3))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(8, 8, -8, -8), 12, 12)
        painter.end()
        if self._picture is not None:
            self._session.painted(self._picture.result)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The picture at the new size is made elsewhere; until then the old one is stretched."""
        self._prep.set_room(*self._room())
        self.compare.place(self.picture_rect, QRectF(self.rect()))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Fullscreen."""
        if self.hand.double_click(event):
            return
        if event.button() == Qt.MouseButton.LeftButton:
            self.double_clicked.emit()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """With Ctrl: zoom at the pointer."""
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom_by(ZOOM_STEP ** (event.angleDelta().y() / 120), event.position())
            event.accept()
        else:
            event.ignore()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A click or a drag begins."""
        at = self.to_picture(event.position())
        if at is not None and self.hand.press(event, at, self._size_wh()):
            return
        self._pressed = event.position() if event.button() == Qt.MouseButton.LeftButton else None
        self._dragged = None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """A drag moves a picture that is larger than its room."""
        placed, at = self._placed(), self.to_picture(event.position())
        if at is not None and self.hand.move(event, at):
            return
        if self._pressed is None or placed is None or not placed.can_pan:
            event.ignore()  # the window wants to know that the pointer moved
            return
        far = (event.position() - self._pressed).manhattanLength() >= QApplication.startDragDistance()
        if self._dragged is None and not far:
            return
        by = (event.position() - (self._dragged or self._pressed)) * self.devicePixelRatioF()
        self._dragged = event.position()
        self.setCursor(Qt.CursorShape.ClosedHandCursor)
        self._set_view(panned(self._session.state.view, (by.x(), by.y()), placed.source_wh, placed.room_wh))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """The end of a drag, or a click: select the box under it."""
        if self.hand.release(event):
            return
        placed, pressed, dragged = self._placed(), self._pressed, self._dragged
        self._pressed = self._dragged = None
        if dragged is not None:
            self.unsetCursor()
        elif pressed is not None and placed is not None:
            ratio = self.devicePixelRatioF()
            self._session.select_at(*placed.to_source(pressed.x() * ratio, pressed.y() * ratio))

    def event(self, event: QEvent) -> bool:
        """While zones are drawn, their keys are no shortcuts."""
        if (
            event.type() == QEvent.Type.ShortcutOverride
            and isinstance(event, QKeyEvent)
            and not event.modifiers() & ~Qt.KeyboardModifier.ShiftModifier
            and self.hand.wants(event.key())
        ):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """For the zones, else for the window."""
        if not self.hand.key(event):
            super().keyPressEvent(event)

    def to_picture(self, at: QPointF) -> tuple[float, float] | None:
        """A point of this widget as 0..1 of the picture, also outside of it; None where there is no picture."""
        rect = self.picture_rect
        if rect.isEmpty():
            return None
        return (at.x() - rect.left()) / rect.width(), (at.y() - rect.top()) / rect.height()

    def _size_wh(self) -> tuple[float, float]:
        return self.picture_rect.width(), self.picture_rect.height()

    def _set_view(self, view: View) -> None:
        self._session.set_view(view)
        self._prep.set_view(view)
        self.update()

    def _placed(self) -> Placed | None:
        """Where the picture that is shown lies; None when there is none."""
        if self._picture is None:
            return None
        meta = self._picture.result.frame.meta
        return place(self._session.state.view, (meta.width, meta.height), self._room())

    def _rect_of(self, placed: Placed, part_xyxy: tuple[float, float, float, float]) -> QRectF:
        """Where a part of the picture is, in logical pixels."""
        ratio, (scale_x, scale_y) = self.devicePixelRatioF(), placed.scale_xy
        x0, y0, x1, y1 = part_xyxy
        left, top = placed.origin_xy[0] + x0 * scale_x, placed.origin_xy[1] + y0 * scale_y
        return QRectF(left / ratio, top / ratio, (x1 - x0) * scale_x / ratio, (y1 - y0) * scale_y / ratio)

    def _room(self) -> tuple[int, int]:
        ratio = self.devicePixelRatioF()
        return max(1, round(self.width() * ratio)), max(1, round(self.height() * ratio))

    def _paint_picture(self, painter: QPainter, picture: Picture, image: QImage) -> None:
        target, placed = self.picture_rect, self._placed()
        assert placed is not None  # there is a picture
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(self._rect_of(placed, picture.part_xyxy), image)
        if self._session.state.loss is not None:
            painter.fillRect(target, QColor(0, 0, 0, 150))
            return  # boxes of long ago say nothing about now
        selected = self._session.selected
        if selected is not None:  # under the marks, so that its label can be read
            x0, y0, x1, y1 = (float(value) for value in selected.xyxy[0])
            paint_selection(painter, self._rect_of(placed, (x0, y0, x1, y1)))
        painter.save()
        painter.setClipRect(target)
        painter.translate(target.topLeft())
        size_hw = (max(1, round(target.height())), max(1, round(target.width())))
        fitted = place(View(), placed.source_wh, (self.width(), self.height())).size_wh
        if not self.compare.paint_opinions(painter, picture.result, Paper(size_hw, fitted[::-1]), target):
            paint_marks(painter, self._session.marks(picture.result, size_hw, fitted[::-1]))
        painter.restore()
        self.hand.paint(painter, target)

    def _paint_words(self, painter: QPainter) -> None:
        self.words.clear()
        state = self._session.state
        if state.loss is not None:
            gone_s = (self._session.clock.now_ns() - state.loss.since_ns) // 1_000_000_000
            again = (
                self.tr(", trying again ({attempt})").format(attempt=state.loss.attempt) if state.loss.attempt else ""
            )
            lost = self.tr("Lost {minutes:02d}:{seconds:02d} ago").format(minutes=gone_s // 60, seconds=gone_s % 60)
            self._paint_chip(painter, lost + again, self.rect().center().y())
        elif state.opening and self._opening.isValid() and self._opening.hasExpired(OPENING_AFTER_MS):
            self._paint_chip(painter, self.tr("Opening {name} …").format(name=state.opening), self.rect().center().y())
        if self._picture is None:
            return
        self.compare.paint_words(painter, self._picture.result)
        top, t = max(0, int(self.picture_rect.top())) + 30, self._theme.tokens
        if state.running is not None and state.running.random_weights:
            words = self.tr("Random weights: these boxes mean nothing")
            self._paint_chip(painter, words, top, t.notice_ground, t.notice_text)
        elif state.running is None and state.loading is not None:
            name = state.loading.upper() if len(state.loading) == 1 else Path(state.loading).name
            self._paint_chip(painter, self.tr("Loading {name}, boxes will follow …").format(name=name), top)
        if self.hand.busy:
            self._paint_chip(painter, self.hand.words(), top + (44 if self.words else 0))

    def _paint_chip(
        self, painter: QPainter, text: str, middle_y: int, ground: str = "#10141a", colour: str = "#ffffff"
    ) -> None:
        """Text on a rounded ground, readable over any picture."""
        self.words.append(text)
        metrics = self.fontMetrics()
        room = self.width() - self.taken_left
        width = min(metrics.horizontalAdvance(text) + 32, room - 16)
        height = metrics.height() + 16
        chip = QRectF(self.taken_left + (room - width) / 2, middle_y - height / 2, width, height)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(ground))
        painter.drawRoundedRect(chip, height / 2, height / 2)
        painter.setPen(QColor(colour))
        painter.setFont(self.font())
        shown = metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, int(width) - 24)
        painter.drawText(chip, int(Qt.AlignmentFlag.AlignCenter), shown)

    def _watch_opening(self) -> None:
        """Words that change with time need repaints although no picture comes."""
        state = self._session.state
        if not state.opening:
            self._opening.invalidate()
        elif not self._opening.isValid():
            self._opening.start()
        if bool(state.opening) or state.phase is State.RECONNECTING or state.loss is not None:
            self._ticks.start()
        else:
            self._ticks.stop()


def _image_of(picture: Picture) -> QImage:
    width, height = picture.size_wh
    return QImage(picture.bgrx.data, width, height, 4 * width, QImage.Format.Format_RGB32)
