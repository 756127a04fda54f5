"""The whole network: sizes, batches, folding, precision, and what training gets."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ledetr.model.config import VARIANTS, ModelConfig, ledetr_n, ledetr_tiny
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.model.outputs import DenoisingQueries, TrainOutputs

# float32 through some fifty layers
CLOSE = 2e-5


def randomised(config: ModelConfig, seed: int = 0) -> LeDetr:
    """Every parameter and norm statistic moved: a fresh network has zero heads, which hide mistakes."""
    torch.manual_seed(seed)
    model = build_model(config)
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def pixels(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def sorted_rows(logits: Tensor, boxes: Tensor) -> Tensor:
    """Rows as a set: which query comes first may hang on a rounding error."""
    rows = torch.cat([logits, boxes], -1).double()
    return torch.stack([r[r.sum(-1).argsort()] for r in rows])


SMALL = {"tiny": ledetr_tiny, "n": ledetr_n}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(96, 96), (64, 160), (224, 32)])
@torch.no_grad()
def test_any_multiple_of_32(name: str, size: tuple[int, int]) -> None:
    model = randomised(SMALL[name]())
    logits, boxes = model(pixels(1, *size))
    assert logits.shape[2] == 80 and boxes.shape == (1, logits.shape[1], 4)
    assert torch.isfinite(logits).all() and torch.isfinite(boxes).all()
    assert (boxes[..., 2:] > 0).all()


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="100x96; both sides must be multiples of 32"):
        build_model(ledetr_tiny()).eval()(pixels(1, 100, 96))


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_batch_equals_its_pictures(name: str) -> None:
    model = randomised(SMALL[name]())
    batch = pixels(3, 96, 128)
    together = sorted_rows(*model(batch))
    for i in range(3):
        alone = sorted_rows(*model(batch[i : i + 1]))
        assert (together[i] - alone[0]).abs().max() < CLOSE


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_fused_gives_the_same(name: str) -> None:
    model = randomised(SMALL[name]())
    before = copy.deepcopy(model.state_dict())
    fused = model.fused()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in model.parameters())
    assert (sorted_rows(*model(pixels(2, 96, 96))) - sorted_rows(*fused(pixels(2, 96, 96)))).abs().max() < CLOSE
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@torch.no_grad()
def test_fewer_layers_equal_a_network_that_stops_there() -> None:
    model = randomised(ledetr_tiny())
    shallow = model.fused(eval_layers=1)
    outputs = randomised(ledetr_tiny())
    outputs.decoder.train()
    trained: TrainOutputs = outputs(pixels(1, 96, 96))  # type: ignore[assignment]
    logits, boxes = shallow(pixels(1, 96, 96))
    first = trained.matching
    difference = sorted_rows(logits, boxes) - sorted_rows(first.logits[0], first.boxes_cxcywh[0])
    assert difference.abs().max() < CLOSE
    with pytest.raises(ValueError, match="has 2 layers; 3 cannot be used"):
        model.fused(eval_layers=3)


@torch.no_grad()
def test_box_geometry_stays_in_float32_under_autocast() -> None:
    """With bfloat16 everywhere, boxes of 0..1 would sit on a grid of 1/256."""
    model = randomised(ledetr_tiny())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, boxes = model(pixels(1, 96, 96))
    assert logits.dtype == boxes.dtype == torch.float32
    assert (boxes != boxes.bfloat16().float()).float().mean() > 0.9


def denoising(batch: int, slots: int, classes: int) -> DenoisingQueries:
    generator = torch.Generator().manual_seed(2)
    group = torch.arange(slots).expand(batch, slots) // 2
    empty = torch.arange(slots).expand(batch, slots) >= slots - 3
    return DenoisingQueries(
        labels=torch.randint(0, classes, (batch, slots), generator=generator).masked_fill(empty, classes),
        boxes_cxcywh=torch.rand(batch, slots, 4, generator=generator) * 0.4 + 0.2,
        group=group.masked_fill(empty, -1),
        positive=torch.ones(batch, slots, dtype=torch.bool),
        target=torch.zeros(batch, slots, dtype=torch.int64),
    )


@torch.no_grad()
def test_training_answer_of_the_last_layer_is_the_inference_answer() -> None:
    """Also with denoising queries beside: matching queries must not see them."""
    model = randomised(ledetr_tiny())
    logits, boxes = model(pixels(2, 96, 96))
    model.decoder.train()
    for noisy in (None, denoising(2, 16, 80)):
        outputs: TrainOutputs = model(pixels(2, 96, 96), noisy)  # type: ignore[assignment]
        got = sorted_rows(outputs.matching.logits[-1], outputs.matching.boxes_cxcywh[-1])
        assert (got - sorted_rows(logits, boxes)).abs().max() < CLOSE
        assert (outputs.denoising is None) == (noisy is None)


@torch.no_grad()
def test_denoising_groups_do_not_see_each_other() -> None:
    model = randomised(ledetr_tiny())
    model.decoder.train()
    noisy = denoising(1, 16, 80)
    before: TrainOutputs = model(pixels(1, 96, 96), noisy)  # type: ignore[assignment]
    moved = replace(noisy, boxes_cxcywh=noisy.boxes_cxcywh.clone())
    moved.boxes_cxcywh[0, :2] *= 0.5
    after: TrainOutputs = model(pixels(1, 96, 96), moved)  # type: ignore[assignment]
    assert before.denoising is not None and after.denoising is not None
    changed = (after.denoising.logits - before.denoising.logits).abs().amax((0, 1, 3)) > 1e-7
    assert changed.tolist() == [True, True] + [False] * 14


def test_every_parameter_learns() -> None:
    """No part is cut off from the loss: a gradient reaches each parameter in train mode."""
    for config in (ledetr_tiny(), ledetr_n()):
        model = randomised(config).train()
        outputs: TrainOutputs = model(pixels(2, 96, 96), denoising(2, 16, 80))  # type: ignore[assignment]
        assert outputs.denoising is not None
        parts = [outputs.encoder_logits, outputs.encoder_boxes_cxcywh]
        for queries in (outputs.matching, outputs.denoising):
            parts += [queries.logits, queries.boxes_cxcywh, queries.corners]
            parts += [queries.pre_logits, queries.pre_boxes_cxcywh]
        sum((p.float() * torch.randn_like(p.float())).sum() for p in parts).backward()  # type: ignore[union-attr]
        silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []


def test_fresh_network_says_nothing_is_there_and_boxes_are_anchors() -> None:
    model = build_model(ledetr_tiny()).eval()
    with torch.no_grad():
        logits, boxes = model(pixels(1, 96, 96))
    assert logits.sigmoid().mean() < 0.05
    sides = torch.tensor([0.05, 0.1, 0.2])
    assert ((boxes[..., 2:, None] - sides).abs().amin(-1) < 1e-3).all()


class _NoHostTensors(TorchDispatchMode):
    """Fails at the first operator that reads an array from the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        for leaf in tree_leaves((args, kwargs)):
            host = isinstance(leaf, Tensor) and leaf.device.type == "cpu" and leaf.ndim > 0
            assert not host, f"{func} reads a host tensor of shape {tuple(leaf.shape)}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", [ledetr_tiny(), ledetr_n()], ids=["tiny", "n"])
