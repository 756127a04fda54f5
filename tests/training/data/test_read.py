"""Every format gives the same set; ids survive; broken sets get their exact sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledetr.errors import SourceError
from training.data.dataset import read_size, upright_boxes
from training.data.read import read_dataset, read_splits, with_classes_of
from training.data.shapes import NAMES, draw_shapes, write_shapes
from training.data.voc import parse_xml
from training.data.yaml_subset import read_yaml

FORMATS = ("coco", "yolo", "voc", "csv")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_boxes_that_were_painted(form: str, tmp_path: Path) -> None:
    data = read_dataset(write_shapes(tmp_path, form, 9)).raise_errors()
    assert data.class_names == NAMES and data.problems == ()
    assert len(data.pictures) == 9
    for number, picture in enumerate(data.pictures):
        _, shapes = draw_shapes(number, (96, 128))
        assert picture.key == f"shapes_{number:04d}" and picture.size_hw == (96, 128) and picture.labelled
        assert [NAMES[label] for label in picture.labels] == [name for name, _ in shapes]
        # YOLO's six decimals are good for a thousandth of a pixel
        np.testing.assert_allclose(picture.boxes_xyxy, np.array([b for _, b in shapes]).reshape(-1, 4), atol=1e-3)
    assert len(data.pictures[7].labels) == 0, "a picture without objects is a picture all the same"


@pytest.mark.parametrize("form", FORMATS)
def test_the_folder_is_name_enough(form: str, tmp_path: Path) -> None:
    described = write_shapes(tmp_path, form, 2)
    assert read_dataset(tmp_path).name == str(described)


@pytest.mark.parametrize("ids", [(0, 1, 2), (1, 2, 3), (7, 11, 90)])
@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_ids_may_start_anywhere_and_have_holes(form: str, ids: tuple[int, ...], tmp_path: Path) -> None:
    data = read_dataset(write_shapes(tmp_path, form, 8, ids=ids)).raise_errors()
    expected = ids if form == "coco" else tuple(i - ids[0] for i in ids)
    assert data.category_ids == expected
    labels = np.concatenate([p.labels for p in data.pictures])
    assert labels.min() >= 0 and labels.max() < 3


def test_the_drawn_split_is_the_same_every_time_and_shares_no_picture(tmp_path: Path) -> None:
    path = write_shapes(tmp_path, "coco", 30)
    train, tune = read_splits(path)
    again, _ = read_splits(path)
    keys = [p.key for p in train.pictures]
    assert keys == [p.key for p in again.pictures]
    assert len(tune.pictures) > 0 and not {p.key for p in tune.pictures} & set(keys)
    assert len(keys) + len(tune.pictures) == 30


def test_validation_set_is_matched_by_class_name(tmp_path: Path) -> None:
    train = read_dataset(write_shapes(tmp_path / "a", "coco", 8, ids=(1, 2, 3)))
    other_order = read_dataset(write_shapes(tmp_path / "b", "coco", 8, ids=(3, 2, 1)))
    assert other_order.class_names == ("triangle", "square", "circle")
    matched = with_classes_of(other_order, train)
    for one, two in zip(train.pictures, matched.pictures, strict=True):
        assert one.labels.tolist() == two.labels.tolist()


def coco(folder: Path, **changes: Any) -> Path:
    (folder / "set").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / "set" / "a.png")
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 3, "name": "car"}, {"id": 8, "name": "bus"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}],
    }
    path = folder / "set.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


BROKEN_COCO = [
    ({"annotations": [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]},
     "'set.json' annotation 1 has the category 5; the file knows 3, 8"),
    ({"annotations": [{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}]},
     "'set.json' annotation 1 belongs to the picture 9, which the file does not have"),
    ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, None, 1]}]},
     "'set.json' annotation 1 has the bbox [0, 0, None, 1], expected four finite numbers"),
    ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 3}]},
     "'set.json' annotation 1 has the score 3, expected a number in 0..1"),
    ({"categories": []}, "'set.json' has no categories, so there is nothing to learn"),
    ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "'set.json' has the category id 3 twice"),
    ({"images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "a.png"}]},
     "'set.json' has the picture id 7 twice"),
    ({"images": [{"id": 7, "file_name": "b.png"}]}, "there is no picture 'set/b.png'"),
    ({"images": [{"id": 7, "file_name": "../b.png"}]},
     "'set.json' names the picture '../b.png', which is not inside 'set'; refused"),
    ({"images": [{"id": 7, "file_name": "C:\\b.png"}]},
     "'set.json' names the picture 'C:\\\\b.png', which is not inside 'set'; refused"),
    ({"images": [{"id": 7, "file_name": "a.png", "width": 80, "height": 60}]},
     "'set.json' says that 'a.png' has 80 x 60 pixels, the file has 40 x 30; were the pictures resized after they "
     "were labelled?"),
    ({"images": "none"}, "'set.json' is no COCO data set: 'images' is no list of tables"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), BROKEN_COCO, ids=[str(i) for i in range(len(BROKEN_COCO))])
def test_broken_coco(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    assert sentence_of(lambda: coco(tmp_path, **changes), tmp_path) == sentence


def sentence_of(write: Callable[[], Path], folder: Path) -> str:
    """What reading says, without the folder of the test in it."""
    path = write()
    with pytest.raises(SourceError) as caught:
        read_dataset(path).raise_errors()
    return str(caught.value).replace(f"{folder.resolve()}/", "").replace(str(folder.resolve()), ".")


def test_the_first_of_several_errors_says_how_many_more(tmp_path: Path) -> None:
    rows = [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}] * 3
    assert "(and 2 more: ledetr check-data lists them)" in sentence_of(
        lambda: coco(tmp_path, annotations=rows), tmp_path
    )


def test_scores_crowds_and_incomplete_classes(tmp_path: Path) -> None:
    rows = [
        {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.25},
        {"image_id": 7, "category_id": 8, "bbox": [1, 2, 3, 4], "iscrowd": 1},
    ]
    images = [{"id": 7, "file_name": "a.png", "not_exhaustive_category_ids": [8]}]
    picture = read_dataset(coco(tmp_path, annotations=rows, images=images)).raise_errors().pictures[0]
    assert picture.weights().tolist() == [0.25, 1.0] and picture.crowd.tolist() == [False, True]
    assert picture.annotated is not None and picture.annotated.tolist() == [True, False]
    assert picture.where(1) == f"{str(tmp_path / 'set.json')!r} row 2"


def yolo(folder: Path, yaml: str, label: str = "0 0.5 0.5 0.2 0.2") -> Path:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "images" / "a.png")
    (folder / "labels" / "a.txt").write_text(label)
    path = folder / "data.yaml"
    path.write_text(yaml)
    return path


LINE = "'labels/a.txt' line 1: "
NO_LINE = LINE + "expected 'class x y width height', got "
ONE_CLASS = "train: images\nnames: [a]\n"
BROKEN_YOLO = [
    ("train: images\n", "0 0 0 1 1",
     "'data.yaml' has no names: expected a list of class names, or a table of number to name"),
    ("train: images\nnames: [a, b]\nnc: 3\n", "", "'data.yaml' says nc: 3, but has 2 names; correct one of them"),
    ("names: [a]\n", "", "'data.yaml' names no pictures for 'train'"),
    ("train: pictures\nnames: [a]\n", "", "'data.yaml' names 'pictures' for 'train', which is not in '.'"),
    ("train: /etc\nnames: [a]\n", "", "'data.yaml' names the picture '/etc', which is not inside '.'; refused"),
    ("train: images\nnames: &x [a]\n", "",
     "'data.yaml' line 2: '&x [a]' needs more YAML than is read here; anchors, aliases, tags and nesting are refused"),
    (ONE_CLASS, "0 0.5 0.5 0.2", NO_LINE + "'0 0.5 0.5 0.2'"),
    (ONE_CLASS, "\n1 0.5 0.5 0.2 0.2", "'labels/a.txt' line 2 has the class 1; data.yaml knows 0"),
    (ONE_CLASS, "0 20 15 10 10", LINE + "'0 20 15 10 10' is not in 0..1 of the picture; pixels?"),
    (ONE_CLASS, "0 0.5 0.5 0.2 nan", NO_LINE + "'0 0.5 0.5 0.2 nan'"),
    (ONE_CLASS, "0.0 0.5 0.5 0.2 0.2", NO_LINE + "'0.0 0.5 0.5 0.2 0.2'"),
]  # fmt: skip


@pytest.mark.parametrize(("yaml", "label", "sentence"), BROKEN_YOLO, ids=[str(i) for i in range(len(BROKEN_YOLO))])
def test_broken_yolo(yaml: str, label: str, sentence: str, tmp_path: Path) -> None:
    assert sentence_of(lambda: yolo(tmp_path, yaml, label), tmp_path) == sentence


@pytest.mark.parametrize(
    "yaml",
    [
        "path: ../somewhere/else\ntrain: ../images\nnames: ['a', \"b\"]  # two\n",
        "train: [images]\nnames: {0: a, 1: b}\ndownload: |\n  import os\n  os.remove('x')\nnc: 2",
        "train:\n  - images\nnames:\n- a\n- b\n",
        "# made by hand\ntrain: list.txt\nnames:\n  1: b\n  0: a\n",
    ],
)
def test_the_ways_people_write_data_yaml(yaml: str, tmp_path: Path) -> None:
    path = yolo(tmp_path, yaml)
    (tmp_path / "list.txt").write_text("./images/a.png\n")
    data = read_dataset(path).raise_errors()
    assert data.class_names == ("a", "b") and data.category_ids == (0, 1)
    np.testing.assert_allclose(data.pictures[0].boxes_xyxy, [[16, 12, 24, 18]], rtol=1e-5)


def test_polygons_and_scores_in_yolo_lines(tmp_path: Path) -> None:
    lines = "0 0.1 0.2 0.5 0.2 0.3 0.6\n0 0.5 0.5 0.2 0.2 0.75"
    picture = read_dataset(yolo(tmp_path, "train: images\nnames: [a]\n", lines)).raise_errors().pictures[0]
    np.testing.assert_allclose(picture.boxes_xyxy[0], [4, 6, 20, 18], rtol=1e-5)
    assert picture.weights().tolist() == [1.0, 0.75]


def test_yaml_bombs_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("a: &a [x]\nb: &b [*a, *a]\nnames: *b\n")
    with pytest.raises(SourceError, match="anchors, aliases"):
        read_yaml(path, ("names",))


def voc(folder: Path, xml: str) -> Path:
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "JPEGImages" / "a.png")
    (folder / "Annotations" / "a.xml").write_text(xml)
    return folder


OBJECT = (
    "<object><name>car</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    "<difficult>{}</difficult></object>"
)
BROKEN_VOC = [
    ("<annotation>", "'Annotations/a.xml' is not valid XML: no element found: line 1, column 12"),
    ("<html/>", "'Annotations/a.xml' is no VOC file: its root is <html>, expected <annotation>"),
    ("<!DOCTYPE x [<!ENTITY a 'b'>]><annotation>&a;</annotation>",
     "'Annotations/a.xml' declares a document type or entities, which labels do not need; refused"),
    ("<annotation><filename>../../a.png</filename></annotation>",
     "'Annotations/a.xml' names the picture '../../a.png', which is not inside 'JPEGImages'; refused"),
    (f"<annotation>{OBJECT.format('x', 0)}{OBJECT.format(1, 0)}</annotation>",
     "'Annotations/a.xml' object 1: expected a name and a bndbox of four finite numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("xml", "sentence"), BROKEN_VOC, ids=[str(i) for i in range(len(BROKEN_VOC))])
def test_broken_voc(xml: str, sentence: str, tmp_path: Path) -> None:
    voc(tmp_path, xml)
    (tmp_path / "Annotations" / "b.xml").write_text(
        f"<annotation><filename>a.png</filename>{OBJECT.format(1, 0)}</annotation>"
    )
    assert sentence_of(lambda: tmp_path, tmp_path) == sentence


def test_entities_in_utf_16_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE x><annotation/>", encoding="utf-16")
    with pytest.raises(SourceError, match="declares a document type"):
        parse_xml(path)


@pytest.mark.parametrize(("xmin", "expected"), [(1, [0, 1, 9, 8]), (0, [0, 2, 9, 8])])
def test_voc_counts_from_one_unless_a_corner_is_zero(xmin: int, expected: list[float], tmp_path: Path) -> None:
    data = read_dataset(voc(tmp_path, f"<annotation>{OBJECT.format(xmin, 1)}</annotation>")).raise_errors()
    assert data.pictures[0].boxes_xyxy.tolist() == [expected]
    assert data.pictures[0].crowd.tolist() == [True], "difficult objects are ignored"


BROKEN_CSV = [
    ("a.png,1,2,3,4,car\n",
     "'x.csv' line 1: the columns file, xmin, ymin, xmax, ymax, class are missing; expected a header such as "
     "file,xmin,ymin,xmax,ymax,class"),
    ("file,xmin,ymin,xmax,ymax,class\na.png,1,2,3,,car\n",
     "'x.csv' line 2: expected four finite numbers as corners, got '1, 2, 3, '"),
    ("file,xmin,ymin,xmax,ymax,class\n/a.png,1,2,3,4,car\n",
     "'x.csv' names the picture '/a.png', which is not inside '.'; refused"),
    ("file,xmin,ymin,xmax,ymax,class\na.png,,,,,\n", "'x.csv' has no object in any of its lines"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), BROKEN_CSV, ids=[str(i) for i in range(len(BROKEN_CSV))])
def test_broken_csv(text: str, sentence: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "x.csv").write_text(text)
    assert sentence_of(lambda: tmp_path / "x.csv", tmp_path) == sentence


@pytest.mark.parametrize("header", ["image,x1,y1,x2,y2,label", "Filename,x0,y0,x1,y1,Class"])
def test_the_ways_people_name_columns(header: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "x.csv").write_text(f"{header}\na.png,1,2,3,4,car\n")
    assert read_dataset(tmp_path / "x.csv").raise_errors().pictures[0].boxes_xyxy.tolist() == [[1, 2, 3, 4]]


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no data set"):
        read_dataset(tmp_path / "x")
    with pytest.raises(SourceError, match=r"holds no data set: expected a COCO \.json"):
        read_dataset(tmp_path)
    for name in ("a.json", "b.json"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"several data sets \(a\.json, b\.json\)"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_picture(orientation: int, tmp_path: Path) -> None:
    """Paint a rectangle into the stored picture, let Pillow turn it, and find it where the box went."""
    stored = np.zeros((30, 40, 3), np.uint8)
    stored[4:10, 7:25] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(stored).save(path, exif=exif)
    assert read_size(path) == ((30, 40), orientation)
    from ledetr.pictures import read_picture

    upright = read_picture(path)[..., 0] > 128
    rows, columns = np.flatnonzero(upright.any(1)), np.flatnonzero(upright.any(0))
    moved = upright_boxes(np.array([[7, 4, 25, 10]], np.float32), (30, 40), orientation)
    assert moved.tolist() == [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]


def test_the_declared_size_says_whether_boxes_are_of_the_turned_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for declared, expected in (((30, 40), [30 - 6, 1, 30 - 2, 4]), ((40, 30), [1, 2, 4, 6])):
        images = [{"id": 7, "file_name": "a.png", "height": declared[0], "width": declared[1]}]
        path = coco(tmp_path, images=images)
        Image.new("RGB", (40, 30)).save(tmp_path / "set" / "a.png", exif=exif)
        picture = read_dataset(path).raise_errors().pictures[0]
        assert picture.size_hw == (40, 30) and picture.boxes_xyxy.tolist() == [expected]
