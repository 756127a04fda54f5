"""The table beside the picture: each control and key, what it does to the session, and what the session does to it."""

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QItemSelectionModel, Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QAbstractButton

from ledetr.chain.pipeline import State
from ledetr_app.gathered import NO_INDEX, NO_TRACK, Rows
from ledetr_app.ui.panels.results import FORMATS, RowsModel

pytest.importorskip("scipy.optimize")  # loaded when tracking is first used, which takes a while


@pytest.fixture
def table(qtbot, player, session):
    """The panel over the clip, which is held."""
    session.results.set_panel(True)
    qtbot.waitUntil(lambda: len(player.results.model.rows) > 0, timeout=10_000)
    return player.results


def press(qtbot, widget, keys):
    combination = QKeySequence(keys)[0]
    qtbot.keyClick(widget, combination.key(), combination.keyboardModifiers())


def text(panel, row, column):
    return panel.model.data(panel.model.index(row, column))


def rows_of(*pts_s: float, by_track: bool = False, **changes) -> Rows:
    count = len(pts_s)
    rows = Rows(
        by_track=by_track,
        class_names=("person", "dog"),
        pts_s=np.array(pts_s),
        index=np.full(count, NO_INDEX),
        class_id=np.zeros(count, np.int64),
        score=np.full(count, 0.5, np.float32),
        xyxy=np.tile(np.array([1.4, 2, 11, 22.6], np.float32), (count, 1)),
        track=np.full(count, NO_TRACK),
        last_s=np.array(pts_s) + 1,
        frames=np.ones(count, np.int64),
    )
    return replace(rows, **changes)


# The model


def test_cells_of_boxes_and_of_tracks(qapp):
    model = RowsModel()
    model.start_s = 0.5
    model.set_rows(rows_of(1.0, 2.25, index=np.array([NO_INDEX, 7]), track=np.array([NO_TRACK, 3])))
    cells = [[model.data(model.index(row, column)) for column in range(6)] for row in range(2)]
    assert cells == [
        ["00:00.500", "–", "person", "0.50", "1,2 10×21", ""],
        ["00:01.750", "7", "person", "0.50", "1,2 10×21", "3"],
    ]
    model.set_rows(rows_of(1.0, by_track=True, track=np.array([3]), class_id=np.array([1])))
    assert [model.data(model.index(0, column)) for column in range(6)] == [
        "3", "dog", "00:00.500", "00:01.500", "1", "0.50"
    ]  # fmt: skip
    model.start_s = None
    assert [model.data(model.index(0, column)) for column in (2, 3)] == ["–", "–"]
    titles = [model.headerData(column, Qt.Orientation.Horizontal) for column in range(6)]
    assert titles == ["Id", "Class", "From", "To", "Frames", "Score"]


@pytest.mark.parametrize(
    ("before", "after", "signals"),
    [
        (rows_of(1.0), rows_of(1.0, 2.0, 3.0), ["insert 1 2"]),
        (rows_of(1.0), rows_of(1.0), []),
        (rows_of(1.0, 2.0), rows_of(1.0), ["reset"]),
        (rows_of(1.0), rows_of(0.5, 1.0), ["reset"]),
        (rows_of(1.0), rows_of(1.0, by_track=True), ["reset"]),
        (rows_of(1.0), rows_of(1.0, class_names=("cat",)), ["reset"]),
    ],
    ids=["grown", "the same", "shorter", "before", "by track", "other names"],
)
def test_only_a_table_that_is_no_longer_the_old_one_begins_anew(qapp, before, after, signals):
    model, heard = RowsModel(), []
    model.set_rows(before)
    model.rowsInserted.connect(lambda _parent, first, last: heard.append(f"insert {first} {last}"))
    model.modelReset.connect(lambda: heard.append("reset"))
    model.set_rows(after)
    assert heard == signals
    assert model.rowCount() == len(after) and model.rows is after


# The panel


def test_ctrl_r_and_the_button_unfold_and_fold(qtbot, window, session):
    assert not window.results.isVisible()
    press(qtbot, window.view, "Ctrl+R")
    assert session.state.results_panel
    qtbot.waitUntil(window.results.isVisible)
    qtbot.mouseClick(window.display.buttons["results_panel"], Qt.MouseButton.LeftButton)
    assert not session.state.results_panel
    qtbot.waitUntil(lambda: not window.results.isVisible())


def test_the_queue_the_zones_and_the_results_make_room_for_each_other(qtbot, window, session):
    session.results.set_panel(True)
    assert (session.state.results_panel, session.state.queue_panel, session.state.zones_panel) == (True, False, False)
    session.zones.set_panel(True)
    assert (session.state.results_panel, session.state.queue_panel, session.state.zones_panel) == (False, False, True)
    session.set_queue_panel(True)
    assert (session.state.results_panel, session.state.queue_panel, session.state.zones_panel) == (False, True, False)


def test_rows_are_those_of_the_filter_and_the_title_counts_them(qtbot, table, session):
    qtbot.waitUntil(lambda: {text(table, row, 2) for row in range(table.model.rowCount())} == {"person", "dog"})
    qtbot.waitUntil(lambda: table.title.text() == f"Results  {len(session.results.rows)}")
    session.set_classes(frozenset({"dog"}))
    qtbot.waitUntil(lambda: {text(table, row, 2) for row in range(table.model.rowCount())} == {"dog"})


