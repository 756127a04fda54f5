"""The session alone, without Qt: what a command does is read from its state."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ledetr.chain.overlay import BoxMark, LabelMark
from ledetr.chain.pipeline import State
from ledetr_app.model_loader import ModelWish
from ledetr_app.settings import Settings, load_settings, save_settings
from ledetr_app.store import problem_of

PATTERN = "test:320x240p30"


@pytest.fixture
def running(session, wait_for):
    """A session with N that shows the test pattern."""
    session.start(source=PATTERN)
    wait_for(lambda: session.state.running and session.state.phase is State.RUNNING and _has_boxes(session))
    session.set_shown(session.latest())
    return session


@pytest.fixture
def playing_file(session, clip, wait_for):
    session.start(source=clip)
    wait_for(lambda: session.state.running and session.state.source is not None and _has_boxes(session))
    return session


def _has_boxes(session):
    result = session.latest()
    return result is not None and len(result.detections) == 3


# Source


def test_begins_with_nothing_open(session):
    assert session.state.phase is State.IDLE
    assert not session.state.has_source
    assert session.latest() is None
    assert session.state.conf == 0.5


def test_opens_and_plays_a_file(playing_file, clip):
    assert playing_file.state.source.display_name == "clip.mp4"
    assert playing_file.state.opening == ""
    assert playing_file.state.recents == (str(clip),)


def test_pause_and_play(running, wait_for):
    running.toggle_play()
    wait_for(lambda: running.state.phase is State.PAUSED)
    running.toggle_play()
    wait_for(lambda: running.state.phase is State.RUNNING)


@pytest.mark.parametrize("times", [1, 2])
def test_stop_gives_up_the_source(running, wait_for, times):
    for _ in range(times):
        running.stop()
    wait_for(lambda: running.state.phase is State.IDLE)
    assert running.state.source is None
    assert running.latest() is None


def test_file_parks_on_its_last_frame_and_plays_again(session, make_clip, tmp_path, wait_for):
    session.start(source=make_clip(tmp_path / "short.mp4", frames=5))
    wait_for(lambda: session.state.ended and session.latest().frame.meta.index == 4)
    session.toggle_play()
    wait_for(lambda: not session.state.ended)


def test_seek_shows_the_first_frame_at_or_after(playing_file, wait_for):
    playing_file.pause()
    wait_for(lambda: playing_file.state.phase is State.PAUSED)
    playing_file.seek(1.0)
    wait_for(lambda: playing_file.latest().frame.meta.pts_s == 1.0)
    assert playing_file.latest().frame.meta.pts == 12800
    assert int(playing_file.latest().frame.rgb.mean()) == pytest.approx(100, abs=3)  # frame i is 4 i grey


def test_step_on_and_back(playing_file, wait_for):
    playing_file.pause()
    playing_file.seek(1.0)
    wait_for(lambda: playing_file.latest().frame.meta.pts_s == 1.0)
    playing_file.step(1)
    wait_for(lambda: playing_file.latest().frame.meta.pts_s == 1.04)
    playing_file.step(-1)
    wait_for(lambda: playing_file.latest().frame.meta.pts_s == 1.0)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("gone.mp4", None, "gone.mp4"), ("text.mp4", b"hello " * 100, "text.mp4"), ("empty.mp4", b"", "empty.mp4")],
    ids=["missing", "text", "empty"],
)
def test_what_cannot_be_opened_is_one_sentence_with_its_name(session, tmp_path, wait_for, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    session.open_source(tmp_path / name)
    wait_for(lambda: session.state.problem is not None)
    assert words in session.state.problem.sentence
    assert "\n" not in session.state.problem.sentence
    assert "Traceback" not in session.state.problem.sentence
    assert not session.state.has_source
    assert session.state.opening == ""


def test_a_new_source_replaces_the_old_one_and_its_problem(session, clip, wait_for):
    session.open_source("nowhere.mp4")
    wait_for(lambda: session.state.problem is not None)
    session.open_source(clip)
    wait_for(lambda: session.state.source is not None and session.state.source.display_name == "clip.mp4")
    assert session.state.problem is None


@pytest.mark.parametrize(
    "address", ["rtsp://me:pa@ss@127.0.0.1:1/x", "rtsp://me:a/b@127.0.0.1:1/", "http://127.0.0.1:1/x?token=secret"]
)
def test_passwords_are_neither_shown_nor_remembered(session, wait_for, address):
    session.open_source(address)
    wait_for(lambda: session.state.has_source or session.state.problem is not None)
    session.stop()
    wait_for(lambda: session.state.phase is State.IDLE)
    session.close()
    remembered = load_settings(session.remembered.path).settings.recents
    shown = f"{session.state} {session.settings}"
    for secret in ("pa@ss", "a/b", "secret"):
        assert secret not in shown
    assert remembered == ()


# Model


def test_loads_the_remembered_model(make_session, tmp_path, wait_for):
    save_settings(tmp_path / "s.json", Settings(model="m"))
    session = make_session(settings_file=tmp_path / "s.json")
    session.start()
    wait_for(lambda: session.state.running is not None)
    assert session.state.running.model_id == "m"
    assert (session.state.running.engine, session.state.running.device) == ("openvino", "cpu")


def test_switch_goes_on_showing_pictures_and_closes_the_old_model(running, loader, wait_for):
    old = loader.loaded[0]
    loader.gate.clear()
    running.set_model("l")
    assert running.state.loading == "l"
    before = running.latest().number
    wait_for(lambda: running.latest().number > before + 5)  # pictures come although the load hangs
    assert running.latest().detections.model_id == "n"
    assert old.closed == 0
    loader.gate.set()
    wait_for(lambda: running.latest().detections.model_id == "l")
    wait_for(lambda: old.closed == 1)
    assert running.state.running.model_id == "l"
    assert running.state.loading is None


def test_switch_while_paused_looks_at_the_same_frame_again(running, wait_for):
    running.pause()
    wait_for(lambda: running.state.phase is State.PAUSED)
    running.set_model("x")
    wait_for(lambda: running.latest().detections.model_id == "x")
    assert running.state.phase is State.PAUSED


def test_failed_switch_keeps_the_old_model_and_says_why(running, loader, wait_for):
    loader.missing.add("x")
    running.set_model("x")
    wait_for(lambda: running.state.problem is not None)
    assert running.state.problem.sentence == "Model X has no weights on this computer yet: put them somewhere."
    assert running.state.model == "n"
    assert running.state.running.model_id == "n"
    assert running.state.loading is None
    assert loader.loaded[0].closed == 0


def test_of_quick_wishes_only_the_last_is_used(running, loader, wait_for):
    loader.gate.clear()
    running.set_model("m")
    wait_for(lambda: loader.asked == ["n", "m"])
    running.set_model("l")
    running.set_model("x")
    loader.gate.set()
    wait_for(lambda: running.state.running.model_id == "x")
    assert loader.asked == ["n", "m", "x"]  # l was never begun
    assert [d.closed for d in loader.loaded if d.model_id == "m"] == [1]


def test_going_back_while_loading_keeps_the_running_one(running, loader, wait_for):
    loader.gate.clear()
    running.set_model("m")
    wait_for(lambda: loader.asked == ["n", "m"])
    running.set_model("n")
    assert (running.state.model, running.state.loading) == ("n", None)
    loader.gate.set()
    wait_for(lambda: len(loader.loaded) == 2 and loader.loaded[1].closed == 1)
    assert running.state.running.model_id == "n"
    assert loader.loaded[0].closed == 0


def test_knows_which_scales_have_weights(make_session, loader, wait_for):
    loader.missing |= {"m", "x"}
    session = make_session()
    wait_for(lambda: session.state.has_weights)
    assert session.state.has_weights == {"n": True, "m": False, "l": True, "x": False}


def test_a_scale_without_weights_says_where_they_belong(make_session, loader, wait_for):
    loader.missing |= {"x"}
    session = make_session(load_detector=None)
    session.set_model("x")
    wait_for(lambda: session.state.problem is not None)
    sentence = session.state.problem.sentence
    assert "ledetr_x.safetensors" in sentence
    assert "choose N or M or L" in sentence


# Display


def test_threshold_filters_without_an_inference(running, loader, wait_for):
    running.pause()
    wait_for(lambda: running.state.phase is State.PAUSED)
    wait_for(lambda: running.latest() is not None)
    result, before = running.latest(), loader.loaded[0].frames
    for conf, boxes in ((0.05, 3), (0.5, 2), (0.61, 1), (0.95, 0)):
        running.set_conf(conf)
        assert sum(isinstance(m, BoxMark) for m in running.marks(result)) == boxes
    assert loader.loaded[0].frames == before


@pytest.mark.parametrize(("wish", "conf"), [(-1.0, 0.05), (0.0, 0.05), (0.333, 0.33), (1.0, 0.95)])
def test_threshold_stays_in_range(session, wish, conf):
    session.set_conf(wish)
    assert session.state.conf == conf


def test_model_brings_its_threshold_until_the_user_has_one(session, loader, wait_for):
    session.models.take(ModelWish("n"), _with_threshold(loader("n"), 0.31))
    assert session.state.conf == 0.31
    session.set_conf(0.7)
    session.models.take(ModelWish("m"), _with_threshold(loader("m"), 0.42))
    assert session.state.conf == 0.7


def _with_threshold(detector, threshold):
    detector.score_threshold = threshold
    return detector


def test_class_filter_works_by_name(running):
    running.set_conf(0.05)
    running.set_classes(frozenset({"car", "unicorn"}))
    result = running.latest()
    assert [m.text for m in running.marks(result) if isinstance(m, LabelMark)] == ["car 0.30"]
    assert running.seen(result).names == ["car"]
    running.set_classes(frozenset())
    assert running.marks(result) == []
    running.set_classes(None)
    assert len(running.seen(result)) == 3


def test_parts_of_the_overlay(running):
    result = running.latest()
    running.show(scores=False)
    assert [m.text for m in running.marks(result) if isinstance(m, LabelMark)] == ["dog", "person"]
    running.show(labels=False)
    assert not any(isinstance(m, LabelMark) for m in running.marks(result))
    running.show(boxes=False)
    assert running.marks(result) == []


# Output


@pytest.mark.parametrize("boxes", [True, False])
def test_snapshot_is_full_size_with_its_detections_beside(running, tmp_path, wait_for, boxes):
    result = running.shown
    running.snapshot(boxes=boxes)
    wait_for(lambda: running.state.toast is not None)
    path = running.state.toast.path
    assert path.parent == tmp_path / "pictures"
    bgr = cv2.imread(str(path))
    same = np.array_equal(bgr[..., ::-1], result.frame.rgb)
    assert bgr.shape == (240, 320, 3)
    assert same is not boxes
    document = json.loads(path.with_suffix(".json").read_text())
    assert [d["class_name"] for d in document["detections"]] == ["person", "dog"]
    assert (document["model"], document["conf"], document["picture"]) == ("n", 0.5, path.name)


def test_snapshot_of_nothing_and_recording_of_nothing_are_sentences(session):
    session.snapshot()
    assert session.state.problem.sentence == "There is no picture to save yet: open a source first."
    session.toggle_recording()
    assert session.state.problem.sentence == "There is nothing to record yet: open a source first."


def test_snapshots_in_one_second_do_not_overwrite(running, tmp_path, wait_for):
    for count in (1, 2, 3):
        running.snapshot()
        wait_for(lambda count=count: running.state.toast is not None and running.state.toast.serial == count)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


def test_snapshot_folder_that_cannot_be_written_is_one_sentence(make_session, tmp_path, wait_for):
    (tmp_path / "file").write_text("")
    session = make_session(pictures=tmp_path / "file" / "in")
    session.start(source=PATTERN)
    wait_for(lambda: session.latest() is not None)
    session.set_shown(session.latest())
    session.snapshot()
    wait_for(lambda: session.state.problem is not None)
    assert "Cannot save to" in session.state.problem.sentence


def test_recording_leaves_a_video(running, tmp_path, wait_for):
    running.toggle_recording()
    wait_for(lambda: running.state.recording is not None)
    wait_for(lambda: (status := running.recording_status()) is not None and status.frames >= 5)
    running.toggle_recording()
    wait_for(lambda: running.state.toast is not None)
    path = running.state.toast.path
    assert running.state.recording is None
    assert running.state.problem is None
    assert path.parent == tmp_path / "videos"
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_WIDTH) == 320


def test_what_is_kept_of_random_weights_says_so(session, loader, tmp_path, wait_for):
    detector = loader("n")
    detector.random_weights = True
    session.models.take(ModelWish("n"), detector)
    session.open_source(PATTERN)
    wait_for(lambda: _has_boxes(session))
    session.set_shown(session.latest())
    assert [m.text for m in session.marks_to_keep(session.shown) if isinstance(m, LabelMark)][-1] == "random weights"
    session.snapshot()
    wait_for(lambda: session.state.toast is not None)
    document = json.loads(session.state.toast.path.with_suffix(".json").read_text())
    assert document["random_weights"] is True
    session.show(boxes=False)
    assert session.marks_to_keep(session.shown) == []


# Settings


def test_choices_are_remembered(make_session, tmp_path, clip, wait_for):
    session = make_session()
    session.start(model="m", source=clip)
    wait_for(lambda: session.state.running is not None and session.state.recents)
    session.set_conf(0.25)
    session.set_classes(frozenset({"dog"}))
    session.show(labels=False)
    session.set_theme("dark")
    session.set_side_panel(True)
    session.remember(geometry=(1, 2, 1000, 700))
    assert session.close() == []
    state = make_session().state
    assert (state.model, state.conf, state.shown_classes, state.labels) == ("m", 0.25, {"dog"}, False)
    assert (state.theme, state.side_panel, state.recents) == ("dark", True, (str(clip),))


def test_safe_neither_reads_nor_writes(make_session, tmp_path, clip, wait_for):
    session = make_session(settings_file=None)
    session.start(source=clip)
    session.set_conf(0.3)
    wait_for(lambda: session.state.source is not None)
    assert session.close() == []
    assert not (tmp_path / "config").exists()


def test_a_broken_settings_file_is_told_and_not_fatal(make_session, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text("{")
    session = make_session(settings_file=path)
    assert "set aside as settings.json.broken" in session.state.problem.sentence
    assert session.state.model == "n"


def test_recents_are_few_newest_first_and_without_doubles(make_session, tmp_path, wait_for):
    session = make_session()
    for name in [*(f"f{i}.mp4" for i in range(18)), "f5.mp4"]:
        session.open_source(tmp_path / name)
    wait_for(lambda: session.state.recents[:2] == (str(tmp_path / "f5.mp4"), str(tmp_path / "f17.mp4")))
    assert len(session.state.recents) == 15
    assert len(set(session.state.recents)) == 15


# The end


def test_our_own_errors_are_sentences_and_others_say_so():
    assert problem_of(ZeroDivisionError("division by zero")).sentence == (
        "Something went wrong inside Le-DETR (ZeroDivisionError): division by zero"
    )
    assert "ZeroDivisionError" in problem_of(ZeroDivisionError("x")).details


@pytest.mark.parametrize("what", ["new", "opening", "running", "paused", "ended", "failed", "recording", "loading"])
def test_close_in_every_state_leaves_no_thread(make_session, loader, make_clip, tmp_path, wait_for, what):
    session = make_session()
    source = {
        "opening": "http://127.0.0.1:9/never",
        "ended": make_clip(tmp_path / "short.mp4", frames=3),
        "failed": Path("nowhere.mp4"),
    }.get(what, PATTERN)
    if what != "new":
        session.start(source=source)
    if what in ("running", "paused", "recording", "loading"):
        wait_for(lambda: session.state.phase is State.RUNNING)
    if what == "paused":
        session.pause()
        wait_for(lambda: session.state.phase is State.PAUSED)
    if what == "ended":
        wait_for(lambda: session.state.ended)
    if what == "failed":
        wait_for(lambda: session.state.problem is not None)
    if what == "recording":
        session.toggle_recording()
        wait_for(lambda: (status := session.recording_status()) is not None and status.frames > 2)
    if what == "loading":
        wait_for(lambda: session.state.running is not None)
        session.set_model("l")
    assert session.close() == []
    assert session.close() == []
    assert all(detector.closed for detector in loader.loaded)
    if what == "recording":
        assert [p.suffix for p in (tmp_path / "videos").iterdir()] == [".mp4"]
