"""Changing models again and again leaves memory where it began; for all scales there is benchmarks/switching.py."""

from pathlib import Path

import pytest

from benchmarks.switching import MOST_GROWTH, growth, rounds_of, save_random


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "torch-cpu"])
def test_models_in_turn(backend: str, tiny_weights: Path, tmp_path: Path) -> None:
    models = [tiny_weights, save_random(tmp_path, "n")]
    rows = rounds_of(models, 20, 64, backend=backend)
    assert growth(rows) <= MOST_GROWTH


def test_growth() -> None:
    """The first round loads the engines, so it is left out."""
    assert growth([{"mib": 100.0}, {"mib": 200.0}, {"mib": 250.0}, {"mib": 210.0}]) == pytest.approx(0.05)
    assert growth([{"mib": 100.0}]) == 0.0
