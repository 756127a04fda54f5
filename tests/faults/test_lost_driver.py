"""F15: the GPU's driver is lost in the middle. A fake CUDA error stands in for it; the words are the driver's own."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ledetr.backends.base import BackendInfo, RawOutputs
from ledetr.backends.torch_cuda import TorchCudaBackend
from ledetr.chain.pipeline import Failed, Pipeline, State
from ledetr.chain.sources import TestPatternSpec
from ledetr.chain.video import process_video
from ledetr.detector import Detector
from ledetr.errors import BackendUnavailable

LAUNCH = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported."
SENTENCE = (
    "cuda:0 stopped working (CUDA error: unspecified launch failure); choose the device cpu to go on, and start the "
    "program again to use the GPU again."
)
PATTERN = TestPatternSpec(width=64, height=48, live=False)


class LosesDriver(TorchCudaBackend):
    """An engine that finds nothing three times, then meets this error."""

    def __init__(self, words: str = LAUNCH) -> None:
        self.info = BackendInfo("torch-cuda", "cuda:0", "fp16", (64, 64))
        self._model: Any = object()
        self._graphs: Any = {}
        self._words = words
        self._left = 3

    def _run(self, pixels: np.ndarray) -> RawOutputs:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError(self._words)
        return RawOutputs(np.full((1, 4, 1), -9, np.float32), np.full((1, 4, 4), 0.5, np.float32))


def detector_on(backend: Any) -> Detector:
    return Detector(backend, model_id="n", class_names=["thing"], category_ids=[1])


def test_it_is_one_sentence_that_offers_the_cpu_and_the_window_lives(
    wait_until: Callable[..., None], one_box: Any
) -> None:
    events: list[Any] = []
    detector = detector_on(LosesDriver())
    with Pipeline(detector, policy="every", on_event=events.append) as pipeline:
        pipeline.open(PATTERN)
        wait_until(lambda: pipeline.state is State.FAILED)
        wait_until(lambda: events and isinstance(events[-1], Failed))
        error = events[-1].error
        assert type(error) is BackendUnavailable and str(error) == SENTENCE
        assert pipeline.latest().number == 3  # the last picture stays
        pipeline.set_detector(one_box(), release=lambda old: old.close())  # what a choice of "cpu" leads to
        pipeline.open(PATTERN)
        wait_until(lambda: pipeline.latest() is not None and pipeline.latest().number > 5)
        assert len(pipeline.latest().detections) == 1


def test_an_export_keeps_what_it_has(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(BackendUnavailable) as caught:
        process_video(clip, tmp_path / "out.mp4", detector_on(LosesDriver()))
    kept = tmp_path / "out.partial.mp4"
    assert str(caught.value) == f"{SENTENCE[:-1]}; 3 pictures are kept in {kept}." and caught.value.exit_code == 4
    with av.open(str(kept)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_an_error_that_is_not_the_drivers_is_not_called_that() -> None:
    engine = LosesDriver("a bug of ours")
    with pytest.raises(RuntimeError, match=r"^a bug of ours$"):
        for _ in range(9):
            engine.run(np.zeros((1, 64, 64, 3), np.uint8))
