"""An exported file gives what torch gives, stands alone, and is not written where it would not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ledetr import Detector
from ledetr.backends import RawOutputs
from ledetr.backends.openvino_runtime import openvino
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr.errors import ExportError, UsageError, WeightsError
from ledetr.export import BOUNDS, FORMATS, ExportReport, export_model
from ledetr.export.drift import Kept, detection_errors, kept_objects, row_errors
from ledetr.export.pictures import default_pictures
from ledetr.model.config import VARIANTS, ModelConfig, ledetr_n, ledetr_tiny
from ledetr.model.ledetr import LeDetr
from ledetr.weights import WeightsInfo, load_model, save_weights

onnx = pytest.importorskip("onnx", reason="needs the extra: ledetr[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra: ledetr[export]")
RGB = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)

# Float32 engines order sums differently; logits of the random networks are of size 1 to 10 and boxes lie in 0..1.
LOGIT_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-5

Run = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def exported(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    path = tmp_path_factory.mktemp("export") / "owls.onnx"
    return path, export_model(tiny_weights, path, imgsz=(64, 96))


@pytest.fixture(scope="module")
def exported_ir(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "owls.xml"
    export_model(tiny_weights, path, format="openvino", imgsz=(64, 96), dynamic_batch=True)
    return path


# --- against torch, with the engines themselves and not ours


def by_onnx_runtime(path: Path) -> Run:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda **inputs: dict(zip(names, session.run(names, inputs), strict=True))


def by_openvino(path: Path) -> Run:
    """Reads ONNX as well as its own files."""
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", options)

    known = {name for port in compiled.outputs for name in port.get_names()}
    names = known & {"logits", "boxes_cxcywh", "labels", "boxes", "scores"}
    assert len(names) == len(compiled.outputs)

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        answer = compiled(inputs)
        return {name: answer[name].copy() for name in names}

    return run


def by_torch(path: Path) -> Run:
    program = torch.export.load(path).module()

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            answer = program(*(torch.from_numpy(value) for value in inputs.values()))
        names = ("logits", "boxes_cxcywh") if len(answer) == 2 else ("labels", "boxes", "scores")
        return dict(zip(names, (part.numpy() for part in answer), strict=True))

    return run


def torch_outputs(model: LeDetr, pixels: np.ndarray) -> RawOutputs:
    """The training form, one picture at a time: independent of fused(), of batches and of what is exported."""
    with torch.inference_mode():
        rows = [model(torch.from_numpy(row).permute(2, 0, 1)[None]) for row in pixels]
    return RawOutputs(torch.cat([row[0] for row in rows]).numpy(), torch.cat([row[1] for row in rows]).numpy())


def pixels_of(batch: int, size_hw: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, *size_hw, 3), dtype=np.uint8)


def assert_raw_agree(run: Run, model: LeDetr, size_hw: tuple[int, int], batches: tuple[int, ...]) -> None:
    for batch in batches:
        pixels = pixels_of(batch, size_hw)
        answer, wanted = run(pixels=pixels), torch_outputs(model, pixels)
        assert set(answer) == {"logits", "boxes_cxcywh"}
        assert answer["logits"].shape == wanted.logits.shape and answer["boxes_cxcywh"].shape[2] == 4
        assert wanted.boxes_cxcywh.std(1).min() > 100 * BOX_TOLERANCE, "the test network must spread its boxes"
        for row in range(batch):
            actual = RawOutputs(answer["logits"][row], answer["boxes_cxcywh"][row])
            logit_error, box_error = row_errors(actual, wanted[row])
            assert logit_error < LOGIT_TOLERANCE and box_error < BOX_TOLERANCE


# torch.export itself takes most of the time.
SLOW_TORCH = pytest.param(".pt2", by_torch, marks=pytest.mark.slow)


@pytest.mark.parametrize("config", [ledetr_tiny(), ledetr_n()], ids=["tiny", "n"])
@pytest.mark.parametrize("size_hw", [(96, 96), (64, 160)], ids=str)
def test_onnx_equals_torch(
    config: ModelConfig,
    size_hw: tuple[int, int],
    make_model: Callable[..., LeDetr],
    make_info: Callable[..., WeightsInfo],
    tmp_path: Path,
) -> None:
    """In ONNX Runtime and in OpenVINO, with random values in every head, for several pictures at once."""
    model = make_model(config)
    save_weights(tmp_path / "w.safetensors", model, make_info(config), storage="fp32")
    path = tmp_path / "model.onnx"
    report = export_model(tmp_path / "w.safetensors", path, imgsz=size_hw, dynamic_batch=True)
    assert report.batches == (1, 2, 7) and report.relative_error < 1e-4
    for run in (by_onnx_runtime(path), by_openvino(path)):
        assert_raw_agree(run, model, size_hw, (1, 2, 7))


@pytest.mark.parametrize(("suffix", "engine"), [(".xml", by_openvino), SLOW_TORCH])
def test_other_formats_equal_torch(
    suffix: str, engine: Callable[[Path], Run], tiny_weights: Path, tiny_model: LeDetr, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    word = {suffix: name for name, suffix in FORMATS.items()}[suffix]
    export_model(tiny_weights, path, format=word, imgsz=(64, 96), dynamic_batch=True)
    assert_raw_agree(engine(path), tiny_model, (64, 96), (1, 2, 7))


# Halves have 11 bits: 5e-4 of each number, through some fifty layers; most rows of these networks keep to this.
HALF_LOGIT_TOLERANCE = 0.05
HALF_BOX_TOLERANCE = 5e-3


def assert_half_agrees(run: Run, model: LeDetr, size_hw: tuple[int, int]) -> None:
    """Most rows of every picture: rounding lets the encoder choose some other queries."""
    for batch in (1, 2, 7):
        pixels = pixels_of(batch, size_hw)
        answer, wanted = run(pixels=pixels), torch_outputs(model, pixels)
        assert answer["logits"].dtype == answer["boxes_cxcywh"].dtype == np.float32
        for row in range(batch):
            actual = RawOutputs(answer["logits"][row], answer["boxes_cxcywh"][row])
            logit_error, box_error = row_errors(actual, wanted[row], share=0.8)
            assert logit_error < HALF_LOGIT_TOLERANCE and box_error < HALF_BOX_TOLERANCE


def assert_only_maps_are_half(path: Path) -> None:
    """Convolutions are in float16; whatever has to do with norms, boxes, sampling and ranking is not."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    of_operator: dict[str, set[int]] = {}
    for node in graph.node:
        of_operator.setdefault(node.op_type, set()).update(kinds[name] for name in node.output if name in kinds)
    assert of_operator["Conv"] == {onnx.TensorProto.FLOAT16}
    for operator in ("GridSample", "LayerNormalization", "Sqrt", "Log", "TopK"):
        assert of_operator.get(operator, {onnx.TensorProto.FLOAT}) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


