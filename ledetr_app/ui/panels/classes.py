"""Which classes are shown, from which score on, and how many of each are in the picture now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from ledetr.chain.overlay import class_colour
from ledetr_app.display import CONF_RANGE
from ledetr_app.session import Session
from ledetr_app.ui.panels.side import SidePanel
from ledetr_app.ui.panels.swatch import swatch_icon


class ClassPanel(SidePanel):
    """The filter works by name, so it outlives a change of model. Counts are those of the picture on the screen."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._names: tuple[str, ...] = ()
        self._counts: dict[str, int] = {}
        self._done: object = None
        self._confs: dict[str, float] = {}
        title = QLabel(self.tr("Classes"))
        title.setProperty("tone", "strong")
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setAccessibleName(self.tr("Search classes"))
        self.search.setClearButtonEnabled(True)
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Classes that are shown"))
        self.list.setToolTip(self.tr("Choose a class to give it a score of its own. Alt and a tick: only this class"))
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.all_button = QPushButton(self.tr("All"))
        self.none_button = QPushButton(self.tr("None"))
        buttons = QHBoxLayout()
        buttons.addWidget(title)
        buttons.addStretch(1)
        for button in (self.all_button, self.none_button):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 10, 10, 10)
        column.setSpacing(8)
        column.addLayout(buttons)
        column.addWidget(self.search)
        column.addWidget(self.list, 1)
        column.addWidget(self._threshold_of_one())
        self.list.currentRowChanged.connect(lambda _row: self._show_threshold())
        self.search.textChanged.connect(self._filter)
        self.list.itemChanged.connect(self._on_ticked)
        self.all_button.clicked.connect(lambda: session.set_classes(None))
        self.none_button.clicked.connect(lambda: session.set_classes(frozenset()))
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        self.setVisible(state.side_panel)
        names = state.running.class_names if state.running is not None else ()
        if names != self._names:
            self._names = names
            self._list_names()
        facts = (names, state.class_filter)
        if facts != self._done:
            self._done = facts
            self._show_filter()
        self.show_counts()

    def show_counts(self) -> None:
        """Follow the picture on the screen."""
        result = self._session.shown
        if not self.isVisible() or result is None or result.detections.class_names != self._names:
            return
        # What a class has, whether it is shown or not, so that one sees what a tick would bring.
        every_class = replace(self._session.state.class_filter, shown=None)
        strong = result.detections[every_class.mask(result.detections)]
        ids, numbers = np.unique(strong.class_id, return_counts=True)
        counts = {self._names[i]: int(n) for i, n in zip(ids, numbers, strict=True)}
        before, self._counts = self._counts, counts
        if counts != before:
            self._write_rows({name for name in self._names if counts.get(name) != before.get(name)})

    def _show_filter(self) -> None:
        state = self._session.state
        with QSignalBlocker(self.list):
            for row, name in enumerate(self._names):
                shown = state.shown_classes is None or name in state.shown_classes
                self.list.item(row).setCheckState(Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked)
        confs = dict(state.class_conf)
        changed = {name for name in {*confs, *self._confs} if confs.get(name) != self._confs.get(name)}
        self._confs = confs
        self._write_rows(changed)
        self._show_threshold()

    def _write_rows(self, names: set[str]) -> None:
        """Name, how many there are, and the threshold where the class has its own."""
        with QSignalBlocker(self.list):
            for row, name in enumerate(self._names):
                if name in names:
                    count = f"   {self._counts[name]}" if name in self._counts else ""
                    own = f"   ≥ {self._confs[name]:.2f}" if name in self._confs else ""
                    self.list.item(row).setText(name + count + own)

    def _threshold_of_one(self) -> QWidget:
        """Under the list: the threshold of the class that is chosen in it."""
        self.threshold_name = QLabel()
        self.threshold_name.setTextFormat(Qt.TextFormat.PlainText)
        self.threshold_name.setProperty("tone", "muted")
        self.threshold_name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(*(round(100 * limit) for limit in CONF_RANGE))
        self.threshold.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.threshold.setAccessibleName(self.tr("Score threshold of this class"))
        self.threshold_value = QLabel()
        self.threshold_value.setMinimumWidth(self.fontMetrics().horizontalAdvance("0.00") + 4)
        self.like_all = QPushButton(self.tr("Reset"))
        self.like_all.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.like_all.setToolTip(self.tr("The threshold of all classes"))
        self.threshold.valueChanged.connect(lambda hundredths: self._set_conf(hundredths / 100))
        self.like_all.clicked.connect(lambda: self._set_conf(None))
        box = self.threshold_box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for widgets in ((self.threshold_name, self.like_all), (self.threshold, self.threshold_value)):
            row = QHBoxLayout()
            row.addWidget(widgets[0], 1)
            row.addWidget(widgets[1])
            column.addLayout(row)
        return box

    def _set_conf(self, conf: float | None) -> None:
        row = self.list.currentRow()
        if 0 <= row < len(self._names):
            self._session.set_class_conf(self._names[row], conf)

    def _show_threshold(self) -> None:
        row, class_filter = self.list.currentRow(), self._session.state.class_filter
        chosen = 0 <= row < len(self._names)
        name = self._names[row] if chosen else ""
        conf = class_filter.conf_of(name)
        self.threshold_name.setText(self.tr("Score of {name}").format(name=name))
        with QSignalBlocker(self.threshold):  # what comes from the session is not a wish of the user
            self.threshold.setValue(round(100 * conf))
        self.threshold_box.setVisible(chosen)
        self.threshold_value.setText(f"{conf:.2f}")
        self.like_all.setVisible(name in class_filter.own_conf)

    def _list_names(self) -> None:
        self._counts, self._confs = {}, {}
        with QSignalBlocker(self.list):
            self.list.clear()
            for class_id, name in enumerate(self._names):
                item = QListWidgetItem(swatch_icon(class_colour(class_id)), name)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Checked)
                self.list.addItem(item)
        self._filter(self.search.text())

    def _filter(self, text: str) -> None:
        for row, name in enumerate(self._names):
            self.list.item(row).setHidden(text.strip().lower() not in name.lower())

    def _on_ticked(self, item: QListWidgetItem) -> None:
        if QApplication.keyboardModifiers() & Qt.KeyboardModifier.AltModifier:
            self._session.set_classes(frozenset({self._names[self.list.row(item)]}))
            return
        ticked = frozenset(
            name for row, name in enumerate(self._names) if self.list.item(row).checkState() is Qt.CheckState.Checked
        )
        self._session.set_classes(None if len(ticked) == len(set(self._names)) else ticked)
