"""The network as a file for other programs, checked against torch before it gets its final name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ledetr.backends import Backend, BackendInfo, RankingBackend, RawOutputs, open_model_file, random_network
from ledetr.backends.deploy import PIXELS, SIZES, deploy_module, example_inputs, output_names
from ledetr.backends.onnx_file import with_metadata
from ledetr.backends.onnx_graph import onnx_bytes
from ledetr.backends.openvino_runtime import convert_module, save_ir
from ledetr.backends.ranked import RankedBackend
from ledetr.coco_file import CocoSet, read_coco
from ledetr.detector import Detector
from ledetr.errors import ExportError, LeDetrError, UsageError
from ledetr.evaluation import detect_all, score
from ledetr.export.drift import Bounds, Drift, measure_drift
from ledetr.export.pictures import default_pictures
from ledetr.export.quantise import quantised, split_folder
from ledetr.files import whole_files
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import VARIANTS
from ledetr.model.half import half_precision
from ledetr.model.ledetr import LeDetr
from ledetr.pictures import read_picture
from ledetr.weights import find_weights, load_model
from ledetr.weights_info import MAX_INPUT_SIDE, WeightsInfo, metadata_of

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
PRECISIONS = {"onnx": ("fp32", "fp16"), "openvino": ("fp32", "fp16", "int8"), "torch-export": ("fp32",)}
BOUNDS = {
    # Float32 sums in another order. With trained weights torch itself is up to 5e-4 (logits of 14) and 2e-5 (boxes)
    # away from a float64 run of the same network, another engine as far on the other side; ten times that is a fault.
    # A score moves by a quarter of its logit at most.
    "fp32": Bounds(logit=5e-3, score=1.25e-3, box=2e-4),
    # The middle row of the worst picture is 0.024 and 1.1e-3 away with trained weights; a graph that overflows or
    # rounds its boxes is away by far more in every row.
    "fp16": Bounds(logit=0.1, score=0.025, box=5e-3, share=0.5, kept=0.9),
    # 256 steps for each number. Boxes of queries that found nothing wander, in the worst picture by 0.11 in the middle
    # row: these bounds catch a broken file. How good it is, the objects shown and average precision say.
    "int8": Bounds(logit=2.0, score=0.1, box=0.3, share=0.5, kept=0.8),
}
MAX_AP_LOSS = 0.01  # what a file of int8 may lose of average precision, in 0..1
DYNAMIC_BATCHES = (1, 2, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written and how near it is to torch: the largest differences over all pictures tried.

    files: all that belong together; path is the one to open. batches: numbers of pictures tried at once. pictures: what
    was looked at. share: of a picture's rows, best first, that the errors are about; 1 for all of them. logit_error:
    over all queries and classes, None where the file ranks its detections itself. score_error: over the best 300
    detections of each picture, in 0..1, matched by class id. box_error: in 0..1 of the picture. relative_error: the
    largest difference of an output divided by the largest number in that output. kept_share: objects of either side
    that the other has too (drift.kept_objects), None where the pictures show none. ap: average precision in 0..1 of the
    weights in float32 and of this file, None where no annotated set was given.
    """

    path: Path
    files: tuple[Path, ...]
    format: str
    precision: str
    model: str
    size_bytes: int
    input_hw: tuple[int, int]
    dynamic_batch: bool
    with_postprocess: bool
    random_weights: bool
    decoder_layers: int
    batches: tuple[int, ...]
    pictures: tuple[str, ...]
    detections_compared: int
    share: float
    logit_error: float | None
    score_error: float
    box_error: float
    relative_error: float
    kept_share: float | None
    ap: tuple[float, float] | None = None


