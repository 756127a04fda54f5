"""What is drawn and counted of tracked things over time: trails, zones and lines with their counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from ledetr.chain.overlay import Mark, PathMark, Pen, Rgb, Style, class_colour, tile_at, track_colour
from ledetr.detections import Detections
from ledetr.tracking import Tracking
from ledetr.zones import Line, ShapeCount, Zone, ZoneCounter, ZonePlan, anchors_of

TRAIL_S = 2.0
_ZONE_RGB: Rgb = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a tracked thing was, oldest first, in pixels of the source picture."""

    track: int
    class_id: int
    points_xy: tuple[tuple[float, float], ...]

    def colour(self, *, by_track: bool) -> Rgb:
        """That of its box."""
        return track_colour(self.track) if by_track else class_colour(self.class_id)


class Trails:
    """The ways of tracked things over the last length_s seconds, each through the middle of its boxes' lower edges."""

    def __init__(self, length_s: float = TRAIL_S) -> None:
        if not 0 <= length_s < float("inf"):
            raise ValueError(f"length_s is a number of seconds, 0 or more, got {length_s}")
        self.length_s = length_s
        self._points: dict[int, deque[tuple[float, float, float]]] = {}  # by id: time, x, y
        self._class_id: dict[int, int] = {}
        self._now_s = float("-inf")

    def add(self, detections: Detections, pts_s: float) -> None:
        """The boxes of the next frame; where the time goes back all trails end."""
        if pts_s < self._now_s:
            self._points.clear()
        self._now_s = pts_s
        for row, (x, y) in enumerate(anchors_of(detections.xyxy, "bottom").tolist()):
            track = detections.track_of(row)
            if track is not None:
                self._points.setdefault(track, deque()).append((pts_s, x, y))
                self._class_id[track] = int(detections.class_id[row])
        for track, points in list(self._points.items()):
            while points and pts_s - points[0][0] > self.length_s:
                points.popleft()
            if not points:
                del self._points[track]
        self._class_id = {track: self._class_id[track] for track in self._points}

    def ways(self) -> tuple[Way, ...]:
        """One for each thing that was seen twice or more in the last length_s seconds."""
        return tuple(
            Way(track, self._class_id[track], tuple((x, y) for _, x, y in points))
            for track, points in self._points.items()
            if len(points) > 1
        )

    def marks(self, size_hw: tuple[int, int], *, by_track: bool = True) -> list[Mark]:
        """One line for each thing of the last frame and of the seconds before it, in the colour of its box."""
        width = Pen.of(size_hw).line_px
        return [PathMark(way.points_xy, way.colour(by_track=by_track), width) for way in self.ways()]


def zone_marks(
    plan: ZonePlan,
    counts: tuple[ShapeCount, ...],
    size_hw: tuple[int, int],
    *,
    pen: Pen | None = None,
    by_class: bool = False,
) -> list[Mark]:
    """The rims of zones, the lines, and beside each its name and counts. counts: of the plan's shapes, in order.

    pen: by default right for size_hw. by_class: also how many of each class, where there are several.
    """
    pen = pen or Pen.of(size_hw)
    in_pixels = plan.in_pixels(size_hw)
    shapes: tuple[Zone | Line, ...] = (*in_pixels.zones, *in_pixels.lines)
    paths: list[Mark] = []
    tiles: list[Mark] = []
    for shape, count in zip(shapes, counts, strict=True):
        points = shape.points if isinstance(shape, Zone) else (shape.start, shape.end)
        paths.append(PathMark(points, _ZONE_RGB, pen.line_px, closed=isinstance(shape, Zone)))
        words = _words(count, by_class=by_class)
        tile = tile_at(words, min(points, key=lambda point: point[1]), _ZONE_RGB, size_hw, pen)
        tiles += [] if tile is None else [tile]
    return [*paths, *tiles]


def _words(count: ShapeCount, *, by_class: bool) -> str:
    crossed = f"in {_number(count.entered, by_class)} out {_number(count.left, by_class)}"
    now = f"now {_number(count.now, by_class)} " if count.kind == "zone" else ""
    return f"{count.name}: {now}{crossed}"


def _number(counts: Mapping[str, int], by_class: bool) -> str:
    """3, or 3 (car 1, person 2)."""
    there = [f"{name} {count}" for name, count in sorted(counts.items()) if count]
    return str(sum(counts.values())) + (f" ({', '.join(there)})" if by_class and len(there) > 1 else "")


class TrackView:
    """One run over one source: marks of each frame, number of tracks, counts of zones and lines.

    tracking: None where nothing is tracked; then the marks are those of style alone. plan: zones and lines to count at.
    """

    def __init__(self, style: Style, tracking: Tracking | None, plan: ZonePlan | None) -> None:
        if plan is not None and tracking is None:
            raise ValueError("zones count tracks, so they need tracking")
        self._style = style
        self._trails = None if tracking is None else Trails()
        self._counter = None if plan is None or tracking is None else ZoneCounter(plan, forget_s=tracking.buffer_s + 1)
        self._highest = 0
        self._unnamed: set[int] = set()  # ids below the highest that were not shown yet
        self.tracks = 0

    def marks(self, shown: Detections, pts_s: float, size_hw: tuple[int, int]) -> list[Mark]:
        """What to draw on the next frame, in which these boxes are shown: zones, trails, then boxes and labels."""
        below: list[Mark] = []
        if self._counter is not None:
            self._counter.update(shown, pts_s, size_hw)
            below += zone_marks(self._counter.plan, self._counter.counts(), size_hw)
        if self._trails is not None:
            self._trails.add(shown, pts_s)
            below += self._trails.marks(size_hw, by_track=self._style.by_track)
            self._count_tracks(shown)
        return [*below, *self._style.marks(shown, size_hw)]

    def _count_tracks(self, shown: Detections) -> None:
        """Ids grow by one, so those passed over are all that has to be remembered."""
        for track in (shown.track_of(row) for row in range(len(shown))):
            if track is not None and track > self._highest:
                self._unnamed.update(range(self._highest + 1, track))
                self._highest = track
                self.tracks += 1
            elif track in self._unnamed:
                self._unnamed.remove(track)
                self.tracks += 1

    @property
    def zones(self) -> tuple[ShapeCount, ...]:
        """Counts up to the last frame; none where no zones were given."""
        return () if self._counter is None else self._counter.counts()
