"""Weights in and out of a network: safetensors only, every name and shape compared, nothing half-written.

The parts that need no torch, finding a file and reading its header, are weights_file.py and weights_info.py.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ledetr.errors import UsageError, WeightsError
from ledetr.files import whole_file
from ledetr.model.config import ModelConfig
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.weights_file import (
    MAX_HEADER_BYTES,
    Header,
    differences,
    find_weights,
    read_header,
    read_info,
    verify_payload,
)
from ledetr.weights_info import WeightsInfo, metadata_of, parse_metadata

__all__ = ["WeightsInfo", "find_weights", "load_model", "read_info", "save_weights", "with_decoder_layers"]

Storage = Literal["fp16", "fp32"]
_DTYPE_WORDS = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}


def load_model(path: str | Path, decoder_layers: int | None = None) -> tuple[LeDetr, WeightsInfo]:
    """The network of a weights file, float32, in eval mode on the CPU, and what the file says about itself.

    decoder_layers: how many of the decoder's layers to use, 1..config.decoder.layers; default as the file says.
    Raises WeightsError, one sentence, for a file that is not safetensors, cut, altered, not finite or made for
    another network; UsageError for a number of layers that the network does not have.
    """
    path = Path(path)
    header = read_header(path)
    info = parse_metadata(path, header.metadata)
    config = with_decoder_layers(info.config, decoder_layers)
    _check_fit(path, header, config)
    verify_payload(path, header)
    tensors = _read_tensors(path)
    model = build_model(config)
    model.load_state_dict(tensors, strict=True)
    return model.eval(), info


def with_decoder_layers(config: ModelConfig, decoder_layers: int | None) -> ModelConfig:
    """The config that uses `decoder_layers` of its decoder's layers; None leaves it as it is."""
    if decoder_layers is None:
        return config
    if not 1 <= decoder_layers <= config.decoder.layers:
        raise UsageError(
            f"model {config.name!r} has {config.decoder.layers} decoder layers, asked for {decoder_layers}"
        )
    return replace(config, decoder=replace(config.decoder, eval_layers=decoder_layers))


def _check_fit(path: Path, header: Header, config: ModelConfig) -> None:
    """Compare names, shapes and kinds with the network before any memory is given to it."""
    try:
        state = build_model(config, device="meta").state_dict()
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError, AssertionError) as error:
        raise WeightsError(f"the config in {str(path)!r} does not describe a network that can be built") from error
    network_shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    file_shapes = {name: entry.shape for name, entry in header.tensors.items()}
    differing = differences(file_shapes, network_shapes)
    if differing:
        raise WeightsError(
            f"weights file {str(path)!r} does not fit the network {config.name!r} it describes: {differing}"
        )
    for name, tensor in state.items():
        if tensor.is_floating_point() == (header.tensors[name].dtype == "I64"):
            raise WeightsError(
                f"tensor {name!r} of {str(path)!r} has type {header.tensors[name].dtype}, not {tensor.dtype}"
            )


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors, floats as float32; WeightsError where one is not finite."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights file {str(path)!r} cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"tensor {name!r} of {str(path)!r} holds values that are not finite (NaN or infinity)")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save_weights(
    path: str | Path, model: torch.nn.Module, info: WeightsInfo, *, storage: Storage = "fp16"
) -> WeightsInfo:
    """Write the network's state and `info` as one file, whole or not at all; returns the info with path and SHA-256.

    storage "fp16" halves the file: matrices and kernels become float16; vectors (biases, norms, running statistics)
    and whatever float16 would overflow stay float32. The same input gives the same bytes. Raises WeightsError where
    a value is not finite or the info would not be accepted on loading; OSError where the disk does not take it.
    """
    path = Path(path)
    tensors = {name: _stored(path, name, tensor, storage) for name, tensor in model.state_dict().items()}
    # Widest types first, then names: each tensor starts at a multiple of its own width.
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
    info = replace(info, path=path, sha256=_payload_sha256(ordered))
    header = _header_bytes(ordered, metadata_of(info))
    parse_metadata(path, json.loads(header[8:])["__metadata__"])  # what we would refuse to load is not written
    with whole_file(path) as part, part.open("wb") as file:
        file.write(header)
        for tensor in ordered.values():
            file.write(_bytes_of(tensor))
    return info


def _stored(path: Path, name: str, tensor: torch.Tensor, storage: Storage) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor.to(torch.int64).contiguous()
    tensor = tensor.float().contiguous()
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"tensor {name!r} holds values that are not finite, so {str(path)!r} was not written")
    if storage == "fp32" or tensor.ndim < 2:
        return tensor
    half = tensor.half()
    return half if torch.isfinite(half).all() else tensor


def _payload_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> bytes:
    """The tensor's bytes, little-endian as safetensors wants them (every machine we run on is)."""
    return tensor.numpy().tobytes()


def _header_bytes(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Length and JSON header, padded with spaces to a multiple of 8. Written here rather than by the safetensors
    package because that one orders metadata by chance, so equal weights would give different files."""
    document: dict[str, object] = {"__metadata__": metadata}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.numel() * tensor.element_size()
        document[name] = {
            "dtype": _DTYPE_WORDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise WeightsError(f"the header would have {len(text)} bytes, allowed are {MAX_HEADER_BYTES}")
    return struct.pack("<Q", len(text)) + text
