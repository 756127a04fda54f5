"""The default threshold: hand-made cases, and every threshold tried one by one."""

from pathlib import Path

import numpy as np
import pytest

from ledetr.coco_file import Category, CocoSet, Picture, Truth
from ledetr.evaluation import CocoRow, run_coco
from ledetr.matching import matching_of
from training.release import Operating, best_f1, only_pictures


def truth(image: int, category: int, *bbox: float, crowd: bool = False) -> Truth:
    return Truth(image, category, bbox, bbox[2] * bbox[3], crowd)  # type: ignore[arg-type]


def data(*truths: Truth, pictures: int = 2) -> CocoSet:
    return CocoSet(
        Path("x.json"),
        tuple(Picture(i, Path(f"{i:03d}.jpg")) for i in range(1, pictures + 1)),
        (Category(1, "a"), Category(2, "b")),
        truths,
    )


def f1_of(objects: CocoSet, rows: list[CocoRow]) -> Operating:
    return best_f1(matching_of(objects, rows, run_coco(objects, rows)))


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
    point = f1_of(objects, rows)
    assert (point.threshold, point.f1) == (0.7, pytest.approx(2 / 3))
    assert (point.precision, point.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_detections_on_crowds_do_not_count() -> None:
    crowded = data(truth(1, 1, 0, 0, 10, 10), truth(1, 1, 50, 50, 20, 20, crowd=True))
    rows = [CocoRow(1, 1, (50, 50, 20, 20), 0.9), CocoRow(1, 1, (0, 0, 10, 10), 0.4)]
    point = f1_of(crowded, rows)
    assert (point.threshold, point.precision, point.recall) == (0.4, 1.0, 1.0)


def test_nothing_found_gives_the_middle() -> None:
    assert f1_of(data(truth(1, 1, 0, 0, 5, 5)), []).threshold == 0.5


def test_equal_scores_are_taken_together_or_not_at_all() -> None:
    """A hit and two misses with one score: the threshold cannot let only the hit through."""
    rows = [CocoRow(1, 1, (0, 0, 10, 10), 0.9), CocoRow(2, 1, (0, 0, 10, 10), 0.9), CocoRow(2, 1, (20, 0, 9, 9), 0.9)]
    point = f1_of(data(truth(1, 1, 0, 0, 10, 10)), rows)
    assert (point.threshold, point.precision, point.recall) == (0.9, pytest.approx(1 / 3), 1.0)


def test_against_every_threshold_tried() -> None:
    """By brute force: at each score, greedy matching by falling score, within picture and class."""
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
    point = f1_of(data(*truths, pictures=8), rows)
    best = max((slow_f1(truths, rows, threshold), threshold) for threshold in {row.score for row in rows})
    assert (point.f1, point.threshold) == (pytest.approx(best[0]), best[1])


def slow_f1(truths: list[Truth], rows: list[CocoRow], threshold: float) -> float:
    shown = sorted((row for row in rows if row.score >= threshold), key=lambda row: -row.score)
    free, hits = set(range(len(truths))), 0
    for row in shown:
        same = [i for i in free if (truths[i].image_id, truths[i].category_id) == (row.image_id, row.category_id)]
        overlap = {i: iou(truths[i].bbox, row.bbox) for i in same}
        best = max(overlap, key=overlap.__getitem__, default=None)
        if best is not None and overlap[best] >= 0.5:
            free.discard(best)
            hits += 1
    return 2 * hits / (len(shown) + len(truths))


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_only_pictures_keeps_their_boxes() -> None:
    part = only_pictures(data(truth(1, 1, 0, 0, 5, 5), truth(2, 1, 0, 0, 5, 5)), {"002"})
    assert [p.image_id for p in part.pictures] == [2] and [t.image_id for t in part.truths] == [2]
