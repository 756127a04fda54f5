"""Detections: validation, indexing, filters, and the forms they are written in."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr.detections import Detections


def found(*rows: tuple[list[float], float, int], **fields) -> Detections:
    """Detections from plain (xyxy, score, class) rows."""
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int64),
        **fields,
    )


TWO = found(([10, 20, 30, 60], 0.9, 1), ([0, 0, 5.5, 5], 0.25, 0), class_names=("cat", "dog"), category_ids=(17, 18))


def test_empty() -> None:
    nothing = Detections.empty(class_names=("cat",), model_id="n")
    assert len(nothing) == 0 and list(nothing) == []
    assert nothing.xywh.shape == nothing.cxcywh.shape == (0, 4)
    assert nothing.names == [] and nothing.to_json() == []
    assert len(nothing.filter(conf=0.5, class_ids=[0])) == 0
    assert nothing.class_names == ("cat",) and nothing.model_id == "n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"xyxy": np.zeros((1, 4), np.float32)}, r"xyxy must be \(2, 4\), got \(1, 4\)"),
        ({"xyxy": np.zeros(8, np.float32)}, r"xyxy must be \(2, 4\), got \(8,\)"),
        ({"class_id": np.zeros(3, np.int64)}, r"class_id must be \(2,\), got \(3,\)"),
        ({"tracker_id": np.zeros((2, 1), np.int64)}, r"tracker_id must be \(2,\), got \(2, 1\)"),
    ],
)
def test_arrays_of_other_lengths_are_refused(changes: dict, words: str) -> None:
    arrays = {"xyxy": TWO.xyxy, "confidence": TWO.confidence, "class_id": TWO.class_id, **changes}
    with pytest.raises(ValueError, match=words):
        Detections(**arrays)


def test_indexing_keeps_rows_together() -> None:
    for second in (TWO[1:], TWO[[1]], TWO[np.array([False, True])]):
        assert [(box.tolist(), score, label) for box, score, label in second] == [([0, 0, 5.5, 5], 0.25, 0)]
        assert second.class_names == TWO.class_names
    tracked = found(([0, 0, 1, 1], 0.5, 0), ([0, 0, 2, 2], 0.4, 0), tracker_id=np.array([7, 8]))
    assert tracked[1:].tracker_id.tolist() == [8]


def test_boxes_in_other_formats() -> None:
    assert TWO.xywh.tolist() == [[10, 20, 20, 40], [0, 0, 5.5, 5]]
    assert TWO.cxcywh.tolist() == [[20, 40, 20, 40], [2.75, 2.5, 5.5, 5]]


def test_names_fall_back_to_numbers() -> None:
    assert TWO.names == ["dog", "cat"]
    assert found(([0, 0, 1, 1], 0.5, 3), class_names=("cat",)).names == ["3"]


@given(
    rows=st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 5)), max_size=12),
    conf=st.floats(0, 1),
    classes=st.none() | st.lists(st.integers(0, 6), max_size=3),
)
def test_filter_equals_a_plain_loop(rows: list, conf: float, classes: list[int] | None) -> None:
    detections = found(*(([0, 0, i, i], score, label) for i, (score, label) in enumerate(rows)))
    kept = detections.filter(conf=conf, class_ids=classes)
    expected = [i for i, (s, c) in enumerate(rows) if np.float32(s) >= conf and (classes is None or c in classes)]
    assert kept.xyxy[:, 2].tolist() == expected


def test_to_json() -> None:
    tracked = found(([10.123, 20, 30, 60], 0.98768, 1), class_names=("cat", "dog"), tracker_id=np.array([4]))
    rows = tracked.to_json()
    assert rows == [
        {
            "xyxy": [10.12, 20.0, 30.0, 60.0],
            "confidence": 0.9877,
            "class_id": 1,
            "class_name": "dog",
            "tracker_id": 4,
        }
    ]
    assert json.loads(json.dumps(rows)) == rows
    assert "tracker_id" not in TWO.to_json()[0]


def test_to_coco_uses_the_data_sets_own_ids() -> None:
    rows = TWO.to_coco(image_id=42)
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in rows] == [
        (42, 18, [10, 20, 20, 40]),
        (42, 17, [0, 0, 5.5, 5]),
    ]
    assert rows[0]["score"] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="carry no category ids"):
        found(([0, 0, 1, 1], 0.5, 0)).to_coco(1)


def test_to_supervision() -> None:
    pytest.importorskip("supervision", reason="the extra supervision is not installed")
    theirs = TWO.to_supervision()
    assert theirs.xyxy.tolist() == TWO.xyxy.tolist()
    assert theirs.data["class_name"].tolist() == ["dog", "cat"]
