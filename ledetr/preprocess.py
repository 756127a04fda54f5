"""A frame to the pixels the network sees, and the way back for boxes."""

from dataclasses import dataclass

import cv2
import numpy as np

from ledetr.boxes import clip_xyxy


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a source picture lies in the network input: stretched over the whole of it (no aspect kept).

    source_hw: height and width of the source picture; input_hw: of the network input.
    """

    source_hw: tuple[int, int]
    input_hw: tuple[int, int]

    def to_source(self, boxes_xyxy_norm: np.ndarray) -> np.ndarray:
        """(N, 4) corners in 0..1 of the network input to pixels of the source, clipped to it; float32."""
        height, width = self.source_hw
        scale = np.array([width, height, width, height], dtype=np.float32)
        return clip_xyxy(boxes_xyxy_norm.astype(np.float32) * scale, width, height)

    def to_input(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """(N, 4) corners in pixels of the source to 0..1 of the network input; float32."""
        height, width = self.source_hw
        return boxes_xyxy.astype(np.float32) / np.array([width, height, width, height], dtype=np.float32)


def preprocess(rgb: np.ndarray, input_hw: tuple[int, int]) -> tuple[np.ndarray, Placement]:
    """Network pixels (H, W, 3) uint8 of a picture (h, w, 3) uint8, and their placement.

    Plain bilinear resize without keeping the aspect, as the detector was trained. Scaling to float is part of the
    network, so every engine is fed the same bytes.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"rgb must be a non-empty (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}")
    source_hw = (rgb.shape[0], rgb.shape[1])
    placement = Placement(source_hw, input_hw)
    if source_hw == input_hw:
        return np.ascontiguousarray(rgb), placement
    pixels = cv2.resize(rgb, (input_hw[1], input_hw[0]), interpolation=cv2.INTER_LINEAR)
    return pixels, placement
