"""Files that give every box they considered: recognised, refused where they are odd, ranked as by a slow loop."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledetr.backends.onnx_file import read_onnx
from ledetr.errors import WeightsError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from training.dense_onnx import MAX_BOXES, OVERLAP, SCORE_FLOOR, is_dense, open_dense, suppressed

Write = Callable[..., Path]
TEACHERS = Path(__file__).parents[3] / "shared" / "data" / "teachers"
FLOAT16 = 10
UINT8 = 2


def white(height: int = 50, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def test_boxes_scores_and_names_by_hand(write_dense: Write, caplog: pytest.LogCaptureFixture) -> None:
    """Input 64 x 32, picture 200 x 50. The second box says the same as the first; the last sticks out."""
    path = write_dense(
        "shop.onnx",
        [[0, 0, 32, 32], [0, 0, 30, 32], [0, 0, 32, 32], [48, 16, 80, 48]],
        [[0.9, 0.0], [0.8, 0.0], [0.0, 0.5], [0.2, 0.005]],
    )
    file = read_onnx(path)
    assert is_dense(file) and sorted(file.outputs) == ["boxes", "scores"]
    with caplog.at_level(logging.WARNING), open_dense(file) as detector:
        assert detector.class_names == ("class 0", "class 1") and detector.model_id == "shop"
        assert detector.info.input_hw == (32, 64) and detector.info.name == "onnx"
        found, _ = detector.detect_frame(white(), score_floor=0.0)
        dark, _ = detector.detect_frame(np.full((50, 200, 3), 51, np.uint8), score_floor=0.0)
    assert found.confidence == pytest.approx([0.9, 0.5, 0.2], abs=1e-6)
    assert found.class_id.tolist() == [0, 1, 0]
    assert found.xyxy == pytest.approx(np.array([[0, 0, 100, 50], [0, 0, 100, 50], [150, 25, 200, 50]]))
    # pixels go in as 0..255: a grey of 51 is a fifth of white
    assert dark.confidence == pytest.approx([0.18, 0.1, 0.04], abs=1e-6)
    assert "its 2 have numbers only" in caplog.text
    with pytest.raises(ValueError, match="closed"):
        detector.detect_frame(white())


def test_eighty_classes_are_those_of_coco(write_dense: Write) -> None:
    scores = np.zeros((1, 80))
    scores[0, 16] = 0.7
    with open_dense(read_onnx(write_dense("a.onnx", [[0, 0, 9, 9]], scores.tolist()))) as detector:
        assert detector.class_names == COCO_NAMES and detector.category_ids == COCO_CATEGORY_IDS
        assert detector.detect(white(), conf=0.5).names == ["dog"]


def slow_suppressed(boxes: np.ndarray, scores: np.ndarray) -> list[tuple[int, float]]:
    """Class by class, pair by pair, then the best of all."""
    kept: list[tuple[int, float]] = []
    for label in range(scores.shape[1]):
        mine: list[int] = []
        for a in np.argsort(-scores[:, label], kind="stable"):
            if scores[a, label] > SCORE_FLOOR and all(slow_iou(boxes[a], boxes[b]) <= OVERLAP for b in mine):
                mine.append(int(a))
        kept += [(label, float(scores[a, label])) for a in mine]
    return sorted(kept, key=lambda row: -row[1])[:MAX_BOXES]


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.clip(0, 1), b.clip(0, 1)
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return float(inter / union) if union > 0 else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_suppression_as_the_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.choice(rng.uniform(-0.1, 0.8, (5, 2)), 60) + rng.normal(0, 0.02, (60, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.3, (60, 2))], axis=1)
    scores = rng.uniform(0, 1, (60, 3)) ** 3
    label, _, score = suppressed(boxes, scores)
    assert list(zip(label.tolist(), score.tolist(), strict=True)) == slow_suppressed(boxes, scores)
    assert 5 < len(label) < 100


def test_at_most_a_hundred_and_nothing_that_is_not_finite() -> None:
    column = np.linspace(0, 0.9, 150)
    boxes = np.stack([column, column, column + 0.001, column + 0.001], axis=1)
    scores = np.linspace(0.5, 1, 150)[:, None]
    boxes[149] = np.nan
    scores[148] = np.nan
    label, corners, score = suppressed(boxes, scores)
    assert len(label) == MAX_BOXES and score[0] == scores[147] and np.isfinite(corners).all()
    assert len(suppressed(np.zeros((2, 4)), np.full((2, 1), 0.5))[0]) == 2, "empty boxes end the loop too"
    assert len(suppressed(np.zeros((0, 4)), np.zeros((0, 3)))[0]) == 0


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"picture": "data"}, "takes data; expected images"),
        ({"kind": UINT8}, r"takes pictures as tensor\(uint8\)"),
        ({"kind": FLOAT16}, r"takes pictures as tensor\(float16\)"),
        ({"size": ("H", "W")}, "leaves its picture size open"),
        ({"size": (9000, 64)}, "leaves its picture size open or beyond 8192"),
        ({"classes": "K"}, "does not show how many classes"),
        ({"domain": "evil.ops"}, "which is not part of the ONNX standard"),
    ],
)
def test_odd_files_are_refused_in_one_sentence(write_dense: Write, form: dict[str, Any], sentence: str) -> None:
    path = write_dense("odd.onnx", [[0, 0, 9, 9]], [[0.5, 0.5]], **form)
    with pytest.raises(WeightsError, match=sentence) as caught:
        open_dense(read_onnx(path))
    assert "odd.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_shapes_that_do_not_belong_together(write_dense: Write) -> None:
    """Three boxes, and scores for one: the graph runs, and what it gives is looked at."""
    path = write_dense("odd.onnx", [[0, 0, 9, 9]] * 3, [[0.5, 0.5]])
    with pytest.raises(WeightsError, match=r"gives boxes \(1, 3, 4\) float32 and scores \(1, 1, 2\) float32; expected"):
        open_dense(read_onnx(path))


@pytest.mark.skipif(not TEACHERS.exists(), reason="no ../shared/data/teachers beside the repository")
@pytest.mark.parametrize("name", ["nanodet_plus_m_1.5x_416", "picodet_s_416"])
def test_a_real_one(name: str) -> None:
    assert not is_dense(read_onnx(TEACHERS / "deimv2_femto_416.onnx"))
    with open_dense(read_onnx(TEACHERS / f"{name}.onnx"), threads=1) as detector:
        assert detector.class_names == COCO_NAMES and detector.info.input_hw == (416, 416)
        assert detector.detect(np.zeros((300, 400, 3), np.uint8), conf=0.5).names == []
