"""The queue of exports: what is wanted of a file, and the files with how far they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QSignalBlocker,
    QSize,
    Qt,
    QTimer,
    QUrl,
)
from PySide6.QtGui import QColor, QDesktopServices, QFontMetrics, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListView,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from ledetr_app.export_job import OUTPUTS, OVER, ExportRow, Status
from ledetr_app.export_queue import Exports
from ledetr_app.exporting import ExportForm, Exporting
from ledetr_app.session import Session
from ledetr_app.ui.text import clock, tip
from ledetr_app.ui.theme import Theme

WIDTH = 340
LOOK_MS = 200
ROW = Qt.ItemDataRole.UserRole
_GAP = 6
_Index = QModelIndex | QPersistentModelIndex


class ExportModel(QAbstractListModel):
    """The rows of the queue; a change of some is told as a change of those alone."""

    def __init__(self, tell: Callable[[ExportRow], str]) -> None:
        super().__init__()
        self._tell = tell
        self.rows: tuple[ExportRow, ...] = ()

    def take(self, rows: tuple[ExportRow, ...]) -> None:
        """These are the rows now."""
        before, self_numbers = self.rows, [row.number for row in self.rows]
        if self_numbers != [row.number for row in rows]:
            self.beginResetModel()
            self.rows = rows
            self.endResetModel()
            return
        self.rows = rows
        changed = [place for place, row in enumerate(rows) if row is not before[place]]
        if changed:
            self.dataChanged.emit(self.index(changed[0]), self.index(changed[-1]))

    def rowCount(self, parent: _Index | None = None) -> int:
        """As many as files."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        """The row itself for the delegate; words for screen readers and tool tips."""
        row = self.rows[index.row()]
        if role == ROW:
            return row
        if role == Qt.ItemDataRole.DisplayRole:
            return row.job.name
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{row.job.name}: {self._tell(row)}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip("\n".join([row.job.source, self._tell(row), *row.paths]))
        return None


class ExportDelegate(QStyledItemDelegate):
    """Two lines and a thin bar: the name, how it goes, how far it is."""

    def __init__(self, theme: Theme, tell: Callable[[ExportRow], str], parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self._tell = tell

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        """Room for both lines."""
        return QSize(100, 2 * option.fontMetrics.height() + 3 * _GAP)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        """One row."""
        row, t = index.data(ROW), self._theme.tokens
        if not isinstance(row, ExportRow):
            return
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(option.rect, QColor(t.accent_soft))
        box = option.rect.adjusted(_GAP, _GAP, -_GAP, -_GAP)
        line = option.fontMetrics.height()
        painter.setPen(QColor(t.text))
        _write(painter, option.fontMetrics, QRect(box.left(), box.top(), box.width(), line), row.job.name)
        painter.setPen(QColor(t.danger if row.status is Status.FAILED else t.muted))
        below = QRect(box.left(), box.top() + line, box.width(), line)
        _write(painter, option.fontMetrics, below, self._tell(row), Qt.TextElideMode.ElideRight)
        if row.status is Status.RUNNING:
            bar = QRect(box.left(), box.bottom() + 2, box.width(), 3)
            painter.fillRect(bar, QColor(t.hover))
            bar.setWidth(round(bar.width() * (row.part or 0)))
            painter.fillRect(bar, QColor(t.accent))


class ExportList(QListView):
    """Delete takes a row out; Alt with the arrows moves it."""

    def __init__(self, panel: ExportsPanel) -> None:
        super().__init__()
        self._panel = panel

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Keys that act on the chosen row."""
        alt = bool(event.modifiers() & Qt.KeyboardModifier.AltModifier)
        if event.key() == Qt.Key.Key_Delete:
            self._panel.buttons["remove"].click()
        elif alt and event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self._panel.buttons["up" if event.key() == Qt.Key.Key_Up else "down"].click()
        else:
            super().keyPressEvent(event)


