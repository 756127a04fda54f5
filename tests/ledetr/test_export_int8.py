"""Files of int8: what is quantised and what is not, what they are calibrated on, and what is refused."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ledetr import Detector
from ledetr.backends.openvino_runtime import openvino
from ledetr.cli.main import main
from ledetr.errors import ExportError, SourceError, UsageError
from ledetr.export import export_model
from ledetr.export.quantise import CALIBRATION_PICTURES, CHECK_PICTURES, split_folder

needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="needs the extra: ledetr[quantise]")
SIZE_HW = (64, 96)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve smooth pictures."""
    path = tmp_path / "pictures"
    path.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        tile = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(tile).resize((90, 60)).save(path / f"{number}.png")
    return path


def coco_file(folder: Path) -> Path:
    """One box in the first picture."""
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 90, "height": 60}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20], "area": 600, "iscrowd": 0}
        ],
    }
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@needs_nncf
def test_a_file_of_int8(tiny_weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.xml"
    words = ["export", "-m", str(tiny_weights), "-o", str(path), "--precision", "int8", "--calibrate", str(folder)]
    assert main([*words, "--imgsz", "64", "--accuracy-on", str(coco_file(folder)), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["precision"]) == ("openvino", "int8")
    assert document["ap"]["fp32"] == pytest.approx(document["ap"]["file"], abs=0.01)
    quantised = _quantised_layers(path)
    assert len(quantised) > 10
    assert not [name for name in quantised if "decoder" in name]
    with Detector.load(path) as detector, Detector.load(tiny_weights, backend="openvino", imgsz=64) as float_one:
        assert detector.info.precision == "int8"
        rgb = np.asarray(Image.open(folder / "3.png"))
        found, wanted = detector.detect(rgb, conf=0.0), float_one.detect(rgb, conf=0.0)
        assert np.median(np.abs(found.confidence - wanted.confidence)) < 0.1


def _quantised_layers(path: Path) -> list[str]:
    """Names of convolutions and products whose inputs are rounded to 256 steps."""
    model = openvino.Core().read_model(path)
    return [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
        and op.input_value(0).get_node().get_type_name() == "FakeQuantize"
    ]


@needs_nncf
def test_a_loss_of_precision_is_refused(
    tiny_weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledetr.export._average_precisions", lambda *_: (0.2, 0.185))
    with pytest.raises(ExportError, match=r"in int8 it reaches 18\.5 of average precision, the weights 20\.0"):
        export_model(
            tiny_weights, tmp_path / "a.xml", format="openvino", precision="int8", imgsz=SIZE_HW, calibrate=folder,
            accuracy_on=coco_file(folder),
        )  # fmt: skip
    assert not list(tmp_path.glob("a.*"))


def test_without_nncf(tiny_weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"needs the package nncf: pip install .*'ledetr\[quantise\]'"):
        export_model(
            tiny_weights, tmp_path / "a.xml", format="openvino", precision="int8", imgsz=SIZE_HW, calibrate=folder
        )
    assert not list(tmp_path.glob("a.*"))


def test_what_makes_no_sense(tiny_weights: Path, folder: Path, tmp_path: Path) -> None:
    def export(name: str, **options: object) -> None:
        export_model(tiny_weights, tmp_path / name, imgsz=SIZE_HW, **options)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="'onnx' is written in fp32, fp16, not in 'int8'"):
        export("a.onnx", precision="int8", calibrate=folder)
    with pytest.raises(UsageError, match="int8 is calibrated on pictures"):
        export("a.xml", format="openvino", precision="int8")
    with pytest.raises(UsageError, match="int8 is calibrated on pictures, and only int8 is"):
        export("a.xml", format="openvino", calibrate=folder)
    with pytest.raises(SourceError, match="there is no folder"):
        export("a.xml", format="openvino", precision="int8", calibrate=tmp_path / "missing")


def test_pictures_of_a_folder(folder: Path) -> None:
    calibration, held_out = split_folder(folder)
    assert len(calibration) == 10 and len(held_out) == 2
    assert not set(calibration) & set(held_out)
    for path in list(folder.iterdir())[:3]:
        path.unlink()
    with pytest.raises(UsageError, match="holds 9 pictures; calibration needs at least 10"):
        split_folder(folder)
    for number in range(CALIBRATION_PICTURES + 100):
        (folder / f"empty {number}.jpg").touch()
    calibration, held_out = split_folder(folder)
    assert (len(set(calibration)), len(set(held_out))) == (CALIBRATION_PICTURES, CHECK_PICTURES)
    assert not set(calibration) & set(held_out)
