"""The file between pretraining and detection: one backbone as safetensors, with all that its loading must compare."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ledetr.errors import WeightsError
from ledetr.files import sha256_of, whole_file
from ledetr.model.config import ModelConfig
from ledetr.weights_file import differences, read_header, verify_payload

FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What a backbone file says about itself. config: to_dict() of the ModelConfig's backbone."""

    name: str
    """Scale: "n", "m", "l", "x", or another word for other configs."""
    config: dict[str, Any]
    pixel_mean: float
    pixel_std: float
    """Of the pixels it was fed, on the 0..255 scale."""
    figures: dict[str, float]
    """What was measured of it, in 0..1."""
    trained_on: str
    command: str
    started_from: str
    licence: str


def described(model: ModelConfig, **texts: Any) -> BackboneInfo:
    """The info of a scale's backbone; texts: figures, trained_on, command, started_from, licence."""
    config = json.loads(json.dumps(model.to_dict()["backbone"]))  # lists for tuples, as they come back
    return BackboneInfo(name=model.name, config=config, pixel_mean=model.pixel_mean, pixel_std=model.pixel_std, **texts)


def save_backbone(path: Path, backbone: nn.Module, info: BackboneInfo) -> None:
    """Write the backbone whole or not at all, float32. WeightsError where a value is not finite."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"tensor {name!r} holds values that are not finite, so {str(path)!r} was not written")
    metadata = {"ledetr_backbone": FORMAT, "sha256": "0" * 64}
    metadata |= {field.name: json.dumps(getattr(info, field.name)) for field in fields(info)}
    with whole_file(path) as part:
        save_file(tensors, part, metadata)
        # The checksum is of the payload, which is known once it is written; the header keeps its length.
        metadata["sha256"] = sha256_of(part, start=read_header(part).payload_start)
        save_file(tensors, part, metadata)


def read_backbone_info(path: Path) -> BackboneInfo:
    """What the file says about itself. WeightsError if it is no backbone file or does not say it all."""
    if not path.is_file():
        raise WeightsError(f"the backbone file {str(path)!r} does not exist or is not a regular file")
    metadata = read_header(path).metadata
    if metadata.get("ledetr_backbone") != FORMAT:
        raise WeightsError(
            f"{str(path)!r} is no backbone file of this version; python -m training.pretrain writes one "
            "(a detector's weights are given with --model)"
        )
    values: dict[str, Any] = {}
    for field in fields(BackboneInfo):
        try:
            values[field.name] = json.loads(metadata[field.name])
        except (KeyError, ValueError, RecursionError) as error:
            raise WeightsError(f"the field {field.name} of {str(path)!r} is missing or damaged") from error
        kinds: dict[Any, Any] = {"config": dict, "figures": dict, "pixel_mean": float, "pixel_std": float}
        if not isinstance(values[field.name], kinds.get(field.name, str)):
            raise WeightsError(f"the field {field.name} of {str(path)!r} is not of its kind")
    return BackboneInfo(**values)


def load_backbone(path: Path, backbone: nn.Module, model: ModelConfig) -> BackboneInfo:
    """Fill the backbone of `model` from a file. All names and shapes, the config, the range of pixels, the checksum
    and that every value is finite are compared first; WeightsError says what differs, and nothing is changed then."""
    info = read_backbone_info(path)
    header = read_header(path)
    network = backbone.state_dict()
    differing = differences(
        {name: entry.shape for name, entry in header.tensors.items()},
        {name: tuple(tensor.shape) for name, tensor in network.items()},
    )
    if differing:
        raise WeightsError(
            f"the backbone file {str(path)!r} holds the backbone of {info.name!r}, which does not fit {model.name!r}: "
            f"{differing}"
        )
    mine = described(model, figures={}, trained_on="", command="", started_from="", licence="")
    for key, theirs in (("config", info.config), ("pixel_mean", info.pixel_mean), ("pixel_std", info.pixel_std)):
        own = getattr(mine, key)
        if theirs != own:
            raise WeightsError(f"the backbone file {str(path)!r} says {key} {theirs}, the network {model.name!r} {own}")
    verify_payload(path, header)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.dtype != network[name].dtype or not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"tensor {name!r} of {str(path)!r} is not finite {network[name].dtype}")
    backbone.load_state_dict(tensors)
    return info
