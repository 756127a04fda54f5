"""Members of the bad-input corpus that are data sets, weights and addresses."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.good_files import (
    coco_document,
    write_json,
    write_tiny_weights,
)
from benchmarks.members import EVAL, HANDLED, REFUSED, WEIGHTS, Member, flipped, written

# Data sets.


def data_sets() -> list[Member]:
    """Members of this group."""
    image, box = {"id": 1, "file_name": "one.png"}, {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20]}
    names = {
        "up": "../good.png", "far up": "../../../../etc/passwd", "absolute": "/etc/passwd", "windows": "C:\\x.png",
        "share": "\\\\host\\x.png", "link out": "link.png", "zero byte": "a\0.png", "no name": "",
        "not there": "no.png",
        "long name": "x" * 5000, "folder": ".", "half a letter": "\ud800.png",
    }  # fmt: skip
    boxes = {
        "negative size": [8, 8, -20, 20], "not a number": [8, 8, float("nan"), 20], "endless": [8, 8, float("inf"), 9],
        "three numbers": [1, 2, 3], "words": ["a", "b", "c", "d"], "none": None, "table": {"x": 1},
    }  # fmt: skip
    legal_boxes = {"outside": [500, 500, 20, 20], "zero area": [8, 8, 0, 0], "relative": [0.1, 0.1, 0.2, 0.2],
                   "far too large": [-1e9, -1e9, 1e30, 1e30]}  # fmt: skip
    changes: dict[str, Any] = {
        "id twice": {"images": [image, image], "annotations": []},
        "category twice": {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "annotations": []},
        "category missing": {"annotations": [{**box, "category_id": 77}]},
        "picture missing": {"annotations": [{**box, "image_id": 77}]},
        "no pictures key": {"images": None},
        "pictures are a table": {"images": {}},
        "id is text": {"images": [{**image, "id": "1"}], "annotations": []},
        "id is a float": {"images": [{**image, "id": 1.5}], "annotations": []},
        "id is true": {"images": [{**image, "id": True}], "annotations": []},
        "category without a name": {"categories": [{"id": 1, "name": ""}], "annotations": []},
        "nothing in it": {"images": [], "categories": [], "annotations": []},
    }
    legal: dict[str, Any] = {
        "ids from 0": {"images": [{**image, "id": 0}], "categories": [{"id": 0, "name": "person"}],
                       "annotations": [{**box, "image_id": 0, "category_id": 0}]},
        "ids with holes": {"images": [{**image, "id": 7}, {"id": 900000, "file_name": "two.png"}], "annotations": []},
        "same picture twice": {"images": [image, {**image, "id": 2}], "annotations": [box]},
        "box twice": {"annotations": [box, box]},
        "crowd": {"annotations": [{**box, "iscrowd": 1}]},
        "empty classes": {"categories": [{"id": 1, "name": "person"}, *({"id": i, "name": f"c{i}"} for i in range(2,
            90))]},
    }  # fmt: skip
    texts = {
        "list at the top.json": b"[]", "text.json": b"hello", "empty.json": b"", "null.json": b"null",
        "utf-16.json": "{}".encode("utf-16"), "cut.json": json.dumps(coco_document()).encode()[:200],
        "zeros.json": bytes(1000), "number.json": b"1e999",
    }  # fmt: skip
    group = "data sets"
    documents = [
        *((f"name leads {name}", REFUSED, {"images": [{**image, "file_name": file}], "annotations": []})
          for name, file in names.items()),
        *((f"box of {name}", REFUSED, {"annotations": [{**box, "bbox": value}]}) for name, value in boxes.items()),
        *((f"legal box {name}", HANDLED, {"annotations": [{**box, "bbox": value}]})
          for name, value in legal_boxes.items()),
        *((name, REFUSED, change) for name, change in changes.items()),
        *((name, HANDLED, change) for name, change in legal.items()),
    ]  # fmt: skip

    named = {"name leads not there": "no.png", "name leads folder": "pictures", "nothing in it": "data set's classes"}

    def writer(change: Any) -> Callable[[Path], object]:
        return lambda path: write_json(path, coco_document(**change))

    return [
        *(
            Member(f"{name}.json", group, codes, writer(change), EVAL, fixed=True, named=named.get(name, ""))
            for name, codes, change in documents
        ),
        *(Member(name, group, make=written(data), words=EVAL, fixed=True) for name, data in texts.items()),
        Member("pipe.json", group, make=os.mkfifo, words=EVAL),
        Member("zero.json", group, make=lambda path: path.symlink_to("/dev/zero"), words=EVAL),
        Member("folder.json", group, make=lambda path: path.mkdir(), words=EVAL),
    ]


# Weights.

_MODEL = ("detect", "good.png", "-m", "{}")


def weights() -> list[Member]:
    """Members of this group."""

    def file(header: Any, payload: bytes = b"", length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + payload

    def tensor(**change: Any) -> dict[str, Any]:
        return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}

    one = {"a": tensor()}
    rows = {
        "empty": b"", "seven bytes": bytes(7), "no header": bytes(8), "text": b"hello, these are no weights",
        "header of 2^63": file({}, length=2**63 - 1), "header of 2^64": file({}, length=2**64 - 1),
        "header larger than the file": file(one, bytes(8), length=9999),
        "header of bad utf-8": file(b'{"\xff\xfe":1}'), "header no json": file(b"{nope}"), "header a list": file([]),
        "header nested": file(b"[" * 500_000), "metadata of numbers": file({"__metadata__": {"a": 1}}),
        "overlapping": file({"a": tensor(), "b": tensor(data_offsets=[4, 12])}, bytes(12)),
        "a hole": file({"a": tensor(), "b": tensor(data_offsets=[12, 20])}, bytes(20)),
        "beyond the end": file(one, bytes(4)), "more than it says": file(one, bytes(99)),
        "unknown type": file({"a": tensor(dtype="F1024")}, bytes(8)),
        "type of a list": file({"a": tensor(dtype=[])}, bytes(8)),
        "shape overflows": file({"a": tensor(shape=[2**40, 2**40, 2**40])}, bytes(8)),
        "shape negative": file({"a": tensor(shape=[-2])}, bytes(8)),
        "shape of text": file({"a": tensor(shape="2")}, bytes(8)),
        "offsets backwards": file({"a": tensor(data_offsets=[8, 0])}, bytes(8)),
        "name of 5000 letters": file({"a" * 5000: tensor()}, bytes(8)),
        "name with a bell": file({"\a": tensor()}, bytes(8)),
        "key twice": file(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', bytes(8)),
        "no metadata": file(one, bytes(8)), "no tensors": file({"__metadata__": {}}),
        "scalar": file({"a": tensor(shape=[], data_offsets=[0, 4])}, bytes(4)),
        "pickle": b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x01s.", "zip": b"PK\x03\x04" + bytes(100),
    }  # fmt: skip
    group = "weights"
    return [
        *(Member(f"{name}.safetensors", group, WEIGHTS, written(data), _MODEL, fixed=True) for name,
            data in rows.items()),
        Member("header of 9 MB.safetensors", group, WEIGHTS, _write_long_header, _MODEL, fixed=True),
        Member("missing.safetensors", group, WEIGHTS, None, _MODEL),
        Member("pipe.safetensors", group, WEIGHTS, os.mkfifo, _MODEL),
        Member("zero.safetensors", group, WEIGHTS, lambda path: path.symlink_to("/dev/zero"), _MODEL),
        Member("folder.safetensors", group, WEIGHTS, lambda path: path.mkdir(), _MODEL),
        Member("one bit of the payload.safetensors", group, WEIGHTS, _tiny(lambda data: flipped(data, 1, "index", 3)),
            _MODEL),
        Member("cut.safetensors", group, WEIGHTS, _tiny(lambda data: data[:-1000]), _MODEL),
        Member("other names.safetensors", group, WEIGHTS, _tiny(lambda data: data.replace(b"backbone.",
            b"hackbone.")), _MODEL),
        Member("other scale.safetensors", group, WEIGHTS, _tiny(_of_other_scale), _MODEL),
        Member("not a number inside.safetensors", group, (0, 4), _tiny(_with_nan), _MODEL),
    ]  # fmt: skip


def _write_long_header(path: Path) -> None:
    """Zeros that take no room on the disk."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 9_000_000))
        file.truncate(9_000_008)


