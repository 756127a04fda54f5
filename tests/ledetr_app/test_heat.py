"""The heat bar: bins, thresholds, the scan and its ends."""

import threading
import time
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor

from ledetr.chain.clock import MonotonicClock
from ledetr.chain.pipeline import Result, State
from ledetr.chain.sources import SourceInfo
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta
from ledetr_app.class_filter import ClassFilter
from ledetr_app.heat import BINS, Heat, Heated, Table, bin_of, spread, start_of
from ledetr_app.model_loader import ModelWish
from ledetr_app.state import RunningModel, SessionState
from ledetr_app.store import Store
from tests.ledetr_app.conftest import CLASSES, FixedDetector

FILM = SourceInfo("clip.mp4", "clip.mp4", False, 320, 240, Fraction(25), 60, 2.4, Fraction(1, 12800), seekable=True)
ALL = ClassFilter(0.5)


def found(*rows):
    """(class id, score)."""
    return Detections(
        np.zeros((len(rows), 4), np.float32),
        np.array([score for _, score in rows], np.float32),
        np.array([number for number, _ in rows], np.int64),
        class_names=CLASSES,
        model_id="n",
    )


@dataclass
class BrightDetector(FixedDetector):
    """Three boxes in pictures brighter than 120, none in others; writes down what it saw."""

    def detect_frame(self, rgb, *, score_floor=0.05, max_detections=300):
        all_three, times = super().detect_frame(rgb)
        return (all_three if rgb.mean() > 120 else all_three[:0]), times


class World:
    def __init__(self, path, info=FILM):
        self.detector = BrightDetector()
        self.path = str(path)
        running = RunningModel.of(ModelWish("n"), self.detector)
        self.store = Store(SessionState(source=info, running=running, phase=State.PAUSED))
        self.heat = Heat(self.store, detector=lambda: self.detector, source=lambda: self.path, clock=MonotonicClock())

    def heights(self):
        return self.heat.heights()


@pytest.fixture
def world(clip):
    made = World(clip)
    yield made
    assert made.heat.close(10)


@pytest.mark.parametrize("count", [1, 2, 7, 240])
def test_the_order_of_a_scan_has_everything_once(count):
    assert sorted(spread(count)) == list(range(count))


def test_a_scan_soon_has_something_everywhere():
    assert np.diff(sorted([*spread(240)[:16], 240])).max() <= 32


def test_parts_cover_the_file():
    info = replace(FILM, start_s=5.0)
    for place in range(BINS):
        assert bin_of(info, start_of(info, place) + 1e-6) == place
    assert (bin_of(info, 0.0), bin_of(info, 99.0)) == (0, BINS - 1)


def test_counts_against_counting():
    """Every threshold, with and without own ones, against a plain count."""
    rng = np.random.default_rng(1)
    table = Table.of(Heated("a", FILM, ModelWish("n")), CLASSES)
    looks = [[(int(rng.integers(3)), float(rng.uniform(0.05, 1))) for _ in range(rng.integers(9))] for _ in range(4)]
    for rows in looks:
        table.add(1.0, found(*rows))
    for conf in np.arange(0.05, 1.0, 0.05):
        own = {"dog": 0.3}
        for shown in (None, frozenset({"dog", "car"})):
            wanted = 0
            for number, name in enumerate(CLASSES):
                least = own.get(name, float(conf)) - 1e-4
                if shown is None or name in shown:
                    wanted += max(sum(n == number and score >= least for n, score in rows) for rows in looks)
            heights = table.heights(ClassFilter(round(float(conf), 2), own, shown))
            assert heights[bin_of(FILM, 1.0)] == wanted
            assert (np.delete(heights, bin_of(FILM, 1.0)) == -1).all()


def test_where_no_picture_begins_the_one_before_counts():
    table = Table.of(Heated("a", FILM, ModelWish("n")), CLASSES)
    for place, count in ((3, 2), (6, 1)):
        table.add(start_of(FILM, place) + 1e-6, found(*[(0, 0.9)] * count))
    table.pass_over(4, 6)
    table.pass_over(0, 2)
    table.pass_over(6, 9)
    assert table.heights(ALL)[:10].tolist() == [0, 0, -1, 2, 2, 2, 1, 1, 1, -1]


def test_no_class_is_shown_then_nothing_was_found():
    table = Table.of(Heated("a", FILM, ModelWish("n")), CLASSES)
    table.add(1.0, found((0, 0.9)))
    assert table.heights(ClassFilter(0.5, {}, frozenset())).max() == 0


def test_a_thousand_boxes_stay_in_their_byte():
    table = Table.of(Heated("a", FILM, ModelWish("n")), CLASSES)
    table.add(1.0, found(*[(0, 0.9)] * 1000))
    assert table.heights(ALL).max() == 255


def test_pictures_that_are_shown_fill_the_bar(world):
    def result(pts, source_id="clip.mp4"):
        meta = FrameMeta(source_id, 0, 0, pts, Fraction(1, 25), 0, 320, 240)
        return Result(Frame(meta, np.zeros((240, 320, 3), np.uint8)), found((0, 0.9), (1, 0.4)))

    assert world.heights() is None
    world.heat.add(result(30))
    world.heat.add(result(10, "another.mp4"))
    heights = world.heights()
    assert heights[bin_of(FILM, 1.2)] == 1 and (heights >= 0).sum() == 1
    world.store.change(own_conf=0.3)
    assert world.heights()[bin_of(FILM, 1.2)] == 2
    before = world.heat.version
    world.heat.add(result(31))
    assert world.heat.version != before


