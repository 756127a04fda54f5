"""Every kind of picture gives the same RGB bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ledetr.errors import SourceError
from ledetr.pictures import to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        RGB,
        np.asfortranarray(RGB),
        Image.fromarray(RGB),
        Image.fromarray(RGB).convert("RGBA"),
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(RGB).permute(2, 0, 1).float() / 255,
        (torch.from_numpy(RGB).permute(2, 0, 1).double() / 255).requires_grad_(),
    ],
    ids=["array", "fortran", "pil", "rgba", "hwc", "chw", "float", "double"],
)
def test_same_bytes(picture: object) -> None:
    rgb = to_rgb(picture)
    assert np.array_equal(rgb, RGB)
    assert rgb.flags.c_contiguous


def test_bgr_turns_arrays_and_tensors_only() -> None:
    assert np.array_equal(to_rgb(RGB[..., ::-1], colour="bgr"), RGB)
    assert np.array_equal(to_rgb(torch.from_numpy(RGB).permute(2, 0, 1).flip(0), colour="bgr"), RGB)
    assert np.array_equal(to_rgb(Image.fromarray(RGB), colour="bgr"), RGB)


def test_a_square_of_three_is_channels_first() -> None:
    tensor = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    assert to_rgb(tensor)[0, 0].tolist() == [0, 9, 18]


# What must be done to the stored picture to see it upright, per value of the EXIF tag.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turn(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(RGB)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    upright = UPRIGHT[orientation](RGB)
    assert np.array_equal(to_rgb(tmp_path / "turned.png"), upright)
    with Image.open(tmp_path / "turned.png") as stored:
        assert np.array_equal(to_rgb(stored), upright)


def test_other_modes(tmp_path: Path) -> None:
    grey = np.array([[0, 255, 128]], dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert to_rgb(tmp_path / "grey.png").tolist() == [[[0] * 3, [255] * 3, [128] * 3]]
    Image.fromarray(np.array([[0, 65535, 32768]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert to_rgb(tmp_path / "deep.png").tolist() == [[[0] * 3, [255] * 3, [128] * 3]]
    Image.fromarray(RGB).quantize(256).save(tmp_path / "palette.png")
    assert to_rgb(str(tmp_path / "palette.png")).shape == RGB.shape


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (RGB[..., 0], "must be a non-empty"),
        (RGB.astype(np.float32), "float32"),
        (RGB[:0], "non-empty"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4), "pass a list for several"),
        (torch.full((3, 4, 4), 200.0), "values in 0..1"),
        (torch.full((3, 4, 4), torch.nan), "values in 0..1"),
        (torch.zeros(4, 4, 3), r"must be \(3, H, W\)"),
        (torch.zeros((3, 4, 4), dtype=torch.int64), "int64"),
        (5, "got int"),
        (None, "got NoneType"),
    ],
)
def test_wrong_calls(picture: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_rgb(picture)
    with pytest.raises(ValueError, match="colour must be"):
        to_rgb(RGB, colour="grb")  # type: ignore[arg-type]


def _png_that_claims(width: int, height: int) -> bytes:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = zlib.crc32(b"IHDR" + header)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", crc)
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 10**6) + b"IDAT"


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(SourceError, match=r"'a\.jpg': there is no such file"):
        to_rgb(path)
    for content, words in (
        (b"", "is empty"),
        (b"<html>not found</html>", "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),  # Pillow would start Ghostscript
        (_png_that_claims(65_500, 65_500), "more pixels than are safe"),
        (_png_that_claims(11_000, 11_000), "11000 x 11000 pixels, more than the limit of 100 million"),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=words):
            to_rgb(path)
    with pytest.raises(SourceError, match="is a folder"):
        to_rgb(tmp_path)


def test_cut_short(tmp_path: Path) -> None:
    Image.fromarray(np.tile(RGB, (40, 40, 1))).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="cut or damaged"):
        to_rgb(tmp_path / "cut.jpg")