def _tiny(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(write_tiny_weights(path).read_bytes()))


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _joined(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def _of_other_scale(data: bytes) -> bytes:
    """The config says three decoder layers more than there are weights for."""
    header, payload = _parts(data)
    config = json.loads(header["__metadata__"]["config"])
    config["decoder"] |= {"layers": 5, "eval_layers": 5}
    header["__metadata__"]["config"] = json.dumps(config)
    return _joined(header, payload)


def _with_nan(data: bytes) -> bytes:
    """Every fourth number is none; the hash is right."""
    header, payload = _parts(data)
    numbers = np.frombuffer(payload, np.uint16).copy()
    numbers[::4] = 0x7E00
    header["__metadata__"]["sha256"] = hashlib.sha256(numbers.tobytes()).hexdigest()
    return _joined(header, numbers.tobytes())


def onnx() -> list[Member]:
    """Protocol buffers by hand, so that no package is needed: field and kind, length, bytes."""

    def field(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    def node(op: str, domain: str = "", attribute: bytes = b"") -> bytes:
        return field(
            1, field(1, b"images") + field(2, b"labels") + field(4, op.encode()) + field(7, domain.encode()) + attribute
        )

    def model(graph: bytes) -> bytes:
        return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")

    def number(index: int, value: int) -> bytes:
        return _varint(index << 3) + _varint(value)

    outside = field(5, number(1, 1) + number(2, 1) + field(8, b"w") + number(14, 1)
                    + field(13, field(1, b"location") + field(2, b"../../../etc/passwd")))  # fmt: skip
    huge = field(5, number(1, 2**62) + number(2, 1) + field(8, b"w") + field(9, bytes(8)))
    loop = b"\x0a\x00"
    for _ in range(100):
        loop = node("Loop", attribute=field(5, field(1, b"body") + field(6, loop)))
    rows = {
        "empty": b"", "text": b"hello", "zeros": bytes(1000), "no graph": b"\x08\x08",
        "weights outside": model(outside), "operator of others": model(node("Evil", "com.example")),
        "operator that is none": model(node("NoSuchOperator")), "huge constant": model(huge + node("Identity")),
        "loops in loops": model(loop), "field of 2^62": b"\x3a" + _varint(2**62) + b"abc",
        "cut": model(node("Identity"))[:-3],
    }  # fmt: skip
    group = "weights"
    xml = {
        "text": b"hello", "entities": b'<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><net>&c;</net>',
        "file entity": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><net name="&b;" version="11"></net>',
        "no layers": b'<?xml version="1.0"?><net name="x" version="11"><layers/><edges/></net>', "empty": b"",
    }  # fmt: skip
    return [
        *(Member(f"{name}.onnx", group, WEIGHTS, written(data), _MODEL, fixed=True) for name, data in rows.items()),
        *(Member(f"{name}.xml", group, WEIGHTS, written(data), _MODEL, fixed=True) for name, data in xml.items()),
        Member("pickle.pth", group, WEIGHTS, written(b"\x80\x02}q\x00."), _MODEL, fixed=True),
    ]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# Addresses.


def addresses() -> list[Member]:
    """Members of this group."""
    texts = [
        "file:///etc/passwd", "concat:/etc/passwd|/etc/hosts", "subfile:,,start,0,end,0,,:/etc/passwd", "pipe:0",
        "data:,x",
        "tcp://127.0.0.1:1", "udp://127.0.0.1:1", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "lavfi:testsrc",
        "async:x",
        "http://user:p%40ss:word@127.0.0.1:1/x?token=secret", "rtsp://user:pa@ss/word@127.0.0.1:1/x",
        "http://[::1]:1/x",
        "rtsp://[::1", "http://", "rtsp:///x", "http://127.0.0.1:1/" + "a" * 10_000, "http://127.0.0.1:99999/x",
        "http://127.0.0.1:1/\r\nHost: x", "javascript:alert(1)", "rtmp://127.0.0.1:1/x", "camera:../../etc/passwd",
        "camera:99", "screen:99", "screen:0,0,0,0,0", "test:99999999p1", "test:1x1p0", "test:?frames=1e9", "",
    ]  # fmt: skip
    words = ("detect", "{}", "--retries", "0")
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    sdp = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    files = {"playlist.m3u8": playlist, "list.ffconcat": b"ffconcat version 1.0\nfile good.mp4\n", "session.sdp": sdp,
             "playlist.mp4": playlist, "list.mp4": b"ffconcat version 1.0\nfile good.mp4\n"}  # fmt: skip
    return [
        *(Member(text, "addresses", (2, 3), None, words) for text in texts),
        *(Member(name, "addresses", make=written(data), fixed=True) for name, data in files.items()),
    ]
