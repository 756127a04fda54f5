"""Several detectors that look at one picture together: opened, their classes matched by name, their boxes fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ledetr.backends.onnx_file import read_onnx
from ledetr.detections import Detections
from ledetr.detector import Detector
from ledetr.errors import BackendUnavailable, UsageError, WeightsError
from ledetr.files import sha256_of
from ledetr.weights_file import find_weights
from training.fusion import MAX_BOXES, SCORE_FLOOR, fuse


@dataclass(frozen=True, slots=True)
class Teacher:
    """An open detector and the SHA-256 of its file."""

    path: Path
    sha256: str
    detector: Detector

    def to_json(self) -> dict[str, Any]:
        """What a file of labels says about it; licence and data only where the teacher's file says them."""
        weights = self.detector.weights
        said = {} if weights is None else {"licence": weights.licence, "trained_on": weights.trained_on}
        return {"name": self.detector.model_id, "file": self.path.name, "sha256": self.sha256, **said}


def open_teacher(model: str, *, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Teacher:
    """A scale or a weights file of ours, or an ONNX file: ours, of D-FINE, DEIM or RT-DETR, or a dense one.

    backend, device: for weights files; ONNX files run by ONNX Runtime on the processor. WeightsError for what is none
    of these or has learnt nothing.
    """
    path = find_weights(model)
    if path.suffix.lower() not in (".safetensors", ".onnx"):
        raise WeightsError(f"the teacher {str(path)!r} is neither a .safetensors nor an .onnx file")
    detector = _open(path, backend, device, threads)
    if detector.random_weights:
        detector.close()
        raise WeightsError(f"the teacher {str(path)!r} holds random weights, so it has nothing to teach")
    return Teacher(path, sha256_of(path), detector)


def _open(path: Path, backend: str, device: str, threads: int | None) -> Detector:
    if path.suffix.lower() != ".onnx":
        return Detector.load(path, backend=backend, device=device, threads=threads)
    file = read_onnx(path)
    try:
        from training.dense_onnx import is_dense, open_dense  # an extra that teachers of ours do not need
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise BackendUnavailable(
            f"the teacher {str(path)!r} needs the package onnxruntime: pip install 'ledetr[train]'"
        ) from error
    return open_dense(file, threads=threads) if is_dense(file) else Detector.load(path, threads=threads)


class Ensemble:
    """Teachers as one. class_names and category_ids: those of the first teacher, then what the others add."""

    def __init__(self, teachers: Sequence[Teacher], *, flip: bool = False) -> None:
        """flip: each teacher also looks at the mirrored picture. UsageError where classes cannot be matched by name."""
        self.teachers = tuple(teachers)
        self.flip = flip
        self.class_names, self.category_ids, self._tables = match_classes([t.detector for t in teachers])
        known = np.zeros(len(self.class_names), np.int64)
        for table in self._tables:
            known[table] += 1
        self.class_passes = known * (2 if flip else 1)
        """(K,) passes that know each class."""

    @classmethod
    def open(
        cls,
        models: Sequence[str],
        *,
        flip: bool = False,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> Ensemble:
        """Open the teachers as open_teacher() does; none stays open where one cannot be opened."""
        teachers: list[Teacher] = []
        try:
            for model in models:
                teachers.append(open_teacher(model, backend=backend, device=device, threads=threads))
            return cls(teachers, flip=flip)
        except BaseException:
            for teacher in teachers:
                teacher.detector.close()
            raise

    def detect(self, rgb: np.ndarray, *, max_boxes: int = MAX_BOXES) -> Detections:
        """The fused boxes of an (H, W, 3) uint8 RGB picture, in its pixels, best score first, down to low scores."""
        passes = [found for number in range(len(self.teachers)) for found in self._passes(number, rgb)]
        return fuse(passes, class_passes=self.class_passes, max_boxes=max_boxes)

    def _passes(self, number: int, rgb: np.ndarray) -> list[Detections]:
        passes = [self._look(number, rgb)]
        if self.flip:
            passes.append(mirrored(self._look(number, np.ascontiguousarray(rgb[:, ::-1])), rgb.shape[1]))
        return passes

    def _look(self, number: int, rgb: np.ndarray) -> Detections:
        """What one teacher sees, in the common classes."""
        teacher = self.teachers[number]
        found, _ = teacher.detector.detect_frame(rgb, score_floor=SCORE_FLOOR, max_detections=MAX_BOXES)
        if found.confidence.max(initial=0) > 1:
            raise WeightsError(f"the teacher {str(teacher.path)!r} gives scores above 1, so they are no probabilities")
        return replace(
            found,
            class_id=self._tables[number][found.class_id],
            class_names=self.class_names,
            category_ids=self.category_ids,
        )

    def close(self) -> None:
        """Close every teacher; legal more than once."""
        for teacher in self.teachers:
            teacher.detector.close()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def mirrored(found: Detections, width: int) -> Detections:
    """Boxes of a mirrored picture `width` pixels wide, as they lie in the picture itself."""
    x0, y0, x1, y1 = found.xyxy.T
    return replace(found, xyxy=np.stack([width - x1, y0, width - x0, y1], axis=-1).astype(np.float32))


def match_classes(detectors: Sequence[Detector]) -> tuple[tuple[str, ...], tuple[int, ...], list[np.ndarray]]:
    """Common names, category ids, and for each detector the common class of each of its own.

    Names are compared without regard to case. The ids are those of the first detector; a class that another one adds
    gets the next free number. UsageError where a detector has a name twice, or shares none with those before it.
    """
    names, ids = list(detectors[0].class_names), list(detectors[0].category_ids)
    index: dict[str, int] = {}
    tables = []
    for detector in detectors:
        own = [name.casefold() for name in detector.class_names]
        if len(set(own)) < len(own):
            double = next(name for name in own if own.count(name) > 1)
            raise UsageError(f"teacher {detector.model_id!r} has the class {double!r} twice; classes go by their names")
        if index and not index.keys() & set(own):
            raise UsageError(
                f"teacher {detector.model_id!r} ({_some(detector.class_names)}) shares no class with "
                f"{detectors[0].model_id!r} ({_some(names)}); classes are matched by name, so label in two runs"
            )
        for name, shown in zip(own, detector.class_names, strict=True):
            if name not in index:
                index[name] = len(index)
                if index[name] == len(names):
                    names.append(shown)
                    ids.append(max(ids) + 1)
        tables.append(np.array([index[name] for name in own], np.int64))
    return tuple(names), tuple(ids), tables


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
