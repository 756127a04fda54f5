"""The queue of exports: order, pause, cancel, broken files, and what a killed window leaves."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ledetr.errors import SourceError
from ledetr_app.export_job import ExportJob, ExportRow, Status, class_ids_of, row_of_json, row_to_json
from ledetr_app.export_queue import ExportQueue, exports_folder
from ledetr_app.model_loader import ModelWish

ROOT = Path(__file__).parents[2]
N = ModelWish("n")


@pytest.fixture
def make_queue(loader):
    made = []

    def make(folder=None, load=loader) -> ExportQueue:
        made.append(ExportQueue(load, folder))
        return made[-1]

    yield make
    loader.gate.set()
    for queue in made:
        assert queue.close(10)


@pytest.fixture
def queue(make_queue):
    return make_queue()


@pytest.fixture
def make_job(tmp_path):
    def make(source, *outputs, **changes) -> ExportJob:
        outputs = outputs or ("csv",)
        return ExportJob(source=str(source), model=N, outputs=outputs, folder=str(tmp_path / "out"), **changes)

    return make


def picture(path: Path) -> Path:
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(path)
    return path


def statuses(queue) -> list[str]:
    return [row.status.value for row in queue.state.rows]


def over(queue) -> bool:
    return all(row.status in (Status.DONE, Status.FAILED, Status.CANCELLED) for row in queue.state.rows)


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_with_everything(queue, make_job, clip, wait_for, tmp_path):
    queue.add([make_job(clip, "video", "csv", "json", "jsonl", "coco")])
    wait_for(lambda: over(queue), 60)
    (row,) = queue.state.rows
    assert (row.status, row.sentence, row.frames, row.part) == (Status.DONE, "", 60, 1.0)
    assert sorted(Path(path).name for path in row.paths) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(row.paths) == 5
    assert count_frames(tmp_path / "out/clip_boxes.mp4") == 60


def test_in_and_out_points_classes_and_score(queue, make_job, clip, wait_for, tmp_path):
    queue.add([make_job(clip, "jsonl", start_s=1.0, end_s=1.4, conf=0.2, class_names=("car",))])
    wait_for(lambda: over(queue), 30)
    lines = [json.loads(line) for line in next((tmp_path / "out").glob("*.jsonl")).read_text().splitlines()]
    pictures = [line for line in lines if "detections" in line]
    assert [picture["pts_s"] for picture in pictures] == [round(1 + i / 25, 6) for i in range(10)]
    assert {found["class_name"] for picture in pictures for found in picture["detections"]} == {"car"}


def test_mot_gives_ids(queue, make_job, clip, wait_for, tmp_path):
    queue.add([make_job(clip, "mot", "video")])
    wait_for(lambda: over(queue), 60)
    assert queue.state.rows[0].sentence == ""
    rows = [line.split(",") for line in (next((tmp_path / "out").glob("*.txt"))).read_text().splitlines()]
    assert {row[1] for row in rows} == {"1", "2"}, "person and dog, each with its own id"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"no picture at all", "clip.png"), (None, "no such file")],
)
def test_one_broken_file_is_one_sentence(queue, make_job, wait_for, tmp_path, content, words):
    broken = tmp_path / "clip.png"
    if content is not None:
        broken.write_bytes(content)
    queue.add([make_job(broken), make_job(picture(tmp_path / "good.png"))])
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["failed", "done"]
    sentence = queue.state.rows[0].sentence
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence


def test_a_model_that_cannot_be_loaded_fails_its_rows_alone(queue, make_job, loader, wait_for, tmp_path):
    loader.missing.add("x")
    job = make_job(picture(tmp_path / "a.png"))
    queue.add([replace(job, model=ModelWish("x")), job])
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["failed", "done"]
    assert "no weights" in queue.state.rows[0].sentence


def test_a_fault_of_ours_is_told_and_does_not_end_the_queue(make_queue, make_job, loader, wait_for, tmp_path):
    def load(wish):
        if wish.choice == "m":
            raise ZeroDivisionError("oh")
        return loader(wish)

    queue = make_queue(load=load)
    job = make_job(picture(tmp_path / "a.png"))
    queue.add([replace(job, model=ModelWish("m")), job])
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["failed", "done"]
    assert "ZeroDivisionError" in queue.state.rows[0].sentence


def test_one_model_serves_all_and_is_given_back(queue, make_job, loader, wait_for, tmp_path):
    queue.add([make_job(picture(tmp_path / f"{i}.png")) for i in range(5)])
    wait_for(lambda: over(queue))
    assert len(loader.loaded) == 1
    wait_for(lambda: loader.loaded[0].closed == 1)
    assert loader.loaded[0].frames == 5


@pytest.fixture
def slow(loader):
    """Detectors that take 20 ms a picture, so that something can happen meanwhile."""

    def load(wish):
        detector = loader(wish)
        detector.work_s = 0.02
        return detector

    return load


def test_pause_holds_the_running_one(make_queue, slow, loader, make_job, clip, wait_for):
    queue = make_queue(load=slow)
    queue.add([make_job(clip, "csv"), make_job(clip, "json")])
    wait_for(lambda: queue.state.running and queue.state.running.frames > 2)
    queue.set_paused(True)
    before = -1

    def stands() -> bool:
        nonlocal before
        before, same = loader.loaded[0].frames, loader.loaded[0].frames == before
        time.sleep(0.2)
        return same

    wait_for(stands)
    assert statuses(queue) == ["running", "waiting"]
    queue.set_paused(False)
    wait_for(lambda: over(queue), 30)
    assert statuses(queue) == ["done", "done"]
    assert loader.loaded[0].frames == 120


def test_cancel_keeps_a_partial_file_and_goes_on(make_queue, slow, make_job, clip, wait_for, tmp_path):
    queue = make_queue(load=slow)
    queue.add([make_job(clip, "video"), make_job(picture(tmp_path / "a.png")), make_job(picture(tmp_path / "b.png"))])
    first, _, last = (row.number for row in queue.state.rows)
    wait_for(lambda: queue.state.running and queue.state.running.frames > 2)
    queue.cancel(last)
    queue.cancel(first)
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["cancelled", "done", "cancelled"]
    assert "kept in" in queue.state.rows[0].sentence
    assert 0 < count_frames(tmp_path / "out/clip_boxes.partial.mp4") < 60
    queue.retry(first)
    wait_for(lambda: over(queue), 30)
    assert queue.state.rows[0].status is Status.DONE
    assert count_frames(tmp_path / "out/clip_boxes.mp4") == 60, "it went on where it was cancelled"


def test_remove_ends_the_running_one(make_queue, slow, make_job, clip, wait_for, tmp_path):
    queue = make_queue(load=slow)
    queue.add([make_job(clip, "video"), make_job(picture(tmp_path / "a.png"))])
    wait_for(lambda: queue.state.running and queue.state.running.frames > 2)
    queue.remove(queue.state.rows[0].number)
    wait_for(lambda: over(queue))
    assert [row.job.name for row in queue.state.rows] == ["a.png"]


def test_reorder_retry_and_clear(queue, make_job, tmp_path, wait_for):
    queue.set_paused(True)
    queue.add([make_job(tmp_path / f"{name}.png") for name in "abc"])
    a, b, c = (row.number for row in queue.state.rows)
    queue.move(c, -1)
    queue.move(a, 5)
    queue.move(b, -9)
    queue.move(12345, 1)
    assert [row.number for row in queue.state.rows] == [b, c, a]
    queue.set_paused(False)
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["failed"] * 3
    picture(tmp_path / "a.png")
    queue.retry(a)
    wait_for(lambda: queue.state.rows[2].status is Status.DONE)
    queue.clear_over()
    assert queue.state.rows == ()


def test_changes_are_told(queue, make_job, tmp_path, wait_for):
    told = threading.Event()
    queue.on_change = told.set
    for change in (
        lambda: queue.set_paused(True),
        lambda: queue.add([make_job(tmp_path / "a.png")]),
        lambda: queue.move(queue.state.rows[0].number, 1),
        lambda: queue.cancel(queue.state.rows[0].number),
        lambda: queue.retry(queue.state.rows[0].number),
        lambda: queue.remove(queue.state.rows[0].number),
        lambda: queue.clear_over(),
    ):
        told.clear()
        change()
        assert told.is_set()


# What is kept between two runs


def test_the_next_start_offers_to_go_on(make_queue, slow, make_job, clip, wait_for, tmp_path):
    folder = tmp_path / "state"
    first = make_queue(folder, slow)
    first.add([make_job(clip, "video", "csv"), make_job(picture(tmp_path / "a.png"))])
    wait_for(lambda: first.state.running and first.state.running.frames > 12)
    assert first.close(10)
    (kept,) = folder.glob("*.json")
    assert kept.stat().st_mode & 0o077 == 0, "for its owner's eyes"
    kept.rename(folder / "1.json")  # as another, dead process would have left it
    document = json.loads((folder / "1.json").read_text())
    (folder / "1.json").write_text(json.dumps({**document, "pid": 2**30}))
    second = make_queue(folder)
    wait_for(lambda: second.state.found == 2)
    assert second.state.paused and statuses(second) == ["waiting", "waiting"]
    wait_for(lambda: not (folder / "1.json").exists())
    second.set_paused(False)
    wait_for(lambda: over(second), 60)
    assert statuses(second) == ["done", "done"]
    assert count_frames(tmp_path / "out/clip_boxes.mp4") == 60
    assert not list((tmp_path / "out").glob("*.part*")) and not list((tmp_path / "out").glob("*(2)*"))
    wait_for(lambda: list(folder.iterdir()) == [])


def test_a_dead_window_may_have_had_our_number(make_queue, make_job, wait_for, tmp_path):
    """As in containers, where every window is process 7."""
    folder = tmp_path / "state"
    folder.mkdir()
    row = row_to_json(ExportRow(1, make_job("a.mp4")))
    file = folder / f"{os.getpid()}.json"
    file.write_text(json.dumps({"pid": os.getpid(), "pid_began_s": 1.0, "rows": [row]}))
    queue = make_queue(folder)
    wait_for(lambda: queue.state.found == 1)
    wait_for(lambda: json.loads(file.read_text())["pid_began_s"] != 1.0)
    queue.move(queue.state.rows[0].number, 1)
    assert queue.close(10)
    assert [row["job"]["source"] for row in json.loads(file.read_text())["rows"]] == ["a.mp4"]


def test_the_user_may_also_forget_it(make_queue, make_job, wait_for, tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    row = row_to_json(ExportRow(1, make_job("a.mp4")))
    (folder / "1.json").write_text(json.dumps({"pid": 2**30, "pid_began_s": 1.0, "rows": [row]}))
    queue = make_queue(folder)
    wait_for(lambda: queue.state.found == 1)
    queue.forget_found()
    assert queue.state.rows == () and not queue.state.paused
    wait_for(lambda: list(folder.iterdir()) == [])


def test_the_queue_of_a_living_window_is_left_alone(make_queue, make_job, wait_for, tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        import psutil

        row = row_to_json(ExportRow(1, make_job("a.mp4")))
        living = {"pid": other.pid, "pid_began_s": psutil.Process(other.pid).create_time(), "rows": [row]}
        (folder / f"{other.pid}.json").write_text(json.dumps(living))
        queue = make_queue(folder)
        queue.add([make_job(picture(tmp_path / "a.png"))])
        wait_for(lambda: over(queue))
        assert len(queue.state.rows) == 1 and (folder / f"{other.pid}.json").exists()
        other.communicate()


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"pid": 1073741824}', '{"pid": "x", "rows": []}',
                                  '{"pid": 1073741824, "pid_began_s": 1, "rows": [{"job": {}}]}'])  # fmt: skip
def test_a_broken_file_is_left_out(make_queue, make_job, wait_for, tmp_path, text):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "7.json").write_text(text)
    queue = make_queue(folder)
    queue.add([make_job(picture(tmp_path / "a.png"))])
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["done"] and queue.state.found == 0


def test_a_folder_that_cannot_be_written_costs_only_the_memory(make_queue, make_job, wait_for, tmp_path):
    (tmp_path / "file").write_text("in the way")
    queue = make_queue(tmp_path / "file")
    queue.add([make_job(picture(tmp_path / "a.png"))])
    wait_for(lambda: over(queue))
    assert statuses(queue) == ["done"]


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests/ledetr_app"]
from conftest import FixedDetector
from ledetr_app.export_job import ExportJob
from ledetr_app.export_queue import ExportQueue
from ledetr_app.model_loader import ModelWish

queue = ExportQueue(lambda wish: FixedDetector(work_s=0.02), Path({folder!r}))
job = ExportJob(source={clip!r}, model=ModelWish("n"), outputs=("video", "csv"), folder={out!r})
queue.add([job])
while not (queue.state.running and queue.state.running.frames > 150):
    time.sleep(0.01)
print("now", flush=True)
time.sleep(60)
"""


