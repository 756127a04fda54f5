"""The panel of exports: each control and key, and what the queue does to it."""

import json
import time

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QDesktopServices, QKeySequence
from PySide6.QtWidgets import QFileDialog

from ledetr_app.export_job import ExportJob, ExportRow, Status, row_to_json
from ledetr_app.model_loader import ModelWish
from ledetr_app.ui.panels.exports import ROW


@pytest.fixture
def panel(window, session):
    session.exporting.set_shown(True)
    return window.exports


@pytest.fixture
def queue(session):
    """Held, so that nothing begins by itself."""
    session.exporting.queue.set_paused(True)
    return session.exporting.queue


@pytest.fixture
def three(queue, panel, qtbot, tmp_path):
    """Three files that are not there wait."""
    queue.add([ExportJob(source=str(tmp_path / f"{name}.png"), model=ModelWish("n"), outputs=("csv",),
                         folder=str(tmp_path)) for name in "abc"])  # fmt: skip
    qtbot.waitUntil(lambda: panel.list.isVisible())
    return [row.number for row in queue.state.rows]


def names(panel) -> str:
    return "".join(row.job.name[0] for row in panel.model.rows)


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def choose(panel, place):
    panel.list.setCurrentIndex(panel.model.index(place))


def test_ctrl_e_unfolds_and_folds(qtbot, window, session):
    keys = QKeySequence("Ctrl+E")[0]
    for shown in (True, False):
        qtbot.keyClick(window.view, keys.key(), keys.keyboardModifiers())
        assert session.exporting.form.shown is shown
        qtbot.waitUntil(lambda shown=shown: window.exports.isVisible() is shown)


def test_the_close_button_folds(qtbot, panel, session):
    qtbot.waitUntil(panel.isVisible)
    click(qtbot, panel.close_button)
    assert not session.exporting.form.shown and not panel.isVisible()


def test_fullscreen_hides_it_and_gives_it_back(qtbot, window, panel):
    qtbot.waitUntil(panel.isVisible)
    window.toggle_fullscreen()
    qtbot.waitUntil(lambda: not panel.isVisible())
    window.leave_fullscreen()
    qtbot.waitUntil(panel.isVisible)


@pytest.mark.parametrize("name", ["video", "csv", "json", "jsonl", "coco", "mot"])
def test_ticks_choose_the_outputs(qtbot, panel, session, name):
    before = name in session.exporting.form.outputs
    panel.ticks[name].click()
    assert (name in session.exporting.form.outputs) is not before
    session.exporting.set_output(name, before)
    qtbot.waitUntil(lambda: panel.ticks[name].isChecked() is before)


def test_the_open_file_is_exported(qtbot, panel, window, session, clip, tmp_path):
    assert not panel.add.isEnabled()
    session.start(source=clip)
    qtbot.waitUntil(panel.add.isEnabled, timeout=10_000)
    session.exporting.set_folder(tmp_path / "out")
    session.set_in(1.0)
    session.set_out(1.4)
    click(qtbot, panel.add)
    qtbot.waitUntil(lambda: "done" in panel.tell(panel.model.rows[0]), timeout=60_000)
    assert panel.model.rows[0].frames == 11
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip_boxes.mp4", "clip.csv"}
    assert panel.title.text() == "Exports  1 / 1"
    assert "clip_boxes.mp4" in panel.model.index(0).data(Qt.ItemDataRole.ToolTipRole)
    assert panel.model.index(0).data(Qt.ItemDataRole.AccessibleTextRole).startswith("clip.mp4: done")
    click(qtbot, panel.clear)
    assert panel.nothing.isVisible() and not panel.list.isVisible()


def test_the_queue_is_exported(qtbot, panel, session, queue):
    assert not panel.add_queue.isVisible()
    session.open_files(["a.mp4", "b.mp4"])
    qtbot.waitUntil(panel.add_queue.isVisible)
    click(qtbot, panel.add_queue)
    assert names(panel) == "ab"


def test_the_folder_is_asked_for(qtbot, panel, session, tmp_path):
    click(qtbot, panel.folder)
    (dialog,) = panel.findChildren(QFileDialog)
    dialog.fileSelected.emit(str(tmp_path / "results & more"))
    assert session.exporting.form.folder == tmp_path / "results & more"
    qtbot.waitUntil(lambda: "results && more" in panel.folder.text())
    dialog.close()


