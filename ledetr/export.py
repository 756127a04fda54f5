"""The network as a file for other programs, checked against torch before it gets its final name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ledetr.backends import (
    Backend,
    BackendInfo,
    RankedOutputs,
    RankingBackend,
    RawOutputs,
    open_model_file,
    random_network,
)
from ledetr.backends.deploy import MAX_RANKED, PIXELS, SIZES, deploy_module, example_inputs, output_names
from ledetr.backends.onnx_file import with_metadata
from ledetr.backends.onnx_graph import onnx_bytes
from ledetr.backends.openvino_runtime import convert_module, save_ir
from ledetr.backends.ranked import RankedBackend
from ledetr.chain.clock import MonotonicClock
from ledetr.chain.sources import open_source, parse_source
from ledetr.decode import decode, place_ranked
from ledetr.detections import Detections
from ledetr.errors import ExportError, LeDetrError, UsageError
from ledetr.files import whole_files
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import VARIANTS
from ledetr.model.ledetr import LeDetr
from ledetr.preprocess import Placement, preprocess
from ledetr.weights import find_weights, load_model
from ledetr.weights_file import search_folders
from ledetr.weights_info import MAX_INPUT_SIDE, WeightsInfo, metadata_of

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
# Float32 sums in another order. With trained weights torch itself is up to 5e-4 (logits of 14) and 2e-5 (boxes) away
# from a float64 run of the same network, another engine as far on the other side; ten times that is a fault.
MAX_LOGIT_ERROR = 5e-3
MAX_SCORE_ERROR = 1.25e-3  # what a logit error of that size does to a score at most
MAX_BOX_ERROR = 2e-4
DYNAMIC_BATCHES = (1, 2, 7)
CLIP_FRAMES = 3
MADE_PICTURES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written and how near it is to torch: the largest differences over all pictures tried.

    files: all that belong together; path is the one to open. batches: numbers of pictures tried at once. pictures: what
    was looked at. logit_error: over all queries and classes, None where the file ranks its detections itself.
    score_error: over the best 300 detections of each picture, in 0..1, matched by class id. box_error: in 0..1 of the
    picture. relative_error: the largest difference of an output divided by the largest number in that output.
    """

    path: Path
    files: tuple[Path, ...]
    format: str
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
    logit_error: float | None
    score_error: float
    box_error: float
    relative_error: float


@dataclass(slots=True)
class Drift:
    """Largest differences so far; NaN stays NaN."""

    logit: float = 0.0
    score: float = 0.0
    box: float = 0.0
    relative: float = 0.0
    detections: int = 0

    def note(self, **errors: float) -> None:
        """Keep the larger of what was seen and these."""
        for name, error in errors.items():
            setattr(self, name, float(np.maximum(getattr(self, name), error)))

    @property
    def is_small(self) -> bool:
        """Whether the file may be given away."""
        return self.logit <= MAX_LOGIT_ERROR and self.score <= MAX_SCORE_ERROR and self.box <= MAX_BOX_ERROR