def test_after_kill_9_it_goes_on(make_queue, make_clip, wait_for, tmp_path):
    clip, folder, out = make_clip(tmp_path / "clip.mp4", frames=400), tmp_path / "state", tmp_path / "out"
    code = KILLED.format(root=str(ROOT), folder=str(folder), clip=str(clip), out=str(out))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "now\n"
        child.kill()
    queue = make_queue(folder)
    wait_for(lambda: queue.state.found == 1)
    queue.set_paused(False)
    wait_for(lambda: over(queue), 60)
    assert statuses(queue) == ["done"], queue.state.rows[0].sentence
    assert count_frames(out / "clip_boxes.mp4") == 400
    assert sorted(path.name for path in out.iterdir()) == ["clip.csv", "clip_boxes.mp4"]


@pytest.mark.parametrize(
    ("files", "broken"), [(40, 4), pytest.param(1000, 10, marks=[pytest.mark.slow, pytest.mark.timeout(700)])]
)
def test_many_files_with_some_broken(make_queue, make_job, wait_for, tmp_path, files, broken):
    bad = set(np.random.default_rng(0).choice(files, broken, replace=False).tolist())
    source = picture(tmp_path / "source.png").read_bytes()
    for number in range(files):
        (tmp_path / f"{number:04}.png").write_bytes(source[:40] if number in bad else source)
    queue = make_queue(tmp_path / "state")
    queue.add([make_job(tmp_path / f"{number:04}.png") for number in range(files)])
    wait_for(lambda: over(queue), 600)
    assert [row.status is Status.FAILED for row in queue.state.rows] == [number in bad for number in range(files)]
    assert queue.state.count(Status.DONE) == files - broken
    for row in queue.state.rows:
        assert bool(row.sentence) == (row.status is Status.FAILED)
        assert row.status is Status.DONE or row.job.name in row.sentence
    assert len(list((tmp_path / "out").glob("*.csv"))) == files - broken


