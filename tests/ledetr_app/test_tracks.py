"""Tracking, trails, counts and the table in a session without a window."""

import csv
import json

import cv2
import numpy as np
import pytest

from ledetr.chain.overlay import BoxMark, LabelMark, PathMark, class_colour, track_colour
from ledetr.chain.pipeline import State
from ledetr.zones import Line, Zone, ZonePlan, load_zones, save_zones
from ledetr_app.drawing import Drawing, shapes_of
from ledetr_app.settings import load_settings

pytest.importorskip("scipy.optimize")  # loaded when tracking is first used, which takes a while

PATTERN = "test:320x240p30"
ALL_OF_IT = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@pytest.fixture
def running(session, wait_for):
    session.start(source=PATTERN)
    wait_for(lambda: session.state.running and (latest := session.latest()) and len(latest.detections) == 3)
    session.set_shown(session.latest())
    return session


@pytest.fixture
def tracked(running, wait_for):
    running.tracks.set_tracking(True)
    wait_for(lambda: _ids(running) == [1, 2, -1])
    return running


@pytest.fixture
def held(session, clip, wait_for):
    """The clip, tracked, paused somewhere."""
    session.tracks.set_tracking(True)
    session.start(source=clip)
    wait_for(lambda: session.state.running and _ids(session) is not None)
    session.pause()
    wait_for(lambda: session.state.phase is State.PAUSED)
    session.seek(1.0)
    wait_for(lambda: session.latest().frame.meta.pts_s == 1.0)
    session.set_shown(session.latest())
    return session


def _ids(session):
    latest = session.latest()
    return None if latest is None or latest.detections.tracker_id is None else latest.detections.tracker_id.tolist()


def _texts(session):
    return [mark.text for mark in session.marks(session.latest()) if isinstance(mark, LabelMark)]


# Tracking


def test_ids_come_from_one_and_go_with_the_switch(tracked, wait_for):
    assert sorted(_texts(tracked)) == ["#1 person 0.90", "#2 dog 0.60"]
    tracked.show(ids=False)
    assert sorted(_texts(tracked)) == ["dog 0.60", "person 0.90"]
    tracked.tracks.set_tracking(False)
    wait_for(lambda: _ids(tracked) is None)


def test_each_source_has_ids_from_one(tracked, clip, wait_for):
    tracked.open_source(clip)
    wait_for(lambda: tracked.state.source.display_name == "clip.mp4" and _ids(tracked) == [1, 2, -1])


def test_a_seek_gives_new_ids_and_reset_begins_at_one_again(held, wait_for):
    before = _ids(held)
    held.seek(0.2)
    wait_for(lambda: held.latest().frame.meta.pts_s == 0.2)
    assert min(_ids(held)[:2]) > max(before)
    held.tracks.reset()
    wait_for(lambda: _ids(held) == [1, 2, -1])


def test_the_buffer_is_in_seconds_and_one_of_a_few(running, wait_for):
    running.tracks.set_tracking(True)
    running.tracks.set_buffer(3.8)
    assert running.state.track_buffer_s == 4.0
    wait_for(lambda: running.pipeline.tracking is not None and running.pipeline.tracking.buffer_s == 4.0)


def test_colour_by_track_or_by_class(tracked):
    def colours():
        return {mark.colour_rgb for mark in tracked.marks(tracked.latest()) if isinstance(mark, BoxMark)}

    assert colours() == {class_colour(0), class_colour(1)}
    tracked.show(by_track=True)
    assert colours() == {track_colour(1), track_colour(2)}


def test_trails_are_those_of_what_is_seen(tracked, wait_for):
    def trails():
        result = tracked.latest()
        tracked.set_shown(result)
        return [mark for mark in tracked.marks(result) if isinstance(mark, PathMark)]

    wait_for(lambda: len(trails()) == 2 and all(len(mark.points_xy) > 3 for mark in trails()))
    assert {mark.points_xy[-1] for mark in trails()} == {(70.0, 200.0), (200.0, 200.0)}  # where the boxes stand
    tracked.set_conf(0.7)
    wait_for(lambda: [mark.points_xy[-1] for mark in trails()] == [(70.0, 200.0)])
    tracked.set_classes(frozenset({"dog"}))
    wait_for(lambda: trails() == [])
    tracked.set_classes(None)
    tracked.show(trails=False)
    assert trails() == []


