"""Loads and warms the next model beside the running one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ledetr.chain.pipeline import FrameDetector
from ledetr.errors import WeightsError


class NoWeightsHere(WeightsError):
    """This scale has no weights on this computer: no fault, and the sentence says where they belong."""


@dataclass(frozen=True, slots=True)
class ModelWish:
    """choice: a scale or a path. device, precision: "auto" or as ledetr.Detector.load takes them.

    decoder_layers: how many of them are used; None = as many as the weights say.
    """

    choice: str
    device: str = "auto"
    precision: str = "auto"
    decoder_layers: int | None = None

    def fields(self) -> dict[str, Any]:
        """By the names that they have in the state and in the settings."""
        return {
            "model": self.choice,
            "device": self.device,
            "precision": self.precision,
            "decoder_layers": self.decoder_layers,
        }


LoadDetector = Callable[[ModelWish], FrameDetector]


class ModelLoader:
    """One short-lived thread at most. Only the newest wish counts: an older one that is ready by then is closed."""

    def __init__(
        self,
        load: LoadDetector,
        on_loaded: Callable[[ModelWish, FrameDetector], None],
        on_failed: Callable[[ModelWish, BaseException], None],
    ) -> None:
        self._load = load
        self._on_loaded = on_loaded
        self._on_failed = on_failed
        self._lock = threading.Lock()
        self._wanted: ModelWish | None = None
        self._thread: threading.Thread | None = None

    def want(self, model: ModelWish | None) -> None:
        """Load this model; None: nothing any more. Returns at once."""
        with self._lock:
            self._wanted = model
            if model is not None and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model loader", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Forget the wish; False when a load was still going on after timeout_s and its thread was left behind."""
        with self._lock:
            self._wanted = None
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def _next(self, done: ModelWish | None) -> ModelWish | None:
        """The model to load now; None ends the thread, so that the next wish starts a new one."""
        with self._lock:
            if self._wanted is None or self._wanted == done:
                self._wanted = None
                self._thread = None
            return self._wanted

    def _run(self) -> None:
        model = self._next(None)
        while model is not None:
            try:
                detector = self._load(model)
            except Exception as error:  # the edge of this thread: the session shows it and keeps the old model
                if self._is_wanted(model):
                    self._on_failed(model, error)
            else:
                if self._is_wanted(model):
                    self._on_loaded(model, detector)
                else:
                    detector.close()
            model = self._next(model)

    def _is_wanted(self, model: ModelWish) -> bool:
        with self._lock:
            return self._wanted == model
