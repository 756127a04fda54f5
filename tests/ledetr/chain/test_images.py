import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ledetr.chain.images import list_images, natural_key
from ledetr.chain.sources import open_source, parse_source
from ledetr.errors import SourceError
from ledetr.pictures import read_picture, to_rgb

# Rows and columns that are all different, so that a turn or a mirror shows.
PICTURE = np.zeros((6, 9, 3), np.uint8)
PICTURE[..., 0] = np.arange(6)[:, None] * 40
PICTURE[..., 1] = np.arange(9)[None] * 25
PICTURE[..., 2] = 100


def save(path: Path, rgb: np.ndarray = PICTURE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)
    return path


def read_all(source) -> list:
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_pictures_come_as_they_are(tmp_path, ending) -> None:
    options = {"lossless": True} if ending == "webp" else {}
    source = open_source(parse_source(save(tmp_path / f"a.{ending}", **options)))
    (frame,) = read_all(source)
    assert np.array_equal(frame.rgb, PICTURE) and not frame.rgb.flags.writeable
    assert (source.info.width, source.info.height, source.info.frame_count) == (9, 6, 1)
    assert source.path == tmp_path / f"a.{ending}"


# EXIF orientation to what must be done to the stored picture to see it upright, from the standard's table.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
def test_exif_turn(tmp_path, orientation, ending) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    path = save(tmp_path / f"a.{ending}", exif=exif, **options)
    assert np.array_equal(read_picture(path), UPRIGHT[orientation](PICTURE))


def test_other_modes_become_rgb_as_the_detector_reads_them(tmp_path) -> None:
    grey16 = (np.arange(54, dtype=np.uint16) * 1213).reshape(6, 9)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    assert read_picture(tmp_path / "grey16.png")[..., 0] == pytest.approx(np.round(grey16 / 257).astype(int), abs=1)
    for mode in ("1", "L", "P", "CMYK", "LA", "RGBA", "RGB"):
        path = tmp_path / f"{mode}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.fromarray(PICTURE).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    for path in tmp_path.iterdir():
        rgb = read_picture(path)
        assert rgb.shape == (6, 9, 3) and np.array_equal(rgb, to_rgb(path))


def test_one_pixel_and_extreme_shapes(tmp_path) -> None:
    for shape in ((1, 1), (1, 4096), (4096, 1)):
        assert read_picture(save(tmp_path / "a.png", np.ones((*shape, 3), np.uint8))).shape == (*shape, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(65500, 65500), (10001, 10000), (2**31 - 1, 1)])
def test_a_bomb_is_refused_by_its_header(tmp_path, width, height) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    with pytest.raises(SourceError, match=r"'bomb\.png': it (has .* more than the limit of 100 million|claims)"):
        read_picture(tmp_path / "bomb.png")


def damaged(path: Path) -> dict[str, bytes]:
    """Files that are no pictures, by name."""
    whole = save(
        path.with_suffix(".png"), np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    ).read_bytes()
    jpeg = save(path.with_suffix(".jpg"), np.tile(PICTURE, (10, 10, 1))).read_bytes()
    return {
        "empty.jpg": b"",
        "html.jpg": b"<html><body>404</body></html>",
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "byte.png": b"\x89",
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip.webp": b"PK\3\4" + bytes(100),
        "elf.bmp": b"\x7fELF" + bytes(100),
    }


NAMES = ["empty.jpg", "html.jpg", "cut.png", "cut.jpg", "byte.png", "svg.png", "zip.webp", "elf.bmp"]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_picture_is_one_sentence(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(damaged(tmp_path / "made")[name])
    with pytest.raises(SourceError, match=name.replace(".", r"\.")) as caught:
        open_source(parse_source(tmp_path / name))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_in_a_folder_broken_pictures_are_listed_and_the_rest_is_done(tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in damaged(tmp_path / "made").items():
        (folder / name).write_bytes(content)
    for number in (1, 2, 10):
        save(folder / f"z{number}.png", np.full((4, 4, 3), number, np.uint8))
    source = open_source(parse_source(folder))
    frames = read_all(source)
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert sorted(path.name for path, _ in source.unreadable) == sorted(NAMES)
    assert source.info.frame_count == 11 and [frame.meta.index for frame in frames] == [7, 8, 9]  # z1 stands before zip


def test_a_folder_of_broken_pictures_only(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"None of the 1 pictures can be read; the first: .*'a\.png'"):
        open_source(parse_source(tmp_path))


def test_a_folder_without_pictures(tmp_path) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(SourceError, match="holds no pictures"):
        open_source(parse_source(tmp_path))
    with pytest.raises(SourceError, match="there is no folder"):
        open_source(parse_source(f"{tmp_path}/missing/"))


def test_folder_glob_and_order(tmp_path) -> None:
    for name in ("b10.png", "b9.png", "B1.png", "sub/a.png", "sub/deep/c.png"):
        save(tmp_path / name)
    names = lambda text: [path.relative_to(tmp_path).as_posix() for path in list_images(parse_source(text))]  # noqa: E731
    assert names(str(tmp_path)) == ["B1.png", "b9.png", "b10.png"]
    assert names(f"{tmp_path}/**/*.png") == ["B1.png", "b9.png", "b10.png", "sub/a.png", "sub/deep/c.png"]
    assert names(f"{tmp_path}/s*/*.png") == ["sub/a.png"]


@given(st.lists(st.from_regex(r"\A[a-z]{0,2}[0-9]{0,3}[a-z]{0,2}\Z"), max_size=8))
def test_natural_order_is_total(names) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


def test_natural_order() -> None:
    assert sorted(["f10", "f9", "f1a", "F2", "f01"], key=natural_key) == ["f01", "f1a", "F2", "f9", "f10"]


def test_a_list_names_files_beside_it(tmp_path) -> None:
    save(tmp_path / "pics/b.png", np.full((4, 4, 3), 2, np.uint8))
    save(tmp_path / "a.png", np.full((4, 4, 3), 1, np.uint8))
    (tmp_path / "list.txt").write_text(
        "\ufeff# order matters\npics/b.png\n\n  a.png  \nmissing.png\n", encoding="utf-8"
    )
    source = open_source(parse_source(tmp_path / "list.txt"))
    assert [int(frame.rgb[0, 0, 0]) for frame in read_all(source)] == [2, 1]
    assert [path.name for path, _ in source.unreadable] == ["missing.png"]


@pytest.mark.parametrize("content", [b"just words\n", b"\xff\xfe\x00binary", b"\n\n"])
def test_a_list_that_is_none(tmp_path, content) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(SourceError, match=r"list\.txt"):
        open_source(parse_source(tmp_path / "list.txt"))


def test_seek_in_a_folder(tmp_path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.png", np.full((4, 4, 3), number, np.uint8))
    source = open_source(parse_source(tmp_path), epoch=3)
    for pts_s, number in ((3.0, 3), (1.2, 2), (99.0, 4), (-1.0, 0)):
        source.seek(pts_s)
        frame = source.read()
        assert int(frame.rgb[0, 0, 0]) == number and frame.meta.seq == 0
    assert frame.meta.epoch == 7
    source.close()
    assert source.read() is None


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_no_text(tmp_path) -> None:
    save(tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    assert len(read_all(open_source(parse_source(tmp_path)))) == 1
