"""`ledetr eval`: from a folder of pictures, or a file of predictions, to COCO's figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ledetr.cli.main import main

FIGURES = {
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures with a person each, in the folder that bears the name of the JSON."""
    (tmp_path / "two").mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / f"two/{name}.png")
    content = {
        "images": [{"id": 2, "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 40, 50], "area": 2000, "iscrowd": 0}
            for i in (1, 2)
        ],
    }
    (tmp_path / "two.json").write_text(json.dumps(content))
    return tmp_path / "two.json"


def test_a_model(data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(data), "-m", str(tiny_weights), "--backend", "torch-cpu", "--resamples", "50"]
    assert main([*words, "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert set(document) >= FIGURES | {"schema_version", "model", "data", "ap_interval", "classes", "pictures"}
    assert document["pictures"] == 2 and document["boxes"] == 2
    assert (document["model"], document["backend"], document["imgsz"]) == ("ledetr_tiny", "torch-cpu", 96)
    assert document["ap"] is not None and document["ap_small"] is None
    assert [(row["name"], row["boxes"]) for row in document["classes"]] == [("person", 2), ("car", 0)]
    assert main([*words, "--limit", "1", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 1
    assert main([*words, "--images", str(data.parent), "-q"]) == 3
    assert "is --images the right folder" in capsys.readouterr().err


def test_a_file_of_predictions(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data.parent / "found.json"
    found.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 50], "score": 0.9}]))
    assert main(["eval", str(data), "--predictions", str(found), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ap"] == pytest.approx(51 / 101)
    assert document["ap_interval"] == [0.0, 1.0], "one picture of two is right, so draws go from none to all"
    assert main(["eval", str(data), "--predictions", str(found)]) == 0
    table = capsys.readouterr().out
    assert "50.5" in table and "person" in table and "car" not in table


def test_brackets_in_names_are_no_markup(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = data.parent / "[bold]two.json"
    odd.write_text(data.read_text().replace('"person"', '"[/bold] person"'))
    found = data.parent / "found.json"
    found.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 50], "score": 0.9}]))
    words = ["eval", str(odd), "--images", str(data.with_suffix("")), "--predictions", str(found)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "[bold]two.json" in "".join(table.split("\n")) and "[/bold] person" in table


def test_what_is_not_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    for name, words in [("absent.json", "there is no file"), ("x.json", "is not a COCO data set")]:
        assert main(["eval", str(tmp_path / name)]) == 3
        out, err = capsys.readouterr()
        assert out == "" and words in err and err.count("\n") == 1
