"""Two opinions on one frame: never of two frames, never waiting for each other longer than one look."""

import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from ledetr.chain.pipeline import Result
from ledetr.chain.sources import SourceInfo
from ledetr.frame import Frame, FrameMeta
from ledetr_app.compare import SPLIT_RANGE, Compare
from ledetr_app.model_loader import ModelWish
from ledetr_app.state import SessionState
from ledetr_app.store import Store
from tests.ledetr_app.test_verdict import write_coco

L = ModelWish("l")


def make_result(loader, number: int, *, epoch: int = 0, index: int | None = None) -> Result:
    meta = FrameMeta("film", epoch, number, number, Fraction(1, 25), 0, 320, 240, index=index)
    frame = Frame(meta, np.zeros((240, 320, 3), np.uint8))
    return Result(frame, loader(ModelWish("n")).detect_frame(frame.rgb)[0], number=number)


class World:
    """The newest result, as the player would have it."""

    def __init__(self, loader, load=None):
        self.store = Store(SessionState())
        self.newest = None
        self.source = ""
        self.ready = threading.Event()
        self.compare = Compare(self.store, load or loader, newest=lambda: self.newest, source=lambda: self.source)
        self.compare.on_ready = self.ready.set

    def publish(self, result):
        self.newest = result
        self.compare.poke()


@pytest.fixture
def world(loader):
    made = World(loader)
    yield made
    loader.gate.set()
    assert made.compare.close(10)


def test_off_there_is_one_opinion_and_no_thread(world, loader):
    first = make_result(loader, 1)
    world.publish(first)
    assert world.compare.latest() is first and world.compare.of(first) is None
    assert not [thread for thread in threading.enumerate() if thread.name == "compare"]


def test_both_opinions_are_of_one_frame(world, loader, wait_for):
    first, second = make_result(loader, 1), make_result(loader, 2)
    world.publish(first)
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(first))
    compared = world.compare.of(first)
    assert compared.other.model_id == "l" and len(compared.other) == 3
    assert compared.other_result.frame is first.frame
    assert world.compare.state.running.model_id == "l"
    detector, gate = loader.loaded[-1], threading.Event()
    look = detector.detect_frame
    detector.detect_frame = lambda rgb, **kw: (gate.wait(10), look(rgb, **kw))[1]
    world.publish(second)
    assert world.compare.latest() is first, "the second is not shown before both are there"
    gate.set()
    wait_for(lambda: world.compare.latest() is second)
    assert world.compare.of(first) is None and world.compare.of(second).result is second


def test_frames_of_a_slow_model_are_left_out_not_queued(world, loader, wait_for):
    world.publish(make_result(loader, 1))
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(world.newest))
    loader.loaded[-1].work_s = 0.05
    before = loader.loaded[-1].frames
    for number in range(2, 40):
        world.publish(make_result(loader, number))
    wait_for(lambda: world.compare.of(world.newest))
    assert loader.loaded[-1].frames - before < 20


def test_after_a_seek_the_old_place_is_not_shown(world, loader, wait_for):
    world.publish(make_result(loader, 1))
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(world.newest))
    loader.loaded[-1].work_s = 0.2
    there = make_result(loader, 2, epoch=1)
    world.publish(there)
    assert world.compare.latest() is there
    wait_for(lambda: world.compare.of(there))


def test_another_model_and_off_give_memory_back(world, loader, wait_for):
    world.publish(make_result(loader, 1))
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(world.newest))
    old = loader.loaded[-1]
    world.compare.with_model(ModelWish("m"))
    wait_for(lambda: (compared := world.compare.of(world.newest)) and compared.other.model_id == "m")
    assert old.closed == 1 and world.compare.state.running.model_id == "m"
    world.compare.off()
    wait_for(lambda: loader.loaded[-1].closed == 1)
    assert world.compare.of(world.newest) is None and not world.compare.state.on
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(world.newest))


def test_the_same_wish_again_loads_nothing(world, loader, wait_for):
    world.publish(make_result(loader, 1))
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(world.newest))
    loads = len(loader.loaded)
    world.compare.with_model(L)
    wait_for(lambda: world.compare.of(world.newest))
    assert len(loader.loaded) == loads and world.compare.state.running.model_id == "l"


@pytest.mark.parametrize("fault", ["no weights", "ends in the middle"])
def test_a_fault_is_one_sentence_and_one_opinion_again(world, loader, wait_for, fault):
    world.publish(make_result(loader, 1))
    if fault == "no weights":
        loader.missing.add("l")
        world.compare.with_model(L)
    else:
        world.compare.with_model(L)
        wait_for(lambda: world.compare.of(world.newest))
        loader.loaded[-1].detect_frame = lambda rgb, **kw: 1 / 0
        world.publish(make_result(loader, 2))
    wait_for(lambda: world.store.state.problem is not None and not world.compare.state.on)
    assert world.compare.latest() is world.newest


def test_the_line_stays_inside_and_is_kept(world):
    for wanted, kept in ((0.3, 0.3), (-1, SPLIT_RANGE[0]), (2, SPLIT_RANGE[1])):
        world.compare.set_split(wanted)
        assert world.compare.state.split == kept
    world.compare.off()
    assert world.compare.state.split == SPLIT_RANGE[1]


# Annotations

DRAWN = [("person", 20, 20, 100, 180), ("dog", 0, 0, 20, 20)]


def test_pictures_of_a_folder_are_judged(world, loader, wait_for, tmp_path):
    for name in ("b.png", "a.png"):
        Image.new("RGB", (320, 240)).save(tmp_path / name)
    world.source = str(tmp_path)
    truth = write_coco(tmp_path / "truth.json", {"b.png": DRAWN})
    world.publish(make_result(loader, 1, index=1))
    world.compare.with_annotations(truth)
    wait_for(lambda: world.compare.of(world.newest))
    verdict = world.compare.of(world.newest).verdict
    assert verdict.hit.tolist() == [True, False, False]
    assert verdict.found(0.5).tolist() == [True, False]
    world.publish(make_result(loader, 2, index=0))
    wait_for(lambda: world.compare.of(world.newest))
    assert world.compare.of(world.newest).verdict is None, "the annotations do not know a.png"


def test_frames_of_a_video_are_judged(world, loader, wait_for, clip, tmp_path):
    world.source = str(clip)
    info = SourceInfo("clip", "clip.mp4", False, 320, 240, Fraction(25), 3, 0.12, Fraction(1, 25))
    world.store.change(source=info)
    truth = write_coco(tmp_path / "t.json", {"f0.png": [], "f1.png": DRAWN, "f2.png": []})
    world.publish(make_result(loader, 1, index=1))
    world.compare.with_annotations(truth)
    wait_for(lambda: world.compare.of(world.newest))
    assert world.compare.of(world.newest).verdict.truth_names == ("person", "dog")
    world.store.change(source=replace(info, frame_count=60))
    world.publish(make_result(loader, 2, index=1))
    wait_for(lambda: world.compare.of(world.newest))
    assert world.compare.of(world.newest).verdict is None


def test_a_live_source_has_no_annotations(world, loader, wait_for, tmp_path):
    world.source = "test:320x240p30"
    world.publish(make_result(loader, 1))
    world.compare.with_annotations(write_coco(tmp_path / "t.json", {"a.png": []}))
    wait_for(lambda: world.store.state.problem is not None)
    assert "live" in world.store.state.problem.sentence and not world.compare.state.on
