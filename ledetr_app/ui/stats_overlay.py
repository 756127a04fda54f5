"""The numbers of the meters over the picture, and the age of the last minute as a line."""

from __future__ import annotations

import math
from collections import deque

from PySide6.QtCore import QPointF, QRectF, Qt, QTimer
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QVBoxLayout, QWidget

from ledetr.chain.meters import MeterSnapshot
from ledetr_app.session import Session

SAMPLE_MS = 250
WINDOW_S = 60
GAP = 14
_GRID = QColor(255, 255, 255, 60)
_TEXT = QColor(226, 232, 240)
_LINE = QColor(86, 180, 233)
_MARK = QColor(230, 159, 0)


class AgeGraph(QWidget):
    """The newest ages on the right, a minute wide; p95 as a dashed line. Its scale is a round number of ms."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(84)
        self.setAccessibleName(self.tr("Age of the picture over the last minute"))
        self.samples: deque[tuple[float, float]] = deque(maxlen=WINDOW_S * 1000 // SAMPLE_MS + 1)
        self._p95_ms: float | None = None

    def add(self, at_s: float, age_ms: float, p95_ms: float) -> None:
        """One more age; those older than a minute go."""
        self.samples.append((at_s, age_ms))
        while at_s - self.samples[0][0] > WINDOW_S:
            self.samples.popleft()
        self._p95_ms = p95_ms
        self.update()

    def clear(self) -> None:
        """Begin again, with a new source."""
        if self.samples:
            self.samples.clear()
            self._p95_ms = None
            self.update()

    @property
    def top_ms(self) -> int:
        """The age at the upper edge: 1, 2 or 5 times a power of ten, above all that is shown."""
        highest = max([age for _, age in self.samples] + [self._p95_ms or 0.0, 10.0])
        ten: int = 10 ** int(math.log10(highest))
        return next(step * ten for step in (1, 2, 5, 10) if step * ten > highest)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Grid, line, p95."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        room = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.setPen(QPen(_GRID, 1))
        for part in (0.0, 0.5, 1.0):
            y = room.top() + part * room.height()
            painter.drawLine(QPointF(room.left(), y), QPointF(room.right(), y))
        if self.samples:
            now_s = self.samples[-1][0]
            points = [
                QPointF(room.right() - (now_s - at_s) / WINDOW_S * room.width(), self._y(room, age))
                for at_s, age in self.samples
            ]
            painter.setPen(QPen(_LINE, 1.6))
            painter.drawPolyline(QPolygonF(points))
        if self._p95_ms is not None:
            painter.setPen(QPen(_MARK, 1.2, Qt.PenStyle.DashLine))
            y = self._y(room, self._p95_ms)
            painter.drawLine(QPointF(room.left(), y), QPointF(room.right(), y))
        painter.setPen(_TEXT)
        top = self.tr("{ms} ms").format(ms=self.top_ms)
        painter.drawText(room.adjusted(4, 2, -4, -2), int(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft), top)
        painter.end()

    def _y(self, room: QRectF, age_ms: float) -> float:
        return room.bottom() - min(1.0, age_ms / self.top_ms) * room.height()


class StatsOverlay(QFrame):
    """All meters, in the upper left corner of the picture; samples them only while it is shown."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("statsOverlay")
        self.setAccessibleName(self.tr("Numbers of the meters"))
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._session = session
        self._source: object = None
        self._sampled = 0  # number of the picture that was looked at last: a paused one does not grow older
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(14)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self.values: dict[str, QLabel] = {}
        for key, name in self._names().items():
            self._add_row(key, name)
        self.graph = AgeGraph()
        caption = _label(self.tr("Age of the picture, last 60 s; dashed: p95"))
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 10, 14, 12)
        column.setSpacing(6)
        column.addLayout(self._grid)
        column.addWidget(caption)
        column.addWidget(self.graph)
        self.setFixedWidth(316)
        self._timer = QTimer(self)
        self._timer.setInterval(SAMPLE_MS)
        self._timer.timeout.connect(self.sample)
        self.hide()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        wanted = state.stats and state.has_source
        if state.source is not self._source:
            self._source = state.source
            self.graph.clear()
        if wanted and not self._timer.isActive():
            self._timer.start()
            self.sample()
            self.place()
        elif not wanted:
            self._timer.stop()
        self.setVisible(wanted)

    def sample(self) -> None:
        """Take the meters as they are now."""
        meters = self._session.meters()
        for key, text in self._texts(meters).items():
            self.values[key].setText(text)
        shown = self._session.shown
        fresh = shown is not None and shown.timings.painted_ns and shown.number != self._sampled
        if fresh and shown is not None and meters.age_p95_ms is not None:
            self._sampled = shown.number
            age_ms = (shown.timings.painted_ns - shown.timings.captured_ns) / 1e6
            self.graph.add(self._session.clock.now_ns() / 1e9, age_ms, meters.age_p95_ms)

    def place(self) -> None:
        """Upper left corner of the picture."""
        self.adjustSize()
        self.move(GAP, GAP)

    def _names(self) -> dict[str, str]:
        return {
            "capture": self.tr("Capture"),
            "infer": self.tr("Infer"),
            "render": self.tr("Draw"),
            "age": self.tr("Age p50 / p95"),
            "dropped": self.tr("Dropped: model / screen"),
            "wait": self.tr("Wait for the model"),
            "preprocess": self.tr("Preprocess"),
            "inference": self.tr("Network"),
            "postprocess": self.tr("Postprocess"),
            "model": self.tr("Model"),
        }

    def _texts(self, meters: MeterSnapshot) -> dict[str, str]:
        fps, ms = self.tr("{:.1f} fps"), self.tr("{:.1f} ms")
        stages = {
            key: ms.format(meters.stage_ms[stage]) if stage in meters.stage_ms else "–"
            for key, stage in {
                "wait": "wait",
                "preprocess": "preprocess",
                "inference": "infer",
                "postprocess": "postprocess",
            }.items()
        }
        ages = (meters.age_p50_ms, meters.age_p95_ms)
        running = self._session.state.running
        return {
            "capture": fps.format(meters.capture_fps),
            "infer": fps.format(meters.infer_fps),
            "render": fps.format(meters.render_fps),
            "age": self.tr("{:.0f} / {:.0f} ms").format(*ages) if None not in ages else "–",
            "dropped": f"{meters.dropped_before_inference} / {meters.dropped_before_paint}",
            **stages,
            "model": "–" if running is None else f"{running.engine} · {running.device} · {running.precision}",
        }

    def _add_row(self, key: str, name: str) -> None:
        row = self._grid.rowCount()
        value = _label("–")
        value.setAccessibleName(name)
        self._grid.addWidget(_label(name), row, 0)
        # The label has all of the column, so that a longer number is not cut until the layout has heard of it.
        value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._grid.addWidget(value, row, 1)
        self.values[key] = value


def _label(text: str) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