def export_model(
    model: str | Path,
    output: Path,
    *,
    format: str = "onnx",
    precision: str = "fp32",
    imgsz: int | tuple[int, int] | None = None,
    dynamic_batch: bool = False,
    with_postprocess: bool = False,
    decoder_layers: int | None = None,
    random_weights: bool = False,
    pictures: Mapping[str, np.ndarray] | None = None,
    calibrate: Path | None = None,
    accuracy_on: Path | None = None,
) -> ExportReport:
    """Write a scale or a weights file in another format, for one picture size; whole or not at all.

    format "onnx": one file of opset 17, standard operators only. "openvino": an .xml with its .bin. "torch-export": a
    .pt2 for torch.export.load(). Input pixels (B, H, W, 3) uint8 RGB; outputs logits (B, Q, C) before the sigmoid and
    boxes_cxcywh (B, Q, 4) in 0..1. with_postprocess: a second input orig_target_sizes (B, 2) int64, width and height,
    and outputs labels, boxes (corners in those pixels), scores, best first. dynamic_batch: B is open, else 1.
    precision "fp16": in ONNX, backbone and encoder in float16 with their norms, and the decoder, in float32
    (model/half.py); in OpenVINO, weights kept as float16 (the device decides how it computes). "int8": OpenVINO only,
    quantised with numbers seen in the pictures of the folder `calibrate`. accuracy_on: a COCO instances file whose
    pictures lie beside it; average precision of the weights in float32 and of the file is measured.
    Class names, ids and thresholds travel in the file. pictures: (H, W, 3) uint8 by name, to compare the file with
    torch; default: frames of the bundled clip and made ones.
    Raises WeightsError for the model, UsageError for a request that makes no sense, SourceError for pictures,
    ExportError where the file would drift from torch or cannot be written; then nothing is left under the name.
    """
    _check_words(output, format, precision)
    _check_pictures(format, precision, calibrate, accuracy_on, random_weights)
    calibration, held_out = ([], []) if calibrate is None else split_folder(calibrate)
    data = None if accuracy_on is None else read_coco(accuracy_on)
    network, info = _load(model, decoder_layers, random_weights)
    input_hw = _input_hw(imgsz, info.input_hw)
    info = replace(info, input_hw=input_hw, config=network.config)
    metadata = {**metadata_of(info), "random_weights": json.dumps(random_weights), "precision": precision}
    shown = default_pictures(input_hw) if pictures is None else dict(pictures)
    shown |= {path.name: read_picture(path) for path in held_out}
    batches = tuple(b for b in DYNAMIC_BATCHES if b <= len(shown)) if dynamic_batch else (1,)
    bounds = BOUNDS[precision]
    ap: tuple[float, float] | None = None
    names = (output.with_suffix(".bin").name, output.name) if format == "openvino" else (output.name,)
    try:
        with whole_files(output.parent, names) as part:
            graph = Graph(network, precision, input_hw, dynamic_batch, with_postprocess, calibration)
            _write(part / output.name, format, graph, metadata)
            with _opened(part / output.name, format, input_hw, dynamic_batch, with_postprocess) as engine:
                drift = measure_drift(engine, network, list(shown.values()), batches, share=bounds.share)
            if not drift.keeps_to(bounds):
                raise ExportError(_drift_sentence(output, format, drift, bounds))
            if data is not None:
                ap = _average_precisions(model, part / output.name, input_hw, decoder_layers, data)
                _check_loss(output, precision, ap)
    except OSError as error:
        raise ExportError(f"{str(output)!r} cannot be written: {error.strerror or error}") from error
    files = tuple(output.parent / name for name in reversed(names))
    return ExportReport(
        path=output,
        files=files,
        format=format,
        precision=precision,
        model=info.name,
        size_bytes=sum(path.stat().st_size for path in files),
        input_hw=input_hw,
        dynamic_batch=dynamic_batch,
        with_postprocess=with_postprocess,
        random_weights=random_weights,
        decoder_layers=network.decoder.used_layers,
        batches=batches,
        pictures=tuple(shown),
        detections_compared=drift.detections,
        share=bounds.share,
        logit_error=None if with_postprocess else drift.logit,
        score_error=drift.score,
        box_error=drift.box,
        relative_error=drift.relative,
        kept_share=drift.kept_share,
        ap=ap,
    )


