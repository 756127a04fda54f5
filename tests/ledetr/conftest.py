"""A small network whose every parameter matters, and its weights file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import ModelConfig, ledetr_tiny
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.weights import WeightsInfo, save_weights


def randomised(config: ModelConfig, seed: int = 0) -> LeDetr:
    """A network in eval mode with random values in every parameter and statistic.

    A fresh network has zeros in its box heads, which hides errors of engines; values keep the scale of activations.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # whatever is left as it was initialised is the same each time too
        model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.1 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            elif name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
    return model.eval()


def tiny_info(config: ModelConfig, **changes: object) -> WeightsInfo:
    values = {
        "name": config.name,
        "config": config,
        "class_names": COCO_NAMES,
        "category_ids": COCO_CATEGORY_IDS,
        "input_hw": config.input_hw,
        "score_threshold": 0.4,
        "ap": {"ap": 0.1, "ap50": 0.2, "data": "made up"},
        "trained_on": "nothing",
        "command": "python -m training.train\n--recipe tiny",
        "started_from": "random numbers",
        "licence": "Apache-2.0",
    }
    return WeightsInfo(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny_model() -> LeDetr:
    return randomised(ledetr_tiny())


@pytest.fixture(scope="session")
def tiny_weights(tiny_model: LeDetr, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of tiny_model in fp32."""
    path = tmp_path_factory.mktemp("weights") / "ledetr_tiny.safetensors"
    save_weights(path, tiny_model, tiny_info(tiny_model.config), storage="fp32")
    return path


@pytest.fixture
def make_info() -> Callable[..., WeightsInfo]:
    return tiny_info


@pytest.fixture
def make_model() -> Callable[..., LeDetr]:
    return randomised


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of converted networks for the whole run, so that each is converted once."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(autouse=True)
def _no_user_folders(monkeypatch: pytest.MonkeyPatch, engine_cache: Path, tmp_path: Path) -> None:
    """No test reads or writes the user's own weights and caches."""
    monkeypatch.setattr("ledetr.backends.cache.cache_root", lambda: engine_cache)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *args, **kwargs: tmp_path / "user data")