def test_rows_are_moved(qtbot, panel, three):
    choose(panel, 2)
    click(qtbot, panel.buttons["up"])
    assert names(panel) == "acb" and panel.chosen.number == three[2], "the choice goes with the row"
    qtbot.keyClick(panel.list, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert names(panel) == "abc"
    qtbot.keyClick(panel.list, Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    click(qtbot, panel.buttons["down"])
    assert names(panel) == "abc"
    assert not panel.buttons["down"].isEnabled() and panel.buttons["up"].isEnabled()


def test_cancel_again_and_remove(qtbot, panel, queue, three):
    assert not panel.buttons["remove"].isEnabled()
    choose(panel, 1)
    click(qtbot, panel.buttons["cancel"])
    assert queue.state.rows[1].status is Status.CANCELLED
    assert not panel.buttons["cancel"].isEnabled()
    click(qtbot, panel.buttons["again"])
    assert queue.state.rows[1].status is Status.WAITING
    click(qtbot, panel.buttons["remove"])
    assert names(panel) == "ac"
    choose(panel, 0)
    qtbot.keyClick(panel.list, Qt.Key.Key_Delete)
    assert names(panel) == "c"


def test_hold_and_go_on_and_the_sentences_of_failures(qtbot, panel, queue, three):
    assert panel.hold.text() == "Go on"
    click(qtbot, panel.hold)
    assert not queue.state.paused
    qtbot.waitUntil(lambda: panel.title.text() == "Exports  3 / 3, 3 failed", timeout=20_000)
    assert "no such file" in panel.tell(panel.model.rows[0])
    assert not panel.hold.isVisible()


def test_hold(qtbot, panel, queue, three, loader, tmp_path):
    loader.gate.clear()  # the model does not come
    (tmp_path / "a.png").write_bytes(b"")
    queue.set_paused(False)
    qtbot.waitUntil(lambda: panel.hold.text() == "Hold" or not panel.hold.isVisible())
    queue.set_paused(True)
    qtbot.waitUntil(lambda: panel.hold.text() == "Go on" or not panel.hold.isVisible())
    loader.gate.set()


def test_the_folder_of_a_row_is_opened(qtbot, panel, three, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    choose(panel, 0)
    click(qtbot, panel.buttons["open"])
    assert opened == [str(tmp_path)]


@pytest.mark.parametrize("answer", ["go_on", "forget"])
def test_what_an_earlier_run_left_is_offered(qtbot, make_session, make_window, tmp_path, answer):
    job = ExportJob(source="gone.png", model=ModelWish("n"), outputs=("csv",), folder=str(tmp_path))
    (tmp_path / "kept").mkdir()
    kept = {"pid": 2**30, "pid_began_s": 1.0, "rows": [row_to_json(ExportRow(1, job))]}
    (tmp_path / "kept/1.json").write_text(json.dumps(kept))
    session = make_session(exports=tmp_path / "kept")
    panel = make_window(session).exports
    qtbot.waitUntil(lambda: panel.found.isVisible())
    assert "1 exports were not finished" in panel.found_words.text()
    click(qtbot, getattr(panel, answer))
    qtbot.waitUntil(lambda: not panel.found.isVisible())
    rows = session.exporting.queue.state.rows
    assert (rows == ()) if answer == "forget" else len(rows) == 1


def test_words_of_each_state(panel, tmp_path):
    job = ExportJob(source="a.mp4", model=ModelWish("n"), outputs=("csv",), folder=str(tmp_path))
    row = ExportRow(1, job)
    said = {
        "waits": row,
        "begins": ExportRow(1, job, Status.RUNNING),
        "7 pictures": ExportRow(1, job, Status.RUNNING, frames=7),
        "25 %, 12.3 pictures a second, 01:05 left": ExportRow(1, job, Status.RUNNING, 25, 100, 12.34, 65.0),
        "done: a.csv": ExportRow(1, job, Status.DONE, paths=("/x/a.csv",)),
        "Broken.": ExportRow(1, job, Status.FAILED, sentence="Broken."),
        "cancelled. Kept.": ExportRow(1, job, Status.CANCELLED, sentence="Kept."),
    }
    assert {words: panel.tell(one) for words, one in said.items()} == {words: words for words in said}


def test_the_window_lives_with_a_thousand_rows(qtbot, panel, queue, tmp_path):
    queue.add([ExportJob(source=f"{number}.png", model=ModelWish("n"), outputs=("csv",), folder=str(tmp_path))
               for number in range(1000)])  # fmt: skip
    qtbot.waitUntil(lambda: len(panel.model.rows) == 1000)
    changed = []
    panel.model.dataChanged.connect(lambda first, last: changed.append((first.row(), last.row())))
    choose(panel, 500)
    queue.cancel(queue.state.rows[700].number)
    began_s = time.thread_time()
    panel.refresh()
    assert changed == [(700, 700)], "one row, not a thousand"
    assert panel.chosen.job.name == "500.png"
    assert time.thread_time() - began_s < 0.1
    assert panel.model.index(700).data(ROW).status is Status.CANCELLED


def test_every_control_has_a_name(panel):
    buttons = [panel.hold, panel.clear, panel.close_button, panel.go_on, panel.forget, panel.folder, panel.add,
               panel.add_queue, *panel.buttons.values(), *panel.ticks.values()]  # fmt: skip
    assert all(any(map(str.isalpha, button.accessibleName() or button.text())) for button in buttons)
    assert panel.list.accessibleName()
