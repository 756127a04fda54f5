"""The detector as a user meets it: any picture in, boxes in its own pixels out, errors in one sentence."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ledetr import Detector
from ledetr.backends import BackendInfo, RawOutputs
from ledetr.errors import LeDetrError, UsageError, WeightsError
from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import LeDetr
from ledetr.preprocess import preprocess
from ledetr.weights import WeightsInfo, save_weights

RGB = np.random.default_rng(0).integers(0, 256, (123, 77, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tiny_weights: Path) -> Iterator[Detector]:
    with Detector.load(tiny_weights, backend="torch-cpu") as detector:
        yield detector


class OneBox:
    """An engine that finds class 2 with logit 2 in the left upper quarter, and class 0 everywhere with logit 0."""

    def __init__(self) -> None:
        self.info = BackendInfo("test", "cpu", "fp32", (64, 96))
        self.running = self.most_at_once = 0
        self.closed = 0

    def run(self, pixels: np.ndarray) -> RawOutputs:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        assert pixels.shape == (1, 64, 96, 3)
        assert pixels.dtype == np.uint8
        logits = np.full((1, 2, 3), -10, np.float32)
        logits[0, 0, 2], logits[0, 1, 0] = 2, 0
        boxes = np.array([[[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1]]], np.float32)
        threading.Event().wait(0.001)
        self.running -= 1
        return RawOutputs(logits, boxes)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def one_box() -> Detector:
    names = ("Person", "dog", "cat")
    return Detector(OneBox(), model_id="one", class_names=names, category_ids=(1, 18, 17), score_threshold=0.6)


# --- worked by hand


def test_boxes_are_in_pixels_of_the_picture(one_box: Detector) -> None:
    found = one_box.detect(np.zeros((100, 200, 3), np.uint8))
    assert found.xyxy.tolist() == [[0, 0, 100, 50]]
    assert found.names == ["cat"]
    assert found.confidence == pytest.approx([1 / (1 + np.exp(-2))])
    assert found.model_id == "one"


def test_threshold_is_the_weights_own_and_can_be_lowered(one_box: Detector) -> None:
    assert len(one_box.detect(RGB)) == 1
    assert one_box.detect(RGB, conf=0.5).names == ["cat", "Person"]
    assert len(one_box.detect(RGB, conf=0.95)) == 0
    with pytest.raises(UsageError, match=r"conf must lie in 0\.\.1, got 50"):
        one_box.detect(RGB, conf=50)


def test_classes_by_name_and_id(one_box: Detector) -> None:
    assert one_box.detect(RGB, conf=0.1, classes=["person"]).names == ["Person"]
    assert one_box.detect(RGB, conf=0.1, classes=[2]).names == ["cat"]
    assert one_box.detect(RGB, conf=0.1, classes=["CAT", 0]).names == ["cat", "Person"]
    assert len(one_box.detect(RGB, conf=0.1, classes=[])) == 0
    assert one_box.names == {0: "Person", 1: "dog", 2: "cat"}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("persn", "model 'one' has no class 'persn': did you mean 'Person'?"),
        ("zeppelin", "model 'one' has no class 'zeppelin': it knows Person, dog, cat"),
        (3, "model 'one' has classes 0..2, asked for 3"),
        (-1, "model 'one' has classes 0..2, asked for -1"),
    ],
)
def test_unknown_classes(one_box: Detector, wanted: str | int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        one_box.detect(RGB, classes=[wanted])
    assert str(caught.value) == words


def test_a_list_gives_a_list(one_box: Detector, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    pictures = [RGB, Image.fromarray(RGB), torch.from_numpy(RGB), tmp_path / "a.png", str(tmp_path / "a.png")]
    found = one_box.detect(pictures)
    assert [row.xyxy.tolist() for row in found] == [found[0].xyxy.tolist()] * 5
    assert one_box.detect([]) == []


def test_detect_frame_has_a_low_floor_and_times(one_box: Detector) -> None:
    found, times = one_box.detect_frame(RGB)
    assert len(found) == 2
    assert found.score_floor == 0.05
    assert times.infer_ms >= 1
    assert min(times.preprocess_ms, times.postprocess_ms) >= 0
    assert len(one_box.detect_frame(RGB, max_detections=1)[0]) == 1


def test_one_picture_at_a_time(one_box: Detector) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                assert len(one_box.detect(RGB)) == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert one_box._backend.most_at_once == 1  # type: ignore[union-attr]


def test_close_twice_and_use_after(one_box: Detector) -> None:
    engine = one_box._backend
    with one_box:
        one_box.warm_up()
    one_box.close()
    assert engine.closed == 1  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="detector 'one' is closed"):
        one_box.detect(RGB)


# --- the whole, on the small network


def test_against_the_network_itself(detector: Detector, tiny_model: LeDetr) -> None:
    pixels, _ = preprocess(RGB, (96, 96))
    with torch.inference_mode():
        logits, boxes = tiny_model(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    scores = logits[0].sigmoid()
    query, label = divmod(int(scores.flatten().argmax()), 80)
    cx, cy, w, h = boxes[0, query].tolist()
    found = detector.detect(RGB, conf=0)
    expected = [(cx - w / 2) * 77, (cy - h / 2) * 123, (cx + w / 2) * 77, (cy + h / 2) * 123]
    assert found.class_id[0] == label
    assert found.confidence[0] == pytest.approx(float(scores.max()), abs=1e-5)
    assert found.xyxy[0] == pytest.approx(np.clip(expected, 0, [77, 123, 77, 123]), abs=1e-2)
    assert len(found) == 300


def test_metadata_reaches_the_detector(detector: Detector) -> None:
    assert detector.model_id == "ledetr_tiny"
    assert detector.score_threshold == 0.4
    assert detector.random_weights is False
    assert detector.weights is not None
    assert detector.weights.licence == "Apache-2.0"
    assert detector.category_ids[-1] == 90
    assert detector.info.reason


def test_without_a_threshold_in_the_file(
    tmp_path: Path, tiny_model: LeDetr, make_info: Callable[..., WeightsInfo]
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny_model, replace(make_info(tiny_model.config), score_threshold=None))
    with Detector.load(path, backend="torch-cpu") as detector:
        assert detector.score_threshold == 0.5


def test_extreme_pictures(detector: Detector) -> None:
    for height, width in ((1, 1), (1, 4096), (4096, 1), (33, 1001)):
        found = detector.detect(np.zeros((height, width, 3), np.uint8), conf=0)
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= [width, height, width, height]).all()


def test_rectangular_input(tiny_weights: Path) -> None:
    with Detector.load(tiny_weights, backend="torch-cpu", imgsz=(64, 160)) as detector:
        assert detector.info.input_hw == (64, 160)
        detector.warm_up()


@pytest.mark.parametrize("imgsz", [0, 100, (96, 50), 16384, -32])
def test_sizes_that_do_not_fit(tiny_weights: Path, imgsz: int | tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="imgsz must be multiples of 32"):
        Detector.load(tiny_weights, backend="torch-cpu", imgsz=imgsz)


def test_threads_share_one_detector(detector: Detector) -> None:
    wanted = detector.detect(RGB, conf=0).xyxy
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(detector.detect(RGB, conf=0).xyxy)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 4
    assert all(np.array_equal(result, wanted) for result in results)


@pytest.mark.parametrize("backend", ["torch-cpu", "openvino"])
def test_close_lets_the_network_go(tiny_weights: Path, backend: str) -> None:
    detector = Detector.load(tiny_weights, backend=backend, precision="fp32")
    engine = detector._backend
    held = engine._model if backend == "torch-cpu" else engine._compiled  # type: ignore[union-attr]
    alive = weakref.ref(held)
    detector.detect(RGB)
    detector.close()
    del held
    gc.collect()
    assert alive() is None


# --- weights that are not there


def test_no_weights_names_the_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ledetr.weights_file.search_folders", lambda: (tmp_path,))
    with pytest.raises(WeightsError) as caught:
        Detector.load("m")
    assert str(tmp_path) in str(caught.value)
    assert "random_weights=True" in str(caught.value)


def test_random_weights_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledetr.detector.VARIANTS", {"tiny": ledetr_tiny})
    with Detector.load("tiny", random_weights=True, backend="torch-cpu") as detector:
        first = detector.detect(RGB, conf=0)
        assert detector.random_weights is True
        assert detector.weights is None
        assert detector.names[0] == "person"
    with Detector.load("tiny", random_weights=True, backend="torch-cpu") as detector:
        assert np.array_equal(detector.detect(RGB, conf=0).confidence, first.confidence)


def test_random_weights_are_for_scales(tiny_weights: Path) -> None:
    with pytest.raises(UsageError, match="random weights are for a scale"):
        Detector.load(tiny_weights, random_weights=True)


def test_corrupt_weights(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    torch.save({}, path)
    with pytest.raises(WeightsError, match="is a pickle"):
        Detector.load(path)


def test_onnx_files_of_others(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "a.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"a\.onnx' is no ONNX file"):
        Detector.load(path)
    with pytest.raises(LeDetrError, match="runs with backend 'onnx'"):
        Detector.load(path, backend="openvino")
