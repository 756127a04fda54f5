"""Average precision: hand-worked cases, the same figures from another implementation, and a plain bootstrap."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ledetr.coco_file import read_coco
from ledetr.detections import Detections
from ledetr.errors import SourceError
from ledetr.evaluation import (
    CocoRow,
    detect_all,
    match_categories,
    run_coco,
    score,
    weighted_ap,
)
from ledetr.predictions import read_predictions

# Both sides compute in double precision; only the order of sums differs.
SAME = 1e-6


def write_set(folder: Path, boxes: list[tuple[int, int, list[float], int]], pictures: int = 3) -> Path:
    """boxes: (image_id, category_id, bbox, iscrowd). Categories 1 "person" and 5 "dog". Pictures are 100 x 80."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 80} for i in range(1, pictures + 1)],
        "categories": [{"id": 1, "name": "person"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
            for n, (i, c, b, crowd) in enumerate(boxes)
        ],
    }
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return path


def draw(rng: np.random.Generator, count: int) -> tuple[list[tuple[int, int, list[float], int]], list[CocoRow]]:
    """Boxes and imperfect detections of them, crowds and false alarms among them."""
    boxes, rows = [], []
    for _ in range(count):
        image, category = int(rng.integers(1, 7)), int(rng.choice([1, 5]))
        box = [*rng.uniform(0, 50, 2), *rng.uniform(2, 120, 2)]
        boxes.append((image, category, [float(v) for v in box], int(rng.random() < 0.1)))
        for _ in range(int(rng.integers(0, 3))):
            x, y, w, h = (np.array(box) + rng.normal(0, 4, 4)).clip(0.5)
            rows.append(CocoRow(image, category, (float(x), float(y), float(w), float(h)), float(rng.random())))
    return boxes, rows


def test_without_detections_everything_that_has_boxes_is_zero(tmp_path: Path) -> None:
    data = read_coco(write_set(tmp_path, [(1, 1, [0, 0, 10, 10], 0)]))
    scores = score(data, [])
    assert scores.ap == 0
    assert scores.figures["ap_large"] is None  # the only box is small
    assert [(c.name, c.ap, c.boxes) for c in scores.classes] == [("person", 0.0, 1), ("dog", None, 0)]
    assert scores.interval == (0.0, 0.0)


def test_a_set_without_boxes_has_no_figure(tmp_path: Path) -> None:
    scores = score(read_coco(write_set(tmp_path, [])), [CocoRow(1, 1, (0, 0, 5, 5), 0.5)])
    assert set(scores.figures.values()) == {None}
    assert scores.interval is None
    json.dumps(scores.to_json(), allow_nan=False)


def test_hand_worked(tmp_path: Path) -> None:
    """Two boxes, one found exactly, one missed, one false alarm that scores lower: recall reaches 0.5, so
    51 of 101 recall steps have precision 1. The annotation with the id 0 is the one that is found."""
    data = read_coco(write_set(tmp_path, [(1, 1, [10, 10, 20, 20], 0), (2, 1, [10, 10, 20, 20], 0)]))
    rows = [CocoRow(1, 1, (10, 10, 20, 20), 0.9), CocoRow(3, 1, (10, 10, 20, 20), 0.5)]
    scores = score(data, rows, resamples=0)
    assert scores.ap == pytest.approx(51 / 101)
    assert scores.figures["ar100"] == pytest.approx(0.5)


def test_a_box_inside_a_crowd_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    data = read_coco(write_set(tmp_path, [(1, 1, [10, 10, 20, 20], 0), (1, 1, [50, 0, 50, 50], 1)]))
    found = CocoRow(1, 1, (10, 10, 20, 20), 0.5)
    in_crowd = CocoRow(1, 1, (60, 10, 10, 10), 0.9)
    assert score(data, [in_crowd, found], resamples=0).ap == pytest.approx(1.0)


