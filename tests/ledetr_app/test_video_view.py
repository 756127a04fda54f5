"""The painted picture: where it lies, which pixels it has, and that window and file agree on the marks."""

import numpy as np
import pytest
from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QImage, QPainter

from ledetr.chain.overlay import draw_marks, marks_of
from ledetr.chain.pipeline import State
from ledetr.detections import Detections
from ledetr_app.ui.marks import paint_marks
from ledetr_app.ui.theme import LIGHT

# Two libraries smooth letters differently, and smoothed lines of OpenCV come out a pixel wider than asked for;
# places and colours must be the same.
MEAN_DIFFERENCE = 4.0
FAR_OFF = 96
SHARE_FAR_OFF = 0.03


def pixels_of(image: QImage) -> np.ndarray:
    image = image.convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def test_window_and_recording_draw_the_same_marks(qapp):
    boxes = np.array([[40, 60, 200, 300], [220, 30, 420, 200], [5, 5, 60, 40]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 2, 16]), class_names=("x",) * 80)
    marks = marks_of(found, conf=0.5, size_hw=(360, 480))
    ground = np.full((360, 480, 3), 120, np.uint8)
    drawn = draw_marks(ground.copy(), marks).astype(int)
    image = QImage(ground.data, 480, 360, 3 * 480, QImage.Format.Format_RGB888).copy()
    painter = QPainter(image)
    paint_marks(painter, marks)
    painter.end()
    difference = np.abs(pixels_of(image).astype(int) - drawn)
    print(f"mean {difference.mean():.2f}, far off {(difference.max(axis=2) > FAR_OFF).mean():.4f}")
    assert difference.mean() < MEAN_DIFFERENCE
    assert (difference.max(axis=2) > FAR_OFF).mean() < SHARE_FAR_OFF
    assert (drawn != 120).any()


def test_marks_grow_with_the_picture_that_is_shown(session, qtbot, make_window):
    make_window(session)
    session.start(source="test:320x240p30")
    qtbot.waitUntil(lambda: session.shown is not None and len(session.shown.detections) == 3, timeout=10_000)
    own = session.marks(session.shown)
    double = session.marks(session.shown, (480, 640))
    for small, large in zip(own[:2], double[:2], strict=True):
        assert np.allclose(2 * np.array(small.xyxy), large.xyxy, atol=2)


@pytest.mark.parametrize("size", [(960, 600), (1001, 777)])
def test_picture_fills_the_room_and_keeps_its_shape(qtbot, window, session, size):
    window.resize(*size)
    session.start(source="test:320x240p30")
    qtbot.waitUntil(lambda: session.shown is not None, timeout=10_000)
    rect, room = window.view.picture_rect, QRectF(window.view.rect())
    assert room.contains(rect)
    assert rect.width() == room.width() or rect.height() == room.height()
    assert rect.width() / rect.height() == pytest.approx(320 / 240, rel=0.01)
    qtbot.waitUntil(lambda: window.bridge.prep.picture.size_wh == (rect.width(), rect.height()))
    image = window.view.grab().toImage()
    assert image.pixelColor(1, 1) == QColor(LIGHT.stage)


def test_painted_pixels_are_those_of_the_frame(qtbot, window, session, clip):
    session.show(boxes=False)
    session.start(source=clip)
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED and session.shown is not None, timeout=10_000)
    session.seek(1.0)
    qtbot.waitUntil(lambda: session.shown.frame.meta.pts_s == 1.0)
    qtbot.waitUntil(lambda: window.view._picture.result is session.shown)
    centre = window.view.picture_rect.center().toPoint()
    painted = window.view.grab().toImage().pixelColor(centre)
    middle = session.shown.frame.rgb[120, 160]
    assert [painted.red(), painted.green(), painted.blue()] == pytest.approx(middle.tolist(), abs=1)


def test_array_lives_as_long_as_its_image(qtbot, window, session):
    session.start(source="test:320x240p30")
    qtbot.waitUntil(lambda: session.shown is not None, timeout=10_000)
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    qtbot.waitUntil(lambda: window.view._picture is window.bridge.prep.picture)
    shown = pixels_of(window.view._image)
    assert np.array_equal(shown, window.view._picture.bgrx[..., 2::-1])


def test_without_a_picture_there_is_nothing_to_copy(window):
    assert window.view.full_size_image(boxes=True) is None
    assert window.view.picture_rect.isEmpty()


def test_opening_is_said_after_a_moment_only(qtbot, window, session):
    session.store.change(opening="slow source")
    qtbot.waitUntil(lambda: window.view.words == ["Opening slow source …"])
    session.store.change(opening="")
    qtbot.waitUntil(lambda: window.view.words == [])
