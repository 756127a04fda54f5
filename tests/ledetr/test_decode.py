"""Raw outputs to detections, against a naive loop over every query and class."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledetr.backends.base import RawOutputs
from ledetr.decode import decode
from ledetr.detections import Detections
from ledetr.preprocess import Placement

PLACEMENT = Placement(source_hw=(100, 200), input_hw=(64, 64))
# Scores are float32 sigmoids.
SCORE_ROUNDING = 1e-6


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def raw(logits: list[list[float]], boxes: list[list[float]]) -> RawOutputs:
    return RawOutputs(np.array(logits, np.float32), np.array(boxes, np.float32).reshape(-1, 4))


def naive(outputs: RawOutputs, floor: float, limit: int) -> list[tuple[list[float], float, int]]:
    """Every (query, class) pair, one after the other."""
    height, width = PLACEMENT.source_hw
    pairs = []
    for q, (cx, cy, w, h) in enumerate(outputs.boxes_cxcywh.tolist()):
        for c, x in enumerate(outputs.logits[q].tolist()):
            score = 1 / (1 + math.exp(-x))
            if score >= floor:
                box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
                box = [min(max(v, 0), m) for v, m in zip(box, [width, height] * 2, strict=True)]
                pairs.append((box, score, c))
    return sorted(pairs, key=lambda p: -p[1])[:limit]


def test_nothing_above_the_floor() -> None:
    found = decode(raw([[-9, -9]], [[0.5, 0.5, 1, 1]]), PLACEMENT, score_floor=0.5, class_names=("a", "b"))
    assert len(found) == 0 and found.xyxy.shape == (0, 4) and found.class_names == ("a", "b")
    empty = RawOutputs(np.zeros((0, 2), np.float32), np.zeros((0, 4), np.float32))
    assert len(decode(empty, PLACEMENT, score_floor=0.0)) == 0


def test_by_hand() -> None:
    """The first query is clearly class 1 and perhaps class 0; the second is nothing."""
    outputs = raw([[logit(0.6), logit(0.9)], [-8, -8]], [[0.5, 0.5, 0.5, 0.2], [0.1, 0.1, 0.1, 0.1]])
    found = decode(outputs, PLACEMENT, score_floor=0.5, category_ids=(3, 7), model_id="n")
    assert found.class_id.tolist() == [1, 0]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.6])
    assert found.xyxy.tolist() == pytest.approx(np.array([[50, 40, 150, 60]] * 2))
    assert (found.model_id, found.category_ids, found.score_floor) == ("n", (3, 7), 0.5)
    assert (found.xyxy.dtype, found.confidence.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int64)


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 12),
    classes=st.integers(1, 5),
    floor=st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]),
    limit=st.integers(1, 20),
)
def test_equals_the_naive_loop(seed: int, queries: int, classes: int, floor: float, limit: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = RawOutputs(
        rng.normal(0, 3, (queries, classes)).astype(np.float32),
        rng.uniform(-0.1, 1.1, (queries, 4)).astype(np.float32),
    )
    found = decode(outputs, PLACEMENT, score_floor=floor, max_detections=limit)
    expected = naive(outputs, floor, limit)
    assert found.class_id.tolist() == [c for _, _, c in expected]
    np.testing.assert_allclose(found.confidence, [s for _, s, _ in expected], atol=SCORE_ROUNDING)
    np.testing.assert_allclose(found.xyxy, np.array([b for b, _, _ in expected]).reshape(-1, 4), atol=1e-3)


def test_the_order_of_queries_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    logits, boxes = rng.normal(0, 2, (30, 4)).astype(np.float32), rng.random((30, 4), np.float32)
    order = rng.permutation(30)
    one = decode(RawOutputs(logits, boxes), PLACEMENT, score_floor=0.1)
    other = decode(RawOutputs(logits[order], boxes[order]), PLACEMENT, score_floor=0.1)
    assert np.array_equal(one.xyxy, other.xyxy) and np.array_equal(one.class_id, other.class_id)


def test_rows_that_are_not_finite_are_dropped() -> None:
    outputs = raw(
        [[5.0], [math.nan], [4.0], [3.0]],
        [[math.inf, 0, 1, 1], [0.5] * 4, [0.5, math.nan, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1]],
    )
    found = decode(outputs, PLACEMENT, score_floor=0.0)
    assert len(found) == 1 and np.isfinite(found.xyxy).all()


def test_huge_logits_give_scores_in_range() -> None:
    with np.errstate(over="ignore"):
        found = decode(raw([[1e4], [-1e4]], [[0.5] * 4] * 2), PLACEMENT, score_floor=0.0)
    assert found.confidence.tolist() == [1.0, 0.0]


def test_batch_rows_and_disagreeing_arrays() -> None:
    batch = RawOutputs(np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 4), np.float32))
    assert isinstance(decode(batch[1], PLACEMENT, score_floor=0.1), Detections)
    with pytest.raises(ValueError, match="do not describe the same queries"):
        decode(batch, PLACEMENT, score_floor=0.1)
    with pytest.raises(ValueError, match=r"logits \(1, 1\) and boxes \(2, 4\)"):
        decode(raw([[0.0]], [[0.5] * 4] * 2), PLACEMENT, score_floor=0.1)
