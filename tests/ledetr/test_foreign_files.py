"""Model files of D-FINE, DEIM and RT-DETR: opened with care, named honestly, used like any other model."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ledetr import Detector
from ledetr.backends.onnx_file import class_count, read_onnx
from ledetr.cli.main import main
from ledetr.errors import BackendUnavailable, UsageError, WeightsError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES

onnx = pytest.importorskip("onnx", reason="needs the extra: ledetr[export]")
pytest.importorskip("onnxruntime", reason="needs the extra: ledetr[export]")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

TEACHER = Path(__file__).parents[2] / ".." / "shared" / "data" / "teachers" / "deimv2_femto_416.onnx"
INPUT_HW = (64, 96)
# Corners of the two queries in 0..1, and where their logits stand out.
BOXES = np.array([[0.25, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 0.25]], np.float32)


def foreign_model(
    *, classes: int = 80, size: tuple[int | str, int | str] = INPUT_HW, batch: int | str = "N", modulus: bool = True
) -> onnx.ModelProto:
    """Query 0 has class 2 with logit 1 + brightness, query 1 class 5 with logit 0 + brightness; all others are at -9.

    modulus=False: labels are not made by a division, so the file does not show how many classes there are.
    """
    logits = np.full((1, 2, classes), -9, np.float32)
    logits[0, 0, 2], logits[0, 1, 5] = 1, 0
    constants = {
        "base": logits.reshape(1, -1),
        "boxes01": BOXES,
        "count": np.array(classes, np.int64),
        "k": np.array([4], np.int64),
        "column": np.array([-1, 1], np.int64),
        "one": np.array([1], np.int64),
    }
    nodes = [
        ("ReduceMean", ["images"], ["mean4"], {"axes": [1, 2, 3]}),
        ("Reshape", ["mean4", "column"], ["brightness"], {}),
        ("Add", ["base", "brightness"], ["flat"], {}),
        ("Sigmoid", ["flat"], ["every_score"], {}),
        ("TopK", ["every_score", "k"], ["scores", "pair"], {}),
        ("Div", ["pair", "count"], ["query"], {}),
        ("Mul", ["query", "count"], ["start"], {}),
        ("Sub", ["pair", "start"], ["labels"], {}) if modulus else ("Identity", ["pair"], ["labels"], {}),
        ("Gather", ["boxes01", "query"], ["chosen"], {}),
        ("Cast", ["orig_target_sizes"], ["sizes"], {"to": TensorProto.FLOAT}),
        ("Concat", ["sizes", "sizes"], ["limits2"], {"axis": 1}),
        ("Unsqueeze", ["limits2", "one"], ["limits"], {}),
        ("Mul", ["chosen", "limits"], ["boxes"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in nodes],
        "detector",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *size]),
            helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [batch, 2]),
        ],
        [
            helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, 4]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 4, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_foreign(path: Path, **form: object) -> Path:
    onnx.save(foreign_model(**form), path)  # type: ignore[arg-type]
    return path


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def grey(value: int, height: int = 100, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


# --- worked by hand


def test_boxes_scores_and_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_foreign(tmp_path / "d_fine.onnx")
    with caplog.at_level(logging.WARNING), Detector.load(path) as detector:
        assert caplog.messages == ["'d_fine.onnx' names no classes; its 80 are taken as those of COCO"]
        assert (detector.model_id, detector.info.name, detector.info.input_hw) == ("d_fine", "onnx", INPUT_HW)
        assert detector.class_names == COCO_NAMES and detector.category_ids == COCO_CATEGORY_IDS
        assert detector.weights is None and not detector.random_weights
        found = detector.detect(grey(51), conf=0.3)
    # RGB in 0..1 without mean and std: a grey of 51 adds 51 / 255 to the logits.
    assert found.confidence == pytest.approx([sigmoid(1.2), sigmoid(0.2)], abs=1e-5)
    assert found.names == ["car", "bus"]
    assert found.xyxy == pytest.approx(np.array([[50, 50, 100, 100], [0, 0, 200, 25]]), abs=1e-4)
    assert found.model_id == "d_fine"


def test_the_floor_and_the_limit(tmp_path: Path) -> None:
    with Detector.load(write_foreign(tmp_path / "a.onnx")) as detector:
        assert len(detector.detect_frame(grey(0))[0]) == 2, "the others are at a score of 0.0001"
        assert len(detector.detect_frame(grey(0), score_floor=0.0)[0]) == 4
        assert detector.detect_frame(grey(0), max_detections=1)[0].names == ["car"]
        assert len(detector.detect(grey(0), classes=["bus"])) == 1
    with pytest.raises(ValueError, match="closed"):
        detector.detect(grey(0))


def test_one_picture_at_a_time_where_the_file_wants_it(tmp_path: Path) -> None:
    with Detector.load(write_foreign(tmp_path / "a.onnx", batch=1)) as detector:
        engine = detector._backend
        assert engine is not None
        many = engine.run(np.zeros((3, *INPUT_HW, 3), np.uint8))
        assert many[2].labels.tolist() == engine.run(np.zeros((1, *INPUT_HW, 3), np.uint8))[0].labels.tolist()


def test_seven_classes_have_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Detector.load(write_foreign(tmp_path / "own.onnx", classes=7)) as detector:
        assert detector.class_names == tuple(f"class {i}" for i in range(7))
        assert detector.detect(grey(0), conf=0.6).names == ["class 2"]
    assert "'own.onnx' names no classes; its 7 have numbers only" in caplog.text


def test_the_number_of_classes_is_read_from_the_graph(tmp_path: Path) -> None:
    assert class_count(read_onnx(write_foreign(tmp_path / "a.onnx", classes=365))) == 365
    assert class_count(read_onnx(write_foreign(tmp_path / "b.onnx", modulus=False))) is None


@pytest.mark.skipif(not TEACHER.exists(), reason="no ../shared/data/teachers beside the repository")
def test_a_real_one(tmp_path: Path) -> None:
    assert class_count(read_onnx(TEACHER)) == 80
    import onnxruntime

    rgb = np.array(Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)).resize((416, 416)))
    session = onnxruntime.InferenceSession(str(TEACHER))
    images = rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255
    labels, boxes, scores = session.run(None, {"images": images, "orig_target_sizes": np.array([[416, 416]])})
    with Detector.load(TEACHER) as detector:
        found = detector.detect(rgb, conf=0.0)
    assert found.confidence == pytest.approx(scores[0], abs=1e-6)
    assert found.class_id.tolist() == labels[0].tolist()
    assert found.xyxy == pytest.approx(boxes[0].clip(0, 416), abs=1e-3)


# --- files that are refused


def saved(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = foreign_model()
    change(model)
    onnx.save(model, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        Detector.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_text_renamed(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    for text in ("Not a model at all, only words.\n", "", "<html></html>", "{}"):
        path.write_text(text)
        assert "notes.onnx' is no ONNX file" in refusal(path)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    whole = write_foreign(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        assert "cut.onnx' is no ONNX file" in refusal(path)


def test_side_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in a second file could be any file of the machine."""
    path = tmp_path / "side.onnx"
    onnx.save(foreign_model(), path, save_as_external_data=True, location="side.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    assert "keeps weights in another file" in refusal(path)


def test_side_data_written_in_an_unusual_way(tmp_path: Path) -> None:
    """The same fields with a key length of two bytes, which a search for the usual bytes would miss."""
    entry = b"\x0a\x88\x00location\x12\x06passwd"
    tensor = b"\x08\x04\x10\x01\x42\x01w" + b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    path = tmp_path / "odd.onnx"
    path.write_bytes(b"\x08\x08\x3a" + bytes([len(graph)]) + graph)
    assert "keeps weights in another file" in refusal(path)


def test_side_data_in_an_inner_graph(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="elsewhere")
        inner = helper.make_graph([], "inner", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))

    assert "keeps weights in another file" in refusal(saved(tmp_path / "inner.onnx", change))


