"""Zones and lines of each source: drawn, moved, named, kept, and read from and written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledetr.errors import UsageError
from ledetr.zones import Line, Point, Zone, ZonePlan, load_zones, save_zones
from ledetr_app.drawing import (
    Drawing,
    Tool,
    free_name,
    inside,
    moved,
    points_of,
    relative,
    renamed,
    shapes_of,
    with_changed,
    with_shape,
)
from ledetr_app.state import Problem
from ledetr_app.store import Store, nothing
from ledetr_app.worker import Worker

MOST_SOURCES = 50
MOST_LETTERS = 200_000  # of all that is kept, as JSON: a fifth of the largest settings file


class ZoneBook:
    """state.zones is the plan of the open source, always in parts of the picture; state.drawing what is being drawn.

    kept: by source, newest last, the plans of earlier runs and of this one. on_kept is called when they change;
    switch_tracking when something is to be counted. What is wrong becomes state.problem.
    """

    def __init__(self, store: Store, files: Worker, kept: Mapping[str, ZonePlan]) -> None:
        self._store = store
        self._files = files
        self._key = ""
        self.kept: dict[str, ZonePlan] = dict(kept)
        self.on_kept: Callable[[], None] = nothing
        self.switch_tracking: Callable[[bool], None] = lambda _tracking: None

    def plan_for(self, source: str) -> ZonePlan | None:
        """What was drawn for a source, by its path or address; None where nothing was."""
        return self.kept.get(source)

    def follow_source(self, key: str) -> None:
        """This source is open now."""
        self._key = key
        self._store.change(zones=self.kept.get(key, ZonePlan()), drawing=Drawing())

    def set_panel(self, shown: bool) -> None:
        """Unfold or fold the list of zones; the queue and the results make room."""
        folded = {"queue_panel": False, "results_panel": False} if shown else {}
        drawing = {} if shown else {"drawing": Drawing()}
        self._store.change(zones_panel=shown, **folded, **drawing)

    # Drawing

    def take(self, tool: Tool) -> None:
        """Begin to draw a zone or a line, or to move points; the same tool once more puts it away."""
        state = self._store.state
        if state.source is None:
            self._store.change(problem=Problem("There is no picture to draw on yet: open a source first."))
            return
        if tool in ("", state.drawing.tool):
            self._draw(Drawing(selected=state.drawing.selected))
            return
        self.set_panel(True)
        selected = state.drawing.selected
        if tool == "edit" and selected is None and shapes_of(state.zones):
            selected = 0
        self._draw(Drawing(tool, selected=selected))

    def cancel(self) -> None:
        """Forget what was begun; nothing is drawn and nothing is selected any more."""
        self._draw(Drawing())

    def point_to(self, at: Point) -> None:
        """The mouse, or the keys, lead here."""
        drawing = self._store.state.drawing
        self._draw(replace(drawing, cursor=inside(at)))

    def add_point(self, at: Point | None = None) -> None:
        """A corner of the zone, an end of the line; by default where the cursor is. A line is done with its second."""
        drawing = self._store.state.drawing
        if drawing.tool not in ("zone", "line"):
            return
        at = drawing.cursor if at is None else inside(at)
        if drawing.points and drawing.points[-1] == at:
            return
        self._draw(replace(drawing, points=(*drawing.points, at), cursor=at))
        if drawing.tool == "line" and len(drawing.points) == 1:
            self.finish()

    def take_back_point(self) -> None:
        """The last one was wrong."""
        drawing = self._store.state.drawing
        self._draw(replace(drawing, points=drawing.points[:-1]))

    def finish(self) -> None:
        """Close the zone, or the line, that is being drawn; tracking goes on, since counting needs it."""
        drawing, plan = self._store.state.drawing, self._store.state.zones
        points = drawing.points
        if drawing.tool == "zone" and len(points) < 3:
            self._store.change(problem=Problem("A zone has three corners or more: click them one after the other."))
        elif drawing.tool == "zone":
            self._finish_with(Zone(free_name(plan, "Zone"), points))
        elif drawing.tool == "line" and len(points) == 2:
            self._finish_with(Line(free_name(plan, "Line"), *points))

    def _finish_with(self, shape: Zone | Line) -> None:
        if self._try(lambda plan: with_shape(plan, shape)):
            self._draw(Drawing(selected=shapes_of(self._store.state.zones).index(shape)))
            self._count()

    # What is there already

    def select(self, row: int | None) -> None:
        """This zone or line; None: none."""
        drawing, count = self._store.state.drawing, len(shapes_of(self._store.state.zones))
        row = row if row is not None and 0 <= row < count else None
        if row != drawing.selected:
            self._draw(replace(drawing, selected=row, grabbed=None))

    def grab(self, row: int, point: int) -> None:
        """Take hold of a point."""
        at = points_of(shapes_of(self._store.state.zones)[row])[point]
        self._draw(replace(self._store.state.drawing, selected=row, grabbed=point, cursor=at))

    def grab_next(self) -> None:
        """Take hold of the next point of the selected shape."""
        drawing, shapes = self._store.state.drawing, shapes_of(self._store.state.zones)
        if drawing.selected is not None:
            count = len(points_of(shapes[drawing.selected]))
            self.grab(drawing.selected, 0 if drawing.grabbed is None else (drawing.grabbed + 1) % count)

    def drop(self) -> None:
        """Let the grabbed point be where the cursor is."""
        drawing = self._store.state.drawing
        row, point = drawing.selected, drawing.grabbed
        if row is None or point is None:
            return
        self._draw(replace(drawing, grabbed=None))
        self._change(lambda plan: with_changed(plan, row, moved(shapes_of(plan)[row], point, drawing.cursor)))

    def move_grabbed(self, by: Point) -> None:
        """Move the grabbed point at once, and keep hold of it."""
        drawing = self._store.state.drawing
        if drawing.grabbed is not None:
            grabbed, at = drawing.grabbed, drawing.cursor
            self.point_to((at[0] + by[0], at[1] + by[1]))
            self.drop()
            self._draw(replace(self._store.state.drawing, grabbed=grabbed))

    def rename(self, row: int, name: str) -> None:
        """Call a zone or line by another name."""
        self._change(lambda plan: with_changed(plan, row, renamed(shapes_of(plan)[row], name)))

    def remove_selected(self) -> None:
        """The selected zone or line goes."""
        row = self._store.state.drawing.selected
        if row is not None:
            self._draw(replace(self._store.state.drawing, selected=None, grabbed=None))
            self._change(lambda plan: with_changed(plan, row, None))

    # Files

    def load(self, path: Path) -> None:
        """Take the zones of a file, as `ledetr detect --zones` reads it, in place of those that are there."""
        self._files.submit(lambda: self._load(path))

    def save(self, path: Path) -> None:
        """Write them as `ledetr detect --zones` reads them."""
        plan = self._store.state.zones
        if not shapes_of(plan):
            self._store.change(problem=Problem("There are no zones to save yet: draw one first (Z)."))
            return

        def write() -> None:
            save_zones(plan, path)
            self._store.toast(f"Zones saved: {path.name}", path)

        self._files.submit(write)

    def _load(self, path: Path) -> None:
        shown = self._store.shown
        if shown is None:
            raise UsageError("Zones belong to a picture: open a source first, then load them.")
        plan = load_zones(path)
        meta = shown.frame.meta
        try:
            plan = relative(plan, (meta.width, meta.height))
        except ValueError as error:
            raise UsageError(
                f"{path.name} does not fit this picture of {meta.width} x {meta.height}: {error}."
            ) from error
        self._keep(plan)
        self._draw(Drawing())
        self._count()

    # Keeping

    def _change(self, change: Callable[[ZonePlan], ZonePlan]) -> None:
        self._try(change)

    def _try(self, change: Callable[[ZonePlan], ZonePlan]) -> bool:
        """False, and a sentence, where the plan cannot be so."""
        try:
            plan = change(self._store.state.zones)
        except ValueError as error:
            words = str(error)
            self._store.change(problem=Problem(f"This cannot be: {words}."))
            return False
        self._keep(plan)
        return True

    def _keep(self, plan: ZonePlan) -> None:
        self._store.change(zones=plan)
        self.kept.pop(self._key, None)
        if shapes_of(plan) and self._key:
            self.kept[self._key] = plan
        while len(self.kept) > MOST_SOURCES or (len(self.kept) > 1 and _letters(self.kept) > MOST_LETTERS):
            del self.kept[next(iter(self.kept))]
        self.on_kept()

    def _count(self) -> None:
        if not self._store.state.tracking:
            self.switch_tracking(True)

    def _draw(self, drawing: Drawing) -> None:
        self._store.change(drawing=drawing)


def _letters(kept: Mapping[str, ZonePlan]) -> int:
    return len(json.dumps(plans_to_json(kept)))


def plans_to_json(kept: Mapping[str, ZonePlan]) -> dict[str, Any]:
    """As they stand in the settings."""
    return {source: plan.to_json() for source, plan in kept.items()}
