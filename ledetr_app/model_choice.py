"""Which model looks, on which device, and the way from a choice to a detector that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import ledetr
from ledetr.chain.pipeline import FrameDetector, Pipeline
from ledetr.errors import LeDetrError
from ledetr.weights_file import search_folders
from ledetr_app.conversion import convert_elsewhere
from ledetr_app.model_loader import LoadDetector, ModelLoader, ModelWish, NoWeightsHere
from ledetr_app.state import RunningModel
from ledetr_app.store import Store, nothing, problem_of
from ledetr_app.worker import Worker


class ModelChoice:
    """One wish at a time, loaded beside the running model and swapped in between two frames.

    load_detector: how a wish becomes a detector; None = from weights on this computer. find: where weights are.
    list_devices: what a model can run on. on_loaded is called once a new one runs.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        files: Worker,
        *,
        load_detector: LoadDetector | None,
        find: Callable[[str], Path],
        list_devices: Callable[[], Mapping[str, str]],
        random_weights: bool,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._files = files
        self._find = find
        self._list_devices = list_devices
        self._random_weights = random_weights
        self._wish: ModelWish | None = None
        self._detector: FrameDetector | None = None
        self.load = load_detector or self._load_detector
        self._loader = ModelLoader(self.load, self.take, self._on_failed)
        self.on_loaded: Callable[[], None] = nothing
        files.submit(self._look_for_weights)

    def set_model(self, model: str) -> None:
        """Load a scale or a weights file beside the running model, then swap between two frames."""
        self._want(self._store.state.wish_for(model))

    def set_device(self, device: str) -> None:
        """Run the model there: "auto" or one of state.devices; loads it anew, the running one goes on meanwhile."""
        self._want(replace(self._store.state.wish, device=device))

    def set_precision(self, precision: str) -> None:
        """Run the model in "fp32", "fp16", "bf16" or what suits the device, "auto"."""
        self._want(replace(self._store.state.wish, precision=precision))

    def set_decoder_layers(self, layers: int | None) -> None:
        """Use so many of the model's decoder layers: fewer are faster and a little less exact; None: as trained."""
        self._want(replace(self._store.state.wish, decoder_layers=layers))

    def look_for_devices(self) -> None:
        """List what a model can run on, once."""
        if self._store.state.devices is None:
            self._files.submit(lambda: self._store.change(devices=self._list_devices()), newest_of="devices")

    @property
    def has_random_weights(self) -> bool:
        """Whether the running model has learnt nothing."""
        running = self._store.state.running
        return running is not None and running.random_weights

    @property
    def detector(self) -> FrameDetector | None:
        """The running one; it may be closed by the next switch."""
        return self._detector

    def close_loader(self, timeout_s: float) -> bool:
        """Forget the wish; False when a load was still going on after timeout_s and its thread was left behind."""
        return self._loader.close(timeout_s)

    def close_detector(self) -> None:
        """Give the memory of the running model back; nothing may use it any more."""
        if self._detector is not None:
            self._detector.close()

    def _want(self, wish: ModelWish) -> None:
        state = self._store.state
        if state.loading is not None and self._wish == wish:
            return
        self._wish = wish
        running = state.running is not None and state.running.wish == wish
        self._store.change(loading=None if running else wish.choice, **wish.fields())
        if running:
            self._loader.want(None)
            return
        self._store.change(problem=None)
        self._loader.want(wish)

    # In the thread "model loader"

    def take(self, wish: ModelWish, detector: FrameDetector) -> None:
        """Look with this detector from the next frame on; it was loaded for this wish."""
        self._pipeline.set_detector(detector, release=self._release)
        self._detector = detector
        self._store.change(running=RunningModel.of(wish, detector), loading=None, **wish.fields())
        self.on_loaded()

    def _release(self, detector: FrameDetector) -> None:
        """Nothing uses the old model any more; it is closed away from the thread that infers."""
        self._files.submit(detector.close)

    def _on_failed(self, wish: ModelWish, error: BaseException) -> None:
        running = self._store.state.running
        kept = running.wish if running else wish
        self._store.change(loading=None, problem=problem_of(error), **kept.fields())

    def _load_detector(self, wish: ModelWish) -> FrameDetector:
        choice = wish.choice
        there = choice not in ledetr.SCALES or self._is_there(choice)
        if not there and not self._random_weights:
            raise NoWeightsHere(self._missing_sentence(choice))
        if there:
            convert_elsewhere(wish)
        detector = ledetr.Detector.load(
            choice,
            device=wish.device,
            precision=wish.precision,
            decoder_layers=wish.decoder_layers,
            random_weights=not there,
        )
        detector.warm_up()
        return detector

    def _look_for_weights(self) -> None:
        self._store.change(has_weights={scale: self._is_there(scale) for scale in ledetr.SCALES})

    def _is_there(self, scale: str) -> bool:
        try:
            return self._find(scale).is_file()
        except LeDetrError:
            return False

    def _missing_sentence(self, scale: str) -> str:
        ready = [s.upper() for s in ledetr.SCALES if self._is_there(s)]
        instead = f", or choose {' or '.join(ready)}" if ready else ""
        return (
            f"Model {scale.upper()} has no weights on this computer yet: "
            f"put ledetr_{scale}.safetensors into {search_folders()[-1]}{instead}"
        )
