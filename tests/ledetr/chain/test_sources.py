import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr.chain.sources import (
    CameraSpec,
    FolderSpec,
    ImageSpec,
    ListSpec,
    ScreenSpec,
    TestPatternSpec,
    UrlSpec,
    VideoSpec,
    mask_url,
    parse_source,
)
from ledetr.errors import SourceError
from ledetr.paths import printable


@pytest.mark.parametrize(
    ("spelling", "spec"),
    [
        (0, CameraSpec("0")),
        ("0", CameraSpec("0")),
        (" 07 ", CameraSpec("7")),
        ("camera:2", CameraSpec("2")),
        ("camera:usb-Cam_1234-video-index0", CameraSpec("usb-Cam_1234-video-index0")),
        ("clip.mp4", VideoSpec(Path("clip.mp4"))),
        (Path("clip.mp4"), VideoSpec(Path("clip.mp4"))),
        ("no ending", VideoSpec(Path("no ending"))),
        ("C:\\clip.mp4", VideoSpec(Path("C:\\clip.mp4"))),
        ("-rf.mp4", VideoSpec(Path("-rf.mp4"))),
        ("a.JPG", ImageSpec(Path("a.JPG"))),
        ("list.txt", ListSpec(Path("list.txt"))),
        ("dir/", FolderSpec(Path("dir"))),
        ("dir/**/*.jpg", FolderSpec(Path("dir"), "**/*.jpg")),
        ("*.png", FolderSpec(Path(), "*.png")),
        ("/a/b?/c.png", FolderSpec(Path("/a"), "b?/c.png")),
        ("rtsp://10.0.0.7/live", UrlSpec("rtsp://10.0.0.7/live")),
        ("HTTP://[::1]:8080/a.m3u8?x=1", UrlSpec("HTTP://[::1]:8080/a.m3u8?x=1")),
        ("screen:", ScreenSpec(0)),
        ("screen:1", ScreenSpec(1)),
        ("screen:0,10,20,640,480", ScreenSpec(0, (10, 20, 640, 480))),
        ("test:", TestPatternSpec()),
        ("test:1080p30", TestPatternSpec(width=1920, height=1080)),
        ("test:720p29.97", TestPatternSpec(rate=Fraction(30000, 1001))),
        ("test:640x480p25/2", TestPatternSpec(width=640, height=480, rate=Fraction(25, 2))),
        ("test:bars?drop=0.1&jitter=5", TestPatternSpec(drop=0.1, jitter_ms=5.0)),
        ("test:480p60?frames=9&live=0&seed=3", TestPatternSpec(width=854, height=480, rate=Fraction(60), frames=9, live=False, seed=3)),  # noqa: E501, one row
    ],
)  # fmt: skip
def test_spellings(spelling, spec) -> None:
    assert parse_source(spelling) == spec
    assert parse_source(spec) is spec


def test_an_existing_folder_needs_no_slash(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert parse_source(str(tmp_path / "a.mp4")) == FolderSpec(tmp_path / "a.mp4")


def test_an_existing_file_may_have_any_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].mp4", "concat:b.mp4", " c.mp4 "):
        Path(name).write_bytes(b"x")
        assert parse_source(name) == VideoSpec(Path(name))


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd", "concat:a.mp4|b.mp4", "subfile:,,start,0,end,9,,:a", "pipe:0", "data:text/plain,x",
        "ftp://host/a.mp4", "gopher://host", "udp://239.0.0.1:1234", "crypto:a", "tcp://host:1", "rtsp:host",
        "async:file:a",
    ],
)  # fmt: skip
def test_other_schemes_are_refused_with_those_allowed(text: str) -> None:
    with pytest.raises(SourceError, match=r"allowed are rtsp://, rtsps://, rtmp://, http://, https://, srt://"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No source was named"),
        ("camera:", "needs a number or an id"),
        ("screen:x", "is not understood"),
        ("screen:0,0,0,0,5", "has no area"),
        ("test:99999x1p30", "out of range"),
        ("test:720p0", "out of range"),
        ("test:720p30?speed=2", "is not understood"),
        ("test:720p30?drop=much", "is not understood"),
        ("test:123p30", "is not understood"),
        ("rtsp://host/a b", "spaces"),
        ("rtsp://", "names no host"),
        ("rtsp://" + "a" * 10_000, "10007 characters"),
        ("a\0b.mp4", "zero byte"),
    ],
)
def test_what_is_not_understood(text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        parse_source(text)


@pytest.mark.parametrize("value", [True, 1.5, None, b"a.mp4", ["a.mp4"]])
def test_a_wrong_type_is_the_callers_mistake(value) -> None:
    with pytest.raises(ValueError, match="a source is a path"):
        parse_source(value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://admin:secret@10.0.0.7:554/live", "rtsp://admin:***@10.0.0.7:554/live"),
        ("rtsp://admin@10.0.0.7/live", "rtsp://***@10.0.0.7/live"),
        ("http://host/a.m3u8?token=secret", "http://host/a.m3u8?***"),
        ("http://u:secret@host/a?token=secret", "http://u:***@host/a?***"),
        ("http://host/a?token=se:cret@b", "http://***@b"),
        ("rtsp://[::1]:554/a", "rtsp://[::1]:554/a"),
    ],
)
def test_mask_url(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_no_password_is_ever_shown(middle: str) -> None:
    password = f"Zq{middle}7xW"  # ends that no scheme, user or host has
    spec = parse_source(f"rtsp://user:{password}@10.0.0.7/live")
    for text in (spec.display_name, repr(spec), str(spec), f"{spec}"):
        assert "Zq" not in text and "7xW" not in text and password not in text
        assert "10.0.0.7/live" in text


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_printable_names() -> None:
    assert printable("Küche 🍳.mp4") == "Küche 🍳.mp4"
    assert printable(os.fsdecode(b"a\xff.mp4")) == "a\ufffd.mp4"
    assert printable("a\nb\x1b[31m\u202ec.mp4") == "a\ufffdb\ufffd[31m\ufffdc.mp4"
