"""Each control and each shortcut: what it does to the session, and what the session does to it."""

import itertools
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import (
    QColor,
    QDragEnterEvent,
    QDropEvent,
    QGuiApplication,
    QKeySequence,
    QMouseEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QApplication,
    QFileDialog,
    QLabel,
    QLineEdit,
    QListWidget,
)

from ledetr.chain.overlay import LabelMark
from ledetr.chain.pipeline import Failed, State
from ledetr.errors import SourceError
from ledetr_app.model_loader import ModelWish
from ledetr_app.state import Loss, Problem, Toast
from ledetr_app.ui.stats_overlay import AgeGraph
from ledetr_app.ui.theme import DARK, LIGHT
from ledetr_app.viewport import View

PATTERN = "test:320x240p30"


def press(qtbot, window, keys):
    """The keys as the user presses them with the picture in focus."""
    combination = QKeySequence(keys)[0]
    qtbot.keyClick(window.view, combination.key(), combination.keyboardModifiers())


# Shortcuts: each asserts its effect on the session


@pytest.mark.parametrize(("key", "scale"), [("2", "m"), ("3", "l"), ("4", "x"), ("1", "n")])
def test_number_keys_choose_the_model(qtbot, playing, session, key, scale):
    session.set_model("l" if scale == "n" else "n")
    qtbot.waitUntil(lambda: session.state.loading is None)
    press(qtbot, playing, key)
    assert session.state.model == scale
    qtbot.waitUntil(lambda: session.state.running.model_id == scale)
    qtbot.waitUntil(lambda: playing.model.buttons[scale].isChecked())


@pytest.mark.parametrize(("key", "conf"), [("Up", 0.55), ("Down", 0.45)])
def test_arrows_move_the_threshold(qtbot, window, session, key, conf):
    press(qtbot, window, key)
    assert session.state.conf == conf
    qtbot.waitUntil(lambda: window.display.slider.value() == round(100 * conf))
    assert window.display.value.text() == f"{conf:.2f}"


@pytest.mark.parametrize(("key", "part"), [("B", "boxes"), ("L", "labels"), ("C", "side_panel")])
def test_letters_switch_parts(qtbot, window, session, key, part):
    before = getattr(session.state, part)
    press(qtbot, window, key)
    assert getattr(session.state, part) is not before
    qtbot.waitUntil(lambda: window.display.buttons[part].isChecked() is not before)
    press(qtbot, window, key)
    assert getattr(session.state, part) is before


def test_space_plays_and_pauses(qtbot, playing, session):
    press(qtbot, playing, "Space")
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    press(qtbot, playing, "Space")
    qtbot.waitUntil(lambda: session.state.phase is State.RUNNING)


@pytest.mark.parametrize("key", ["S", "Shift+S"])
def test_s_saves_a_snapshot(qtbot, playing, session, key):
    press(qtbot, playing, key)
    qtbot.waitUntil(lambda: playing.toast.isVisible())
    assert session.state.toast.path.exists()
    assert session.state.toast.path.name in playing.toast.text.text()


def test_r_records_and_ends(qtbot, playing, session):
    press(qtbot, playing, "R")
    qtbot.waitUntil(lambda: playing.recording.record.isChecked())
    qtbot.waitUntil(lambda: (status := session.recording_status()) is not None and status.frames > 3, timeout=10_000)
    qtbot.waitUntil(lambda: "MB" in playing.recording.record.text())
    press(qtbot, playing, "R")
    qtbot.waitUntil(lambda: session.state.toast is not None, timeout=10_000)
    qtbot.waitUntil(lambda: not playing.recording.record.isChecked())
    assert playing.recording.record.text() == " Record"


@pytest.mark.parametrize("key", ["F", "F11"])
def test_f_is_fullscreen_and_esc_leaves(qtbot, playing, session, key):
    session.set_side_panel(True)
    qtbot.waitUntil(playing.classes.isVisible)
    press(qtbot, playing, key)
    assert playing.isFullScreen()
    assert not playing.stats.isVisible()
    assert not playing.classes.isVisible()
    assert not playing.menuBar().isVisible()
    press(qtbot, playing, "Esc")
    assert not playing.isFullScreen()
    assert playing.stats.isVisible()
    assert playing.timeline.isVisible()
    assert playing.classes.isVisible()


def test_double_click_is_fullscreen(qtbot, window):
    qtbot.mouseDClick(window.view, Qt.MouseButton.LeftButton)
    assert window.isFullScreen()
    qtbot.mouseDClick(window.view, Qt.MouseButton.LeftButton)
    assert not window.isFullScreen()


@pytest.mark.parametrize(
    ("start_s", "key", "there_s"),
    [
        (1.0, "Right", 2.36),  # 5 s on: the last frame
        (2.0, "Left", 0.0),
        (1.0, "Shift+Right", 2.0),
        (1.4, "Shift+Left", 0.4),
        (1.0, "Ctrl+Right", 2.36),
        (1.0, "Ctrl+Left", 0.0),
        (1.0, "Home", 0.0),
        (1.0, "End", 2.36),
        (1.0, ".", 1.04),
        (1.0, ",", 0.96),
    ],
)
def test_keys_move_in_the_file(qtbot, player, session, start_s, key, there_s):
    session.seek(start_s)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == start_s)
    press(qtbot, player, key)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == pytest.approx(there_s, abs=1e-9))
    qtbot.waitUntil(lambda: player.timeline.position.text() == f"00:{there_s:06.3f}")
    assert player.timeline.slider.value() == round(1000 * there_s)


@pytest.mark.parametrize(
    ("keys", "speed"),
    [(["]"], 1.25), (["[", "["], 0.5), (["]"] * 9, 4.0), (["["] * 9, 0.25), (["]", "Backspace"], 1.0)],
)
def test_brackets_change_the_speed(qtbot, player, session, keys, speed):
    for key in keys:
        press(qtbot, player, key)
    assert session.state.speed == speed
    qtbot.waitUntil(lambda: session.pipeline.speed == speed)


