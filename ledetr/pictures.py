"""Whatever a caller calls a picture, as an upright RGB array."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ledetr.errors import SourceError
from ledetr.paths import check_regular_file, printable

if TYPE_CHECKING:
    import torch

Colour = Literal["rgb", "bgr"]
MAX_PIXELS = 100_000_000
# Pillow finds the format by the first bytes; these are the ones that pictures of a detector come in. Others of its
# formats start programs or read other files.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")


def to_rgb(picture: object, *, colour: Colour = "rgb") -> np.ndarray:
    """(H, W, 3) uint8 RGB of an array, a torch tensor, a PIL image or a path.

    Array: (H, W, 3) uint8. Tensor: (3, H, W) or (H, W, 3) uint8, or (3, H, W) float in 0..1; a shape that could be
    both is read as (3, H, W). colour "bgr": the channel order of the array or tensor; files and PIL images know their
    own. Files and PIL images are turned upright by their EXIF tag. Raises ValueError for arrays of another form,
    SourceError for files that cannot be read.
    """
    if colour not in ("rgb", "bgr"):
        raise ValueError(f"colour must be 'rgb' or 'bgr', got {colour!r}")
    if isinstance(picture, str | Path):
        return read_picture(Path(picture))
    if isinstance(picture, Image.Image):
        _check_size(picture, "The picture")
        return _rgb(ImageOps.exif_transpose(picture))
    torch_module = sys.modules.get("torch")
    if torch_module is not None and isinstance(picture, torch_module.Tensor):
        array = _array_of_tensor(picture)
    elif isinstance(picture, np.ndarray):
        array = picture
    else:
        raise ValueError(f"a picture is a path, a PIL image, an array or a tensor, got {type(picture).__name__}")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"an array must be a non-empty (H, W, 3) uint8 picture, got {array.shape} {array.dtype}")
    return np.ascontiguousarray(array[..., ::-1] if colour == "bgr" else array)


def read_picture(path: Path, *, upright: bool = True) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture file, writable, turned upright as its EXIF says, or as stored.

    The size is checked from the header, before anything is decoded. 16 bits become 8; of an animation the first frame;
    transparency is left out. Raises SourceError.
    """
    check_regular_file(path)
    return decode_picture(path, path.name, upright=upright)


def decode_picture(source: Path | IO[bytes], name: str, *, upright: bool = True) -> np.ndarray:
    """As read_picture, of a file or of an open stream; the name is what messages call it."""
    name = printable(name)
    try:
        with warnings.catch_warnings():
            # Of bombs, in whose place our own limit stands, and of damage, which either raises or is no matter.
            warnings.simplefilter("ignore")
            with Image.open(source, formats=_FORMATS) as image:
                _check_size(image, f"Cannot open {name!r}: it")
                return _rgb(ImageOps.exif_transpose(image) if upright else image)
    except UnidentifiedImageError:
        raise SourceError(
            f"Cannot open {name!r}: it is not a picture that can be read, whatever its name says."
        ) from None
    except Image.DecompressionBombError:
        raise SourceError(f"Cannot open {name!r}: it claims more pixels than are safe to decode.") from None
    except MemoryError:
        raise SourceError(f"Cannot open {name!r}: there is too little memory for a picture of this size.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged files
        raise SourceError(f"Cannot open {name!r}: the picture is cut or damaged ({error}).") from None


def _check_size(image: Image.Image, what: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = f"more than the limit of {MAX_PIXELS / 1e6:g} million"
        raise SourceError(f"{what} has {width} x {height} pixels, {limit}.")


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow cuts 16-bit greys at 255 instead of scaling them.
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _array_of_tensor(tensor: torch.Tensor) -> np.ndarray:
    if tensor.ndim != 3:
        raise ValueError(
            f"a tensor must be one picture of three axes, got {tuple(tensor.shape)}; pass a list for several"
        )
    array: np.ndarray = tensor.detach().cpu().numpy() if not tensor.dtype.is_floating_point else _bytes_of_unit(tensor)
    if array.shape[0] == 3:
        channels_last: np.ndarray = np.moveaxis(array, 0, 2)
        return channels_last
    if tensor.dtype.is_floating_point:
        raise ValueError(f"a float tensor must be (3, H, W), got {tuple(tensor.shape)}")
    return array


def _bytes_of_unit(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    # Resizing may overshoot by a rounding error; a picture in 0..255 is meant otherwise.
    if not np.isfinite(array).all() or array.min(initial=0) < -0.01 or array.max(initial=0) > 1.01:
        raise ValueError("a float tensor must have values in 0..1; divide by 255 or pass uint8")
    rounded: np.ndarray = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    return rounded
