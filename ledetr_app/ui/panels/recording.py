"""Record and snapshot."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from ledetr_app.session import Session
from ledetr_app.ui.panels.display import action_button
from ledetr_app.ui.shortcuts import Actions
from ledetr_app.ui.text import clock, megabytes
from ledetr_app.ui.theme import Theme


class RecordingPanel(QWidget):
    """The record button shows length and size while it records."""

    def __init__(self, session: Session, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.record = QToolButton()
        self.record.setObjectName("recordButton")
        self.record.setCheckable(True)
        self.record.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.record.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.record.setAccessibleName(self.tr("Record"))
        self.record.setToolTip(self.tr("Record what is seen, with boxes (R)"))
        theme.bind_icon(self.record, "record", "danger")
        self.record.clicked.connect(self._on_clicked)
        self.snapshot = action_button(actions, "snapshot")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.record)
        row.addWidget(self.snapshot)
        self._second = QTimer(self)
        self._second.setInterval(500)
        self._second.timeout.connect(self._show_length)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        recording = self._session.state.recording is not None
        self.record.setChecked(recording)
        if recording and not self._second.isActive():
            self._second.start()
            self._show_length()
        elif not recording:
            self._second.stop()
            self.record.setText(" " + self.tr("Record"))

    def _on_clicked(self) -> None:
        self._session.toggle_recording()
        self.refresh()  # the button shows what is, not what was wished

    def _show_length(self) -> None:
        status = self._session.recording_status()
        if status is not None:
            self.record.setText(f" {clock(status.seconds, ms=False)}  {megabytes(status.nbytes)}")
