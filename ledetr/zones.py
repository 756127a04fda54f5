"""Polygons and lines on the picture: who is inside, for how long, and how many went in and out, by class.

They are kept in a JSON file:

    {"schema_version": 1, "units": "relative", "anchor": "bottom",
     "zones": [{"name": "door", "points": [[0.1, 0.5], [0.4, 0.5], [0.4, 0.9]]}],
     "lines": [{"name": "gate", "start": [0.5, 0.0], "end": [0.5, 1.0]}]}

units: "relative" (0..1 of width and height) or "pixels" of the upright picture. anchor: the point of a box that
counts, "bottom" (middle of its lower edge, where a thing stands) or "centre".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from ledetr.detections import Detections
from ledetr.errors import OutputError, UsageError
from ledetr.files import whole_file

Point: TypeAlias = tuple[float, float]
Units: TypeAlias = Literal["relative", "pixels"]
Anchor: TypeAlias = Literal["bottom", "centre"]

SCHEMA_VERSION = 1
_MOST_BYTES = 1 << 20
_MOST_SHAPES = 200
_MOST_POINTS = 1000
_MOST_LETTERS = 80
_MOST_PIXELS = 65535.0

# A thing that stands on a line would be counted with each tremble of its box; it has to leave this band around the
# line, in heights of its box to either side.
_BAND = 0.05


@dataclass(frozen=True, slots=True)
class Zone:
    """A polygon, closed by itself; where it crosses itself, inside is what an odd number of edges surrounds."""

    name: str
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not 3 <= len(self.points) <= _MOST_POINTS:
            raise ValueError(f"zone {self.name!r} needs 3 to {_MOST_POINTS} points, got {len(self.points)}")


@dataclass(frozen=True, slots=True)
class Line:
    """From start to end. In: from the left of somebody who walks along it on the picture to the right; out: back."""

    name: str
    start: Point
    end: Point

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError(f"line {self.name!r} begins and ends at {self.start}")


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """What a file of zones holds; names are unique over both kinds."""

    zones: tuple[Zone, ...] = ()
    lines: tuple[Line, ...] = ()
    units: Units = "relative"
    anchor: Anchor = "bottom"

    def __post_init__(self) -> None:
        shapes: tuple[Zone | Line, ...] = (*self.zones, *self.lines)
        if len(shapes) > _MOST_SHAPES:
            raise ValueError(f"at most {_MOST_SHAPES} zones and lines, got {len(shapes)}")
        twice = [name for name, count in Counter(shape.name for shape in shapes).items() if count > 1]
        if twice:
            raise ValueError(f"the name {twice[0]!r} is there twice")
        most = 1.0 if self.units == "relative" else _MOST_PIXELS
        for shape in shapes:
            for point in shape.points if isinstance(shape, Zone) else (shape.start, shape.end):
                if not all(0 <= value <= most for value in point):
                    raise ValueError(f"{shape.name!r} has the point {point}, outside 0..{most:g} ({self.units})")

    def in_pixels(self, size_hw: tuple[int, int]) -> ZonePlan:
        """The same plan in pixels of a picture of size_hw."""
        if self.units == "pixels":
            return self
        height, width = size_hw

        def scaled(point: Point) -> Point:
            return point[0] * width, point[1] * height

        return ZonePlan(
            tuple(Zone(zone.name, tuple(map(scaled, zone.points))) for zone in self.zones),
            tuple(Line(line.name, scaled(line.start), scaled(line.end)) for line in self.lines),
            "pixels",
            self.anchor,
        )

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "units": self.units,
            "anchor": self.anchor,
            "zones": [{"name": zone.name, "points": [list(point) for point in zone.points]} for zone in self.zones],
            "lines": [
                {"name": line.name, "start": list(line.start), "end": list(line.end)} for line in self.lines
            ],
        }  # fmt: skip


# The file.


def save_zones(plan: ZonePlan, path: Path) -> None:
    """Write it whole or not at all, over what was there. Raises OutputError."""
    try:
        with whole_file(path) as part:
            part.write_text(json.dumps(plan.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The zones cannot be written to {path}: {error.strerror or error}.") from error


def load_zones(path: Path) -> ZonePlan:
    """Read a file of zones. Raises UsageError, in one sentence, for whatever may be wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The zones cannot be read from {path}: {error.strerror or error}.") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, so it is no file of zones.")
    try:
        return plan_of(json.loads(data.decode("utf-8-sig")))
    except RecursionError as error:
        raise UsageError(f"{path} is no file of zones: it nests too deep.") from error
    except ValueError as error:  # also what json and the decoder raise
        raise UsageError(f"{path} is no file of zones: {error}.") from error