def _check_words(output: Path, format: str, precision: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}, known are {', '.join(FORMATS)}")
    if output.suffix.lower() != FORMATS[format]:
        raise UsageError(f"the name of a file of format {format!r} ends in {FORMATS[format]}, got {str(output)!r}")
    if precision not in PRECISIONS[format]:
        known = ", ".join(PRECISIONS[format])
        raise UsageError(f"a file of format {format!r} is written in {known}, not in {precision!r}")


def _check_pictures(
    format: str, precision: str, calibrate: Path | None, accuracy_on: Path | None, random_weights: bool
) -> None:
    if (precision == "int8") != (calibrate is not None):
        raise UsageError("int8 is calibrated on pictures, and only int8 is: --precision int8 --calibrate FOLDER")
    if accuracy_on is not None and random_weights:
        raise UsageError("random weights have no average precision to measure")
    if accuracy_on is not None and format == "torch-export":
        raise UsageError("ledetr itself runs no .pt2 file, so its average precision cannot be measured")


def _average_precisions(
    model: str | Path, path: Path, input_hw: tuple[int, int], decoder_layers: int | None, data: CocoSet
) -> tuple[float, float]:
    """Of the weights, in OpenVINO in float32, and of a written file."""
    engine: dict[str, Any] = {"backend": "openvino", "precision": "fp32"}
    with Detector.load(model, imgsz=input_hw, decoder_layers=decoder_layers, **engine) as detector:
        before = score(data, detect_all(detector, data), resamples=0).ap
    with Detector.load(path) as detector:
        after = score(data, detect_all(detector, data), resamples=0).ap
    return before or 0.0, after or 0.0


def _check_loss(output: Path, precision: str, ap: tuple[float, float]) -> None:
    if ap[0] - ap[1] > MAX_AP_LOSS:
        raise ExportError(
            f"{str(output)!r} was not written: in {precision} it reaches {100 * ap[1]:.1f} of average precision, the "
            f"weights {100 * ap[0]:.1f} (a loss of {100 * MAX_AP_LOSS:.0f} is allowed); calibrate with more pictures, "
            f"nearer to those it will see"
        )


def _load(model: str | Path, decoder_layers: int | None, random_weights: bool) -> tuple[LeDetr, WeightsInfo]:
    if not random_weights:
        return load_model(find_weights(model), decoder_layers)
    if model not in VARIANTS:
        raise UsageError(f"random weights are for a scale ({', '.join(VARIANTS)}), not for {str(model)!r}")
    config = VARIANTS[str(model)]()
    info = WeightsInfo(
        name=config.name,
        config=config,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input_hw=config.input_hw,
        trained_on="nothing: random weights",
    )
    return random_network(config, decoder_layers), info


