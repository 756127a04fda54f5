"""Settings that hold for every test; set before Qt, torch or OpenMP is imported."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]

# A slow or busy machine is not a failure; the time limit of each test is pytest-timeout's.
settings.register_profile("ledetr", deadline=None)
settings.load_profile("ledetr")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU or trained weights are skipped, with the reason, where there are none."""
    needs_gpu = [item for item in items if item.get_closest_marker("gpu")]
    needs_weights = [item for item in items if item.get_closest_marker("weights")]
    if needs_gpu and not _cuda_is_there():
        for item in needs_gpu:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))
    if needs_weights and not (ROOT / "assets/weights/ledetr_n.safetensors").exists():
        for item in needs_weights:
            item.add_marker(pytest.mark.skip(reason="no assets/weights/ledetr_n.safetensors here"))


def _cuda_is_there() -> bool:
    import torch

    return torch.cuda.is_available()