def test_second_pass_reads_nothing_from_the_host(config: ModelConfig) -> None:
    """A copy from the host cannot be captured in a CUDA graph; the meta device stands in for the GPU."""
    model = build_model(config, device="meta").eval()
    images = torch.zeros((1, 3, 96, 1280), dtype=torch.uint8, device="meta")
    with torch.inference_mode():
        model(images)
        with _NoHostTensors():
            model(images)


def test_tables_met_in_inference_can_be_trained_with() -> None:
    config = replace(ledetr_tiny(), input_hw=(32, 416))
    model = randomised(config)
    with torch.inference_mode():
        model(pixels(1, 32, 416))
    outputs: TrainOutputs = model.train()(pixels(2, 32, 416))  # type: ignore[assignment]
    outputs.matching.logits.sum().backward()
    assert model.encoder.naifi.attention.qkv.weight.grad is not None


@pytest.mark.parametrize("name", VARIANTS)
def test_config_survives_json(name: str) -> None:
    import json

    config = VARIANTS[name]()
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknown": 1}, "has no field 'unknown'"),
        ({"backbone": {"kind": "resnet"}}, "backbone kind 'resnet' is not one of efficientnat, lite"),
        ({"encoder": {"dims": 1}}, "EncoderConfig has no field 'dims'"),
    ],
)
def test_config_names_what_it_does_not_know(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict({**ledetr_n().to_dict(), **change})
