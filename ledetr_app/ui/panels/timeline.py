"""Play, stop, step, and where in the file the shown picture is."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QFont, QMouseEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSlider, QStyle, QWidget

from ledetr.chain.pipeline import Result, State
from ledetr_app.session import Session
from ledetr_app.ui.panels.display import action_button
from ledetr_app.ui.shortcuts import Actions
from ledetr_app.ui.text import clock
from ledetr_app.ui.theme import Theme


class SeekSlider(QSlider):
    """A click goes to the place under the pointer, not one page towards it."""

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


class TimelinePanel(QFrame):
    """Time and frame number are always those of the picture that is shown. Values of the slider are milliseconds."""

    def __init__(self, session: Session, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("transport")
        self._session = session
        self._theme = theme
        self._play = actions["play"]
        self._icon = ""
        self.buttons = {name: action_button(actions, name) for name in ("step_back", "play", "step_on", "stop")}
        self.position = QLabel()
        self.duration = QLabel()
        self.frame_number = QLabel()
        for label in (self.position, self.duration, self.frame_number):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setFont(_tabular(label.font()))
        self.duration.setProperty("tone", "muted")
        self.frame_number.setProperty("tone", "muted")
        self.slider = SeekSlider(Qt.Orientation.Horizontal)
        self.slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.slider.setAccessibleName(self.tr("Position in the file"))
        self.slider.setSingleStep(1000)
        self.slider.setPageStep(5000)
        self.name = QLabel()
        self.name.setTextFormat(Qt.TextFormat.PlainText)
        self.fullscreen = action_button(actions, "fullscreen")
        self._lay_out()
        self.slider.valueChanged.connect(self._on_slider)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        playing = state.phase in (State.RUNNING, State.OPENING, State.RECONNECTING) and not state.ended
        icon = "pause" if playing and state.has_source else "play"
        if icon != self._icon:
            self._icon = icon
            self._theme.bind_icon(self._play, icon)
        source = state.source
        with_time = source is not None and source.seekable and source.duration_s is not None
        for widget in (self.slider, self.duration):
            widget.setVisible(with_time)
        self.name.setVisible(not with_time)
        self.name.setText("" if source is None else source.display_name)
        if with_time and source is not None and source.duration_s is not None:
            with QSignalBlocker(self.slider):
                self.slider.setMaximum(round(1000 * source.duration_s))
            self.duration.setText(clock(source.duration_s))
        self.show_position()

    def show_position(self) -> None:
        """Follow the picture on the screen."""
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

    def _seconds(self, result: Result) -> float:
        source = self._session.state.source
        return result.frame.meta.pts_s - (source.start_s if source is not None else 0.0)

    def _on_slider(self, value_ms: int) -> None:
        source = self._session.state.source
        if source is not None:
            self._session.seek(source.start_s + value_ms / 1000)

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
        row.addWidget(self.fullscreen)


def _tabular(font: QFont) -> QFont:
    """Digits of one width, so that running time does not tremble."""
    font.setStyleHint(QFont.StyleHint.SansSerif)
    font.setFeature(QFont.Tag("tnum"), 1)
    return font
