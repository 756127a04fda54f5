"""Detections to one list of marks, and the marks drawn on a picture.

The recorder draws the list with `draw_marks`, the window paints the same list with its own painter: same rectangles,
same text, same places. All sizes are pixels of the upright source picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ledetr.detections import Detections
from ledetr.errors import LeDetrError

Rgb: TypeAlias = tuple[int, int, int]

# Okabe and Ito's colours that people with any common colour blindness can tell apart, without black; person gets the
# first, car the third, so that what is often together differs. https://jfly.uni-koeln.de/color/
PALETTE: tuple[Rgb, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (240, 228, 66),  # yellow
    (204, 121, 167),  # reddish purple
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
_DARK: Rgb = (16, 18, 22)
_WHITE: Rgb = (255, 255, 255)
_NOTICE: Rgb = (176, 0, 32)
_SMALLEST_FONT_PX = 7

# The notice for a model that has learnt nothing.
RANDOM_WEIGHTS = "random weights"


@dataclass(frozen=True, slots=True)
class BoxMark:
    """A rectangle: xyxy is the middle of its line. A thin dark rim outside keeps it visible on any ground."""

    xyxy: tuple[float, float, float, float]
    colour_rgb: Rgb
    line_px: int


@dataclass(frozen=True, slots=True)
class LabelMark:
    """Text on a filled tile with round corners, wholly inside the picture.

    tile_xyxy: the tile. baseline_xy: where the first letter stands. font_px: the size of an em.
    """

    text: str
    tile_xyxy: tuple[int, int, int, int]
    baseline_xy: tuple[int, int]
    font_px: int
    colour_rgb: Rgb
    text_rgb: Rgb

    @property
    def radius_px(self) -> int:
        """Of the tile's corners."""
        return max(2, self.font_px // 5)


@dataclass(frozen=True, slots=True)
class PathMark:
    """A line through these points, back to the first where it is closed: the trail of a thing, the rim of a zone."""

    points_xy: tuple[tuple[float, float], ...]
    colour_rgb: Rgb
    line_px: int
    closed: bool = False


Mark: TypeAlias = BoxMark | LabelMark | PathMark


def track_colour(track: int) -> Rgb:
    """The colour of a track; those that follow each other differ."""
    return PALETTE[track % len(PALETTE)]


def class_colour(class_id: int) -> Rgb:
    """The colour of a class: the same for every picture, model and run."""
    return PALETTE[class_id % len(PALETTE)]


def line_px(size_hw: tuple[int, int]) -> int:
    """Line width for a picture of this size: 2 at 480 lines, 3 at 720, 5 at 1080, 9 at 2160."""
    return max(2, round(0.0021 * float(np.hypot(*size_hw))))


def font_px(size_hw: tuple[int, int]) -> int:
    """Letter size for a picture of this size: 13 at 480 lines, 17 at 720, 25 at 1080, 51 at 2160."""
    return max(13, round(0.0115 * float(np.hypot(*size_hw))))


@dataclass(frozen=True, slots=True)
class Pen:
    """How wide the lines and how large the letters are, in pixels of the picture that is drawn on."""

    line_px: int
    font_px: int

    @classmethod
    def of(cls, size_hw: tuple[int, int], *, weight: float = 1.0) -> Pen:
        """Right for a picture of this size. weight: of the lines, 1.0 as usual."""
        return cls(max(1, round(weight * line_px(size_hw))), font_px(size_hw))


def marks_of(
    detections: Detections,
    *,
    conf: float,
    class_ids: Sequence[int] | None = None,
    labels: bool = True,
    scores: bool = True,
    ids: bool = True,
    by_track: bool = False,
    notice: str | None = None,
    size_hw: tuple[int, int],
    pen: Pen | None = None,
) -> list[Mark]:
    """What to draw for one picture of size_hw, in drawing order: boxes first, then labels, the best score last.

    conf, class_ids: which detections are shown. labels, scores: whether a tile with the name, and in it the score.
    ids: whether a tracked box has its number in the tile, before the name. by_track: each track has its colour, instead
    of each class. notice: a warning for the corner, drawn over all, such as RANDOM_WEIGHTS. pen: by default right for
    size_hw; a picture that is shown larger than its room needs that of the room.
    """
    pen = pen or Pen.of(size_hw)
    shown = detections.filter(conf=conf, class_ids=class_ids)
    boxes: list[Mark] = []
    tiles: list[LabelMark] = []
    for row, (box_xyxy, score, class_id) in enumerate(shown):
        track = shown.track_of(row)
        colour = class_colour(class_id) if track is None or not by_track else track_colour(track)
        box = _box_mark(box_xyxy, colour, size_hw, pen)
        boxes.append(box)
        words = [f"#{track}"] if ids and track is not None else []
        words += [shown.class_name(class_id), *([f"{score:.2f}"] if scores else [])] if labels else []
        if words:
            text = " ".join(words)
            tile = _box_label(text, box, size_hw, tiles, pen)
            tiles += [] if tile is None else [tile]
    warning = None if notice is None else notice_mark(notice, size_hw)
    return boxes[::-1] + tiles[::-1] + ([] if warning is None else [warning])


@dataclass(frozen=True, slots=True)
class Style:
    """What a run draws: conf and class_ids choose the detections, the others what is drawn of them, see marks_of."""

    conf: float
    class_ids: Sequence[int] | None = None
    labels: bool = True
    scores: bool = True
    notice: str | None = None
    by_track: bool = False

    def shown(self, detections: Detections) -> Detections:
        """The detections that are drawn and listed."""
        return detections.filter(conf=self.conf, class_ids=self.class_ids)

    def marks(self, shown: Detections, size_hw: tuple[int, int]) -> list[Mark]:
        """The marks of all of these, for a picture of size_hw."""
        return marks_of(
            shown, conf=0.0, labels=self.labels, scores=self.scores, by_track=self.by_track, notice=self.notice,
            size_hw=size_hw,
        )  # fmt: skip


def tile_at(
    text: str, at_xy: tuple[float, float], colour_rgb: Rgb, size_hw: tuple[int, int], pen: Pen | None = None
) -> LabelMark | None:
    """Words on a tile with its upper left corner here, moved into the picture; None where it is too small for any."""
    place = round(at_xy[0]), round(at_xy[1])
    return _label(text, place, colour_rgb, _text_on(colour_rgb), size_hw, (pen or Pen.of(size_hw)).font_px)


def notice_mark(text: str, size_hw: tuple[int, int]) -> LabelMark | None:
    """A warning in the upper left corner, such as "random weights"; None where the picture is too small for any."""
    gap = 2 * line_px(size_hw)
    return _label(text, (gap, gap), _NOTICE, _WHITE, size_hw, font_px(size_hw))


def _box_mark(box_xyxy: np.ndarray, colour_rgb: Rgb, size_hw: tuple[int, int], pen: Pen) -> BoxMark:
    """The line moved inwards where it would be cut by the picture's edge."""
    height, width = size_hw
    half = pen.line_px / 2
    low = np.clip(box_xyxy[:2], half, [max(half, width - half), max(half, height - half)])
    high = np.clip(box_xyxy[2:], half, [max(half, width - half), max(half, height - half)])
    return BoxMark((float(low[0]), float(low[1]), float(high[0]), float(high[1])), colour_rgb, pen.line_px)


def _box_label(
    text: str, box: BoxMark, size_hw: tuple[int, int], placed: Sequence[LabelMark], pen: Pen
) -> LabelMark | None:
    """The label of a box: on its upper edge, inside it where there is no room above, or hanging from its lower edge
    where the label of a better box is in the way."""
    half = box.line_px / 2
    at_xy = round(box.xyxy[0] - half), 0
    tile = _label(text, at_xy, box.colour_rgb, _text_on(box.colour_rgb), size_hw, pen.font_px)
    if tile is None:
        return None
    tile_height = tile.tile_xyxy[3]
    lowest = size_hw[0] - tile_height
    above, inside = round(box.xyxy[1] + half) - tile_height, round(box.xyxy[1] - half)
    upper = _moved_down(tile, max(0, min(above if above >= 0 else inside, lowest)))
    lower = _moved_down(tile, max(0, min(round(box.xyxy[3] - half), lowest)))
    return next((t for t in (upper, lower) if not any(_overlap(t, other) for other in placed)), upper)


def _overlap(a: LabelMark, b: LabelMark) -> bool:
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.tile_xyxy, b.tile_xyxy
    return ax0 < bx1 and bx0 < ax1 and ay0 < by1 and by0 < ay1


def _label(
    text: str, at_xy: tuple[int, int], colour_rgb: Rgb, text_rgb: Rgb, size_hw: tuple[int, int], size_px: int
) -> LabelMark | None:
    """A tile at a place, moved, and made smaller, so that all of it lies in the picture; None if it can not."""
    height, width = size_hw
    while size_px >= _SMALLEST_FONT_PX:
        tile_width, tile_height, inset, ascent = _tile_size(text, size_px)
        if tile_width <= width and tile_height <= height:
            left = max(0, min(at_xy[0], width - tile_width))
            top = max(0, min(at_xy[1], height - tile_height))
            tile = (left, top, left + tile_width, top + tile_height)
            return LabelMark(text, tile, (left + inset, top + ascent), size_px, colour_rgb, text_rgb)
        size_px -= 1
    return None


def _moved_down(mark: LabelMark, by: int) -> LabelMark:
    x0, y0, x1, y1 = mark.tile_xyxy
    baseline = (mark.baseline_xy[0], mark.baseline_xy[1] + by)
    return LabelMark(mark.text, (x0, y0 + by, x1, y1 + by), baseline, mark.font_px, mark.colour_rgb, mark.text_rgb)


@lru_cache(maxsize=4096)
def _tile_size(text: str, size_px: int) -> tuple[int, int, int, int]:
    """Width and height of a tile, where the text begins in it, and its baseline from the top.

    The height comes from the font, not from the letters, so that tiles in a row are equally high.
    """
    inset, rim = max(2, round(0.36 * size_px)), max(1, round(0.18 * size_px))
    cap, descent = round(0.74 * size_px), round(0.22 * size_px)
    text_width = round(_font(size_px).getlength(text))
    return text_width + 2 * inset, cap + descent + 2 * rim, inset, rim + cap


def _text_on(colour_rgb: Rgb) -> Rgb:
    """Dark or white, whichever has more contrast on the colour (relative luminance of WCAG 2)."""
    linear = (np.array(colour_rgb) / 255) ** 2.2
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return _DARK if (luminance + 0.05) / 0.055 > 1.05 / (luminance + 0.05) else _WHITE


def draw_marks(rgb: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Draw the marks in order on an (H, W, 3) uint8 picture: in place where it is writable, else on a copy.

    What comes back is the array with the marks.
    """
    rgb = rgb if rgb.flags.writeable else rgb.copy()
    for mark in marks:
        if isinstance(mark, BoxMark):
            _draw_box(rgb, mark)
        elif isinstance(mark, PathMark):
            _draw_path(rgb, mark)
        else:
            _draw_label(rgb, mark)
    return rgb


_SHIFT = 4  # OpenCV draws at sixteenths of a pixel


def _draw_box(rgb: np.ndarray, mark: BoxMark) -> None:
    # OpenCV counts from the middle of the first pixel, boxes from its edge.
    corners = [round((value - 0.5) * (1 << _SHIFT)) for value in mark.xyxy]
    low, high = (corners[0], corners[1]), (corners[2], corners[3])
    rim_px = 2 * max(1, round(mark.line_px / 4))
    cv2.rectangle(rgb, low, high, _DARK, mark.line_px + rim_px, cv2.LINE_AA, _SHIFT)
    cv2.rectangle(rgb, low, high, mark.colour_rgb, mark.line_px, cv2.LINE_AA, _SHIFT)


def _draw_path(rgb: np.ndarray, mark: PathMark) -> None:
    points = np.rint((np.asarray(mark.points_xy, np.float64).reshape(-1, 2) - 0.5) * (1 << _SHIFT)).astype(np.int32)
    rim_px = 2 * max(1, round(mark.line_px / 4))
    for colour, width_px in ((_DARK, mark.line_px + rim_px), (mark.colour_rgb, mark.line_px)):
        cv2.polylines(rgb, [points], mark.closed, colour, width_px, cv2.LINE_AA, _SHIFT)


def _draw_label(rgb: np.ndarray, mark: LabelMark) -> None:
    x0, y0, x1, y1 = mark.tile_xyxy
    height, width = rgb.shape[:2]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise ValueError(f"the label {mark.text!r} at {mark.tile_xyxy} does not lie in a picture of {width}x{height}")
    inset = (mark.baseline_xy[0] - x0, mark.baseline_xy[1] - y0)
    tile, alpha = _tile(mark.text, (x1 - x0, y1 - y0), inset, mark.font_px, mark.colour_rgb, mark.text_rgb)
    ground = rgb[y0:y1, x0:x1]
    ground[:] = tile + (ground * alpha + 127) // 255


@lru_cache(maxsize=1024)
def _tile(
    text: str, size_wh: tuple[int, int], baseline_xy: tuple[int, int], size_px: int, fill: Rgb, text_rgb: Rgb
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) uint16 tile, already weighted, and (h, w, 1) uint16 weight 0..255 of what is under it.

    Kept, because the same few words and scores come back frame after frame.
    """
    radius = max(2, size_px // 5)
    scale = 4  # corners are drawn larger and shrunk, which smooths them
    corners = Image.new("L", (size_wh[0] * scale, size_wh[1] * scale), 0)
    box = (0, 0, size_wh[0] * scale - 1, size_wh[1] * scale - 1)
    ImageDraw.Draw(corners).rounded_rectangle(box, radius * scale, fill=255)
    opacity = np.asarray(corners.resize(size_wh, Image.Resampling.BOX), np.uint16)[..., None]
    tile = Image.new("RGB", size_wh, fill)
    ImageDraw.Draw(tile).text(baseline_xy, text, font=_font(size_px), fill=text_rgb, anchor="ls")
    return (np.asarray(tile, np.uint16) * opacity + 127) // 255, 255 - opacity


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file()), size_px)


@cache
def font_file() -> Path:
    """The bundled font, beside the package in a checkout and inside it in an installed one."""
    package = Path(__file__).resolve().parents[1]
    for assets in (package / "assets", package.parent / "assets"):
        path = assets / "fonts" / "DejaVuSansCondensed-Bold.ttf"
        if path.is_file():
            return path
    raise LeDetrError(
        f"The font DejaVuSansCondensed-Bold.ttf is missing under {package / 'assets'}; install ledetr again."
    )
