"""Converted networks on disk: used again, rebuilt when damaged, never needed."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from ledetr.backends import Backend, open_backend, source_of_weights
from ledetr.backends.base import ModelSource
from ledetr.backends.cache import find_entry, store_entry
from ledetr.weights import read_info

pytest.importorskip("onnxruntime", reason="needs the extra: ledetr[export]")

# OpenVINO fuses a graph read from disk in another order than a fresh one.
ROUNDING = 1e-5
KEY: dict[str, str | int] = {"weights": "abc", "height": 96}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "engines"
    monkeypatch.setattr("ledetr.backends.cache.cache_root", lambda: root)
    return root


def write_one(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"converted")


def test_there_and_back(root: Path) -> None:
    assert find_entry(KEY) is None
    folder = store_entry(KEY, write_one)
    assert folder is not None
    assert find_entry(KEY) == folder
    assert (folder / "model.bin").read_bytes() == b"converted"
    assert find_entry({**KEY, "height": 128}) is None
    assert [path.name for path in root.iterdir()] == [folder.name]


def _flip(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"Converted")


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda folder: (folder / "model.bin").unlink(),
        lambda folder: (folder / "model.bin").write_bytes(b""),
        lambda folder: (folder / "more.bin").write_bytes(b""),
        lambda folder: (folder / "entry.json").unlink(),
        lambda folder: (folder / "entry.json").write_text("[1, 2"),
        lambda folder: (folder / "entry.json").write_text("[]"),
    ],
)
def test_damage_is_seen_and_said(root: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    folder = store_entry(KEY, write_one)
    damage(folder)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert find_entry(KEY) is None
    assert "removed and made anew" in caplog.text
    assert list(root.iterdir()) == []


def test_a_failed_write_leaves_nothing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(folder: Path) -> None:
        write_one(folder)
        raise OSError(28, "No space left on device")

    assert store_entry(KEY, fail) is None
    assert "No space left" in caplog.text
    assert list(root.iterdir()) == []


def test_the_quicker_process_wins(root: Path) -> None:
    first = store_entry(KEY, write_one)
    second = store_entry(KEY, lambda folder: _flip(folder))
    assert second == first
    assert (first / "model.bin").read_bytes() == b"converted"  # type: ignore[operator]
    assert len(list(root.iterdir())) == 1


def _no_build() -> object:
    raise AssertionError("the network was built although a converted copy is there")


def _source(weights: Path, size_hw: tuple[int, int] = (64, 64)) -> ModelSource:
    return source_of_weights(weights, read_info(weights), size_hw)


def _outputs(backend: Backend) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *backend.info.input_hw, 3), dtype=np.uint8)
    logits = backend.run(pixels).logits
    backend.close()
    return logits


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_second_start_builds_nothing(root: Path, tiny_weights: Path, name: str) -> None:
    source = _source(tiny_weights)
    first = _outputs(open_backend(name, source, precision="fp32"))
    (entry,) = root.iterdir()
    again = ModelSource(source.key, source.input_hw, _no_build, _no_build, _no_build)  # type: ignore[arg-type]
    assert np.abs(_outputs(open_backend(name, again, precision="fp32")) - first).max() < ROUNDING

    largest = max(entry.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
    assert np.abs(_outputs(open_backend(name, source, precision="fp32")) - first).max() < ROUNDING
    assert entry.is_dir()


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_an_entry_that_the_engine_cannot_read(
    root: Path, tiny_weights: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Checksums fit, the content does not: written by a version with an error, say."""
    source = _source(tiny_weights)
    extra: dict[str, str | int] = {"engine": "onnx"}
    if name == "openvino":
        import openvino

        extra = {"engine": "openvino", "version": openvino.__version__, "ir": "fp32"}
    assert source.key is not None
    file_name = {"openvino": "model.xml", "onnx": "model.onnx"}[name]
    store_entry({**source.key, **extra}, lambda folder: (folder / file_name).write_text("nonsense"))  # type: ignore[arg-type, return-value]
    _outputs(open_backend(name, source, precision="fp32"))
    assert "removed and made anew" in caplog.text


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write anywhere")
def test_read_only_cache(root: Path, tiny_weights: Path) -> None:
    root.mkdir()
    root.chmod(0o500)
    _outputs(open_backend("openvino", _source(tiny_weights), precision="fp32"))


def test_cache_is_a_file(root: Path, tiny_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    root.write_text("in the way")
    _outputs(open_backend("openvino", _source(tiny_weights), precision="fp32"))
    assert "converted model is not kept" in caplog.text
