"""Every engine gives what torch on the CPU gives, on a network with random values in every head.

A new engine is one row in ENGINES.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ledetr.backends import Backend, RawOutputs, open_backend, source_of_weights
from ledetr.model.ledetr import LeDetr
from ledetr.weights import read_info

pytest.importorskip("onnxruntime", reason="needs the extra: ledetr[export]")

ENGINES = ("torch-cpu", "openvino", "onnx")
SIZES_HW = ((96, 96), (64, 160))

# Float32 engines order sums differently; logits of the tiny network are of size 1 and boxes lie in 0..1.
LOGIT_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-5


def pixels_of(batch: int, size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *size_hw, 3), dtype=np.uint8)


def expected(model: LeDetr, pixels: np.ndarray) -> RawOutputs:
    """The training form in eager torch: independent of fused(), of conversion and of the engines."""
    with torch.inference_mode():
        logits, boxes_cxcywh = model(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    return RawOutputs(logits.numpy(), boxes_cxcywh.numpy())


def assert_equal_rows(actual: RawOutputs, wanted: RawOutputs) -> None:
    """Equal as sets of rows: near ties make engines swap neighbours in the order of queries."""
    assert actual.logits.shape == wanted.logits.shape
    assert actual.logits.dtype == actual.boxes_cxcywh.dtype == np.float32
    for row in range(len(wanted.logits)):
        distance = np.abs(actual.boxes_cxcywh[row][:, None] - wanted.boxes_cxcywh[row][None]).max(-1)
        match = distance.argmin(1)
        assert len(set(match)) == len(match)
        assert distance.min(1).max() < BOX_TOLERANCE
        assert np.abs(actual.logits[row] - wanted.logits[row][match]).max() < LOGIT_TOLERANCE


@pytest.fixture(scope="module", params=[(engine, size) for engine in ENGINES for size in SIZES_HW], ids=str)
def engine(
    request: pytest.FixtureRequest, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    name, size_hw = request.param
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledetr.backends.cache.cache_root", lambda: cache)
        source = source_of_weights(tiny_weights, read_info(tiny_weights), size_hw)
        backend = open_backend(name, source, device="cpu", precision="fp32")
    yield backend
    backend.close()


def test_agrees_with_torch(engine: Backend, tiny_model: LeDetr) -> None:
    pixels = pixels_of(1, engine.info.input_hw)
    wanted = expected(tiny_model, pixels)
    assert wanted.boxes_cxcywh.std(1).min() > 100 * BOX_TOLERANCE, "the test network must spread its boxes"
    assert_equal_rows(engine.run(pixels), wanted)


def test_two_equal_one_and_one(engine: Backend) -> None:
    pixels = pixels_of(2, engine.info.input_hw, seed=1)
    both = engine.run(pixels)
    for row in range(2):
        assert_equal_rows(
            RawOutputs(both.logits[row : row + 1], both.boxes_cxcywh[row : row + 1]), engine.run(pixels[row : row + 1])
        )


def test_outputs_are_the_callers_own(engine: Backend) -> None:
    first = engine.run(pixels_of(1, engine.info.input_hw, seed=2))
    kept = first.logits.copy()
    engine.run(pixels_of(1, engine.info.input_hw, seed=3))
    assert np.array_equal(first.logits, kept)


def test_info_says_what_runs(engine: Backend) -> None:
    assert engine.info.name in ENGINES
    assert engine.info.device == "cpu"
    assert engine.info.precision == "fp32"
    assert engine.info.reason


@pytest.mark.parametrize("name", ENGINES)
def test_fewer_decoder_layers(name: str, tiny_weights: Path, tiny_model: LeDetr) -> None:
    pixels = pixels_of(1, (96, 96))
    source = source_of_weights(tiny_weights, read_info(tiny_weights), (96, 96), decoder_layers=1)
    backend = open_backend(name, source, precision="fp32")
    wanted = tiny_model.fused(1)
    assert_equal_rows(backend.run(pixels), expected(wanted, pixels))
    full = expected(tiny_model, pixels)
    assert np.abs(backend.run(pixels).logits - full.logits).max() > 10 * LOGIT_TOLERANCE


@pytest.mark.parametrize("name", ENGINES)
def test_closed_twice_and_used_after(name: str, tiny_weights: Path) -> None:
    backend = open_backend(name, source_of_weights(tiny_weights, read_info(tiny_weights), (96, 96)), precision="fp32")
    backend.close()
    backend.close()
    with pytest.raises(ValueError, match="closed"):
        backend.run(pixels_of(1, (96, 96)))


@pytest.mark.parametrize("name", ["torch-cpu", "openvino"])
def test_bf16_is_close(name: str, tiny_weights: Path, tiny_model: LeDetr) -> None:
    """bf16 has 8 bits of mantissa, so query selection may pick others of near-equal score: medians are compared."""
    source = source_of_weights(tiny_weights, read_info(tiny_weights), (96, 96))
    backend = _open_bf16(name, source)
    pixels = pixels_of(1, (96, 96))
    raw, wanted = backend.run(pixels), expected(tiny_model, pixels)
    assert backend.info.precision == "bf16"
    nearest = np.abs(raw.boxes_cxcywh[0][:, None] - wanted.boxes_cxcywh[0][None]).max(-1).min(1)
    assert np.median(nearest) < 0.02
    assert np.abs(np.sort(raw.logits.max(-1)) - np.sort(wanted.logits.max(-1))).max() < 0.3


def _open_bf16(name: str, source: object) -> Backend:
    from ledetr.errors import BackendUnavailable

    try:
        return open_backend(name, source, device="cpu", precision="bf16")  # type: ignore[arg-type]
    except BackendUnavailable as error:
        pytest.skip(str(error))


def test_low_precision_weights_run_under_autocast(tiny_model: LeDetr) -> None:
    """The CUDA engine's way of halving weights, here in bf16 on the CPU: geometry must not meet a half weight."""
    from ledetr.backends.torch_cuda import lower_precision

    model = lower_precision(tiny_model.fused(), torch.bfloat16)
    pixels = pixels_of(1, (96, 96))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        _, boxes_cxcywh = model(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    wanted = expected(tiny_model, pixels)
    nearest = np.abs(boxes_cxcywh.float().numpy()[0][:, None] - wanted.boxes_cxcywh[0][None]).max(-1).min(1)
    assert np.median(nearest) < 0.02
    assert boxes_cxcywh.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_cuda_agrees_with_torch(size_hw: tuple[int, int], tiny_weights: Path, tiny_model: LeDetr) -> None:
    source = source_of_weights(tiny_weights, read_info(tiny_weights), size_hw)
    backend = open_backend("torch-cuda", source, precision="fp32")
    for batch in (1, 2, 1):
        pixels = pixels_of(batch, size_hw, seed=batch)
        assert_equal_rows(backend.run(pixels), expected(tiny_model, pixels))
    backend.close()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_cuda_low_precision_is_close(precision: str, tiny_weights: Path, tiny_model: LeDetr) -> None:
    source = source_of_weights(tiny_weights, read_info(tiny_weights), (96, 96))
    backend = open_backend("torch-cuda", source, precision=precision)
    pixels = pixels_of(1, (96, 96))
    wanted = expected(tiny_model, pixels)
    nearest = np.abs(backend.run(pixels).boxes_cxcywh[0][:, None] - wanted.boxes_cxcywh[0][None]).max(-1).min(1)
    assert backend.info.precision == precision
    assert np.median(nearest) < 0.02
    backend.close()


@pytest.mark.gpu
def test_cuda_gives_memory_back(tiny_weights: Path) -> None:
    source = source_of_weights(tiny_weights, read_info(tiny_weights), (96, 96))
    open_backend("torch-cuda", source).close()
    before = torch.cuda.memory_allocated()
    open_backend("torch-cuda", source).close()
    assert torch.cuda.memory_allocated() <= before
