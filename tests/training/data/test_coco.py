"""Reading COCO files: ids, boxes, hostile names."""

import json
from pathlib import Path
from typing import Any

import pytest

from ledetr.errors import SourceError
from training.data.coco import load_coco, load_unlabelled


def write(folder: Path, **changes: Any) -> Path:
    data: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5]},
        ],
    }
    path = folder / "set.json"
    path.write_text(json.dumps({**data, **changes}))
    return path


def test_classes_are_numbered_by_rising_category_id(tmp_path: Path) -> None:
    data = load_coco(write(tmp_path))
    assert data.class_names == ("car", "toothbrush") and data.category_ids == (3, 90)
    first, second = data.pictures
    assert first.labels.tolist() == [1, 0] and first.crowd.tolist() == [True, False]
    assert first.boxes_xyxy.tolist() == [[1, 2, 11, 22], [0, 0, 5, 5]]
    assert first.path == (tmp_path / "set" / "a.jpg").resolve()
    assert second.boxes_xyxy.shape == (0, 4) and second.labelled


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, images=[{"id": 7, "file_name": name}])
    with pytest.raises(SourceError, match="is not inside"):
        load_coco(path)


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', "nonsense"])
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"x\.json. is (no|not)"):
        load_coco(path)


def test_unknown_category_is_refused(tmp_path: Path) -> None:
    row = {"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}
    with pytest.raises(SourceError, match="5"):
        load_coco(write(tmp_path, annotations=[row]))


def test_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    pictures = load_unlabelled(tmp_path)
    assert [p.path.name for p in pictures] == ["a.JPG", "b.png"]
    assert not any(p.labelled for p in pictures)
    with pytest.raises(SourceError, match="is not a folder"):
        load_unlabelled(tmp_path / "missing")
