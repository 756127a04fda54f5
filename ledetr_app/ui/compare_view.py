"""Two opinions in one picture: left and right of a line that can be moved, or beside what people drew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PySide6.QtCore import QEvent, QRectF, Qt
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from ledetr.chain.overlay import PALETTE, Pen, marks_of
from ledetr.chain.pipeline import Result
from ledetr.detections import Detections
from ledetr.frame import FrameMeta
from ledetr_app.compare import Compared, Comparison
from ledetr_app.model_loader import ModelWish
from ledetr_app.session import Session
from ledetr_app.ui.marks import paint_marks
from ledetr_app.verdict import Verdict

HANDLE_PX = 26
STEP = 0.02
CHIP_GAP_PX = 16
CHIP_LEAST_PX = 60
_CHIP_GROUND = QColor(16, 20, 26, 225)
_YELLOW, _GREEN, _VERMILION = 2, 4, 5  # places in PALETTE: missed, found, made up
_FOUND_TRUTH = QColor(255, 255, 255)


@dataclass(frozen=True, slots=True)
class Paper:
    """Where is painted, in pixels of the picture as it is drawn. fitted_hw: the size that lines and letters fit."""

    size_hw: tuple[int, int]
    fitted_hw: tuple[int, int]


class CompareLayer(QWidget):
    """The handle on the line; it also paints, for the view, what lies left and right of it."""

    def __init__(self, session: Session, view: QWidget) -> None:
        super().__init__(view)
        self._session = session
        self._compare = session.compare
        self._room = QRectF()
        self.words: list[str] = []  # what was last written over the picture
        self.setFixedWidth(HANDLE_PX)
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName(self.tr("Line between the two models"))
        self.setToolTip(self.tr("Left of the line the first model, right of it the second"))
        self.hide()

    def place(self, picture: QRectF, view: QRectF) -> None:
        """The picture is there now, in logical pixels of the view, of which this much can be seen."""
        self._room = picture.intersected(view)
        state = self._compare.state
        self.setVisible(state.other is not None and not self._room.isEmpty())
        if self.isVisible():
            x = self._room.left() + state.split * self._room.width()
            self.setGeometry(
                round(x) - HANDLE_PX // 2, round(self._room.top()), HANDLE_PX, max(1, round(self._room.height()))
            )

    def paint_opinions(self, painter: QPainter, result: Result, paper: Paper, picture: QRectF) -> bool:
        """Both opinions on the result; False where there is one only, and the usual marks are to be painted.

        The painter stands at the picture's corner.
        """
        compared = self._compare.of(result)
        if compared is None or not self._session.state.boxes:
            return False
        if compared.other is not None:
            self._paint_models(painter, compared, paper, picture)
        elif compared.verdict is not None:
            self._paint_verdict(painter, compared.verdict, result, paper)
        else:
            return False
        return True

    def paint_words(self, painter: QPainter, result: Result | None) -> None:
        """Which model is left and right, and how long each looked; or how many were found."""
        state, compared = self._compare.state, self._compare.of(result)
        self.words = []
        if not state.on or result is None:
            return
        if state.truth is not None:
            self._chip(painter, self._words_of_truth(state.truth, compared), left=True)
            return
        self._chip(painter, self._words_of_running(result), left=True)
        self._chip(painter, self._words_of_other(state, compared), left=False)

    # The handle

    def paintEvent(self, event: QPaintEvent) -> None:
        """A bright line on a dark one, and a grip in its middle."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle, grip = self.width() / 2, QRectF(self.width() / 2 - 9, self.height() / 2 - 18, 18, 36)
        for colour, width in ((QColor(16, 18, 22), 4.0), (QColor(255, 255, 255), 2.0)):
            painter.setPen(QPen(colour, width))
            painter.drawLine(round(middle), 0, round(middle), self.height())
        painter.setPen(QPen(QColor(16, 18, 22), 3 if self.hasFocus() else 1))
        painter.setBrush(QColor(255, 255, 255))
        painter.drawRoundedRect(grip, 9, 9)
        painter.setPen(QPen(QColor(16, 18, 22), 1.5))
        for x in (middle - 3, middle + 3):
            painter.drawLine(round(x), round(grip.center().y() - 6), round(x), round(grip.center().y() + 6))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Taken here, so that the picture below is not clicked."""
        event.accept()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """The line follows."""
        if event.buttons() & Qt.MouseButton.LeftButton and self._room.width() > 0:
            x = self.mapToParent(event.position()).x()
            self._compare.set_split((x - self._room.left()) / self._room.width())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Back to the middle."""
        self._compare.set_split(0.5)

    def event(self, event: QEvent) -> bool:
        """The arrows are its own before they are shortcuts."""
        if (
            event.type() == QEvent.Type.ShortcutOverride
            and isinstance(event, QKeyEvent)
            and event.key() in (Qt.Key.Key_Left, Qt.Key.Key_Right)
            and not event.modifiers()
        ):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """The arrows move the line."""
        steps = {Qt.Key.Key_Left: -STEP, Qt.Key.Key_Right: STEP}
        if event.key() in steps:
            self._compare.set_split(self._compare.state.split + steps[Qt.Key(event.key())])
        else:
            super().keyPressEvent(event)

    # Marks

    def _paint_models(self, painter: QPainter, compared: Compared, paper: Paper, picture: QRectF) -> None:
        assert compared.other is not None
        line = self._room.left() - picture.left() + self._compare.state.split * self._room.width()
        height, width = paper.size_hw
        sides = (
            (QRectF(0, 0, line, height), compared.result.detections),
            (QRectF(line, 0, width - line, height), compared.other),
        )
        for rect, detections in sides:
            painter.save()
            painter.setClipRect(rect, Qt.ClipOperation.IntersectClip)
            seen = detections[self._session.state.class_filter.mask(detections)]
            self._paint_boxes(painter, seen, compared.result.frame.meta, paper)
            painter.restore()

    def _paint_boxes(self, painter: QPainter, seen: Detections, meta: FrameMeta, paper: Paper) -> None:
        state = self._session.state
        pen = Pen.of(paper.fitted_hw, weight=state.line_weight)
        marks = marks_of(
            _scaled(seen, meta, paper),
            conf=0.0,
            labels=state.labels,
            scores=state.scores,
            ids=state.ids,
            size_hw=paper.size_hw,
            pen=pen,
        )
        paint_marks(painter, marks)

    def _paint_verdict(self, painter: QPainter, verdict: Verdict, result: Result, paper: Paper) -> None:
        state, detections, meta = self._session.state, result.detections, result.frame.meta
        found = verdict.found(state.conf)
        wanted = np.array([state.shown_classes is None or name in state.shown_classes for name in verdict.truth_names])
        pen = Pen.of(paper.fitted_hw, weight=state.line_weight)
        scale_x, scale_y = paper.size_hw[1] / meta.width, paper.size_hw[0] / meta.height
        for row in np.flatnonzero(wanted) if len(wanted) else ():
            x0, y0, x1, y1 = (float(value) for value in verdict.truth_xyxy[row])
            rect = QRectF(x0 * scale_x, y0 * scale_y, (x1 - x0) * scale_x, (y1 - y0) * scale_y)
            colour = _FOUND_TRUTH if found[row] else QColor(*PALETTE[_YELLOW])
            _paint_dashed(painter, rect, colour, float(pen.line_px))
        seen = state.class_filter.mask(detections)
        kinds = np.where(verdict.hit, _GREEN, _VERMILION)
        signs = {_GREEN: "✓", _VERMILION: "✗"}
        rows = np.flatnonzero(seen & verdict.known)
        words = [f"{signs[int(kinds[row])]} {detections.class_name(int(detections.class_id[row]))}" for row in rows]
        told = _told(detections.xyxy[rows], detections.confidence[rows], words, kinds[rows])
        self._paint_boxes(painter, told, meta, paper)
        missed = np.flatnonzero(wanted & ~found) if len(wanted) else np.zeros(0, np.int64)
        names = [self.tr("missed: {name}").format(name=verdict.truth_names[row]) for row in missed]
        told = _told(verdict.truth_xyxy[missed], np.ones(len(missed)), names, np.full(len(missed), _YELLOW))
        self._paint_missed(painter, told, meta, paper)

    def _paint_missed(self, painter: QPainter, told: Detections, meta: FrameMeta, paper: Paper) -> None:
        """Their words alone: the dashed box is there already."""
        if not self._session.state.labels:
            return
        pen = Pen.of(paper.fitted_hw, weight=self._session.state.line_weight)
        marks = marks_of(_scaled(told, meta, paper), conf=0.0, scores=False, size_hw=paper.size_hw, pen=pen)
        paint_marks(painter, marks[len(told) :])

    # Words

    def _words_of_running(self, result: Result) -> str:
        state, took = self._session.state, result.timings
        looked_ms = max(0, took.postprocessed_ns - took.taken_ns) / 1e6
        name = "–" if state.running is None else _name(state.running.wish)
        return self._words(name, looked_ms, len(result.detections[state.class_filter.mask(result.detections)]))

    def _words_of_other(self, state: Comparison, compared: Compared | None) -> str:
        assert state.other is not None
        name = _name(state.other)
        if compared is None or compared.other is None:
            return self.tr("Loading {name} …").format(name=name) if state.running is None else name
        seen = self._session.state.class_filter.mask(compared.other)
        return self._words(name, compared.other_ms, int(seen.sum()))

    def _words(self, name: str, looked_ms: float, boxes: int) -> str:
        return self.tr("{name}   {ms:.0f} ms   {boxes} boxes").format(name=name, ms=looked_ms, boxes=boxes)

    def _words_of_truth(self, truth: Path, compared: Compared | None) -> str:
        if compared is None:
            return self.tr("Reading {name} …").format(name=truth.name)
        if compared.verdict is None:
            return self.tr("{name} does not know this picture").format(name=truth.name)
        verdict, detections = compared.verdict, compared.result.detections
        conf = self._session.state.conf
        found = int(verdict.found(conf).sum())
        strong = (detections.confidence >= conf) & verdict.known
        return self.tr("{name}   {found} found   {missed} missed   {made} made up").format(
            name=truth.name,
            found=found,
            missed=len(verdict.truth_names) - found,
            made=int((strong & ~verdict.hit).sum()),
        )

    def _chip(self, painter: QPainter, words: str, *, left: bool) -> None:
        """At the top of the picture, on its side of the line; in the corner where there is no line."""
        self.words.append(words)
        metrics, room, state = painter.fontMetrics(), self._room, self._compare.state
        line = room.right() if state.truth else room.left() + state.split * room.width()
        free = (line - room.left() if left else room.right() - line) - 2 * CHIP_GAP_PX
        width, height = min(metrics.horizontalAdvance(words) + 24, free), metrics.height() + 10
        if width < CHIP_LEAST_PX:
            return
        x = room.left() + CHIP_GAP_PX if state.truth else line - CHIP_GAP_PX - width if left else line + CHIP_GAP_PX
        chip = QRectF(x, room.top() + 12, width, height)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(_CHIP_GROUND)
        painter.drawRoundedRect(chip, 8, 8)
        painter.setPen(QColor(255, 255, 255))
        shown = metrics.elidedText(words, Qt.TextElideMode.ElideMiddle, int(width) - 16)
        painter.drawText(chip, int(Qt.AlignmentFlag.AlignCenter), shown)


