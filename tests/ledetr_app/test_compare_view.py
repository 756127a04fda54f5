"""Comparing in the window: the menu, the key, the line, the words, and what is painted left and right."""

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QColor, QDropEvent, QKeySequence
from PySide6.QtWidgets import QFileDialog

from ledetr.chain.overlay import PALETTE
from ledetr.detections import Detections
from ledetr_app.model_loader import ModelWish
from tests.ledetr_app.test_verdict import write_coco


@pytest.fixture
def held(qtbot, window, session, clip):
    """A held picture of the clip."""
    session.start(source=clip)
    qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=10_000)
    session.pause()
    qtbot.waitUntil(lambda: session.shown is session.player.latest(), timeout=10_000)
    return window


@pytest.fixture
def two(qtbot, held, session, loader):
    """N beside L, whose only box is at the right."""
    session.compare.with_model(ModelWish("l"))
    qtbot.waitUntil(lambda: session.compare.of(session.shown) is not None, timeout=10_000)
    qtbot.waitUntil(held.view.compare.isVisible)
    return held


def picked(window, x, y):
    """Colour of the picture's pixel at that place of the frame."""
    image, rect = window.view.grab().toImage(), window.view.picture_rect
    scale = image.width() / window.view.width()
    at = QPointF(rect.left() + x * rect.width() / 320, rect.top() + y * rect.height() / 240) * scale
    return image.pixelColor(round(at.x()), round(at.y()))


def near(colour, rgb):
    return max(abs(colour.red() - rgb[0]), abs(colour.green() - rgb[1]), abs(colour.blue() - rgb[2])) < 40


def test_v_compares_and_ends_it(qtbot, held, session):
    for on in (True, False, True):
        qtbot.keyClick(held.view, QKeySequence("V")[0].key())
        assert session.compare.state.on is on
    assert session.compare.state.other == ModelWish("n", decoder_layers=1)
    qtbot.waitUntil(lambda: held.compare.choices["layers"].isChecked())
    session.compare.off()
    qtbot.waitUntil(lambda: held.compare.choices["off"].isChecked() and not held.view.compare.isVisible())


@pytest.mark.parametrize("scale", ["m", "l", "x"])
def test_the_menu_compares_with_a_scale(qtbot, held, session, scale):
    held.compare.choices[scale].trigger()
    assert session.compare.state.other == ModelWish(scale)
    qtbot.waitUntil(
        lambda: (both := session.compare.of(session.shown)) and both.other.model_id == scale, timeout=10_000
    )
    assert held.compare.choices[scale].isChecked()
    held.compare.choices["off"].trigger()
    assert not session.compare.state.on
    held.compare.toggle()
    assert session.compare.state.other == ModelWish(scale), "what was compared last"


def test_scales_without_weights_cannot_be_chosen(qtbot, window, session):
    session.store.change(has_weights={"n": True, "m": False, "l": True, "x": False})
    qtbot.waitUntil(lambda: not window.compare.choices["m"].isEnabled())
    assert window.compare.choices["l"].isEnabled()


def test_files_are_asked_for(qtbot, held, session, tmp_path):
    truth = write_coco(tmp_path / "t.json", {"a.png": []})
    for name, path in (("file", tmp_path / "mine.safetensors"), ("truth", truth)):
        held.compare.choices[name].trigger()
        (dialog,) = held.findChildren(QFileDialog)
        dialog.fileSelected.emit(str(path))
        assert (session.compare.state.truth if name == "truth" else session.compare.state.other.choice) in (
            path,
            str(path),
        )
        dialog.reject()
        qtbot.waitUntil(lambda: not held.findChildren(QFileDialog))


