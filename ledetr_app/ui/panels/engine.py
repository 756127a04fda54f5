"""On which device, in which precision and with how many decoder layers the model runs: three menus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from PySide6.QtGui import QActionGroup
from PySide6.QtWidgets import QMenu, QWidget

from ledetr.model.config import VARIANTS
from ledetr_app.session import Session
from ledetr_app.ui.text import plain

PRECISIONS = ("fp32", "fp16", "bf16")
FEWEST_LAYERS = 3
Value = TypeVar("Value")


class EngineMenus:
    """What is chosen has the mark; what really runs is the last line of the devices."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        self._session = session
        self._done: object = None
        self.device = QMenu(parent.tr("Device"), parent)
        self.precision = QMenu(parent.tr("Precision"), parent)
        self.layers = QMenu(parent.tr("Decoder layers"), parent)
        self._automatic = parent.tr("Automatic")
        self._as_trained = parent.tr("As trained")
        self._looking = parent.tr("Looking for devices …")
        self._runs = parent.tr("Runs now: {engine} on {device} in {precision}")
        self._nothing_runs = parent.tr("No model runs yet")
        self.device.aboutToShow.connect(session.look_for_devices)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        facts = (state.wish, state.devices, state.running)
        if facts == self._done:
            return
        self._done = facts
        self._fill_devices()
        rows = [("auto", self._automatic), *((word, word) for word in PRECISIONS)]
        self._fill(self.precision, rows, state.precision, self._session.set_precision)
        most = VARIANTS[state.model]().decoder.layers if state.model in VARIANTS else 0
        counts = [(number, str(number)) for number in range(FEWEST_LAYERS, most + 1)]
        self._fill(
            self.layers, [(None, self._as_trained), *counts], state.decoder_layers, self._session.set_decoder_layers
        )
        self.layers.setEnabled(most > FEWEST_LAYERS)

    def _fill_devices(self) -> None:
        state = self._session.state
        rows = [("auto", self._automatic)]
        rows += [(word, plain(f"{word} – {name}")) for word, name in (state.devices or {}).items()]
        self._fill(self.device, rows, state.device, self._session.set_device)
        if state.devices is None:
            self.device.addAction(self._looking).setEnabled(False)
        self.device.addSeparator()
        running, words = state.running, self._nothing_runs
        if running is not None:
            words = self._runs.format(engine=running.engine, device=running.device, precision=running.precision)
        self.device.addAction(words).setEnabled(False)

    def _fill(
        self, menu: QMenu, rows: Sequence[tuple[Value, str]], chosen: Value, choose: Callable[[Value], None]
    ) -> None:
        menu.clear()
        group = QActionGroup(menu)
        for value, text in rows:
            action = menu.addAction(text)
            action.setCheckable(True)
            action.setChecked(value == chosen)
            action.triggered.connect(lambda _checked=False, value=value: self._choose(choose, value))
            group.addAction(action)

    def _choose(self, choose: Callable[[Value], None], value: Value) -> None:
        # Qt has moved the mark already; a choice that fails before anybody looks leaves the facts as they were.
        self._done = None
        choose(value)