def export_model(
    model: str | Path,
    output: Path,
    *,
    format: str = "onnx",
    imgsz: int | tuple[int, int] | None = None,
    dynamic_batch: bool = False,
    with_postprocess: bool = False,
    decoder_layers: int | None = None,
    random_weights: bool = False,
    pictures: Mapping[str, np.ndarray] | None = None,
) -> ExportReport:
    """Write a scale or a weights file in another format, for one picture size; whole or not at all.

    format "onnx": one file of opset 17, standard operators only. "openvino": an .xml with its .bin. "torch-export": a
    .pt2 for torch.export.load(). Input pixels (B, H, W, 3) uint8 RGB; outputs logits (B, Q, C) before the sigmoid and
    boxes_cxcywh (B, Q, 4) in 0..1. with_postprocess: a second input orig_target_sizes (B, 2) int64, width and height,
    and outputs labels, boxes (corners in those pixels), scores, best first. dynamic_batch: B is open, else 1.
    Class names, ids and thresholds travel in the file. pictures: (H, W, 3) uint8 by name, to compare the file with
    torch; default: frames of the bundled clip and made ones.
    Raises WeightsError for the model, UsageError for a request that makes no sense, ExportError where the file would
    drift from torch or cannot be written; then nothing is left under the name.
    """
    _check_name(output, format)
    network, info = _load(model, decoder_layers, random_weights)
    input_hw = _input_hw(imgsz, info.input_hw)
    info = replace(info, input_hw=input_hw, config=network.config)
    metadata = {**metadata_of(info), "random_weights": json.dumps(random_weights)}
    shown = default_pictures(input_hw) if pictures is None else dict(pictures)
    batches = tuple(b for b in DYNAMIC_BATCHES if b <= len(shown)) if dynamic_batch else (1,)
    names = (output.with_suffix(".bin").name, output.name) if format == "openvino" else (output.name,)
    try:
        with whole_files(output.parent, names) as part:
            _write(part / output.name, format, network.fused(), input_hw, metadata, dynamic_batch, with_postprocess)
            with _opened(part / output.name, format, input_hw, dynamic_batch, with_postprocess) as engine:
                drift = measure_drift(engine, network, list(shown.values()), batches)
            if not drift.is_small:
                raise ExportError(_drift_sentence(output, format, drift))
    except OSError as error:
        raise ExportError(f"{str(output)!r} cannot be written: {error.strerror or error}") from error
    files = tuple(output.parent / name for name in reversed(names))
    return ExportReport(
        path=output,
        files=files,
        format=format,
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
        logit_error=None if with_postprocess else drift.logit,
        score_error=drift.score,
        box_error=drift.box,
        relative_error=drift.relative,
    )


def _check_name(output: Path, format: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}, known are {', '.join(FORMATS)}")
    if output.suffix.lower() != FORMATS[format]:
        raise UsageError(f"the name of a file of format {format!r} ends in {FORMATS[format]}, got {str(output)!r}")


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


def _write(
    path: Path,
    format: str,
    deploy: LeDetr,
    input_hw: tuple[int, int],
    metadata: dict[str, str],
    dynamic_batch: bool,
    ranked: bool,
) -> None:
    if format == "onnx":
        content = onnx_bytes(deploy, input_hw, dynamic_batch=dynamic_batch, ranked=ranked)
        path.write_bytes(with_metadata(content, metadata))
        return
    module = deploy_module(deploy, ranked=ranked)
    if format == "openvino":
        inputs = example_inputs(input_hw, ranked=ranked)
        ir = convert_module(module, inputs, output_names(ranked=ranked), dynamic_batch=dynamic_batch)
        save_ir(ir, path, metadata)
        return
    # An example of one picture would make torch take the batch for fixed.
    inputs = example_inputs(input_hw, ranked=ranked, batch=2 if dynamic_batch else 1)
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = {name: {0: batch} for name in inputs} if dynamic_batch else None
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


def measure_drift(
    engine: Backend | RankingBackend, network: LeDetr, pictures: Sequence[np.ndarray], batches: Sequence[int]
) -> Drift:
    """How far an exported file is from the network, in its training form and one picture at a time.

    pictures: (H, W, 3) uint8. batches: how many are given to the file at once; each takes the next ones in turn.
    """
    pixels = [preprocess(picture, engine.info.input_hw)[0] for picture in pictures]
    expected = [_torch_outputs(network, one) for one in pixels]
    rounds = [[i] for i in range(len(pixels))] if tuple(batches) == (1,) else _rounds(len(pixels), batches)
    drift = Drift()
    for rows in rounds:
        answer = engine.run(np.stack([pixels[row] for row in rows]))
        for place, row in enumerate(rows):
            _note_one(drift, answer[place], expected[row])
    return drift


def _rounds(count: int, batches: Sequence[int]) -> list[list[int]]:
    """Rows of each batch, going around all pictures."""
    starts = np.cumsum([0, *batches[:-1]])
    return [[int(start + i) % count for i in range(batch)] for start, batch in zip(starts, batches, strict=True)]


def _torch_outputs(network: LeDetr, pixels: np.ndarray) -> RawOutputs:
    with torch.inference_mode():
        logits, boxes_cxcywh = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    return RawOutputs(logits[0].numpy(), boxes_cxcywh[0].numpy())


