"""What the detector found in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ledetr.boxes import xyxy_to_cxcywh, xyxy_to_xywh

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one picture, best score first; arrays of one length N, indexable by mask, slice or index array.

    xyxy: (N, 4) float32, pixels of the upright source picture. confidence: (N,) float32 in 0..1.
    class_id: (N,) int64, contiguous 0..K-1. tracker_id: (N,) int64, from 1, -1 for a box of no track;
    None where nothing was tracked.
    class_names: the K names. category_ids: the data set's own K ids.
    model_id: which model found them. score_floor: scores below it were never looked at.
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    tracker_id: np.ndarray | None = None
    class_names: tuple[str, ...] = field(default=(), repr=False)
    category_ids: tuple[int, ...] = field(default=(), repr=False)
    model_id: str = ""
    score_floor: float = 0.0

    def __post_init__(self) -> None:
        n = len(self.confidence)
        if self.xyxy.shape != (n, 4):
            raise ValueError(f"xyxy must be ({n}, 4), got {self.xyxy.shape}")
        if self.class_id.shape != (n,):
            raise ValueError(f"class_id must be ({n},), got {self.class_id.shape}")
        if self.tracker_id is not None and self.tracker_id.shape != (n,):
            raise ValueError(f"tracker_id must be ({n},), got {self.tracker_id.shape}")

    @classmethod
    def empty(cls, **fields: Any) -> Detections:
        """No boxes; class_names, model_id etc. as given."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), **fields)

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, rows: np.ndarray | slice | Sequence[int]) -> Detections:
        tracker_id = None if self.tracker_id is None else self.tracker_id[rows]
        return replace(
            self,
            xyxy=self.xyxy[rows],
            confidence=self.confidence[rows],
            class_id=self.class_id[rows],
            tracker_id=tracker_id,
        )

    def __iter__(self) -> Iterator[tuple[np.ndarray, float, int]]:
        """(xyxy, confidence, class_id) of each box."""
        for box, score, label in zip(self.xyxy, self.confidence, self.class_id, strict=True):
            yield box, float(score), int(label)

    @property
    def xywh(self) -> np.ndarray:
        """(N, 4): left, top, width, height, as COCO writes boxes."""
        return xyxy_to_xywh(self.xyxy)

    @property
    def cxcywh(self) -> np.ndarray:
        """(N, 4): centre and size in pixels."""
        return xyxy_to_cxcywh(self.xyxy)

    @property
    def names(self) -> list[str]:
        """Class name of each box."""
        return [self.class_name(i) for i in self.class_id]

    def class_name(self, class_id: int) -> str:
        """Name of a class; its number where the model brought no names."""
        return self.class_names[class_id] if class_id < len(self.class_names) else str(class_id)

    def track_of(self, row: int) -> int | None:
        """Id of the track of one box, None where it has none."""
        if self.tracker_id is None or self.tracker_id[row] < 0:
            return None
        return int(self.tracker_id[row])

    def filter(self, *, conf: float = 0.0, class_ids: Sequence[int] | None = None) -> Detections:
        """Those with score >= conf and, where given, one of the classes."""
        keep = self.confidence >= conf
        if class_ids is not None:
            keep &= np.isin(self.class_id, np.asarray(list(class_ids), dtype=np.int64))
        return self[keep]

    def to_json(self) -> list[dict[str, Any]]:
        """One plain dict a box: xyxy, confidence, class_id, class_name and, with tracking, tracker_id or None."""
        rows = []
        for i, (box, score, label) in enumerate(self):
            row: dict[str, Any] = {
                "xyxy": [round(float(v), 2) for v in box],
                "confidence": round(score, 4),
                "class_id": label,
                "class_name": self.class_name(label),
            }
            if self.tracker_id is not None:
                row["tracker_id"] = self.track_of(i)
            rows.append(row)
        return rows

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO results rows: the data set's own category ids, boxes as left, top, width, height; full precision."""
        if not self.category_ids:
            raise ValueError("these detections carry no category ids, so no COCO results can be written")
        return [
            {
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "bbox": [float(v) for v in box],
                "score": score,
            }
            for box, (_, score, label) in zip(self.xywh, self, strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """The same boxes for the package supervision (extra: ledetr[supervision])."""
        import supervision

        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.confidence.copy(),
            class_id=self.class_id.astype(int),
            tracker_id=None if self.tracker_id is None else self.tracker_id.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )
