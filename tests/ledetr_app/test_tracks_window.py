"""Tracking, zones and lines in the window: each command, key and control, and the mouse on the picture."""

from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QKeySequence, QMouseEvent
from PySide6.QtWidgets import QAbstractButton, QApplication, QFileDialog

from ledetr.chain.overlay import LabelMark, PathMark
from ledetr.chain.pipeline import State
from ledetr.zones import Line, Zone, ZonePlan, load_zones, save_zones
from ledetr_app.drawing import Drawing
from ledetr_app.tracks import BUFFERS_S

pytest.importorskip("scipy.optimize")  # loaded when tracking is first used, which takes a while

PLAN = ZonePlan((Zone("yard", ((0.25, 0.25), (0.75, 0.25), (0.5, 0.75))),), (Line("gate", (0.5, 0.0), (0.5, 1.0)),))


def press(qtbot, widget, keys):
    combination = QKeySequence(keys)[0]
    qtbot.keyClick(widget, combination.key(), combination.keyboardModifiers())


def at(window, x, y) -> QPoint:
    rect = window.view.picture_rect
    return QPointF(rect.left() + x * rect.width(), rect.top() + y * rect.height()).toPoint()


def click(qtbot, window, x, y):
    qtbot.mouseClick(window.view, Qt.MouseButton.LeftButton, pos=at(window, x, y))


def move(window, x, y, buttons=Qt.MouseButton.NoButton):
    place = QPointF(at(window, x, y))
    event = QMouseEvent(
        QEvent.Type.MouseMove,
        place,
        QPointF(window.view.mapToGlobal(place)),
        Qt.MouseButton.NoButton,
        buttons,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(window.view, event)


def near(point, x, y):
    return abs(point[0] - x) < 0.01 and abs(point[1] - y) < 0.01


@pytest.fixture
def planned(qtbot, player, session):
    """The clip with a zone and a line, which are listed."""
    session.store.change(zones=PLAN)
    session.zones.set_panel(True)
    qtbot.waitUntil(lambda: player.zones.tree.topLevelItemCount() == 2)
    qtbot.waitUntil(player.zones.isVisible)
    return player


# Tracking


@pytest.mark.parametrize("how", ["T", "button"])
def test_t_switches_tracking(qtbot, playing, session, how):
    for tracking in (True, False):
        if how == "button":
            qtbot.mouseClick(playing.display.buttons["tracking"], Qt.MouseButton.LeftButton)
        else:
            press(qtbot, playing.view, how)
        assert session.state.tracking is tracking
        qtbot.waitUntil(lambda t=tracking: playing.display.buttons["tracking"].isChecked() is t)
        qtbot.waitUntil(lambda t=tracking: (session.shown.detections.tracker_id is not None) is t)


@pytest.mark.parametrize(("key", "part"), [("D", "ids"), ("Shift+T", "trails"), ("K", "by_track")])
def test_keys_of_what_is_drawn_of_tracks(qtbot, playing, session, key, part):
    action = playing.actions_by_name[part]
    assert not action.isEnabled()  # there are no tracks yet
    session.tracks.set_tracking(True)
    qtbot.waitUntil(action.isEnabled)
    before = getattr(session.state, part)
    press(qtbot, playing.view, key)
    assert getattr(session.state, part) is not before
    qtbot.waitUntil(lambda: action.isChecked() is not before)
    session.show(**{part: before})
    qtbot.waitUntil(lambda: action.isChecked() is before)


def test_shift_r_begins_with_id_one_again(qtbot, player, session):
    session.tracks.set_tracking(True)
    qtbot.waitUntil(lambda: session.shown.detections.tracker_id is not None)
    session.seek(0.4)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == 0.4)
    qtbot.waitUntil(lambda: session.shown.detections.track_of(0) not in (None, 1))
    qtbot.waitUntil(player.actions_by_name["reset_ids"].isEnabled)
    press(qtbot, player.view, "Shift+R")
    qtbot.waitUntil(lambda: session.shown.detections.track_of(0) == 1)