@pytest.mark.parametrize(
    ("config", "size_hw"),
    [(ledetr_tiny(), (96, 96)), (ledetr_tiny(), (64, 160)), (ledetr_n(), (96, 96)), (ledetr_n(), (64, 160))],
    ids=["tiny square", "tiny wide", "n square", "n wide"],
)
def test_halves_are_near_torch(
    config: ModelConfig,
    size_hw: tuple[int, int],
    make_model: Callable[..., LeDetr],
    make_info: Callable[..., WeightsInfo],
    tmp_path: Path,
) -> None:
    assert_halves_near_torch(config, size_hw, make_model(config), make_info(config), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size_hw", [(96, 96), (64, 160)], ids=str)
@pytest.mark.parametrize("scale", ["m", "l", "x"])
def test_halves_of_large_scales(
    scale: str,
    size_hw: tuple[int, int],
    make_model: Callable[..., LeDetr],
    make_info: Callable[..., WeightsInfo],
    tmp_path: Path,
) -> None:
    config = VARIANTS[scale]()
    assert_halves_near_torch(config, size_hw, make_model(config), make_info(config), tmp_path)


def assert_halves_near_torch(
    config: ModelConfig, size_hw: tuple[int, int], model: LeDetr, info: WeightsInfo, folder: Path
) -> None:
    save_weights(folder / "w.safetensors", model, info, storage="fp32")
    path = folder / "model.onnx"
    report = export_model(folder / "w.safetensors", path, precision="fp16", imgsz=size_hw, dynamic_batch=True)
    assert report.precision == "fp16" and report.batches == (1, 2, 7) and report.relative_error > 0
    assert_only_maps_are_half(path)
    for run in (by_onnx_runtime(path), by_openvino(path)):
        assert_half_agrees(run, model, size_hw)
    with Detector.load(path) as detector:
        assert detector.info.precision == "fp16"


def test_halves_with_the_last_step_inside_and_in_openvino(
    tiny_weights: Path, tiny_model: LeDetr, tmp_path: Path
) -> None:
    full = export_model(tiny_weights, tmp_path / "full.xml", format="openvino", imgsz=(64, 96))
    half = export_model(tiny_weights, tmp_path / "half.xml", format="openvino", imgsz=(64, 96), precision="fp16")
    weights = [(tmp_path / name).stat().st_size for name in ("half.bin", "full.bin")]
    assert weights[0] < 0.7 * weights[1]
    assert full.relative_error < half.relative_error
    ranked = export_model(tiny_weights, tmp_path / "a.onnx", imgsz=(64, 96), precision="fp16", with_postprocess=True)
    assert ranked.logit_error is None and ranked.share == 0.5
    onnx.checker.check_model(onnx.load(tmp_path / "a.onnx"), full_check=True)


@pytest.mark.weights
def test_halves_of_the_shipped_weights_find_the_same_objects(tmp_path: Path) -> None:
    report = export_model("n", tmp_path / "n.onnx", precision="fp16")
    assert report.kept_share is not None and report.kept_share > 0.95


def test_halves_that_overflow_are_refused(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to networks whose numbers do not fit: infinity, then NaN, then nothing is found."""
    real = LeDetr.fused

    def loud(self: LeDetr, *args: Any) -> LeDetr:
        deploy = real(self, *args)
        deploy.backbone.stem.conv.weight.data *= 1e6
        return deploy

    monkeypatch.setattr(LeDetr, "fused", loud)
    with pytest.raises(ExportError, match=r"differs from torch by .* in the best 50% of the rows"):
        export_model(tiny_weights, tmp_path / "a.onnx", imgsz=(64, 64), precision="fp16")
    assert list(tmp_path.iterdir()) == []


def ranked_by_hand(wanted: RawOutputs, width: int, height: int, count: int) -> list[tuple[float, int, list[float]]]:
    """Score, class and clipped corners of the best pairs, in plain Python."""
    rows = []
    for query, logits in enumerate(wanted.logits):
        cx, cy, w, h = (float(v) for v in wanted.boxes_cxcywh[query])
        corners = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        limits = (width, height, width, height)
        clipped = [min(max(value, 0.0), limit) for value, limit in zip(corners, limits, strict=True)]
        rows += [(float(1 / (1 + np.exp(-float(x)))), label, clipped) for label, x in enumerate(logits)]
    return sorted(rows, key=lambda row: -row[0])[:count]


@pytest.mark.parametrize(("suffix", "engine"), [(".onnx", by_onnx_runtime), (".xml", by_openvino), SLOW_TORCH])
def test_the_last_step_inside(
    suffix: str, engine: Callable[[Path], Run], tiny_weights: Path, tiny_model: LeDetr, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    word = {suffix: name for name, suffix in FORMATS.items()}[suffix]
    report = export_model(tiny_weights, path, format=word, imgsz=(64, 96), dynamic_batch=True, with_postprocess=True)
    assert report.logit_error is None and report.detections_compared == 3000
    sizes = np.array([[1280, 720], [333, 1000]])
    pixels = pixels_of(2, (64, 96))
    answer, wanted = engine(path)(pixels=pixels, orig_target_sizes=sizes), torch_outputs(tiny_model, pixels)
    assert answer["labels"].dtype == np.int64
    for row, (width, height) in enumerate(sizes):
        every = ranked_by_hand(wanted[row], width, height, 10_000)
        scores = [score for score, _, _ in every[:300]]
        assert answer["scores"][row] == pytest.approx(scores, abs=LOGIT_TOLERANCE)
        for label, box, score in zip(*(answer[name][row] for name in ("labels", "boxes", "scores")), strict=True):
            assert any(
                label == other and abs(score - s) < LOGIT_TOLERANCE and np.abs(box - corners).max() < 0.02
                for s, other, corners in every
            )


# --- what the files are


def test_the_file_is_legal_and_plain(exported: tuple[Path, ExportReport]) -> None:
    path, report = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}, "standard operators only"
    assert model.opset_import[0].version == 17
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {entry.key: entry.value for entry in model.metadata_props}["scale"] == "tiny"
    assert report.size_bytes == path.stat().st_size
    assert report.files == (path,)
    assert report.logit_error is not None and 0 < report.logit_error < LOGIT_TOLERANCE
    assert 0 < report.box_error < BOX_TOLERANCE
    assert len(report.pictures) == 7


def test_the_detector_opens_it(exported: tuple[Path, ExportReport], exported_ir: Path, tiny_weights: Path) -> None:
    with Detector.load(tiny_weights, backend="torch-cpu", imgsz=(64, 96)) as ours:
        wanted = ours.detect(RGB, conf=0.01)
    for path, engine in ((exported[0], "onnx"), (exported_ir, "openvino")):
        with Detector.load(path, precision="fp32") as other:
            assert (other.model_id, other.info.name, other.info.input_hw) == ("owls", engine, (64, 96))
            assert other.class_names == ours.class_names and other.category_ids == ours.category_ids
            assert other.score_threshold == ours.score_threshold == 0.4
            assert other.weights is not None and other.weights.licence == "Apache-2.0"
            assert not other.random_weights
            found = other.detect(RGB, conf=0.01)
            assert len(found) == len(wanted) > 0
            assert np.allclose(np.sort(found.confidence), np.sort(wanted.confidence), atol=1e-5)
        with pytest.raises(UsageError, match=r"was exported for \(64, 96\)"):
            Detector.load(path, imgsz=640)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_the_detector_opens_ranked_files(suffix: str, tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / f"ranked{suffix}"
    word = {suffix: name for name, suffix in FORMATS.items()}[suffix]
    export_model(tiny_weights, path, format=word, imgsz=(64, 96), with_postprocess=True)
    with (
        Detector.load(path, precision="fp32") as other,
        Detector.load(tiny_weights, backend="torch-cpu", imgsz=(64, 96)) as ours,
    ):
        found, wanted = other.detect(RGB, conf=0.01), ours.detect(RGB, conf=0.01)
        assert other.score_threshold == 0.4
        assert len(found) == len(wanted) > 0
        assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
        assert found.xyxy[0] == pytest.approx(wanted.xyxy[0], abs=1e-3)


def test_fewer_layers_and_random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ledetr.export.VARIANTS", {"tiny": ledetr_tiny})
    report = export_model(
        "tiny", tmp_path / "a.onnx", imgsz=64, decoder_layers=1, random_weights=True, pictures={"red": RGB}
    )
    assert (report.decoder_layers, report.random_weights, report.pictures) == (1, True, ("red",))
    with Detector.load(tmp_path / "a.onnx") as detector:
        assert detector.random_weights, "nobody must take its boxes for real"
        assert detector.weights is not None and detector.weights.config.decoder.eval_layers == 1
    with pytest.raises(UsageError, match="random weights are for a scale"):
        export_model("b.safetensors", tmp_path / "b.onnx", random_weights=True)


def test_the_pictures_are_real_and_made() -> None:
    pictures = default_pictures((64, 96))
    assert len(pictures) == 7
    assert sum(name.startswith("sample.mp4 at") for name in pictures) == 3
    frames = list(pictures.values())[:3]
    assert frames[0].shape == frames[1].shape and not np.array_equal(frames[0], frames[1])


# --- files that are refused


def test_onnx_without_our_metadata(exported: tuple[Path, ExportReport], tmp_path: Path) -> None:
    model = onnx.load(exported[0])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(WeightsError, match="was not written by Le-DETR"):
        Detector.load(tmp_path / "bare.onnx")


def test_a_flipped_bit_is_found(exported: tuple[Path, ExportReport], exported_ir: Path, tmp_path: Path) -> None:
    content = bytearray(exported[0].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"is damaged or was changed after 'ledetr export' wrote it|is no ONNX file"):
        Detector.load(tmp_path / "a.onnx")
    content = bytearray(exported_ir.with_suffix(".bin").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "b.bin").write_bytes(content)
    (tmp_path / "b.xml").write_bytes(exported_ir.read_bytes())
    with pytest.raises(WeightsError, match=r"b\.bin' is damaged or belongs to another export"):
        Detector.load(tmp_path / "b.xml")


def test_openvino_files_that_are_refused(exported_ir: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(exported_ir.read_bytes())
    with pytest.raises(WeightsError, match=r"needs its weights beside it: '.*a\.bin' is missing"):
        Detector.load(path)
    path.with_suffix(".bin").write_bytes(b"")
    path.write_text("words, not a model")
    with pytest.raises(WeightsError, match="is no OpenVINO model that can be read"):
        Detector.load(path)
    parameter = openvino.opset13.parameter([1], np.float32)
    openvino.save_model(openvino.Model([openvino.opset13.relu(parameter)], [parameter]), path)
    with pytest.raises(WeightsError, match="was not written by 'ledetr export'"):
        Detector.load(path)


# --- not written


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_drifting_file_is_not_written(
    suffix: str, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BOUNDS, "fp32", replace(BOUNDS["fp32"], box=0.0))
    word = {suffix: name for name, suffix in FORMATS.items()}[suffix]
    with pytest.raises(ExportError, match=r"was not written: .* differs from torch by"):
        export_model(tiny_weights, tmp_path / f"a{suffix}", format=word, imgsz=(64, 64), pictures={"a": RGB})
    assert list(tmp_path.iterdir()) == []


def test_another_network_is_noticed(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check compares with the network itself: a graph with changed biases does not pass."""
    real = LeDetr.fused

    def spoilt(self: LeDetr, *args: Any) -> LeDetr:
        deploy = real(self, *args)
        deploy.decoder.scores[-1].bias.data[::2] += 0.05
        return deploy

    monkeypatch.setattr(LeDetr, "fused", spoilt)
    for ranked in (False, True):
        with pytest.raises(ExportError, match="was not written"):
            export_model(tiny_weights, tmp_path / "a.onnx", imgsz=(64, 64), with_postprocess=ranked)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_file(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx").write_bytes(b"the old one")
    monkeypatch.setitem(BOUNDS, "fp32", replace(BOUNDS["fp32"], box=0.0))
    with pytest.raises(ExportError):
        export_model(tiny_weights, tmp_path / "a.onnx", imgsz=(64, 64), pictures={"a": RGB})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old one"]


def test_names_and_folders(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of format 'onnx' ends in \.onnx"):
        export_model(tiny_weights, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="unknown format 'tflite', known are onnx, openvino, torch-export"):
        export_model(tiny_weights, tmp_path / "a.onnx", format="tflite")
    with pytest.raises(UsageError, match="'torch-export' is written in fp32, not in 'fp16'"):
        export_model(tiny_weights, tmp_path / "a.pt2", format="torch-export", precision="fp16")
    with pytest.raises(UsageError, match="multiples of 32"):
        export_model(tiny_weights, tmp_path / "a.onnx", imgsz=100)
    with pytest.raises(ExportError, match="cannot be written"):
        export_model(tiny_weights, tmp_path / "missing" / "a.onnx", imgsz=(64, 64))


# --- the command line


def test_the_command(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.onnx"
    words = ["export", "-m", str(tiny_weights), "-o", str(path), "--imgsz", "64"]
    assert main([*words, "--dynamic-batch", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1 and document["format"] == "onnx" and document["input_hw"] == [64, 64]
    assert document["check"]["batches"] == [1, 2, 7] and document["check"]["box_error"] < BOX_TOLERANCE
    assert document["trtexec"] == {
        "command": f"trtexec --onnx={path} --saveEngine={path.with_suffix('.engine')} "
        "--minShapes=pixels:1x64x64x3 --optShapes=pixels:1x64x64x3 --maxShapes=pixels:8x64x64x3",
        "run_here": False,
    }
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert "Compared with torch on 7 pictures, batch 1" in out
    assert f"For TensorRT, not run here: trtexec --onnx={path} " in out


def test_exit_code_5(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(BOUNDS, "fp32", replace(BOUNDS["fp32"], box=0.0))
    words = ["export", "-m", str(tiny_weights), "-o", str(tmp_path / "a.onnx"), "--imgsz", "64", "--json"]
    assert main(words) == 5
    out, err = capsys.readouterr()
    assert out == "" and "was not written: ONNX Runtime differs from torch" in err


# --- the measures themselves


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


def test_detection_errors() -> None:
    def detections(rows: list[tuple[float, int, float]]) -> Detections:
        scores, ids, lefts = zip(*rows, strict=True)
        boxes = np.array([[left, 0, 1, 1] for left in lefts], np.float32)
        return Detections(boxes, np.array(scores, np.float32), np.array(ids, np.int64))

    every = detections([(0.9, 1, 0.1), (0.8, 2, 0.2), (0.1, 1, 0.5)])
    assert detection_errors(every[:2], every) == (0, 0)
    assert detection_errors(every[[1, 0]], every)[0] == pytest.approx(0.1), "scores are compared in order"
    assert detection_errors(detections([(0.9, 1, 0.13)]), every) == pytest.approx((0, 0.03))
    assert detection_errors(detections([(0.9, 7, 0.1)]), every) == (np.inf, np.inf)
    assert detection_errors(detections([(0.9, 2, 0.1)]), every) == pytest.approx((0.1, 0.1)), "another class"
    assert detection_errors(every[:0], every)[0] == np.inf


def test_rows_and_detections_of_a_share() -> None:
    def lose_one(logits: np.ndarray, boxes: np.ndarray) -> None:
        logits[0], boxes[0] = logits[0] + 50, boxes[0] + 50

    def spoil(logits: np.ndarray, boxes: np.ndarray) -> None:
        logits[2, 1] = np.nan

    assert row_errors(_outputs(lose_one), _outputs(), share=0.8) == (0, 0)
    assert max(row_errors(_outputs(lose_one), _outputs(), share=0.81)) > 0.1
    assert np.isnan(row_errors(_outputs(spoil), _outputs(), share=0.5)[0]), "a share does not hide NaN"


def test_kept_objects() -> None:
    def objects(rows: list[tuple[float, int, float]]) -> Detections:
        scores, ids, lefts = zip(*rows, strict=True)
        boxes = np.array([[left, 0, left + 1, 1] for left in lefts], np.float32)
        return Detections(boxes, np.array(scores, np.float32), np.array(ids, np.int64))

    ours = objects([(0.9, 1, 0), (0.31, 2, 5), (0.29, 3, 9)])
    assert kept_objects(ours, ours) == Kept(shown=4, kept=4), "below the line nothing is asked for"
    assert kept_objects(ours, objects([(0.9, 1, 0.1), (0.21, 2, 5)])) == Kept(3, 3), "just below the line will do"
    assert kept_objects(ours, objects([(0.9, 1, 0.1), (0.19, 2, 5)])) == Kept(3, 2)
    assert kept_objects(ours, objects([(0.9, 1, 0.2), (0.31, 3, 5)])) == Kept(4, 0), "other boxes, other classes"
    assert kept_objects(objects([(0.9, 1, 0), (0.8, 1, 0)]), objects([(0.9, 1, 0)])) == Kept(3, 2), "one partner each"
    assert kept_objects(ours[:0], ours[:0]) == Kept(0, 0)


@pytest.mark.weights
def test_the_shipped_weights(tmp_path: Path) -> None:
    report = export_model("n", tmp_path / "n.onnx", imgsz=96)
    assert report.model == "n" and report.relative_error < 1e-3
    with Detector.load(tmp_path / "n.onnx") as detector:
        assert detector.class_names == load_model("assets/weights/ledetr_n.safetensors")[1].class_names
