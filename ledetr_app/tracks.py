"""Ids, trails and counts of the open source: switched here, made in the thread that infers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ledetr.chain.pipeline import Pipeline, Result
from ledetr.chain.trails import Trails, Way
from ledetr.tracking import Tracking
from ledetr.zones import Line, ShapeCount, Zone, ZoneCounter, ZonePlan
from ledetr_app.store import Store, nothing
from ledetr_app.worker import Worker

BUFFERS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# More than can wait for the screen or for a recording of small pictures.
_KEPT = 256

# What counts at a zone or line does not depend on its name.
Place: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """What was known of things over time when a result was made."""

    ways: tuple[Way, ...] = ()
    counts: Mapping[tuple[type, Place], ShapeCount] = field(default_factory=dict)

    def counts_of(self, plan: ZonePlan) -> tuple[ShapeCount, ...]:
        """Of its zones and lines, in order; zero for one that was drawn later."""
        shapes: tuple[Zone | Line, ...] = (*plan.zones, *plan.lines)
        return tuple(
            replace(self.counts.get(_place(shape)) or _never(shape), name=shape.name) for shape in shapes
        )  # fmt: skip


NOTHING_FOLLOWED = Followed()


class Tracks:
    """Switches tracking of the pipeline, and keeps trails and counts of the newest results by their number.

    on_reset is called when ids begin at 1 again.
    """

    def __init__(self, store: Store, pipeline: Pipeline, control: Worker) -> None:
        self._store = store
        self._pipeline = pipeline
        self._control = control
        self._lock = threading.Lock()
        self._trails = Trails()
        self._epoch: int | None = None
        self._counters: dict[tuple[type, Place], ZoneCounter] = {}
        self._kept: dict[int, Followed] = {}
        self.on_reset: Callable[[], None] = nothing
        pipeline.set_tracking(self._tracking())

    def set_tracking(self, tracking: bool) -> None:
        """Give ids, from 1, or none."""
        self._store.change(tracking=tracking)
        self._hand_on()

    def set_buffer(self, buffer_s: float) -> None:
        """How long a thing may be hidden and still be the same, one of BUFFERS_S; ids begin at 1 again."""
        self._store.change(track_buffer_s=min(BUFFERS_S, key=lambda value: abs(value - buffer_s)))
        self._hand_on()

    def reset(self) -> None:
        """Ids from 1 again, counts from 0."""
        self._hand_on()

    def followed(self, result: Result) -> Followed:
        """Trails and counts up to this result."""
        with self._lock:
            return self._kept.get(result.number, NOTHING_FOLLOWED)

    # In the threads of the pipeline

    def follow(self, result: Result) -> None:
        """There is a newer result."""
        detections, meta, state = result.detections, result.frame.meta, self._store.state
        if not state.tracking or detections.tracker_id is None:
            return
        seen = detections[state.class_filter.mask(detections)]
        with self._lock:
            if meta.epoch != self._epoch:
                self._trails, self._epoch = Trails(), meta.epoch
            self._trails.add(detections, meta.pts_s)
            counts = {}
            for place, counter in self._counters_of(state.zones, state.track_buffer_s):
                counter.update(seen, meta.pts_s, (meta.height, meta.width))
                counts[place] = counter.counts()[0]
            self._kept.pop(result.number, None)
            self._kept[result.number] = Followed(self._trails.ways(), counts)
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]

    def begin(self) -> None:
        """Another source, or ids from 1 again."""
        with self._lock:
            self._trails, self._epoch = Trails(), None
            self._counters.clear()
            self._kept.clear()

    def _counters_of(self, plan: ZonePlan, buffer_s: float) -> list[tuple[tuple[type, Place], ZoneCounter]]:
        """Each shape has a counter of its own, so that one can be moved while the others count on."""
        wanted = {_place(shape): ZonePlan((shape,), (), plan.units, plan.anchor) for shape in plan.zones}
        wanted |= {_place(shape): ZonePlan((), (shape,), plan.units, plan.anchor) for shape in plan.lines}
        self._counters = {
            place: self._counters.get(place) or ZoneCounter(alone, forget_s=buffer_s + 1)
            for place, alone in wanted.items()
        }
        return list(self._counters.items())

    def _hand_on(self) -> None:
        self.begin()
        self._control.submit(self._switch, newest_of="tracking")

    def _switch(self) -> None:
        self._pipeline.set_tracking(self._tracking())
        self.begin()
        self.on_reset()

    def _tracking(self) -> Tracking | None:
        state = self._store.state
        return Tracking(buffer_s=state.track_buffer_s) if state.tracking else None


def _place(shape: Zone | Line) -> tuple[type, Place]:
    return type(shape), shape.points if isinstance(shape, Zone) else (shape.start, shape.end)


def _never(shape: Zone | Line) -> ShapeCount:
    return ShapeCount(shape.name, "zone" if isinstance(shape, Zone) else "line", {}, {})
