"""Good news over the picture for a few seconds, with a way to the file."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QWidget

from ledetr_app.session import Session

SHOWN_MS = 5000
GAP = 18


class ToastBox(QFrame):
    """Shows session.state.toast once; sits at the lower edge of its parent."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("toast")
        self._session = session
        self._over = parent
        self._serial = 0
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.show_button = QPushButton(self.tr("Show"))
        self.show_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.show_button.setAccessibleName(self.tr("Show the file in its folder"))
        self.show_button.clicked.connect(self._open_folder)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 8, 8, 8)
        row.setSpacing(12)
        row.addWidget(self.text)
        row.addWidget(self.show_button)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.hide)
        self.hide()

    def refresh(self) -> None:
        """Follow the session."""
        toast = self._session.state.toast
        if toast is None or toast.serial == self._serial:
            return
        self._serial = toast.serial
        self.text.setText(toast.text)
        self.show_button.setVisible(toast.path is not None)
        self.place()
        self.show()
        self.raise_()
        self._timer.start(SHOWN_MS)

    def place(self) -> None:
        """Lower middle of the parent."""
        self.adjustSize()
        room = self._over.size()
        self.move((room.width() - self.width()) // 2, room.height() - self.height() - GAP)

    def _open_folder(self) -> None:
        toast = self._session.state.toast
        if toast is not None and toast.path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(toast.path.parent)))
