"""Play, stop, step, speed, loop, and where in the file the shown picture is."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QRectF, QSignalBlocker, Qt
from PySide6.QtGui import QActionGroup, QColor, QFont, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QMenu, QSlider, QStyle, QToolButton, QWidget

from ledetr.chain.pipeline import Result, State
from ledetr.chain.sources import SourceInfo
from ledetr_app.player import SPEEDS
from ledetr_app.session import Session
from ledetr_app.ui.panels.display import action_button
from ledetr_app.ui.shortcuts import Actions
from ledetr_app.ui.text import clock
from ledetr_app.ui.theme import Theme

FLAG_PX = 9
HEAT_PX = 11
HEAT_GAP_PX = 2


class SeekSlider(QSlider):
    """A click goes to the place under the pointer, not one page towards it. part_ms: what is marked on the groove."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self._theme = theme
        self.part_ms: tuple[int | None, int | None] = (None, None)
        self.heights: np.ndarray | None = None

    def set_heights(self, heights: np.ndarray | None) -> None:
        """How much was found in each part of the file, -1 where nobody has looked; None: no bar."""
        self.heights = heights
        self.update()

    def set_part(self, start_ms: int | None, end_ms: int | None) -> None:
        """Mark a part; None: open on that side."""
        if (start_ms, end_ms) != self.part_ms:
            self.part_ms = (start_ms, end_ms)
            self.update()

    def x_of(self, value_ms: int) -> int:
        """Where the middle of the handle is at that value."""
        handle = self.style().pixelMetric(QStyle.PixelMetric.PM_SliderLength, None, self)
        room = max(1, self.width() - handle)
        return handle // 2 + QStyle.sliderPositionFromValue(self.minimum(), self.maximum(), value_ms, room)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Jump there, then let the drag begin."""
        if event.button() == Qt.MouseButton.LeftButton:
            handle = self.style().pixelMetric(QStyle.PixelMetric.PM_SliderLength, None, self)
            room = max(1, self.width() - handle)
            self.setValue(
                QStyle.sliderValueFromPosition(
                    self.minimum(), self.maximum(), round(event.position().x() - handle / 2), room
                )
            )
        super().mousePressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """What was found where, the slider over it, and a bracket around the part."""
        if self.heights is not None:
            self._paint_heights(self.heights)
        super().paintEvent(event)
        start_ms, end_ms = self.part_ms
        if start_ms is None and end_ms is None:
            return
        left = self.x_of(self.minimum() if start_ms is None else start_ms)
        right = self.x_of(self.maximum() if end_ms is None else end_ms)
        low = self.height() / 2 + FLAG_PX
        painter = QPainter(self)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self._theme.tokens.accent))
        painter.drawRect(QRectF(left, low, max(2, right - left), 2))
        for x, there in ((left, start_ms is not None), (right - 2, end_ms is not None)):
            if there:
                painter.drawRect(QRectF(x, low - 2 * FLAG_PX, 2, 2 * FLAG_PX))
        painter.end()

    def _paint_heights(self, heights: np.ndarray) -> None:
        """Columns that stand on the groove; a line where somebody looked."""
        left, right = self.x_of(self.minimum()), self.x_of(self.maximum())
        step, most = (right - left) / len(heights), max(1.0, float(heights.max()))
        base = self.height() / 2 - HEAT_GAP_PX
        painter = QPainter(self)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self._theme.tokens.heat))
        for place in np.flatnonzero(heights >= 0):
            tall = 1 + HEAT_PX * float(heights[place]) / most
            painter.drawRect(QRectF(left + place * step, base - tall, step + 0.5, tall))
        painter.end()


