from fractions import Fraction

import numpy as np

from ledetr.chain.pipeline import Result
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta
from ledetr_app.class_filter import ClassFilter
from ledetr_app.selection import follow, select

NAMES = ("person", "dog")


def result_of(rows, pts=0):
    """rows: (x0, y0, x1, y1, score, class id)."""
    rows = np.array(rows, np.float32).reshape(-1, 6)
    found = Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int), class_names=NAMES)
    rgb = np.zeros((100, 100, 3), np.uint8)
    return Result(Frame(FrameMeta("s", 0, 0, pts, Fraction(1, 10), 0, 100, 100), rgb), found)


def all_of(result):
    return np.ones(len(result.detections), bool)


def test_the_smallest_box_around_the_point():
    result = result_of([(0, 0, 100, 100, 0.9, 0), (10, 10, 30, 30, 0.5, 1)])
    assert select(result, all_of(result), 20, 20).class_name == "dog"
    assert select(result, all_of(result), 50, 50).class_name == "person"
    assert select(result, np.array([True, False]), 20, 20).class_name == "person"
    assert select(result, np.array([False, False]), 20, 20) is None
    assert select(result, all_of(result), 101, 50) is None
    empty = result_of([])
    assert select(empty, all_of(empty), 1, 1) is None


def test_it_is_followed_by_overlap_within_its_class():
    first = result_of([(10, 10, 30, 30, 0.9, 0)])
    chosen = select(first, all_of(first), 20, 20)
    second = result_of([(60, 60, 80, 80, 0.9, 0), (10, 10, 30, 30, 0.9, 1), (13, 12, 33, 32, 0.6, 0)], pts=1)
    chosen = follow(chosen, second, all_of(second))
    assert chosen.found.xyxy[0].tolist() == [13, 12, 33, 32]
    assert chosen.found.confidence[0] == np.float32(0.6)


def test_it_may_be_lost_for_a_second():
    first = result_of([(10, 10, 30, 30, 0.9, 0)])
    chosen = select(first, all_of(first), 20, 20)
    away = result_of([], pts=5)
    lost = follow(chosen, away, all_of(away))
    assert lost.found is None
    back = result_of([(11, 10, 31, 30, 0.9, 0)], pts=9)
    assert follow(lost, back, all_of(back)).found is not None
    later = result_of([], pts=11)
    assert follow(lost, later, all_of(later)) is None


def test_class_filter_by_hand():
    found = result_of([(0, 0, 1, 1, s, c) for s in (0.3, 0.5, 0.8) for c in (0, 1)]).detections
    assert ClassFilter(0.5).mask(found).tolist() == [False, False, True, True, True, True]
    assert ClassFilter(0.5, {"dog": 0.1}).mask(found).tolist() == [False, True, True, True, True, True]
    assert ClassFilter(0.1, {"dog": 0.6}).mask(found).tolist() == [True, False, True, False, True, True]
    assert ClassFilter(0.5, {"dog": 0.1}, frozenset({"dog"})).mask(found).tolist() == [False, True] * 3
    assert ClassFilter(0.1, {}, frozenset()).mask(found).tolist() == [False] * 6


def test_classes_without_names_have_the_common_threshold():
    found = Detections(np.zeros((2, 4), np.float32), np.array([0.9, 0.2], np.float32), np.array([7, 9]))
    assert ClassFilter(0.5).mask(found).tolist() == [True, False]
    assert ClassFilter(0.5, {}, frozenset({"dog"})).mask(found).tolist() == [False, False]
    assert ClassFilter(0.5).mask(found[:0]).tolist() == []
