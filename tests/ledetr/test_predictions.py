"""Detections from files of others: results lists, labels files, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from ledetr.coco_file import Category, CocoSet, Picture, Truth
from ledetr.errors import SourceError
from ledetr.evaluation import CocoRow
from ledetr.predictions import read_predictions

BOX = [10, 10, 20, 20]
LABELS: dict[str, Any] = {
    "images": [{"id": 70, "file_name": "b.png"}, {"id": 71, "file_name": "elsewhere.png"}],
    "categories": [{"id": 0, "name": "Dog"}, {"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 70, "category_id": 0, "bbox": BOX, "score": 0.9},
        {"id": 2, "image_id": 70, "category_id": 1, "bbox": BOX, "score": 0.8},
        {"id": 3, "image_id": 71, "category_id": 0, "bbox": BOX, "score": 0.7},
    ],
}


@pytest.fixture
def data() -> CocoSet:
    pictures = tuple(Picture(i, Path("set") / name) for i, name in enumerate(("a.png", "b.png", "x/c.png", "y/c.png")))
    truth = Truth(1, 5, (10.0, 10.0, 20.0, 20.0), 400.0, False)
    return CocoSet(Path("set.json"), pictures, (Category(1, "person"), Category(5, "dog")), (truth,))


def written(folder: Path, content: Any) -> Path:
    path = folder / "found.json"
    path.write_text(json.dumps(content))
    return path


def test_labels_are_matched_by_the_names_of_files_and_classes(tmp_path: Path, data: CocoSet) -> None:
    """The cat and the picture elsewhere are not in the data set."""
    assert read_predictions(written(tmp_path, LABELS), data) == [CocoRow(1, 5, (10.0, 10.0, 20.0, 20.0), 0.9)]


@pytest.mark.parametrize(
    ("name", "image_id"), [("x/c.png", 2), ("y\\c.png", 3), ("set/y/c.png", 3), ("c.png", None), ("deep/a.png", 0)]
)
def test_one_file_name_in_two_folders(tmp_path: Path, data: CocoSet, name: str, image_id: int | None) -> None:
    """The folder tells them apart; a bare name that two pictures have is nobody's."""
    images = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "b.png"}]
    row = {"image_id": 1, "category_id": 0, "bbox": BOX, "score": 0.9}
    rows = read_predictions(written(tmp_path, {**LABELS, "images": images, "annotations": [row]}), data)
    assert [row.image_id for row in rows] == ([] if image_id is None else [image_id])


def changed(**fields: Any) -> dict[str, Any]:
    return {**LABELS, **fields}


def with_annotation(**fields: Any) -> dict[str, Any]:
    return changed(annotations=[{"image_id": 70, "category_id": 0, "bbox": BOX, "score": 0.5, **fields}])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (5, "neither a list of detections nor a labels file"),
        ([5], "entry 0 has no bbox"),
        ({}, "'images' is no list"),
        (changed(images=[5]), "entry 0 of 'images' needs an id"),
        (changed(images=[{"id": True, "file_name": "a.png"}]), "entry 0 of 'images' needs an id"),
        (changed(images=[{"id": 1, "file_name": "a.png"}] * 2), "entry 1 of 'images' needs an id of its own"),
        (changed(categories=[{"id": 1, "name": 5}]), "entry 0 of 'categories' needs"),
        (changed(annotations={}), "'annotations' is no list"),
        (with_annotation(bbox=[0, 0, -1, 5]), "width and height from 0"),
        (with_annotation(bbox=[0, 0, float("nan"), 5]), "no bbox of four finite numbers"),
        (with_annotation(score=None), "the score None, expected a finite number"),
        (with_annotation(score=float("inf")), "the score inf"),
        (with_annotation(score=True), "the score True"),
        (with_annotation(image_id=9), "picture 9 and category 0; one of them is not in the file"),
        (with_annotation(image_id=[9]), "lacks a whole number"),
        (changed(images=[{"id": 70, "file_name": ""}, {"id": 71, "file_name": "z.png"}]), "made for another data set"),
        (changed(categories=[{"id": 0, "name": "x"}, {"id": 1, "name": "y"}]), "has no class of 'set.json'"),
    ],
)
def test_damaged_files_are_explained(tmp_path: Path, data: CocoSet, content: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read_predictions(written(tmp_path, content), data)


def test_no_detections_at_all_are_fine(tmp_path: Path, data: CocoSet) -> None:
    assert read_predictions(written(tmp_path, changed(annotations=[])), data) == []
    assert read_predictions(written(tmp_path, []), data) == []
