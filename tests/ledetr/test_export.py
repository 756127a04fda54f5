"""An exported file gives what torch gives, stands alone, and is not written where it would not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ledetr import Detector
from ledetr.backends import RawOutputs
from ledetr.errors import ExportError, UsageError
from ledetr.export import ExportReport, export_onnx, row_errors

onnx = pytest.importorskip("onnx", reason="needs the extra: ledetr[export]")
RGB = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    path = tmp_path_factory.mktemp("export") / "owls.onnx"
    return path, export_onnx(tiny_weights, path, imgsz=(64, 96))


def test_the_file_is_legal_and_plain(exported: tuple[Path, ExportReport]) -> None:
    path, report = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}, "standard operators only"
    assert model.opset_import[0].version == 17
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {entry.key: entry.value for entry in model.metadata_props}["scale"] == "tiny"
    assert report.size_bytes == path.stat().st_size
    assert 0 < report.logit_error < 1e-4
    assert 0 < report.box_error < 1e-5


def test_the_detector_opens_it(exported: tuple[Path, ExportReport], tiny_weights: Path) -> None:
    path, _ = exported
    with (
        Detector.load(path) as other,
        Detector.load(tiny_weights, backend="torch-cpu", imgsz=(64, 96)) as ours,
    ):
        assert other.model_id == "owls"
        assert other.info.name == "onnx"
        assert other.info.input_hw == (64, 96)
        assert other.class_names == ours.class_names
        assert other.score_threshold == ours.score_threshold == 0.4
        found, wanted = other.detect(RGB, conf=0.01), ours.detect(RGB, conf=0.01)
        assert len(found) == len(wanted) > 0
        assert np.allclose(np.sort(found.confidence), np.sort(wanted.confidence), atol=1e-5)
    with pytest.raises(UsageError, match=r"was exported for \(64, 96\)"):
        Detector.load(path, imgsz=640)


def test_onnx_without_our_metadata(exported: tuple[Path, ExportReport], tmp_path: Path) -> None:
    model = onnx.load(exported[0])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(Exception, match="was not written by Le-DETR"):
        Detector.load(tmp_path / "bare.onnx")


def test_onnx_of_another_form(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(Exception, match="is an ONNX file of another form"):
        Detector.load(tmp_path / "other.onnx")


def test_side_data_is_refused(
    exported: tuple[Path, ExportReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in a second file could be any file of the machine."""
    model = onnx.load(exported[0])
    path = tmp_path / "side.onnx"
    onnx.save(model, path, save_as_external_data=True, location="side.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="keeps weights in another file"):
        Detector.load(path)


def test_a_drifting_file_is_not_written(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledetr.export.MAX_LOGIT_ERROR", 0.0)
    with pytest.raises(ExportError, match="was not written: ONNX Runtime differs from torch"):
        export_onnx(tiny_weights, tmp_path / "a.onnx", imgsz=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_names_and_folders(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export_onnx(tiny_weights, tmp_path / "a.safetensors")
    with pytest.raises(ExportError, match="cannot be written"):
        export_onnx(tiny_weights, tmp_path / "missing" / "a.onnx", imgsz=(64, 64))


def _outputs(change: Callable[[np.ndarray, np.ndarray], None] | None = None) -> RawOutputs:
    random = np.random.default_rng(0)
    logits, boxes = random.normal(size=(5, 3)), random.random((5, 4))
    if change:
        change(logits, boxes)
    return RawOutputs(logits, boxes)


def test_row_errors() -> None:
    def swap(logits: np.ndarray, boxes: np.ndarray) -> None:
        logits[[0, 1]], boxes[[0, 1]] = logits[[1, 0]], boxes[[1, 0]]

    def lose_one(logits: np.ndarray, boxes: np.ndarray) -> None:
        logits[0], boxes[0] = logits[1], boxes[1]

    def shift(logits: np.ndarray, boxes: np.ndarray) -> None:
        boxes[3] += 0.01

    def spoil(logits: np.ndarray, boxes: np.ndarray) -> None:
        logits[2, 1] = np.nan

    assert row_errors(_outputs(swap), _outputs()) == (0, 0)
    assert row_errors(_outputs(shift), _outputs()) == pytest.approx((0, 0.01))
    assert max(row_errors(_outputs(lose_one), _outputs())) > 0.1
    assert max(row_errors(_outputs(), _outputs(lose_one))) > 0.1
    assert np.isnan(row_errors(_outputs(spoil), _outputs())[0])
