"""N, M, L, X side by side: which is chosen, which is on its way, which has no weights here."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QButtonGroup, QFrame, QHBoxLayout, QLabel, QToolButton, QWidget

from ledetr import SCALES
from ledetr_app.session import Session


class ModelPanel(QWidget):
    """A click loads that scale beside the running one; the picture goes on meanwhile."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._shown: object = None
        label = QLabel(self.tr("Model"))
        label.setProperty("tone", "muted")
        frame = QFrame()
        frame.setObjectName("segments")
        segments = QHBoxLayout(frame)
        segments.setContentsMargins(3, 3, 3, 3)
        segments.setSpacing(2)
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QToolButton] = {}
        for scale in SCALES:
            button = QToolButton()
            button.setText(scale.upper())
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setAccessibleName(self.tr("Model {scale}").format(scale=scale.upper()))
            button.clicked.connect(lambda _checked=False, scale=scale: session.set_model(scale))
            self._group.addButton(button)
            segments.addWidget(button)
            self.buttons[scale] = button
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(label)
        row.addWidget(frame)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        facts = (state.model, state.loading, state.running, tuple(state.has_weights.items()))
        # Qt checks a clicked button before the session hears; a load that fails at once leaves the facts unchanged.
        pressed = [scale for scale, button in self.buttons.items() if button.isChecked()]
        if facts == self._shown and pressed == [scale for scale in self.buttons if scale == state.model]:
            return
        self._shown = facts
        self._group.setExclusive(False)
        for scale, button in self.buttons.items():
            missing = state.has_weights.get(scale) is False
            button.setChecked(state.model == scale)
            button.setProperty("loading", state.loading == scale)
            button.setProperty("missing", missing)
            tip = self._tip(scale, missing)
            button.setToolTip(tip)
            button.setAccessibleDescription(tip)
            button.style().unpolish(button)
            button.style().polish(button)
        self._group.setExclusive(True)

    def _tip(self, scale: str, missing: bool) -> str:
        state = self._session.state
        name = scale.upper()
        if state.loading == scale:
            return self.tr("Switching to {name} …").format(name=name)
        if missing and self._session.allows_random_weights:
            return self.tr("{name} has no weights here yet: it runs with random ones").format(name=name)
        if missing:
            ready = ", ".join(s.upper() for s in SCALES if state.has_weights.get(s))
            others = self.tr(" Ready here: {ready}.").format(ready=ready) if ready else ""
            return self.tr("{name} has no weights on this computer yet.").format(name=name) + others
        if state.running is not None and state.running.choice == scale:
            return self.tr("{name} is running").format(name=name)
        return self.tr("Switch to {name}; the picture goes on meanwhile").format(name=name)