@pytest.mark.parametrize("seconds", BUFFERS_S)
def test_memory_menu(qtbot, window, session, seconds):
    session.tracks.set_buffer(8 if seconds != 8 else 1)
    window.actions_by_name[f"buffer_{seconds:g}"].trigger()
    assert session.state.track_buffer_s == seconds
    chosen = [s for s in BUFFERS_S if window.actions_by_name[f"buffer_{s:g}"].isChecked()]
    qtbot.waitUntil(lambda: window.actions_by_name[f"buffer_{seconds:g}"].isChecked())
    assert len(chosen) == 1
    assert session.settings.track_buffer_s == 2.0  # written when the window closes
    qtbot.waitUntil(lambda: session.pipeline.tracking is None)


def test_ids_are_in_the_picture_and_in_the_bar(qtbot, playing, session):
    session.tracks.set_tracking(True)
    qtbot.waitUntil(lambda: session.shown.detections.track_of(0) == 1)
    texts = [mark.text for mark in session.marks(session.shown) if isinstance(mark, LabelMark)]
    assert "#1 person 0.90" in texts
    session.select_at(70, 100)
    qtbot.waitUntil(lambda: playing.stats.selected.text().startswith("#1 person 0.90"))


def test_trails_are_painted_sharp_over_the_picture(qtbot, playing, session):
    session.tracks.set_tracking(True)
    qtbot.waitUntil(lambda: any(isinstance(m, PathMark) for m in session.marks(session.shown)), timeout=10_000)


# Drawing with the mouse


def test_a_zone_by_clicks_and_enter(qtbot, player, session):
    press(qtbot, player.view, "Z")
    assert session.state.drawing.tool == "zone"
    qtbot.waitUntil(lambda: "Click the corners" in "".join(player.view.words))
    assert player.view.cursor().shape() is Qt.CursorShape.CrossCursor
    qtbot.waitUntil(player.zones.isVisible)  # the panel unfolds, so the picture gets another size
    QApplication.processEvents()
    for place in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.9)):
        click(qtbot, player, *place)
    assert len(session.state.drawing.points) == 3
    press(qtbot, player.view, "Return")
    (zone,) = session.state.zones.zones
    assert zone.name == "Zone 1"
    assert all(near(p, *place) for p, place in zip(zone.points, ((0.2, 0.2), (0.8, 0.2), (0.5, 0.9)), strict=True))
    assert session.state.drawing.tool == "" and session.state.tracking
    qtbot.waitUntil(lambda: player.zones.tree.topLevelItemCount() == 1)
    qtbot.waitUntil(lambda: player.view.cursor().shape() is Qt.CursorShape.ArrowCursor)


@pytest.mark.parametrize("how", ["first corner", "double click"])
def test_a_zone_is_closed_at_its_first_corner_or_by_a_double_click(qtbot, player, session, how):
    session.zones.take("zone")
    qtbot.waitUntil(player.zones.isVisible)
    QApplication.processEvents()
    for place in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.9)):
        click(qtbot, player, *place)
    if how == "first corner":
        click(qtbot, player, 0.2, 0.2)
    else:
        qtbot.mouseDClick(player.view, Qt.MouseButton.LeftButton, pos=at(player, 0.5, 0.9))
    assert len(session.state.zones.zones[0].points) == 3
    assert not player.isFullScreen()


def test_a_line_by_two_clicks(qtbot, player, session):
    press(qtbot, player.view, "X")
    assert session.state.drawing.tool == "line"
    qtbot.waitUntil(player.zones.isVisible)
    QApplication.processEvents()
    click(qtbot, player, 0.5, 0.1)
    move(player, 0.6, 0.8)
    assert near(session.state.drawing.cursor, 0.6, 0.8)
    click(qtbot, player, 0.6, 0.9)
    (line,) = session.state.zones.lines
    assert near(line.start, 0.5, 0.1) and near(line.end, 0.6, 0.9)


