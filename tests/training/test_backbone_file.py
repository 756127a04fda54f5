"""The file between pretraining and detection: everything is compared, and a detector really starts from it."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ledetr.errors import WeightsError
from ledetr.model.backbone import build_backbone
from ledetr.model.config import EfficientNatConfig, ledetr_n, ledetr_tiny
from training.backbone_file import described, load_backbone, read_backbone_info, save_backbone
from training.data.read import read_splits
from training.data.shapes import write_shapes
from training.loop import Job, starting_model
from training.recipes import finetune
from training.train import parse_arguments

TEXTS = {"figures": {"top1": 0.5}, "trained_on": "4 pictures", "command": "c", "started_from": "s", "licence": "l"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "backbone_tiny.safetensors"
    save_backbone(path, build_backbone(ledetr_tiny().backbone), described(ledetr_tiny(), **TEXTS))
    return path


def test_a_backbone_comes_back_bit_for_bit(file: Path) -> None:
    torch.manual_seed(3)
    first, second = build_backbone(ledetr_tiny().backbone), build_backbone(ledetr_tiny().backbone)
    info = load_backbone(file, second, ledetr_tiny())
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert info == described(ledetr_tiny(), **TEXTS) and info.figures == {"top1": 0.5}
    assert list(file.parent.iterdir()) == [file]


def test_a_detector_starts_from_it(file: Path, tmp_path: Path) -> None:
    data, tune = read_splits(write_shapes(tmp_path / "shapes", "coco", 12, ids=(1, 2, 3)))
    job = Job(
        folder=tmp_path / "run", config=finetune("tiny"), model=ledetr_tiny(3), train=data, tune=tune, total=4,
        backbone=file,
    )  # fmt: skip
    model, match = starting_model(job)
    torch.manual_seed(3)
    expected = build_backbone(ledetr_tiny().backbone).state_dict()
    assert match is None and all(torch.equal(expected[k], v) for k, v in model.backbone.state_dict().items())
    plain, _ = starting_model(replace(job, backbone=None))
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items() if k[:9] != "backbone.")


def test_every_name_shape_and_setting_is_compared(file: Path) -> None:
    tiny = ledetr_tiny()
    assert isinstance(tiny.backbone, EfficientNatConfig)
    wide = replace(tiny, backbone=replace(tiny.backbone, widths=(8, 8, 16, 16, 64)))
    with pytest.raises(WeightsError, match=r"of another shape: 'stages\.4\.0\.project\.conv\.weight' file \[32"):
        load_backbone(file, build_backbone(wide.backbone), wide)
    deep = replace(tiny, backbone=replace(tiny.backbone, depths=(1, 1, 1, 1, 2)))
    with pytest.raises(WeightsError, match=r"missing: 'stages\.4\.2\."):
        load_backbone(file, build_backbone(deep.backbone), deep)
    with pytest.raises(WeightsError, match=r"does not fit 'n': \d+ missing"):
        load_backbone(file, build_backbone(ledetr_n().backbone), ledetr_n())
    dilated = replace(tiny, backbone=replace(tiny.backbone, na_dilation=2))
    with pytest.raises(WeightsError, match="says config"):
        load_backbone(file, build_backbone(dilated.backbone), dilated)
    with pytest.raises(WeightsError, match=r"says pixel_std 255\.0, the network 'tiny' 128\.0"):
        load_backbone(file, build_backbone(tiny.backbone), replace(tiny, pixel_std=128.0))


def test_damage_is_noticed_and_changes_nothing(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    backbone = build_backbone(ledetr_tiny().backbone)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(WeightsError, match="is damaged: SHA-256"):
        load_backbone(file, backbone, ledetr_tiny())
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_backbone_info(tmp_path / "none.safetensors")
    head = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    (tmp_path / "other.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(WeightsError, match=r"no backbone file of this version; python -m training.pretrain writes one"):
        read_backbone_info(tmp_path / "other.safetensors")


def test_a_value_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    backbone = build_backbone(ledetr_tiny().backbone)
    with torch.no_grad():
        next(backbone.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(WeightsError, match="not finite, so"):
        save_backbone(tmp_path / "b.safetensors", backbone, described(ledetr_tiny(), **TEXTS))
    assert list(tmp_path.iterdir()) == []


def test_only_one_trunk_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["data.json", "--backbone", "b.safetensors", "--imagenet-trunk"])
    assert "name one" in capsys.readouterr().err
