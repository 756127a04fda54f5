"""Pictures in, pictures out: names, formats, what is left of a batch with bad ones in it."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledetr.chain.images_out import process_images, save_picture
from ledetr.chain.overlay import class_colour
from ledetr.chain.sources import FolderSpec, ImageSpec, ListSpec
from ledetr.detections import Detections
from ledetr.errors import Interrupted, OutputError, SourceError, UsageError
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES


class OneBox:
    """Sees a person in the middle of everything."""

    model_id = "one"
    class_names = COCO_NAMES
    category_ids = COCO_CATEGORY_IDS
    score_threshold = 0.5
    random_weights = False

    def detect_frame(self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300) -> Any:
        height, width = rgb.shape[:2]
        box = np.array([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], np.float32)
        found = Detections(
            box, np.array([0.9], np.float32), np.array([0]), class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS
        )
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        pass


def picture(path: Path, size: tuple[int, int] = (200, 160), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(path, **options)
    return path


def test_one_picture_becomes_one_picture_with_a_box(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    report = process_images(ImageSpec(source), tmp_path / "out.png", OneBox())

    rgb = np.asarray(Image.open(tmp_path / "out.png"))
    assert tuple(rgb[100, 50]) == class_colour(0) and tuple(rgb[80, 100]) == (90, 90, 90)
    assert report.path == tmp_path / "out.png" and report.boxes == 1 and report.failed == ()


def test_a_picture_turned_by_exif_is_boxed_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = picture(tmp_path / "a.jpg", exif=exif)
    process_images(ImageSpec(source), tmp_path / "out.jpg", OneBox())

    written = Image.open(tmp_path / "out.jpg")
    assert written.size == (160, 200) and written.getexif().get(0x0112) is None


def test_a_folder_becomes_a_folder_with_the_same_names(tmp_path: Path) -> None:
    for name in ("b/10.jpg", "b/9.jpg", "c.png"):
        picture(tmp_path / "in" / name)
    report = process_images(
        FolderSpec(tmp_path / "in", "**/*"), tmp_path / "out", OneBox(), side_files={"json": tmp_path / "o.json"}
    )

    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "b/10.jpg",
        "b/9.jpg",
        "c.png",
    ]
    frames = json.loads((tmp_path / "o.json").read_text())["frames"]
    assert [frame["file"] for frame in frames] == ["b/9.jpg", "b/10.jpg", "c.png"] and report.frames == 3


def test_bad_pictures_are_listed_and_the_others_done(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "1.jpg")
    (tmp_path / "in" / "2.jpg").write_text("no picture")
    picture(tmp_path / "in" / "3.jpg")
    report = process_images(FolderSpec(tmp_path / "in"), tmp_path / "out", OneBox())

    assert report.frames == 2 and [path.name for path, _ in report.failed] == ["2.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.jpg", "3.jpg"]


def test_nothing_but_bad_pictures_is_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "in" / "1.jpg"
    bad.parent.mkdir()
    bad.write_text("no picture")
    with pytest.raises(SourceError, match="None of the 1 pictures"):
        process_images(FolderSpec(bad.parent), tmp_path / "out", OneBox(), side_files={"json": tmp_path / "o.json"})
    with pytest.raises(SourceError, match=r"1\.jpg"):
        process_images(ImageSpec(bad), tmp_path / "out.jpg", OneBox())
    assert not (tmp_path / "o.json").exists()


def test_names_that_are_numbers_are_the_image_ids_of_coco(tmp_path: Path) -> None:
    for name in ("000000000139.jpg", "000000000724.jpg"):
        picture(tmp_path / "in" / name)
    process_images(FolderSpec(tmp_path / "in"), None, OneBox(), side_files={"coco": tmp_path / "o.json"})
    rows = json.loads((tmp_path / "o.json").read_text())
    assert [row["image_id"] for row in rows] == [139, 724] and rows[0]["bbox"] == [50, 40, 100, 80]


def test_results_never_lie_among_their_sources(tmp_path: Path) -> None:
    source = picture(tmp_path / "in" / "1.jpg")
    before = source.read_bytes()
    with pytest.raises(UsageError, match="among their own sources"):
        process_images(FolderSpec(tmp_path / "in"), tmp_path / "in", OneBox(), overwrite=True)
    with pytest.raises(UsageError, match="own source"):
        process_images(ImageSpec(source), source, OneBox(), overwrite=True)
    assert source.read_bytes() == before


def test_a_list_cannot_write_outside_of_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.txt").write_text("../elsewhere/x.png\n")
    process_images(ListSpec(tmp_path / "in" / "list.txt"), tmp_path / "out", OneBox())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.png"]


def test_stop_ends_between_two_pictures(tmp_path: Path) -> None:
    for number in range(30):
        picture(tmp_path / "in" / f"{number}.jpg")
    stop = threading.Event()
    with pytest.raises(Interrupted, match=r"asked; 5 of 30 pictures are done, listed in .*o\.partial\.json\.$"):
        process_images(
            FolderSpec(tmp_path / "in"),
            tmp_path / "out",
            OneBox(),
            side_files={"json": tmp_path / "o.json"},
            stop=stop,
            progress=lambda p: stop.set() if p.frames == 5 else None,
        )
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert len(json.loads((tmp_path / "o.partial.json").read_text())["frames"]) == 5


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
def test_every_ending_is_written_in_its_format(tmp_path: Path, ending: str) -> None:
    rgb = np.full((20, 30, 3), (200, 40, 40), np.uint8)
    path = save_picture(rgb, tmp_path / f"a{ending}")
    assert np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - rgb).max() <= 3
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="what kind of picture"):
        save_picture(rgb, tmp_path / "a.xyz")
    with pytest.raises(OutputError, match="does not exist"):
        save_picture(rgb, tmp_path / "nowhere" / "a.png")
