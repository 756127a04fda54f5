"""The default threshold: a hand-made case, and pycocotools as the judge of the matching."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ledetr.coco_file import Category, CocoSet, Picture, Truth
from ledetr.evaluation import CocoRow
from training.release import best_f1, only_pictures


def truth(image: int, category: int, *bbox: float, crowd: bool = False) -> Truth:
    return Truth(image, category, bbox, bbox[2] * bbox[3], crowd)  # type: ignore[arg-type]


def data(*truths: Truth, pictures: int = 2) -> CocoSet:
    return CocoSet(
        Path("x.json"),
        tuple(Picture(i, Path(f"{i:03d}.jpg")) for i in range(1, pictures + 1)),
        (Category(1, "a"), Category(2, "b")),
        truths,
    )


def test_threshold_by_hand() -> None:
    """Three objects. Falling scores: hit, miss, hit, miss, miss. F1: 2/4, 2/5, 4/6, 4/7, 4/8; the third is best."""
    objects = data(truth(1, 1, 0, 0, 10, 10), truth(1, 2, 20, 20, 10, 10), truth(2, 1, 0, 0, 10, 10))
    rows = [
        CocoRow(1, 1, (0, 0, 10, 10), 0.9),
        CocoRow(1, 1, (0, 0, 10, 10), 0.8),  # the object is taken
        CocoRow(1, 2, (21, 20, 10, 10), 0.7),
        CocoRow(2, 2, (0, 0, 10, 10), 0.6),  # another class
        CocoRow(2, 1, (6, 6, 10, 10), 0.5),  # too far off
    ]
    point = best_f1(objects, rows)
    assert (point.threshold, point.f1) == (0.7, pytest.approx(2 / 3))
    assert (point.precision, point.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_detections_on_crowds_do_not_count() -> None:
    crowded = data(truth(1, 1, 0, 0, 10, 10), truth(1, 1, 50, 50, 20, 20, crowd=True))
    rows = [CocoRow(1, 1, (50, 50, 20, 20), 0.9), CocoRow(1, 1, (0, 0, 10, 10), 0.4)]
    point = best_f1(crowded, rows)
    assert (point.threshold, point.precision, point.recall) == (0.4, 1.0, 1.0)


def test_nothing_found_gives_the_middle() -> None:
    assert best_f1(data(truth(1, 1, 0, 0, 5, 5)), []).threshold == 0.5


def test_recall_agrees_with_pycocotools() -> None:
    """At the lowest threshold, hits over objects is COCO's largest recall at IoU 0.5, per class and picture."""
    rng = np.random.default_rng(0)
    truths, rows = [], []
    for image in range(1, 9):
        for _ in range(rng.integers(0, 6)):
            box = (*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2))
            category = int(rng.integers(1, 3))
            truths.append(truth(image, category, *box))
            for _ in range(rng.integers(0, 3)):
                moved = tuple(float(v + rng.normal(0, 3)) for v in box)
                rows.append(CocoRow(image, category, moved, float(rng.random())))  # type: ignore[arg-type]
    objects = data(*truths, pictures=8)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": p.image_id} for p in objects.pictures],
            "categories": [{"id": 1}, {"id": 2}],
            "annotations": [
                {"id": i + 1, "image_id": t.image_id, "category_id": t.category_id, "bbox": list(t.bbox),
                 "area": t.area, "iscrowd": 0}
                for i, t in enumerate(truths)
            ],
        }  # fmt: skip
        coco.createIndex()
        found = coco.loadRes(
            [
                {"image_id": r.image_id, "category_id": r.category_id, "bbox": list(r.bbox), "score": r.score}
                for r in rows
            ]
        )
        judge = COCOeval(coco, found, "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.evaluate()
    hits = sum(int((e["dtMatches"][0] > 0).sum()) for e in judge.evalImgs if e and e["aRng"] == [0, 1e10])
    lowest = min(r.score for r in rows)
    # With every row counted, recall = hits / objects; find it by making the last row decide.
    assert lowest > 0
    from training.release import _matches

    _, ours, _ = _matches(objects, rows)
    assert int(ours.sum()) == hits


def test_only_pictures_keeps_their_boxes() -> None:
    part = only_pictures(data(truth(1, 1, 0, 0, 5, 5), truth(2, 1, 0, 0, 5, 5)), {"002"})
    assert [p.image_id for p in part.pictures] == [2] and [t.image_id for t in part.truths] == [2]
