"""Model files that give every box they considered: NanoDet-Plus and PicoDet with box decoding in the graph.

They take images (B, 3, S, S) float32 in 0..255, RGB, and give boxes (B, A, 4), corners in pixels of the input, and
scores (B, A, K) in 0..1. What is left to do is to keep the best boxes and drop those that say the same again.
A boxes, K classes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ledetr.backends import BackendInfo, ModelFile, RankedOutputs
from ledetr.backends.onnx_file import OnnxFile
from ledetr.backends.onnx_runtime import ENGINE_ERRORS, first_line, open_session, picture_hw
from ledetr.boxes import paired_iou
from ledetr.detector import Detector
from ledetr.errors import WeightsError
from training.fusion import MAX_BOXES, OVERLAP, SCORE_FLOOR

OUTPUTS = ("boxes", "scores")


def is_dense(file: OnnxFile) -> bool:
    """Whether the file gives boxes and scores and no labels."""
    return set(file.outputs) == set(OUTPUTS)


def open_dense(file: OnnxFile, *, threads: int | None = None) -> Detector:
    """A detector on such a file, checked by read_onnx() before. WeightsError, one sentence, where it does not fit."""
    path = file.path
    try:
        session = open_session(file.content, threads)
    except ENGINE_ERRORS as error:
        raise WeightsError(f"{str(path)!r} is no ONNX file that ONNX Runtime can open: {first_line(error)}") from error
    inputs = session.get_inputs()
    if [value.name for value in inputs] != ["images"]:
        names = ", ".join(value.name[:40] for value in inputs[:6])
        raise WeightsError(f"{str(path)!r} gives boxes and scores but takes {names or 'nothing'}; expected images")
    input_hw = picture_hw(path, inputs[0], "tensor(float)", channels=1)
    classes = next(value.shape for value in session.get_outputs() if value.name == "scores")[-1:]
    if not (classes and isinstance(classes[0], int) and classes[0] > 0):
        raise WeightsError(f"{str(path)!r} does not show how many classes it tells apart, so none can be named")
    backend = DenseBackend(path, session, input_hw)
    try:
        return Detector.of_others(ModelFile(backend, None, classes=classes[0]), path)
    except BaseException:
        backend.close()
        raise


class DenseBackend:
    """Runs the file picture by picture and ranks what it gives, MAX_BOXES rows for each; label -1 fills the rest."""

    def __init__(self, path: Path, session: Any, input_hw: tuple[int, int]) -> None:
        self.info = BackendInfo("onnx", "cpu", "fp32", input_hw)
        self._path = path
        self._session: Any = session

    def run(self, pixels: np.ndarray) -> RankedOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        labels = np.full((len(pixels), MAX_BOXES), -1, np.int64)
        boxes = np.zeros((len(pixels), MAX_BOXES, 4), np.float32)
        scores = np.zeros((len(pixels), MAX_BOXES), np.float32)
        for row, picture in enumerate(pixels):
            label, box, score = suppressed(*self._run(picture))
            labels[row, : len(label)], boxes[row, : len(box)], scores[row, : len(score)] = label, box, score
        return RankedOutputs(labels, boxes, scores)

    def _run(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(A, 4) in 0..1 of the input and (A, K) of one picture."""
        if self._session is None:
            raise ValueError("this engine is closed")
        images = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32)
        try:
            boxes, scores = self._session.run(list(OUTPUTS), {"images": images})
        except ENGINE_ERRORS as error:
            raise WeightsError(f"ONNX Runtime cannot run {str(self._path)!r}: {first_line(error)}") from error
        fit = scores.ndim == 3 and len(scores) == 1 and boxes.shape == (1, scores.shape[1], 4)
        if not fit or boxes.dtype.kind != "f" or scores.dtype.kind != "f":
            raise WeightsError(
                f"{str(self._path)!r} gives boxes {boxes.shape} {boxes.dtype} and scores {scores.shape} "
                f"{scores.dtype}; expected floats (B, A, 4) and (B, A, K)"
            )
        height, width = self.info.input_hw
        scale = np.array([width, height, width, height], np.float32)
        return boxes[0].astype(np.float32) / scale, scores[0].astype(np.float32)

    def close(self) -> None:
        """Let the session go; legal more than once."""
        self._session = None


def suppressed(boxes_xyxy: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, boxes and scores after suppression within each class, best first, MAX_BOXES at most.

    boxes_xyxy: (A, 4) in 0..1, clipped first. scores: (A, K); those of SCORE_FLOOR and less, and boxes that are not
    finite, are left out. A box goes where a better one of its class overlaps it by more than OVERLAP.
    """
    finite = np.isfinite(boxes_xyxy).all(1)
    box, label = np.nonzero((scores > SCORE_FLOOR) & finite[:, None])
    order = np.argsort(-scores[box, label], kind="stable")
    box, label = box[order], label[order]
    corners = boxes_xyxy[box].clip(0, 1)
    left = np.ones(len(box), bool)
    kept: list[int] = []
    while len(kept) < MAX_BOXES and left.any():
        best = int(left.argmax())
        kept.append(best)
        rivals = np.flatnonzero(left & (label == label[best]))
        left[rivals[paired_iou(corners[best], corners[rivals]) > OVERLAP]] = False
        left[best] = False  # an empty box does not overlap itself
    return label[kept].astype(np.int64), corners[kept], scores[box[kept], label[kept]]