def _note_one(drift: Drift, actual: RawOutputs | RankedOutputs, expected: RawOutputs) -> None:
    placement = Placement((1, 1), (1, 1))  # boxes in 0..1
    every_pair = decode(expected, placement, score_floor=0.0, max_detections=expected.logits.size)
    if isinstance(actual, RawOutputs):
        logit_error, box_error = row_errors(actual, expected)
        largest = np.abs(expected.logits).max(), np.abs(expected.boxes_cxcywh).max()
        relative = np.maximum(logit_error / largest[0], box_error / largest[1])
        drift.note(logit=logit_error, box=box_error, relative=float(relative))
        found = decode(actual, placement, score_floor=0.0, max_detections=MAX_RANKED)
    else:
        found = place_ranked(actual, placement, score_floor=0.0)
        if len(found) != len(actual.labels):  # a row that is not finite
            drift.note(score=np.nan)
    score_error, box_error = detection_errors(found, every_pair)
    drift.note(score=score_error, box=box_error, relative=np.maximum(score_error, box_error))
    drift.detections += len(found)


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


def detection_errors(found: Detections, every_pair: Detections) -> tuple[float, float]:
    """Largest difference of scores and of boxes (in their unit) between ranked detections and what they come from.

    every_pair: all pairs of query and class, best first. Scores are compared in order, and each detection is held
    against the nearest pair of its class; one without such a pair gives infinity.
    """
    if not len(found):
        return float("inf") if len(every_pair) else 0.0, 0.0
    score_error = float(np.abs(found.confidence - every_pair.confidence[: len(found)]).max())
    box_error = 0.0
    for box, score, class_id in found:
        same = every_pair.class_id == class_id
        scores = np.abs(every_pair.confidence[same] - score)
        boxes = np.abs(every_pair.xyxy[same] - box).max(-1)
        if not len(scores):
            return float("inf"), float("inf")
        nearest = np.maximum(scores, boxes).argmin()
        score_error = float(np.maximum(score_error, scores[nearest]))
        box_error = float(np.maximum(box_error, boxes[nearest]))
    return score_error, box_error


def _drift_sentence(output: Path, format: str, drift: Drift) -> str:
    engine = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch-export": "the exported program"}[format]
    return (
        f"{str(output)!r} was not written: {engine} differs from torch by {drift.logit:.1e} in logits (allowed "
        f"{MAX_LOGIT_ERROR:.0e}), {drift.score:.1e} in scores (allowed {MAX_SCORE_ERROR:.0e}) and {drift.box:.1e} in "
        f"boxes (allowed {MAX_BOX_ERROR:.0e})"
    )


def default_pictures(input_hw: tuple[int, int]) -> dict[str, np.ndarray]:
    """Frames of the bundled clip, where it is, and made pictures, by name; seven in all with the clip."""
    clips = [folder.parent / "sample.mp4" for folder in search_folders()]
    clip = next((path for path in clips if path.is_file()), None)
    frames = {} if clip is None else _clip_frames(clip)
    return frames | _made_pictures(input_hw, CLIP_FRAMES + MADE_PICTURES - len(frames))


def _clip_frames(clip: Path) -> dict[str, np.ndarray]:
    """Frames from the start, a third and two thirds of a clip."""
    source = open_source(parse_source(clip), clock=MonotonicClock())
    frames = {}
    try:
        for third in range(CLIP_FRAMES):
            pts_s = third / CLIP_FRAMES * (source.info.duration_s or 0.0)
            source.seek(pts_s)
            frame = source.read()
            if frame is not None:
                frames[f"{clip.name} at {pts_s:.1f} s"] = np.array(frame.rgb)
    finally:
        source.close()
    return frames


def _made_pictures(input_hw: tuple[int, int], count: int) -> dict[str, np.ndarray]:
    """Smooth random colours, finer from one to the next: closer to photographs than plain noise."""
    random = np.random.default_rng(0)
    sides = [3 * 2**i for i in range(count)]
    tiles = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]
    return {f"made of {side}x{side}": preprocess(tile, input_hw)[0] for side, tile in zip(sides, tiles, strict=True)}
