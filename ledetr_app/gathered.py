"""What was found in the frames of one source, in bounded memory, as rows of boxes or of tracks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ledetr.chain.pipeline import Result
from ledetr.chain.side_files import PictureResult
from ledetr.detections import Detections
from ledetr_app.class_filter import ClassFilter

MOST_FRAMES = 50_000
MOST_BOXES = 200_000
_LET_GO = 4  # of what is too much the oldest quarter goes, so that this happens rarely

# order: of files the time, of live sources the number of the result, since their clock may begin anew.
_FRAME = np.dtype([("pts_s", "f8"), ("order", "f8"), ("index", "i8"), ("first", "i8"), ("boxes", "i4"), ("valid", "?")])
_BOX = np.dtype([("frame", "i8"), ("class_id", "i8"), ("score", "f4"), ("xyxy", "f4", 4), ("track", "i8")])
NO_INDEX = -1
NO_TRACK = -1


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """R rows as columns of one length. Of boxes: one row a box, in the order of time, best score first in a frame.
    Of tracks: one row a track, in the order of their ids; pts_s, index and xyxy are of the first time it was seen,
    score is its mean.

    pts_s: (R,) seconds. index: (R,) number of the frame, NO_INDEX where the source cannot tell. class_id: (R,).
    score: (R,). xyxy: (R, 4) pixels. track: (R,) ids, NO_TRACK where a box has none. last_s, frames: (R,) until when,
    and in how many frames, a track was seen. let_go: how many frames are held no more.
    """

    by_track: bool = False
    class_names: tuple[str, ...] = ()
    pts_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    class_id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    xyxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    track: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    frames: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    let_go: int = 0

    def __len__(self) -> int:
        return len(self.pts_s)

    def name(self, row: int) -> str:
        """Class name; its number where the model brought no names."""
        class_id = int(self.class_id[row])
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)


class Gathered:
    """Frames are added by one thread and read by others. version grows with each change.

    A frame that was there already (sought again, looked at again) takes the place of the old one. live: frames are
    never the same again.
    """

    def __init__(self, *, most_frames: int = MOST_FRAMES, most_boxes: int = MOST_BOXES) -> None:
        self._most_frames = most_frames
        self._most_boxes = most_boxes
        self._lock = threading.Lock()
        self.version = 0
        self.begin()

    def begin(self, *, live: bool = False) -> None:
        """Another source: forget everything."""
        with self._lock:
            self.version += 1
            self._live = live
            self._frames = np.zeros(256, _FRAME)
            self._boxes = np.zeros(1024, _BOX)
            self._frame_count = self._box_count = self._let_go = 0
            self._row_of: dict[int, int] = {}
            self._class_names: tuple[str, ...] = ()
            self._category_ids: tuple[int, ...] = ()
            self.models: tuple[str, ...] = ()

    def forget_ids(self) -> None:
        """From now on ids begin at 1 again, so those of before mean nothing any more."""
        with self._lock:
            self.version += 1
            self._boxes["track"] = NO_TRACK

    def add(self, result: Result, seen: Detections) -> None:
        """The boxes that were seen in a frame. With the names of another model everything begins anew."""
        if self._class_names not in ((), seen.class_names) and seen.class_names:
            self.begin(live=self._live)
        with self._lock:
            self.version += 1
            if seen.class_names:
                self._class_names, self._category_ids = seen.class_names, seen.category_ids
            if seen.model_id and seen.model_id not in self.models:
                self.models = (*self.models, seen.model_id)
            seen = seen[: self._most_boxes // _LET_GO]
            self._make_room(len(seen))
            self._append(result, seen)

    def rows(self, class_filter: ClassFilter, *, by_track: bool) -> Rows:
        """Of the boxes that pass the filter."""
        with self._lock:
            frames, boxes = self._frames[: self._frame_count].copy(), self._boxes[: self._box_count].copy()
            names, let_go = self._class_names, self._let_go
        kept = boxes[frames["valid"][boxes["frame"]]]
        kept = kept[class_filter.mask(_detections(kept, names))]
        kept = kept[np.argsort(frames["order"][kept["frame"]], kind="stable")]
        return (_rows_of_tracks if by_track else _rows_of_boxes)(frames, kept, names, let_go)

    def pictures(self, class_filter: ClassFilter) -> Iterator[PictureResult]:
        """Each frame with the boxes that pass the filter, in the order of time, as the writers of lists take it."""
        with self._lock:
            frames, boxes = self._frames[: self._frame_count].copy(), self._boxes[: self._box_count].copy()
            names, categories, models = self._class_names, self._category_ids, self.models
        frames = frames[frames["valid"]]
        frames = frames[np.argsort(frames["order"], kind="stable")]
        numbered = bool((frames["index"] != NO_INDEX).all())
        for number, frame in enumerate(frames):
            of_frame = boxes[frame["first"] : frame["first"] + frame["boxes"]]
            found = _detections(of_frame, names, categories, models[-1] if models else "")
            index = int(frame["index"]) if numbered else number
            yield PictureResult(index, float(frame["pts_s"]), found[class_filter.mask(found)])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the model that looked."""
        return self._class_names

    @property
    def has_tracks(self) -> bool:
        """Whether some box has an id."""
        with self._lock:
            return bool((self._boxes["track"][: self._box_count] != NO_TRACK).any())

    @property
    def nbytes(self) -> int:
        """Of what is held."""
        return self._frames.nbytes + self._boxes.nbytes

    def __len__(self) -> int:
        return int(self._frames["valid"][: self._frame_count].sum())

    def _append(self, result: Result, seen: Detections) -> None:
        meta = result.frame.meta
        row, first, count = self._frame_count, self._box_count, len(seen)
        key = result.number if self._live else meta.pts
        if (old := self._row_of.get(key)) is not None:
            self._frames["valid"][old] = False
        self._row_of[key] = row
        index = NO_INDEX if meta.index is None else meta.index
        order = result.number if self._live else meta.pts_s
        self._frames[row] = (meta.pts_s, order, index, first, count, True)
        new = self._boxes[first : first + count]
        new["frame"], new["class_id"], new["score"], new["xyxy"] = row, seen.class_id, seen.confidence, seen.xyxy
        new["track"] = NO_TRACK if seen.tracker_id is None else seen.tracker_id
        self._frame_count, self._box_count = row + 1, first + count

    def _make_room(self, boxes: int) -> None:
        if self._frame_count >= self._most_frames or self._box_count + boxes > self._most_boxes:
            self._let_oldest_go(boxes)
        self._frames = _grown(self._frames, self._frame_count + 1, self._most_frames)
        self._boxes = _grown(self._boxes, self._box_count + boxes, self._most_boxes)

    def _let_oldest_go(self, boxes: int) -> None:
        """First those that another look has replaced, then those that were gathered first."""
        frames = self._frames[: self._frame_count]
        keep = frames["valid"].copy()
        most = self._most_frames - self._most_frames // _LET_GO
        room = self._most_boxes - self._most_boxes // _LET_GO - boxes
        from_newest = np.cumsum(np.where(keep, frames["boxes"], 0)[::-1])[::-1]
        keep &= (np.cumsum(keep[::-1])[::-1] <= most) & (from_newest <= max(room, 0))
        self._let_go += int((frames["valid"] & ~keep).sum())
        box_keep = keep[self._boxes["frame"][: self._box_count]]
        new_row = np.cumsum(keep) - 1
        held, held_boxes = frames[keep], self._boxes[: self._box_count][box_keep]
        held_boxes["frame"] = new_row[held_boxes["frame"]]
        held["first"] = np.cumsum(held["boxes"]) - held["boxes"]
        self._row_of = {key: int(new_row[row]) for key, row in self._row_of.items() if keep[row]}
        self._frames[: len(held)], self._boxes[: len(held_boxes)] = held, held_boxes
        self._frame_count, self._box_count = len(held), len(held_boxes)


