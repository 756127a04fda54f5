"""Zones and lines being drawn and moved: plain values, each step gives a new one. Points are 0..1 of the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import dist
from typing import Literal, TypeAlias

from ledetr.zones import Line, Point, Zone, ZonePlan

Tool: TypeAlias = Literal["", "zone", "line", "edit"]
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Drawing:
    """tool: what the mouse and the keys do to the picture; "" = nothing to zones. points: set so far.
    cursor: where the next point would be, or the grabbed one is. selected: shape, in the order of shapes_of.
    grabbed: one of its points.
    """

    tool: Tool = ""
    points: tuple[Point, ...] = ()
    cursor: Point = (0.5, 0.5)
    selected: int | None = None
    grabbed: int | None = None


def shapes_of(plan: ZonePlan) -> tuple[Zone | Line, ...]:
    """Zones, then lines."""
    return (*plan.zones, *plan.lines)


def points_of(shape: Zone | Line) -> tuple[Point, ...]:
    """Corners of a zone, ends of a line."""
    return shape.points if isinstance(shape, Zone) else (shape.start, shape.end)


def free_name(plan: ZonePlan, word: str) -> str:
    """ "Zone 1", or the first number that is not there yet."""
    taken = {shape.name for shape in shapes_of(plan)}
    return next(name for number in range(1, len(taken) + 2) if (name := f"{word} {number}") not in taken)


def with_shape(plan: ZonePlan, shape: Zone | Line) -> ZonePlan:
    """One more. Raises ValueError, in words, where the plan cannot take it."""
    if isinstance(shape, Zone):
        return replace(plan, zones=(*plan.zones, shape))
    return replace(plan, lines=(*plan.lines, shape))


def with_changed(plan: ZonePlan, row: int, shape: Zone | Line | None) -> ZonePlan:
    """Another in place of this one; None: none. Raises ValueError, in words, where the plan cannot take it."""
    shapes = list(shapes_of(plan))
    shapes[row : row + 1] = [] if shape is None else [shape]
    zones = tuple(shape for shape in shapes if isinstance(shape, Zone))
    lines = tuple(shape for shape in shapes if isinstance(shape, Line))
    return replace(plan, zones=zones, lines=lines)


def moved(shape: Zone | Line, point: int, to: Point) -> Zone | Line:
    """One of its points somewhere else. Raises ValueError where a line would have no length."""
    points = list(points_of(shape))
    points[point] = inside(to)
    if isinstance(shape, Zone):
        return replace(shape, points=tuple(points))
    return replace(shape, start=points[0], end=points[1])


def renamed(shape: Zone | Line, name: str) -> Zone | Line:
    """By another name. Raises ValueError, in words, for what is no name."""
    name = name.strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a name is 1 to {LONGEST_NAME} letters in one line")
    return replace(shape, name=name)


def inside(point: Point) -> Point:
    """The nearest point of the picture."""
    return min(max(point[0], 0.0), 1.0), min(max(point[1], 0.0), 1.0)


def nearest_point(plan: ZonePlan, at: Point, size_wh: tuple[float, float], reach: float) -> tuple[int, int] | None:
    """Shape and point under the mouse; None where none is as near as reach.

    size_wh: of the picture in the unit of reach, so that near means the same in both directions.
    """
    width, height = size_wh

    def away(point: Point) -> float:
        return dist((point[0] * width, point[1] * height), (at[0] * width, at[1] * height))

    every = [
        (away(point), row, number)
        for row, shape in enumerate(shapes_of(plan))
        for number, point in enumerate(points_of(shape))
    ]
    nearest = min(every, default=None)
    return None if nearest is None or nearest[0] > reach else nearest[1:]


def relative(plan: ZonePlan, size_wh: tuple[int, int]) -> ZonePlan:
    """The same plan in parts of a picture of size_wh. Raises ValueError where it reaches out of the picture."""
    if plan.units == "relative":
        return plan
    width, height = size_wh

    def scaled(point: Point) -> Point:
        return point[0] / width, point[1] / height

    return ZonePlan(
        tuple(Zone(zone.name, tuple(map(scaled, zone.points))) for zone in plan.zones),
        tuple(Line(line.name, scaled(line.start), scaled(line.end)) for line in plan.lines),
        "relative",
        plan.anchor,
    )
