"""The network as a file for other programs, checked against torch before it gets its final name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ledetr.backends import RawOutputs, open_exported
from ledetr.backends.onnx_graph import onnx_bytes, with_metadata
from ledetr.errors import ExportError, UsageError
from ledetr.files import whole_file
from ledetr.preprocess import preprocess
from ledetr.weights import find_weights, load_model
from ledetr.weights_info import metadata_of

# Float32 sums in another order: errors seen are below 1e-5 for logits and 1e-6 for boxes.
MAX_LOGIT_ERROR = 1e-3
MAX_BOX_ERROR = 1e-4


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and how near it is to torch: largest differences over all queries of all pictures tried."""

    path: Path
    size_bytes: int
    input_hw: tuple[int, int]
    logit_error: float
    box_error: float


def export_onnx(
    model: str | Path,
    output: Path,
    *,
    imgsz: tuple[int, int] | None = None,
    decoder_layers: int | None = None,
    pictures: Sequence[np.ndarray] = (),
) -> ExportReport:
    """Write a scale or a weights file as one ONNX file of fixed size, standard operators only.

    Input pixels (1, H, W, 3) uint8 RGB, outputs logits (1, Q, C) before the sigmoid and boxes_cxcywh (1, Q, 4) in 0..1.
    Class names, ids and thresholds travel in its metadata. pictures: (H, W, 3) uint8, to compare the file with torch;
    default: three made ones. Raises WeightsError for the model, ExportError where the file would drift from torch or
    cannot be written; then nothing is left under the name.
    """
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"the name of an ONNX file ends in .onnx, got {str(output)!r}")
    path = find_weights(model)
    network, info = load_model(path, decoder_layers)
    input_hw = info.input_hw if imgsz is None else imgsz
    deploy = network.fused()
    metadata = metadata_of(replace(info, input_hw=input_hw, config=network.config))
    content = with_metadata(onnx_bytes(deploy, input_hw), metadata)
    inputs = [preprocess(picture, input_hw)[0] for picture in pictures or _made_pictures(input_hw)]
    try:
        with whole_file(output) as part:
            part.write_bytes(content)
            logit_error, box_error = _drift(part, deploy, inputs)
            if not (logit_error <= MAX_LOGIT_ERROR and box_error <= MAX_BOX_ERROR):
                raise ExportError(
                    f"{str(output)!r} was not written: ONNX Runtime differs from torch by {logit_error:.1e} in logits "
                    f"(allowed {MAX_LOGIT_ERROR:.0e}) and {box_error:.1e} in boxes (allowed {MAX_BOX_ERROR:.0e})"
                )
    except OSError as error:
        raise ExportError(f"{str(output)!r} cannot be written: {error.strerror or error}") from error
    return ExportReport(output, len(content), input_hw, logit_error, box_error)


def _drift(path: Path, network: torch.nn.Module, inputs: Sequence[np.ndarray]) -> tuple[float, float]:
    """Largest difference of logits and of boxes between an exported file and the network."""
    engine, _ = open_exported(path)
    errors = []
    try:
        for pixels in inputs:
            with torch.inference_mode():
                logits, boxes_cxcywh = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
            expected = RawOutputs(logits[0].numpy(), boxes_cxcywh[0].numpy())
            errors.append(row_errors(engine.run(pixels[None])[0], expected))
    finally:
        engine.close()
    logit_error, box_error = np.max(errors, axis=0)
    return float(logit_error), float(box_error)


def row_errors(actual: RawOutputs, expected: RawOutputs) -> tuple[float, float]:
    """Largest difference of logits and of boxes between two outputs of one picture, (Q, C) and (Q, 4) each.

    Each row is held against the nearest of the other side, both ways: near ties make engines swap neighbours in the
    order of queries, and a query that one side lacks is then far from all others. NaN gives NaN.
    """
    logits = np.abs(actual.logits[:, None] - expected.logits[None]).max(-1)
    boxes = np.abs(actual.boxes_cxcywh[:, None] - expected.boxes_cxcywh[None]).max(-1)
    distance = np.maximum(logits, boxes)
    rows = np.arange(len(distance))
    there, back = distance.argmin(1), distance.argmin(0)
    logit_error = np.maximum(logits[rows, there].max(), logits[back, rows].max())
    return float(logit_error), float(np.maximum(boxes[rows, there].max(), boxes[back, rows].max()))


def _made_pictures(input_hw: tuple[int, int]) -> list[np.ndarray]:
    """Smooth random colours at three scales: closer to photographs than plain noise."""
    random = np.random.default_rng(0)
    tiles = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (3, 8, 24)]
    return [preprocess(tile, input_hw)[0] for tile in tiles]
