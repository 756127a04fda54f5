"""What is handed to the window, dropped on it or on the command line: weights, annotations, or something to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WEIGHTS_SUFFIXES = (".safetensors", ".onnx", ".xml")
ANNOTATIONS_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Handed:
    """weights: a model file. annotations: a file of boxes. sources: what to open; several are a queue."""

    weights: str | None
    annotations: str | None
    sources: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Handed:
        """Told apart by the ends of their names; of several weights or annotations the last one counts."""
        weights = [text for text in texts if _suffix(text) in WEIGHTS_SUFFIXES]
        annotations = [text for text in texts if _suffix(text) == ANNOTATIONS_SUFFIX]
        sources = tuple(text for text in texts if text not in weights and text not in annotations)
        return cls(weights[-1] if weights else None, annotations[-1] if annotations else None, sources)


def _suffix(text: str) -> str:
    return "" if "://" in text else Path(text).suffix.lower()
