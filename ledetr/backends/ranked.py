"""Model files that end in ranked detections: labels, boxes, scores. One class for whichever engine runs them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ledetr.backends.base import BackendInfo, RankedOutputs
from ledetr.errors import WeightsError

SIZES = "orig_target_sizes"
OURS = ("pixels", SIZES)  # (B, H, W, 3) uint8: as `ledetr export --with-postprocess` writes them
OTHERS = ("images", SIZES)  # (B, 3, H, W) float32 in 0..1: as D-FINE, DEIM and RT-DETR write them
OUTPUTS = ("labels", "boxes", "scores")

Call = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class RankedBackend:
    """Feeds such a file and scales its boxes to 0..1 of the network input."""

    def __init__(self, info: BackendInfo, call: Call, *, picture: str, whole_batches: bool) -> None:
        """call: inputs by name to outputs by name. picture: name of the picture input, which tells its form.

        whole_batches: False for a file of one picture; a batch is then run row by row.
        """
        self.info = info
        self._call: Call | None = call
        self._picture = picture
        self._whole_batches = whole_batches

    def run(self, pixels: np.ndarray) -> RankedOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        if self._whole_batches:
            return self._run(pixels)
        rows = [self._run(pixels[row : row + 1]) for row in range(len(pixels))]
        columns = zip(*((row.labels, row.boxes_xyxy, row.scores) for row in rows), strict=True)
        return RankedOutputs(*(np.concatenate(column) for column in columns))

    def _run(self, pixels: np.ndarray) -> RankedOutputs:
        if self._call is None:
            raise ValueError("this engine is closed")
        height, width = self.info.input_hw
        # The input's own size is named as the source's, so boxes come in its pixels, whatever order the file takes
        # width and height in when both are equal; Placement brings them to the source picture, as for all engines.
        sizes = np.array([[width, height]] * len(pixels), np.int64)
        answer = self._call({self._picture: self._form(pixels), SIZES: sizes})
        labels, boxes, scores = (answer[name] for name in OUTPUTS)
        if not (labels.ndim == 2 and scores.shape == labels.shape and boxes.shape == (*labels.shape, 4)):
            raise WeightsError(
                f"the model file gives labels {labels.shape}, boxes {boxes.shape} and scores {scores.shape}; expected "
                f"(B, K), (B, K, 4) and (B, K)"
            )
        scale = np.array([width, height, width, height], np.float32)
        return RankedOutputs(labels.astype(np.int64), boxes.astype(np.float32) / scale, scores.astype(np.float32))

    def _form(self, pixels: np.ndarray) -> np.ndarray:
        if self._picture == OURS[0]:
            return np.ascontiguousarray(pixels)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)

    def close(self) -> None:
        """Let the engine go; legal more than once."""
        self._call = None
