"""A network is converted by another process, once, and the window's own process never loads torch for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from ledetr.errors import WeightsError
from ledetr_app import conversion
from ledetr_app.conversion import convert_elsewhere, main, needs_conversion
from ledetr_app.model_loader import ModelWish

ROOT = Path(__file__).parents[2]
N = ModelWish("n", device="cpu")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Nothing was converted yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ledetr" / "engines"


def test_what_needs_no_conversion(cache, monkeypatch):
    assert needs_conversion(N)
    for wish in (ModelWish("a.onnx"), ModelWish("a.XML"), ModelWish("n", device="cuda:0")):
        assert not needs_conversion(wish)
    monkeypatch.setattr(conversion, "ready_backends", lambda: {"openvino": "it is not here", "torch-cuda": None})
    assert not needs_conversion(N)
    monkeypatch.setattr(conversion, "ready_backends", lambda: {"openvino": None, "torch-cuda": None})
    assert not needs_conversion(ModelWish("n")), "the GPU is chosen"
    assert needs_conversion(N), "the GPU is not asked for"


def test_missing_weights_are_told_as_loading_tells_them(cache, tmp_path):
    with pytest.raises(WeightsError, match="gone"):
        convert_elsewhere(ModelWish(str(tmp_path / "gone.safetensors")))


LOADED_ALONE = """
import sys
from ledetr_app.conversion import convert_elsewhere, needs_conversion
from ledetr_app.model_loader import ModelWish
import ledetr

wish = ModelWish("n", device="cpu")
assert needs_conversion(wish)
convert_elsewhere(wish)
assert not needs_conversion(wish)
with ledetr.Detector.load("n", device="cpu") as detector:
    detector.warm_up()
    print(detector.info.name, "torch" in sys.modules)
"""


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torch_is_not_loaded_by_the_window(cache):
    done = subprocess.run([sys.executable, "-c", LOADED_ALONE], cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["openvino", "False"]
    assert len([path for path in cache.iterdir() if not path.name.startswith(".")]) == 1


@pytest.mark.parametrize("fault", ["ends badly", "cannot be started", "never ends"])
def test_what_stands_in_the_way_is_left_to_loading(cache, monkeypatch, caplog, fault):
    def run(words, **options):
        assert words[1:] == ["-m", "ledetr_app.conversion", "n", "4"]
        if fault == "cannot be started":
            raise OSError("no processes left")
        if fault == "never ends":
            raise subprocess.TimeoutExpired(words, options["timeout"])
        return subprocess.CompletedProcess(words, 4, "", "the sentence\n")

    monkeypatch.setattr(conversion.subprocess, "run", run)
    convert_elsewhere(ModelWish("n", device="cpu", decoder_layers=4))
    assert "in the window's own process" in caplog.text


def test_the_other_process_gives_the_code_of_the_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(conversion.os, "nice", lambda by: by)
    assert main([str(tmp_path / "gone.safetensors")]) == WeightsError.exit_code
    assert "gone" in capsys.readouterr().err