def test_escape_cancels_what_is_drawn_and_leaves_fullscreen_alone(qtbot, player, session):
    session.zones.take("zone")
    session.zones.add_point((0.5, 0.5))
    press(qtbot, player.view, "Esc")
    assert session.state.drawing == Drawing() and session.state.zones == ZonePlan()


def test_the_same_key_puts_the_tool_away(qtbot, player, session):
    press(qtbot, player.view, "Z")
    qtbot.waitUntil(player.actions_by_name["draw_zone"].isChecked)
    press(qtbot, player.view, "Z")
    assert session.state.drawing.tool == ""
    qtbot.waitUntil(lambda: not player.actions_by_name["draw_zone"].isChecked())


def test_without_a_picture_there_is_nothing_to_draw_on(window):
    for name in ("draw_zone", "draw_line", "edit_zones"):
        assert not window.actions_by_name[name].isEnabled()


def test_points_are_dragged(qtbot, planned, session):
    press(qtbot, planned.view, "E")
    assert session.state.drawing.tool == "edit"
    qtbot.mousePress(planned.view, Qt.MouseButton.LeftButton, pos=at(planned, 0.75, 0.25))
    assert (session.state.drawing.selected, session.state.drawing.grabbed) == (0, 1)
    move(planned, 0.9, 0.1, Qt.MouseButton.LeftButton)
    assert session.state.zones == PLAN  # until it is let go
    qtbot.mouseRelease(planned.view, Qt.MouseButton.LeftButton, pos=at(planned, 0.9, 0.1))
    assert near(session.state.zones.zones[0].points[1], 0.9, 0.1)
    click(qtbot, planned, 0.05, 0.5)  # beside everything
    assert session.state.drawing.selected is None


def test_points_of_the_shape_that_is_selected_are_dragged_without_a_tool(qtbot, planned, session):
    session.zones.select(1)
    qtbot.mousePress(planned.view, Qt.MouseButton.LeftButton, pos=at(planned, 0.75, 0.25))  # of the other shape
    assert session.state.drawing.grabbed is None
    qtbot.mouseRelease(planned.view, Qt.MouseButton.LeftButton, pos=at(planned, 0.75, 0.25))
    session.zones.select(1)
    qtbot.mousePress(planned.view, Qt.MouseButton.LeftButton, pos=at(planned, 0.5, 0.99))
    move(planned, 0.3, 0.8, Qt.MouseButton.LeftButton)
    qtbot.mouseRelease(planned.view, Qt.MouseButton.LeftButton, pos=at(planned, 0.3, 0.8))
    assert near(session.state.zones.lines[0].end, 0.3, 0.8)
    assert session.state.zones.zones == PLAN.zones
    assert session.state.drawing.tool == "" and session.state.drawing.grabbed is None


# Drawing with the keys


def test_a_zone_by_keys_alone(qtbot, player, session):
    press(qtbot, player.view, "Z")
    press(qtbot, player.view, "Space")
    for _ in range(2):
        press(qtbot, player.view, "Shift+Right")
    press(qtbot, player.view, "Space")
    press(qtbot, player.view, "Space")  # the same corner again is none
    press(qtbot, player.view, "Shift+Down")
    press(qtbot, player.view, "Up")
    press(qtbot, player.view, "Space")
    assert [tuple(round(v, 3) for v in p) for p in session.state.drawing.points] == [
        (0.5, 0.5), (0.6, 0.5), (0.6, 0.545)
    ]  # fmt: skip
    press(qtbot, player.view, "Backspace")
    assert len(session.state.drawing.points) == 2
    press(qtbot, player.view, "Shift+Left")
    press(qtbot, player.view, "Space")
    press(qtbot, player.view, "Enter")
    assert len(session.state.zones.zones[0].points) == 3
    assert session.state.speed == 1.0 and session.state.phase is State.PAUSED  # no shortcut was meant
    assert session.state.conf == 0.5


