"""Zones and lines of the open source, with what went in and out, by class."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QModelIndex, QSignalBlocker, Qt, QTimer
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ledetr.zones import ShapeCount
from ledetr_app.drawing import shapes_of
from ledetr_app.session import Session
from ledetr_app.ui.panels.display import action_button
from ledetr_app.ui.panels.side import SidePanel
from ledetr_app.ui.shortcuts import Actions
from ledetr_app.ui.text import tip

REFRESH_MS = 300
WIDTH = 300


class ZoneTree(QTreeWidget):
    """Delete removes the chosen zone, F2 or a double click names it anew."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setRootIsDecorated(True)
        self.setUniformRowHeights(True)
        self.setIndentation(14)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Delete, or what a tree does."""
        if event.key() == Qt.Key.Key_Delete:
            self._session.zones.remove_selected()
        else:
            super().keyPressEvent(event)


class ZonesPanel(SidePanel):
    """Counts are those of the picture on the screen, written a few times a second."""

    def __init__(
        self, session: Session, actions: Actions, load: Callable[[], None], save: Callable[[], None],
        parent: QWidget | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parent, width=WIDTH)
        self._session = session
        self._plan: object = None
        self._counts: tuple[ShapeCount, ...] = ()
        title = QLabel(self.tr("Zones and lines"))
        title.setProperty("tone", "strong")
        self.tools = {name: action_button(actions, name) for name in ("draw_zone", "draw_line", "edit_zones")}
        self.tree = ZoneTree(session)
        self.tree.setAccessibleName(self.tr("Zones and lines with their counts"))
        self.tree.setToolTip(self.tr("Double click or F2 names, Delete removes"))
        self.tree.setColumnCount(4)
        self.tree.setHeaderLabels([self.tr("Name"), self.tr("Now"), self.tr("In"), self.tr("Out")])
        self.note = QLabel()
        self.note.setProperty("tone", "muted")
        self.note.setWordWrap(True)
        self.load, self.save = QPushButton(self.tr("Load…")), QPushButton(self.tr("Save…"))
        self.reset = QPushButton(self.tr("Reset counts"))
        self.reset.setToolTip(self.tr("Counts from 0, ids from 1"))
        self.remove = QPushButton(self.tr("Remove"))
        for button, run in (
            (self.load, load),
            (self.save, save),
            (self.reset, session.tracks.reset),
            (self.remove, session.zones.remove_selected),
        ):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(lambda _checked=False, run=run: run())
        self._lay_out(title)
        self.tree.itemChanged.connect(self._on_named)
        self.tree.currentItemChanged.connect(lambda item, _before: self._on_chosen(item))
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self.show_counts)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        self.setVisible(state.zones_panel)
        if state.zones_panel and not self._timer.isActive():
            self._timer.start()
        elif not state.zones_panel:
            self._timer.stop()
        if state.zones != self._plan:
            self._plan = state.zones
            self._list()
        self._show_chosen()
        shapes = shapes_of(state.zones)
        self.save.setEnabled(bool(shapes))
        self.reset.setEnabled(bool(shapes))
        self.remove.setEnabled(state.drawing.selected is not None)
        self.load.setEnabled(state.source is not None)
        words = "" if shapes else self.tr("Draw a zone (Z) or a line (X) on the picture to count what goes in and out.")
        if shapes and not state.tracking:
            words = self.tr("Zones count tracked things: switch tracking on (T).")
        self.note.setText(words)
        self.note.setVisible(bool(words))

    def show_counts(self) -> None:
        """Follow the picture on the screen."""
        shown, plan = self._session.shown, self._session.state.zones
        if shown is None or not self.isVisible():
            return
        counts = self._session.tracks.followed(shown).counts_of(plan)
        if counts != self._counts and len(counts) == self.tree.topLevelItemCount():
            self._counts = counts
            with QSignalBlocker(self.tree):
                for row, count in enumerate(counts):
                    self._write(self.tree.topLevelItem(row), count)

    def _list(self) -> None:
        """The shapes anew, unfolded as they were."""
        self._counts = ()
        with QSignalBlocker(self.tree):
            self.tree.clear()
            for shape in shapes_of(self._session.state.zones):
                item = QTreeWidgetItem([shape.name, "", "0", "0"])
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                item.setToolTip(0, tip(shape.name))
                _align_numbers(item)
                self.tree.addTopLevelItem(item)
                item.setExpanded(True)
        self.show_counts()

    def _write(self, item: QTreeWidgetItem | None, count: ShapeCount) -> None:
        if item is None:
            return
        rows = [(count.now, 1), (count.entered, 2), (count.left, 3)]
        for numbers, column in rows:
            has = column > 1 or count.kind == "zone"
            item.setText(column, str(sum(numbers.values())) if has else "")
        names = sorted({name for numbers, _ in rows for name in numbers})
        while item.childCount() > len(names):
            item.takeChild(0)
        while item.childCount() < len(names):
            new = QTreeWidgetItem(item)
            new.setFlags(Qt.ItemFlag.ItemIsEnabled)
            _align_numbers(new)
        for number, name in enumerate(names):
            child = item.child(number)
            if child is None:
                continue
            child.setText(0, name)
            for numbers, column in rows:
                has = column > 1 or count.kind == "zone"
                child.setText(column, str(numbers.get(name, 0)) if has else "")

    def _show_chosen(self) -> None:
        selected = self._session.state.drawing.selected
        item = None if selected is None else self.tree.topLevelItem(selected)
        if item is not self.tree.currentItem():
            with QSignalBlocker(self.tree):
                if item is None:
                    self.tree.setCurrentIndex(QModelIndex())
                else:
                    self.tree.setCurrentItem(item)

    def _on_named(self, item: QTreeWidgetItem, column: int) -> None:
        row = self.tree.indexOfTopLevelItem(item)
        if column == 0 and row >= 0:
            self._session.zones.rename(row, item.text(0))
            self._plan = None  # a name that was refused gives way to the old one
            QTimer.singleShot(0, self, self.refresh)

    def _on_chosen(self, item: QTreeWidgetItem | None) -> None:
        while item is not None and item.parent() is not None:
            item = item.parent()
        self._session.zones.select(None if item is None else self.tree.indexOfTopLevelItem(item))

    def _lay_out(self, title: QLabel) -> None:
        top = QHBoxLayout()
        top.addWidget(title, 1)
        for tool in self.tools.values():
            top.addWidget(tool)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2, 3):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.tree.setColumnWidth(column, self.fontMetrics().horizontalAdvance("00000") + 12)
        _align_numbers(self.tree.headerItem())
        column_of_all = QVBoxLayout(self)
        column_of_all.setContentsMargins(14, 10, 10, 10)
        column_of_all.setSpacing(8)
        column_of_all.addLayout(top)
        column_of_all.addWidget(self.tree, 1)
        column_of_all.addWidget(self.note)
        for buttons in ((self.load, self.save), (self.reset, self.remove)):
            row = QHBoxLayout()
            for button in buttons:
                row.addWidget(button, 1)
            column_of_all.addLayout(row)


def _align_numbers(item: QTreeWidgetItem) -> None:
    for column in (1, 2, 3):
        item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
