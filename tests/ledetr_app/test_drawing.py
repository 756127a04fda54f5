"""Zones and lines as plain values: each step gives a new plan, and what cannot be is a sentence."""

import pytest

from ledetr.zones import Line, Zone, ZonePlan
from ledetr_app.drawing import (
    free_name,
    inside,
    moved,
    nearest_point,
    relative,
    renamed,
    shapes_of,
    with_changed,
    with_shape,
)

DOOR = Zone("door", ((0.1, 0.1), (0.5, 0.1), (0.5, 0.5)))
GATE = Line("gate", (0.0, 0.9), (1.0, 0.9))
PLAN = ZonePlan((DOOR,), (GATE,))


def test_names_are_the_first_that_are_free():
    assert free_name(ZonePlan(), "Zone") == "Zone 1"
    plan = with_shape(with_shape(PLAN, Zone("Zone 1", DOOR.points)), Zone("Zone 3", DOOR.points))
    assert free_name(plan, "Zone") == "Zone 2"


def test_zones_stand_before_lines():
    plan = with_shape(ZonePlan((), (GATE,)), DOOR)
    assert shapes_of(plan) == (DOOR, GATE)
    assert with_changed(plan, 0, None) == ZonePlan((), (GATE,))
    assert with_changed(plan, 1, None) == ZonePlan((DOOR,), ())
    assert shapes_of(with_changed(plan, 1, renamed(GATE, " way "))) == (DOOR, Line("way", GATE.start, GATE.end))


def test_a_point_that_is_moved_stays_in_the_picture():
    assert moved(DOOR, 1, (1.2, -3.0)) == Zone("door", ((0.1, 0.1), (1.0, 0.0), (0.5, 0.5)))
    assert moved(GATE, 0, (0.2, 0.3)) == Line("gate", (0.2, 0.3), (1.0, 0.9))
    assert inside((-0.1, 0.4)) == (0.0, 0.4)


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "two\nlines"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="a name is 1 to 80 letters"):
        renamed(DOOR, name)


def test_a_name_twice_and_a_line_without_length_are_refused():
    with pytest.raises(ValueError, match="'door' is there twice"):
        with_changed(PLAN, 1, renamed(GATE, "door"))
    with pytest.raises(ValueError, match="begins and ends"):
        moved(GATE, 0, GATE.end)


@pytest.mark.parametrize(
    ("at", "found"),
    [((0.101, 0.101), (0, 0)), ((0.495, 0.51), (0, 2)), ((0.98, 0.9), (1, 1)), ((0.3, 0.3), None)],
)
def test_the_nearest_point_within_reach(at, found):
    assert nearest_point(PLAN, at, (1000.0, 500.0), 25.0) == found


def test_near_means_the_same_in_both_directions():
    """20 px to the side of a point of a picture of 1000 x 100, and as many parts of its height below it."""
    plan = ZonePlan((), (Line("a", (0.5, 0.5), (1.0, 1.0)),))
    assert nearest_point(plan, (0.52, 0.5), (1000.0, 100.0), 21.0) == (0, 0)
    assert nearest_point(plan, (0.5, 0.72), (1000.0, 100.0), 21.0) is None


def test_pixels_become_parts_of_the_picture():
    plan = ZonePlan((Zone("z", ((0, 0), (320, 0), (160, 120))),), (Line("l", (80, 60), (0, 240)),), "pixels", "centre")
    assert relative(plan, (320, 240)) == ZonePlan(
        (Zone("z", ((0, 0), (1, 0), (0.5, 0.5))),), (Line("l", (0.25, 0.25), (0, 1)),), "relative", "centre"
    )
    assert relative(PLAN, (3, 4)) is PLAN
    with pytest.raises(ValueError, match="outside"):
        relative(plan, (300, 240))
