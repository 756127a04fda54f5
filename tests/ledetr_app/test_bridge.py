"""One pending signal at most, however slow the window is and however fast the source."""

import sys
import threading
import time

import psutil
import pytest
from PySide6.QtCore import QCoreApplication

from ledetr.chain.pipeline import State
from ledetr_app.ui.bridge import Bridge
from ledetr_app.ui.video_view import VideoView

SLOW_PAINT_S = 0.5
# 120 frames of 640 x 480 pass during four paints, 110 MB if anyone kept them; a process takes less for other reasons.
MOST_GROWTH_BYTES = 40_000_000


def test_many_pokes_are_one_event(qapp, qtbot, session):
    bridge = Bridge(session)
    woken = []
    bridge.woken.connect(lambda: woken.append(threading.current_thread()))
    pokers = [threading.Thread(target=lambda: [bridge.poke() for _ in range(1000)]) for _ in range(4)]
    for thread in pokers:
        thread.start()
    for thread in pokers:
        thread.join()
    assert woken == []
    QCoreApplication.processEvents()
    assert woken == [threading.main_thread()]
    assert bridge.most_pending == 1
    bridge.poke()
    QCoreApplication.processEvents()
    assert len(woken) == 2
    assert bridge.close()


def test_nothing_arrives_after_close(qapp, session):
    bridge = Bridge(session)
    woken = []
    bridge.woken.connect(lambda: woken.append(1))
    bridge.poke()
    assert bridge.close()
    bridge.poke()
    session.set_conf(0.3)
    QCoreApplication.processEvents()
    assert woken == []


def test_slow_painter_delays_no_one_else(qtbot, make_window, session, monkeypatch):
    """60 Hz source, 500 ms a paint: the chain goes on, drops are counted, memory is flat, one event waits at most."""
    paint = VideoView.paintEvent
    painted = []

    slow = threading.Event()

    def slow_paint(self, event):
        paint(self, event)
        if slow.is_set():
            painted.append(session.shown)
            time.sleep(SLOW_PAINT_S)

    monkeypatch.setattr(VideoView, "paintEvent", slow_paint)
    window = make_window(session)
    session.start(source="test:640x480p60")
    qtbot.waitUntil(lambda: session.state.phase is State.RUNNING and session.shown is not None, timeout=10_000)
    slow.set()
    memory = psutil.Process().memory_info().rss
    first = session.latest().number
    qtbot.waitUntil(lambda: len(painted) >= 4, timeout=20_000)
    slow.clear()
    grown = psutil.Process().memory_info().rss - memory
    passed = session.latest().number - first
    meters = session.meters()
    assert window.bridge.most_pending == 1
    # A source that waited for the screen would pass one frame a paint; how many 60 Hz gives is up to the machine.
    assert passed >= 4 * len(painted), "a slow screen must not slow the source"
    assert grown < MOST_GROWTH_BYTES
    assert meters.dropped_before_paint > 0
    assert meters.published - meters.painted >= meters.dropped_before_paint
    numbers = [result.number for result in painted]
    assert numbers == sorted(numbers)


@pytest.mark.qt_no_exception_capture
def test_exceptions_in_slots_reach_the_error_bar(qtbot, window, session, capsys):
    sys.excepthook(ValueError, ValueError("boom"), None)
    qtbot.waitUntil(lambda: window.errors.isVisible())
    assert "ValueError" in window.errors.sentence.text()
    assert "boom" in window.errors.sentence.text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_exceptions_in_threads_reach_the_error_bar(qtbot, window, session, capsys):
    def fail():
        raise ValueError("from elsewhere")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: window.errors.isVisible())
    assert "from elsewhere" in window.errors.sentence.text()


def test_hooks_are_given_back(qapp, session):
    before = sys.excepthook, threading.excepthook
    bridge = Bridge(session)
    assert sys.excepthook != before[0]
    bridge.close()
    assert (sys.excepthook, threading.excepthook) == before


@pytest.mark.parametrize("count", [1, 3])
def test_closing_twice_is_legal(qapp, session, count):
    bridge = Bridge(session)
    for _ in range(count):
        assert bridge.close()
