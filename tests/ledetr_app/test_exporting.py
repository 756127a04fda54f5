"""Jobs made of the form and of what the window shows."""

import csv
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from ledetr.chain.sources import SourceInfo
from ledetr.tracking import Tracking
from ledetr.zones import Line, Zone, ZonePlan
from ledetr_app.export_job import OVER, Status, row_of_json, row_to_json
from ledetr_app.exporting import Exporting
from ledetr_app.model_loader import ModelWish
from ledetr_app.state import SessionState
from ledetr_app.store import Store

FILM = SourceInfo("film", "film.mp4", False, 320, 240, Fraction(25), 60, 2.4, Fraction(1, 12800), start_s=0.5)


@pytest.fixture
def store():
    return Store(SessionState(source=FILM, own_conf=0.4, shown_classes=frozenset({"dog", "car"}), scores=False))


@pytest.fixture
def exporting(store, loader, tmp_path):
    made = Exporting(store, loader, source=lambda: "/films/film.mp4", folder=tmp_path)
    made.queue.set_paused(True)
    yield made
    assert made.close(10)


def test_the_shown_file_with_the_choices_in_force(exporting, tmp_path):
    exporting.add_shown()
    (row,) = exporting.queue.state.rows
    job = row.job
    assert (job.source, job.model, job.conf) == ("/films/film.mp4", ModelWish("n"), 0.4)
    assert (job.class_names, job.labels, job.scores) == (("car", "dog"), True, False)
    assert (job.outputs, job.folder) == (("video", "csv"), str(tmp_path))
    assert (job.start_s, job.end_s) == (0.0, None)
    assert exporting.form.shown


def test_tracking_and_the_zones_of_a_source_go_into_its_job_and_outlive_the_window(store, loader, tmp_path):
    plan = ZonePlan((Zone("yard", ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9))),), (Line("gate", (0.5, 0.0), (0.5, 1.0)),))
    plans = {"/films/film.mp4": plan}
    exporting = Exporting(store, loader, source=lambda: "/films/film.mp4", zones=plans.get, folder=tmp_path)
    exporting.queue.set_paused(True)
    store.change(track_buffer_s=4.0)
    exporting.add_files(["/films/film.mp4", "/films/other.mp4", "/films/still.png"])
    store.change(tracking=True)
    exporting.add_files(["/films/other.mp4", "/films/still.png"])
    rows = exporting.queue.state.rows
    assert [row_of_json(json.loads(json.dumps(row_to_json(row))), row.number) for row in rows] == list(rows)
    wishes = [row.job.wish() for row in rows]
    assert [wish.zones for wish in wishes] == [plan, None, None, None, None]
    assert [wish.tracking for wish in wishes] == [Tracking(buffer_s=4.0), None, None, Tracking(buffer_s=4.0), None]
    assert not wishes[0].resume and wishes[1].resume
    assert exporting.close(10)


def test_an_export_with_tracking_has_ids(store, loader, clip, tmp_path, wait_for):
    store.change(tracking=True, shown_classes=None)
    exporting = Exporting(store, loader, source=lambda: "", folder=tmp_path / "out")
    exporting.set_output("video", False)
    exporting.add_files([str(clip)])
    wait_for(lambda: exporting.queue.state.rows[0].status in OVER, 60)
    (row,) = exporting.queue.state.rows
    assert (row.status, row.sentence) == (Status.DONE, "")
    lines = list(csv.DictReader(Path(row.paths[0]).read_text(encoding="utf-8-sig").splitlines()))
    assert {(line["class_name"], line["tracker_id"]) for line in lines} == {("person", "1"), ("dog", "2")}
    assert exporting.close(10)


@pytest.mark.parametrize(
    ("in_s", "out_s", "pictures"),
    [(None, 0.58, range(3)), (1.5, None, range(25, 60)), (0.9, 0.98, range(10, 13)), (1.5, 1.5, range(25, 26))],
)
def test_in_and_out_points_are_handed_over(exporting, store, in_s, out_s, pictures):
    store.change(in_s=in_s, out_s=out_s)
    exporting.add_shown()
    job = exporting.queue.state.rows[0].job
    inside = [i for i in range(60) if job.start_s - 1e-9 <= i / 25 < (99 if job.end_s is None else job.end_s)]
    assert inside == list(pictures), "both points are pictures of the part"


def test_outputs_and_folder(exporting, tmp_path):
    exporting.set_output("csv", False)
    exporting.set_output("coco", True)
    exporting.set_output("json", True)
    exporting.set_folder(str(tmp_path / "else"))
    assert exporting.form.outputs == ("video", "json", "coco")
    exporting.add_files(["a.mp4", "b.png"])
    assert [(row.job.source, row.job.outputs, Path(row.job.folder).name) for row in exporting.queue.state.rows] == [
        ("a.mp4", ("video", "json", "coco"), "else"),
        ("b.png", ("video", "json", "coco"), "else"),
    ]


def test_nothing_open_or_nothing_wanted_is_a_sentence(exporting, store):
    for name in ("video", "csv"):
        exporting.set_output(name, False)
    assert not exporting.can_add
    exporting.add_shown()
    assert "tick at least one" in store.state.problem.sentence
    exporting.set_output("csv", True)
    assert exporting.can_add
    for source in (None, replace(FILM, live=True)):
        store.change(source=source, problem=None)
        assert not exporting.can_add
        exporting.add_shown()
        assert "no file to export" in store.state.problem.sentence
    assert exporting.queue.state.rows == ()


def test_changes_wake_the_window(exporting, store):
    woken = []
    store.on_change = lambda: woken.append(1)
    exporting.set_shown(True)
    exporting.set_shown(True)
    assert len(woken) == 1