@pytest.mark.parametrize("speed", [0.25, 1.5, 4.0])
def test_speed_menu(qtbot, player, session, speed):
    player.timeline.speeds[speed].trigger()
    assert session.state.speed == speed
    qtbot.waitUntil(lambda: player.timeline.speed.text() == f"{speed:g}×")
    session.change_speed(1 if speed < 4 else -1)
    qtbot.waitUntil(lambda: player.timeline.speeds[session.state.speed].isChecked())


def _go_to(qtbot, session, pts_s):
    session.seek(pts_s)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == pytest.approx(pts_s, abs=1e-9))


def test_in_and_out_points_are_those_of_the_picture_and_loop(qtbot, player, session):
    slider = player.timeline.slider
    _go_to(qtbot, session, 1.0)
    press(qtbot, player, "Shift+I")
    assert (session.state.in_s, session.state.out_s, session.state.loop) == (1.0, None, True)
    qtbot.waitUntil(lambda: slider.part_ms == (1000, None) and player.timeline.loop.isChecked())
    _go_to(qtbot, session, 1.2)
    press(qtbot, player, "Shift+O")
    assert (session.state.in_s, session.state.out_s) == (1.0, 1.2)
    qtbot.waitUntil(lambda: slider.part_ms == (1000, 1200))
    seen = []
    player.bridge.woken.connect(lambda: seen.append(session.shown.frame.meta.pts_s))
    press(qtbot, player, "Space")
    qtbot.waitUntil(lambda: sum(b < a for a, b in itertools.pairwise(seen)) >= 2, timeout=10_000)
    assert all(0.999 < pts_s < 1.201 for pts_s in seen[seen.index(1.0) :])
    press(qtbot, player, "Shift+X")
    assert (session.state.in_s, session.state.out_s, session.state.loop) == (None, None, False)
    qtbot.waitUntil(lambda: slider.part_ms == (None, None))
    qtbot.waitUntil(lambda: session.state.ended, timeout=10_000)


def test_a_part_is_painted_on_the_timeline(qtbot, player, session):
    def under_the_groove(ms):
        slider = player.timeline.slider
        x, y = slider.x_of(ms), slider.height() // 2 + 10
        return slider.grab().toImage().pixelColor(x, y)

    ground = under_the_groove(1500)
    session.set_in(1.0)
    session.set_out(2.0)
    qtbot.waitUntil(lambda: player.timeline.slider.part_ms == (1000, 2000))
    assert under_the_groove(1500) == QColor(LIGHT.accent)
    assert under_the_groove(500) == under_the_groove(2300) == ground


def test_loop_button_loops_the_whole_file(qtbot, player, session):
    qtbot.mouseClick(player.timeline.loop, Qt.MouseButton.LeftButton)
    assert session.state.loop is True
    session.set_speed(4.0)
    session.seek(2.0)
    session.play()
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s < 1.0, timeout=10_000)
    assert not session.state.ended
    press(qtbot, player, "Shift+L")
    assert session.state.loop is False
    qtbot.waitUntil(lambda: not player.timeline.loop.isChecked())


def test_the_end_offers_to_play_again(qtbot, player, session):
    session.seek(2.2)
    session.play()
    qtbot.waitUntil(lambda: session.state.ended, timeout=10_000)
    qtbot.waitUntil(lambda: player.timeline.buttons["play"].accessibleName() == "Play again")
    qtbot.waitUntil(lambda: session.shown.frame.meta.index == 59)
    qtbot.mouseClick(player.timeline.buttons["play"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not session.state.ended and session.shown.frame.meta.index < 55)
    qtbot.waitUntil(lambda: player.timeline.buttons["play"].accessibleName() == "Pause")


def test_of_a_source_that_failed_no_timeline_stays(qtbot, player, session):
    session.set_in(1.0)
    session._on_event(Failed(SourceError("'clip.mp4' sent no picture for 5.5 s")))
    qtbot.waitUntil(lambda: not player.timeline.slider.isVisible() and player.errors.isVisible())
    assert session.state.source is None
    assert not player.actions_by_name["loop"].isEnabled()


def test_a_drag_shows_pictures_on_its_way_and_ends_where_it_ends(qtbot, player, session, loader):
    """With a detector slower than the pointer, a seek for each move would throw away every picture but the last."""
    slider, seen = player.timeline.slider, set()
    loader.loaded[0].work_s = 0.03
    slider.setSliderDown(True)
    for ms in range(0, 2000, 20):
        slider.setValue(ms)
        qtbot.wait(5)
        seen.add(session.shown.frame.meta.index)
    slider.setSliderDown(False)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == pytest.approx(2.0, abs=1e-9))  # the first at or after
    assert len(seen) > 5


def test_no_speed_and_no_loop_for_a_live_source(qtbot, playing):
    assert not playing.timeline.speed.isVisible()
    assert not playing.actions_by_name["loop"].isEnabled()


def test_ctrl_w_stops(qtbot, playing, session):
    press(qtbot, playing, "Ctrl+W")
    qtbot.waitUntil(lambda: session.state.phase is State.IDLE)
    qtbot.waitUntil(lambda: playing.empty.isVisible())


def test_ctrl_o_asks_for_a_file_without_waiting(qtbot, window, session, clip):
    press(qtbot, window, "Ctrl+O")
    dialogs = window.findChildren(QFileDialog)
    assert len(dialogs) == 1
    dialogs[0].filesSelected.emit([str(clip)])
    qtbot.waitUntil(lambda: session.state.source is not None and session.state.source.display_name == "clip.mp4")
    dialogs[0].close()


def test_ctrl_shift_o_asks_for_a_folder(qtbot, window):
    press(qtbot, window, "Ctrl+Shift+O")
    (dialog,) = window.findChildren(QFileDialog)
    assert dialog.fileMode() is QFileDialog.FileMode.Directory
    dialog.close()


