"""What an ONNX file says, read before any engine sees it, and without the onnx package.

An ONNX file is one protocol buffer: fields of a number and a value, messages within messages. The numbers are those of
onnx.proto3. A file from outside is refused where it would make an engine read another file or where it needs operators
that are not part of the standard.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ledetr.errors import WeightsError

MAX_FILE_BYTES = 2 * 1024**3  # an ONNX file is one protobuf message, which ends at 2 GiB
MAX_DEPTH = 32  # graphs within graphs
SEAL = "ledetr_file_sha256"
_SEAL_BYTES = 2 + 2 + len(SEAL) + 2 + 64
_STANDARD = ("", "ai.onnx")
_SCALAR_FORMATS = {1: "<f", 6: "<i", 7: "<q"}  # float32, int32, int64

Message = memoryview


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph: what it is, and the names of what goes in and out."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(slots=True)
class OnnxFile:
    """content: the whole file. outputs: names of what the graph gives. scalars: constants of one number, by name."""

    path: Path
    content: bytes
    metadata: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    scalars: dict[str, float] = field(default_factory=dict)
    functions: set[tuple[str, str]] = field(default_factory=set)


def read_onnx(path: Path) -> OnnxFile:
    """The file, checked: whole, standing alone, standard operators only. WeightsError where it is not."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise WeightsError(f"{str(path)!r} is larger than an ONNX file can be")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    file = OnnxFile(path, content)
    try:
        graphs = _read_model(file, memoryview(content))
    except (ValueError, IndexError, struct.error) as error:
        raise WeightsError(f"{str(path)!r} is no ONNX file, or it is cut short; copy or export it again") from error
    if graphs != 1:
        raise WeightsError(f"{str(path)!r} is no ONNX file: it holds {graphs} graphs, expected one")
    for node in file.nodes:
        if node.domain not in _STANDARD and (node.domain, node.op) not in file.functions:
            raise WeightsError(
                f"{str(path)!r} uses the operator {node.op[:80]!r} of {node.domain[:80]!r}, which is not part of the "
                f"ONNX standard; export it with standard operators only"
            )
    return file


def class_count(file: OnnxFile) -> int | None:
    """How many classes its output "labels" tells apart; None where the graph does not say.

    Exports rank all pairs of query and class and get the label as the remainder of a division by the number of classes;
    that divisor is a constant between the ranking (TopK) and the output.
    """
    producers = {name: node for node in file.nodes for name in node.outputs}
    divisors, seen, waiting = set(), set(), ["labels"]
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if name in seen or node is None or node.op in ("TopK", "Constant"):
            continue
        seen.add(name)
        if node.op in ("Div", "Mod", "Mul"):
            divisors |= {file.scalars[operand] for operand in node.inputs if operand in file.scalars}
        waiting.extend(node.inputs)
    counts = {int(value) for value in divisors if value >= 1 and value.is_integer()}
    counts = counts - {1} or counts
    return counts.pop() if len(counts) == 1 else None


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """The same ONNX file with texts in its metadata_props, sealed by the SHA-256 of all that stands before the seal.

    Protocol buffers define that fields appended to a message are added to its lists, so no ONNX package is needed:
    field 14 of ModelProto is a list of (1: key, 2: value).
    """
    content += b"".join(_entry(key, value) for key, value in metadata.items())
    return content + _entry(SEAL, hashlib.sha256(content).hexdigest())


def check_seal(file: OnnxFile) -> None:
    """WeightsError unless a file of ours is as it was written."""
    body = file.content[:-_SEAL_BYTES]
    if file.content[-_SEAL_BYTES:] != _entry(SEAL, hashlib.sha256(body).hexdigest()):
        raise WeightsError(
            f"{str(file.path)!r} is damaged or was changed after 'ledetr export' wrote it; copy or export it again"
        )


def _read_model(file: OnnxFile, model: Message) -> int:
    """Fill `file`; the number of graphs in it."""
    graphs = 0
    for number, value in _fields(model):
        if number == 7:
            graphs += 1
            _read_graph(file, _message(value), 0)
        elif number == 14:
            key, text = _texts(_message(value), 1, 2)
            file.metadata[key] = text
        elif number == 25:
            _read_function(file, _message(value))
    return graphs


