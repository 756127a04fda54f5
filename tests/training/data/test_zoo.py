"""A zoo of broken data sets: each is met with its own exact sentence, and none gets as far as the first step."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledetr.evaluation import CocoRow, score
from training.check_data import Report, check
from training.data.read import read_dataset, read_splits
from training.judge import coco_set_of


def picture(path: Path, *, size_hw: tuple[int, int] = (30, 40), orientation: int = 1, seed: int = 0) -> Path:
    """A JPEG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size_hw, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def coco(
    folder: Path,
    boxes: list[list[float]],
    *,
    ids: tuple[int, ...] = (1, 2),
    names: tuple[str, ...] = ("cat", "dog"),
    used: tuple[int, ...] | None = None,
    pictures: int = 2,
    size_wh: tuple[int, int] = (40, 30),
) -> Path:
    """Pictures of 40 x 30, all boxes on the first, categories of the boxes in turn."""
    for number in range(pictures):
        if not (folder / "images" / f"{number}.jpg").exists():
            picture(folder / "images" / f"{number}.jpg", seed=number)
    content: dict[str, Any] = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": size_wh[0], "height": size_wh[1]} for n in range(pictures)
        ],
        "categories": [{"id": i, "name": n} for i, n in zip(ids, names, strict=True)],
        "annotations": [
            {"image_id": 0, "category_id": (used or ids)[k % len(used or ids)], "bbox": box}
            for k, box in enumerate(boxes)
        ],
    }
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return path


def sentences(report: Report, folder: Path) -> list[str]:
    """Level and text of every problem, without the folder."""
    return [f"{p.level}: {p.text.replace(str(folder), '.')}" for p in report.problems]


GOOD = [[1.0, 1, 10, 10], [12, 12, 6, 6]]