def test_a_line_by_keys_alone(qtbot, player, session):
    press(qtbot, player.view, "X")
    press(qtbot, player.view, "Return")
    press(qtbot, player.view, "Shift+Down")
    press(qtbot, player.view, "Return")
    assert session.state.zones.lines == (Line("Line 1", (0.5, 0.5), (0.5, 0.55)),)


def test_points_are_moved_by_keys_and_shapes_removed(qtbot, planned, session):
    press(qtbot, planned.view, "E")
    for _ in range(2):
        press(qtbot, planned.view, "Space")
    assert (session.state.drawing.selected, session.state.drawing.grabbed) == (0, 1)
    press(qtbot, planned.view, "Shift+Left")
    assert near(session.state.zones.zones[0].points[1], 0.70, 0.25)
    press(qtbot, planned.view, "Return")
    assert session.state.drawing.tool == ""
    press(qtbot, planned.view, "Delete")
    assert session.state.zones == ZonePlan((), PLAN.lines)


def test_arrows_are_shortcuts_again_when_nothing_is_drawn(qtbot, planned, session):
    press(qtbot, planned.view, "Up")
    assert session.state.conf == 0.55


# The panel


def test_shift_z_unfolds_and_folds(qtbot, window, session):
    press(qtbot, window.view, "Shift+Z")
    assert session.state.zones_panel
    qtbot.waitUntil(window.zones.isVisible)
    press(qtbot, window.view, "Shift+Z")
    assert not session.state.zones_panel
    qtbot.waitUntil(lambda: not window.zones.isVisible())


def test_the_tools_of_the_panel(qtbot, planned, session):
    for name, tool in (("draw_zone", "zone"), ("draw_line", "line"), ("edit_zones", "edit")):
        qtbot.waitUntil(planned.zones.tools[name].isEnabled)
        qtbot.mouseClick(planned.zones.tools[name], Qt.MouseButton.LeftButton)
        assert session.state.drawing.tool == tool
        qtbot.waitUntil(planned.zones.tools[name].isChecked)


def test_a_name_is_written_in_the_list_and_a_bad_one_gives_way(qtbot, planned, session):
    item = planned.zones.tree.topLevelItem(0)
    item.setText(0, "court")
    assert session.state.zones.zones[0].name == "court"
    qtbot.waitUntil(lambda: planned.zones.tree.topLevelItem(0).text(0) == "court")
    planned.zones.tree.topLevelItem(1).setText(0, "court")
    assert "'court' is there twice" in session.state.problem.sentence
    qtbot.waitUntil(lambda: planned.zones.tree.topLevelItem(1).text(0) == "gate")


@pytest.mark.parametrize("how", ["button", "Delete"])
def test_the_chosen_one_is_removed(qtbot, planned, session, how):
    tree = planned.zones.tree
    assert not planned.zones.remove.isEnabled()
    tree.setCurrentItem(tree.topLevelItem(1))
    assert session.state.drawing.selected == 1
    qtbot.waitUntil(planned.zones.remove.isEnabled)
    if how == "button":
        qtbot.mouseClick(planned.zones.remove, Qt.MouseButton.LeftButton)
    else:
        press(qtbot, tree, how)
    assert session.state.zones == ZonePlan(PLAN.zones)
    qtbot.waitUntil(lambda: tree.topLevelItemCount() == 1)


def test_what_the_session_selects_is_chosen_in_the_list(qtbot, planned, session):
    session.zones.select(1)
    qtbot.waitUntil(lambda: planned.zones.tree.currentItem() is planned.zones.tree.topLevelItem(1))
    session.zones.select(None)
    qtbot.waitUntil(lambda: planned.zones.tree.currentItem() is None)