def _grown(array: np.ndarray, needed: int, most: int) -> np.ndarray:
    """With room for what is needed, twice as much as before, at most `most`."""
    if needed <= len(array):
        return array
    larger = np.zeros(max(needed, min(2 * len(array), most)), array.dtype)
    larger[: len(array)] = array
    return larger


def _detections(
    boxes: np.ndarray, names: tuple[str, ...], categories: tuple[int, ...] = (), model_id: str = ""
) -> Detections:
    tracked = bool((boxes["track"] != NO_TRACK).any())
    return Detections(
        boxes["xyxy"],
        boxes["score"],
        boxes["class_id"],
        boxes["track"] if tracked else None,
        class_names=names,
        category_ids=categories,
        model_id=model_id,
    )


def _rows_of_boxes(frames: np.ndarray, boxes: np.ndarray, names: tuple[str, ...], let_go: int) -> Rows:
    of = frames[boxes["frame"]]
    return Rows(
        False,
        names,
        of["pts_s"],
        of["index"],
        boxes["class_id"],
        boxes["score"],
        boxes["xyxy"],
        boxes["track"],
        of["pts_s"],
        np.ones(len(boxes), np.int64),
        let_go,
    )


def _rows_of_tracks(frames: np.ndarray, boxes: np.ndarray, names: tuple[str, ...], let_go: int) -> Rows:
    boxes = boxes[boxes["track"] != NO_TRACK]
    ids, first, group, counts = np.unique(boxes["track"], return_index=True, return_inverse=True, return_counts=True)
    last_s = np.zeros(len(ids))
    np.maximum.at(last_s, group, frames["pts_s"][boxes["frame"]])
    of = frames[boxes["frame"][first]]
    return Rows(
        True,
        names,
        of["pts_s"],
        of["index"],
        boxes["class_id"][first],
        np.bincount(group, boxes["score"], len(ids)) / np.maximum(counts, 1),
        boxes["xyxy"][first],
        ids,
        last_s,
        counts,
        let_go,
    )
