"""What is seen of the detections and of the picture: thresholds, classes, overlay, selection, view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ledetr.chain.overlay import RANDOM_WEIGHTS, LabelMark, Mark, PathMark, Pen, marks_of, notice_mark
from ledetr.chain.pipeline import Result
from ledetr.chain.trails import zone_marks
from ledetr.detections import Detections
from ledetr.zones import ShapeCount
from ledetr_app.drawing import shapes_of
from ledetr_app.selection import Selection, follow, select
from ledetr_app.store import Store
from ledetr_app.tracks import Tracks
from ledetr_app.viewport import View

CONF_RANGE = (0.05, 0.95)
LINE_WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0)


class Display:
    """Choices that cost no inference: the boxes are there already."""

    def __init__(self, store: Store, tracks: Tracks) -> None:
        self._store = store
        self._tracks = tracks
        self._selection: Selection | None = None

    def set_conf(self, conf: float) -> None:
        """Score threshold, kept within 0.05..0.95. Costs no inference: the boxes are there already."""
        self._store.change(own_conf=_within_range(conf))

    def set_classes(self, names: frozenset[str] | None) -> None:
        """Show only these class names; None: all."""
        self._store.change(shown_classes=names)

    def set_class_conf(self, name: str, conf: float | None) -> None:
        """A threshold for one class alone, kept within 0.05..0.95; None: that of all."""
        others = {other: value for other, value in self._store.state.class_conf.items() if other != name}
        own = {} if conf is None else {name: _within_range(conf)}
        self._store.change(class_conf=others | own)

    def clear_class_confs(self) -> None:
        """One threshold for all classes."""
        self._store.change(class_conf={})

    def show(
        self,
        *,
        boxes: bool | None = None,
        labels: bool | None = None,
        scores: bool | None = None,
        ids: bool | None = None,
        trails: bool | None = None,
        by_track: bool | None = None,
    ) -> None:
        """Switch parts of the overlay; None leaves a part as it is."""
        changes = {
            "boxes": boxes, "labels": labels, "scores": scores, "ids": ids, "trails": trails, "by_track": by_track
        }  # fmt: skip
        self._store.change(**{name: value for name, value in changes.items() if value is not None})

    def set_line_weight(self, weight: float) -> None:
        """Thinner or thicker lines, 0.5 to 3 times the usual."""
        self._store.change(line_weight=min(max(weight, LINE_WEIGHTS[0]), LINE_WEIGHTS[-1]))

    def set_view(self, view: View) -> None:
        """Look at another part of the picture, or at all of it."""
        self._store.change(view=view)

    # The picture that is shown

    def set_shown(self, result: Result | None) -> None:
        """The window turns to this result: position, counts, snapshots and steps are about it from now on."""
        if result is None:
            self._selection = None
        elif self._selection is not None and result is not self._store.shown:
            self._selection = follow(self._selection, result, self._mask(result.detections))
        self._store.shown = result

    def select_at(self, x: float, y: float) -> None:
        """Select the box at this point of the picture that is shown; none where there is none."""
        shown, self._selection = self._store.shown, None
        if shown is not None and self._store.state.boxes:
            self._selection = select(shown, self._mask(shown.detections), x, y)
        self._store.on_change()

    def clear_selection(self) -> None:
        """No box is selected."""
        self._selection = None
        self._store.on_change()

    @property
    def selected(self) -> Detections | None:
        """One row: the selected box as it is in the picture that is shown; None where none is, or it is not seen."""
        selection = self._selection
        if selection is None or selection.found is None or not self._store.state.boxes:
            return None
        return selection.found if self._mask(selection.found)[0] else None

    # What is drawn

    def seen(self, result: Result) -> Detections:
        """Its detections that pass the thresholds and the class filter."""
        return result.detections[self._mask(result.detections)]

    def marks(
        self, result: Result, size_hw: tuple[int, int] | None = None, fitted_hw: tuple[int, int] | None = None
    ) -> list[Mark]:
        """What is drawn over that result with the present choices.

        size_hw: of the picture as it is drawn on, by default in its own pixels. A small picture that is shown large
        gets lines and letters for the large one. fitted_hw: the size that these are right for, where it is another.
        """
        state, meta = self._store.state, result.frame.meta
        height, width = size_hw or (meta.height, meta.width)
        pen = Pen.of(fitted_hw or (height, width), weight=state.line_weight)
        zones = self._zone_marks(result, (height, width), pen)
        rims = [mark for mark in zones if not isinstance(mark, LabelMark)]
        counts = [mark for mark in zones if isinstance(mark, LabelMark)]  # over all, since they do not move away
        if not state.boxes:
            return [*rims, *counts]
        seen = self.seen(result)
        scale_xy = np.array([width / meta.width, height / meta.height], np.float32)
        trails = self._trail_marks(result, seen, scale_xy, pen) if state.tracking and state.trails else []
        boxes = marks_of(
            replace(seen, xyxy=seen.xyxy * np.tile(scale_xy, 2)),
            conf=0.0,
            labels=state.labels,
            scores=state.scores,
            ids=state.ids,
            by_track=state.by_track,
            size_hw=(height, width),
            pen=pen,
        )
        return [*rims, *trails, *boxes, *counts]

    def counts(self, result: Result) -> tuple[ShapeCount, ...]:
        """At the zones and lines of the open source, up to this result."""
        return self._tracks.followed(result).counts_of(self._store.state.zones)

    def _zone_marks(self, result: Result, size_hw: tuple[int, int], pen: Pen) -> list[Mark]:
        plan = self._store.state.zones
        if not shapes_of(plan):
            return []
        return zone_marks(plan, self.counts(result), size_hw, pen=pen, by_class=True)

    def _trail_marks(self, result: Result, seen: Detections, scale_xy: np.ndarray, pen: Pen) -> list[Mark]:
        """Of things whose box is seen."""
        there = {seen.track_of(row) for row in range(len(seen))}
        scale_x, scale_y = (float(scale) for scale in scale_xy)
        by_track = self._store.state.by_track
        return [
            PathMark(
                tuple((x * scale_x, y * scale_y) for x, y in way.points_xy), way.colour(by_track=by_track), pen.line_px
            )
            for way in self._tracks.followed(result).ways
            if way.track in there
        ]

    def marks_to_keep(self, result: Result) -> list[Mark]:
        """The same for a file or the clipboard, where the picture itself must say that the weights are random."""
        marks, running = self.marks(result), self._store.state.running
        if running is None or not running.random_weights or not self._store.state.boxes:
            return marks
        notice = notice_mark(RANDOM_WEIGHTS, (result.frame.meta.height, result.frame.meta.width))
        return marks if notice is None else [*marks, notice]

    def _mask(self, detections: Detections) -> np.ndarray:
        return self._store.state.class_filter.mask(detections)


def _within_range(conf: float) -> float:
    return round(min(max(conf, CONF_RANGE[0]), CONF_RANGE[1]), 2)
