"""The weights file on disk: where it lies, what its header says, whether its bytes are intact. No torch here.

A file is safetensors: 8 bytes of header length, a JSON header, the tensor payload. Ours carries in `__metadata__` all
that is needed to rebuild the network and to name what it finds. The header comes from outside, so every number in it
is checked before it is used, and nothing in it is ever executed.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs

from ledetr.errors import WeightsError
from ledetr.files import sha256_of
from ledetr.model.config import VARIANTS
from ledetr.weights_info import MAX_NAME_LENGTH, WeightsInfo, parse_metadata, shorten

MAX_HEADER_BYTES = 8 * 1024 * 1024  # JSON of this size still parses within 300 MB of memory
MAX_TENSORS = 100_000
DTYPE_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the header: safetensors dtype word, shape, and its bytes within the payload."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: metadata, tensors by name, and where the payload starts in the file."""

    metadata: dict[str, str]
    tensors: dict[str, TensorEntry]
    payload_start: int


def search_folders() -> tuple[Path, ...]:
    """Where weights are looked for by name, first match wins: package (or source tree), then the user's data folder."""
    package = Path(__file__).parent
    folders = [package / "assets" / "weights"]
    source_tree = package.parent
    if (source_tree / "pyproject.toml").is_file():
        folders.append(source_tree / "assets" / "weights")
    folders.append(platformdirs.user_data_path("ledetr", appauthor=False) / "weights")
    return tuple(folders)


def find_weights(model: str | Path) -> Path:
    """Path of the weights of a scale ("n") or of a file. Never downloads. WeightsError says where it looked."""
    if isinstance(model, Path) or model not in VARIANTS:
        return _existing_file(model)
    file_name = f"ledetr_{model}.safetensors"
    folders = search_folders()
    for folder in folders:
        if (folder / file_name).is_file():
            return folder / file_name
    places = ", ".join(str(folder) for folder in folders)
    raise WeightsError(
        f"no weights for model {model!r}: {file_name} was looked for in {places}; put the file there, give its path, "
        f"or ask for random weights (--random-weights, random_weights=True)"
    )


def _existing_file(model: str | Path) -> Path:
    path = Path(model)
    if path.is_file():
        return path
    if isinstance(model, str) and not path.suffix and path.name == model:
        close = get_close_matches(model.lower(), VARIANTS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise WeightsError(
            f"unknown model {model!r}{hint}: known are {', '.join(VARIANTS)}, or the path of a weights file"
        )
    what = "is a folder, not a weights file" if path.is_dir() else "does not exist or is not a regular file"
    raise WeightsError(f"weights file {str(path)!r} {what}")


def read_info(path: str | Path) -> WeightsInfo:
    """What the file says about itself; its header is checked, its payload is not read. WeightsError if unfit."""
    path = Path(path)
    return parse_metadata(path, read_header(path).metadata)


def verify_payload(path: Path, header: Header) -> None:
    """WeightsError unless the payload has the SHA-256 the header names."""
    expected = header.metadata.get("sha256", "")
    try:
        actual = sha256_of(path, start=header.payload_start)
    except OSError as error:
        raise WeightsError(f"weights file {str(path)!r} cannot be read: {error.strerror}") from error
    if actual != expected:
        raise WeightsError(
            f"weights file {str(path)!r} is damaged: SHA-256 of its tensors is {actual[:16]}..., "
            f"its header says {expected[:16]}...; copy it again"
        )


def read_header(path: Path) -> Header:
    """The header of a safetensors file, with sizes, types and offsets checked against the file."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            _check_length(path, head, length, file_bytes)
            text = file.read(length)
    except OSError as error:
        raise WeightsError(f"weights file {str(path)!r} cannot be read: {error.strerror}") from error
    document = _parse_object(path, text)
    metadata = _checked_metadata(path, document.pop("__metadata__", {}))
    return Header(metadata, _checked_tensors(path, document, file_bytes - 8 - length), 8 + length)


def _check_length(path: Path, head: bytes, length: int, file_bytes: int) -> None:
    if 2 <= length <= min(MAX_HEADER_BYTES, file_bytes - 8):
        return
    if head.startswith((b"PK", b"\x80")):
        raise WeightsError(f"{str(path)!r} is a pickle (PyTorch checkpoint), not safetensors, and is never loaded")
    if length < 2:
        raise WeightsError(f"{str(path)!r} is not a safetensors file: it has {file_bytes} bytes and no header")
    if length > file_bytes - 8:
        raise WeightsError(
            f"{str(path)!r} is cut short or not a safetensors file: its header should have {length} bytes, "
            f"the whole file has {file_bytes}"
        )
    raise WeightsError(f"{str(path)!r} has a header of {length} bytes, allowed are {MAX_HEADER_BYTES}")


def _parse_object(path: Path, text: bytes | str) -> dict[str, Any]:
    """A JSON object with every key once."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a key twice
        raise WeightsError(
            f"the header of {str(path)!r} is not valid JSON, so this is no intact weights file"
        ) from error
    if not isinstance(value, dict):
        raise WeightsError(f"the header of {str(path)!r} is not a JSON object, so this is no intact weights file")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _checked_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"the metadata of {str(path)!r} is not a table of texts")
    return metadata


def _checked_tensors(path: Path, document: dict[str, Any], payload_bytes: int) -> dict[str, TensorEntry]:
    if len(document) > MAX_TENSORS:
        raise WeightsError(f"{str(path)!r} lists {len(document)} tensors, allowed are {MAX_TENSORS}")
    tensors = {name: _checked_entry(path, name, entry) for name, entry in document.items()}
    position = 0
    for entry in sorted(tensors.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise WeightsError(f"the tensors of {str(path)!r} overlap or leave a gap at byte {position} of the payload")
        position = entry.end
    if position != payload_bytes:
        raise WeightsError(
            f"{str(path)!r} is cut short or too long: its tensors need {position} bytes, it has {payload_bytes}"
        )
    return tensors


def _checked_entry(path: Path, name: str, entry: Any) -> TensorEntry:
    where = f"tensor {shorten(name)} of {str(path)!r}"
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise WeightsError(f"{where} has a name that is too long or not printable")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{where} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise WeightsError(f"{where} has type {shorten(dtype)}, allowed are {', '.join(DTYPE_BYTES)}")
    if not _are_counts(shape) or len(shape) > 8 or not _are_counts(offsets) or len(offsets) != 2:
        raise WeightsError(f"{where} has a shape or offsets that are not sizes")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise WeightsError(f"{where} has {end - begin} bytes, which is not what its shape {shape} needs")
    return TensorEntry(dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)


def differences(file_shapes: dict[str, tuple[int, ...]], network_shapes: dict[str, tuple[int, ...]]) -> str:
    """What differs between a file's tensors and a network's, as part of a sentence; empty if nothing does."""
    missing = [shorten(name) for name in network_shapes if name not in file_shapes]
    extra = [shorten(name) for name in file_shapes if name not in network_shapes]
    reshaped = [
        f"{shorten(name)} file {list(file_shapes[name])} network {list(shape)}"
        for name, shape in network_shapes.items()
        if name in file_shapes and file_shapes[name] != shape
    ]
    groups = (("missing", missing), ("extra", extra), ("of another shape", reshaped))
    return "; ".join(f"{len(items)} {what}: {_first(items)}" for what, items in groups if items)


def _first(items: Sequence[str], count: int = 4) -> str:
    return ", ".join(items[:count]) + (", ..." if len(items) > count else "")