def test_trails_are_drawn_in_the_pixels_of_the_view(tracked, wait_for):
    wait_for(lambda: tracked.tracks.followed(tracked.latest()).ways)
    result = tracked.latest()
    paths = [mark for mark in tracked.marks(result, (480, 640)) if isinstance(mark, PathMark)]
    assert (140.0, 400.0) in {mark.points_xy[-1] for mark in paths}


def test_choices_of_tracking_are_remembered(make_session, wait_for):
    session = make_session()
    session.tracks.set_tracking(True)
    session.tracks.set_buffer(8)
    session.show(ids=False, trails=False, by_track=True)
    assert session.close() == []
    again = make_session()
    state = again.state
    assert (state.tracking, state.track_buffer_s, state.ids, state.trails, state.by_track) == (
        True, 8.0, False, False, True,
    )  # fmt: skip
    assert again.pipeline.tracking.buffer_s == 8.0


# Zones


def test_a_zone_is_drawn_point_by_point_and_switches_tracking_on(running, wait_for):
    zones = running.zones
    zones.take("zone")
    assert running.state.zones_panel
    zones.add_point((0.1, 0.1))
    zones.add_point((0.1, 0.1))  # a double click is one corner
    zones.add_point((0.9, 0.1))
    zones.finish()
    assert "three corners" in running.state.problem.sentence and running.state.zones == ZonePlan()
    zones.add_point((0.5, 0.2))
    zones.take_back_point()
    zones.point_to((0.5, 2.0))
    zones.add_point()
    zones.finish()
    assert running.state.zones == ZonePlan((Zone("Zone 1", ((0.1, 0.1), (0.9, 0.1), (0.5, 1.0))),))
    assert running.state.drawing == Drawing(selected=0)
    assert running.state.tracking
    wait_for(lambda: _ids(running) is not None)


def test_a_line_is_done_with_its_second_point_and_escape_forgets(running):
    zones = running.zones
    zones.take("line")
    zones.add_point((0.5, 0.0))
    zones.cancel()
    assert running.state.drawing == Drawing() and running.state.zones == ZonePlan()
    zones.take("line")
    zones.add_point((0.5, 0.0))
    zones.add_point((0.5, 1.0))
    assert running.state.zones == ZonePlan((), (Line("Line 1", (0.5, 0.0), (0.5, 1.0)),))
    assert running.state.drawing.tool == ""


def test_nothing_is_drawn_on_nothing(session):
    session.zones.take("zone")
    assert session.state.drawing.tool == ""
    assert "open a source first" in session.state.problem.sentence


def test_points_are_moved_shapes_named_and_removed(running):
    zones = running.zones
    running.store.change(zones=ZonePlan((Zone("a", ALL_OF_IT),), (Line("b", (0.0, 0.0), (1.0, 1.0)),)))
    zones.take("edit")
    zones.grab(1, 0)
    zones.point_to((0.2, 0.4))
    assert running.state.zones.lines[0].start == (0.0, 0.0)  # until it is dropped
    zones.drop()
    assert running.state.zones.lines[0].start == (0.2, 0.4)
    zones.select(0)
    zones.grab_next()
    zones.grab_next()
    zones.move_grabbed((-0.25, 0.5))
    assert running.state.zones.zones[0].points[1] == (0.75, 0.5)
    assert running.state.drawing.grabbed == 1
    zones.rename(0, "b")
    assert "'b' is there twice" in running.state.problem.sentence
    zones.rename(0, "yard")
    zones.remove_selected()
    assert [shape.name for shape in shapes_of(running.state.zones)] == ["b"]
    assert running.state.drawing.selected is None


def test_counts_are_of_what_is_seen_and_survive_a_name_and_another_shape(tracked, wait_for):
    tracked.store.change(zones=ZonePlan((Zone("a", ALL_OF_IT),)))

    def now():
        latest = tracked.latest()
        return dict(tracked.tracks.followed(latest).counts_of(tracked.state.zones)[0].now)

    wait_for(lambda: now() == {"person": 1, "dog": 1})
    tracked.set_conf(0.7)
    wait_for(lambda: now() == {"person": 1})
    tracked.zones.rename(0, "yard")
    tracked.zones.take("line")
    tracked.zones.add_point((0.0, 0.5))
    tracked.zones.add_point((1.0, 0.5))
    assert tracked.tracks.followed(tracked.latest()).counts_of(tracked.state.zones)[0].visits >= 1
    wait_for(lambda: any(text.startswith("yard: now 1 in 0 out 0") for text in _texts(tracked)))
    wait_for(lambda: "Line 1: in 0 out 0" in _texts(tracked))


