"""Matches, confusion and error split: cases made by hand in which exactly one thing is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from ledetr.coco_file import Category as CocoCategory
from ledetr.coco_file import CocoSet, Picture, Truth
from ledetr.confusion import confusion_of
from ledetr.detector import StageTimes
from ledetr.error_split import KINDS, error_split
from ledetr.evaluated import evaluate_rows, latency_of
from ledetr.evaluation import CocoRow, run_coco, scores_of
from ledetr.matching import AtThreshold, Matching, at_threshold, matching_of

Box = tuple[float, float, float, float]
PERSON, DOG = 1, 5
LEFT, RIGHT = (0.0, 0.0, 20.0, 20.0), (50.0, 0.0, 20.0, 20.0)
# A box found exactly in each of two pictures and one more box: 101 recall steps, of which a half is 51.
HALF = 51 / 101


def coco_set(truths: list[tuple[int, int, Box]], *, crowds: list[tuple[int, int, Box]] | None = None) -> CocoSet:
    """(image_id, category_id, bbox) in pictures 1 to 3."""
    rows = [Truth(i, c, b, b[2] * b[3], False) for i, c, b in truths]
    rows += [Truth(i, c, b, b[2] * b[3], True) for i, c, b in crowds or []]
    pictures = tuple(Picture(i, Path(f"{i}.png")) for i in (1, 2, 3))
    return CocoSet(Path("set.json"), pictures, (CocoCategory(PERSON, "person"), CocoCategory(DOG, "dog")), tuple(rows))


def matched(data: CocoSet, rows: list[CocoRow]) -> Matching:
    return matching_of(data, rows, run_coco(data, rows))


def gains(data: CocoSet, rows: list[CocoRow]) -> dict[str, float]:
    """What each kind of error costs, those that cost nothing left out."""
    split = error_split(matched(data, rows), 0.5)
    assert split is not None
    assert split.ap50 == pytest.approx(scores_of(data, run_coco(data, rows), resamples=0).figures["ap50"])
    assert {kind.name for kind in split.kinds if kind.count} == {kind.name for kind in split.kinds if kind.gain}
    return {kind.name: kind.gain for kind in split.kinds if kind.gain}


def test_without_an_error_nothing_is_lost() -> None:
    data = coco_set([(1, PERSON, LEFT), (2, DOG, RIGHT)])
    assert gains(data, [CocoRow(1, PERSON, LEFT, 0.9), CocoRow(2, DOG, RIGHT, 0.8)]) == {}


def test_only_classification() -> None:
    """One of two persons is called a dog: AP50 of persons is a half, and dogs have no box to be scored by."""
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    lost = gains(data, [CocoRow(1, PERSON, LEFT, 0.9), CocoRow(2, DOG, RIGHT, 0.8)])
    assert lost == {"classification": pytest.approx(1 - HALF)}


def test_only_localisation() -> None:
    """Half the width aside: IoU is a third, between 0.1 and 0.5."""
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    lost = gains(data, [CocoRow(1, PERSON, LEFT, 0.9), CocoRow(2, PERSON, (60.0, 0.0, 20.0, 20.0), 0.8)])
    assert lost == {"localisation": pytest.approx(1 - HALF)}


def test_only_both() -> None:
    """A dog beside the person who has been found, IoU a third, and scored higher than the dog that is there."""
    data = coco_set([(1, PERSON, LEFT), (2, DOG, RIGHT)])
    rows = [
        CocoRow(1, PERSON, LEFT, 0.9),
        CocoRow(2, DOG, RIGHT, 0.7),
        CocoRow(1, DOG, (10.0, 0.0, 20.0, 20.0), 0.8),
    ]
    assert gains(data, rows) == {"both": pytest.approx((1 - 0.5) / 2)}


def test_only_duplicate() -> None:
    """The second detection of the first person stands before the second person: precision 2 of 3 from a half on."""
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    rows = [
        CocoRow(1, PERSON, LEFT, 0.9),
        CocoRow(1, PERSON, (0.0, 0.0, 20.0, 19.0), 0.8),
        CocoRow(2, PERSON, RIGHT, 0.7),
    ]
    assert gains(data, rows) == {"duplicate": pytest.approx(50 / 101 * (1 - 2 / 3))}


def test_only_background() -> None:
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    rows = [
        CocoRow(1, PERSON, LEFT, 0.9),
        CocoRow(3, PERSON, LEFT, 0.8),
        CocoRow(2, PERSON, RIGHT, 0.7),
    ]
    assert gains(data, rows) == {"background": pytest.approx(50 / 101 * (1 - 2 / 3))}


def test_only_missed() -> None:
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    assert gains(data, [CocoRow(1, PERSON, LEFT, 0.9)]) == {"missed": pytest.approx(1 - HALF)}


def test_a_class_that_was_missed_wholly_has_nothing_left_to_find() -> None:
    data = coco_set([(1, PERSON, LEFT), (2, DOG, RIGHT)])
    assert gains(data, [CocoRow(1, PERSON, LEFT, 0.9)]) == {"missed": pytest.approx(0.5)}


def test_two_wrong_classes_on_one_box_mend_it_once() -> None:
    """The better of the two becomes right, the other goes; so mending never makes a duplicate."""
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    rows = [
        CocoRow(1, PERSON, LEFT, 0.9),
        CocoRow(2, DOG, RIGHT, 0.8),
        CocoRow(2, DOG, (50.0, 0.0, 20.0, 19.0), 0.7),
    ]
    assert gains(data, rows) == {"classification": pytest.approx(1 - HALF)}


def test_counts_from_the_threshold_on() -> None:
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT)])
    rows = [CocoRow(1, PERSON, LEFT, 0.4), CocoRow(3, PERSON, LEFT, 0.8), CocoRow(3, DOG, LEFT, 0.1)]
    split = error_split(matched(data, rows), 0.5)
    assert split is not None
    kinds = {kind.name: (kind.count, kind.shown) for kind in split.kinds}
    assert list(kinds) == list(KINDS)
    assert kinds["background"] == (2, 1)
    assert kinds["missed"] == (1, 2), "what scores 0.4 finds nothing at 0.5"
    json.dumps(split.to_json(), allow_nan=False)


def test_detections_on_crowds_are_no_errors() -> None:
    data = coco_set([(1, PERSON, LEFT)], crowds=[(1, PERSON, (40.0, 0.0, 60.0, 60.0))])
    rows = [CocoRow(1, PERSON, (50.0, 10.0, 10.0, 10.0), 0.95), CocoRow(1, PERSON, LEFT, 0.9)]
    assert gains(data, rows) == {}
    counts = confusion_of(matched(data, rows), 0.5).counts
    assert counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_without_boxes_there_is_no_split() -> None:
    assert error_split(matched(coco_set([]), [CocoRow(1, PERSON, LEFT, 0.9)]), 0.5) is None


def test_confusion_by_hand() -> None:
    """A person found, a person called dog, a dog missed, a dog where nothing is; and one below the threshold."""
    data = coco_set([(1, PERSON, LEFT), (1, PERSON, RIGHT), (2, DOG, LEFT)])
    rows = [
        CocoRow(1, PERSON, LEFT, 0.9),
        CocoRow(1, DOG, RIGHT, 0.8),
        CocoRow(3, DOG, LEFT, 0.7),
        CocoRow(2, DOG, LEFT, 0.3),
    ]
    confusion = confusion_of(matched(data, rows), 0.5)
    assert confusion.counts.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert confusion.top() == [("person", "dog", 1)]
    assert (confusion.missed, confusion.false_alarms) == (1, 1)
    assert json.loads(json.dumps(confusion.to_json()))["classes"] == ["person", "dog", "background"]


def test_of_two_left_over_boxes_the_closer_one_is_taken() -> None:
    """The detection, a dog, lies on two persons; the one that it overlaps more is called a dog, the other is missed."""
    close, far = (0.0, 0.0, 20.0, 20.0), (6.0, 0.0, 20.0, 20.0)
    data = coco_set([(1, PERSON, far), (1, PERSON, close)])
    confusion = confusion_of(matched(data, [CocoRow(1, DOG, (1.0, 0.0, 20.0, 20.0), 0.9)]), 0.5)
    assert confusion.counts.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_rows_and_columns_of_a_confusion_hold_every_box_and_detection() -> None:
    rng = np.random.default_rng(0)
    truths = [(int(rng.integers(1, 4)), int(rng.choice([PERSON, DOG])), random_box(rng)) for _ in range(40)]
    rows = [
        CocoRow(int(rng.integers(1, 4)), int(rng.choice([PERSON, DOG])), random_box(rng), float(rng.random()))
        for _ in range(60)
    ]
    matching = matched(coco_set(truths), rows)
    counts = confusion_of(matching, 0.4).counts
    boxes = [sum(c == category for _, c, _ in truths) for category in (PERSON, DOG)]
    guesses = [sum(r.category_id == category and r.score >= 0.4 for r in rows) for category in (PERSON, DOG)]
    assert counts[:-1].sum(1).tolist() == boxes
    assert counts[:, :-1].sum(0).tolist() == guesses
    each, total = at_threshold(matching, 0.4)
    assert [point.recall for point in each] == pytest.approx([counts[k, k] / boxes[k] for k in (0, 1)])
    assert [point.precision for point in each] == pytest.approx([counts[k, k] / guesses[k] for k in (0, 1)])
    assert total.recall == pytest.approx(np.trace(counts) / len(truths))


def random_box(rng: np.random.Generator) -> Box:
    x, y, w, h = (*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2))
    return (float(x), float(y), float(w), float(h))


def test_what_cannot_be_measured_is_none() -> None:
    each, total = at_threshold(matched(coco_set([(1, PERSON, LEFT)]), []), 0.5)
    assert each == (AtThreshold(0.0, None), AtThreshold(None, None))
    assert total == AtThreshold(0.0, None)


def test_the_worst_pictures_are_those_with_the_most_mistakes() -> None:
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, LEFT), (2, DOG, RIGHT)])
    rows = [CocoRow(1, PERSON, LEFT, 0.9), CocoRow(3, DOG, LEFT, 0.6), CocoRow(3, DOG, RIGHT, 0.2)]
    evaluated = evaluate_rows(data, rows, engine={}, threshold=0.5, resamples=0)
    assert [(e.picture.image_id, e.found, e.missed, e.false_alarms) for e in evaluated.worst()] == [
        (2, 0, 2, 0),
        (3, 0, 0, 1),
    ]
    assert len(evaluated.worst(1)) == 1
    document = json.loads(json.dumps(evaluated.to_json(), allow_nan=False))
    assert [row["recall"] for row in document["classes"]] == [0.5, 0.0]
    assert document["threshold"] == 0.5 and document["latency"] is None
    assert len(document["precision_recall"]["recall"]) == len(document["precision_recall"]["precision"]["0.50"]) == 101


def test_curves_are_cocos_precision() -> None:
    """One of two persons found: precision 1 up to a half, 0 beyond; and the dog's, 0 everywhere, halves the mean."""
    data = coco_set([(1, PERSON, LEFT), (2, PERSON, RIGHT), (3, DOG, LEFT)])
    rows = [CocoRow(1, PERSON, LEFT, 0.9)]
    curves = scores_of(data, run_coco(data, rows), resamples=0).curves
    assert curves["0.50"] == curves["0.75"] == pytest.approx((0.5,) * 51 + (0.0,) * 50)


def test_latency_is_the_sum_of_the_stages_of_each_picture() -> None:
    latency = latency_of([StageTimes(1.0, 10.0, 2.0), StageTimes(3.0, 20.0, 2.0), StageTimes(2.0, 12.0, 2.0)])
    assert (latency.pictures, latency.median_ms, latency.p95_ms) == (3, 16.0, pytest.approx(25 - 0.1 * 9))
    assert latency.stages["infer"][0] == 12.0
