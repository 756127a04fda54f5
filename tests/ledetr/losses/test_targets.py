"""Targets: padding, and the words of a refusal."""

import pytest
import torch

from ledetr.losses.targets import Targets, pad_targets


def test_padding():
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    targets = pad_targets(
        [torch.tensor([], dtype=torch.int64), torch.tensor([3])],
        [box[:0], box],
        slots=2,
        weights=[torch.zeros(0), torch.tensor([0.4])],
        ignore_xyxy=[box, box[:0]],
        ignore_slots=1,
    )
    assert targets.valid.tolist() == [[False, False], [True, False]]
    assert targets.labels[1, 0] == 3 and targets.boxes_cxcywh[1, 0].equal(box[0])
    assert targets.effective_weight[1].tolist() == pytest.approx([0.4, 0.0])
    assert targets.ignore_valid is not None and targets.ignore_valid.tolist() == [[True], [False]]
    assert vars(targets.to("cpu")).keys() == vars(targets).keys()


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match="picture 0 of the batch has 3 objects, there are 2 slots"):
        pad_targets([torch.zeros(3, dtype=torch.int64)], [torch.zeros(3, 4)], slots=2)


def test_shapes_are_checked():
    good = vars(pad_targets([torch.tensor([1])], [torch.zeros(1, 4)], slots=2))
    with pytest.raises(ValueError, match=r"boxes_cxcywh must have the shape \(1, 2, 4\), got \(1, 2\)"):
        Targets(**{**good, "boxes_cxcywh": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match=r"valid must be torch\.bool"):
        Targets(**{**good, "valid": torch.ones(1, 2)})
    with pytest.raises(ValueError, match="together"):
        Targets(**{**good, "ignore_xyxy": torch.zeros(1, 1, 4)})
