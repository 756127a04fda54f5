"""The conversion command: what it reads, what it refuses and what it writes, on a small network under real names."""

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ledetr.errors import OutputError, UsageError, WeightsError
from ledetr.files import sha256_of
from ledetr.model.backbone import build_backbone
from ledetr.model.config import VARIANTS, ledetr_tiny
from ledetr.model.ledetr import build_model
from ledetr.weights import load_model
from training import convert, foreign
from training.backbone_file import load_backbone, read_backbone_info
from training.data.read import read_splits
from training.data.shapes import write_shapes
from training.loop import Job, starting_model
from training.recipes import finetune


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale L is the tiny network here: everything else is as it will be."""
    monkeypatch.setitem(VARIANTS, "l", ledetr_tiny)


def detector(seed: int = 0) -> dict[str, Tensor]:
    """A DEIM-L file's tensors in the widths of the tiny network (test_foreign.py checks names and real shapes)."""
    network = build_model(ledetr_tiny()).state_dict()
    moves = foreign._decoder_moves(6, 2) | foreign._encoder_moves()
    torch.manual_seed(seed)
    state = {theirs: torch.rand(network[ours].shape) for ours, theirs in moves.items() if network[ours].dim()}
    state |= {theirs: torch.tensor(3) for ours, theirs in moves.items() if not network[ours].dim()}
    state |= {"backbone.stem.stem1.conv.weight": torch.zeros(4, 3, 3, 3)}
    return state | {"decoder.up": torch.tensor([0.5]), "decoder.reg_scale": torch.tensor([8.0])}


def trunk() -> dict[str, Tensor]:
    network = build_backbone(ledetr_tiny().backbone).state_dict()
    torch.manual_seed(1)
    moves = foreign._trunk_moves((1, 1, 1, 1, 1))
    return {
        "backbone." + theirs: torch.rand(network[ours].shape).to(network[ours].dtype) for ours, theirs in moves.items()
    }


def run(tmp_path: Path, content: Any, *words: str, origin: str = "deim-l", name: str = "their.pth") -> Path:
    source, target = tmp_path / name, tmp_path / "start.safetensors"
    torch.save(content, source)
    convert.main([str(source), "--from", origin, "-o", str(target), "-q", *words])
    return target


def test_a_detector_becomes_weights_that_training_starts_from(tmp_path: Path) -> None:
    state = detector()
    target = run(tmp_path, {"model": state}, "--report", str(tmp_path / "report.json"))
    model, info = load_model(target)
    theirs = state["decoder.decoder.layers.1.self_attn.in_proj_weight"]
    assert torch.equal(model.decoder.layers[1].self_attention.qkv.weight, theirs)
    assert (info.config.decoder.reg_scale, info.config.decoder.quality_act) == (8.0, "silu")
    assert "does not detect" in info.trained_on and info.licence.startswith("Apache-2.0")
    assert "DEIM-D-FINE-L (github.com/ShihuaHuang95/DEIM; their.pth, SHA-256 " in info.started_from
    assert sha256_of(tmp_path / "their.pth") in info.started_from and "tensors taken" in info.started_from
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["taken"]["decoder.scores.0.bias"] == "decoder.dec_score_head.0.bias"
    assert report["skipped"] == {
        "backbone.stem.stem1.conv.weight": "HGNetv2 backbone; ours is EfficientNAT",
        "decoder.up": "goes into the config",
        "decoder.reg_scale": "goes into the config",
    }
    data, tune = read_splits(write_shapes(tmp_path / "shapes", "coco", 12, ids=(1, 2, 3)))
    job = Job(
        folder=tmp_path, config=finetune("l"), model=info.config.with_classes(3), train=data, tune=tune, total=4,
        start=target,
    )  # fmt: skip
    started, match = starting_model(replace(job, model=replace(job.model, input_hw=(96, 96))))
    assert torch.equal(started.decoder.layers[1].self_attention.qkv.weight, theirs)
    assert match is not None and started.config.decoder.classes == 3


def test_the_moving_average_is_preferred_and_prefixes_of_parallel_training_go(tmp_path: Path) -> None:
    average = detector(seed=5)
    parallel = {"module." + name: value for name, value in detector(seed=6).items()}
    target = run(tmp_path, {"ema": {"module": average, "updates": 9}, "model": parallel, "last_epoch": 3})
    assert torch.equal(load_model(target)[0].decoder.scores[0].bias, average["decoder.dec_score_head.0.bias"])
    target = run(tmp_path, {"state_dict": parallel})
    assert torch.equal(load_model(target)[0].decoder.scores[0].bias, parallel["module.decoder.dec_score_head.0.bias"])