def _input_hw(imgsz: int | tuple[int, int] | None, default: tuple[int, int]) -> tuple[int, int]:
    height, width = default if imgsz is None else (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    if any(side % 32 or not 32 <= side <= MAX_INPUT_SIDE for side in (height, width)):
        raise UsageError(f"imgsz must be multiples of 32 in 32..{MAX_INPUT_SIDE}, got {imgsz}")
    return height, width


@dataclass(frozen=True, slots=True)
class Graph:
    """What is to be written: the network and the form it takes. calibration: pictures for int8."""

    network: LeDetr
    precision: str
    input_hw: tuple[int, int]
    dynamic_batch: bool
    ranked: bool
    calibration: list[Path]


def _write(path: Path, format: str, graph: Graph, metadata: dict[str, str]) -> None:
    deploy, ranked = graph.network.fused(), graph.ranked
    if format == "onnx":
        deploy = half_precision(deploy) if graph.precision == "fp16" else deploy
        content = onnx_bytes(deploy, graph.input_hw, dynamic_batch=graph.dynamic_batch, ranked=ranked)
        path.write_bytes(with_metadata(content, metadata))
        return
    module = deploy_module(deploy, ranked=ranked)
    if format == "openvino":
        inputs = example_inputs(graph.input_hw, ranked=ranked)
        ir = convert_module(module, inputs, output_names(ranked=ranked), dynamic_batch=graph.dynamic_batch)
        if graph.precision == "int8":
            ir = quantised(ir, graph.calibration, graph.input_hw)
        save_ir(ir, path, metadata, half=graph.precision == "fp16")
        return
    # An example of one picture would make torch take the batch for fixed.
    inputs = example_inputs(graph.input_hw, ranked=ranked, batch=2 if graph.dynamic_batch else 1)
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = {name: {0: batch} for name in inputs} if graph.dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own parts
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={"ledetr.json": json.dumps(metadata)})


@contextmanager
def _opened(
    path: Path, format: str, input_hw: tuple[int, int], dynamic_batch: bool, ranked: bool
) -> Iterator[Backend | RankingBackend]:
    """An engine on the written file, read back from the disk."""
    if format == "torch-export":
        engine: Backend | RankingBackend = _opened_program(path, input_hw, dynamic_batch, ranked)
    else:
        try:
            engine = open_model_file(path, precision="fp32", keep_batch=True).backend
        except LeDetrError as error:
            raise ExportError(f"the exported file does not open again: {error}") from error
    try:
        yield engine
    finally:
        engine.close()


class ProgramBackend:
    """A program of torch.export with raw outputs."""

    def __init__(self, info: BackendInfo, program: nn.Module, *, whole_batches: bool) -> None:
        self.info = info
        self._program = program
        self._whole_batches = whole_batches

    def run(self, pixels: np.ndarray) -> RawOutputs:
        """pixels: (B, H, W, 3) uint8 RGB of info.input_hw."""
        parts = [pixels] if self._whole_batches else [pixels[row : row + 1] for row in range(len(pixels))]
        with torch.inference_mode():
            answers = [self._program(torch.from_numpy(np.ascontiguousarray(part))) for part in parts]
        logits, boxes_cxcywh = zip(*answers, strict=True)
        return RawOutputs(torch.cat(logits).numpy(), torch.cat(boxes_cxcywh).numpy())

    def close(self) -> None:
        """Nothing to give back before the object goes."""


def _opened_program(
    path: Path, input_hw: tuple[int, int], dynamic_batch: bool, ranked: bool
) -> ProgramBackend | RankedBackend:
    program = torch.export.load(path).module()
    info = BackendInfo("torch-export", "cpu", "fp32", input_hw)
    if not ranked:
        return ProgramBackend(info, program, whole_batches=dynamic_batch)

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            answer = program(*(torch.from_numpy(inputs[name]) for name in (PIXELS, SIZES)))
        return dict(zip(output_names(ranked=True), (part.numpy() for part in answer), strict=True))

    return RankedBackend(info, call, picture=PIXELS, whole_batches=dynamic_batch)


def _drift_sentence(output: Path, format: str, drift: Drift, bounds: Bounds) -> str:
    engine = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch-export": "the exported program"}[format]
    rows = "" if bounds.share == 1 else f" in the best {bounds.share:.0%} of the rows"
    kept = f"; {drift.kept} of {drift.shown} objects are the same (allowed {bounds.kept:.0%})" if bounds.kept else ""
    return (
        f"{str(output)!r} was not written: {engine} differs from torch by {drift.logit:.1e} in logits (allowed "
        f"{bounds.logit:.0e}), {drift.score:.1e} in scores (allowed {bounds.score:.0e}) and {drift.box:.1e} in "
        f"boxes (allowed {bounds.box:.0e}){rows}{kept}"
    )