def plan_of(document: Any) -> ZonePlan:
    """What to_json gave, checked. Raises ValueError, in words, for whatever may be wrong with it."""
    _known_keys(document, "the document", {"schema_version", "units", "anchor", "zones", "lines"})
    version = document.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ValueError(f"schema_version is {_short(version)}, this program reads {SCHEMA_VERSION}")
    units, anchor = document.get("units", "relative"), document.get("anchor", "bottom")
    if units not in ("relative", "pixels"):
        raise ValueError(f'units is {_short(units)}, write "relative" or "pixels"')
    if anchor not in ("bottom", "centre"):
        raise ValueError(f'anchor is {_short(anchor)}, write "bottom" or "centre"')
    zones = tuple(_zone_of(row) for row in _list(document, "zones", _MOST_SHAPES))
    lines = tuple(_line_of(row) for row in _list(document, "lines", _MOST_SHAPES))
    if not zones and not lines:
        raise ValueError("it holds neither zones nor lines")
    return ZonePlan(zones, lines, units, anchor)


def _zone_of(row: Any) -> Zone:
    _known_keys(row, "a zone", {"name", "points"})
    name = _name(row)
    return Zone(name, tuple(_point(point, name) for point in _list(row, "points", _MOST_POINTS)))


def _line_of(row: Any) -> Line:
    _known_keys(row, "a line", {"name", "start", "end"})
    name = _name(row)
    return Line(name, _point(row.get("start"), name), _point(row.get("end"), name))


def _known_keys(row: Any, what: str, known: set[str]) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{what} is {_short(row)}, not an object in braces")
    unknown = sorted(set(row) - known)
    if unknown:
        raise ValueError(f"{what} has {_short(unknown[0])}; known are {', '.join(sorted(known))}")


def _list(row: dict[str, Any], key: str, most: int) -> list[Any]:
    value = row.get(key, [])
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{key} must be a list of at most {most}, got {_short(value)}")
    return value


def _name(row: dict[str, Any]) -> str:
    name = row.get("name")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= _MOST_LETTERS or not name.isprintable():
        raise ValueError(f"a name is 1 to {_MOST_LETTERS} letters in one line, got {_short(name)}")
    return name.strip()


def _point(value: Any, name: str) -> Point:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(number) for number in value):
        raise ValueError(f"{name!r} has {_short(value)} for a point; a point is [x, y]")
    return float(value[0]), float(value[1])


