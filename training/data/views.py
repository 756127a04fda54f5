"""Views: fixed-size pictures drawn from the data set by a recipe that depends on nothing but its number.

A view is a whole picture, a crop, or four crops side by side. The recipe of view n is a pure function of (seed, n), so
a cache can be rebuilt, extended and shared between processes without keeping any state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ledetr.pictures import read_picture
from training.data.coco import Picture

MIN_VISIBLE_SHARE = 0.4
MIN_SIDE_PX = 2.0


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of one picture and where it goes. crop and place: left, top, right, bottom in 0..1 of picture and view."""

    picture: int
    crop: tuple[float, float, float, float]
    place: tuple[float, float, float, float]
    flip: bool


@dataclass(frozen=True, slots=True)
class View:
    """Tiles that cover the view, and one colour change: gain, offset (in 0..255), saturation."""

    tiles: tuple[Tile, ...]
    colour: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnView:
    """pixels: (S, S, 3) uint8 RGB. boxes_cxcywh: (N, 4) float32 in 0..1; crowd boxes are marked, not dropped."""

    pixels: np.ndarray
    boxes_cxcywh: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    labelled: bool


def view_recipe(pictures: Sequence[Picture], number: int, *, seed: int = 0) -> View:
    """Recipe of view `number`: first every picture whole (each second one mirrored), then crops and mosaics."""
    rng = np.random.default_rng((seed, number))
    whole = (0.0, 0.0, 1.0, 1.0)
    if number < len(pictures):
        return View((Tile(number, whole, whole, bool(rng.random() < 0.5)),), (1.0, 0.0, 1.0))
    colour = (float(rng.uniform(0.8, 1.2)), float(rng.uniform(-16, 16)), float(rng.uniform(0.7, 1.3)))
    if rng.random() < 0.6:
        tile = Tile(int(rng.integers(len(pictures))), _crop(rng, 0.45, 1.0), whole, bool(rng.random() < 0.5))
        return View((tile,), colour)
    return View(_mosaic(pictures, rng), colour)


def _crop(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float, float]:
    """A window whose sides are low..high of the picture's, nearly keeping its shape."""
    side = rng.uniform(low, high)
    width, height = (float(np.clip(side * rng.uniform(0.85, 1.18), low, 1.0)) for _ in range(2))
    left, top = float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height))
    return (left, top, left + width, top + height)


def _mosaic(pictures: Sequence[Picture], rng: np.random.Generator) -> tuple[Tile, ...]:
    """Four crops around a common corner; all labelled or all not, so that the boxes of a view are complete or none."""
    x, y = (float(v) for v in rng.uniform(0.35, 0.65, 2))
    first = int(rng.integers(len(pictures)))
    same_kind = [i for i, p in enumerate(pictures) if p.labelled == pictures[first].labelled]
    chosen = [first, *(int(i) for i in rng.choice(same_kind, 3))]
    places = ((0.0, 0.0, x, y), (x, 0.0, 1.0, y), (0.0, y, x, 1.0), (x, y, 1.0, 1.0))
    return tuple(
        Tile(picture, _crop(rng, 0.6, 1.0), place, bool(rng.random() < 0.5))
        for picture, place in zip(chosen, places, strict=True)
    )


def draw_view(pictures: Sequence[Picture], view: View, size: int) -> DrawnView:
    """The view's pixels and the boxes that stay visible in it."""
    pixels = np.zeros((size, size, 3), np.uint8)
    boxes, labels, crowd = [], [], []
    for tile in view.tiles:
        picture = pictures[tile.picture]
        rgb = read_picture(picture.path)
        _paste(pixels, rgb, tile)
        moved, kept = _move_boxes(picture.boxes_xyxy, rgb.shape[1], rgb.shape[0], tile, size)
        boxes.append(moved)
        labels.append(picture.labels[kept])
        crowd.append(picture.crowd[kept])
    return DrawnView(
        pixels=_recolour(pixels, view.colour),
        boxes_cxcywh=np.concatenate(boxes),
        labels=np.concatenate(labels),
        crowd=np.concatenate(crowd),
        labelled=all(pictures[t.picture].labelled for t in view.tiles),
    )


def _pixel_edges(part: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = part
    x0, y0 = round(left * width), round(top * height)
    return x0, y0, max(round(right * width), x0 + 1), max(round(bottom * height), y0 + 1)


def _paste(pixels: np.ndarray, rgb: np.ndarray, tile: Tile) -> None:
    x0, y0, x1, y1 = _pixel_edges(tile.crop, rgb.shape[1], rgb.shape[0])
    left, top, right, bottom = _pixel_edges(tile.place, pixels.shape[1], pixels.shape[0])
    part = rgb[y0:y1, x0:x1]
    # Plain bilinear is what the detector sees in use; below half size it would skip pixels.
    shrinks = (right - left) * 2 < x1 - x0 or (bottom - top) * 2 < y1 - y0
    resized = cv2.resize(
        part, (right - left, bottom - top), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    pixels[top:bottom, left:right] = resized[:, ::-1] if tile.flip else resized


def _move_boxes(
    boxes_xyxy: np.ndarray, width: int, height: int, tile: Tile, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """cxcywh in 0..1 of the view, and which boxes are still there."""
    x0, y0, x1, y1 = _pixel_edges(tile.crop, width, height)
    left, top, right, bottom = _pixel_edges(tile.place, size, size)
    scale = np.array([(right - left) / (x1 - x0), (bottom - top) / (y1 - y0)], np.float32)
    corners = (boxes_xyxy.reshape(-1, 2, 2) - np.array([x0, y0], np.float32)) * scale
    limit = np.array([right - left, bottom - top], np.float32)
    clipped = np.clip(corners, 0, limit)
    if tile.flip:
        clipped = np.stack([limit[0] - clipped[:, ::-1, 0], clipped[:, :, 1]], -1)
    sides = clipped[:, 1] - clipped[:, 0]
    area = np.maximum((corners[:, 1] - corners[:, 0]).prod(-1), 1e-6)
    kept = (sides.prod(-1) / area >= MIN_VISIBLE_SHARE) & (sides >= MIN_SIDE_PX).all(-1)
    clipped = (clipped[kept] + np.array([left, top], np.float32)) / size
    cxcywh = np.concatenate([clipped.mean(1), clipped[:, 1] - clipped[:, 0]], -1).astype(np.float32)
    return cxcywh, kept


def _recolour(pixels: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    if colour == (1.0, 0.0, 1.0):
        return pixels
    gain, offset, saturation = colour
    wide = pixels.astype(np.float32)
    grey = wide @ np.array([0.299, 0.587, 0.114], np.float32)
    wide = grey[..., None] + (wide - grey[..., None]) * saturation
    changed: np.ndarray = np.clip(wide * gain + offset, 0, 255).astype(np.uint8)
    return changed
