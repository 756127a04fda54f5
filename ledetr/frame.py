"""One picture of a source and the exact moment it belongs to."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour tags of a stream, as the integer codes of ITU-T H.273 (FFmpeg's enums); None means not tagged."""

    matrix: int | None = None
    full_range: bool | None = None
    primaries: int | None = None
    transfer: int | None = None


@dataclass(frozen=True, slots=True)
class FrameMeta:
    """Where a frame comes from and when it is.

    source_id: which source. epoch: grows at each open, reconnect and seek; frames of an old epoch are stale.
    seq: 0, 1, 2, ... within an epoch. pts and time_base: the exact time, pts * time_base seconds.
    t_capture_ns: when the frame left the decoder, on the chain's monotonic clock.
    width, height: of the upright picture. rotation_deg: the clockwise turn that made it upright.
    wall_time_s: Unix time, live sources only. discontinuity: the clock of the source jumped just before.
    index: number of the frame in the file, where the source can tell.
    """

    source_id: str
    epoch: int
    seq: int
    pts: int
    time_base: Fraction
    t_capture_ns: int
    width: int
    height: int
    rotation_deg: int = 0
    colour: Colour = field(default_factory=Colour)
    wall_time_s: float | None = None
    discontinuity: bool = False
    index: int | None = None

    @property
    def pts_s(self) -> float:
        """Time in seconds from the origin of the source's own clock."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """rgb: (H, W, 3) uint8, upright, C-contiguous, read-only."""

    meta: FrameMeta
    rgb: np.ndarray

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise ValueError(f"rgb must be (H, W, 3) uint8, got {self.rgb.shape} {self.rgb.dtype}")
        if self.rgb.shape[:2] != (self.meta.height, self.meta.width):
            raise ValueError(f"rgb is {self.rgb.shape[:2]}, meta says {(self.meta.height, self.meta.width)}")
        self.rgb.flags.writeable = False

    def __repr__(self) -> str:
        m = self.meta
        return f"Frame({m.source_id!r}, epoch={m.epoch}, seq={m.seq}, pts_s={m.pts_s:.3f}, {m.width}x{m.height})"
