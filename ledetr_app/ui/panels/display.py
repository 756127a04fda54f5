"""What is drawn over the picture: the score threshold, and boxes, labels and the class list on or off."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSlider, QToolButton, QWidget

from ledetr_app.display import CONF_RANGE
from ledetr_app.session import Session
from ledetr_app.ui.shortcuts import Actions


def action_button(actions: Actions, name: str, parent: QWidget | None = None) -> QToolButton:
    """A flat button with the action's icon; its words and keys are the tool tip."""
    action = actions[name]
    button = QToolButton(parent)
    button.setDefaultAction(action)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
    button.setProperty("flat", True)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.setAccessibleName(action.text())
    keys = action.shortcut().toString()
    button.setToolTip(f"{action.text()} ({keys})" if keys else action.text())
    return button


class DisplayPanel(QWidget):
    """The slider acts at once, also while paused: the boxes are there already, only fewer or more are painted."""

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        label = QLabel(self.tr("Score"))
        label.setProperty("tone", "muted")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(*(round(100 * limit) for limit in CONF_RANGE))
        self.slider.setSingleStep(1)
        self.slider.setPageStep(5)
        self.slider.setFixedWidth(130)
        self.slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.slider.setAccessibleName(self.tr("Score threshold"))
        self.slider.setToolTip(self.tr("Hide boxes with a lower score (Up, Down)"))
        self.value = QLabel()
        self.value.setMinimumWidth(self.fontMetrics().horizontalAdvance("0.00") + 4)
        self.buttons = {
            name: action_button(actions, name)
            for name in ("boxes", "labels", "tracking", "results_panel", "side_panel")
        }
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(label)
        row.addWidget(self.slider)
        row.addWidget(self.value)
        row.addSpacing(6)
        for button in self.buttons.values():
            row.addWidget(button)
        self.slider.valueChanged.connect(lambda hundredths: session.set_conf(hundredths / 100))
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        conf = self._session.state.conf
        with QSignalBlocker(self.slider):  # what comes from the session is not a wish of the user
            self.slider.setValue(round(100 * conf))
        self.value.setText(f"{conf:.2f}")
