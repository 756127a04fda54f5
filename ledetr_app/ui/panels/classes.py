"""Which classes are shown: search, tick, all or none, with how many of each are in the picture now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ledetr.chain.overlay import class_colour
from ledetr_app.session import Session
from ledetr_app.ui.panels.swatch import swatch_icon


class ClassPanel(QFrame):
    """The filter works by name, so it outlives a change of model. Counts are those of the picture on the screen."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sidePanel")
        self.setFixedWidth(236)
        self._session = session
        self._names: tuple[str, ...] = ()
        self._counts: dict[str, int] = {}
        self._ticked: object = None
        title = QLabel(self.tr("Classes"))
        title.setProperty("tone", "strong")
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setAccessibleName(self.tr("Search classes"))
        self.search.setClearButtonEnabled(True)
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Classes that are shown"))
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
        if (names, state.shown_classes) == self._ticked:
            self.show_counts()
            return
        self._ticked = (names, state.shown_classes)
        with QSignalBlocker(self.list):
            for row, name in enumerate(self._names):
                shown = state.shown_classes is None or name in state.shown_classes
                self.list.item(row).setCheckState(Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked)
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
        if counts == self._counts:
            return
        with QSignalBlocker(self.list):
            for row, name in enumerate(self._names):
                if counts.get(name) != self._counts.get(name):
                    self.list.item(row).setText(f"{name}   {counts[name]}" if name in counts else name)
        self._counts = counts

    def _list_names(self) -> None:
        self._counts = {}
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

    def _on_ticked(self, _item: QListWidgetItem) -> None:
        ticked = frozenset(
            name for row, name in enumerate(self._names) if self.list.item(row).checkState() is Qt.CheckState.Checked
        )
        self._session.set_classes(None if len(ticked) == len(set(self._names)) else ticked)