def _is_number(value: Any) -> bool:
    """True and False are numbers in Python, not here; an integer of a thousand digits is none either."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e9 and isfinite(value)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


# Geometry, in pixels.


def anchors_of(boxes_xyxy: np.ndarray, anchor: Anchor) -> np.ndarray:
    """(N, 2) float64: the point of each box that counts."""
    boxes = boxes_xyxy.astype(np.float64)
    y = boxes[:, 3] if anchor == "bottom" else (boxes[:, 1] + boxes[:, 3]) / 2
    return np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, y], axis=1)


def inside_polygon(points_xy: np.ndarray, polygon: tuple[Point, ...]) -> np.ndarray:
    """(N,) bool: whether a ray from each of (N, 2) points to the right meets an odd number of edges.

    A point on an edge may be on either side, but where two polygons share the edge it is in exactly one of them.
    """
    corners = np.asarray(polygon, np.float64)
    ax, ay = corners[:, 0], corners[:, 1]
    bx, by = np.roll(ax, -1), np.roll(ay, -1)
    x, y = points_xy[:, :1], points_xy[:, 1:2]
    spans = (ay > y) != (by > y)
    rise = np.where(by == ay, 1.0, by - ay)  # level edges span nothing
    odd: np.ndarray = (spans & (x < (bx - ax) * (y - ay) / rise + ax)).sum(axis=1) % 2 == 1
    return odd


def signed_distance(point: Point, line: Line) -> float:
    """Pixels from the endless line; positive on the right of somebody who walks from start to end (y points down)."""
    along = (line.end[0] - line.start[0], line.end[1] - line.start[1])
    towards = (point[0] - line.start[0], point[1] - line.start[1])
    return (along[0] * towards[1] - along[1] * towards[0]) / float(np.hypot(*along))


def _meets(before: Point, after: Point, line: Line) -> bool:
    """Whether the straight way between points on both sides of the endless line goes through the drawn part of it."""
    d0, d1 = signed_distance(before, line), signed_distance(after, line)
    part = d0 / (d0 - d1)
    x, y = (b + part * (a - b) for b, a in zip(before, after, strict=True))
    along = (line.end[0] - line.start[0], line.end[1] - line.start[1])
    length2 = along[0] ** 2 + along[1] ** 2
    return 0 <= ((x - line.start[0]) * along[0] + (y - line.start[1]) * along[1]) / length2 <= 1


# Counting.


@dataclass(frozen=True, slots=True)
class ShapeCount:
    """Of one zone or line so far. entered, left: crossings by class name: into and out of a zone, in and out of a line.

    now: tracks inside at the last frame by class name, zones only. visits: stays in a zone, those that go on too.
    dwell_mean_s, dwell_max_s: of these visits, from first to last sight inside.
    """

    name: str
    kind: Literal["zone", "line"]
    entered: Mapping[str, int]
    left: Mapping[str, int]
    now: Mapping[str, int] = field(default_factory=dict)
    visits: int = 0
    dwell_mean_s: float = 0.0
    dwell_max_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values: in and out by class, and for zones now, visits and dwell seconds."""
        row: dict[str, Any] = {"name": self.name, "kind": self.kind, "in": dict(self.entered), "out": dict(self.left)}
        if self.kind == "zone":
            row |= {
                "now": dict(self.now),
                "visits": self.visits,
                "dwell_mean_s": round(self.dwell_mean_s, 3),
                "dwell_max_s": round(self.dwell_max_s, 3),
            }
        return row


@dataclass(slots=True)
class _InZone:
    """What a zone remembers. inside: by id, when its visit began and was last seen; outside: by id, last seen."""

    entered: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    inside: dict[int, tuple[float, float]] = field(default_factory=dict)
    outside: dict[int, float] = field(default_factory=dict)
    ended: int = 0
    ended_s: float = 0.0
    longest_s: float = 0.0

    def see(self, track: int, class_name: str, is_inside: bool, pts_s: float) -> None:
        if is_inside:
            if self.outside.pop(track, None) is not None:
                self.entered[class_name] += 1
            begun_s = self.inside[track][0] if track in self.inside else pts_s
            self.inside[track] = (begun_s, pts_s)
            self.now[class_name] += 1
        else:
            if track in self.inside:
                self.left[class_name] += 1
                self.end_visit(track)
            self.outside[track] = pts_s

    def end_visit(self, track: int) -> None:
        begun_s, seen_s = self.inside.pop(track)
        self.ended += 1
        self.ended_s += seen_s - begun_s
        self.longest_s = max(self.longest_s, seen_s - begun_s)

    def forget_before(self, limit_s: float) -> None:
        for track in [track for track, (_, seen_s) in self.inside.items() if seen_s < limit_s]:
            self.end_visit(track)
        self.outside = {track: seen_s for track, seen_s in self.outside.items() if seen_s >= limit_s}

    def count(self, name: str) -> ShapeCount:
        stays_s = [seen_s - begun_s for begun_s, seen_s in self.inside.values()]
        visits = self.ended + len(stays_s)
        return ShapeCount(
            name,
            "zone",
            dict(self.entered),
            dict(self.left),
            dict(self.now),
            visits,
            (self.ended_s + sum(stays_s)) / visits if visits else 0.0,
            max([self.longest_s, *stays_s]),
        )