def test_operators_beyond_the_standard(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[3].domain = "mmdeploy"
        model.opset_import.append(helper.make_opsetid("mmdeploy", 1))

    assert "uses the operator 'Sigmoid' of 'mmdeploy', which is not part of the ONNX standard" in refusal(
        saved(tmp_path / "custom.onnx", change)
    )


def test_an_operator_that_nobody_knows(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[3].op_type = "Sigmund"

    assert "Sigmund" in refusal(saved(tmp_path / "typo.onnx", change))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"size": ("height", "width")}, "leaves its picture size open"),
        ({"size": (64, 20000)}, "leaves its picture size open or beyond 8192"),
        ({"batch": 4}, "expected tensor(float) (1 or open, 3, H, W)"),
        ({"modulus": False}, "does not show how many classes it tells apart"),
    ],
)
def test_forms_that_do_not_fit(tmp_path: Path, form: dict[str, object], words: str) -> None:
    assert words in refusal(write_foreign(tmp_path / "a.onnx", **form))


def test_other_inputs_are_named(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "data"
        model.graph.node[0].input[0] = "data"

    words = refusal(saved(tmp_path / "a.onnx", change))
    assert (
        "it takes data, orig_target_sizes and gives labels, boxes, scores; known are files of 'ledetr export'" in words
    )


def test_requests_that_do_not_fit(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=r"was exported for \(64, 96\), imgsz=640 needs another export"):
        Detector.load(path, imgsz=640)
    with pytest.raises(UsageError, match="runs with backend 'onnx' only"):
        Detector.load(path, backend="torch-cuda")
    with pytest.raises(BackendUnavailable, match="runs on the cpu only"):
        Detector.load(path, device="cuda")
    with pytest.raises(BackendUnavailable, match="runs in fp32, not in bf16"):
        Detector.load(path, precision="bf16")
    with pytest.raises(UsageError, match="is exported: its weights and decoder layers were chosen then"):
        Detector.load(path, decoder_layers=2)


# --- where people use it


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_foreign(tmp_path / "other.onnx")
    Image.fromarray(grey(51)).save(tmp_path / "a.png")
    words = ["detect", str(tmp_path / "a.png"), "-m", str(path), "-o", str(tmp_path / "b.png"), "--conf", "0.3"]
    assert main([*words, "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "other"
    assert document["results"][0]["boxes_by_class"] == {"car": 1, "bus": 1}
    assert main(["bench", "-m", str(path), "--runs", "2", "--warmup", "0", "--json", "-q"]) == 0
    row = json.loads(capsys.readouterr().out)["results"][0]
    assert row["params_m"] is None and row["median_ms"] > 0


def test_the_window(tmp_path: Path) -> None:
    from ledetr_app.session import Session

    path = write_foreign(tmp_path / "other.onnx")
    session = Session()
    try:
        session.start(model=str(path))
        end = time.monotonic() + 20
        while session.state.running is None and session.state.problem is None and time.monotonic() < end:
            time.sleep(0.02)
        assert session.state.problem is None
        assert session.state.running is not None and session.state.running.class_names == COCO_NAMES
    finally:
        session.close()
