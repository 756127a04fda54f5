"""How good a network is on a data set, while it trains: batches on its own device, COCO's figures at the end."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ledetr.backends.base import RawOutputs
from ledetr.coco_file import Category, CocoSet, Truth
from ledetr.coco_file import Picture as CocoPicture
from ledetr.decode import decode
from ledetr.evaluation import DETECTIONS_PER_PICTURE, CocoRow
from ledetr.model.ledetr import LeDetr
from ledetr.pictures import read_picture
from ledetr.preprocess import Placement, preprocess
from training.data.dataset import Dataset, Picture, in_threads


def coco_set_of(data: Dataset) -> CocoSet:
    """The data set as evaluation takes it: pictures by number, the data set's own category ids, upright boxes."""
    truths = [truth for number, picture in enumerate(data.pictures, 1) for truth in _truths(picture, number, data)]
    return CocoSet(
        path=Path(data.name),
        pictures=tuple(CocoPicture(number, picture.path) for number, picture in enumerate(data.pictures, 1)),
        categories=tuple(Category(i, name) for i, name in zip(data.category_ids, data.class_names, strict=True)),
        truths=tuple(truths),
    )


def _truths(picture: Picture, number: int, data: Dataset) -> Iterator[Truth]:
    for box, label, crowd in zip(picture.boxes_xyxy, picture.labels, picture.crowd, strict=True):
        x0, y0, x1, y1 = (float(value) for value in box)
        bbox = (x0, y0, x1 - x0, y1 - y0)
        yield Truth(number, data.category_ids[int(label)], bbox, bbox[2] * bbox[3], bool(crowd))


@torch.inference_mode()
def detect_pictures(
    model: LeDetr, data: Dataset, *, batch: int = 16, device: torch.device | str = "cpu"
) -> list[CocoRow]:
    """What the network, in eval mode, finds on every picture: no score floor, the 100 best of each."""
    input_hw = model.config.input_hw
    rows: list[CocoRow] = []
    for start in range(0, len(data.pictures), batch):
        part = data.pictures[start : start + batch]
        loaded = in_threads(lambda picture: preprocess(read_picture(picture.path), input_hw), part)
        pixels = np.stack([pixels for pixels, _ in loaded]).transpose(0, 3, 1, 2)
        logits, boxes = model(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
        placements = [placement for _, placement in loaded]
        rows += _rows(logits.float().cpu().numpy(), boxes.float().cpu().numpy(), placements, start + 1, data)
    return rows


def _rows(
    logits: np.ndarray, boxes: np.ndarray, placements: Sequence[Placement], first: int, data: Dataset
) -> Iterator[CocoRow]:
    for number, placement in enumerate(placements):
        raw = RawOutputs(logits[number], boxes[number])
        found = decode(raw, placement, score_floor=0.0, max_detections=DETECTIONS_PER_PICTURE)
        for (x, y, width, height), (_, confidence, label) in zip(found.xywh, found, strict=True):
            bbox = (float(x), float(y), float(width), float(height))
            yield CocoRow(first + number, data.category_ids[int(label)], bbox, float(confidence))
