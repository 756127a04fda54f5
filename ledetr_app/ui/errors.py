"""The one place an error is shown: a bar with one sentence, Details and a close button."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontDatabase
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ledetr_app.session import Session
from ledetr_app.state import Problem
from ledetr_app.ui.theme import Theme, svg_pixmap


class ErrorBar(QFrame):
    """Shows session.state.problem while there is one. All of it is outside text, so all of it is plain text."""

    def __init__(self, session: Session, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("errorBar")
        self.setAccessibleName(self.tr("Problem"))
        self._session = session
        self._theme = theme
        self._problem: Problem | None = None
        self._tone = "error"
        self._sign = QLabel()
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.sentence.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.details_button = QToolButton()
        self.details_button.setText(self.tr("Details"))
        self.details_button.setCheckable(True)
        self.close_button = QToolButton()
        self.close_button.setProperty("flat", True)
        self.close_button.setAccessibleName(self.tr("Close this message"))
        self.close_button.setToolTip(self.tr("Close this message"))
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.details.setMaximumHeight(150)
        self.details.setAccessibleName(self.tr("Details of the problem"))
        self._lay_out()
        theme.changed.connect(self._paint_sign)
        self._set_tone("error")
        self.details_button.toggled.connect(self.details.setVisible)
        self.close_button.clicked.connect(session.dismiss_problem)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        problem = self._session.state.problem
        if problem is None:
            self.hide()
            self.details_button.setChecked(False)
            return
        if problem != self._problem:
            self._problem = problem
            self.sentence.setText(problem.sentence)
            self.details.setPlainText(problem.details)
            self._set_tone("notice" if problem.gentle else "error")
        self.details_button.setVisible(bool(problem.details))
        self.show()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.setContentsMargins(16, 8, 10, 8)
        row.setSpacing(10)
        row.addWidget(self._sign)
        row.addWidget(self.sentence, 1)
        row.addWidget(self.details_button)
        row.addWidget(self.close_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(row)
        column.addWidget(self.details)
        self.details.hide()

    def _set_tone(self, tone: str) -> None:
        """ "error" or "notice": which pair of colours of the theme."""
        self._tone = tone
        self._theme.bind_icon(self.close_button, "close", f"{tone}_text")
        for widget in (self, *self.findChildren(QWidget)):
            widget.setProperty("tone", tone)
            widget.style().unpolish(widget)
            widget.style().polish(widget)
        self._paint_sign()

    def _paint_sign(self) -> None:
        colour = getattr(self._theme.tokens, f"{self._tone}_text")
        self._sign.setPixmap(svg_pixmap("warning", colour, 20, self.devicePixelRatioF()))