@pytest.mark.parametrize("how", ["click", "Return"])
def test_a_click_or_enter_shows_the_picture_of_the_row(qtbot, table, player, session, how):
    session.seek(1.6)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == 1.6)
    qtbot.waitUntil(lambda: table.model.rows.pts_s.max() == 1.6)
    there_s = float(table.model.rows.pts_s[0])
    index = table.model.index(0, 0)
    if how == "click":
        table.table.scrollTo(index)
        at = table.table.visualRect(index).center()
        qtbot.mouseClick(table.table.viewport(), Qt.MouseButton.LeftButton, pos=at)
    else:
        table.table.setCurrentIndex(index)
        press(qtbot, table.table, how)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == there_s)
    assert session.state.phase is State.PAUSED


def test_live_the_table_says_that_it_cannot_go_back(qtbot, playing, session):
    session.results.set_panel(True)
    qtbot.waitUntil(lambda: playing.results.note.text() == "Live: the table cannot go back to a picture.")
    qtbot.waitUntil(lambda: playing.results.model.rowCount() > 0)
    playing.results.table.clicked.emit(playing.results.model.index(0, 0))
    qtbot.waitUntil(lambda: playing.toast.text.text() == "A live source cannot go back to an earlier picture")
    assert not playing.toast.show_button.isVisible()


def test_boxes_and_tracks(qtbot, table, session):
    qtbot.mouseClick(table.by_track, Qt.MouseButton.LeftButton)
    assert session.state.results_by_track
    qtbot.waitUntil(lambda: table.note.text() == "Switch tracking on (T) to see tracks.")
    session.tracks.set_tracking(True)
    qtbot.waitUntil(lambda: [text(table, row, 0) for row in range(table.model.rowCount())] == ["1", "2"])
    assert [text(table, row, 1) for row in range(2)] == ["person", "dog"]
    qtbot.mouseClick(table.by_box, Qt.MouseButton.LeftButton)
    assert not session.state.results_by_track
    qtbot.waitUntil(lambda: not table.model.rows.by_track)
    session.results.set_by_track(True)
    qtbot.waitUntil(table.by_track.isChecked)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "mot"])
def test_each_kind_of_list_is_written(qtbot, table, player, session, kind):
    table.exports[kind].trigger()
    qtbot.waitUntil(lambda: session.state.toast is not None, timeout=10_000)
    path = session.state.toast.path
    assert path.is_file() and path.stat().st_size > 100
    qtbot.waitUntil(lambda: player.toast.text.text() == f"Results saved: {path.name}")
    assert player.toast.show_button.isVisible()


def test_mot_without_ids_is_a_sentence(qtbot, table, player):
    table.exports["mot"].trigger()
    qtbot.waitUntil(player.errors.isVisible)
    assert "switch tracking on (T)" in player.errors.sentence.text()


def test_clear_forgets_what_was_gathered(qtbot, table, session):
    qtbot.mouseClick(table.clear, Qt.MouseButton.LeftButton)
    assert len(session.results.gathered) == 0
    qtbot.waitUntil(lambda: table.model.rowCount() == 0)
    qtbot.waitUntil(lambda: table.title.text() == "Results  0")


def test_the_table_is_not_made_at_each_picture(qtbot, playing, session):
    """While thirty pictures are shown the table is made a few times only, and not at all while it is folded."""
    made = []
    rows = session.results.gathered.rows

    def counted(*arguments, **named):
        made.append(1)
        return rows(*arguments, **named)

    session.results.gathered.rows = counted
    first = session.shown.number
    qtbot.waitUntil(lambda: session.shown.number > first + 15, timeout=20_000)
    assert made == []
    session.results.set_panel(True)
    first, timer = session.shown.number, playing.results._timer
    qtbot.waitUntil(lambda: timer.isActive() and len(made) >= 2, timeout=20_000)
    playing.results._timer.stop()
    before = len(made)
    first = session.shown.number
    qtbot.waitUntil(lambda: session.shown.number > first + 15, timeout=20_000)
    assert len(made) <= before + 1  # one may have been on its way


def test_what_is_chosen_stays_chosen_while_rows_are_added(qtbot, playing, session):
    session.results.set_panel(True)
    table = playing.results
    qtbot.waitUntil(lambda: table.model.rowCount() > 2, timeout=10_000)
    index = table.model.index(1, 0)
    table.table.selectionModel().setCurrentIndex(
        index, QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
    )
    before = table.model.rowCount()
    qtbot.waitUntil(lambda: table.model.rowCount() > before, timeout=10_000)
    assert table.table.currentIndex().row() == 1


def test_every_control_has_a_name_and_is_reached_with_tab(table):
    for button in table.findChildren(QAbstractButton):
        if button.objectName().startswith("qt_") or type(button).__name__ == "QTableCornerButton":
            continue
        assert button.accessibleName() or button.text()
        assert button.focusPolicy() & Qt.FocusPolicy.TabFocus or type(button).__name__ == "QTableCornerButton"
    assert table.table.accessibleName() == "Results"
    assert table.table.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert not table.table.tabKeyNavigation()


@pytest.mark.parametrize("size", [(960, 600), (1280, 800)])
def test_times_and_names_are_not_cut(qtbot, table, player, size):
    player.resize(*size)
    qtbot.waitUntil(lambda: player.width() == size[0])
    metrics = table.table.fontMetrics()
    assert table.table.columnWidth(0) >= metrics.horizontalAdvance("00:00.000") + 14
    assert table.table.columnWidth(2) >= metrics.horizontalAdvance("person") + 30
    assert sum(table.table.columnWidth(column) for column in range(6)) <= table.table.viewport().width() + 1