def test_left_is_the_first_model_and_right_the_other(qtbot, two, session, loader):
    other = Detections(
        np.array([[20, 20, 120, 200], [200, 100, 300, 200]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([1, 1]),
        class_names=("person", "dog", "car"),
    )
    session.show(labels=False)
    loader.loaded[-1].detect_frame = lambda rgb, **kw: (other, None)
    session.compare._compared = None
    session.compare.poke()
    qtbot.waitUntil(lambda: (both := session.compare.of(session.shown)) and both.other is other)
    qtbot.waitUntil(lambda: near(picked(two, 20, 100), PALETTE[0]), timeout=10_000)  # person of the first
    assert near(picked(two, 300, 150), PALETTE[1])  # dog of the other
    assert not near(picked(two, 260, 150), PALETTE[1])
    session.compare.set_split(0.02)
    qtbot.waitUntil(lambda: near(picked(two, 20, 100), PALETTE[1]))  # its left box too
    session.compare.set_split(0.98)
    qtbot.waitUntil(lambda: near(picked(two, 20, 100), PALETTE[0]))
    assert not near(picked(two, 300, 150), PALETTE[1])


def test_words_say_who_is_where_and_how_long_each_looked(qtbot, two, session):
    qtbot.waitUntil(lambda: len(two.view.compare.words) == 2)
    left, right = two.view.compare.words
    assert left.startswith("N ") and "2 boxes" in left and " ms " in left
    assert right.startswith("L ") and "2 boxes" in right
    session.set_conf(0.7)
    qtbot.waitUntil(lambda: "1 boxes" in two.view.compare.words[1])


def test_the_line_is_dragged_and_moved_by_keys(qtbot, two, session):
    handle, split = two.view.compare, session.compare.state.split
    middle = handle.rect().center()
    qtbot.mousePress(handle, Qt.MouseButton.LeftButton, pos=middle)
    qtbot.mouseMove(handle, middle + QPoint(100, 0))
    qtbot.waitUntil(lambda: session.compare.state.split > split)
    qtbot.mouseRelease(handle, Qt.MouseButton.LeftButton)
    assert session.shown is session.player.latest(), "nothing was clicked below it"
    qtbot.mouseDClick(handle, Qt.MouseButton.LeftButton)
    assert session.compare.state.split == 0.5
    handle.setFocus()
    shown = session.shown
    for key, expected in ((Qt.Key.Key_Right, 0.52), (Qt.Key.Key_Left, 0.5)):
        qtbot.keyClick(handle, key)
        assert session.compare.state.split == pytest.approx(expected)
    assert session.shown is shown, "the arrows did not seek"
    assert handle.accessibleName()


def test_the_line_follows_the_picture(qtbot, two, session):
    handle = two.view.compare
    centre = two.view.picture_rect.center().x()
    assert abs(handle.geometry().center().x() - centre) <= 1
    two.resize(two.width() + 200, two.height())
    qtbot.waitUntil(lambda: abs(handle.geometry().center().x() - two.view.picture_rect.center().x()) <= 1)


def test_annotations_are_dropped_on_the_window(qtbot, window, session, tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (320, 240), (90, 90, 90)).save(tmp_path / name)
    truth = write_coco(tmp_path / "t.json", {"a.png": [("person", 20, 20, 100, 180), ("dog", 200, 120, 60, 60)]})
    session.start(source=tmp_path / "a.png")
    qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=10_000)
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(truth))])
    event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier(0))
    window.dropEvent(event)
    assert session.compare.state.truth == truth
    qtbot.waitUntil(lambda: (both := session.compare.of(session.shown)) and both.verdict, timeout=10_000)
    qtbot.waitUntil(lambda: window.view.compare.words == ["t.json   1 found   1 missed   1 made up"])
    session.show(labels=False)
    qtbot.waitUntil(lambda: near(picked(window, 20, 100), PALETTE[4]), timeout=10_000)  # found: green
    assert near(picked(window, 140, 130), PALETTE[5])  # made up: vermilion
    dashes = [picked(window, 200, y) for y in range(124, 176)]
    assert any(near(colour, PALETTE[2]) for colour in dashes), "missed: yellow"
    assert any(near(colour, (16, 18, 22)) for colour in dashes), "and dashed"
    session.show(labels=True)
    session.set_conf(0.95)
    qtbot.waitUntil(lambda: window.view.compare.words == ["t.json   0 found   2 missed   0 made up"])
    session.compare.off()
    qtbot.waitUntil(lambda: window.view.compare.words == [])


def test_a_picture_without_annotations_says_so(qtbot, held, session, tmp_path):
    session.compare.with_annotations(write_coco(tmp_path / "t.json", {"a.png": []}))
    qtbot.waitUntil(lambda: held.view.compare.words == ["t.json does not know this picture"], timeout=10_000)
    assert not held.view.compare.isVisible()
    assert QColor(*PALETTE[0]).isValid()


def test_boxes_switched_off_are_off_on_both_sides(qtbot, two, session):
    session.show(boxes=False)
    qtbot.waitUntil(lambda: not near(picked(two, 20, 100), PALETTE[0]))
