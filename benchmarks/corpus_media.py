"""Members of the bad-input corpus that are files of pictures, or pretend to be."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageCms

from benchmarks.good_files import (
    FRAMES,
    animation,
    image_bytes,
    picture,
    plain_png,
)
from benchmarks.members import EITHER, EVAL, HANDLED, Member, filmed, flipped, spoilt, written

# Not media.


def not_media() -> list[Member]:
    """Members of this group."""
    page = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + bytes(2000)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr(zipfile.ZipInfo("a.txt", (2020, 1, 1, 0, 0, 0)), "hello")
    pdf = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    fixed = {
        "empty.mp4": b"", "empty.png": b"", "one byte.mp4": b"\0", "one byte.jpg": b"\xff", "text.mp4": b"hello\n" * 99,
        "text.png": b"hello\n", "page.jpg": page, "page.mp4": page, "program.mp4": elf, "program.png": elf,
        "archive.mp4": zipped.getvalue(), "archive.jpg": zipped.getvalue(), "document.png": pdf, "document.mp4": pdf,
        "list.txt": b"nothing here is a picture\n", "zeros.mp4": bytes(5000), "zeros.jpg": bytes(5000),
        "no ending": b"hello", "list of itself.txt": b"list of itself.txt\n", "binary list.txt": bytes(range(256)),
    }  # fmt: skip
    group = "not media"
    return [
        *(Member(name, group, make=written(data), fixed=True) for name, data in fixed.items()),
        Member("folder.mp4", group, make=lambda path: path.mkdir()),
        Member("pipe.mp4", group, make=os.mkfifo),
        Member("pipe.png", group, make=os.mkfifo),
        Member("zero.mp4", group, make=lambda path: path.symlink_to("/dev/zero")),
        Member("zero.png", group, make=lambda path: path.symlink_to("/dev/zero")),
        Member("zero.txt", group, make=lambda path: path.symlink_to("/dev/zero")),
        Member("loop.mp4", group, make=lambda path: path.symlink_to(path)),
        Member("dangling.png", group, make=lambda path: path.symlink_to("nowhere.png")),
        Member("missing.mp4", group),
    ]


# Cut.


def cut() -> list[Member]:
    """Members of this group."""

    def kept(share: float) -> Callable[[bytes], bytes]:
        return lambda data: data[: int(len(data) * share)]

    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    in_front = {"movflags": "faststart"}
    jpeg, png, webp = (image_bytes(kind) for kind in ("JPEG", "PNG", "WEBP"))
    group = "cut"
    return [
        *(Member(f"cut at {share}.mp4", group, make=spoilt(kept(share / 100))) for share in (10, 50)),
        Member("cut at 99.mp4", group, EITHER, spoilt(kept(0.99))),  # the pictures are all there
        Member("index in front, cut.mp4", group, EITHER, spoilt(kept(0.7), container_options=in_front)),
        Member("cut in a cluster.mkv", group, EITHER, spoilt(kept(0.6))),
        Member("cut in a cluster.webm", group, EITHER, spoilt(kept(0.6), codec="libvpx-vp9")),
        Member("cut.ts", group, EITHER, spoilt(kept(0.6))),
        Member("cut.avi", group, EITHER, spoilt(kept(0.6))),
        Member("without its first fragment.mp4", group, make=spoilt(_without_head, container_options=fragments)),
        Member("cut fragments.mp4", group, EITHER, spoilt(kept(0.7), container_options=fragments)),
        Member("cut.jpg", group, make=written(jpeg[: len(jpeg) // 2])),
        Member("cut head.jpg", group, make=written(jpeg[:20])),
        Member("cut.png", group, make=written(png[: len(png) // 2])),
        Member("cut.webp", group, make=written(webp[: len(webp) // 2])),
        Member("cut.gif", group, EITHER, written(animation("GIF")[:900])),
    ]


def _without_head(data: bytes) -> bytes:
    """What is left of fragments when what comes before the first one is lost."""
    return data[data.index(b"moof") - 4 :]


# Damaged.


def damaged() -> list[Member]:
    """Members of this group."""
    rows = []
    for bits in (1, 10, 1000):
        for part in ("header", "index", "payload"):

            def broken(data: bytes, bits: int = bits, part: str = part) -> bytes:
                return flipped(data, bits, part, 0)

            name = f"{bits} bits of {part}"
            for ending, form in (("mp4", {}), ("mkv", {}), ("webm", {"codec": "libvpx-vp9"}), ("ts", {}), ("avi", {})):
                rows.append(Member(f"{name}.{ending}", "damaged", EITHER, spoilt(broken, **form)))
            for ending, data in (
                ("jpg", image_bytes("JPEG")), ("png", image_bytes("PNG")), ("webp", image_bytes("WEBP")),
                ("gif", animation("GIF")), ("bmp", image_bytes("BMP")), ("tif", image_bytes("TIFF")),
            ):  # fmt: skip
                rows.append(Member(f"{name}.{ending}", "damaged", EITHER, written(broken(data))))
    huge = struct.pack(">I4sQ", 1, b"mdat", 2**63 - 1)
    rows += [
        Member("index entries swapped.mp4", "damaged", EITHER, spoilt(_with_swapped_index)),
        Member("box of 2^63.mp4", "damaged", EITHER, spoilt(lambda data: data[:32] + huge + data[32:])),
        Member("box of 2^63 in front.mp4", "damaged", make=written(huge + bytes(100)), fixed=True),
        Member("cluster of 2^56.mkv", "damaged", EITHER, spoilt(_with_endless_cluster)),
    ]
    return rows


def _with_swapped_index(data: bytes) -> bytes:
    """The first two sizes in the list of sample sizes change places, and so do the first two chunks."""
    broken = bytearray(data)
    for kind, skip in ((b"stsz", 16), (b"stco", 12)):
        at = data.index(kind) + skip
        broken[at : at + 8] = data[at + 4 : at + 8] + data[at : at + 4]
    return bytes(broken)


def _with_endless_cluster(data: bytes) -> bytes:
    at = data.index(b"\x1f\x43\xb6\x75") + 4
    return data[:at] + b"\x01\xff\xff\xff\xff\xff\xff\xfe" + data[at + 8 :]


# Odd but legal.


def odd_pictures() -> list[Member]:
    """Members of this group."""
    grey = picture().mean(axis=2)
    profile = _icc_profile()
    rows: dict[str, bytes] = {
        "1x1.png": image_bytes("PNG", picture((1, 1))),
        "2x2.jpg": image_bytes("JPEG", picture((2, 2))),
        "1x4096.png": image_bytes("PNG", picture((1, 4096))),
        "4096x1.jpg": image_bytes("JPEG", picture((4096, 1))),
        "16384x16.png": image_bytes("PNG", picture((16384, 16))),
        "palette.png": image_bytes("PNG", mode="P"),
        "1 bit.png": image_bytes("PNG", mode="1"),
        "grey.jpg": image_bytes("JPEG", mode="L"),
        "transparent.png": image_bytes("PNG", mode="RGBA"),
        "cmyk.jpg": image_bytes("JPEG", mode="CMYK"),
        "profile.jpg": image_bytes("JPEG", icc_profile=profile),
        "profile of zeros.png": image_bytes("PNG", icc_profile=bytes(300)),
        "progressive.jpg": image_bytes("JPEG", progressive=True),
        "animation.webp": animation("WEBP"),
        "picture.ppm": image_bytes("PPM"),
    }
    sixteen = io.BytesIO()
    Image.fromarray((grey * 257).astype(np.uint16)).save(sixteen, "PNG")
    rows["16 bit.png"] = sixteen.getvalue()
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        rows[f"exif {turn}.jpg"] = image_bytes("JPEG", exif=exif)
    rows["exif of nonsense.jpg"] = image_bytes("JPEG", exif=b"Exif\0\0" + random.Random(0).randbytes(500))
    handled = [Member(name, "odd but legal", HANDLED, written(data), frames=1) for name, data in rows.items()]
    return [*handled, Member("animation.gif", "odd but legal", HANDLED, written(animation("GIF")), frames=5)]


def _icc_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def odd_videos() -> list[Member]:
    """Members of this group."""
    lossless = {"codec": "png", "pix_fmt": "rgb24", "pts": range(3)}
    long_gaps = {"pts": (0, 1, 1501, 1502, 3002), "options": {"bf": "0"}}
    x264 = {
        "4:4:4.mp4": {"pix_fmt": "yuv444p"}, "4:2:2.mkv": {"pix_fmt": "yuv422p"}, "grey.mkv": {"pix_fmt": "gray"},
        "10 bit.mp4": {"pix_fmt": "yuv420p10le"}, "interlaced.mp4": {"options": {"x264-params": "tff=1"}},
        "full range.mp4": {"colour": {"color_range": 2}}, "odd sizes.mkv": {"pix_fmt": "yuv444p", "size_wh": (33, 35)},
        "b frames.mp4": {"options": {"bf": "3"}},
        "24000 by 1001.mp4": {"rate": Fraction(24000, 1001), "time_base": Fraction(1001, 24000)},
    }  # fmt: skip
    rows = [Member(name, "odd but legal", HANDLED, filmed(**form), frames=FRAMES) for name, form in x264.items()]
    few = {
        "1x1.mov": {**lossless, "size_wh": (1, 1)}, "2x2.mp4": {"size_wh": (2, 2), "pts": range(3)},
        "1x4096.mov": {**lossless, "size_wh": (1, 4096)}, "16384x16.mov": {**lossless, "size_wh": (16384, 16)},
        "1 a second.mp4": {"rate": Fraction(1), "time_base": Fraction(1), "pts": range(3)},
        "240 a second.mp4": {"rate": Fraction(240), "time_base": Fraction(1, 240), "pts": range(3)},
        "1001 s a picture.mkv": {"rate": Fraction(1, 1001), "time_base": Fraction(1001), "pts": range(3)},
    }  # fmt: skip
    rows += [Member(name, "odd but legal", HANDLED, filmed(**form), frames=3) for name, form in few.items()]
    rows += [
        Member("gaps of 60 s.mp4", "odd but legal", HANDLED, filmed(**long_gaps), frames=5),
        # MP4 has no times below zero: an edit list says that what lies there is not shown.
        Member("negative start.mp4", "odd but legal", HANDLED, filmed(pts=range(-5, FRAMES - 5)), frames=FRAMES - 5),
        Member("one frame.mp4", "odd but legal", HANDLED, filmed(pts=(0,)), frames=1),
        Member("zero frames.mp4", "odd but legal", make=filmed(pts=())),
        Member("zero frames.mkv", "odd but legal", make=filmed(pts=())),
        Member("sound only.mp4", "odd but legal", make=filmed(pictures=False, sound=True)),
        Member("cover picture.mp4", "odd but legal", make=_write_cover),
        Member("two tracks.mkv", "odd but legal", HANDLED, _write_two_tracks, frames=5),
        Member("edit list.mp4", "odd but legal", HANDLED, spoilt(_with_edit_list), frames=None),
    ]
    return rows


def _write_cover(path: Path) -> None:
    """Sound with a picture on its sleeve, as music players show it."""
    with av.open(str(path), "w") as output:
        audio: Any = output.add_stream("aac", rate=8000, layout="mono")
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(), "rgb24").reformat(format="yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1)
        output.mux(cover.encode(frame))
        for start in range(0, 4096, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
            block.sample_rate, block.pts = 8000, start
            output.mux(audio.encode(block))
        output.mux(audio.encode(None))


def _write_two_tracks(path: Path) -> None:
    with av.open(str(path), "w") as output:
        streams = []
        for size_wh in ((96, 64), (64, 48)):
            stream: Any = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
            streams.append((stream, size_wh))
        for number in range(5):
            for stream, size_wh in streams:
                frame = av.VideoFrame.from_ndarray(picture(size_wh, number), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
        for stream, _ in streams:
            output.mux(stream.encode(None))


def _with_edit_list(data: bytes) -> bytes:
    """The edit list begins half a second later, so that the first pictures are not meant to be seen."""
    at = data.index(b"elst") + 8
    version = data[at - 4]
    media_time = at + 4 + (8 if version else 4)
    scale_at = data.index(b"mdhd") + (24 if data[data.index(b"mdhd") + 4] else 16)
    half = struct.unpack(">I", data[scale_at : scale_at + 4])[0] // 2
    new = struct.pack(">q" if version else ">i", half)
    return data[:media_time] + new + data[media_time + len(new) :]


# Bombs.


def bombs() -> list[Member]:
    """Members of this group."""
    nested = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g>" * 20000 + b"</g>" * 20000 + b"</svg>"
    yaml = b"a: &a [x, x, x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c, *%c]\n" % (c, c, c - 1, c - 1, c - 1) for c in range(98, 118)
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("zeros", (2020, 1, 1, 0, 0, 0)), bytes(20_000_000), zipfile.ZIP_DEFLATED)
    group = "bombs"
    return [
        Member("65500x65500.png", group, make=written(plain_png(65500, 65500)), fixed=True),
        Member("2147483647 wide.png", group, make=written(plain_png(2**31 - 1, 1)), fixed=True),
        Member("11000x11000.png", group, make=written(plain_png(11000, 11000)), fixed=True),
        Member("100000 frames.gif", group, HANDLED, written(_gif_of(100_000)), fixed=True, frames=3,
               words=("detect", "{}", "--max-frames", "3")),
        Member("65535x65535.gif", group, make=written(_gif_of(1, 65535)), fixed=True),
        Member("nested.svg", group, make=written(nested), fixed=True),
        Member("aliases.yaml", group, make=written(yaml), fixed=True),
        Member("archive of zeros.json", group, make=written(archive.getvalue()), words=EVAL),
        Member("nested lists.json", group, make=written(b"[" * 1_000_000 + b"]" * 1_000_000), words=EVAL, fixed=True),
        Member("nested tables.json", group, make=written(b'{"a":' * 100_000), words=EVAL, fixed=True),
        Member("a million empty entries.json", group,
               make=written(b'{"images":[],"categories":[],"annotations":[' + b"{}," * 1_000_000 + b"{}]}"),
               words=EVAL, fixed=True),
        Member("a number of a million digits.json", group,
            make=written(b'{"images":[{"id":' + b"9" * 1_000_000 + b"}]}"),
               words=EVAL, fixed=True),
        Member("65535x65535.jpg", group, make=written(_jpeg_of_size(65535))),
    ]  # fmt: skip


def _gif_of(frames: int, side: int = 2) -> bytes:
    """Frames of one pixel on a ground of side x side."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    frame = (
        b"\x21\xf9\x04\x04\x04\x00\x00\x00" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    )
    return head + frame * frames + b"\x3b"