def test_a_snapshot_and_a_recording_hold_the_zones(tracked, wait_for):
    tracked.store.change(zones=ZonePlan((Zone("all", ALL_OF_IT),)))
    wait_for(lambda: tracked.display.counts(tracked.latest())[0].now)
    tracked.set_shown(tracked.latest())
    kept = tracked.marks_to_keep(tracked.shown)
    assert any(isinstance(mark, PathMark) and mark.closed for mark in kept)
    tracked.snapshot()
    wait_for(lambda: tracked.state.toast is not None)
    document = json.loads(tracked.state.toast.path.with_suffix(".json").read_text())
    assert [(row["name"], row["now"]) for row in document["zones"]] == [("all", {"person": 1, "dog": 1})]


def test_a_thing_that_crosses_is_counted_by_class(session, loader, make_clip, tmp_path, wait_for):
    """The person goes 10 px to the right in each frame, over a line that leads down."""
    detector = loader("n")
    plain = detector.detect_frame

    def walking(rgb, **arguments):
        detections, times = plain(rgb, **arguments)
        detections.xyxy[0] += [4 * float(rgb[0, 0, 0]) / 4, 0, 4 * float(rgb[0, 0, 0]) / 4, 0]
        return detections, times

    detector.detect_frame = walking
    session.models.take(loader.wishes[0], detector)
    session.tracks.set_tracking(True)
    session.pipeline.set_policy("every")
    plan = ZonePlan((), (Line("gate", (0.4, 1.0), (0.4, 0.0)),))
    source = make_clip(tmp_path / "walk.mp4", frames=40)
    session.zones.kept[str(source)] = plan
    session.open_source(source)
    wait_for(lambda: session.state.ended, 20)
    assert session.state.zones == plan
    (count,) = session.tracks.followed(session.latest()).counts_of(plan)
    assert (dict(count.entered), dict(count.left)) == ({"person": 1}, {})


def test_zones_are_kept_by_source(make_session, clip, wait_for, tmp_path):
    session = make_session()
    session.open_source(clip)
    wait_for(lambda: session.state.source is not None)
    session.zones.take("line")
    session.zones.add_point((0.5, 0.0))
    session.zones.add_point((0.5, 1.0))
    drawn = session.state.zones
    session.open_source(PATTERN)
    wait_for(lambda: session.state.source is not None and session.state.source.live)
    assert session.state.zones == ZonePlan()
    assert session.close() == []
    assert list(load_settings(tmp_path / "config" / "settings.json").settings.zones) == [str(clip)]
    again = make_session()
    assert again.zones.plan_for(str(clip)) == drawn and again.zones.plan_for(PATTERN) is None
    again.open_source(clip)
    wait_for(lambda: again.state.zones == drawn)


def test_zones_go_to_a_file_and_come_back(running, tmp_path, wait_for):
    path = tmp_path / "zones.json"
    running.zones.save(path)
    assert "no zones to save" in running.state.problem.sentence
    plan = ZonePlan((Zone("a", ALL_OF_IT),), (Line("b", (0.0, 0.0), (1.0, 1.0)),))
    running.store.change(zones=plan)
    running.zones.save(path)
    wait_for(lambda: running.state.toast is not None and running.state.toast.path == path)
    assert load_zones(path) == plan
    save_zones(ZonePlan((Zone("px", ((0, 0), (320, 0), (320, 240))),), (), "pixels"), path)
    running.zones.load(path)
    wait_for(lambda: running.state.zones == ZonePlan((Zone("px", ((0, 0), (1, 0), (1, 1))),)))
    save_zones(ZonePlan((Zone("px", ((0, 0), (640, 0), (320, 240))),), (), "pixels"), path)
    running.zones.load(path)
    wait_for(lambda: "does not fit this picture of 320 x 240" in running.state.problem.sentence)
    path.write_text("[]")
    running.zones.load(path)
    wait_for(lambda: "zones.json is no file of zones" in running.state.problem.sentence)


# The table