def test_faster_coco_eval_agrees(tmp_path: Path) -> None:
    other = pytest.importorskip("faster_coco_eval")
    for seed in range(5):
        boxes, rows = draw(np.random.default_rng(seed), 60)
        path = write_set(tmp_path, boxes, pictures=6)
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation["id"] += 1
        truth = other.COCO(content)
        found = truth.loadRes(
            [
                {"image_id": r.image_id, "category_id": r.category_id, "bbox": list(r.bbox), "score": r.score}
                for r in rows
            ]
        )
        evaluator = other.COCOeval_faster(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        ours = score(read_coco(path), rows, resamples=0).figures
        theirs = [None if v < 0 else float(v) for v in evaluator.stats[:12]]
        assert list(ours.values()) == pytest.approx(theirs, abs=SAME), f"{seed = }"


def test_on_real_boxes_both_implementations_agree() -> None:
    """Boxes of 240 pictures, moved a little, some lost, some invented; crowds and every class among them."""
    other = pytest.importorskip("faster_coco_eval")
    path = Path(__file__).parents[2] / "../shared/data/coco_val_dev.json"
    if not path.exists():
        pytest.skip("no ../shared/data/coco_val_dev.json beside the repository")
    data, rng = read_coco(path), np.random.default_rng(0)
    rows = [
        CocoRow(t.image_id, int(rng.choice([t.category_id, 1], p=[0.8, 0.2])), moved(t.bbox, rng), float(rng.random()))
        for t in data.truths
        if rng.random() < 0.7
    ]
    truth = other.COCO(str(path))
    evaluator = other.COCOeval_faster(
        truth, truth.loadRes([{**asdict(row), "bbox": list(row.bbox)} for row in rows]), "bbox"
    )
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    ours = score(data, rows, resamples=100)
    assert list(ours.figures.values()) == pytest.approx([float(v) for v in evaluator.stats[:12]], abs=SAME)
    assert ours.interval is not None and ours.ap is not None
    assert ours.interval[0] < ours.ap < ours.interval[1]
    assert len(ours.classes) == 80 and ours.pictures == 240


def moved(bbox: tuple[float, ...], rng: np.random.Generator) -> tuple[float, float, float, float]:
    x, y, w, h = bbox
    dx, dy, dw, dh = rng.normal(0, 0.08, 4) * [w, h, w, h]
    return (x + dx, y + dy, max(1.0, w + dw), max(1.0, h + dh))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_weights_of_one_give_the_ap_of_pycocotools(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    boxes, rows = draw(np.random.default_rng(seed), 40)
    data = read_coco(write_set(tmp_path_factory.mktemp("set"), boxes, pictures=6))
    evaluator = run_coco(data, rows)
    expected = evaluator.stats[0]
    (ours,) = weighted_ap(evaluator, np.ones((1, 6)))
    assert ours == pytest.approx(expected, abs=SAME)


def test_weights_equal_a_set_in_which_pictures_really_are_repeated(tmp_path: Path) -> None:
    boxes, rows = draw(np.random.default_rng(3), 50)
    evaluator = run_coco(read_coco(write_set(tmp_path, boxes, pictures=6)), rows)
    rng = np.random.default_rng(0)
    for _ in range(8):
        drawn = rng.integers(1, 7, size=6)
        repeated = [(n, c, b, crowd) for n, i in enumerate(drawn, 1) for j, c, b, crowd in boxes if j == i]
        copies = [
            CocoRow(n, r.category_id, r.bbox, r.score) for n, i in enumerate(drawn, 1) for r in rows if r.image_id == i
        ]
        real = score(read_coco(write_set(tmp_path, repeated, pictures=6)), copies, resamples=0).ap
        (ours,) = weighted_ap(evaluator, np.bincount(drawn, minlength=7)[None, 1:].astype(float))
        # Equal scores of copies may be counted in another order.
        assert ours == pytest.approx(real, abs=0.02)


def test_interval_holds_the_figure_and_narrows_with_pictures(tmp_path: Path) -> None:
    boxes, rows = draw(np.random.default_rng(1), 60)
    scores = score(read_coco(write_set(tmp_path, boxes, pictures=6)), rows)
    assert scores.interval is not None and scores.ap is not None
    assert scores.interval[0] <= scores.ap <= scores.interval[1]
    assert score(read_coco(tmp_path / "set.json"), rows).interval == scores.interval, "the draw has a fixed seed"


class FixedDetector:
    """Finds a dog (class 1) in every picture and a cat (class 0), which the data set does not know."""

    class_names = ("cat", "Dog")
    category_ids = (17, 18)

    def detect_frame(self, rgb: np.ndarray, **limits: Any) -> tuple[Detections, None]:
        assert limits["score_floor"] == 0.0
        assert rgb.shape == (80, 100, 3)
        found = Detections(
            xyxy=np.array([[10, 10, 30, 30], [0, 0, 5, 5]], np.float32),
            confidence=np.array([0.9, 0.8], np.float32),
            class_id=np.array([1, 0]),
        )
        return found, None


def test_classes_are_matched_by_name_and_strange_ones_left_out(tmp_path: Path) -> None:
    path = write_set(tmp_path, [(1, 5, [10, 10, 20, 20], 0)], pictures=1)
    (tmp_path / "set").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "set/1.png")
    rows = detect_all(FixedDetector(), read_coco(path))
    assert [(r.image_id, r.category_id, r.bbox) for r in rows] == [(1, 5, (10, 10, 20, 20))]


def test_classes_are_matched_by_id_where_no_name_is_known(tmp_path: Path) -> None:
    class Numbered(FixedDetector):
        class_names = ("chat", "chien")
        category_ids = (4, 5)

    categories = read_coco(write_set(tmp_path, [])).categories
    assert match_categories(Numbered(), categories).tolist() == [-1, 5]

    class Strange(Numbered):
        category_ids = (7, 8)

    with pytest.raises(SourceError, match=r"classes \(person, dog\) are none of the model's \(chat, chien\)"):
        match_categories(Strange(), categories)


@pytest.mark.parametrize("name", ["../1.png", "/etc/passwd", "a/../../1.png", "C:\\1.png", "..\\1.png", "", "a\0b"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": name}], "categories": [], "annotations": []}))
    with pytest.raises(SourceError, match="which is not inside"):
        read_coco(path)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = write_set(tmp_path, [], pictures=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "set/1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(SourceError, match="which is not inside"):
        read_coco(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("[]", "top level is no table"),
        ("[" * 100_000, "not valid JSON"),
        ('{"images": 5}', "'images' is no list"),
        ('{"images": [{"id": "a", "file_name": "x"}]}', "the id 'a', expected a whole number"),
        ('{"images": [{"id": 1}]}', "has no file_name"),
        ('{"images": [{"id": 1, "file_name": "x"}, {"id": 1, "file_name": "y"}], "categories": []}', "id 1 twice"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 2, "bbox": []}]}',
            "one is not there",
        ),
    ],
)
def test_damaged_data_sets_are_explained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=words):
        read_coco(path)


def test_missing_file_and_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no file .*absent\.json"):
        read_coco(tmp_path / "absent.json")
    with pytest.raises(SourceError, match="is --images the right folder"):
        detect_all(FixedDetector(), read_coco(write_set(tmp_path, [])))


def test_predictions_are_checked(tmp_path: Path) -> None:
    data = read_coco(write_set(tmp_path, [(1, 1, [10, 10, 20, 20], 0)]))
    path = tmp_path / "found.json"

    def write(content: Any) -> Path:
        path.write_text(json.dumps(content))
        return path

    good = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.5}
    assert score(data, read_predictions(write([good]), data), resamples=0).ap == pytest.approx(1.0)
    assert read_predictions(write([]), data) == []
    for bad, words in [
        ({}, "no labels file"),
        ([{**good, "bbox": [1, 2, 3]}], "entry 0 has no bbox"),
        ([{**good, "score": "high"}], "the score 'high'"),
        ([{**good, "category_id": 2}], "the category 2, unknown"),
        ([{**good, "image_id": 77}], "made for another data set"),
    ]:
        with pytest.raises(SourceError, match=words):
            read_predictions(write(bad), data)
