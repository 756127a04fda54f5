"""One small, healthy file of each kind that the product reads; what the corpus breaks and the fuzzer flips bits in."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import ledetr_tiny
from ledetr.model.ledetr import build_model
from ledetr.weights import WeightsInfo, save_weights

FRAMES = 30


def picture(size_wh: tuple[int, int] = (96, 64), number: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: slopes with a bright square that moves with the number."""
    width, height = size_wh
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rgb = np.stack([x * 255 // max(1, width), y * 255 // max(1, height), (x + y) % 256], axis=-1).astype(np.uint8)
    side = max(1, min(size_wh) // 4)
    left = (3 * number) % max(1, width - side + 1)
    rgb[:side, left : left + side] = 255
    return rgb


def image_bytes(kind: str, array: np.ndarray | None = None, mode: str = "RGB", **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(picture() if array is None else array).convert(mode).save(file, kind, **options)
    return file.getvalue()


def animation(kind: str, frames: int = 5) -> bytes:
    """A GIF or WebP of several pictures."""
    first, *rest = (Image.fromarray(picture(number=number)) for number in range(frames))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest, duration=40, loop=0)
    return file.getvalue()


def plain_png(width: int, height: int, *, depth: int = 8, rows: bytes | None = None) -> bytes:
    """A PNG byte by byte, the same everywhere; without rows one that only claims its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 2, 0, 0, 0])
    stored = zlib.compressobj(0)
    body = stored.compress(rows or b"\0\0\0\0") + stored.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    size_wh: tuple[int, int] = (96, 64),
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] = tuple(range(FRAMES)),
    time_base: Fraction = Fraction(1, 25),
    rate: Fraction = Fraction(25),
    sound: bool = False,
    pictures: bool = True,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    colour: Mapping[str, int] | None = None,
) -> Path:
    """A video of the pictures above, one for each of pts."""
    with av.open(str(path), "w", options=dict(container_options or {})) as output:
        stream: Any = None
        if pictures:
            stream = output.add_stream(codec, rate=rate, options={"threads": "1", "g": "10", **(options or {})})
            stream.width, stream.height, stream.pix_fmt = *size_wh, pix_fmt
            stream.time_base = stream.codec_context.time_base = time_base
            for name, value in (colour or {}).items():
                setattr(stream.codec_context, name, value)
        audio: Any = output.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number, at in enumerate(pts if pictures else ()):
            frame = av.VideoFrame.from_ndarray(picture(size_wh, number), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = at, time_base
            output.mux(stream.encode(frame))
        if pictures:
            output.mux(stream.encode(None))
        if audio is not None:
            tone = (np.sin(np.arange(8192) / 8000 * 880 * np.pi) * 8000).astype(np.int16)
            for start in range(0, 8192, 1024):
                block = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "s16", "mono")
                block.sample_rate, block.pts = 8000, start
                output.mux(audio.encode(block))
            output.mux(audio.encode(None))
    return path


def write_tiny_weights(path: Path, **changes: Any) -> Path:
    """The smallest network, with weights that mean nothing."""
    config = ledetr_tiny()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config).eval()
    values: dict[str, Any] = {
        "name": config.name, "config": config, "class_names": COCO_NAMES, "category_ids": COCO_CATEGORY_IDS,
        "input_hw": config.input_hw, "score_threshold": 0.4, "ap": {"ap": 0.0, "ap50": 0.0, "data": "made up"},
        "trained_on": "nothing", "command": "none", "started_from": "random numbers", "licence": "Apache-2.0",
    }  # fmt: skip
    save_weights(path, model, WeightsInfo(**(values | changes)))
    return path


def coco_document(**changes: Any) -> dict[str, Any]:
    """A data set of two pictures and two boxes; changes replace its parts."""
    return {
        "images": [
            {"id": 1, "file_name": "one.png", "width": 96, "height": 64},
            {"id": 2, "file_name": "two.png", "width": 96, "height": 64},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [30, 10, 40, 30], "area": 1200, "iscrowd": 0},
        ],
        **changes,
    }


def write_json(path: Path, value: Any) -> Path:
    """As JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