def test_ctrl_l_unfolds_the_address_line(qtbot, window, session):
    press(qtbot, window, "Ctrl+L")
    assert window.address.isVisible()
    qtbot.keyClicks(window.address.line, PATTERN)
    qtbot.keyClick(window.address.line, Qt.Key.Key_Return)
    assert not window.address.isVisible()
    assert window.address.line.text() == ""
    qtbot.waitUntil(lambda: session.state.phase is State.RUNNING, timeout=10_000)


def test_letters_in_the_address_line_are_letters(qtbot, window, session):
    window.address.unfold()
    before = session.state
    qtbot.keyClicks(window.address.line, "sblrf 1234.,")
    assert window.address.line.text() == "sblrf 1234.,"
    assert session.state.boxes == before.boxes
    assert session.state.problem is None
    qtbot.keyClick(window.address.line, Qt.Key.Key_Escape)
    assert not window.address.isVisible()
    assert window.address.line.text() == ""


@pytest.mark.parametrize(("key", "boxes"), [("Ctrl+C", False), ("Ctrl+Shift+C", True)])
def test_ctrl_c_copies_the_full_size_picture(qtbot, playing, session, key, boxes):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    press(qtbot, playing, key)
    image = QGuiApplication.clipboard().image()
    assert (image.width(), image.height()) == (320, 240)
    rgb = session.shown.frame.rgb
    corner = image.pixelColor(20, 100)  # on the left edge of the person's box
    assert ((corner.red(), corner.green(), corner.blue()) == tuple(rgb[100, 20])) is not boxes


@pytest.mark.parametrize("key", ["?", "F1"])
def test_the_sheet_of_keys(qtbot, window, key):
    press(qtbot, window, key)
    assert window.keys_sheet.isVisible()
    words = [label.text() for label in window.keys_sheet.findChildren(QLabel)]
    assert "Play / pause" in words
    assert "Space" in words
    press(qtbot, window, "Esc")
    assert not window.keys_sheet.isVisible()


# Zoom, pan and selection


def _wheel(window, at, steps, modifiers=Qt.KeyboardModifier.ControlModifier):
    delta, none = QPoint(0, 120 * steps), Qt.MouseButton.NoButton
    place = window.view.mapToGlobal(at)
    window.view.wheelEvent(
        QWheelEvent(at, QPointF(place), QPoint(), delta, none, modifiers, Qt.ScrollPhase.NoScrollPhase, False)
    )


def test_ctrl_and_wheel_zoom_at_the_pointer(qtbot, playing, session):
    rect = playing.view.picture_rect
    at = rect.center() + QPointF(100, 20)
    _wheel(playing, at, 3)
    assert session.state.view.zoom == pytest.approx(rect.width() / 320 * 1.25**3)
    zoomed = playing.view.picture_rect
    there = (at.x() - rect.left()) / rect.width()
    assert (at.x() - zoomed.left()) / zoomed.width() == pytest.approx(there, abs=1e-3)
    qtbot.waitUntil(lambda: playing.bridge.prep.picture.part_xyxy != (0, 0, 320, 240))
    _wheel(playing, at, -3)
    assert session.state.view == View()
    _wheel(playing, at, 3, Qt.KeyboardModifier.NoModifier)
    assert session.state.view == View()


@pytest.mark.parametrize(("key", "factor"), [("+", 1.25), ("=", 1.25), ("Ctrl++", 1.25), ("-", 0.8), ("Ctrl+-", 0.8)])
def test_plus_and_minus_zoom(qtbot, playing, session, key, factor):
    fit = playing.view.picture_rect.width() / 320
    press(qtbot, playing, key)
    assert session.state.view.zoom == pytest.approx(fit * factor)
    press(qtbot, playing, "0")
    assert session.state.view == View()


def test_full_size_has_each_pixel_once(qtbot, playing, session):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    session.show(boxes=False)
    press(qtbot, playing, "Ctrl+1")
    assert session.state.view.zoom == 1.0
    qtbot.waitUntil(lambda: playing.view._picture.size_wh == (320, 240))
    image = playing.view.grab(playing.view.picture_rect.toRect()).toImage()
    rgb = session.shown.frame.rgb
    for x, y in ((0, 0), (319, 239), (160, 120), (31, 77)):
        colour = image.pixelColor(x, y)
        assert (colour.red(), colour.green(), colour.blue()) == tuple(rgb[y, x])
    press(qtbot, playing, "Ctrl+0")
    assert session.state.view == View()