class ExportsPanel(QFrame):
    """Looks at the queue a few times a second: a thousand small files must not wake the window a thousand times."""

    def __init__(self, session: Session, exporting: Exporting, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sidePanel")
        self.setFixedWidth(WIDTH)
        self._session = session
        self._exporting = exporting
        self._seen: tuple[Exports, ExportForm, bool, bool] | None = None
        self._make_head()
        self._make_list(theme)
        self._make_form()
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 10, 14, 12)
        column.setSpacing(8)
        column.addLayout(self._head)
        column.addWidget(self.found)
        column.addWidget(self.list, 1)
        column.addWidget(self.nothing, 1)
        column.addLayout(self._acts)
        column.addLayout(self._wants)
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self.refresh)
        self._timer.start()
        self.refresh()

    def refresh(self) -> None:
        """Follow the queue and the form."""
        exports, form = self._exporting.queue.state, self._exporting.form
        facts = (exports, form, self._exporting.can_add, bool(self._session.state.queue.paths))
        if self._seen is not None and all(new is old or new == old for new, old in zip(facts, self._seen, strict=True)):
            return
        if exports.found and (self._seen is None or not self._seen[0].found):
            self._exporting.set_shown(True)
            form = self._exporting.form
        self._seen = (exports, form, facts[2], facts[3])
        self.setVisible(form.shown)
        self._show_queue(exports)
        self._show_form(form)

    def tell(self, row: ExportRow) -> str:
        """How it goes, in a few words."""
        match row.status:
            case Status.WAITING:
                return self.tr("waits")
            case Status.RUNNING if row.seconds_left is None:
                return self.tr("begins") if row.frames == 0 else self.tr("{n} pictures").format(n=row.frames)
            case Status.RUNNING:
                percent = 0 if row.part is None else int(100 * row.part)
                return self.tr("{percent} %, {fps:.1f} pictures a second, {left} left").format(
                    percent=percent, fps=row.fps, left=clock(row.seconds_left or 0, ms=False)
                )
            case Status.DONE:
                return self.tr("done: {names}").format(names=", ".join(Path(path).name for path in row.paths))
            case Status.FAILED:
                return row.sentence
            case Status.CANCELLED:
                return self.tr("cancelled. {sentence}").format(sentence=row.sentence)

    @property
    def chosen(self) -> ExportRow | None:
        """The row that the buttons act on."""
        index = self.list.currentIndex()
        return self.model.rows[index.row()] if index.isValid() and index.row() < len(self.model.rows) else None

    # Building

    def _make_head(self) -> None:
        queue = self._exporting.queue
        self.title = QLabel()
        self.title.setProperty("tone", "strong")
        self.hold = self._button(self.tr("Hold"), lambda: queue.set_paused(not queue.state.paused))
        self.clear = self._button(self.tr("Clear"), queue.clear_over)
        self.clear.setToolTip(self.tr("Forget what is done, failed or cancelled"))
        self.close_button = self._button("×", lambda: self._exporting.set_shown(False))
        self.close_button.setAccessibleName(self.tr("Close the exports"))
        self._head = QHBoxLayout()
        self._head.setSpacing(2)
        self._head.addWidget(self.title, 1)
        for button in (self.hold, self.clear, self.close_button):
            button.setProperty("kind", "small")
            self._head.addWidget(button)
        self.found = QFrame()
        self.found_words = QLabel()
        self.found_words.setWordWrap(True)
        self.go_on = self._button(self.tr("Go on"), lambda: queue.set_paused(False))
        self.forget = self._button(self.tr("Forget them"), queue.forget_found)
        column, row = QVBoxLayout(self.found), QHBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.found_words)
        row.addWidget(self.go_on)
        row.addWidget(self.forget)
        row.addStretch(1)
        column.addLayout(row)

    def _make_list(self, theme: Theme) -> None:
        queue = self._exporting.queue
        self.model = ExportModel(self.tell)
        self.list = ExportList(self)
        self.list.setModel(self.model)
        self.list.setItemDelegate(ExportDelegate(theme, self.tell, self.list))
        self.list.setUniformItemSizes(True)  # a thousand rows are laid out by measuring one
        self.list.setAccessibleName(self.tr("Files to export"))
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.selectionModel().currentChanged.connect(lambda *_: self._show_buttons())
        self.nothing = QLabel(self.tr("Nothing to export yet. Choose below what you want of the open file."))
        self.nothing.setProperty("tone", "muted")
        self.nothing.setWordWrap(True)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignTop)
        acts: list[tuple[str, str, str, Callable[[ExportRow], object]]] = [
            ("up", "↑", self.tr("Earlier (Alt+Up)"), lambda row: queue.move(row.number, -1)),
            ("down", "↓", self.tr("Later (Alt+Down)"), lambda row: queue.move(row.number, 1)),
            ("cancel", self.tr("Cancel"), self.tr("Do not do it"), lambda row: queue.cancel(row.number)),
            ("again", self.tr("Again"), self.tr("Try it once more"), lambda row: queue.retry(row.number)),
            ("remove", self.tr("Remove"), self.tr("Take it out (Delete)"), lambda row: queue.remove(row.number)),
            ("open", self.tr("Folder"), self.tr("Open the folder of the results"), self._open_folder),
        ]
        self.buttons: dict[str, QPushButton] = {}
        self._acts = QHBoxLayout()
        self._acts.setSpacing(0)
        for name, words, hint, act in acts:
            button = self._button(words, partial(self._act, act))
            button.setToolTip(hint)
            button.setAccessibleName(hint)
            button.setProperty("kind", "small")
            self.buttons[name] = button
            self._acts.addWidget(button)
        self._acts.addStretch(1)

    def _make_form(self) -> None:
        words = {"video": self.tr("Video with boxes"), "csv": "CSV", "json": "JSON", "jsonl": self.tr("JSON lines"),
                 "coco": "COCO", "mot": self.tr("MOT (tracks)")}  # fmt: skip
        self.ticks: dict[str, QCheckBox] = {}
        grid = QGridLayout()
        grid.setSpacing(4)
        for place, name in enumerate(OUTPUTS):
            tick = self.ticks[name] = QCheckBox(words[name])
            tick.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            tick.toggled.connect(lambda on, name=name: self._want(name, on))
            grid.addWidget(tick, place // 2, place % 2)
        self.folder = self._button("", self._ask_for_folder)
        self.folder.setAccessibleName(self.tr("Folder of the results"))
        self.folder.setProperty("kind", "tile")
        self.add = self._button(self.tr("Export this file"), self._exporting.add_shown)
        self.add.setProperty("kind", "tile")
        self.add_queue = self._button(
            self.tr("Export the queue"), lambda: self._exporting.add_files(self._session.state.queue.paths)
        )
        self.add_queue.setProperty("kind", "tile")
        row = QHBoxLayout()
        row.addWidget(self.add)
        row.addWidget(self.add_queue)
        self._wants = QVBoxLayout()
        self._wants.setSpacing(6)
        self._wants.addLayout(grid)
        self._wants.addWidget(self.folder)
        self._wants.addLayout(row)

    def _button(self, words: str, act: Callable[[], object]) -> QPushButton:
        button = QPushButton(words)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)

        def run() -> None:
            act()
            self.refresh()

        button.clicked.connect(run)
        return button

    # Showing

    def _show_queue(self, exports: Exports) -> None:
        chosen = self.chosen
        self.model.take(exports.rows)
        if chosen is not None and (self.chosen is None or self.chosen.number != chosen.number):
            place = exports.index(chosen.number)
            if place is not None:
                self.list.setCurrentIndex(self.model.index(place))
        over, failed = sum(row.status in OVER for row in exports.rows), exports.count(Status.FAILED)
        title = self.tr("Exports  {done} / {count}").format(done=over, count=len(exports.rows))
        if not exports.rows:
            title = self.tr("Exports")
        elif failed:
            title += self.tr(", {failed} failed").format(failed=failed)
        self.title.setText(title)
        self.hold.setText(self.tr("Go on") if exports.paused else self.tr("Hold"))
        self.hold.setVisible(not exports.found and over < len(exports.rows))
        self.clear.setVisible(over > 0)
        self.found.setVisible(exports.found > 0)
        self.found_words.setText(
            self.tr("{count} exports were not finished when Le-DETR ended.").format(count=exports.found)
        )
        self.list.setVisible(bool(exports.rows))
        self.nothing.setVisible(not exports.rows)
        self._show_buttons()

    def _show_buttons(self) -> None:
        row = self.chosen
        place = None if row is None else self._exporting.queue.state.index(row.number)
        for button in self.buttons.values():
            button.setVisible(bool(self.model.rows))
        self.buttons["up"].setEnabled(bool(place))
        self.buttons["down"].setEnabled(place is not None and place < len(self.model.rows) - 1)
        self.buttons["cancel"].setEnabled(row is not None and row.status not in OVER)
        self.buttons["again"].setEnabled(row is not None and row.status in (Status.FAILED, Status.CANCELLED))
        self.buttons["remove"].setEnabled(row is not None)
        self.buttons["open"].setEnabled(row is not None)

    def _show_form(self, form: ExportForm) -> None:
        for name, tick in self.ticks.items():
            with QSignalBlocker(tick):
                tick.setChecked(name in form.outputs)
        room = self.width() - 60
        words = self.tr("Into {folder}").format(folder=str(form.folder))
        self.folder.setText(self.fontMetrics().elidedText(words, Qt.TextElideMode.ElideMiddle, room).replace("&", "&&"))
        self.folder.setToolTip(tip(str(form.folder)))
        self.add.setEnabled(self._exporting.can_add)
        self.add_queue.setVisible(bool(self._session.state.queue.paths))
        self.add_queue.setEnabled(bool(form.outputs))

    # Slots

    def _act(self, act: Callable[[ExportRow], object]) -> None:
        row = self.chosen
        if row is not None:
            act(row)

    def _want(self, name: str, wanted: bool) -> None:
        self._exporting.set_output(name, wanted)
        self.refresh()

    def _open_folder(self, row: ExportRow) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(row.job.folder))

    def _ask_for_folder(self) -> None:
        dialog = QFileDialog(self, self.tr("Folder of the results"), str(self._exporting.form.folder))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self._exporting.set_folder)
        dialog.open()


def _write(
    painter: QPainter,
    metrics: QFontMetrics,
    rect: QRect,
    text: str,
    elide: Qt.TextElideMode = Qt.TextElideMode.ElideMiddle,
) -> None:
    """One line of outside text, as it is."""
    painter.drawText(rect, int(Qt.AlignmentFlag.AlignVCenter), metrics.elidedText(text, elide, rect.width()))
