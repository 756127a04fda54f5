"""Ids that stay with things from frame to frame, in the manner of ByteTrack (arXiv:2110.06864).

Ours and not a package's: `trackers` 2.6 requires opencv-python, whose Qt breaks the window's; `supervision` has no
tracker since 0.31; `norfair` needs filterpy and rich below 15. All of them count their buffer in frames, so a video of
variable rate, or one read with --stride, would forget sooner or later than it was told to. Here all times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ledetr.boxes import box_iou, cxcywh_to_xyxy, xyxy_to_cxcywh
from ledetr.detections import Detections
from ledetr.frame import FrameMeta

NO_TRACK: Final = -1  # tracker_id of a box that belongs to no track (yet)

# Least overlap for a pair. A good box may have moved, a weak one must lie where the track is.
_LEAST_IOU = 0.2
_LEAST_IOU_WEAK = 0.5
_LEAST_IOU_NEW = 0.3
# A second box this much on top of one that has a track is a second look at the same thing.
_SAME_THING_IOU = 0.7

# Noise of the motion filter, in sizes of the box: what a measured box is off, how fast a new thing may move (a
# second), and how fast its speed may change (a second, and the square root of one). ByteTrack's at 30 frames a second.
_MEASURED_STD = 0.05
_START_SPEED_STD = 1.9
_ACCELERATION_STD = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """How to track. A plain value: each source makes a Tracker of its own from it, so ids begin at 1 at each.

    buffer_s: a thing that was not seen for longer gets a new id when it comes back. start_score: only a box this good
    begins a track; None: the threshold of the detector. low_score: a box below start_score and at least this good may
    continue one. confirm_frames: a track has an id from this frame in a row on, and at once in the first frame.
    class_aware: a track never changes its class; else each box takes the track it overlaps, whatever its class.
    """

    buffer_s: float = 2.0
    start_score: float | None = None
    low_score: float = 0.1
    confirm_frames: int = 2
    class_aware: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.buffer_s < float("inf"):
            raise ValueError(f"buffer_s is a number of seconds, 0 or more, got {self.buffer_s}")
        if self.confirm_frames < 1:
            raise ValueError(f"confirm_frames must be 1 or more, got {self.confirm_frames}")
        for name, score in (("low_score", self.low_score), ("start_score", self.start_score)):
            if score is not None and not 0 <= score <= 1:
                raise ValueError(f"{name} must be in 0..1, got {score}")


@dataclass(slots=True)
class _Tracks:
    """T tracks as arrays. id: 0 until confirmed. box_cxcywh, speed_cxcywh: pixels, and pixels a second.

    variance: (T, 3) of place, of place with speed, and of speed, in sizes of the box; the same for all four numbers,
    because each is filtered by itself with noise in proportion to the box. seen_s: when last found. hits: how often.
    """

    id: np.ndarray
    class_id: np.ndarray
    box_cxcywh: np.ndarray
    speed_cxcywh: np.ndarray
    variance: np.ndarray
    seen_s: np.ndarray
    hits: np.ndarray

    @classmethod
    def begun(cls, box_cxcywh: np.ndarray, class_id: np.ndarray, pts_s: float) -> _Tracks:
        """New ones where these boxes are, at rest as far as one look can tell."""
        count = len(class_id)
        return cls(
            id=np.zeros(count, np.int64),
            class_id=class_id.astype(np.int64),
            box_cxcywh=box_cxcywh.copy(),
            speed_cxcywh=np.zeros((count, 4)),
            variance=np.tile([_MEASURED_STD**2, 0.0, _START_SPEED_STD**2], (count, 1)),
            seen_s=np.full(count, pts_s),
            hits=np.ones(count, np.int64),
        )

    def __len__(self) -> int:
        return len(self.id)

    def columns(self) -> tuple[np.ndarray, ...]:
        return (
            self.id, self.class_id, self.box_cxcywh, self.speed_cxcywh, self.variance, self.seen_s, self.hits
        )  # fmt: skip

    def kept(self, rows: np.ndarray) -> _Tracks:
        return _Tracks(*(column[rows] for column in self.columns()))

    def joined(self, other: _Tracks) -> _Tracks:
        return _Tracks(*(np.concatenate(pair) for pair in zip(self.columns(), other.columns(), strict=True)))

    def move(self, dt_s: float, lost: np.ndarray) -> None:
        """Predict dt_s ahead. A lost one keeps its size: what hid it also cut its last boxes."""
        self.speed_cxcywh[lost, 2:] = 0.0
        self.box_cxcywh += self.speed_cxcywh * dt_s
        self.box_cxcywh[:, 2:] = np.maximum(self.box_cxcywh[:, 2:], 0.0)
        place, both, speed = self.variance.T.copy()
        noise = _ACCELERATION_STD**2
        self.variance[:, 0] = place + 2 * dt_s * both + dt_s**2 * speed + noise * dt_s**3 / 3
        self.variance[:, 1] = both + dt_s * speed + noise * dt_s**2 / 2
        self.variance[:, 2] = speed + noise * dt_s

    def correct(self, rows: np.ndarray, box_cxcywh: np.ndarray, class_id: np.ndarray, pts_s: float) -> None:
        """A Kalman step of these tracks towards the boxes they were found in."""
        place, both, speed = self.variance[rows].T
        total = place + _MEASURED_STD**2
        off = box_cxcywh - self.box_cxcywh[rows]
        self.box_cxcywh[rows] += (place / total)[:, None] * off
        self.speed_cxcywh[rows] += (both / total)[:, None] * off
        left = 1 - place / total
        self.variance[rows] = np.stack([left * place, left * both, speed - both * both / total], axis=1)
        self.class_id[rows] = class_id
        self.seen_s[rows] = pts_s
        self.hits[rows] += 1


class Tracker:
    """Gives the boxes of one source, frame after frame in order, ids from 1 on. Not for several threads at once.

    An id is never given twice before reset: after a jump numbering goes on.
    """

    def __init__(self, tracking: Tracking | None = None) -> None:
        # When tracking is switched on, because it takes a while and most runs do without.
        from scipy.optimize import linear_sum_assignment

        self.tracking = tracking or Tracking()
        self._solve = linear_sum_assignment
        self.reset()

    def reset(self) -> None:
        """Another source: everything is forgotten, ids begin at 1."""
        self._next_id = 1
        self._place: tuple[str, int] | None = None
        self._class_names: tuple[str, ...] | None = None
        self.forget()

    def forget(self) -> None:
        """A jump within the source: whatever comes now is new, under new ids."""
        self._tracks = _Tracks.begun(np.zeros((0, 4)), np.zeros(0, np.int64), 0.0)
        self._now_s: float | None = None

    def follow(self, detections: Detections, meta: FrameMeta, *, start_score: float = 0.5) -> Detections:
        """As update, for a frame of the chain: forgets at a seek, a reconnect and a jump of the source's clock, and
        resets where the frame is of another source."""
        if self._place is not None and self._place[0] != meta.source_id:
            self.reset()
        elif (self._place is not None and self._place[1] != meta.epoch) or meta.discontinuity:
            self.forget()
        self._place = (meta.source_id, meta.epoch)
        return self.update(detections, meta.pts_s, start_score=start_score)

    def update(self, detections: Detections, pts_s: float, *, start_score: float = 0.5) -> Detections:
        """The same boxes in the same order, with tracker_id; NO_TRACK where a box belongs to no track.

        pts_s: time of the frame in seconds; where it goes back all tracks are forgotten, as they are with other
        class names. start_score: what tracking leaves open, see there. Give all boxes that the detector found, also
        weak ones: they carry a track through a moment of doubt. Choose what is shown afterwards.
        """
        first = self._forget_what_does_not_go_on(detections, pts_s)
        tracks, last_s = self._tracks, pts_s if self._now_s is None else self._now_s
        self._now_s = pts_s
        recent = tracks.seen_s == last_s
        tracks.move(pts_s - last_s, ~recent)
        boxes = xyxy_to_cxcywh(detections.xyxy.astype(np.float64))
        overlap = self._overlap(tracks, detections)
        owner = self._owners(tracks, recent, overlap, detections.confidence, self._start_score(start_score))

        found = np.flatnonzero(owner >= 0)
        tracks.correct(owner[found], boxes[found], detections.class_id[found], pts_s)
        confirmed = tracks.hits >= (1 if first else self.tracking.confirm_frames)
        self._name(tracks, [int(row) for row in owner[found] if confirmed[row]])
        new = self._beginnings(tracks, detections, owner, pts_s, self._start_score(start_score))
        begun = _Tracks.begun(boxes[new], detections.class_id[new], pts_s)
        if first or self.tracking.confirm_frames == 1:
            self._name(begun, range(len(begun)))

        tracker_id = np.full(len(detections), NO_TRACK, np.int64)
        tracker_id[found] = tracks.id[owner[found]]
        tracker_id[new] = begun.id
        tracker_id[tracker_id == 0] = NO_TRACK
        going_on = (tracks.seen_s == pts_s) | (tracks.id > 0)
        self._tracks = tracks.kept(going_on).joined(begun)
        return replace(detections, tracker_id=tracker_id)

    def _start_score(self, start_score: float) -> float:
        return start_score if self.tracking.start_score is None else self.tracking.start_score

    def _forget_what_does_not_go_on(self, detections: Detections, pts_s: float) -> bool:
        """Drops jumps, other models' classes and what was lost for too long; whether this is a first frame."""
        if not np.isfinite(pts_s):
            raise ValueError(f"pts_s must be a time in seconds, got {pts_s}")
        if self._now_s is not None and pts_s < self._now_s:
            self.forget()
        if len(detections) and detections.class_names != self._class_names:
            if self._class_names is not None:
                self.forget()
            self._class_names = detections.class_names
        # A hair more than the buffer, because times are floats.
        self._tracks = self._tracks.kept(pts_s - self._tracks.seen_s <= self.tracking.buffer_s + 1e-6)
        return self._now_s is None

    def _overlap(self, tracks: _Tracks, detections: Detections) -> np.ndarray:
        """(T, N) intersection over union of the predicted tracks and the boxes; 0 where they cannot be the same."""
        overlap = box_iou(cxcywh_to_xyxy(tracks.box_cxcywh), detections.xyxy.astype(np.float64))
        if self.tracking.class_aware:
            overlap[tracks.class_id[:, None] != detections.class_id[None, :]] = 0.0
        return overlap

    def _owners(
        self, tracks: _Tracks, recent: np.ndarray, overlap: np.ndarray, confidence: np.ndarray, start_score: float
    ) -> np.ndarray:
        """(N,) row of the track that each box continues, -1 for none.

        First good boxes with known tracks, then weak boxes with tracks that were there a frame ago, then the good
        boxes that are left with tracks of one frame.
        """
        owner = np.full(len(confidence), -1, np.int64)
        taken = np.zeros(len(tracks), bool)
        known, good = tracks.id > 0, confidence >= start_score
        weak = ~good & (confidence >= self.tracking.low_score)
        for rows, columns, least in (
            (known, good, _LEAST_IOU),
            (known & recent, weak, _LEAST_IOU_WEAK),
            (~known, good, _LEAST_IOU_NEW),
        ):
            free_rows, free_columns = np.flatnonzero(rows & ~taken), np.flatnonzero(columns & (owner < 0))
            pairs = self.best_pairs(overlap[np.ix_(free_rows, free_columns)], least)
            owner[free_columns[pairs[1]]] = free_rows[pairs[0]]
            taken[free_rows[pairs[0]]] = True
        return owner

    def best_pairs(self, overlap: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of those pairs, none below `least`, that overlap most in sum; each row and column once."""
        allowed = overlap >= least
        rows, columns = self._solve(np.where(allowed, overlap, 0.0), maximize=True)
        kept = allowed[rows, columns]
        return rows[kept], columns[kept]

    def _beginnings(
        self, tracks: _Tracks, detections: Detections, owner: np.ndarray, pts_s: float, start_score: float
    ) -> np.ndarray:
        """Indices of the boxes that begin a track: good, nobody's, and no second look at what has one."""
        candidates = np.flatnonzero((owner < 0) & (detections.confidence >= start_score))
        candidates = candidates[np.isfinite(detections.xyxy[candidates]).all(1)]
        same = box_iou(detections.xyxy, detections.xyxy) >= _SAME_THING_IOU
        if self.tracking.class_aware:
            same &= detections.class_id[:, None] == detections.class_id[None, :]
        taken = owner >= 0
        begun = []
        for index in candidates:  # best score first
            if not (same[index] & taken).any():
                begun.append(index)
                taken[index] = True
        return np.array(begun, np.int64)

    def _name(self, tracks: _Tracks, rows: list[int] | range) -> None:
        """Give the next ids to those of the rows that have none."""
        for row in rows:
            if tracks.id[row] == 0:
                tracks.id[row] = self._next_id
                self._next_id += 1