def _jpeg_of_size(side: int) -> bytes:
    """A healthy small JPEG whose header claims another size."""
    data = image_bytes("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


# Names.


def names() -> list[Member]:
    """Members of this group."""
    good = plain_png(8, 8, rows=b"".join(b"\0" + bytes(range(24)) for _ in range(8)))
    names = [
        "a b  c.png", 'quo"te\'s.png', "100%d%s.png", "new\nline.png", "-rf.png", "--overwrite.png",
        "emoji \U0001f600.png",
        "\u202egnp.exe.png", os.fsdecode(b"not utf-8 \xff\xfe.png"), "CON.png", "semi;colon & $(id).png", "[x]*?.png",
        "tab\there.png", "{}.png", "back\\slash.png", "a" * 240 + ".png", "file:name.png", "rtsp.png",
    ]  # fmt: skip
    rows = [Member(name, "names", HANDLED, written(good), frames=1, fixed=True) for name in names]
    return [
        *rows,
        Member("b" * 251 + ".png", "names", (1,), written(good), fixed=True),  # no room for _boxes
        Member("trailing dot.png.", "names", make=written(good), fixed=True),
        Member("no ending at all", "names", make=written(good), fixed=True),
        Member("camera:0.png", "names", EITHER, written(good), fixed=True),
    ]
