"""Each guard is seen failing: the same check on the right build, which passes, and on a wrong one, which must not.

| guard | wrong build |
| --- | --- |
| live age does not grow | a queue for the mailbox: tests/ledetr/chain/test_live_age.py::test_the_test_can_fail |
| the window's thread is never late | a join in it: test_a_join_in_the_windows_thread_is_noticed |
| stop is quick while a model hangs | a join without a limit: test_a_join_without_a_limit_is_noticed |
| nothing has its final name before its end | written to it: test_writing_to_the_final_name_is_noticed |
| the same for workers of many videos | written to it: test_workers_that_write_to_final_names_are_noticed |
| at most two seconds are lost | no fragments: test_a_part_file_that_a_kill_would_take_is_noticed |
| golden clips come back as they were | each fact changed by a little: tests/faults/test_golden_judge.py |
"""

import shutil
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QElapsedTimer, QTimer

from ledetr.backends.base import BackendInfo
from ledetr.chain import recorder, session
from ledetr.chain.pipeline import STOP_LIMIT_S, Pipeline
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.resume import usable_segment
from ledetr.chain.sources import TestPatternSpec
from ledetr.chain.stage import Stage
from ledetr.detections import Detections
from ledetr_app.player import Player
from ledetr_app.session import Session

FRAMES = 200


def write(path: Path) -> VideoWriter:
    writer = VideoWriter(path, width=64, height=48, time_base=Fraction(1, 25), rate=Fraction(25))
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), number, np.uint8), number)
    return writer


def check_final_name_is_free_until_the_end(folder: Path) -> None:
    writer = write(folder / "out.mp4")
    try:
        assert not (folder / "out.mp4").exists()
    finally:
        writer.abort()


def check_two_seconds_are_lost_at_most(folder: Path) -> None:
    writer = write(folder / "out.mp4")
    try:
        left = shutil.copy(writer.part, folder / "what a kill leaves.mp4")
        segment = usable_segment(Path(left))
        assert segment is not None and segment.packets[0] >= FRAMES - 2 * 25
    finally:
        writer.abort()


def to_the_final_name(target: Path) -> Path:
    target.touch()
    return target


def test_writing_to_the_final_name_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_final_name_is_free_until_the_end(tmp_path)
    monkeypatch.setattr(recorder, "reserve_part", to_the_final_name)
    with pytest.raises(AssertionError):
        check_final_name_is_free_until_the_end(tmp_path)


@pytest.mark.parametrize("options", [{"movflags": "faststart"}, {"movflags": "frag_keyframe+delay_moov"}])
def test_a_part_file_that_a_kill_would_take_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    """Without fragments nothing would be left, with unflushed ones too little."""
    check_two_seconds_are_lost_at_most(tmp_path)
    monkeypatch.setattr(recorder, "_FRAGMENTED", options)
    with pytest.raises(AssertionError):
        check_two_seconds_are_lost_at_most(tmp_path)


class StuckModel:
    """A model that hangs in its first picture until it is let go."""

    model_id = "stuck"
    class_names = ("thing",)
    category_ids = (1,)
    score_threshold = 0.5
    random_weights = False
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()

    def detect_frame(self, rgb: np.ndarray, **_: Any) -> Any:
        self.reached.set()
        assert self.let_go.wait(30)
        return Detections.empty(), SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        pass


def check_stop_is_quick_while_the_model_hangs() -> None:
    model = StuckModel()
    pipeline = Pipeline(model)
    pipeline.open(TestPatternSpec(width=64, height=48, rate=Fraction(25), live=False))
    assert model.reached.wait(10)
    helper = threading.Timer(STOP_LIMIT_S + 3, model.let_go.set)
    helper.start()
    began_s = time.monotonic()
    try:
        pipeline.stop()
        assert time.monotonic() - began_s < STOP_LIMIT_S + 1.5  # the rest is for a busy machine
    finally:
        helper.cancel()
        model.let_go.set()
        pipeline.close()


def test_a_join_without_a_limit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_stop_is_quick_while_the_model_hangs()
    right: Callable[..., Any] = session.join_all
    monkeypatch.setattr(session, "join_all", lambda threads, limit_s: right(threads, 60.0))
    with pytest.raises(AssertionError):
        check_stop_is_quick_while_the_model_hangs()


HANG_S = STOP_LIMIT_S + 3
LATE_S = STOP_LIMIT_S + 1.5  # the rest is for a busy machine


def check_the_windows_thread_is_never_late(qtbot: Any) -> None:
    """Stop while the model hangs, from the thread of the window, and look how late its own timer is meanwhile."""
    model = StuckModel()
    app = Session(load_detector=lambda _: model, list_devices=dict, find=lambda _: Path(__file__))
    clock, worst_ms = QElapsedTimer(), 0.0

    def tick() -> None:
        nonlocal worst_ms
        worst_ms = max(worst_ms, clock.restart())

    ticks = QTimer()
    ticks.setInterval(10)
    ticks.timeout.connect(tick)
    try:
        app.start(model="n", source="test:320x240p30")
        qtbot.waitUntil(model.reached.is_set, timeout=30_000)
        threading.Timer(HANG_S, model.let_go.set).start()
        clock.start()
        ticks.start()
        app.stop()
        qtbot.waitUntil(model.let_go.is_set, timeout=30_000)
        qtbot.wait(50)  # for the tick that was held up
        assert worst_ms < 1000 * LATE_S
    finally:
        ticks.stop()
        model.let_go.set()
        app.close()


def test_a_join_in_the_windows_thread_is_noticed(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_the_windows_thread_is_never_late(qtbot)

    def stop_here(player: Player) -> None:
        player._pipeline.stop()

    right: Callable[..., Any] = session.join_all
    monkeypatch.setattr(session, "join_all", lambda threads, limit_s: right(threads, 60.0))
    monkeypatch.setattr(Player, "stop", stop_here)
    with pytest.raises(AssertionError):
        check_the_windows_thread_is_never_late(qtbot)


def check_workers_leave_final_names_free(folder: Path) -> None:
    """What a worker leaves that is killed before its end lies under no final name."""
    folder.mkdir(exist_ok=True)
    stage = Stage("clip.mp4", {"video": folder / "clip_boxes.mp4"}, "made of this")
    stage.begin(resume=False)
    writer = VideoWriter(
        stage.staged["video"], width=64, height=48, time_base=Fraction(1, 25), rate=Fraction(25), overwrite=True
    )
    for number in range(10):
        writer.write(np.full((48, 64, 3), number, np.uint8), number)
    writer.finish()  # and here it dies, before its receipt
    assert stage.receipt() is None and not stage.finals["video"].exists()


def test_workers_that_write_to_final_names_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_workers_leave_final_names_free(tmp_path / "right")
    monkeypatch.setattr(Stage, "staged", property(lambda stage: dict(stage.finals)))
    with pytest.raises(AssertionError):
        check_workers_leave_final_names_free(tmp_path / "wrong")
