"""Weighted box fusion against a slow loop that follows its definition, and against cases worked by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from ledetr.detections import Detections
from training.fusion import fuse

Box = tuple[float, float, float, float]
Found = tuple[Box, float, int]


def found(*rows: Found) -> Detections:
    return Detections(
        xyxy=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row[1] for row in rows], np.float32),
        class_id=np.array([row[2] for row in rows], np.int64),
        class_names=("a", "b", "c"),
        category_ids=(3, 5, 9),
    )


def slow_fuse(
    passes: Sequence[Detections], *, known: Sequence[int], score_floor: float, overlap: float, max_boxes: int
) -> list[Found]:
    """One box after the other, plain numbers."""
    rows = [
        (float(score), number, [float(v) for v in box], label)
        for number, one in enumerate(passes)
        for box, score, label in one
        if score >= score_floor
    ]
    rows.sort(key=lambda row: -row[0])
    groups: list[list[tuple[float, int, list[float], int]]] = []
    for row in rows:
        best, nearest = overlap, None
        for group in groups:
            if group[0][3] == row[3] and all(member[1] != row[1] for member in group):
                closeness = slow_iou(slow_mean(group), row[2])
                if closeness > best:
                    best, nearest = closeness, group
        if nearest is None:
            groups.append([row])
        else:
            nearest.append(row)
    fused = [(slow_mean(g), sum(member[0] for member in g) / known[g[0][3]], g[0][3]) for g in groups]
    fused.sort(key=lambda row: -row[1])
    return [((x0, y0, x1, y1), score, label) for (x0, y0, x1, y1), score, label in fused[:max_boxes]]


def slow_mean(group: Sequence[tuple[float, int, list[float], int]]) -> list[float]:
    weight = sum(member[0] for member in group)
    return [sum(member[0] * member[2][i] for member in group) / weight for i in range(4)]


def slow_iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def crowd_of_boxes(rng: np.random.Generator, passes: int, boxes: int, classes: int) -> list[Detections]:
    """Passes that see the same few objects, each with its own error, so that groups compete for boxes."""
    places = rng.uniform(0, 60, (6, 2))
    result = []
    for _ in range(passes):
        count = int(rng.integers(0, boxes + 1))
        low = places[rng.integers(0, len(places), count)] + rng.normal(0, 2, (count, 2))
        high = low + rng.uniform(12, 20, (count, 2))
        result.append(
            Detections(
                xyxy=np.concatenate([low, high], axis=1).astype(np.float32),
                confidence=rng.uniform(0, 1, count).astype(np.float32),
                class_id=rng.integers(0, classes, count),
            )
        )
    return result


@pytest.mark.parametrize("seed", range(40))
def test_as_the_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    passes = crowd_of_boxes(rng, passes=int(rng.integers(1, 7)), boxes=int(rng.integers(0, 40)), classes=3)
    known = rng.integers(1, 7, 3)
    options = {"score_floor": 0.05, "overlap": float(rng.choice([0.4, 0.6])), "max_boxes": int(rng.choice([5, 100]))}
    fast = fuse(passes, class_passes=known, **options)  # type: ignore[arg-type]
    slow = slow_fuse(passes, known=known.tolist(), **options)  # type: ignore[arg-type]
    assert len(fast) == len(slow)
    assert fast.class_id.tolist() == [label for _, _, label in slow]
    # float32 results of sums in float64
    assert fast.confidence == pytest.approx([score for _, score, _ in slow], abs=1e-6)
    assert fast.xyxy == pytest.approx(np.array([box for box, _, _ in slow]).reshape(-1, 4), abs=1e-4)


def test_two_passes_by_hand() -> None:
    one = found(((0, 0, 10, 10), 0.75, 0), ((50, 50, 60, 60), 0.4, 1))
    two = found(((2, 0, 12, 10), 0.25, 0))
    fused = fuse([one, two])
    # IoU of the first two is 80 / 120; the mean leans three to one, and each score is a half of its sum
    assert fused.xyxy.tolist() == [[0.5, 0, 10.5, 10], [50, 50, 60, 60]]
    assert fused.confidence == pytest.approx([0.5, 0.2])
    assert fused.class_id.tolist() == [0, 1]
    assert fused.class_names == ("a", "b", "c") and fused.category_ids == (3, 5, 9)
    assert fused.xyxy.dtype == np.float32 and fused.class_id.dtype == np.int64


def test_classes_do_not_meet() -> None:
    fused = fuse([found(((0, 0, 10, 10), 0.8, 0)), found(((0, 0, 10, 10), 0.6, 1))])
    assert fused.confidence == pytest.approx([0.4, 0.3]) and fused.class_id.tolist() == [0, 1]


def test_one_box_of_each_pass_in_a_group() -> None:
    """A pass that sees two people who stand close keeps two, however close they are."""
    twice = found(((0, 0, 10, 10), 0.8, 0), ((1, 0, 11, 10), 0.6, 0))
    assert len(fuse([twice])) == 2
    fused = fuse([twice, found(((1, 0, 11, 10), 0.7, 0))])
    # the other pass's box joins the first group, which is the best when its turn comes; the third founds its own
    assert len(fused) == 2 and fused.confidence == pytest.approx([0.75, 0.3])


def test_the_group_moves_as_it_grows() -> None:
    """The third box overlaps the mean of the first two enough, but not the first alone."""
    chain = [found(((left, 0, left + 10, 10), score, 0)) for left, score in ((0, 0.5), (2, 0.49), (3, 0.48))]
    assert slow_iou((0, 0, 10, 10), (3, 0, 13, 10)) < 0.6 < slow_iou((0.99, 0, 10.99, 10), (3, 0, 13, 10))
    assert len(fuse(chain)) == 1


def test_an_overlap_of_just_the_threshold_is_not_enough() -> None:
    halves = [found(((0, 0, 8, 10), 0.5, 0)), found(((0, 0, 4, 10), 0.5, 0))]
    assert len(fuse(halves, overlap=0.5)) == 2
    assert len(fuse(halves, overlap=0.49)) == 1


def test_scores_below_the_floor_have_no_say() -> None:
    fused = fuse([found(((0, 0, 10, 10), 0.5, 0)), found(((2, 0, 12, 10), 0.009, 0), ((0, 0, 5, 5), 0.001, 1))])
    assert fused.xyxy.tolist() == [[0, 0, 10, 10]] and fused.confidence == pytest.approx([0.25])


def test_a_class_that_only_some_know_counts_those() -> None:
    fused = fuse([found(((0, 0, 9, 9), 0.6, 2)), found()], class_passes=np.array([2, 2, 1]))
    assert fused.confidence == pytest.approx([0.6])


def test_empty_and_none() -> None:
    assert len(fuse([found(), found()])) == 0
    with pytest.raises(ValueError, match="at least one pass"):
        fuse([])


def test_boxes_without_area_stay_alone() -> None:
    fused = fuse([found(((5, 5, 5, 5), 0.5, 0)), found(((5, 5, 5, 5), 0.4, 0))])
    assert len(fused) == 2 and np.isfinite(fused.xyxy).all()


def test_the_order_of_the_passes_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    passes = crowd_of_boxes(rng, passes=4, boxes=30, classes=2)
    there, back = fuse(passes), fuse(passes[::-1])
    assert there.confidence == pytest.approx(back.confidence, abs=1e-6)
    assert there.xyxy == pytest.approx(back.xyxy, abs=1e-4)


def test_the_best_are_kept() -> None:
    boxes = found(*(((20.0 * i, 0, 20 * i + 10, 10), 0.1 + 0.1 * i, 0) for i in range(8)))
    assert fuse([boxes], max_boxes=3).confidence == pytest.approx([0.8, 0.7, 0.6])
