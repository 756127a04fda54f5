"""Whatever a caller calls a picture, as an upright RGB array."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ledetr.errors import SourceError

if TYPE_CHECKING:
    import torch

Colour = Literal["rgb", "bgr"]
MAX_PIXELS = 100_000_000


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
        return _upright_rgb(picture, "the picture")
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


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture file, upright; SourceError, one sentence, where it cannot be read."""
    if not path.exists():
        raise SourceError(f"picture {str(path)!r} does not exist")
    if not path.is_file():
        raise SourceError(f"{str(path)!r} is not a picture file")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from 179 on; our own limit acts before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _upright_rgb(image, f"picture {str(path)!r}")
    except UnidentifiedImageError as error:
        raise SourceError(f"{str(path)!r} is no picture that can be read; for video use ledetr.chain.stream") from error
    except Image.DecompressionBombError as error:
        raise SourceError(f"picture {str(path)!r} is larger than {MAX_PIXELS // 1_000_000} megapixels") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for damaged files
        raise SourceError(f"picture {str(path)!r} is damaged or cut short: {error}") from error


def _upright_rgb(image: Image.Image, what: str) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise SourceError(f"{what} is larger than {MAX_PIXELS // 1_000_000} megapixels")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        # Pillow cuts 16-bit greys at 255 instead of scaling them.
        grey = (np.asarray(upright).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(upright.convert("RGB"))


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
