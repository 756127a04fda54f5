"""`ledetr label`: what it writes, who said so, how it stops and goes on, and that training takes it."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ledetr.backends.base import BackendInfo, RankedOutputs
from ledetr.coco_file import read_stored
from ledetr.detector import Detector
from ledetr.errors import LeDetrError, OutputError, SourceError, UsageError, WeightsError
from ledetr.files import sha256_of
from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model
from ledetr.pictures import read_picture
from ledetr.weights import WeightsInfo, save_weights
from training import ensemble
from training.check_data import write_coco
from training.data.collate import Collate, Samples
from training.data.read import read_dataset
from training.ensemble import Ensemble, Teacher, match_classes, open_teacher
from training.label import find_pictures, main
from training.recipes import finetune
from training.schedule import AugmentationWindows

Write = Callable[..., Path]
TEACHERS = Path(__file__).parents[3] / "shared" / "data" / "teachers"
REAL = [TEACHERS / f"{name}.onnx" for name in ("deimv2_femto_416", "nanodet_plus_m_1.5x_416", "picodet_s_416")]
needs_teachers = pytest.mark.skipif(not REAL[0].exists(), reason="no ../shared/data/teachers beside the repository")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures 64 wide and 32 high, white to grey, in a folder and one below it."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name, grey in (("p1.png", 255), ("p2.png", 204), ("p10.png", 102), ("more/q.png", 255)):
        Image.fromarray(np.full((32, 64, 3), grey, np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def teacher(write_dense: Write) -> Path:
    """Sees a class 0 on the left with 0.8 and a class 1 on the right with 0.3, of white."""
    return write_dense("left.onnx", [[4, 4, 24, 24], [40, 8, 60, 28]], [[0.8, 0.0], [0.0, 0.3]])


@pytest.fixture
def second(write_dense: Write) -> Path:
    """Sees the class 0 as well, a little to the right, with 0.4."""
    return write_dense("second.onnx", [[6, 4, 26, 24]], [[0.4, 0.0]])


def label(pictures: Path, *words: object) -> dict[str, Any]:
    """What the command writes to labels.json beside the pictures."""
    output = pictures.parent / "labels.json"
    main([str(pictures), "-o", str(output), "-q", "--threads", "1", *map(str, words)])
    content: dict[str, Any] = json.loads(output.read_text())
    return content


def test_one_teacher_by_hand(pictures: Path, teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = label(pictures, "--teacher", teacher)
    assert capsys.readouterr().out == f"{pictures.parent / 'labels.json'}\n"
    assert [image["file_name"] for image in content["images"]] == ["p1.png", "p2.png", "p10.png"]
    assert content["images"][2] == {"id": 3, "file_name": "p10.png", "height": 32, "width": 64}
    assert content["categories"] == [{"id": 0, "name": "class 0"}, {"id": 1, "name": "class 1"}]
    assert content["annotations"][0] == {
        "id": 1, "image_id": 1, "category_id": 0, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0, "score": 0.8,
    }  # fmt: skip
    # white, 0.8 and 0.4 of white
    scores = [(row["image_id"], row["category_id"], row["score"]) for row in content["annotations"]]
    assert scores == [(1, 0, 0.8), (1, 1, 0.3), (2, 0, 0.64), (2, 1, 0.24), (3, 0, 0.32), (3, 1, 0.12)]
    assert [row["id"] for row in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert not (pictures.parent / "labels.json.part.jsonl").exists()


def test_the_file_says_who_made_it(pictures: Path, teacher: Path, second: Path) -> None:
    info = label(pictures, "--teacher", teacher, "--teacher", second, "--flip")["info"]
    assert info["machine_labels"] is True and "not checked by a person" in info["description"]
    assert info["teachers"] == [
        {"name": path.stem, "file": path.name, "sha256": sha256_of(path)} for path in (teacher, second)
    ]
    assert info["fusion"] == {"passes": 4, "flip": True, "overlap": 0.6, "score_floor": 0.01}
    assert info["min_score"] == 0.1 and info["max_boxes"] == 100


def test_two_teachers_are_fused(pictures: Path, teacher: Path, second: Path) -> None:
    rows = label(pictures, "--teacher", teacher, "--teacher", second)["annotations"]
    # (0.8 * 4 + 0.4 * 6) / 1.2 = 4.67; the class that one of two saw is halved
    assert rows[0]["bbox"] == [4.67, 4, 20, 20] and rows[0]["score"] == pytest.approx(0.6)
    assert rows[1]["category_id"] == 1 and rows[1]["score"] == pytest.approx(0.15)


def test_the_mirrored_look_comes_back_mirrored(pictures: Path, teacher: Path) -> None:
    """The teacher always says the same, so its boxes of the mirrored picture lie on the other side."""
    rows = label(pictures, "--teacher", teacher, "--flip")["annotations"]
    first = [(row["category_id"], row["bbox"], row["score"]) for row in rows if row["image_id"] == 1]
    assert first == [
        (0, [4, 4, 20, 20], 0.4), (0, [40, 4, 20, 20], 0.4), (1, [40, 8, 20, 20], 0.15), (1, [4, 8, 20, 20], 0.15),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--min-score", "0.3"], [0.8, 0.3, 0.64, 0.32]),
        (["--max-boxes", "1", "--min-score", "0"], [0.8, 0.64, 0.32]),
        (["--min-score", "0.9"], []),
    ],
)
def test_which_boxes_are_kept(pictures: Path, teacher: Path, words: list[str], expected: list[float]) -> None:
    content = label(pictures, "--teacher", teacher, *words)
    assert [row["score"] for row in content["annotations"]] == expected
    assert len(content["images"]) == 3, "a picture without boxes is background"


def test_hard_labels_have_no_scores(pictures: Path, teacher: Path) -> None:
    content = label(pictures, "--teacher", teacher, "--hard", "0.4")
    assert [row["image_id"] for row in content["annotations"]] == [1, 2]
    assert not any("score" in row for row in content["annotations"]) and "no scores" in content["info"]["description"]
    data = read_dataset(pictures.parent / "labels.json", pictures)
    assert data.pictures[0].weights().tolist() == [1.0]


def test_training_weighs_boxes_by_their_scores(pictures: Path, teacher: Path) -> None:
    """From the file through the readers and the batches into what the losses take."""
    label(pictures, "--teacher", teacher)
    data = read_dataset(pictures.parent / "labels.json", pictures).raise_errors()
    assert not data.problems and data.class_names == ("class 0", "class 1")
    config = replace(finetune(), batch=3)
    windows = AugmentationWindows(strong_from=0, mosaic_until=0, strong_until=0)
    samples = Samples(data.pictures, 2, config, windows, (32, 64))
    targets = Collate(config=config, windows=windows, size_hw=(32, 64))([(k, samples[k]) for k in range(3)]).targets
    weights = {tuple(row[:2].numpy().round(4).tolist()) for row in targets.effective_weight}
    assert weights == {tuple(np.float32(pair).round(4).tolist()) for pair in ((0.8, 0.3), (0.64, 0.24), (0.32, 0.12))}
    assert targets.labels[:, :2].tolist() == [[0, 1]] * 3 and not targets.valid[:, 2:].any()


def test_pycocotools_reads_it(pictures: Path, teacher: Path) -> None:
    label(pictures, "--teacher", teacher)
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(pictures.parent / "labels.json"))
    assert len(coco.getAnnIds(imgIds=[2])) == 2 and coco.getCatIds(["class 1"]) == [1]


# --- stopping and going on


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """The process is killed while it looks at picture `number` from 0; the list holds the looks."""
    looks: list[int] = []
    real = Ensemble.detect

    def detect(self: Ensemble, rgb: np.ndarray, **options: int) -> Any:
        if len(looks) == number:
            raise KeyboardInterrupt
        looks.append(int(rgb[0, 0, 0]))
        return real(self, rgb, **options)

    monkeypatch.setattr(Ensemble, "detect", detect)
    return looks


@pytest.mark.parametrize("cut", [0, 7])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    pictures: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """cut: bytes that the kill took from the last line."""
    label(pictures, "--teacher", teacher)
    output, part = pictures.parent / "labels.json", pictures.parent / "labels.json.part.jsonl"
    whole = output.read_bytes()
    output.unlink()
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            label(pictures, "--teacher", teacher)
    assert not output.exists()
    content = part.read_bytes()
    part.write_bytes(content[: len(content) - cut])
    looks = stop_at(monkeypatch, 9)
    label(pictures, "--teacher", teacher, "--resume")
    assert looks == ([204, 102] if cut else [102]), "only what is missing is looked at"
    assert output.read_bytes() == whole and not part.exists()


def test_ctrl_c_keeps_what_is_done(pictures: Path, teacher: Path) -> None:
    """The first picture is finished; then the sentence, exit code 130, and a part file to go on from."""
    code = (
        "import os, signal, sys\n"
        "from training import edge, label\n"
        "from training.ensemble import Ensemble\n"
        "real = Ensemble.detect\n"
        "def detect(self, rgb, **options):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(self, rgb, **options)\n"
        "Ensemble.detect = detect\n"
        "edge.run(label.main)\n"
    )
    output = pictures.parent / "labels.json"
    words = [str(pictures), "--teacher", str(teacher), "-o", str(output), "-q"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert done.stderr.endswith("ledetr: stopped after 1 of 3 pictures; the same command with --resume goes on\n"), (
        done.stderr
    )
    assert not output.exists() and len(Path(f"{output}.part.jsonl").read_text().splitlines()) == 2
    assert len(label(pictures, "--teacher", teacher, "--resume")["images"]) == 3


def leave_a_part(pictures: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            label(pictures, "--teacher", teacher)
    return pictures.parent / "labels.json.part.jsonl"


def test_another_job_does_not_go_on(
    pictures: Path, teacher: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = leave_a_part(pictures, teacher, monkeypatch)
    before = part.read_bytes()
    with pytest.raises(UsageError, match=r"unfinished run; go on with --resume, or delete it"):
        label(pictures, "--teacher", teacher)
    with pytest.raises(UsageError, match=r"was begun with other flip, lowest score; give the same"):
        label(pictures, "--teacher", teacher, "--resume", "--flip", "--min-score", "0.2")
    with pytest.raises(UsageError, match=r"was begun with other teachers; "):
        label(pictures, "--teacher", second, "--resume")
    with pytest.raises(UsageError, match=r"was begun with other pictures; "):
        label(pictures / "more", "--teacher", teacher, "--resume", "-o", part.with_name("labels.json"))
    assert part.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        '{"file": "p1.png", "size_hw": [32, 64], "rows": [[1, 2, 3, 4, 2, 0.5]]}',
        '{"file": "p1.png", "size_hw": [32, 64], "rows": [[NaN, 2, 3, 4, 0, 0.5]]}',
        '{"file": 3, "size_hw": [32, 64], "rows": []}',
        '{"file": "p1.png", "size_hw": [32], "rows": []}',
    ],
)
def test_a_damaged_part_file_is_one_sentence(
    pictures: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    part = leave_a_part(pictures, teacher, monkeypatch)
    lines = part.read_text().splitlines()
    part.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(OutputError, match="line 2 is damaged; delete the file and begin anew"):
        label(pictures, "--teacher", teacher, "--resume")


def test_a_resume_with_nothing_to_go_on_from_begins(pictures: Path, teacher: Path) -> None:
    (pictures.parent / "labels.json.part.jsonl").touch()  # killed before its first line
    assert len(label(pictures, "--teacher", teacher, "--resume")["images"]) == 3


# --- pictures


def test_broken_pictures_are_named_and_counted(pictures: Path, teacher: Path) -> None:
    (pictures / "broken.png").write_bytes((pictures / "p1.png").read_bytes()[:60])
    (pictures / "empty.jpg").touch()
    output = pictures.parent / "labels.json"
    words = ["label", str(pictures), "--teacher", str(teacher), "-o", str(output)]
    command = [sys.executable, "-m", "ledetr.cli.main", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 6, done.stderr
    said = done.stderr.splitlines()
    assert said[-1] == (
        f"ledetr: 2 of 5 pictures could not be read and have no labels; the others are in {str(output)!r}"
    )
    assert "'broken.png'" in said[-3] and "'empty.jpg'" in said[-2]
    document = json.loads(done.stdout)
    assert (document["pictures"], document["boxes"], document["schema_version"]) == (3, 6, 1)
    assert [Path(row["file"]).name for row in document["unreadable"]] == ["broken.png", "empty.jpg"]
    assert len(json.loads(output.read_text())["images"]) == 3


def test_nothing_but_broken_pictures(tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"none of the 1 pictures can be read; the first: .*'a.jpg'"):
        label(folder, "--teacher", teacher)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "left.onnx"]


def test_pictures_of_a_glob_a_list_and_one(pictures: Path) -> None:
    def names(word: object) -> list[str]:
        return list(find_pictures(str(word))[1])

    assert names(pictures) == ["p1.png", "p2.png", "p10.png"]
    assert names(f"{pictures}/**/*.png") == ["more/q.png", "p1.png", "p2.png", "p10.png"]
    assert names(pictures / "p2.png") == ["p2.png"]
    (pictures / "some.txt").write_text("p10.png\nmore/q.png\np10.png\n")
    assert names(pictures / "some.txt") == ["p10.png", "more/q.png"]


def test_pictures_that_could_not_be_named_are_refused(pictures: Path) -> None:
    (pictures / "more" / "out.txt").write_text("../p1.png\n")
    with pytest.raises(SourceError, match=r"names the picture .*is not inside"):
        find_pictures(str(pictures / "more" / "out.txt"))
    with pytest.raises(SourceError, match="is no folder of pictures"):
        find_pictures("clip.mp4")
    with pytest.raises(SourceError, match="there is no folder"):
        find_pictures(f"{pictures}/absent/")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_and_evaluation_read_the_same_boxes_of_a_turned_picture(
    orientation: int, tmp_path: Path, teacher: Path
) -> None:
    """The teacher finds 4, 4, 24, 24 of 64 x 32 upright pixels. Painted there, turned back and saved with the turn in
    its header, the file holds paint where the written box is; training sees the box upright again."""
    folder = tmp_path / "turned"
    folder.mkdir()
    upright = np.full((32, 64, 3), 250, np.uint8)
    upright[4:24, 4:24] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(turned_back(upright, orientation)).save(folder / "a.png", exif=exif)
    assert np.array_equal(read_picture(folder / "a.png"), upright), "the test's own turn is the standard's"
    content = label(folder, "--teacher", teacher)
    image = content["images"][0]
    x, y, width, height = (round(v) for v in content["annotations"][0]["bbox"])
    stored = read_stored(folder / "a.png")
    assert (image["height"], image["width"]) == stored.shape[:2] and (width, height) == (20, 20)
    assert (stored[y : y + height, x : x + width] == 255).all(), "evaluation reads the picture as stored"
    read = read_dataset(tmp_path / "labels.json", folder).raise_errors().pictures[0]
    assert read.boxes_xyxy[0].tolist() == [4, 4, 24, 24] and read.size_hw == (32, 64)
    assert image.get("exif_orientation", 1) == orientation == read.orientation
    mended = tmp_path / "mended.json"
    write_coco(read_dataset(tmp_path / "labels.json", folder), mended)
    written = json.loads(mended.read_text())
    assert written["annotations"][0]["bbox"] == [x, y, 20, 20], "so does check-data --fix"
    assert read_dataset(mended, tmp_path).raise_errors().pictures[0].boxes_xyxy[0].tolist() == [4, 4, 24, 24]


def turned_back(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """What is stored for a picture that looks like this: the inverse of the standard's table."""
    turns = {
        1: rgb, 2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1], 5: rgb.transpose(1, 0, 2), 6: np.rot90(rgb),
        7: rgb[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(rgb, -1),
    }  # fmt: skip
    return np.ascontiguousarray(turns[orientation])


