"""Detections beside annotations: cases by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ledetr.detections import Detections
from ledetr.errors import SourceError
from ledetr_app.verdict import Annotations, check_upright

CLASSES = ("person", "dog", "spoon")


def write_coco(path: Path, boxes: dict[str, list[tuple]], categories=("person", "dog")) -> Path:
    """boxes: by file name, (category, left, top, width, height[, iscrowd])."""
    images = [{"id": 10 + number, "file_name": name} for number, name in enumerate(boxes)]
    annotations = []
    for number, rows in enumerate(boxes.values()):
        for name, left, top, width, height, *crowd in rows:
            annotations.append({
                "id": len(annotations), "image_id": 10 + number, "category_id": 1 + categories.index(name),
                "bbox": [left, top, width, height], "area": width * height, "iscrowd": int(bool(crowd)),
            })  # fmt: skip
    rows = [{"id": 1 + number, "name": name} for number, name in enumerate(categories)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": rows}))
    return path


def found(*rows: tuple) -> Detections:
    """(class, score, x0, y0, x1, y1)."""
    return Detections(
        np.array([row[2:] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([CLASSES.index(row[0]) for row in rows], np.int64),
        class_names=CLASSES,
    )


@pytest.fixture
def annotations(tmp_path):
    return Annotations(
        write_coco(
            tmp_path / "truth.json",
            {
                "a.jpg": [("person", 10, 10, 40, 80), ("dog", 100, 50, 60, 40)],
                "b.jpg": [],
                "c.jpg": [("person", 0, 0, 200, 200, True), ("person", 210, 0, 20, 20)],
            },
        )
    )


def judge(annotations, name, detections):
    return annotations.judge(annotations.picture_of(Path(name)), detections)


def test_found_missed_and_made_up(annotations):
    verdict = judge(
        annotations,
        "a.jpg",
        found(("person", 0.9, 12, 10, 50, 88), ("person", 0.8, 12, 12, 50, 90), ("dog", 0.4, 0, 0, 20, 20)),
    )
    assert verdict.hit.tolist() == [True, False, False], "a box is found once, and the dog is elsewhere"
    assert verdict.truth_names == ("person", "dog")
    assert verdict.truth_xyxy.tolist() == [[10, 10, 50, 90], [100, 50, 160, 90]]
    assert verdict.found(0.5).tolist() == [True, False]
    assert verdict.found(0.95).tolist() == [False, False], "at a higher threshold nobody found it"


def test_a_class_that_nobody_annotated_is_not_judged(annotations):
    verdict = judge(annotations, "a.jpg", found(("spoon", 0.9, 10, 10, 50, 90), ("dog", 0.8, 100, 50, 160, 90)))
    assert verdict.known.tolist() == [False, True]
    assert verdict.hit.tolist() == [False, True]


def test_a_crowd_is_neither_asked_for_nor_held_against_anyone(annotations):
    verdict = judge(annotations, "c.jpg", found(("person", 0.9, 10, 10, 50, 50), ("person", 0.8, 210, 0, 230, 20)))
    assert verdict.known.tolist() == [False, True]
    assert verdict.truth_names == ("person",) and verdict.found(0.5).tolist() == [True]


def test_nothing_found_and_nothing_there(annotations):
    verdict = judge(annotations, "a.jpg", found())
    assert verdict.hit.shape == (0,) and verdict.found(0.0).tolist() == [False, False]
    verdict = judge(annotations, "b.jpg", found(("dog", 0.9, 0, 0, 9, 9)))
    assert verdict.hit.tolist() == [False] and verdict.truth_names == ()
    assert judge(annotations, "b.jpg", found()).known.shape == (0,)


def test_pictures_are_found_by_name_and_folder(tmp_path):
    annotations = Annotations(write_coco(tmp_path / "truth.json", {"x/1.jpg": [], "y/1.jpg": [], "2.jpg": []}))
    assert annotations.picture_of(Path("/data/y/1.jpg")).image_id == 11
    assert annotations.picture_of(Path("/data/x/1.jpg")).image_id == 10
    assert annotations.picture_of(Path("/elsewhere/2.jpg")).image_id == 12
    assert annotations.picture_of(Path("3.jpg")) is None


def test_frames_of_a_video_are_found_by_number(annotations):
    assert annotations.picture_at(2, 3).image_id == 12
    assert annotations.picture_at(2, 60) is None, "another number of pictures: nobody knows which is which"
    assert annotations.picture_at(0, None) is None


def test_what_is_no_coco_file_is_a_sentence(tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(SourceError, match="not a COCO data set"):
        Annotations(tmp_path / "list.json")


@pytest.mark.parametrize(("turn", "fits"), [(None, True), (1, True), (6, False), (2, False)])
def test_turned_pictures_are_refused(tmp_path, turn, fits):
    image, exif = Image.new("RGB", (20, 10)), Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    image.save(tmp_path / "a.jpg", exif=exif)
    if fits:
        check_upright(tmp_path / "a.jpg")
    else:
        with pytest.raises(SourceError, match="stored turned"):
            check_upright(tmp_path / "a.jpg")
