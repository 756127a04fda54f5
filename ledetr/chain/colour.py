"""Decoded pictures to upright RGB and back, with the colours and the turn that the file asks for.

Matrix and range are always said to the converter, never guessed by it, and the way back uses the same pair: a picture
that goes through RGB without being drawn on comes out as it was. Codes are those of ITU-T H.273, as in `Colour`.
"""

import struct
import threading
from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ledetr.chain.tone import HLG, PQ, to_standard_range
from ledetr.frame import Colour

BT709, BT601 = 1, 6
_UNTAGGED = 2
_LIMITED, _FULL = 1, 2

# H.273 matrix code to swscale's coefficient table. BT.2020 constant luminance (10) is read with the table of 9, the
# nearest that swscale has; YCgCo, ICtCp and reserved codes are treated as untagged.
_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}

# Without the two chroma flags swscale takes a fast path that darkens luma by about one level a trip (measured on a
# real clip: mean -3.3 levels after three trips; 0.0 with them).
_EXACT = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

_local = threading.local()


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: first mirrored left to right if so said, then turned clockwise.

    quarter_turns: 0 to 3, each 90 degrees clockwise.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def rotation_deg(self) -> int:
        """Clockwise degrees: 0, 90, 180 or 270."""
        return self.quarter_turns * 90

    def upright_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the turn."""
        return (height, width) if self.quarter_turns % 2 else (width, height)

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) stored to (H', W', 3) upright, C-contiguous; the same array where nothing is to be done."""
        if self.mirrored:
            rgb = cv2.flip(rgb, 1)
        if self.quarter_turns:
            rgb = cv2.rotate(rgb, _CV_TURNS[self.quarter_turns])
        upright: np.ndarray = np.ascontiguousarray(rgb)
        return upright


_CV_TURNS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}


def orientation_of_matrix(matrix: tuple[int, ...]) -> Orientation:
    """Orientation of a display matrix of nine integers, row by row, as MP4 stores it; the nearest of the eight.

    Only the upper left 2 x 2 counts: a stored point (x, y), y down, is shown at (a*x + c*y, b*x + d*y).
    """
    a, b, _, c, d, *_ = matrix
    stored = np.array([[a, b], [c, d]], dtype=np.float64)
    if not stored.any():
        return Orientation()
    return max(_ORIENTATIONS, key=lambda o: float((_point_map(o) * stored).sum()))


def _point_map(orientation: Orientation) -> np.ndarray:
    """(2, 2): what the orientation does to a row vector (x, y), y down."""
    mirror = np.diag([-1.0 if orientation.mirrored else 1.0, 1.0])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    product: np.ndarray = mirror @ np.linalg.matrix_power(quarter, orientation.quarter_turns)
    return product


_ORIENTATIONS = tuple(Orientation(turns, mirrored) for mirrored in (False, True) for turns in range(4))


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Orientation from the frame's display matrix; upright where it has none."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None or len(bytes(side_data)) < 36:
        return Orientation()
    return orientation_of_matrix(struct.unpack("=9i", bytes(side_data)[:36]))


def colour_of(tagged: Any) -> Colour:
    """Colour tags of a decoded av.VideoFrame, or of a video stream's codec context; untagged fields are None."""
    full_range = {_LIMITED: False, _FULL: True}.get(int(tagged.color_range))
    return Colour(
        matrix=_code(tagged.colorspace),
        full_range=full_range,
        primaries=_code(tagged.color_primaries),
        transfer=_code(tagged.color_trc),
    )


def _code(value: int) -> int | None:
    return None if int(value) == _UNTAGGED else int(value)


def resolved(colour: Colour, height: int) -> Colour:
    """The same colour with matrix and range filled in: BT.709 from 720 lines up, else BT.601; limited unless flagged.

    height: lines of the stored picture, before it is turned.
    """
    matrix = colour.matrix if colour.matrix in _SWS_MATRIX else (BT709 if height >= 720 else BT601)
    return replace(colour, matrix=matrix, full_range=bool(colour.full_range))


def is_hdr(colour: Colour) -> bool:
    """Whether the transfer curve is one of the two of high dynamic range."""
    return colour.transfer in (PQ, HLG)


def upright_rgb(frame: av.VideoFrame, orientation: Orientation | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, C-contiguous and writable, of a decoded frame.

    orientation: from the frame's own display matrix where not given. More than 8 bits become 8, and high dynamic range
    becomes standard range in BT.709.
    """
    colour = resolved(colour_of(frame), frame.height)
    converted = _reformatter().reformat(
        frame,
        format="rgb24",
        src_colorspace=_SWS_MATRIX[colour.matrix or BT709],
        src_color_range=_FULL if colour.full_range else _LIMITED,
        dst_color_range=_FULL,
        interpolation=_EXACT,
        threads=1,
    )
    rgb = converted.to_ndarray()
    if colour.transfer in (PQ, HLG):
        rgb = to_standard_range(rgb, colour.transfer, colour.primaries)
    return (orientation_of(frame) if orientation is None else orientation).apply(rgb)


def rgb_to_video_frame(rgb: np.ndarray, colour: Colour, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """(H, W, 3) uint8 RGB to a frame for an encoder, in the matrix and range of colour, and tagged with colour.

    What colour leaves open is decided as for reading, from the height of this picture, and stays untagged. The frame
    has no pts yet.
    """
    known = resolved(colour, rgb.shape[0])
    frame = _reformatter().reformat(
        av.VideoFrame.from_ndarray(rgb, "rgb24"),
        format=pix_fmt,
        src_color_range=_FULL,
        dst_colorspace=_SWS_MATRIX[known.matrix or BT709],
        dst_color_range=_FULL if known.full_range else _LIMITED,
        interpolation=_EXACT,
        threads=1,
    )
    _tag(frame, colour)
    return frame


def tag_encoder(encoder: Any, colour: Colour) -> None:
    """Write the tags into the codec context of an output stream, before its first frame."""
    _tag(encoder, colour)


def _tag(target: Any, colour: Colour) -> None:
    target.colorspace = _UNTAGGED if colour.matrix is None else colour.matrix
    target.color_range = 0 if colour.full_range is None else (_FULL if colour.full_range else _LIMITED)
    target.color_primaries = _UNTAGGED if colour.primaries is None else colour.primaries
    target.color_trc = _UNTAGGED if colour.transfer is None else colour.transfer


def output_colour(source: Colour, stored_height: int, written_height: int) -> Colour:
    """Tags for 8-bit pictures of standard range that were read from a source with upright_rgb and are written as YUV.

    They are the source's own, except: a matrix that YUV cannot have (RGB, or one we do not read) is replaced by the one
    used; where source and output would be guessed differently, because the turn changed the height, the guess is
    written down; what was of high dynamic range is BT.709 now.
    """
    if is_hdr(source):
        return Colour(matrix=BT709, full_range=False, primaries=BT709, transfer=BT709)
    used = resolved(source, stored_height)
    guess_moves = source.matrix is None and used.matrix != resolved(Colour(), written_height).matrix
    unwritable = source.matrix is not None and source.matrix != used.matrix
    return replace(source, matrix=used.matrix if guess_moves or unwritable else source.matrix)


def _reformatter() -> VideoReformatter:
    """One converter a thread, kept, because it remembers its tables."""
    if not hasattr(_local, "reformatter"):
        _local.reformatter = VideoReformatter()
    reformatter: VideoReformatter = _local.reformatter
    return reformatter
