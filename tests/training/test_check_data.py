"""The report on a data set: each fault is found and named, and what can be mended is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledetr.cli.main import main as ledetr
from training.check_data import check, cleaned, contact_sheet, write_coco
from training.data.read import read_dataset
from training.data.shapes import write_shapes


def faulty(folder: Path) -> Path:
    """Three pictures of 40 x 30, the third cut off in the middle, and one box for each fault."""
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(folder / f"{name}.jpg")
    whole = (folder / "a.jpg").read_bytes()
    (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "same.jpg").write_bytes(whole)
    boxes = [
        [1, 1, 10, 10],
        [1, 1, 10, 10],
        [20, 20, -5, 4],
        [3, 3, 0, 4],
        [50, 3, 4, 4],
        [30, 20, 20, 8],
        [5, 5, 1, 9],
    ]
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate(("a", "b", "c", "same"))],
        "categories": [{"id": 0, "name": "background"}, {"id": 5, "name": "car"}],
        "annotations": [{"image_id": 0, "category_id": 5, "bbox": box} for box in boxes],
    }
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return path


def test_each_fault_is_found_and_named(tmp_path: Path) -> None:
    report = check(read_dataset(faulty(tmp_path)))
    found = {(p.kind, p.level): p.text.replace(str(tmp_path), ".") for p in report.problems}
    assert found["same box twice", "warning"] == (
        "'./set.json' row 2: the box (1, 1, 11, 11) in 'a.jpg' stands there twice with the same class"
    )
    assert found["inverted box", "error"] == (
        "'./set.json' row 3: the box (20, 20, 15, 24) in 'a.jpg' ends before it starts"
    )
    assert found["empty box", "warning"].endswith("has no area and is left out")
    assert found["box outside", "error"].endswith("lies outside; the picture has 40 x 30 pixels")
    assert "sticks out by 10 px" in found["box sticks out", "warning"]
    assert found["tiny box", "warning"].endswith("has a side below 2 px")
    assert found["unused class", "warning"] == "'./set.json': the class 'background' (id 0) has no box"
    assert ("background class", "warning") in found
    assert found["same picture twice", "warning"] == "'./same.jpg' is the same file as './a.jpg'"
    assert "'./c.jpg'" in found["unreadable picture", "error"] and "damaged" in found["unreadable picture", "error"]
    assert ("no objects", "note") in found
    assert report.pictures == 4 and report.pictures_without_objects == 3 and len(report.errors) == 3


def test_many_objects_are_held_against_the_queries(tmp_path: Path) -> None:
    report = check(read_dataset(write_shapes(tmp_path, "coco", 8)), queries=1, deep=False)
    assert any(p.kind == "many objects" and "queries (1)" in p.text for p in report.problems)
    assert report.objects_per_picture[2] <= 4


def test_counts_and_sizes_by_hand(tmp_path: Path) -> None:
    data = read_dataset(write_shapes(tmp_path, "coco", 8))
    report = check(data, input_px=96, deep=False)
    assert sum(c.boxes for c in report.classes) == report.boxes == sum(len(p.labels) for p in data.pictures)
    assert sum(report.sizes_px.values()) == report.boxes and report.sizes_px["0-2"] == 0


def test_train_and_val_may_not_share_files(tmp_path: Path) -> None:
    train, val = (read_dataset(write_shapes(tmp_path / name, "coco", 2)) for name in "ab")
    shared = [p for p in check(train, val=val).problems if p.kind == "in train and val"]
    assert len(shared) == 2 and "of the validation set is also in training" in shared[0].text


def test_fix_clips_and_drops_and_says_so(tmp_path: Path) -> None:
    data = read_dataset(faulty(tmp_path))
    mended, log = cleaned(data)
    assert mended.pictures[0].boxes_xyxy.tolist() == [[1, 1, 11, 11], [30, 20, 40, 28], [5, 5, 6, 14]]
    assert len(log) == 5 and any(line.endswith("row 6: box sticks out, clipped") for line in log)
    write_coco(mended, tmp_path / "mended.json")
    again = check(read_dataset(tmp_path / "mended.json"), deep=False)
    assert {p.kind for p in again.problems} == {"unused class", "background class", "tiny box", "no objects"}


def test_contact_sheet_shows_the_boxes(tmp_path: Path) -> None:
    sheet = contact_sheet(read_dataset(write_shapes(tmp_path, "coco", 9)))
    assert sheet.shape == (320, 1280, 3) and sheet.dtype == np.uint8
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("form", ["coco", "yolo", "voc", "csv"])
def test_the_command_on_each_format(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_shapes(tmp_path / "set", form, 4)
    assert ledetr(["check-data", str(path), "--json", "--sheet", str(tmp_path / "sheet.png")]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["pictures"] == 4 and document["errors"] == 0 and document["schema_version"] == 1
    assert Image.open(tmp_path / "sheet.png").size == (640, 160)


def test_the_command_stops_where_training_would(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "training.check_data", str(faulty(tmp_path))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert done.stderr.endswith("has 3 errors that training would stop at\n") and done.stderr.count("\n") == 1
    assert "error: inverted box (1)" in done.stdout
    missing = subprocess.run([*words[:-1], "nowhere"], capture_output=True, text=True, timeout=60)
    assert missing.returncode == 3 and missing.stderr == "ledetr: there is no data set 'nowhere'\n"