def test_counts_by_class_are_in_the_list_and_in_the_picture_and_begin_anew(qtbot, planned, session):
    session.store.change(zones=ZonePlan((Zone("all", ((0, 0), (1, 0), (1, 1), (0, 1))),), PLAN.lines))
    qtbot.waitUntil(lambda: planned.zones.note.text() == "Zones count tracked things: switch tracking on (T).")
    session.tracks.set_tracking(True)
    qtbot.waitUntil(lambda: planned.zones.note.text() == "")
    tree = planned.zones.tree

    def rows():
        item = tree.topLevelItem(0)
        return [[row.text(c) for c in range(4)] for row in (item, *(item.child(i) for i in range(item.childCount())))]

    want = [["all", "2", "0", "0"], ["dog", "1", "0", "0"], ["person", "1", "0", "0"]]
    qtbot.waitUntil(lambda: rows() == want)
    texts = [mark.text for mark in session.marks(session.shown) if isinstance(mark, LabelMark)]
    assert "all: now 2 (dog 1, person 1) in 0 out 0" in texts and "gate: in 0 out 0" in texts
    assert [tree.topLevelItem(1).text(c) for c in range(4)] == ["gate", "", "0", "0"]
    before = session.tracks.followed(session.shown)
    qtbot.mouseClick(planned.zones.reset, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.tracks.followed(session.shown) is not before)
    qtbot.waitUntil(lambda: rows() == want)  # seen anew


def test_zones_are_saved_and_loaded_without_waiting(qtbot, planned, session, tmp_path):
    qtbot.mouseClick(planned.zones.save, Qt.MouseButton.LeftButton)
    (dialog,) = planned.findChildren(QFileDialog)
    assert dialog.acceptMode() is QFileDialog.AcceptMode.AcceptSave
    dialog.fileSelected.emit(str(tmp_path / "zones.json"))
    qtbot.waitUntil(lambda: session.state.toast is not None)
    assert load_zones(tmp_path / "zones.json") == PLAN
    dialog.close()
    qtbot.waitUntil(lambda: planned.findChildren(QFileDialog) == [])
    other = ZonePlan((Zone("other", PLAN.zones[0].points),))
    save_zones(other, tmp_path / "zones.json")
    qtbot.mouseClick(planned.zones.load, Qt.MouseButton.LeftButton)
    (dialog,) = planned.findChildren(QFileDialog)
    assert dialog.acceptMode() is QFileDialog.AcceptMode.AcceptOpen
    dialog.fileSelected.emit(str(tmp_path / "zones.json"))
    qtbot.waitUntil(lambda: session.state.zones == other)
    dialog.close()


def test_a_new_source_has_its_own_zones(qtbot, planned, session, make_clip, tmp_path):
    session.zones.rename(0, "kept")
    first = Path(session.state.recents[0])
    session.open_source(make_clip(tmp_path / "other.mp4"))
    qtbot.waitUntil(lambda: session.state.source is not None and session.state.source.display_name == "other.mp4")
    qtbot.waitUntil(lambda: planned.zones.tree.topLevelItemCount() == 0)
    assert "Draw a zone (Z)" in planned.zones.note.text()
    session.open_source(first)
    qtbot.waitUntil(lambda: planned.zones.tree.topLevelItemCount() == 2)
    assert planned.zones.tree.topLevelItem(0).text(0) == "kept"


def test_every_control_has_a_name_and_is_reached_with_tab(planned):
    for button in planned.zones.findChildren(QAbstractButton):
        assert button.accessibleName() or button.text()
        assert button.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert planned.zones.tree.accessibleName()
    assert planned.zones.tree.focusPolicy() & Qt.FocusPolicy.TabFocus


@pytest.mark.parametrize("tool", ["zone", "line", "edit"])
def test_what_is_drawn_is_painted(qtbot, planned, session, tool):
    """The handles of the plan, or the cross of the cursor, change the picture where they are."""
    session.zones.select(None)
    session.store.change(zones=PLAN if tool == "edit" else ZonePlan())
    plain = planned.view.grab().toImage()
    session.zones.take(tool)
    session.zones.point_to((0.3, 0.6))
    place = at(planned, 0.25, 0.25) - QPoint(4, 0) if tool == "edit" else at(planned, 0.3, 0.6)
    qtbot.waitUntil(lambda: planned.view.grab().toImage().pixelColor(place) != plain.pixelColor(place))
