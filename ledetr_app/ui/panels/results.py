"""The table of what was found so far, by box or by track; a click shows the picture of a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QPersistentModelIndex, Qt, QTimer
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QPushButton,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ledetr.chain.overlay import class_colour, track_colour
from ledetr.chain.side_files import SIDE_FILES
from ledetr_app.gathered import NO_INDEX, NO_TRACK, Rows
from ledetr_app.session import Session
from ledetr_app.ui.panels.side import SidePanel
from ledetr_app.ui.panels.swatch import swatch_icon
from ledetr_app.ui.text import clock

REFRESH_MS = 400
CELL_ROOM = 16  # padding of the style sheet, and what Qt keeps free around text
SWATCH_ROOM = 34
MARGINS = (14, 10, 10, 10)
_Index = QModelIndex | QPersistentModelIndex
_NO_PARENT = QModelIndex()
FORMATS = {"csv": "CSV", "json": "JSON", "jsonl": "JSON Lines", "coco": "COCO", "mot": "MOT"}
assert set(FORMATS) == set(SIDE_FILES)


class RowsModel(QAbstractTableModel):
    """Rows as text, made only for what is on the screen. start_s: time of the first picture of the source; None: its
    pictures have no times."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Rows()
        self.colour_by_track = False
        self.start_s: float | None = 0.0

    def set_rows(self, rows: Rows) -> None:
        """The newer table. Where only rows were added, the view keeps its place and what is chosen in it."""
        old, new = len(self.rows), len(rows)
        if _goes_on(self.rows, rows):
            if new > old:
                self.beginInsertRows(QModelIndex(), old, new - 1)
                self.rows = rows
                self.endInsertRows()
            else:
                self.rows = rows
            return
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()

    def rowCount(self, parent: _Index = _NO_PARENT) -> int:
        """Rows of the table."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: _Index = _NO_PARENT) -> int:
        """Six, by box and by track."""
        return 0 if parent.isValid() else len(self._titles())

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Titles of the columns."""
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._titles()[section]
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text, side and colour of a cell."""
        row, column = index.row(), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return (self._of_track if self.rows.by_track else self._of_box)(row)[column]
        is_class = column == (1 if self.rows.by_track else 2)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignLeft if is_class else Qt.AlignmentFlag.AlignRight
            return int(side | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.DecorationRole and is_class:
            return swatch_icon(self._colour(row))
        return None

    def _colour(self, row: int) -> tuple[int, int, int]:
        track = int(self.rows.track[row])
        by_track = self.colour_by_track and track != NO_TRACK
        return track_colour(track) if by_track else class_colour(int(self.rows.class_id[row]))

    def _titles(self) -> list[str]:
        if self.rows.by_track:
            return [_tr("Id"), _tr("Class"), _tr("From"), _tr("To"), _tr("Frames"), _tr("Score")]
        return [_tr("Time"), _tr("Frame"), _tr("Class"), _tr("Score"), _tr("Box"), _tr("Id")]

    def _time(self, pts_s: np.floating[Any]) -> str:
        return "–" if self.start_s is None else clock(float(pts_s) - self.start_s)

    def _of_box(self, row: int) -> list[str]:
        rows = self.rows
        x0, y0, x1, y1 = (round(float(value)) for value in rows.xyxy[row])
        return [
            self._time(rows.pts_s[row]),
            "–" if rows.index[row] == NO_INDEX else str(rows.index[row]),
            rows.name(row),
            f"{rows.score[row]:.2f}",
            f"{x0},{y0} {x1 - x0}×{y1 - y0}",
            "" if rows.track[row] == NO_TRACK else str(rows.track[row]),
        ]

    def _of_track(self, row: int) -> list[str]:
        rows = self.rows
        return [
            str(rows.track[row]),
            rows.name(row),
            self._time(rows.pts_s[row]),
            self._time(rows.last_s[row]),
            str(rows.frames[row]),
            f"{rows.score[row]:.2f}",
        ]


class RowsView(QTableView):
    """Enter shows the picture of the chosen row, as a click does."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTabKeyNavigation(False)  # Tab leads on to the next control
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setSectionsClickable(False)
        self.clicked.connect(lambda index: session.results.go_to(index.row()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter, or what a table does."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._session.results.go_to(self.currentIndex().row())
        else:
            super().keyPressEvent(event)


class ResultsPanel(SidePanel):
    """Looks for newer rows a few times a second while it is seen, never at each picture."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._columns = False
        self.title = QLabel()
        self.title.setProperty("tone", "strong")
        self.model = RowsModel()
        self.table = RowsView(session)
        self.table.setAccessibleName(self.tr("Results"))
        self.table.setToolTip(self.tr("A click or Enter shows the picture of a row"))
        self.table.setModel(self.model)
        self.note = QLabel()
        self.note.setProperty("tone", "muted")
        self.note.setWordWrap(True)
        self._make_buttons()
        self._lay_out()
        self._size_columns()
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(session.results.ask)
        self.refresh()

    def refresh(self) -> None:
        """Follow the session."""
        state = self._session.state
        self.setVisible(state.results_panel)
        if state.results_panel and not self._timer.isActive():
            self._timer.start()
            self._session.results.ask()
        elif not state.results_panel:
            self._timer.stop()
        (self.by_track if state.results_by_track else self.by_box).setChecked(True)
        source = state.source
        self.model.start_s = 0.0 if source is None else source.start_s
        if self._session.player.stills is not None:
            self.model.start_s = None
        self.model.colour_by_track = state.by_track
        self.show_rows()

    def show_rows(self) -> None:
        """Follow the table of the session."""
        rows = self._session.results.rows
        if rows is self.model.rows or not self._session.state.results_panel:
            return
        bar = self.table.verticalScrollBar()
        at_end = bar.value() == bar.maximum()
        self.model.set_rows(rows)
        if self._columns is not rows.by_track:
            self._columns = rows.by_track
            self._size_columns()
        if at_end:
            self.table.scrollToBottom()
        self.title.setText(self.tr("Results  {count}").format(count=f"{len(rows):,}"))
        self.note.setText(self._note(rows))
        self.note.setVisible(bool(self.note.text()))

    def _note(self, rows: Rows) -> str:
        state, words = self._session.state, []
        if state.results_by_track and not len(rows) and not state.tracking:
            words.append(self.tr("Switch tracking on (T) to see tracks."))
        if state.source is not None and not state.source.seekable:
            words.append(self.tr("Live: the table cannot go back to a picture."))
        if rows.let_go:
            words.append(self.tr("The first {count} frames are held no more.").format(count=f"{rows.let_go:,}"))
        return " ".join(words)

    def _make_buttons(self) -> None:
        session = self._session
        self.by_box, self.by_track = QPushButton(self.tr("Boxes")), QPushButton(self.tr("Tracks"))
        group = QButtonGroup(self)
        for button, by_track in ((self.by_box, False), (self.by_track, True)):
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(lambda _checked=False, by_track=by_track: session.results.set_by_track(by_track))
            group.addButton(button)
        self.export = QToolButton()
        self.export.setText(self.tr("Export") + " ▾")
        self.export.setAccessibleName(self.tr("Export"))
        self.export.setToolTip(self.tr("Write the table into a file beside the recordings"))
        self.export.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.export.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        menu = QMenu(self.export)
        self.exports = {kind: menu.addAction(name) for kind, name in FORMATS.items()}
        for kind, action in self.exports.items():
            action.triggered.connect(lambda _checked=False, kind=kind: session.results.export(kind))
        self.export.setMenu(menu)
        self.clear = QPushButton(self.tr("Clear"))
        self.clear.setToolTip(self.tr("Forget what was gathered so far"))
        self.clear.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.clear.clicked.connect(session.results.clear)

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(4)
        top.addWidget(self.title, 1)
        for button in (self.by_box, self.by_track, self.export, self.clear):
            top.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(*MARGINS)
        column.setSpacing(8)
        column.addLayout(top)
        column.addWidget(self.table, 1)
        column.addWidget(self.note)

    def _size_columns(self) -> None:
        """Wide enough for what usually stands there, in the system's font; the class takes what is left."""
        texts = ["000", "motorcycle", "00:00.000", "00:00.000", "0000", "0.00"] if self._columns else [
            "00:00.000", "0000", "motorcycle", "0.00", "999,999 999×999", "000"
        ]  # fmt: skip
        header, metrics = self.table.horizontalHeader(), self.table.fontMetrics()
        the_class = 1 if self._columns else 2
        total = 0
        for column, text in enumerate(texts):
            title = self.model.headerData(column, Qt.Orientation.Horizontal)
            wide = max(metrics.horizontalAdvance(text), metrics.horizontalAdvance(title)) + CELL_ROOM
            wide += SWATCH_ROOM if column == the_class else 0
            total += wide
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.table.setColumnWidth(column, wide)
        header.setSectionResizeMode(the_class, QHeaderView.ResizeMode.Stretch)
        around = sum(MARGINS[side] for side in (0, 2)) + self.table.verticalScrollBar().sizeHint().width() + 4
        self.ask_for(total + around)


def _goes_on(old: Rows, new: Rows) -> bool:
    """Whether the new table is the old one with rows added at its end. A track may have grown, at its place."""
    count = len(old)
    if old.by_track is not new.by_track or old.class_names != new.class_names or len(new) < count:
        return False
    return all(
        np.array_equal(getattr(old, name), getattr(new, name)[:count]) for name in ("pts_s", "track", "class_id")
    )  # fmt: skip


def _tr(text: str) -> str:
    return QCoreApplication.translate("RowsModel", text)