@pytest.mark.parametrize("ids", [(1, 2), (3, 17), (0, 90)])
def test_ids_from_one_with_gaps_or_from_nought_are_no_problem(ids: tuple[int, int], tmp_path: Path) -> None:
    data = read_dataset(coco(tmp_path, GOOD, ids=ids))
    assert sentences(check(data), tmp_path) == ["note: 1 pictures have no objects; they teach what is background"]
    assert data.category_ids == ids and data.pictures[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"used": (1, 7)}, "error: './set.json' annotation 2 has the category 7; the file knows 1, 2"),
        ({"names": ("background", "dog")},
         "warning: './set.json': the class 'background' (id 1) would be learnt like any other; "
         "background needs no class"),
        ({"used": (1,)}, "warning: './set.json': the class 'dog' (id 2) has no box"),
        ({"names": ("dog", "Dog")},
         "error: './set.json' has the class name 'dog' twice; classes are known by name, so rename one"),
        ({"boxes": [[20, 20, -5, 4]]},
         "error: './set.json' row 1: the box (20, 20, 15, 24) in '0.jpg' ends before it starts"),
        ({"boxes": [[50, 3, 4, 4]]},
         "error: './set.json' row 1: the box (50, 3, 54, 7) in '0.jpg' lies outside; the picture has 40 x 30 pixels"),
        ({"boxes": [[30, 20, 20, 8]]},
         "warning: './set.json' row 1: the box (30, 20, 50, 28) in '0.jpg' sticks out by 10 px and is clipped; "
         "the picture has 40 x 30 pixels"),
        ({"boxes": [[3, 3, 0, 4]]},
         "warning: './set.json' row 1: the box (3, 3, 3, 7) in '0.jpg' has no area and is left out"),
        ({"boxes": [[5, 5, 1, 9]]},
         "warning: './set.json' row 1: the box (5, 5, 6, 14) in '0.jpg' has a side below 2 px"),
        ({"boxes": [[1, 1, 9, 9], [1, 1, 9, 9]], "ids": (1,), "names": ("cat",)},
         "warning: './set.json' row 2: the box (1, 1, 10, 10) in '0.jpg' stands there twice with the same class"),
        ({"size_wh": (80, 60)},
         "error: './set.json' says that '0.jpg' has 80 x 60 pixels, the file has 40 x 30; "
         "were the pictures resized after they were labelled?"),
        ({"boxes": [[1, 1, 9, None]]},
         "error: './set.json' annotation 1 has the bbox [1, 1, 9, None], expected four finite numbers"),
    ],
)  # fmt: skip
def test_each_fault_has_its_sentence(what: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    what = dict(what)
    report = check(read_dataset(coco(tmp_path, what.pop("boxes", GOOD), **what)), deep=False)
    assert sentence in sentences(report, tmp_path)
    assert bool(report.errors) == sentence.startswith("error")


def test_a_truncated_picture(tmp_path: Path) -> None:
    path = coco(tmp_path, GOOD)
    whole = (tmp_path / "images" / "1.jpg").read_bytes()
    (tmp_path / "images" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (text,) = (text for text in sentences(check(read_dataset(path)), tmp_path) if text.startswith("error"))
    assert re.fullmatch(
        r"error: '\./images/1\.jpg': Cannot open '1\.jpg': the picture is cut or damaged "
        r"\(image file is truncated \(\d+ bytes not processed\)\)\.",
        text,
    )


def test_a_file_that_is_no_picture_and_one_that_is_missing(tmp_path: Path) -> None:
    path = coco(tmp_path, GOOD, pictures=3)
    (tmp_path / "images" / "1.jpg").write_text("hello")
    (tmp_path / "images" / "2.jpg").unlink()
    found = sentences(check(read_dataset(path)), tmp_path)
    assert "error: './images/1.jpg' is no picture that can be read" in found
    assert "error: there is no picture './images/2.jpg'" in found


def test_a_turned_picture_moves_its_boxes(tmp_path: Path) -> None:
    """Stored 30 high and 40 wide, turned by a quarter. The declared size is the stored one, so the box is too."""
    picture(tmp_path / "images" / "0.jpg", orientation=6)
    data = read_dataset(coco(tmp_path, [[1, 2, 10, 5]]))
    report = check(data, deep=False)
    assert data.pictures[0].size_hw == (40, 30) and not report.errors
    assert data.pictures[0].boxes_xyxy.tolist() == [[30 - 7, 1, 30 - 2, 11]]


def test_a_set_without_any_object(tmp_path: Path) -> None:
    report = check(read_dataset(coco(tmp_path, [])), deep=False)
    assert sentences(report, tmp_path) == [
        "warning: './set.json': the class 'cat' (id 1) has no box",
        "warning: './set.json': the class 'dog' (id 2) has no box",
        "note: 2 pictures have no objects; they teach what is background",
    ]


def test_a_thousand_objects(tmp_path: Path) -> None:
    boxes = [[float(x), float(y), 2.5, 2.5] for y in range(25) for x in range(36)] + [[1.0, 1.0, 3.0, 3.0]] * 100
    report = check(read_dataset(coco(tmp_path, boxes)), queries=150, deep=False)
    assert (
        "warning: 1 pictures have more objects than the network has queries (150), './images/0.jpg' has 1000; "
        "take a larger scale or cut such pictures into parts"
    ) in sentences(report, tmp_path)
    assert report.objects_per_picture == (500, 950, 1000)


def test_one_picture_is_too_few_to_set_one_aside(tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:
        read_splits(coco(tmp_path, GOOD, pictures=1))
    assert str(caught.value).replace(str(tmp_path), ".") == (
        "'./set.json' has 1 pictures, too few to set some aside for judging; name a second data set with --val"
    )


@pytest.mark.parametrize("ids", [(1, 2), (3, 17), (0, 90)])
def test_ids_come_back_from_evaluation_as_they_were(ids: tuple[int, int], tmp_path: Path) -> None:
    """Perfect answers in the set's own ids score 1; in contiguous labels they would not."""
    data = read_dataset(coco(tmp_path, GOOD, ids=ids))
    truth = coco_set_of(replace(data, pictures=data.pictures[:1]))
    rows = [CocoRow(t.image_id, t.category_id, t.bbox, 0.9) for t in truth.truths]
    assert {row.category_id for row in rows} == set(ids)
    assert score(truth, rows, resamples=0).ap == pytest.approx(1.0)
