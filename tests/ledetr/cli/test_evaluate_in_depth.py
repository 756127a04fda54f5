"""`ledetr eval` in depth: its tables, its document, several sizes, files of others, and the report."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledetr.cli.main import main

PERSON, CAR = 1, 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures, two persons and a car whose class has markup for a name."""
    (tmp_path / "three").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / f"three/{name}.png")
    boxes = [(1, PERSON, [10, 10, 40, 50]), (2, PERSON, [10, 10, 40, 50]), (3, CAR, [5, 5, 60, 30])]
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("abc", 1)],
        "categories": [{"id": PERSON, "name": "person"}, {"id": CAR, "name": "<script>car</script>"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for n, (i, c, b) in enumerate(boxes)
        ],
    }
    (tmp_path / "three.json").write_text(json.dumps(content))
    return tmp_path / "three.json"


@pytest.fixture
def found(data: Path) -> Path:
    """The first person found, the second called a car, the car missed, and a person where none is."""
    rows: list[dict[str, Any]] = [
        {"image_id": 1, "category_id": PERSON, "bbox": [10, 10, 40, 50], "score": 0.9},
        {"image_id": 2, "category_id": CAR, "bbox": [10, 10, 40, 50], "score": 0.8},
        {"image_id": 3, "category_id": PERSON, "bbox": [100, 70, 10, 10], "score": 0.7},
        {"image_id": 3, "category_id": CAR, "bbox": [5, 5, 60, 30], "score": 0.2},
    ]
    path = data.parent / "found.json"
    path.write_text(json.dumps(rows))
    return path


def test_the_document_in_depth(data: Path, found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(data), "--predictions", str(found), "--errors", "--confusion", "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["recall"], row["precision"]) for row in document["classes"]] == [(0.5, 0.5), (0.0, 0.0)]
    assert document["confusion"]["matrix"] == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    kinds = {kind["kind"]: (kind["count"], kind["shown"]) for kind in document["errors"]["kinds"]}
    assert kinds["classification"] == (1, 1) and kinds["background"] == (1, 1) and kinds["missed"] == (0, 1)
    assert document["errors"]["ap50"] == document["ap50"]
    assert len(document["precision_recall"]["precision"]["0.75"]) == 101
    assert document["latency"] is None and document["threshold"] == 0.5
    assert {"processor", "cores"} <= set(document["machine"]) and "ledetr" in document["versions"]
    assert main([*words, "--conf", "0.1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["classes"][1]["recall"] == 1.0, "the car's detection scores 0.2"


def test_the_tables_in_depth(data: Path, found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(data), "--predictions", str(found), "--per-class", "--errors", "--confusion"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for expected in ("recall", "classification", "missed", "background", "Most often confused", "1 boxes missed"):
        assert expected in text


def test_several_sizes_give_a_row_each(data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(data), "-m", str(tiny_weights), "--backend", "torch-cpu", "--imgsz", "96,64", "-q"]
    assert main([*words, "--resamples", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["imgsz"] == 96 and [row["imgsz"] for row in document["sizes"]] == [96, 64]
    assert document["sizes"][0]["ap"] == document["ap"]
    latency = document["latency"]
    assert latency["pictures"] == 3 and 0 < latency["median_ms"] <= latency["p95_ms"]
    assert set(latency["stages"]) == {"preprocess", "infer", "postprocess"}
    assert main([*words, "--limit", "1"]) == 0
    text = capsys.readouterr().out
    assert "64 px: " in text and "ms a picture" in text
    assert main([*words[:-2], "96,abc"]) == 2
    assert "'abc'" in capsys.readouterr().err


def test_labels_of_another_program_are_scored(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {
        "images": [{"id": 900, "file_name": "b.png"}],
        "categories": [{"id": 0, "name": "Person"}],
        "annotations": [{"id": 1, "image_id": 900, "category_id": 0, "bbox": [10, 10, 40, 50], "score": 0.9}],
    }
    path = data.parent / "labels.json"
    path.write_text(json.dumps(labels))
    assert main(["eval", str(data), "--predictions", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["ap"] == pytest.approx(51 / 101)


def test_a_file_and_a_model_together_are_refused(data: Path, found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(data), "--predictions", str(found), "-m", "n"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "--model has no meaning" in err and err.count("\n") == 1


def test_the_report_of_a_model(
    data: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str], structure_of: Callable[[str], Any]
) -> None:
    report = data.parent / "out" / "report.html"
    words = ["eval", str(data), "-m", str(tiny_weights), "--backend", "torch-cpu", "--conf", "0.1"]
    assert main([*words, "--imgsz", "96,64", "--report", str(report), "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(report)
    text = report.read_text(encoding="utf-8")
    structure = structure_of(text)
    assert structure.seen.count("h2") == 7 and structure.seen.count("svg") >= 3
    assert 1 <= structure.seen.count("img") <= 3
    assert "<script>car</script>" in structure.text, "the name of the class, as text"
    for expected in ("At several input sizes", "Worst pictures", "Model card", "processor", "torch", "95 %"):
        assert expected in structure.text
    command = re.search(r"<code>(.*?)</code>", text)
    assert command is not None and command[1].startswith("ledetr eval ")
    assert "--imgsz 96,64" in command[1] and "--report" in command[1] and "--conf 0.1" in command[1]


def test_a_report_of_predictions_needs_no_pictures(
    data: Path, found: Path, capsys: pytest.CaptureFixture[str], structure_of: Callable[[str], Any]
) -> None:
    """A picture that is gone is named with the reason; the others are drawn."""
    (data.parent / "three" / "b.png").unlink()
    report = data.parent / "report.html"
    assert main(["eval", str(data), "--predictions", str(found), "--report", str(report)]) == 0
    structure = structure_of(report.read_text(encoding="utf-8"))
    assert structure.seen.count("img") == 1 and "b.png: 1 missed, 1 wrong, 0 found. Not shown: " in structure.text
    assert "Model card" not in structure.text


def test_a_report_that_cannot_be_written_is_said_before_the_work(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "absent.json", "--report", str(data.parent)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "is a folder; name the file" in err


def test_a_set_without_boxes_has_a_report_too(
    data: Path, capsys: pytest.CaptureFixture[str], structure_of: Callable[[str], Any]
) -> None:
    content = json.loads(data.read_text())
    data.write_text(json.dumps({**content, "annotations": []}))
    path = data.parent / "none.json"
    path.write_text("[]")
    report = data.parent / "report.html"
    words = ["eval", str(data), "--predictions", str(path), "--report", str(report)]
    assert main([*words, "--errors", "--confusion", "--per-class"]) == 0
    text = structure_of(report.read_text(encoding="utf-8")).text
    assert "has no box to find" in text and "No picture has a mistake" in text
