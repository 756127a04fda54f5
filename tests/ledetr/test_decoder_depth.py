"""The table of decoder depths: every depth once, with its own accuracy and size, and a kind word without weights."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.decoder_depth import main
from ledetr.coco_file import read_coco
from ledetr.detector import Detector
from ledetr.evaluation import detect_all, score
from ledetr.model.config import ledetr_tiny
from ledetr.model.count import count_paper
from training.data.shapes import write_shapes

QUICK = ["--runs", "2", "--warmup", "1", "--resamples", "20", "--backend", "torch-cpu", "-q"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with the ids of person, car and dog."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), "coco", 6, ids=(1, 3, 18))


def test_every_depth_has_its_own_row(shapes: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(shapes), "--images", str(shapes.parent / "images"), "-m", str(tiny_weights), *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("6 pictures of ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if "torch-cpu" in line]
    assert [row[0] for row in rows] == ["TINY, 1", "**TINY, 2**"]
    for layers, row in enumerate(rows, 1):
        data = read_coco(shapes, shapes.parent / "images")
        with Detector.load(tiny_weights, backend="torch-cpu", precision="fp32", decoder_layers=layers) as detector:
            ap = score(data, detect_all(detector, data), resamples=0).ap
        assert row[1] == ("–" if ap is None else f"{100 * ap:.1f}")
        count = count_paper(ledetr_tiny(), layers=layers, size_hw=(96, 96))
        assert row[6:8] == [f"{count.params_m:.2f}", f"{count.gflops:.2f}"]
        assert np.isfinite(float(row[5])) and row[8] == "torch-cpu, cpu, fp32, 96 px"


def test_scales_without_weights_are_said_and_passed_over(
    shapes: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                str(shapes),
                "--images",
                str(shapes.parent / "images"),
                "-m",
                "m",
                str(tiny_weights),
                "--limit",
                "2",
                *QUICK,
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert err == "No weights for M here, so its depths are left out.\n" and "TINY, 1" in out
    assert main([str(shapes), "--images", str(shapes.parent / "images"), "-m", "l", "x", *QUICK]) == 4
    assert capsys.readouterr().out == ""


def test_a_data_set_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json"), *QUICK]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
