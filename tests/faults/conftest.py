"""A wait that ends as soon as it can, and a detector that sees one box that stands still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ledetr.backends.base import BackendInfo
from ledetr.detections import Detections


class OneBox:
    """The same box in every picture; before(rgb) may look, take its time, or raise."""

    model_id = "one"
    class_names = ("thing",)
    category_ids = (1,)
    score_threshold = 0.5
    random_weights = False
    info = BackendInfo("fake", "cpu", "fp32", (64, 64))

    def __init__(self, before: Callable[[np.ndarray], None] = lambda _: None) -> None:
        self._before = before
        self.closed = False

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        self._before(rgb)
        found = Detections(
            np.array([[8, 8, 40, 40]], np.float32), np.array([0.9], np.float32), np.array([0]),
            class_names=self.class_names, category_ids=self.category_ids, model_id=self.model_id,
        )  # fmt: skip
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def one_box() -> type[OneBox]:
    """See OneBox."""
    return OneBox


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Look again and again until the condition holds; fails where it never does."""

    def wait(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
        end, pause = time.monotonic() + timeout_s, threading.Event()
        while not condition():
            assert time.monotonic() < end, "the condition never came true"
            pause.wait(0.002)

    return wait
