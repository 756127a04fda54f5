"""The losses of a real network: the two sides agree on shapes, and every part of it learns something."""

import torch

from ledetr.losses import DenoisingConfig, LossConfig, criterion, make_denoising
from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model


def test_every_parameter_gets_a_gradient_with_and_without_objects(synthetic):
    torch.manual_seed(0)
    model = build_model(ledetr_tiny()).train()
    decoder = model.config.decoder
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    config = LossConfig(up=decoder.up, reg_scale=decoder.reg_scale)
    for counts in ([3, 0], [0, 0]):
        targets = synthetic.targets(counts, slots=5, classes=decoder.classes)
        slots = DenoisingConfig(classes=decoder.classes, slots=decoder.denoising)
        noisy = make_denoising(targets, slots, torch.Generator().manual_seed(0))
        model.zero_grad()
        losses = criterion(model(pixels, noisy), targets, config, noisy)
        losses["total"].backward()
        assert losses["total"].isfinite() and losses["bad_losses"] == losses["bad_costs"] == 0
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # without a gradient tensor a process would wait for ever in a collective
        assert not [name for name, p in trainable.items() if p.grad is None]
        assert all(p.grad.isfinite().all() for p in trainable.values())
