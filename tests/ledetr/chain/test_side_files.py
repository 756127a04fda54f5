"""Side files read back by other readers than ours."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledetr.chain.side_files import (
    SIDE_FILES,
    CocoFile,
    CsvFile,
    JsonFile,
    JsonLinesFile,
    MotFile,
    PictureResult,
    SideHeader,
    open_side_files,
)
from ledetr.detections import Detections
from ledetr.errors import OutputError, UsageError

NAMES = ("person", '=HYPERLINK("x")', "chien, grand")
HEADER = SideHeader("clip.mp4", "n", random_weights=True, class_names=NAMES)


def found(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
        class_names=NAMES,
        category_ids=(1, 18, 90),
    )


PICTURES = (
    PictureResult(0, 0.039, found()),
    PictureResult(1, 1 / 3, found((1.234, 2, 30, 40.5, 0.98765, 0), (5, 6, 7, 8, 0.5, 1))),
    PictureResult(2, None, found((0, 0, 1, 1, 0.25, 2)), file="été.jpg", image_id=139),
)


TRACKED = replace(PICTURES[1], detections=replace(PICTURES[1].detections, tracker_id=np.array([12, 7])))
HALF_TRACKED = replace(PICTURES[1], detections=replace(PICTURES[1].detections, tracker_id=np.array([-1, 7])))


@pytest.fixture(params=["all pictures", "none"])
def pictures(request: pytest.FixtureRequest) -> tuple[PictureResult, ...]:
    return PICTURES if request.param == "all pictures" else ()


def written(kind: type, path: Path, pictures: tuple[PictureResult, ...] = PICTURES) -> Path:
    side = kind(path, HEADER)
    for picture in pictures:
        side.add(picture)
    return side.finish()


def test_json_says_where_it_comes_from_and_what_was_found(tmp_path: Path) -> None:
    document = json.loads(written(JsonFile, tmp_path / "out.json").read_text(encoding="utf-8"))

    frames = document.pop("frames")
    assert document == {
        "schema_version": 1,
        "source": "clip.mp4",
        "model": "n",
        "random_weights": True,
        "class_names": list(NAMES),
    }
    assert frames[0] == {"index": 0, "pts_s": 0.039, "detections": []}
    assert frames[1]["pts_s"] == 0.333333
    assert frames[1]["detections"][0] == {
        "xyxy": [1.23, 2.0, 30.0, 40.5],
        "confidence": 0.9876,  # the nearest float32 lies below .98765
        "class_id": 0,
        "class_name": "person",
    }
    assert frames[2]["file"] == "été.jpg" and frames[2]["pts_s"] is None


def test_json_of_no_pictures_is_json(tmp_path: Path) -> None:
    assert json.loads(written(JsonFile, tmp_path / "a.json", ()).read_text())["frames"] == []
    assert json.loads(written(CocoFile, tmp_path / "b.json", ()).read_text()) == []


def test_json_lines_are_the_frames_of_the_json(tmp_path: Path, pictures: tuple[PictureResult, ...]) -> None:
    document = json.loads(written(JsonFile, tmp_path / "out.json", pictures).read_text(encoding="utf-8"))
    lines = written(JsonLinesFile, tmp_path / "out.jsonl", pictures).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == document["frames"]


def test_csv_opens_in_a_spreadsheet_and_runs_nothing(tmp_path: Path) -> None:
    path = written(CsvFile, tmp_path / "out.csv")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_name"] for row in rows] == ["person", '\'=HYPERLINK("x")', "chien, grand"]
    assert [row["index"] for row in rows] == ["1", "1", "2"]
    assert (rows[0]["x1"], rows[0]["y2"], rows[0]["pts_s"], rows[0]["file"]) == ("1.23", "40.5", "0.333333", "")
    assert (rows[2]["pts_s"], rows[2]["file"]) == ("", "été.jpg")


def test_ids_are_in_every_list_and_a_box_without_one_says_so(tmp_path: Path) -> None:
    for kind in (JsonFile, JsonLinesFile):
        text = written(kind, tmp_path / "out.json", (HALF_TRACKED,)).read_text(encoding="utf-8")
        frame = json.loads(text)["frames"][0] if kind is JsonFile else json.loads(text)
        assert [row["tracker_id"] for row in frame["detections"]] == [None, 7]
    with written(CsvFile, tmp_path / "a.csv", (TRACKED, HALF_TRACKED)).open(encoding="utf-8-sig", newline="") as file:
        assert [row["tracker_id"] for row in csv.DictReader(file)] == ["12", "7", "", "7"]
    with written(CsvFile, tmp_path / "b.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["tracker_id"] for row in csv.DictReader(file)} == {""}


def test_mot_text_has_one_line_a_tracked_box(tmp_path: Path) -> None:
    path = written(MotFile, tmp_path / "out.txt", (PICTURES[0], TRACKED, replace(HALF_TRACKED, index=2)))
    assert path.read_text().splitlines() == [
        "2,12,1.23,2.00,28.77,38.50,0.9876,1,-1",
        "2,7,5.00,6.00,2.00,2.00,0.5000,2,-1",
        "3,7,5.00,6.00,2.00,2.00,0.5000,2,-1",
    ]
    table = np.loadtxt(path, delimiter=",")
    assert table.shape == (3, 9)


def test_coco_results_are_read_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO()
    coco.dataset = {
        "images": [{"id": 1}, {"id": 139}],
        "categories": [{"id": i} for i in (1, 18, 90)],
        "annotations": [],
    }
    coco.createIndex()
    results = coco.loadRes(str(written(CocoFile, tmp_path / "out.json")))

    rows = list(results.anns.values())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(1, 1), (1, 18), (139, 90)]
    assert np.allclose(rows[0]["bbox"], [1.234, 2, 28.766, 38.5], atol=1e-5)


@pytest.mark.parametrize("kind", SIDE_FILES)
def test_nothing_stands_under_the_name_before_the_end(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    side = SIDE_FILES[kind](path, HEADER)
    side.add(PICTURES[1])
    assert not path.exists()
    assert side.finish() == path and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", SIDE_FILES)
def test_an_early_end_is_well_formed_and_named_so(tmp_path: Path, kind: str) -> None:
    side = SIDE_FILES[kind](tmp_path / f"out.{kind}", HEADER)
    side.add(PICTURES[1])
    path = side.keep_partial()

    assert path.name == f"out.partial.{kind}" and list(tmp_path.iterdir()) == [path]
    if kind in ("json", "coco"):
        assert json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", SIDE_FILES)
def test_what_a_full_disk_leaves_is_well_formed_and_whole(tmp_path: Path, kind: str) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of a file")
    side = SIDE_FILES[kind](tmp_path / f"out.{kind}", HEADER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))  # the disk refuses the rest of a write, as a full one
    added = 0
    try:
        with pytest.raises(OutputError):
            while True:
                side.add(TRACKED)
                added += 1
        path = side.keep_partial()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    text = path.read_text(encoding="utf-8-sig")
    kept = {
        "json": lambda: len(json.loads(text)["frames"]),
        "jsonl": lambda: len([json.loads(line) for line in text.splitlines()]),
        "csv": lambda: (len(text.splitlines()) - 1) / 2,
        "coco": lambda: len(json.loads(text)) / 2,
        "mot": lambda: len([row for row in text.splitlines() if row.count(",") == 8]) / 2,
    }
    assert kept[kind]() == added > 0


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    side = JsonFile(tmp_path / "out.json", HEADER)
    side.add(PICTURES[1])
    side.abort()
    assert list(tmp_path.iterdir()) == []


def test_names_follow_the_same_rule_as_videos(tmp_path: Path) -> None:
    first = written(JsonFile, tmp_path / "out.json")
    assert written(JsonFile, tmp_path / "out.json").name == "out (2).json"
    side = JsonFile(first, HEADER, overwrite=True)
    assert side.finish() == first
    with pytest.raises(UsageError, match="own source"):
        JsonFile(first, HEADER, overwrite=True, sources=[first])


def test_one_that_cannot_be_opened_takes_back_the_others(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        open_side_files({"json": tmp_path / "a.json", "csv": tmp_path / "nowhere" / "a.csv"}, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    side = JsonLinesFile(tmp_path / "out.jsonl", HEADER)
    side._file.close()
    side._file = open("/dev/full", "w")  # noqa: SIM115, PTH123 - a device that refuses every byte
    with pytest.raises(OutputError, match=r"disk that holds .* is full"):
        for _ in range(5000):
            side.add(PICTURES[1])
    side.abort()


def test_mot_text_is_not_gone_on_with(tmp_path: Path) -> None:
    old = tmp_path / "old.txt"
    old.write_text("1,1,0,0,4,4,0.9,1,-1\n", encoding="utf-8")
    with pytest.raises(OutputError, match=r"old\.txt holds less"):
        MotFile(tmp_path / "out.txt", HEADER, before=(old, 1))
    assert list(tmp_path.iterdir()) == [old]