class TimelinePanel(QFrame):
    """Time and frame number are always those of the picture that is shown. Values of the slider are milliseconds."""

    def __init__(self, session: Session, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("transport")
        self._session = session
        self._theme = theme
        self._play = actions["play"]
        self._icon = ""
        self._scan = actions["scan_file"]
        self._heat_seen: object = None
        self.buttons = {name: action_button(actions, name) for name in ("step_back", "play", "step_on", "stop")}
        self.position = QLabel()
        self.duration = QLabel()
        self.frame_number = QLabel()
        for label in (self.position, self.duration, self.frame_number):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setFont(_tabular(label.font()))
        self.duration.setProperty("tone", "muted")
        self.frame_number.setProperty("tone", "muted")
        self.slider = SeekSlider(theme)
        self.slider.setMinimumHeight(2 * (HEAT_PX + HEAT_GAP_PX + 2))
        self.slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.slider.setAccessibleName(self.tr("Position in the file"))
        self.slider.setSingleStep(1000)
        self.slider.setPageStep(5000)
        self.name = QLabel()
        self.name.setTextFormat(Qt.TextFormat.PlainText)
        self.speed = self._speed_button()
        self.loop = action_button(actions, "loop")
        self.loop_menu = QMenu(self)
        for name in ("point_in", "point_out", "clear_points"):
            self.loop_menu.addAction(actions[name])
        self.loop.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.loop.customContextMenuRequested.connect(lambda at: self.loop_menu.popup(self.loop.mapToGlobal(at)))
        self.fullscreen = action_button(actions, "fullscreen")
        self._lay_out()
        self.slider.valueChanged.connect(self._on_slider)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        self._show_play_icon()
        source = state.source
        seekable = source is not None and source.seekable
        with_time = source is not None and source.seekable and source.duration_s is not None
        for widget in (self.slider, self.duration):
            widget.setVisible(with_time)
        for button in (self.speed, self.loop):
            button.setVisible(seekable)
        self.speed.setText(f"{state.speed:g}×")
        self.speeds[min(SPEEDS, key=lambda speed: abs(speed - state.speed))].setChecked(True)
        self.name.setVisible(not with_time)
        self.name.setText("" if source is None else source.display_name)
        if with_time and source is not None and source.duration_s is not None:
            with QSignalBlocker(self.slider):
                self.slider.setMaximum(round(1000 * source.duration_s))
            self.slider.set_part(_ms(state.in_s, source), _ms(state.out_s, source))
            self.duration.setText(clock(source.duration_s))
        self.show_position()

    def show_position(self) -> None:
        """Follow the picture on the screen, and what is known of the others."""
        self._show_heat()
        result = self._session.shown
        self.position.setVisible(result is not None)
        self.frame_number.setVisible(result is not None and result.frame.meta.index is not None)
        if result is None:
            return
        seconds = self._seconds(result)
        self.position.setText(clock(seconds))
        if result.frame.meta.index is not None:
            self.frame_number.setText(self.tr("frame {index}").format(index=result.frame.meta.index))
        if not self.slider.isSliderDown():
            with QSignalBlocker(self.slider):
                self.slider.setValue(round(1000 * seconds))

    def _show_heat(self) -> None:
        heat = self._session.heat
        self._scan.setEnabled(heat.can_scan)
        self._scan.setChecked(heat.scanning)
        facts = (heat.version, self._session.state.class_filter)
        if facts != self._heat_seen:
            self._heat_seen = facts
            self.slider.set_heights(heat.heights())

    def _show_play_icon(self) -> None:
        state = self._session.state
        playing = state.phase in (State.RUNNING, State.OPENING, State.RECONNECTING) and state.has_source
        icon = "replay" if state.ended else "pause" if playing else "play"
        if icon == self._icon:
            return
        self._icon = icon
        self._theme.bind_icon(self._play, icon)
        words = {"replay": self.tr("Play again"), "pause": self.tr("Pause"), "play": self.tr("Play")}[icon]
        self.buttons["play"].setToolTip(f"{words} ({self._play.shortcut().toString()})")
        self.buttons["play"].setAccessibleName(words)

    def _seconds(self, result: Result) -> float:
        source = self._session.state.source
        return result.frame.meta.pts_s - (source.start_s if source is not None else 0.0)

    def _on_slider(self, value_ms: int) -> None:
        source = self._session.state.source
        if source is not None:
            self._session.seek(source.start_s + value_ms / 1000)

    def _speed_button(self) -> QToolButton:
        button = QToolButton()
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setAccessibleName(self.tr("Speed"))
        button.setToolTip(self.tr("Speed ([ slower, ] faster, Backspace real time)"))
        menu, group = QMenu(button), QActionGroup(button)
        self.speeds = {}
        for speed in SPEEDS:
            action = self.speeds[speed] = menu.addAction(f"{speed:g}×")
            action.setCheckable(True)
            action.triggered.connect(lambda _checked=False, speed=speed: self._session.set_speed(speed))
            group.addAction(action)
        button.setMenu(menu)
        button.setMinimumWidth(button.fontMetrics().horizontalAdvance("0.25×") + 24)
        return button

    def _lay_out(self) -> None:
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 6, 12, 6)
        row.setSpacing(4)
        for button in self.buttons.values():
            row.addWidget(button)
        row.addSpacing(10)
        row.addWidget(self.position)
        row.addSpacing(8)
        row.addWidget(self.slider, 1)
        row.addWidget(self.name, 1)
        row.addSpacing(8)
        row.addWidget(self.duration)
        row.addSpacing(10)
        row.addWidget(self.frame_number)
        row.addSpacing(6)
        row.addWidget(self.speed)
        row.addWidget(self.loop)
        row.addWidget(self.fullscreen)


def _ms(pts_s: float | None, source: SourceInfo) -> int | None:
    """A time of the file as a value of the slider."""
    return None if pts_s is None else round(1000 * (pts_s - source.start_s))


def _tabular(font: QFont) -> QFont:
    """Digits of one width, so that running time does not tremble."""
    font.setStyleHint(QFont.StyleHint.SansSerif)
    font.setFeature(QFont.Tag("tnum"), 1)
    return font