def test_a_picture_that_was_turned_after_it_was_labelled(tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "turned"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.full((32, 64, 3), 255, np.uint8)).save(folder / "a.png", exif=exif)
    label(folder, "--teacher", teacher)
    Image.fromarray(np.full((32, 64, 3), 255, np.uint8)).save(folder / "a.png")
    with pytest.raises(SourceError, match=r"EXIF orientation 3, the file has 1; was the picture turned after"):
        read_dataset(tmp_path / "labels.json", folder).raise_errors()


# --- wrong use


def test_without_the_extra_an_onnx_teacher_gets_a_sentence(pictures: Path, teacher: Path) -> None:
    """In an interpreter that has no onnxruntime: one sentence, exit code 4, nothing written."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from training import edge, label\n"
        f"edge.run(lambda: label.main([{str(pictures)!r}, '--teacher', {str(teacher)!r}, '-o', 'labels.json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=pictures.parent, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    sentence = f"the teacher {str(teacher)!r} needs the package onnxruntime: pip install 'ledetr[train]'"
    assert (done.returncode, done.stdout, done.stderr) == (4, "", f"ledetr: {sentence}\n")
    assert not list(pictures.parent.glob("labels*"))


def test_a_file_that_is_there_is_kept(pictures: Path, teacher: Path) -> None:
    output = pictures.parent / "labels.json"
    output.write_text("mine")
    with pytest.raises(UsageError, match="is there already; give another name, or --overwrite"):
        label(pictures, "--teacher", teacher)
    assert output.read_text() == "mine"
    assert len(label(pictures, "--teacher", teacher, "--overwrite")["images"]) == 3


def test_a_folder_that_is_not_there(pictures: Path, teacher: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        main([str(pictures), "--teacher", str(teacher), "-o", str(pictures / "none" / "a.json"), "-q"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--hard", "0.4", "--min-score", "0.1"], "name one"),
        (["--min-score", "1.5"], "lies in 0..1"),
        (["--max-boxes", "0"], "must be above 0"),
        (["-o", "picture.png"], "must end in .json"),
    ],
)
def test_options_that_make_no_sense(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["pictures", "--teacher", "n", "-o", "labels.json", *words])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


# --- teachers


class Fixed:
    """An engine that finds one box of each of its classes."""

    def __init__(self, classes: int, score: float = 0.5) -> None:
        self.info = BackendInfo("fixed", "cpu", "fp32", (32, 32))
        self.classes, self.score, self.closed = classes, score, False

    def run(self, pixels: np.ndarray) -> RankedOutputs:
        boxes = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (1, self.classes, 1))
        scores = np.full((1, self.classes), self.score, np.float32)
        return RankedOutputs(np.arange(self.classes)[None], boxes, scores)

    def close(self) -> None:
        self.closed = True


def detector_of(*names: str, score: float = 0.5, random_weights: bool = False) -> Detector:
    return Detector(
        Fixed(len(names), score),
        model_id="fixed",
        class_names=names,
        category_ids=range(5, 5 + len(names)),
        random_weights=random_weights,
    )


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """The second teacher numbers them otherwise and knows one more; nobody else has a say in that one."""
    detectors = [detector_of("cat", "dog"), detector_of("Dog", "cow", score=0.3)]
    names, ids, tables = match_classes(detectors)
    assert names == ("cat", "dog", "cow") and ids == (5, 6, 7)
    assert [table.tolist() for table in tables] == [[0, 1], [1, 2]]
    with Ensemble([Teacher(tmp_path, "", detector) for detector in detectors]) as both:
        assert both.class_passes.tolist() == [1, 2, 1]
        found = both.detect(np.zeros((40, 40, 3), np.uint8))
    assert dict(zip(found.names, found.confidence.tolist(), strict=True)) == pytest.approx(
        {"cat": 0.5, "dog": 0.4, "cow": 0.3}
    )
    assert found.xyxy == pytest.approx(np.tile([10, 10, 30, 30], (3, 1))) and found.category_ids == (5, 6, 7)


def test_classes_that_do_not_match_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(cow\) shares no class with 'fixed' \(cat, dog\); .*label in two runs"):
        match_classes([detector_of("cat", "dog"), detector_of("cow")])
    with pytest.raises(UsageError, match="has the class 'cat' twice"):
        match_classes([detector_of("cat", "Cat")])


def test_teachers_of_chance_or_without_probabilities(monkeypatch: pytest.MonkeyPatch, teacher: Path) -> None:
    chance = detector_of("cat", random_weights=True)
    monkeypatch.setattr(ensemble, "_open", lambda *_: chance)
    with pytest.raises(WeightsError, match="holds random weights, so it has nothing to teach"):
        open_teacher(str(teacher))
    assert chance._backend is None, "it is closed"
    loud = Ensemble([Teacher(teacher, "", detector_of("cat", score=3.0))])
    with pytest.raises(WeightsError, match="gives scores above 1"):
        loud.detect(np.zeros((9, 9, 3), np.uint8))


def test_weights_of_ours_teach_beside_others(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    """One look of one detector is what fusion gives back; a second teacher's classes find theirs by name."""
    torch.manual_seed(0)
    config = ledetr_tiny(2)
    info = WeightsInfo(
        name="tiny", config=config, class_names=("class 1", "class 0"), category_ids=(3, 4), input_hw=config.input_hw,
        licence="Apache-2.0", trained_on="nothing",
    )  # fmt: skip
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, build_model(config), info)
    content = label(pictures, "--teacher", weights, "--backend", "torch-cpu", "--min-score", "0.001")
    with Detector.load(weights, backend="torch-cpu", threads=1) as alone:
        found, _ = alone.detect_frame(np.full((32, 64, 3), 255, np.uint8), score_floor=0.01, max_detections=100)
    mine = [row for row in content["annotations"] if row["image_id"] == 1]
    assert len(mine) == len(found) > 0
    assert [row["score"] for row in mine] == pytest.approx(found.confidence.tolist(), abs=1e-4)
    assert [row["category_id"] for row in mine] == [3 + label for label in found.class_id.tolist()]
    assert content["info"]["teachers"][0] == {
        "name": "tiny", "file": "tiny.safetensors", "sha256": sha256_of(weights), "licence": "Apache-2.0",
        "trained_on": "nothing",
    }  # fmt: skip
    both = label(pictures, "--teacher", weights, "--teacher", teacher, "--backend", "torch-cpu", "--overwrite")
    assert both["categories"] == [{"id": 3, "name": "class 1"}, {"id": 4, "name": "class 0"}]
    best = both["annotations"][0]  # the dense teacher's class 0, halved
    assert (best["category_id"], best["bbox"]) == (4, [4, 4, 20, 20]) and best["score"] >= 0.4