def _name(wish: ModelWish) -> str:
    """N, or N / 1 where only so many of its decoder layers are used."""
    name = wish.choice.upper() if len(wish.choice) == 1 else Path(wish.choice).stem
    return name if wish.decoder_layers is None else f"{name} / {wish.decoder_layers}"


def _scaled(detections: Detections, meta: FrameMeta, paper: Paper) -> Detections:
    height, width = paper.size_hw
    scale = np.array([width / meta.width, height / meta.height] * 2, np.float32)
    return replace(detections, xyxy=detections.xyxy * scale)


def _told(xyxy: np.ndarray, scores: np.ndarray, words: list[str], kinds: np.ndarray) -> Detections:
    """Boxes that carry these words, in the colour at that place of the palette.

    Marks take words and colour from the class, so each box gets a class of its own, with a number of that colour.
    """
    ids = kinds.astype(np.int64) + len(PALETTE) * np.arange(len(words), dtype=np.int64)
    names = [""] * (int(ids.max()) + 1 if len(ids) else 0)
    for number, word in zip(ids, words, strict=True):
        names[number] = word
    return Detections(xyxy.astype(np.float32), scores.astype(np.float32), ids, class_names=tuple(names))


def _paint_dashed(painter: QPainter, rect: QRectF, colour: QColor, line_px: float) -> None:
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(QColor(16, 18, 22), line_px + 2))
    painter.drawRect(rect)
    pen = QPen(colour, line_px)
    pen.setDashPattern([3.0, 2.0])
    painter.setPen(pen)
    painter.drawRect(rect)
