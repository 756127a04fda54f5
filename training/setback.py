"""What happens when steps come out not finite: once the run goes back and on past the samples at fault, more slowly;
the second time it stops and leaves what is known in a folder.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ledetr.errors import LeDetrError, WeightsError
from ledetr.files import whole_file
from ledetr.losses import DenoisingConfig, LossConfig, criterion, make_denoising
from ledetr.losses.targets import Targets
from ledetr.model.ledetr import LeDetr
from training.data.collate import Batch

SLOWER = 0.5
"""What the rates are multiplied with after a setback."""
DRAWN = 16


class TrainingDiverged(LeDetrError):
    """The run was not finite a second time."""


class NotFinite(Exception):
    """Too many steps were not made, or the state cannot be saved. Every process of a run raises it at the same step.

    Steps `first` to `until` - 1 hold the samples at fault.
    """

    def __init__(self, reason: str, first: int, until: int) -> None:
        super().__init__(reason)
        self.first, self.until = first, until


@dataclass(frozen=True, kw_only=True)
class Setback:
    """The run went back from step `until`; the samples of the steps from `first` on are left out from then on."""

    first: int
    until: int
    reason: str

    @property
    def left_out(self) -> range:
        """Steps whose samples are never used."""
        return range(self.first, self.until)


def read_setback(folder: Path) -> Setback | None:
    """That of the run in this folder; None if it had none."""
    path = folder / "setback.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        return Setback(first=int(values["first"]), until=int(values["until"]), reason=str(values["reason"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{str(path)!r} is damaged; start again in another folder") from error


def write_setback(folder: Path, setback: Setback) -> None:
    """Before the run goes on, so that it stays slower whatever stops it."""
    with whole_file(folder / "setback.json") as part:
        part.write_text(json.dumps(asdict(setback), indent=1))


def first_odd_layer(
    model: LeDetr, batch: Batch, noise: DenoisingConfig, loss: LossConfig
) -> tuple[str | None, list[str]]:
    """The first layer whose output is not finite, and the loss terms that are not, in float32, picture by picture.

    The layer is None where every output is finite. Batch statistics are the running ones, so that no other process is
    needed.
    """
    model = copy.deepcopy(model).float()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    found: list[str] = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(_note_if_odd(name, found))
    device = next(model.parameters()).device
    terms: list[str] = []
    with torch.no_grad():
        for place in range(len(batch.pixels)):
            part = slice(place, place + 1)
            targets = _cut(batch.targets, part).to(device)
            noisy = make_denoising(targets, noise, batch.keys[part].to(device))
            losses = criterion(model(batch.pixels[part].to(device), noisy), targets, loss, noisy)
            terms += [name for name, value in losses.items() if not value.isfinite() and name not in terms]
    return (found[0] if found else None), terms


def _note_if_odd(name: str, found: list[str]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple | list) else [output]
        odd = any(isinstance(t, Tensor) and t.is_floating_point() and not t.isfinite().all() for t in tensors)
        if odd and not found:
            found.append(name)

    return hook


def _cut(targets: Targets, part: slice) -> Targets:
    given: dict[str, Any] = {field.name: getattr(targets, field.name) for field in fields(targets)}
    cut: dict[str, Any] = {name: None if value is None else value[part] for name, value in given.items()}
    return Targets(**cut)


def write_bundle(folder: Path, report: dict[str, Any], batch: Batch, class_names: Sequence[str]) -> Path:
    """report.json and the pictures of the first step that was not made, as the network saw them, with their boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "report.json") as part:
        part.write_text(json.dumps(report, indent=1))
    for place in range(min(DRAWN, len(batch.pixels))):
        with whole_file(folder / f"picture-{place:02d}.png") as part:
            Image.fromarray(_drawn(batch, place, class_names)).save(part, format="PNG")
    return folder


def _drawn(batch: Batch, place: int, class_names: Sequence[str]) -> np.ndarray:
    rgb = np.ascontiguousarray(batch.pixels[place].permute(1, 2, 0).numpy())
    height, width = rgb.shape[:2]
    targets = batch.targets
    for slot in torch.nonzero(targets.valid[place]).flatten().tolist():
        x, y, w, h = targets.boxes_cxcywh[place, slot].tolist()
        left, top = round((x - w / 2) * width), round((y - h / 2) * height)
        cv2.rectangle(rgb, (left, top), (round((x + w / 2) * width), round((y + h / 2) * height)), (255, 0, 0), 1)
        name = class_names[int(targets.labels[place, slot])][:16]
        cv2.putText(rgb, name, (left + 1, top + 9), cv2.FONT_HERSHEY_PLAIN, 0.7, (255, 0, 0))
    return rgb
