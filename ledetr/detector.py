"""A picture in, detections out: one network, one engine, and the three lines that the whole product serves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ledetr.backends import (
    Backend,
    BackendInfo,
    ModelFile,
    RankingBackend,
    RawOutputs,
    open_backend,
    open_model_file,
    source_of_random,
    source_of_weights,
)
from ledetr.decode import decode, place_ranked
from ledetr.detections import Detections
from ledetr.errors import UsageError, WeightsError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import VARIANTS
from ledetr.pictures import Colour, to_rgb
from ledetr.preprocess import preprocess
from ledetr.weights_file import find_weights, read_header, verify_payload
from ledetr.weights_info import MAX_INPUT_SIDE, WeightsInfo, parse_metadata

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Picture = np.ndarray | Image.Image | torch.Tensor | str | Path

DEFAULT_SCORE_THRESHOLD = 0.5
CHAIN_SCORE_FLOOR = 0.05  # below it no slider goes; above it thresholds act later, without a new inference
MAX_DETECTIONS = 300
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long the three lines took, in milliseconds of the wall clock."""

    preprocess_ms: float
    infer_ms: float
    postprocess_ms: float


class Detector:
    """A loaded network. Methods may be called from any thread; one lock lets one picture in at a time.

    model_id: the scale or the file's stem. info: the engine that really runs, and why. class_names, category_ids: one
    per class, ids are the data set's own. score_threshold: the default of detect(). random_weights: True if nothing
    was learnt. weights: what the weights file says, None for random weights.
    """

    def __init__(
        self,
        backend: Backend | RankingBackend,
        *,
        model_id: str,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        score_threshold: float = DEFAULT_SCORE_THRESHOLD,
        random_weights: bool = False,
        weights: WeightsInfo | None = None,
    ) -> None:
        self.model_id = model_id
        self.info: BackendInfo = backend.info
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.score_threshold = score_threshold
        self.random_weights = random_weights
        self.weights = weights
        self._backend: Backend | RankingBackend | None = backend
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        model: str | Path = "n",
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        imgsz: int | tuple[int, int] | None = None,
        decoder_layers: int | None = None,
        random_weights: bool = False,
        threads: int | None = None,
    ) -> Detector:
        """A detector of a scale ("n", "m", "l", "x") or of a file: .safetensors, .onnx or .xml from `ledetr export`,
        or .onnx of D-FINE, DEIM or RT-DETR, whose classes are taken as COCO's where there are 80 of them.

        backend, device, precision, threads: see ledetr.backends.open_backend. imgsz: side, or (height, width), of the
        network input, multiples of 32; default as trained. decoder_layers: fewer are faster and a little less exact.
        random_weights: run a scale without learnt weights, for measuring; never done unless asked for.
        Raises WeightsError, BackendUnavailable or UsageError, each one sentence with the next step.
        """
        if str(model).lower().endswith((".onnx", ".xml")):
            if random_weights or decoder_layers is not None:
                raise UsageError(f"{str(model)!r} is exported: its weights and decoder layers were chosen then")
            return cls._load_exported(Path(model), backend, device, precision, imgsz, threads)
        if random_weights:
            return cls._load_random(model, backend, device, precision, imgsz, decoder_layers, threads)
        path = find_weights(model)
        header = read_header(path)
        weights = parse_metadata(path, header.metadata)
        verify_payload(path, header)
        source = source_of_weights(path, weights, _input_hw(imgsz, weights.input_hw), decoder_layers)
        engine = open_backend(backend, source, device=device, precision=precision, threads=threads)
        return cls._of_weights(engine, weights, str(model) if model in VARIANTS else path.stem)

    @classmethod
    def _load_random(
        cls,
        model: str | Path,
        backend: str,
        device: str,
        precision: str,
        imgsz: int | tuple[int, int] | None,
        decoder_layers: int | None,
        threads: int | None,
    ) -> Detector:
        if model not in VARIANTS:
            raise UsageError(f"random weights are for a scale ({', '.join(VARIANTS)}), not for {str(model)!r}")
        config = VARIANTS[str(model)]()
        source = source_of_random(config, _input_hw(imgsz, config.input_hw), decoder_layers)
        engine = open_backend(backend, source, device=device, precision=precision, threads=threads)
        return cls(
            engine, model_id=config.name, class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS, random_weights=True
        )

    @classmethod
    def _load_exported(
        cls,
        path: Path,
        backend: str,
        device: str,
        precision: str,
        imgsz: int | tuple[int, int] | None,
        threads: int | None,
    ) -> Detector:
        engine_name = "openvino" if path.suffix.lower() == ".xml" else "onnx"
        if backend not in ("auto", engine_name):
            raise UsageError(f"{str(path)!r} runs with backend {engine_name!r} only, asked for {backend!r}")
        file = open_model_file(find_weights(path), device=device, precision=precision, threads=threads)
        try:
            input_hw = file.backend.info.input_hw
            if imgsz is not None and _height_and_width(imgsz) != input_hw:
                raise UsageError(f"{str(path)!r} was exported for {input_hw}, imgsz={imgsz} needs another export")
            if file.info is not None:
                return cls._of_weights(file.backend, file.info, path.stem, random_weights=file.random_weights)
            return cls.of_others(file, path)
        except BaseException:
            file.backend.close()
            raise

    @classmethod
    def of_others(cls, file: ModelFile, path: Path) -> Detector:
        """A detector of a file that names no classes: COCO's where it tells 80 apart, else numbers; one run shows that
        it works."""
        if file.classes is None:
            raise WeightsError(f"{str(path)!r} does not show how many classes it tells apart, so none can be named")
        is_coco = file.classes == len(COCO_NAMES)
        names = COCO_NAMES if is_coco else tuple(f"class {number}" for number in range(file.classes))
        taken = "are taken as those of COCO" if is_coco else "have numbers only"
        log.warning("%r names no classes; its %d %s", path.name, file.classes, taken)
        detector = cls(
            file.backend,
            model_id=path.stem,
            class_names=names,
            category_ids=COCO_CATEGORY_IDS if is_coco else range(file.classes),
        )
        detector.warm_up()
        return detector

    @classmethod
    def _of_weights(
        cls, engine: Backend | RankingBackend, weights: WeightsInfo, model_id: str, *, random_weights: bool = False
    ) -> Detector:
        threshold = DEFAULT_SCORE_THRESHOLD if weights.score_threshold is None else weights.score_threshold
        return cls(
            engine,
            model_id=model_id,
            class_names=weights.class_names,
            category_ids=weights.category_ids,
            score_threshold=threshold,
            random_weights=random_weights,
            weights=weights,
        )

    @property
    def names(self) -> dict[int, str]:
        """Class id to name."""
        return dict(enumerate(self.class_names))

    @overload
    def detect(
        self,
        picture: list[Any] | tuple[Any, ...],
        *,
        conf: float | None = None,
        classes: Sequence[str | int] | None = None,
        colour: Colour = "rgb",
    ) -> list[Detections]: ...

    @overload
    def detect(
        self,
        picture: Picture,
        *,
        conf: float | None = None,
        classes: Sequence[str | int] | None = None,
        colour: Colour = "rgb",
    ) -> Detections: ...

    def detect(
        self,
        picture: Picture | list[Any] | tuple[Any, ...],
        *,
        conf: float | None = None,
        classes: Sequence[str | int] | None = None,
        colour: Colour = "rgb",
    ) -> Detections | list[Detections]:
        """What is in a picture, best score first, boxes in its own upright pixels; a list of pictures gives a list.

        picture: as ledetr.pictures.to_rgb takes it. conf: lowest score in 0..1, default score_threshold. classes: only
        these, by name or id. colour: "bgr" for arrays from OpenCV. UsageError for a class that the model does not know.
        """
        conf = self.score_threshold if conf is None else conf
        if not 0 <= conf <= 1:
            raise UsageError(f"conf must lie in 0..1, got {conf}")
        class_ids = None if classes is None else self.class_ids(classes)
        if isinstance(picture, list | tuple):
            return [self._detect_one(one, conf, class_ids, colour) for one in picture]
        return self._detect_one(picture, conf, class_ids, colour)

    def _detect_one(self, picture: object, conf: float, class_ids: list[int] | None, colour: Colour) -> Detections:
        detections, _ = self.detect_frame(to_rgb(picture, colour=colour), score_floor=conf)
        return detections if class_ids is None else detections.filter(class_ids=class_ids)

    def detect_frame(
        self, rgb: np.ndarray, *, score_floor: float = CHAIN_SCORE_FLOOR, max_detections: int = MAX_DETECTIONS
    ) -> tuple[Detections, StageTimes]:
        """Detections with score >= score_floor of one (H, W, 3) uint8 RGB picture, and the time each step took."""
        with self._lock:
            if self._backend is None:
                raise ValueError(f"detector {self.model_id!r} is closed")
            start = time.perf_counter()
            pixels, placement = preprocess(rgb, self.info.input_hw)
            preprocessed = time.perf_counter()
            raw = self._backend.run(pixels[None])[0]
            inferred = time.perf_counter()
        wanted: dict[str, Any] = {
            "score_floor": score_floor,
            "max_detections": max_detections,
            "class_names": self.class_names,
            "category_ids": self.category_ids,
            "model_id": self.model_id,
        }
        detections = (
            decode(raw, placement, **wanted) if isinstance(raw, RawOutputs) else place_ranked(raw, placement, **wanted)
        )
        decoded = time.perf_counter()
        times = (preprocessed - start, inferred - preprocessed, decoded - inferred)
        return detections, StageTimes(*(seconds * 1000 for seconds in times))

    def class_ids(self, classes: Sequence[str | int]) -> list[int]:
        """Contiguous ids of classes given by name (case does not matter) or id; UsageError for an unknown one."""
        wanted = [classes] if isinstance(classes, str | int) else classes
        return [self._class_id(one) for one in wanted]

    def _class_id(self, wanted: str | int) -> int:
        if isinstance(wanted, str):
            by_name = {name.lower(): class_id for class_id, name in reversed(list(enumerate(self.class_names)))}
            if wanted.lower() in by_name:
                return by_name[wanted.lower()]
            close = get_close_matches(wanted.lower(), by_name, n=1)
            hint = f"did you mean {self.class_names[by_name[close[0]]]!r}?" if close else self._known_classes()
            raise UsageError(f"model {self.model_id!r} has no class {wanted!r}: {hint}")
        if not 0 <= wanted < len(self.class_names):
            raise UsageError(f"model {self.model_id!r} has classes 0..{len(self.class_names) - 1}, asked for {wanted}")
        return int(wanted)

    def _known_classes(self) -> str:
        shown = ", ".join(self.class_names[:8])
        return f"it knows {shown}" + (" and more" if len(self.class_names) > 8 else "")

    def warm_up(self) -> None:
        """Run one black picture, so that the first real one is as quick as the rest."""
        self.detect_frame(np.zeros((*self.info.input_hw, 3), np.uint8))

    def close(self) -> None:
        """Give the engine's memory back, after the picture in progress; legal more than once."""
        with self._lock:
            backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return f"Detector({self.model_id!r}, {info.name}, {info.device}, {info.precision}, input_hw={info.input_hw})"


def _input_hw(imgsz: int | tuple[int, int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if imgsz is None:
        return default
    height, width = _height_and_width(imgsz)
    if any(side % 32 or not 32 <= side <= MAX_INPUT_SIDE for side in (height, width)):
        raise UsageError(f"imgsz must be multiples of 32 in 32..{MAX_INPUT_SIDE}, got {imgsz}")
    return height, width


def _height_and_width(imgsz: int | tuple[int, int]) -> tuple[int, int]:
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
