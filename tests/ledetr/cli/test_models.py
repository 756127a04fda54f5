"""`ledetr models`: the table of the paper, the weights that are here, and the ones that are damaged."""

import json
import shutil
from pathlib import Path

import pytest

from ledetr.cli.main import main
from ledetr.cli.sizes import COUNTED_HW, SIZES
from ledetr.model.config import VARIANTS
from ledetr.model.count import count_deploy, count_paper

# The table of the paper for M with 5 decoder layers, L and X with 6, as parameters in millions and GFLOPs.
PAPER = {"m": (32.7, 115.0), "l": (41.5, 124.3), "x": (44.9, 196.9)}
ONE_PERCENT = 0.01


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where weights are looked for."""
    monkeypatch.setattr("ledetr.weights_file.search_folders", lambda: (tmp_path,))
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    assert main(["models", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert document["schema_version"] == 1 and document["counted_hw"] == [640, 640]
    return {row["scale"]: row for row in document["models"]}


def test_sizes_are_those_of_the_paper(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)
    assert list(rows) == ["n", "m", "l", "x"]
    for scale, (params_m, gflops) in PAPER.items():
        assert rows[scale]["params_m"] == pytest.approx(params_m, rel=ONE_PERCENT)
        assert rows[scale]["gflops"] == pytest.approx(gflops, rel=ONE_PERCENT)
        assert rows[scale]["params_deploy_m"] < rows[scale]["params_m"]
        assert rows[scale]["gflops_deploy"] < rows[scale]["gflops"]
        assert rows[scale]["weights"] is rows[scale]["ap"] is rows[scale]["card"] is None


@pytest.mark.parametrize("scale", VARIANTS)
def test_the_figures_that_stand_in_the_file_are_those_that_counting_gives(scale: str) -> None:
    size, config = SIZES[scale], VARIANTS[scale]()
    paper, deploy = count_paper(config, size_hw=COUNTED_HW), count_deploy(config, size_hw=COUNTED_HW)
    assert (size.params_m, size.gflops) == (round(paper.params_m, 3), round(paper.gflops, 2))
    assert (size.params_deploy_m, size.gflops_deploy) == (round(deploy.params_m, 3), round(deploy.gflops, 2))


def test_weights_that_are_here(folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tiny_weights, folder / "ledetr_n.safetensors")
    (folder / "ledetr_n.md").write_text("card")
    row = listed(capsys)["n"]
    assert row["weights"] == str(folder / "ledetr_n.safetensors")
    assert (row["ap"], row["ap_measured"]["data"]) == (0.1, "made up")
    assert (row["licence"], row["input_hw"], row["card"]) == ("Apache-2.0", [96, 96], str(folder / "ledetr_n.md"))
    assert main(["models"]) == 0
    assert "10.0" in capsys.readouterr().out
    assert main(["models", "path", "n"]) == 0
    assert capsys.readouterr().out == f"{row['weights']}\n"
    assert main(["models", "verify"]) == 0
    assert row["sha256"] in capsys.readouterr().out


def test_missing_weights_say_where_they_were_looked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "m"]) == 4
    assert str(folder) in capsys.readouterr().err
    assert main(["models", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == []


def test_a_damaged_file_does_not_hide_the_others(
    folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ledetr_n.safetensors").write_bytes(b"PK\x03\x04 a zip file")
    damaged = bytearray(tiny_weights.read_bytes())
    damaged[-1] ^= 1
    (folder / "ledetr_m.safetensors").write_bytes(damaged)
    rows = listed(capsys)
    assert "is a pickle" in rows["n"]["weights_problem"]
    assert rows["m"]["weights_problem"] is None, "the list reads headers only"
    assert main(["models", "verify", "m"]) == 4
    assert "is damaged" in capsys.readouterr().err