def test_rows_follow_the_filter_and_a_click_goes_there(held, wait_for):
    results = held.results
    results.ask()
    wait_for(lambda: 1.0 in results.rows.pts_s)
    assert {results.rows.name(row) for row in range(len(results.rows))} == {"person", "dog"}
    held.set_classes(frozenset({"dog"}))
    results.ask()
    wait_for(lambda: {results.rows.name(row) for row in range(len(results.rows))} == {"dog"})
    first = float(results.rows.pts_s[0])
    results.go_to(0)
    wait_for(lambda: held.latest().frame.meta.pts_s == first)
    results.set_by_track(True)
    wait_for(lambda: results.rows.by_track and len(results.rows) > 0)
    results.go_to(10_000)  # no such row any more
    assert held.state.problem is None


def test_a_live_source_cannot_go_back_and_says_so(running, wait_for):
    running.results.ask()
    wait_for(lambda: len(running.results.rows) > 0)
    running.results.go_to(0)
    assert running.state.toast.text == "A live source cannot go back to an earlier picture"
    assert running.state.phase is State.RUNNING


def test_another_source_begins_a_new_table(running, clip, wait_for):
    running.open_source(clip)
    wait_for(lambda: running.state.source is not None and running.state.source.display_name == "clip.mp4")
    wait_for(lambda: len(running.results.gathered) > 0)
    running.results.ask()
    wait_for(lambda: len(running.results.rows) > 0 and running.results.rows.pts_s.max() < 2.4)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "coco", "mot"])
def test_what_was_gathered_goes_into_a_file(held, tmp_path, wait_for, kind):
    held.results.export(kind)
    wait_for(lambda: held.state.toast is not None or held.state.problem is not None)
    path = held.state.toast.path
    assert path.parent == tmp_path / "videos" and held.state.toast.text == f"Results saved: {path.name}"
    assert [p for p in path.parent.iterdir() if p != path] == []
    pictures = list(held.results.gathered.pictures(held.state.class_filter))
    text = path.read_text(encoding="utf-8-sig")
    if kind in ("json", "jsonl"):
        frames = json.loads(text)["frames"] if kind == "json" else [json.loads(line) for line in text.splitlines()]
        assert frames == [picture.to_json() for picture in pictures]
        assert {box["class_name"] for frame in frames for box in frame["detections"]} == {"person", "dog"}
    elif kind == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert len(rows) == sum(len(picture.detections) for picture in pictures)
        assert {row["class_name"] for row in rows} == {"person", "dog"} and rows[0]["x1"] in ("20.0", "140.0")
    elif kind == "coco":
        assert {row["category_id"] for row in json.loads(text)} == {1, 18}
    else:
        frames = {int(line.split(",")[0]) for line in text.splitlines()}
        assert frames == {picture.index + 1 for picture in pictures}


def test_pictures_have_names_and_no_times(session, tmp_path, wait_for):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(folder / name), np.zeros((240, 320, 3), np.uint8))
    session.start()
    wait_for(lambda: session.state.running)
    session.open_source(folder)
    wait_for(lambda: len(session.results.gathered) == 2)
    session.results.export("json")
    wait_for(lambda: session.state.toast is not None)
    frames = json.loads(session.state.toast.path.read_text())["frames"]
    assert [(frame["file"], frame["pts_s"], frame["index"]) for frame in frames] == [
        ("a.png", None, 0),
        ("b.png", None, 1),
    ]
    assert [len(frame["detections"]) for frame in frames] == [2, 2]


def test_mot_without_ids_and_a_list_of_nothing_are_sentences(session, running, wait_for):
    running.results.export("mot")
    assert "switch tracking on" in running.state.problem.sentence
    running.results.gathered.begin()
    running.stop()
    wait_for(lambda: running.state.phase is State.IDLE)
    running.results.gathered.begin()
    running.results.export("csv")
    assert "no results to write yet" in running.state.problem.sentence


def test_a_folder_that_cannot_be_written_is_one_sentence(make_session, tmp_path, wait_for):
    (tmp_path / "file").write_text("")
    session = make_session(videos=tmp_path / "file" / "in")
    session.start(source=PATTERN)
    wait_for(lambda: len(session.results.gathered) > 0)
    session.results.export("csv")
    wait_for(lambda: session.state.problem is not None)
    assert "Cannot save to" in session.state.problem.sentence