def test_a_scan_fills_it_all(world, wait_for):
    world.heat.toggle_scan()
    assert world.heat.scanning
    wait_for(lambda: not world.heat.scanning, 60)
    heights = world.heights()
    assert (heights >= 0).all()
    # The decoder gives back 4 i to one grey value, so picture 30 and 31 may be on either side. A part in which no
    # picture begins shows what the one before it has.
    assert heights[: bin_of(FILM, 29 / 25)].max() == 0 and (heights[bin_of(FILM, 32 / 25) :] == 2).all()
    assert world.detector.frames <= BINS
    looks = world.detector.frames
    world.heat.toggle_scan()
    wait_for(lambda: not world.heat.scanning)
    assert world.detector.frames == looks, "everything is known"


def test_a_folder_of_three_pictures_is_looked_at_a_few_times(wait_for, tmp_path):
    for number in range(3):
        Image.new("RGB", (320, 240), (200, 200, 200)).save(tmp_path / f"{number}.png")
    info = replace(FILM, source_id="x", rate=Fraction(1), frame_count=3, duration_s=3.0, time_base=Fraction(1))
    world = World(tmp_path, info)
    world.heat.toggle_scan()
    wait_for(lambda: not world.heat.scanning, 30)
    assert world.store.state.problem is None
    heights = world.heights()
    assert (heights == 2).all()
    assert world.detector.frames <= 3 * 8, "a few times each, not once for each part"


@pytest.mark.parametrize("change", ["another source", "another model", "closed", "stopped"])
def test_a_scan_ends_at_once_when_its_reason_is_gone(world, wait_for, change):
    world.detector.work_s = 0.02
    world.heat.toggle_scan()
    wait_for(lambda: world.detector.frames > 3)
    if change == "another source":
        world.store.change(source=replace(FILM, display_name="other"))
    elif change == "another model":
        world.store.change(running=replace(world.store.state.running, wish=ModelWish("m")))
    elif change == "closed":
        world.store.change(source=None)
    else:
        world.heat.toggle_scan()
    frames = world.detector.frames
    wait_for(lambda: not world.heat.scanning)
    assert world.detector.frames <= frames + 3
    if change != "stopped":
        assert world.heights() is None


def test_while_it_plays_the_scan_rests_most_of_the_time(world, wait_for):
    world.detector.work_s = 0.02
    world.store.change(phase=State.RUNNING)
    world.heat.toggle_scan()
    wait_for(lambda: world.detector.frames > 1)
    before, began_s = world.detector.frames, time.monotonic()
    wait_for(lambda: world.detector.frames >= before + 5, 30)
    assert (time.monotonic() - began_s) / 5 > 0.06
    world.heat.stop()


def test_a_file_that_is_gone_is_a_sentence(world, wait_for):
    world.path = "/nowhere/clip.mp4"
    world.heat.toggle_scan()
    wait_for(lambda: not world.heat.scanning)
    assert "no such file" in world.store.state.problem.sentence


def test_a_model_that_is_closed_meanwhile_is_no_fault(world, wait_for):
    def closed(rgb, **_):
        world.store.change(running=replace(world.store.state.running, wish=ModelWish("m")))
        raise ValueError("detector 'n' is closed")

    world.detector.detect_frame = closed
    world.heat.toggle_scan()
    wait_for(lambda: not world.heat.scanning)
    assert world.store.state.problem is None


@pytest.mark.parametrize("changes", [{"live": True}, {"seekable": False}, {"duration_s": None}])
def test_what_has_no_bar(clip, changes):
    world = World(clip, replace(FILM, **changes))
    assert not world.heat.can_scan
    world.heat.toggle_scan()
    assert not world.heat.scanning and not [t for t in threading.enumerate() if t.name == "heat"]


# In the window


@pytest.fixture
def held(qtbot, window, session, clip):
    session.start(source=clip)
    qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=10_000)
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED, timeout=10_000)
    return window


def test_h_scans_and_the_bar_is_painted(qtbot, held, session, theme):
    slider, scan = held.timeline.slider, held.actions_by_name["scan_file"]
    qtbot.waitUntil(scan.isEnabled)
    qtbot.keyClick(held.view, Qt.Key.Key_H)
    assert session.heat.scanning
    qtbot.waitUntil(scan.isChecked)
    qtbot.waitUntil(lambda: not session.heat.scanning, timeout=60_000)
    qtbot.waitUntil(lambda: not scan.isChecked() and slider.heights is not None and (slider.heights >= 0).all())

    def above_the_groove():
        return slider.grab().toImage().pixelColor(slider.x_of(1600), slider.height() // 2 - 5)

    assert above_the_groove() == QColor(theme.tokens.heat)
    session.set_conf(0.95)  # nothing reaches it
    qtbot.waitUntil(lambda: above_the_groove() != QColor(theme.tokens.heat))
    session.stop()
    qtbot.waitUntil(lambda: slider.heights is None and not scan.isEnabled())


def test_h_again_stops_it(qtbot, held, session, loader):
    loader.loaded[0].work_s = 0.05
    qtbot.waitUntil(held.actions_by_name["scan_file"].isEnabled)
    qtbot.keyClick(held.view, Qt.Key.Key_H)
    assert session.heat.scanning
    qtbot.keyClick(held.view, Qt.Key.Key_H)
    qtbot.waitUntil(lambda: not session.heat.scanning)
    assert (session.heat.heights() < 0).any()