def test_a_safetensors_file_is_read_too(tmp_path: Path) -> None:
    state = detector()
    save_file(state, tmp_path / "their.safetensors")
    target = tmp_path / "start.safetensors"
    convert.main([str(tmp_path / "their.safetensors"), "--from", "deim-l", "-o", str(target), "-q"])
    assert torch.equal(load_model(target)[0].decoder.scores[0].bias, state["decoder.dec_score_head.0.bias"])


def test_a_trunk_becomes_a_backbone_file_and_goes_under_a_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone_file = tmp_path / "backbone.safetensors"
    torch.save(trunk(), tmp_path / "l1.pt")
    convert.main([str(tmp_path / "l1.pt"), "--from", "efficientvit-l1", "-o", str(backbone_file)])
    shown = capsys.readouterr()
    assert shown.out.strip() == str(backbone_file) and "tensors taken" in shown.err
    backbone = build_backbone(ledetr_tiny().backbone)
    info = load_backbone(backbone_file, backbone, ledetr_tiny())
    assert "EfficientViT-L1" in info.started_from and info.figures == {}
    assert torch.equal(
        backbone.stages[3][0].expand.conv.bias, trunk()["backbone.stages.3.op_list.0.main.inverted_conv.conv.bias"]
    )
    target = run(tmp_path, detector(), "--backbone", str(backbone_file))
    model, weights = load_model(target)
    assert all(torch.equal(value, model.backbone.state_dict()[name]) for name, value in backbone.state_dict().items())
    assert "EfficientViT-L1" in weights.started_from


class Malicious:
    """Runs a command when it is unpickled by one who allows it."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "was_run"
    with pytest.raises(WeightsError) as error:
        run(tmp_path, {"model": detector(), "extra": Malicious(witness)})
    assert not witness.exists() and not (tmp_path / "start.safetensors").exists()
    message = str(error.value)
    assert "which plain weights never need, so it was refused" in message and "\n" not in message
    assert "pathlib" in message or "asks for more than tensors" in message
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Malicious(witness)))
    with pytest.raises(WeightsError, match=r"no intact checkpoint of PyTorch 1\.6 or later"):
        convert.read_checkpoint(tmp_path / "bare.pth")
    assert not witness.exists()


def test_files_that_are_no_checkpoint_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="does not exist or is not a regular file"):
        convert.read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="holds 'epoch', which is no tensor"):
        run(tmp_path, {"epoch": 3})
    with pytest.raises(WeightsError, match="holds no table of tensors"):
        run(tmp_path, torch.zeros(3))
    with pytest.raises(WeightsError, match=r"has no tensor decoder\.dec_bbox_head.* so it is no DEIM-D-FINE-L"):
        run(tmp_path, {"model": {"weight": torch.zeros(3)}})
    whole = (tmp_path / "their.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="no intact checkpoint"):
        convert.read_checkpoint(tmp_path / "cut.pth")
    with zipfile.ZipFile(tmp_path / "odd.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02garbage")
    with pytest.raises(WeightsError, match=r"is damaged|asks for more"):
        convert.read_checkpoint(tmp_path / "odd.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    monkeypatch.setattr(convert, "MAX_BYTES", 1 << 16)
    with pytest.raises(WeightsError, match="unpacks to 1048576 bytes, allowed are 65536"):
        convert.read_checkpoint(tmp_path / "bomb.pth")
    monkeypatch.setattr(convert, "MAX_BYTES", 100)
    with pytest.raises(WeightsError, match="bytes, allowed are 100"):
        convert.read_checkpoint(tmp_path / "their.pth")
    assert not (tmp_path / "start.safetensors").exists()


def test_the_command_line_says_what_does_not_go(tmp_path: Path) -> None:
    torch.save(trunk(), tmp_path / "l1.pt")
    checkpoint = str(tmp_path / "l1.pt")
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        convert.main([checkpoint, "--from", "efficientvit-l1", "-o", "out.pth"])
    with pytest.raises(UsageError, match="EfficientViT-L1 is a trunk itself"):
        convert.main([checkpoint, "--from", "efficientvit-l1", "-o", "b.safetensors", "--backbone", "a.safetensors"])
    same = tmp_path / "a.safetensors"
    with pytest.raises(UsageError, match="is the checkpoint itself"):
        convert.main([str(same), "--from", "deim-l", "-o", str(same)])
    with pytest.raises(OutputError, match="cannot be written"):
        convert.main([checkpoint, "--from", "efficientvit-l1", "-o", str(tmp_path / "none" / "b.safetensors")])
    with pytest.raises(WeightsError, match="no backbone file of this version"):
        save_file(detector(), tmp_path / "d.safetensors")
        read_backbone_info(tmp_path / "d.safetensors")