# Values


def test_a_row_survives_its_file(make_job):
    job = make_job("a.mp4", "video", "mot", start_s=1.5, end_s=2.5, conf=0.4, class_names=("dog",), labels=False)
    row = ExportRow(3, replace(job, model=ModelWish("l", "cuda:0", "fp16", 4)), Status.FAILED, sentence="No.")
    assert row_of_json(json.loads(json.dumps(row_to_json(row))), 3) == row
    assert row_of_json(row_to_json(replace(row, status=Status.RUNNING)), 3).status is Status.WAITING


@pytest.mark.parametrize(
    "changes", [{"outputs": ()}, {"outputs": ("gif",)}, {"start_s": -1.0}, {"start_s": 2.0, "end_s": 2.0}]
)
def test_a_job_without_sense_is_refused(make_job, changes):
    with pytest.raises(ValueError):
        replace(make_job("a.mp4"), **changes)


def test_names_hide_passwords(make_job):
    assert "secret" not in make_job("rtsp://me:secret@host/x").name


def test_classes_become_numbers():
    assert class_ids_of(None, ("a", "b")) is None
    assert class_ids_of(("b", "z"), ("a", "b")) == [1]
    with pytest.raises(Exception, match="none of the chosen classes: z"):
        class_ids_of(("z",), ("a", "b"))


def test_where_queues_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert exports_folder() == tmp_path / "ledetr" / "exports" and not exports_folder().exists()
    assert issubclass(SourceError, Exception)
