"""Which boxes are seen: the score threshold, thresholds of single classes, and the classes that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ledetr.detections import Detections


@dataclass(frozen=True, slots=True)
class ClassFilter:
    """conf: the threshold of all classes but those in own_conf, by name. shown: names; None = all.

    By name, so that it outlives a change of model.
    """

    conf: float
    own_conf: Mapping[str, float] = field(default_factory=dict)
    shown: frozenset[str] | None = None

    def conf_of(self, name: str) -> float:
        """The threshold in force for a class."""
        return self.own_conf.get(name, self.conf)

    def mask(self, detections: Detections) -> np.ndarray:
        """(N,) bool: which of them are seen."""
        names = detections.class_names
        highest = int(detections.class_id.max()) + 1 if len(detections) else 0
        never = float("inf")
        least = np.full(max(len(names), highest), self.conf if self.shown is None else never)
        for number, name in enumerate(names):
            least[number] = self.conf_of(name) if self.shown is None or name in self.shown else never
        keep: np.ndarray = detections.confidence >= least[detections.class_id]
        return keep