def test_drag_pans_and_selects_nothing(qtbot, playing, session):
    playing.view.zoom_by(4.0)
    before = playing.view.picture_rect.topLeft()
    middle = playing.view.rect().center()
    qtbot.mousePress(playing.view, Qt.MouseButton.LeftButton, pos=middle)
    for x in range(0, 61, 20):
        _move(playing.view, middle + QPoint(x, -x // 2))
    qtbot.mouseRelease(playing.view, Qt.MouseButton.LeftButton, pos=middle + QPoint(60, -30))
    moved = playing.view.picture_rect.topLeft() - before
    assert (moved.x(), moved.y()) == pytest.approx((60, -30), abs=2)
    assert session.selected is None


def _move(view, at):
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    view.mouseMoveEvent(
        QMouseEvent(QEvent.Type.MouseMove, QPointF(at), QPointF(view.mapToGlobal(at)), left, left, none)
    )


def test_a_new_source_is_seen_as_a_whole(qtbot, playing, session, clip):
    session.set_view(View(8.0))
    session.open_source(clip)
    qtbot.waitUntil(lambda: session.state.source is not None and session.state.source.display_name == "clip.mp4")
    assert session.state.view == View()


@pytest.mark.parametrize("zoom", [1.0, 4.0])
def test_click_selects_the_box_under_it_and_the_bar_describes_it(qtbot, playing, session, zoom):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    playing.view.zoom_by(zoom)
    before = _grab(playing)
    rect = playing.view.picture_rect
    where = QPointF(rect.left() + 150 / 320 * rect.width(), rect.top() + 110 / 240 * rect.height())
    qtbot.mouseClick(playing.view, Qt.MouseButton.LeftButton, pos=where.toPoint())
    assert session.selected.names == ["dog"]
    qtbot.waitUntil(lambda: playing.stats.selected.text() == "dog 0.60 · 120 × 140 px")
    qtbot.waitUntil(lambda: _grab(playing) != before)
    session.set_conf(0.65)  # a box that is not seen is not selected
    qtbot.waitUntil(lambda: playing.stats.selected.text() == "")
    session.set_conf(0.5)
    qtbot.waitUntil(lambda: playing.stats.selected.text().startswith("dog"))
    press(qtbot, playing, "Esc")
    assert session.selected is None
    qtbot.waitUntil(lambda: playing.stats.selected.text() == "")


def test_a_selected_box_stays_selected_while_it_plays(qtbot, playing, session):
    session.select_at(30, 30)
    number = session.shown.number
    qtbot.waitUntil(lambda: session.shown.number > number + 5)
    assert session.selected.names == ["person"]
    session.stop()
    qtbot.waitUntil(lambda: session.shown is None)
    assert session.selected is None


def test_every_command_with_a_key_is_in_a_menu_or_does_the_same_as_one(window):
    in_menus = {a for menu in window.menuBar().actions() for a in menu.menu().actions()}
    unseen = {a.text() for a in window.actions_by_name if a.shortcuts() and a not in in_menus}
    assert unseen == {"Leave fullscreen"}


def test_no_key_has_two_meanings(window):
    keys = [key.toString() for action in window.actions_by_name for key in action.shortcuts()]
    assert len(keys) == len(set(keys))


# Controls


def test_model_buttons_show_what_is_there(qtbot, make_window, make_session, loader):
    loader.missing |= {"x"}
    session = make_session()
    window = make_window(session)
    qtbot.waitUntil(lambda: window.model.buttons["x"].property("missing") is True)
    assert "no weights on this computer yet" in window.model.buttons["x"].toolTip()
    assert "Ready here: N, M, L" in window.model.buttons["x"].toolTip()
    assert window.model.buttons["n"].property("missing") is False


def test_click_on_a_model_switches_while_the_picture_goes_on(qtbot, playing, session, loader):
    loader.gate.clear()
    qtbot.mouseClick(playing.model.buttons["m"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: playing.model.buttons["m"].property("loading") is True)
    assert playing.stats.model.text() == "Switching to M …"
    shown = session.shown.number
    qtbot.waitUntil(lambda: session.shown.number > shown + 5)
    loader.gate.set()
    qtbot.waitUntil(lambda: playing.stats.model.text() == "M · openvino · cpu · fp32")
    assert playing.model.buttons["m"].property("loading") is False


def test_a_switch_that_fails_before_anybody_looks_puts_the_button_back(playing):
    """Qt has checked the button already; the state that the panel sees is the one it saw before."""
    playing.model.buttons["x"].setChecked(True)
    playing.refresh()
    assert playing.model.buttons["n"].isChecked() and not playing.model.buttons["x"].isChecked()


def test_a_device_that_fails_before_anybody_looks_loses_the_mark(qtbot, playing, session, monkeypatch):
    menu = playing.engine.precision
    monkeypatch.setattr(session, "set_precision", lambda _precision: None)  # as one that fails at once
    playing.engine.device.aboutToShow.emit()  # the devices come, and all three menus are made anew
    qtbot.waitUntil(lambda: len(playing.engine.device.actions()) == 6)
    menu.actions()[2].trigger()
    assert _chosen(menu) == ["fp16"]
    playing.engine.refresh()
    assert _chosen(menu) == ["Automatic"]


def _chosen(menu):
    return [action.text() for action in menu.actions() if action.isChecked()]


def test_device_menu(qtbot, playing, session, loader):
    menu = playing.engine.device
    menu.aboutToShow.emit()
    qtbot.waitUntil(lambda: len(menu.actions()) == 6)
    names = [action.text() for action in menu.actions()]
    assert names[:4] == ["Automatic", "cpu – Processor <1>", "cuda:0 – GPU && co", "cuda:7 – gone"]
    assert names[-1] == "Runs now: openvino on cpu in fp32"
    menu.actions()[2].trigger()
    assert session.state.device == "cuda:0"
    qtbot.waitUntil(lambda: playing.stats.model.text() == "N · openvino · cuda:0 · fp32")
    qtbot.waitUntil(lambda: _chosen(menu) == ["cuda:0 – GPU && co"])
    assert menu.actions()[-1].text() == "Runs now: openvino on cuda:0 in fp32"
    qtbot.waitUntil(lambda: loader.loaded[0].closed == 1)
    menu.actions()[3].trigger()  # is not there any more: the model that runs stays, and its choice comes back
    qtbot.waitUntil(lambda: playing.errors.isVisible())
    assert session.state.device == "cuda:0"
    qtbot.waitUntil(lambda: _chosen(menu) == ["cuda:0 – GPU && co"])
    assert loader.loaded[1].closed == 0


def test_precision_menu(qtbot, playing, session, loader):
    menu = playing.engine.precision
    assert [action.text() for action in menu.actions()] == ["Automatic", "fp32", "fp16", "bf16"]
    menu.actions()[3].trigger()
    assert session.state.precision == "bf16"
    qtbot.waitUntil(lambda: session.state.running.precision == "bf16")
    session.set_precision("auto")
    qtbot.waitUntil(lambda: _chosen(menu) == ["Automatic"] and session.state.running.precision == "fp32")


def test_decoder_layers_where_the_scale_has_some_to_spare(qtbot, playing, session, loader):
    menu = playing.engine.layers
    assert not menu.isEnabled()  # N was trained with three
    session.set_model("l")
    qtbot.waitUntil(lambda: menu.isEnabled() and session.state.loading is None)
    assert [action.text() for action in menu.actions()] == ["As trained", "3", "4", "5", "6"]
    menu.actions()[1].trigger()
    qtbot.waitUntil(lambda: session.state.running.wish == ModelWish("l", decoder_layers=3))
    assert loader.wishes[-1].decoder_layers == 3
    qtbot.waitUntil(lambda: _chosen(menu) == ["3"])
    session.set_model("n")  # another model has its own number
    assert session.state.decoder_layers is None
    qtbot.waitUntil(lambda: not menu.isEnabled())


def test_failed_switch_puts_the_button_back(qtbot, playing, session, loader):
    loader.missing.add("x")
    qtbot.mouseClick(playing.model.buttons["x"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: playing.errors.isVisible() and playing.model.buttons["n"].isChecked())
    assert not playing.model.buttons["x"].isChecked()
    assert session.state.running.model_id == "n"


def test_score_slider_acts_at_once_also_while_paused(qtbot, playing, session, loader):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    before = _grab(playing)
    inferences = loader.loaded[0].frames
    playing.display.slider.setValue(95)
    assert session.state.conf == 0.95
    qtbot.waitUntil(lambda: _grab(playing) != before)
    assert loader.loaded[0].frames == inferences
    session.set_conf(0.5)
    qtbot.waitUntil(lambda: playing.display.slider.value() == 50)
    qtbot.waitUntil(lambda: _grab(playing) == before)


def _grab(window):
    return window.view.grab().toImage()


@pytest.mark.parametrize("name", ["boxes", "labels"])
def test_display_buttons(qtbot, window, session, name):
    qtbot.mouseClick(window.display.buttons[name], Qt.MouseButton.LeftButton)
    assert getattr(session.state, name) is False
    session.show(**{name: True})
    qtbot.waitUntil(lambda: window.display.buttons[name].isChecked())


def test_record_and_snapshot_without_a_source_are_sentences(qtbot, window):
    qtbot.mouseClick(window.recording.record, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.errors.isVisible())
    assert window.errors.sentence.text() == "There is nothing to record yet: open a source first."
    assert not window.recording.record.isChecked()
    qtbot.mouseClick(window.recording.snapshot, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.errors.sentence.text().startswith("There is no picture"))


def test_transport_buttons(qtbot, playing, session):
    buttons = playing.timeline.buttons
    qtbot.mouseClick(buttons["play"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    qtbot.mouseClick(buttons["stop"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.state.phase is State.IDLE)
    qtbot.waitUntil(lambda: not buttons["stop"].isEnabled())


def test_timeline_click_seeks_and_position_comes_back(qtbot, player, session):
    slider = player.timeline.slider
    assert slider.maximum() == 2400
    assert player.timeline.duration.text() == "00:02.400"
    qtbot.mouseClick(slider, Qt.MouseButton.LeftButton, pos=QPoint(slider.width() // 2, slider.height() // 2))
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == pytest.approx(1.2, abs=0.05))
    qtbot.waitUntil(lambda: slider.value() == round(1000 * session.shown.frame.meta.pts_s))


def test_no_timeline_for_a_live_source(qtbot, playing):
    assert not playing.timeline.slider.isVisible()
    assert playing.timeline.name.text().startswith("test pattern")


def test_class_list_filters_and_counts(qtbot, playing, session):
    session.set_side_panel(True)
    session.set_conf(0.05)
    qtbot.waitUntil(lambda: playing.classes.isVisible())
    rows = playing.classes.list
    qtbot.waitUntil(lambda: [rows.item(i).text() for i in range(3)] == ["person   1", "dog   1", "car   1"])
    rows.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert session.state.shown_classes == {"person", "car"}
    playing.classes.none_button.click()
    assert session.state.shown_classes == frozenset()
    qtbot.waitUntil(lambda: rows.item(0).checkState() is Qt.CheckState.Unchecked)
    playing.classes.all_button.click()
    assert session.state.shown_classes is None
    playing.classes.search.setText("CA")
    assert [rows.item(i).isHidden() for i in range(3)] == [True, True, False]


def test_a_class_can_have_a_threshold_of_its_own_also_while_paused(qtbot, playing, session, loader):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    press(qtbot, playing, "C")
    qtbot.waitUntil(lambda: playing.classes.isVisible())
    inferences, before = loader.loaded[0].frames, _grab(playing)
    panel = playing.classes
    assert not panel.threshold.isVisible()
    panel.list.setCurrentRow(2)  # car, 0.3
    assert panel.threshold.isVisible()
    assert (panel.threshold_name.text(), panel.threshold.value()) == ("Score of car", 50)
    panel.threshold.setValue(25)
    assert session.state.class_conf == {"car": 0.25}
    assert session.seen(session.shown).names == ["person", "dog", "car"]
    qtbot.waitUntil(lambda: panel.list.item(2).text() == "car   1   ≥ 0.25")
    qtbot.waitUntil(lambda: _grab(playing) != before)
    session.set_class_conf("dog", 0.9)
    qtbot.waitUntil(lambda: panel.list.item(1).text() == "dog   ≥ 0.90")
    assert session.seen(session.shown).names == ["person", "car"]
    qtbot.mouseClick(panel.like_all, Qt.MouseButton.LeftButton)
    assert session.state.class_conf == {"dog": 0.9}
    qtbot.waitUntil(lambda: panel.threshold.value() == 50 and not panel.like_all.isVisible())
    assert loader.loaded[0].frames == inferences


def test_alt_and_a_click_shows_only_this_class(qtbot, playing, session, monkeypatch):
    session.set_side_panel(True)
    qtbot.waitUntil(lambda: playing.classes.list.count() == 3)
    monkeypatch.setattr(QApplication, "keyboardModifiers", lambda: Qt.KeyboardModifier.AltModifier)
    playing.classes.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert session.state.shown_classes == {"dog"}
    rows = playing.classes.list
    qtbot.waitUntil(
        lambda: [rows.item(i).checkState() is Qt.CheckState.Checked for i in range(3)] == [False, True, False]
    )


def test_line_width_menu(qtbot, playing, session):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    usual = session.marks(session.shown)[0].line_px
    before = _grab(playing)
    playing.actions_by_name["line_3"].trigger()
    assert session.state.line_weight == 3.0
    assert session.marks(session.shown)[0].line_px == 3 * usual
    qtbot.waitUntil(lambda: _grab(playing) != before)
    session.set_line_weight(0.5)
    qtbot.waitUntil(lambda: playing.actions_by_name["line_0.5"].isChecked())
    assert not playing.actions_by_name["line_3"].isChecked()


def test_scores_can_be_left_out(playing, session):
    playing.actions_by_name["scores"].trigger()
    assert session.state.scores is False
    words = [mark.text for mark in session.marks(session.shown) if isinstance(mark, LabelMark)]
    assert set(words) == {"person", "dog"}


# The numbers over the picture


def test_i_shows_all_meters_over_the_picture(qtbot, playing, session):
    overlay = playing.stats_overlay
    assert not overlay.isVisible()
    press(qtbot, playing, "I")
    assert session.state.stats is True
    qtbot.waitUntil(overlay.isVisible)
    qtbot.waitUntil(lambda: len(overlay.graph.samples) > 2 and overlay.values["age"].text().endswith(" ms"))
    overlay.sample()
    texts = {key: value.text() for key, value in overlay.values.items()}
    assert all(texts[key].endswith(" fps") for key in ("capture", "infer", "render"))
    assert (texts["preprocess"], texts["inference"], texts["postprocess"]) == ("0.1 ms", "0.2 ms", "0.1 ms")
    assert texts["model"] == "openvino · cpu · fp32"
    assert texts["dropped"].replace(" / ", "").isdigit()
    assert playing.view.rect().contains(overlay.geometry())
    assert playing.view.taken_left == overlay.geometry().right()  # so that no words are written under it
    session.set_stats(False)
    qtbot.waitUntil(lambda: not overlay.isVisible())
    assert not playing.actions_by_name["stats"].isChecked()
    assert playing.view.taken_left == 0


def test_the_age_graph_holds_a_minute_and_has_a_round_scale(qapp):
    graph = AgeGraph()
    graph.resize(290, 84)
    for i in range(1000):
        graph.add(i / 4, 30.0 + (i == 990) * 100, 60.0)
    assert graph.samples[0][0] >= 999 / 4 - 60
    assert len(graph.samples) <= 241
    assert graph.top_ms == 200
    image = graph.grab().toImage()
    assert image.pixelColor(280, 83 - round(30 / 200 * 82)).blue() > 150  # the line of 30 ms
    graph.clear()
    assert graph.top_ms == 20


@pytest.mark.parametrize(("choice", "tokens"), [("dark", DARK), ("light", LIGHT)])
def test_theme_menu(qtbot, window, session, choice, tokens):
    session.set_theme("light" if choice == "dark" else "dark")
    window.actions_by_name[f"theme_{choice}"].trigger()
    assert session.state.theme == choice
    qtbot.waitUntil(lambda: window.theme.tokens is tokens)
    assert window.view.grab().toImage().pixelColor(5, 5) == QColor(tokens.stage)
    assert window.actions_by_name[f"theme_{choice}"].isChecked()


def test_source_menu_lists_recents_as_plain_text(qtbot, window, session, tmp_path):
    odd = tmp_path / "a & <b>bold<b> name.mp4"
    session.open_source(odd)
    qtbot.waitUntil(lambda: bool(window.source.recents_menu.actions()))
    (action,) = window.source.recents_menu.actions()
    assert action.text() == "a && <b>bold<b> name.mp4"
    qtbot.waitUntil(lambda: session.state.problem is not None)
    session.dismiss_problem()
    action.trigger()
    qtbot.waitUntil(lambda: session.state.problem is not None)


def test_source_menu_lists_cameras_when_it_opens(qtbot, window, monkeypatch):
    class Camera:
        id, name = "usb-1", "Desk <camera>"

    monkeypatch.setattr("ledetr_app.session.list_cameras", lambda: [Camera])
    window.source.menu_of_sources.aboutToShow.emit()
    qtbot.waitUntil(lambda: [a.text() for a in window.source.cameras_menu.actions()] == ["Desk <camera>"])


def test_test_pattern_from_the_empty_window(qtbot, window, session):
    (button,) = [b for b in window.empty.buttons if b.accessibleName() == "Test pattern"]
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: session.shown is not None, timeout=10_000)
    qtbot.waitUntil(lambda: not window.empty.isVisible())


# Drag and drop


def _drop(window, data):
    where, action, button = QPoint(10, 10), Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    enter = QDragEnterEvent(where, action, data, button, Qt.KeyboardModifier.NoModifier)
    window.dragEnterEvent(enter)
    if enter.isAccepted():
        assert window.view.drop_welcome
        window.dropEvent(QDropEvent(QPointF(where), action, data, button, Qt.KeyboardModifier.NoModifier))
    assert not window.view.drop_welcome
    return enter.isAccepted()


def test_drop_a_file(qtbot, window, session, clip):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(clip))])
    assert _drop(window, data)
    qtbot.waitUntil(lambda: session.state.source is not None, timeout=10_000)
    assert session.state.source.display_name == "clip.mp4"


def test_drop_an_address_as_text(qtbot, window, session):
    data = QMimeData()
    data.setText(PATTERN)
    assert _drop(window, data)
    qtbot.waitUntil(lambda: session.state.phase is State.RUNNING, timeout=10_000)


def test_drop_weights(qtbot, window, session, loader, tmp_path):
    loader.gate.clear()  # a load that has already ended would leave nothing to see
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / "mine.safetensors"))])
    assert _drop(window, data)
    assert session.state.loading == str(tmp_path / "mine.safetensors")
    loader.gate.set()
    qtbot.waitUntil(lambda: session.state.loading is None)


