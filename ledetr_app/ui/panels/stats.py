"""The status bar: what kind of playing this is, and the numbers of the meters."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QStatusBar, QWidget

from ledetr.chain.pipeline import State
from ledetr_app.session import Session
from ledetr_app.ui.text import tip

REFRESH_MS = 500


class StatsPanel(QStatusBar):
    """Twice a second; a number that cannot be known yet is a dash."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.setSizeGripEnabled(False)
        self._counting = True
        self.mode = _label("modeChip")
        self.mode.setAccessibleName(self.tr("Mode"))
        self.random = _label("randomChip")
        self.random.setText(self.tr("random weights"))
        self.selected = _label("readout")
        self.selected.setAccessibleName(self.tr("Selected box"))
        self.selected.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.model = _label("readout")
        self.model.setAccessibleName(self.tr("Model, device, precision"))
        self.readouts = {name: _label("readout") for name in ("fps", "age", "dropped")}
        names = {
            "fps": self.tr("capture / infer / draw"),
            "age": self.tr("age p50 / p95"),
            "dropped": self.tr("dropped"),
        }
        short = {"fps": self.tr("cap / inf / draw"), "age": self.tr("age"), "dropped": self.tr("drop")}
        holder = QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(12, 4, 12, 4)
        row.setSpacing(8)
        row.addWidget(self.mode)
        row.addSpacing(12)
        for key, readout in self.readouts.items():
            name = _label("readoutName")
            name.setText(short[key])
            name.setToolTip(names[key])
            readout.setToolTip(names[key])
            readout.setAccessibleName(names[key])
            row.addWidget(name)
            row.addWidget(readout)
            row.addSpacing(10)
        row.addWidget(self.selected, 1)
        row.addWidget(self.random)
        row.addWidget(self.model)
        self.addWidget(holder, 1)
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self.refresh_numbers)
        self._timer.start()
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        words, tone = self._mode_words()
        if self.mode.text() != words or self.mode.property("tone") != tone:
            self.mode.setText(words)
            self.mode.setProperty("tone", tone)
            self.mode.style().unpolish(self.mode)
            self.mode.style().polish(self.mode)
        running, loading = self._session.state.running, self._session.state.loading
        self.random.setVisible(running is not None and running.random_weights)
        if loading is not None:
            name = loading.upper() if len(loading) == 1 else loading
            words = self.tr("Loading {name} …") if running is None else self.tr("Switching to {name} …")
            self.model.setText(words.format(name=name))
        elif running is None:
            self.model.setText(self.tr("no model"))
        else:
            name = running.model_id.upper() if len(running.model_id) == 1 else running.model_id
            self.model.setText(f"{name} · {running.engine} · {running.device} · {running.precision}")
        self.model.setToolTip(tip(running.reason) if running is not None and running.reason else "")
        self.show_selection()
        if self._session.state.has_source != self._counting:
            self._counting = not self._counting
            self.refresh_numbers()

    def show_selection(self) -> None:
        """Follow the picture on the screen."""
        selected = self._session.selected
        words = ""
        if selected is not None:
            x0, y0, x1, y1 = (round(float(value)) for value in selected.xyxy[0])
            score = float(selected.confidence[0])
            track = selected.track_of(0)
            name = selected.names[0] if track is None else f"#{track} {selected.names[0]}"
            words = self.tr("{name} {score:.2f} · {width} × {height} px").format(
                name=name, score=score, width=x1 - x0, height=y1 - y0
            )
        if words != self.selected.text():
            self.selected.setText(words)
            self.selected.setToolTip(tip(words) if words else "")

    def refresh_numbers(self) -> None:
        """Take the meters as they are now."""
        state = self._session.state
        if not state.has_source:
            for readout in self.readouts.values():
                readout.setText("–")
            return
        meters = self._session.meters()
        rates = (meters.capture_fps, meters.infer_fps, meters.render_fps)
        self.readouts["fps"].setText(" / ".join(f"{rate:.1f}" for rate in rates) + self.tr(" fps"))
        ages = (meters.age_p50_ms, meters.age_p95_ms)
        known = [f"{age:.0f}" for age in ages if age is not None]
        self.readouts["age"].setText(" / ".join(known) + self.tr(" ms") if len(known) == 2 else "–")
        self.readouts["dropped"].setText(str(meters.dropped))

    def _mode_words(self) -> tuple[str, str]:
        state = self._session.state
        if state.phase is State.RECONNECTING or state.loss is not None:
            return self.tr("Source lost"), "bad"
        if state.phase is State.RUNNING and state.source is not None:
            if state.source.live:
                return self.tr("Live · latest frame"), "live"
            if self._session.pipeline.policy == "every":
                return self.tr("Playing · every frame"), "live"
            if state.speed != 1.0:
                return self.tr("Playing · {speed:g}×").format(speed=state.speed), "live"
            return self.tr("Playing · real time"), "live"
        if state.ended:
            return self.tr("Ended"), ""
        words = {
            State.OPENING: self.tr("Opening"),
            State.PAUSED: self.tr("Paused"),
            State.STOPPING: self.tr("Stopping"),
            State.FAILED: self.tr("Could not go on"),
            State.RUNNING: self.tr("Playing"),
        }
        return words.get(state.phase, self.tr("Ready")), "bad" if state.phase is State.FAILED else ""


def _label(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