@pytest.mark.parametrize("content", [b"", b"not a model"])
@pytest.mark.parametrize("name", ["a.onnx", "a.safetensors", "a.pt"])
def test_files_that_are_no_teachers(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")) as caught:
        open_teacher(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_none_stays_open_where_one_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = detector_of("cat")

    def opened(model: str, **options: object) -> Teacher:
        if model == "bad":
            raise WeightsError("bad")
        return Teacher(tmp_path, "", good)

    monkeypatch.setattr(ensemble, "open_teacher", opened)
    with pytest.raises(LeDetrError, match="bad"):
        Ensemble.open(["good", "bad"])
    assert good._backend is None


@needs_teachers
def test_real_teachers_agree_on_a_picture(tmp_path: Path) -> None:
    """All three forms of file in one ensemble, on one picture; a box that all see in both directions scores high."""
    folder = tmp_path / "one"
    folder.mkdir()
    source = sorted((TEACHERS.parent / "coco_val_dev").iterdir())[0]
    (folder / source.name).write_bytes(source.read_bytes())
    words = [word for path in REAL for word in ("--teacher", path)]
    content = label(folder, *words, "--flip")
    assert content["info"]["fusion"]["passes"] == 6 and len(content["categories"]) == 80
    assert content["categories"][79] == {"id": 90, "name": "toothbrush"}
    truth = json.loads((TEACHERS.parent / "coco_val_dev.json").read_text())
    image_id = next(image["id"] for image in truth["images"] if image["file_name"] == source.name)
    real = {row["category_id"] for row in truth["annotations"] if row["image_id"] == image_id}
    sure = [row for row in content["annotations"] if row["score"] >= 0.5]
    assert sure and {row["category_id"] for row in sure} <= real


@needs_teachers
@pytest.mark.slow
def test_the_fusion_is_as_good_as_measured(tmp_path: Path) -> None:
    """The six passes on the development split give AP 30.7, where the best teacher alone gives 28.1."""
    folder = TEACHERS.parent / "coco_val_dev"
    output = tmp_path / "labels.json"
    words = [word for path in REAL for word in ("--teacher", str(path))]
    main([str(folder), *words, "--flip", "--min-score", "0", "-o", str(output), "-q"])
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(folder.with_suffix(".json")))
        labels = json.loads(output.read_text())
        by_name = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
        names = {image["id"]: by_name[image["file_name"]] for image in labels["images"]}
        rows = [{**row, "image_id": names[row["image_id"]]} for row in labels["annotations"]]
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(0.307, abs=0.005)