def _urls(*paths):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    return data


@pytest.fixture
def three_clips(make_clip, tmp_path):
    return [make_clip(tmp_path / f"{name}.mp4", frames=8) for name in ("one", "two", "three")]


def test_several_files_are_played_in_turn(qtbot, window, session, three_clips):
    assert _drop(window, _urls(*three_clips))
    assert [Path(path).stem for path in session.state.queue.paths] == ["one", "two", "three"]
    qtbot.waitUntil(lambda: session.state.ended and session.state.queue.at == 2, timeout=10_000)
    qtbot.waitUntil(lambda: session.state.recents == tuple(str(path) for path in reversed(three_clips)))
    qtbot.waitUntil(lambda: window.queue.title.text() == "Queue  3 / 3")
    assert [window.queue.list.item(i).text() for i in range(3)] == ["one.mp4", "two.mp4", "▶ three.mp4"]
    assert window.queue.isVisible()
    press(qtbot, window, "Q")
    assert session.state.queue_panel is False
    qtbot.waitUntil(lambda: not window.queue.isVisible())


def test_a_broken_file_does_not_hold_up_the_queue(qtbot, window, session, three_clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    assert _drop(window, _urls(broken, tmp_path / "gone.mp4", three_clips[0]))
    qtbot.waitUntil(lambda: session.state.ended and session.state.queue.at == 2, timeout=10_000)
    assert session.state.source.display_name == "one.mp4"
    assert "gone.mp4" in session.state.problem.sentence
    assert window.errors.isVisible()


def test_queue_by_hand(qtbot, window, session, three_clips):
    session.open_files([str(path) for path in three_clips])
    session.pause()
    qtbot.waitUntil(lambda: session.state.source is not None and session.state.queue.at == 0)
    rows = window.queue.list
    qtbot.waitUntil(window.actions_by_name["next_file"].isEnabled)
    press(qtbot, window, "N")
    assert session.state.queue.at == 1
    session.pause()
    qtbot.waitUntil(window.actions_by_name["previous_file"].isEnabled)
    press(qtbot, window, "P")
    assert session.state.queue.at == 0
    session.pause()
    qtbot.waitUntil(lambda: rows.count() == 3)
    rows.setCurrentRow(2)
    qtbot.keyClick(rows, Qt.Key.Key_Return)
    assert session.state.queue.at == 2
    session.pause()
    rows.setCurrentRow(0)
    qtbot.keyClick(rows, Qt.Key.Key_Delete)
    assert (len(session.state.queue.paths), session.state.queue.at) == (2, 1)
    qtbot.waitUntil(lambda: rows.item(1).text() == "▶ three.mp4")
    rows.itemDoubleClicked.emit(rows.item(0))
    assert session.state.queue.current == str(three_clips[1])
    qtbot.mouseClick(window.queue.clear_button, Qt.MouseButton.LeftButton)
    assert session.state.queue.paths == ()
    qtbot.waitUntil(lambda: not window.queue.isVisible())


def test_another_source_leaves_the_queue_where_it_is(qtbot, window, session, three_clips):
    session.open_files([str(path) for path in three_clips])
    session.open_source(PATTERN)
    assert session.state.queue.at is None and len(session.state.queue.paths) == 3
    qtbot.waitUntil(lambda: session.state.source is not None and session.state.source.live, timeout=10_000)


def test_weights_among_files_go_to_the_model(qtbot, window, session, loader, clip, tmp_path):
    loader.gate.clear()
    assert _drop(window, _urls(clip, tmp_path / "mine.ONNX"))
    assert session.state.loading == str(tmp_path / "mine.ONNX")
    assert session.state.queue.paths == ()
    qtbot.waitUntil(lambda: session.state.source is not None, timeout=10_000)
    loader.gate.set()


@pytest.mark.parametrize("text", ["", "two\nlines"])
def test_drop_of_nothing_useful_is_refused(window, text):
    data = QMimeData()
    data.setText(text)
    assert not _drop(window, data)


# States and words


def test_error_bar_shows_plain_text_and_closes(qtbot, window, session):
    session.store.change(problem=Problem("Cannot open '<b>x</b>': no such file.", "Traceback <i>…</i>"))
    qtbot.waitUntil(lambda: window.errors.isVisible())
    assert window.errors.sentence.text() == "Cannot open '<b>x</b>': no such file."
    assert window.errors.sentence.textFormat() is Qt.TextFormat.PlainText
    assert not window.errors.details.isVisible()
    qtbot.mouseClick(window.errors.details_button, Qt.MouseButton.LeftButton)
    assert window.errors.details.isVisible()
    assert window.errors.details.toPlainText() == "Traceback <i>…</i>"
    qtbot.mouseClick(window.errors.close_button, Qt.MouseButton.LeftButton)
    assert session.state.problem is None
    qtbot.waitUntil(lambda: not window.errors.isVisible())


def test_missing_file_is_a_sentence_in_the_bar(qtbot, window, session, tmp_path):
    session.open_source(tmp_path / "gone.mp4")
    qtbot.waitUntil(lambda: window.errors.isVisible())
    assert "gone.mp4" in window.errors.sentence.text()
    qtbot.waitUntil(lambda: window.empty.isVisible())
    assert window.windowTitle() == "Le-DETR"


def test_toast_has_plain_text(qtbot, window, session, tmp_path):
    session.store.change(toast=Toast("Saved <b>a</b>.png", tmp_path / "a.png", 1))
    qtbot.waitUntil(lambda: window.toast.isVisible())
    assert window.toast.text.textFormat() is Qt.TextFormat.PlainText
    assert window.toast.show_button.isVisible()


def test_status_bar_tells_mode_model_and_rates(qtbot, playing, session):
    assert playing.stats.mode.text() == "Live · latest frame"
    assert playing.stats.model.text() == "N · openvino · cpu · fp32"
    playing.stats.refresh_numbers()
    assert playing.stats.readouts["fps"].text().endswith(" fps")
    qtbot.waitUntil(lambda: playing.stats.readouts["age"].text().endswith(" ms"))
    session.pause()
    qtbot.waitUntil(lambda: playing.stats.mode.text() == "Paused")


def test_random_weights_are_said_in_picture_and_bar(qtbot, window, session, loader):
    session.models.take(ModelWish("n"), _random(loader("n")))
    session.open_source(PATTERN)
    qtbot.waitUntil(lambda: session.shown is not None, timeout=10_000)
    qtbot.waitUntil(lambda: window.stats.random.isVisible())
    assert window.stats.random.text() == "random weights"
    qtbot.waitUntil(lambda: window.view.words == ["Random weights: these boxes mean nothing"])


def _random(detector):
    detector.random_weights = True
    return detector


def test_while_the_first_model_loads_the_picture_says_so(qtbot, window, session, loader):
    loader.gate.clear()
    session.start(source=PATTERN)
    qtbot.waitUntil(lambda: window.view.words == ["Loading N, boxes will follow …"], timeout=10_000)
    assert window.stats.model.text() == "Loading N …"
    loader.gate.set()
    qtbot.waitUntil(lambda: window.view.words == [])


def test_a_lost_source_dims_the_last_picture_and_says_since_when(qtbot, playing, session):
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    middle = playing.view.picture_rect.center().toPoint() + QPoint(0, 80)
    before = _grab(playing).pixelColor(middle)
    session.store.change(loss=Loss(session.clock.now_ns() - 12_000_000_000, attempt=5))
    qtbot.waitUntil(lambda: playing.view.words == ["Lost 00:12 ago, trying again (5)"])
    after = _grab(playing).pixelColor(middle)
    assert after.lightness() < 0.6 * before.lightness()
    assert playing.stats.mode.text() == "Source lost"


def test_title_names_the_source(qtbot, player):
    qtbot.waitUntil(lambda: player.windowTitle() == "clip.mp4 – Le-DETR")


# Everywhere


def test_every_control_has_an_accessible_name(window):
    controls = [
        w for kind in (QAbstractButton, QAbstractSlider, QLineEdit, QListWidget) for w in window.findChildren(kind)
    ]
    nameless = [
        w
        for w in controls
        if not w.accessibleName() and not (isinstance(w, QAbstractButton) and w.text())
        # Parts that Qt itself puts into a menu bar, a line with a clear button, a scroll area.
        and not w.objectName().startswith("qt_") and not isinstance(w.parent(), QLineEdit | QListWidget)
        and type(w).__name__ != "QScrollBar"
    ]  # fmt: skip
    assert nameless == []


def test_everything_can_be_reached_with_tab(window):
    buttons = [b for b in window.findChildren(QAbstractButton) if not b.objectName().startswith("qt_")]
    unreachable = [b.accessibleName() or b.text() for b in buttons if not b.focusPolicy() & Qt.FocusPolicy.TabFocus]
    assert unreachable == [""] * len(unreachable)  # the clear button inside a search line


def test_space_on_a_focused_button_presses_it(qtbot, playing, session):
    button = playing.display.buttons["labels"]
    button.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(button, Qt.Key.Key_Space)
    assert session.state.labels is False
    assert session.state.phase is State.RUNNING


@pytest.mark.parametrize("size", [(960, 600), (1280, 800), (1920, 1080)])
def test_nothing_is_cut_off(qtbot, playing, size):
    playing.resize(*size)
    qtbot.waitUntil(lambda: playing.width() == size[0])
    for part in (playing.source, playing.recording, playing.model, playing.display, playing.timeline, playing.stats):
        assert part.width() >= part.minimumSizeHint().width()
        right = part.mapTo(playing, QPoint(part.width(), 0)).x()
        assert right <= size[0]


@pytest.mark.parametrize("width", [960, 1280])
def test_the_words_of_the_first_screen_are_not_cut_beside_the_widest_panel(qtbot, window, session, width):
    window.resize(width, 600)
    session.results.set_panel(True)
    qtbot.waitUntil(lambda: window.results.isVisible() and window.width() == width)
    QApplication.processEvents()
    for button in window.empty.buttons:
        assert button.width() >= button.sizeHint().width()
        assert window.empty.rect().contains(button.geometry())
    assert window.results.mapTo(window, QPoint(window.results.width(), 0)).x() <= width


def test_geometry_is_remembered_on_close(qtbot, window, session):
    window.setGeometry(30, 40, 1000, 650)
    window.close()
    assert session.settings.geometry == (30, 40, 1000, 650)


@pytest.mark.parametrize("what", ["empty", "opening", "playing", "paused", "recording", "fullscreen", "loading"])
def test_close_in_every_state(qtbot, window, session, loader, what):
    """The fixtures assert that no thread is left and that Qt has nothing to complain about."""
    if what != "empty":
        session.start(source=PATTERN)
    if what not in ("empty", "opening"):
        qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=10_000)
    if what == "paused":
        session.pause()
    if what == "recording":
        session.toggle_recording()
        qtbot.waitUntil(lambda: session.state.recording is not None)
    if what == "fullscreen":
        window.toggle_fullscreen()
    if what == "loading":
        session.set_model("x")
    window.close()
    assert not window.isVisible()
    assert session.close() == []


def test_dropping_a_folder_opens_its_pictures(qtbot, window, session, tmp_path):
    import cv2
    import numpy as np

    folder = tmp_path / "pictures of today"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((48, 64, 3), np.uint8))
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(folder))])
    assert _drop(window, data)
    qtbot.waitUntil(lambda: session.shown is not None, timeout=10_000)
    assert Path(session.state.recents[0]) == folder
