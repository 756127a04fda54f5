"""Class heads by name: shared names keep what is known of them, in whatever order they come."""

import torch

from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model
from training.heads import PRIOR, with_classes


def test_rows_follow_their_names() -> None:
    torch.manual_seed(0)
    model = build_model(ledetr_tiny(3)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    adapted, match = with_classes(model, ("cat", "dog", "car"), ("bus", "Car", "cat"))
    assert (match.kept, match.new, match.dropped) == (("Car", "cat"), ("bus",), ("dog",))
    assert "dropped    1  dog" in match.table()
    score, old = adapted.decoder.scores[1], model.decoder.scores[1]
    assert torch.equal(score.weight[1], old.weight[2]) and torch.equal(score.bias[2], old.bias[0])
    assert torch.allclose(score.weight[0], old.weight.mean(0)) and score.bias[0].item() == torch.tensor(PRIOR).item()
    embedding = adapted.decoder.denoising_embedding.weight
    assert embedding.shape == (4, 32) and torch.equal(embedding[3], model.decoder.denoising_embedding.weight[3])
    assert torch.equal(embedding[2], model.decoder.denoising_embedding.weight[0])
    assert torch.equal(adapted.backbone.stem.conv.weight, model.backbone.stem.conv.weight)


def test_the_same_classes_in_another_order_give_the_same_answers() -> None:
    torch.manual_seed(0)
    model = build_model(ledetr_tiny(3)).eval()
    torch.nn.init.normal_(model.decoder.encoder_score.weight)
    torch.nn.init.normal_(model.decoder.scores[1].weight)
    adapted, _ = with_classes(model, ("a", "b", "c"), ("c", "a", "b"))
    pixels = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        (logits, boxes), (moved, moved_boxes) = model(pixels), adapted.eval()(pixels)
    assert torch.allclose(logits[..., [2, 0, 1]], moved, atol=1e-5) and torch.allclose(boxes, moved_boxes, atol=1e-6)