@dataclass(slots=True)
class _AtLine:
    """What a line remembers. side: by id, the last point clear of the line, and when it was last seen at all."""

    entered: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    side: dict[int, tuple[Point, float]] = field(default_factory=dict)

    def see(self, track: int, class_name: str, point: Point, line: Line, band_px: float, pts_s: float) -> None:
        before = self.side[track][0] if track in self.side else None
        distance = signed_distance(point, line)
        if abs(distance) <= band_px:
            if before is not None:
                self.side[track] = (before, pts_s)
            return
        if before is not None:
            was = signed_distance(before, line)
            if was * distance < 0 and _meets(before, point, line):
                (self.entered if distance > 0 else self.left)[class_name] += 1
        self.side[track] = (point, pts_s)

    def forget_before(self, limit_s: float) -> None:
        self.side = {track: (point, seen_s) for track, (point, seen_s) in self.side.items() if seen_s >= limit_s}

    def count(self, name: str) -> ShapeCount:
        return ShapeCount(name, "line", dict(self.entered), dict(self.left))


class ZoneCounter:
    """Counts tracked boxes frame after frame. forget_s: at least the tracker's buffer; what was not seen for longer
    is over, which bounds the memory. A thing that first appears inside a zone is in it, but did not go in."""

    def __init__(self, plan: ZonePlan, *, forget_s: float = 10.0) -> None:
        self.plan = plan
        self._forget_s = forget_s
        self._zones = {zone.name: _InZone() for zone in plan.zones}
        self._lines = {line.name: _AtLine() for line in plan.lines}
        self._now_s = -np.inf
        self._pixels: tuple[tuple[int, int], ZonePlan] | None = None

    def update(self, detections: Detections, pts_s: float, size_hw: tuple[int, int]) -> None:
        """The next frame, of size_hw. Boxes without a tracker_id cannot be told apart and are not counted.

        Where the time goes back, or the picture gets another size, all visits end and the counts go on.
        """
        plan = self._plan_in_pixels(size_hw)
        if pts_s < self._now_s:
            self._forget_before(np.inf)
        self._now_s = pts_s
        self._forget_before(pts_s - self._forget_s)
        tracked = detections[:0] if detections.tracker_id is None else detections[detections.tracker_id >= 0]
        points = anchors_of(tracked.xyxy, plan.anchor)
        for zone in plan.zones:
            state = self._zones[zone.name]
            state.now = Counter()
            for row, is_inside in enumerate(inside_polygon(points, zone.points)):
                state.see(_id(tracked, row), tracked.names[row], bool(is_inside), pts_s)
        bands = _BAND * (tracked.xyxy[:, 3] - tracked.xyxy[:, 1])
        for line in plan.lines:
            for row, (x, y) in enumerate(points):
                place = (float(x), float(y))
                self._lines[line.name].see(
                    _id(tracked, row), tracked.names[row], place, line, float(bands[row]), pts_s
                )  # fmt: skip

    def counts(self) -> tuple[ShapeCount, ...]:
        """Zones, then lines, in the order of the plan."""
        zones = [state.count(name) for name, state in self._zones.items()]
        return (*zones, *(state.count(name) for name, state in self._lines.items()))

    def _plan_in_pixels(self, size_hw: tuple[int, int]) -> ZonePlan:
        if self._pixels is None or self._pixels[0] != size_hw:
            if self._pixels is not None:
                self._forget_before(np.inf)
            self._pixels = (size_hw, self.plan.in_pixels(size_hw))
        return self._pixels[1]

    def _forget_before(self, limit_s: float) -> None:
        for zone in self._zones.values():
            zone.forget_before(limit_s)
        for line in self._lines.values():
            line.forget_before(limit_s)


def _id(tracked: Detections, row: int) -> int:
    assert tracked.tracker_id is not None
    return int(tracked.tracker_id[row])