def _read_graph(file: OnnxFile, graph: Message, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("graphs within graphs without end")
    for number, value in _fields(graph):
        if number == 1:
            _read_node(file, _message(value), depth)
        elif number == 5:
            _read_tensor(file, _message(value), None)
        elif number == 12 and depth == 0:
            file.outputs += _texts(_message(value), 1)
        elif number == 15:
            _read_sparse(file, _message(value))


def _read_function(file: OnnxFile, function: Message) -> None:
    name, domain = _texts(function, 1, 10)
    file.functions.add((domain, name))
    for number, value in _fields(function):
        if number == 7:
            _read_node(file, _message(value), 1)
        elif number == 11:
            _read_attribute(file, _message(value), (), 1)


def _read_node(file: OnnxFile, node: Message, depth: int) -> None:
    inputs: list[str] = []
    outputs: list[str] = []
    op = domain = ""
    for number, value in _fields(node):
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 7:
            domain = _text(value)
    file.nodes.append(Node(op, domain, tuple(inputs), tuple(outputs)))
    for number, value in _fields(node):
        if number == 5:
            _read_attribute(file, _message(value), tuple(outputs) if op == "Constant" else (), depth)


def _read_attribute(file: OnnxFile, attribute: Message, constant: tuple[str, ...], depth: int) -> None:
    """constant: the name that the attribute's tensor has in the graph, where the node is a Constant."""
    for number, value in _fields(attribute):
        if number in (5, 10):
            _read_tensor(file, _message(value), constant[0] if constant else "")
        elif number in (6, 11):
            _read_graph(file, _message(value), depth + 1)
        elif number in (22, 23):
            _read_sparse(file, _message(value))


def _read_sparse(file: OnnxFile, sparse: Message) -> None:
    for number, value in _fields(sparse):
        if number in (1, 2):
            _read_tensor(file, _message(value), "")


def _read_tensor(file: OnnxFile, tensor: Message, name: str | None) -> None:
    """Refuse data that lie elsewhere; keep a single number under the given name, by default the tensor's own."""
    dims: list[int] = []
    kind, data, own_name = 0, b"", ""
    for number, value in _fields(tensor):
        if number == 13 or (number == 14 and value == 1):
            raise WeightsError(
                f"{str(file.path)!r} keeps weights in another file; only files that stand alone are opened"
            )
        if number == 1:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif number == 2:
            kind = value if isinstance(value, int) else 0
        elif number == 8:
            own_name = _text(value)
        elif number == 9:
            data = bytes(_message(value)[:16])
        elif number in (5, 7):
            numbers = [value] if isinstance(value, int) else list(_varints(_message(value)[:64]))
            data = struct.pack("<q", _signed(numbers[0])) if len(numbers) == 1 else b""
            data = data[:4] if number == 5 else data
    scalar_format = _SCALAR_FORMATS.get(kind, "")
    name = own_name if name is None else name
    if name and dims in ([], [1]) and scalar_format and len(data) == struct.calcsize(scalar_format):
        file.scalars[name] = float(struct.unpack(scalar_format, data)[0])


def _fields(message: Message) -> Iterator[tuple[int, int | Message]]:
    """Number and value of each field: an int for varints and an empty view for numbers of fixed width."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(message, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of kind {wire}")
        if number == 0 or position + length > len(message):
            raise ValueError("a field that goes beyond its message")
        yield number, message[position : position + length] if wire == 2 else message[:0]
        position += length


def _varint(message: Message, position: int) -> tuple[int, int]:
    """The number at a position and the position behind it; IndexError at the end, ValueError beyond 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _varints(message: Message) -> Iterator[int]:
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _message(value: int | Message) -> Message:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _text(value: int | Message) -> str:
    return bytes(_message(value)).decode()


def _texts(message: Message, *numbers: int) -> tuple[str, ...]:
    found = dict.fromkeys(numbers, "")
    found |= {number: _text(value) for number, value in _fields(message) if number in numbers}
    return tuple(found.values())


def _entry(key: str, value: str) -> bytes:
    """One text of metadata_props."""
    return _field(14, _field(1, key.encode()) + _field(2, value.encode()))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return _encoded(number << 3 | 2) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
