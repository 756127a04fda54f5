"""The probe's regression against least squares, and its figures for trunks of which they are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ledetr.errors import UsageError
from ledetr.model.backbone import build_backbone
from ledetr.model.config import ledetr_tiny
from training import probe
from training.backbone_file import described, save_backbone
from training.pretrain_distil import Teacher
from training.probe import Probe, Ridge, main, predicted, random_trunk, trunk_of


class PoolTeacher(Teacher):
    """Colours at the three strides; the class is the brightest of them."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.widths, self.classes, self.licence = "colours", (3, 3, 3), 3, "none"

    def forward(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [nn.functional.avg_pool2d(pixels, s) for s in (8, 16, 32)], pixels.mean((2, 3))


def batches(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=generator).float()
    pixels = nn.functional.interpolate(coarse, (64, 64)).byte()
    return list(zip(pixels.split(8), torch.zeros(count).long().split(8), strict=True))


@pytest.fixture
def question() -> Probe:
    return Probe(fit=batches(40, 0), judge=batches(24, 1), classes=0, teacher=PoolTeacher(), device=torch.device("cpu"))


def test_ridge_without_penalty_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 100 * torch.randn(50, 4, generator=generator, dtype=torch.float64) + 7
    y = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    ridge = Ridge(0.0)
    ridge.add(x[:20], y[:20])
    ridge.add(x[20:], y[20:])
    expected, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(50)]), y.numpy(), rcond=None)
    np.testing.assert_allclose(ridge.solve().numpy(), expected, rtol=1e-7, atol=1e-10)
    assert torch.allclose(predicted(x, ridge.solve()), torch.from_numpy(np.column_stack([x, np.ones(50)]) @ expected))


def test_a_penalty_shrinks_all_but_the_constant() -> None:
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [20.0]])
    ridge = Ridge(1e9)
    ridge.add(x, y)
    weights = ridge.solve()
    assert abs(float(weights[0])) < 1e-6 and float(weights[1]) == pytest.approx(15.0)


def test_a_trunk_that_is_a_linear_map_of_the_teacher_scores_1(question: Probe) -> None:
    turn = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, 1.0], [0.5, 0.5, 0.5]])

    def trunk(pixels: torch.Tensor) -> list[torch.Tensor]:
        return [torch.einsum("oc,bchw->bohw", turn, m) - 5 for m in question.teacher(pixels)[0]]

    figures = question.figures(trunk)
    assert all(figures[key] > 0.99 for key in ("cosine_8", "cosine_16", "cosine_32", "cosine", "top1")), figures
    assert figures["top5"] == 1.0


def test_a_trunk_that_sees_nothing_scores_chance(question: Probe) -> None:
    def trunk(pixels: torch.Tensor) -> list[torch.Tensor]:
        return [torch.rand(len(pixels), 4, 64 // s, 64 // s) for s in (8, 16, 32)]

    torch.manual_seed(0)
    figures = question.figures(trunk)
    assert abs(figures["cosine_8"]) < 0.2 and figures["top1"] < 0.7


def test_labels_are_probed_where_there_are_any(question: Probe) -> None:
    def labelled(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(p, (p[:, 0].float().mean((1, 2)) > 127).long()) for p, _ in parts]

    known = Probe(
        fit=labelled(question.fit), judge=labelled(question.judge), classes=2, teacher=question.teacher,
        device=question.device,
    )  # fmt: skip
    figures = known.figures(lambda pixels: question.teacher(pixels)[0])
    assert figures["top1"] > 0.8 and figures["top5"] == 1.0, "two classes: one of the best five is right"


def test_a_random_trunk_is_not_all_but_zero(question: Probe) -> None:
    trunk = random_trunk(ledetr_tiny(), question, seed=0)
    maps = trunk(question.judge[0][0].float())
    assert all(1e-3 < float(m.detach().std()) < 20 for m in maps), "1e-6 and less with the statistics of a new network"
    again = random_trunk(ledetr_tiny(), question, seed=0)(question.judge[0][0].float())
    assert all(torch.equal(a, b) for a, b in zip(maps, again, strict=True))


def test_the_command_prints_both_trunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(40):
        rgb = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(rgb).resize((64, 64)).save(tmp_path / "p" / f"{number}.png")
    file = tmp_path / "backbone_tiny.safetensors"
    torch.manual_seed(1)
    texts = {"figures": {}, "trained_on": "", "command": "", "started_from": "", "licence": ""}
    backbone = build_backbone(ledetr_tiny().backbone)
    save_backbone(file, backbone, described(ledetr_tiny(), **texts))
    assert not trunk_of(backbone, ledetr_tiny())(torch.zeros(1, 3, 32, 32))[0].isnan().any() and not backbone.training
    monkeypatch.setattr(probe, "open_teacher", lambda name: PoolTeacher())
    words = [str(file), str(tmp_path / "p"), "--imgsz", "32", "--fit-pictures", "20", "--device", "cpu"]
    main(words)
    out = capsys.readouterr()
    lines = out.out.splitlines()
    assert lines[0].split() == ["trunk", "stride", "8", "stride", "16", "stride", "32", "mean", "cosine",
                                "agreement", "top-1", "top-5"]  # fmt: skip
    assert [line.split()[0] for line in lines[1:]] == ["backbone_tiny", "random"]
    assert "2 held-out pictures at 32 px; adaptors fitted on 20; cosines to colours" in out.err
    main([*words, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["pictures"] == 2 and set(document["trunks"]) == {"backbone_tiny", "random"}
    (tmp_path / "v" / "a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "v" / "a" / "1.png")
    with pytest.raises(UsageError, match="has class folders, the other has not"):
        main([*words, "--val", str(tmp_path / "v")])
