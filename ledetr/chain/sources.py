"""What a source is: one string or object names it, one typed value describes it, one protocol reads it.

parse_source only looks at the spelling (and at whether a path is a folder); it never opens anything to guess.
"""

import importlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qsl

from ledetr.chain.clock import Clock, MonotonicClock
from ledetr.errors import SourceError
from ledetr.frame import Frame
from ledetr.paths import printable

OPEN_DEADLINE_S = 10.0
READ_DEADLINE_S = 5.0
# Between two frames of an open source no more time can pass than its deadline allows, unless the machine slept.
SLEPT_S = 2 * READ_DEADLINE_S

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"})
URL_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "srt")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least, so that C:\clip.mp4 is a path


class SourceLost(SourceError):
    """The source does not answer, or stopped answering, and may come back: trying again makes sense."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What an open source says of itself.

    display_name: for people, without passwords. live: it will not wait. width, height: of the upright picture.
    rate: nominal frames a second, None where unknown. frame_count, duration_s: None where unknown or endless.
    time_base: seconds of one tick of pts. start_s: pts_s of the first frame. note: a sentence for the user, or "".
    """

    source_id: str
    display_name: str
    live: bool
    width: int
    height: int
    rate: Fraction | None
    frame_count: int | None
    duration_s: float | None
    time_base: Fraction
    has_audio: bool = False
    seekable: bool = False
    start_s: float = 0.0
    note: str = ""


class FrameSource(Protocol):
    """An open source. All calls but interrupt come from one thread; close is legal more than once."""

    @property
    def info(self) -> SourceInfo:
        """What it is; may change after a reconnect, never between two frames of one epoch."""
        ...

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        """The next frame, None at the end; raises SourceError. Blocks at most about READ_DEADLINE_S.

        skip_to_s: frames before this time, but for the last of all, may be left out where that is cheaper; they are
        counted in seq.
        """
        ...

    def seek(self, pts_s: float) -> None:
        """Go on with the first frame at or after pts_s (the last frame where there is none); a new epoch begins."""
        ...

    def interrupt(self) -> None:
        """From any thread: make a waiting read return soon where that is possible."""
        ...

    def close(self) -> None:
        """Give the file, device or connection back."""
        ...


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """device: "0", "1", ... or a stable id of the system."""

    device: str
    live = True

    @property
    def display_name(self) -> str:
        """Name for people."""
        return f"camera {self.device}"


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """A video file."""

    path: Path
    live = False

    @property
    def display_name(self) -> str:
        """Name for people."""
        return printable(self.path.name)


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One picture file."""

    path: Path
    live = False

    @property
    def display_name(self) -> str:
        """Name for people."""
        return printable(self.path.name)


@dataclass(frozen=True, slots=True)
class FolderSpec:
    """All pictures of a folder, or those below it that match a glob pattern such as "**/*.jpg"."""

    path: Path
    pattern: str | None = None
    live = False

    @property
    def display_name(self) -> str:
        """Name for people."""
        name = printable(self.path.name or str(self.path))
        return f"{name}/{self.pattern or ''}"


@dataclass(frozen=True, slots=True)
class ListSpec:
    """A text file with one picture path a line, relative to the file."""

    path: Path
    live = False

    @property
    def display_name(self) -> str:
        """Name for people."""
        return printable(self.path.name)


@dataclass(frozen=True, slots=True)
class UrlSpec:
    """A network stream. url holds the password, if any, and is never shown: repr and display_name mask it."""

    url: str
    live = True

    @property
    def display_name(self) -> str:
        """The address with the password and the query hidden."""
        return mask_url(self.url)

    def __repr__(self) -> str:
        return f"UrlSpec({self.display_name!r})"


@dataclass(frozen=True, slots=True)
class ScreenSpec:
    """A screen, or the part (x, y, width, height) of it, in its own pixels."""

    index: int = 0
    region: tuple[int, int, int, int] | None = None
    live = True

    @property
    def display_name(self) -> str:
        """Name for people."""
        return f"screen {self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPatternSpec:
    """Moving bars with the frame number in the picture, the same on every run.

    drop: share of frames that never arrive, 0..1. jitter_ms: how far a frame comes late, at most. frames: where it
    ends. live: it keeps its rate and does not wait; else it is read as fast as asked for, and can be sought.
    """

    __test__ = False  # its name is not meant for pytest

    width: int = 1280
    height: int = 720
    rate: Fraction = Fraction(30)
    drop: float = 0.0
    jitter_ms: float = 0.0
    frames: int | None = None
    seed: int = 0
    live: bool = True

    @property
    def display_name(self) -> str:
        """Name for people."""
        return f"test pattern {self.width}x{self.height} at {float(self.rate):g} fps"


@dataclass(frozen=True, slots=True, eq=False)
class ArraysSpec:
    """Python arrays: an iterable of (H, W, 3) uint8 RGB, or of (array, pts in seconds); library only."""

    arrays: Iterable[Any]
    rate: Fraction = Fraction(25)
    live = False

    @property
    def display_name(self) -> str:
        """Name for people."""
        return "arrays"


SourceSpec: TypeAlias = (
    CameraSpec | VideoSpec | ImageSpec | FolderSpec | ListSpec | UrlSpec | ScreenSpec | TestPatternSpec | ArraysSpec
)

_SPECS = (
    CameraSpec,
    VideoSpec,
    ImageSpec,
    FolderSpec,
    ListSpec,
    UrlSpec,
    ScreenSpec,
    TestPatternSpec,
    ArraysSpec,
)

# Which room opens what; imported when first needed, so that naming a source loads no decoder.
_OPENERS: dict[type, tuple[str, str]] = {
    CameraSpec: ("ledetr.chain.camera", "open_camera"),
    UrlSpec: ("ledetr.chain.camera", "open_url"),
    VideoSpec: ("ledetr.chain.video_file", "open_video_file"),
    ImageSpec: ("ledetr.chain.images", "open_images"),
    FolderSpec: ("ledetr.chain.images", "open_images"),
    ListSpec: ("ledetr.chain.images", "open_images"),
    ScreenSpec: ("ledetr.chain.screen", "Screen"),
    TestPatternSpec: ("ledetr.chain.test_pattern", "TestPattern"),
    ArraysSpec: ("ledetr.chain.arrays", "Arrays"),
}


def open_source(spec: SourceSpec, *, clock: Clock | None = None, epoch: int = 0) -> FrameSource:
    """Open what spec names; its frames begin with this epoch. Raises SourceError."""
    module, name = _OPENERS[type(spec)]
    opener = getattr(importlib.import_module(module), name)
    source: FrameSource = opener(spec, clock=clock or MonotonicClock(), epoch=epoch)
    return source


def parse_source(source: "str | os.PathLike[str] | int | SourceSpec") -> SourceSpec:
    """The typed value of a source's spelling (app.md lists them). Raises SourceError with the spellings allowed."""
    if isinstance(source, _SPECS):
        return source
    if isinstance(source, bool) or not isinstance(source, (str, int, os.PathLike)):
        raise ValueError(f"a source is a path, an address or a camera number, got {type(source).__name__}")
    if isinstance(source, int):
        return CameraSpec(str(source))
    if not isinstance(source, str):
        return _parse_path(os.fspath(source))
    text = source.strip()
    if not text:
        raise SourceError("No source was named; give a file, a folder, an address such as rtsp://..., or camera:0.")
    if text.isascii() and text.isdigit():
        return CameraSpec(str(int(text)))
    match = _SCHEME.match(text)
    if match is None:
        return _parse_path(source if Path(source).exists() else text)
    return _parse_scheme(match[1].lower(), text[match.end() :], text)


def _parse_scheme(scheme: str, rest: str, text: str) -> SourceSpec:
    if scheme == "camera":
        return _parse_camera(rest)
    if scheme == "screen":
        return _parse_screen(rest)
    if scheme == "test":
        return _parse_test_pattern(rest)
    if scheme in URL_SCHEMES and rest.startswith("//"):
        return _parse_url(text)
    # FFmpeg has spellings such as concat: and subfile: that fetch from elsewhere; none of them is let through.
    if rest.startswith("//") or not Path(text).exists():
        allowed = ", ".join(f"{name}://" for name in URL_SCHEMES)
        raise SourceError(f"Addresses that begin with {scheme}: are not opened; allowed are {allowed} and file paths.")
    return _parse_path(text)


def _parse_url(text: str) -> UrlSpec:
    if len(text) > 4096:
        raise SourceError(f"The address is {len(text)} characters long; at most 4096 are allowed.")
    if re.search(r"[\x00-\x20\x7f]", text):
        raise SourceError("The address holds spaces or control characters; write them as %20 and so on.")
    if not re.match(r"[a-zA-Z]+://[^/?#]", text):
        raise SourceError(f"The address {mask_url(text)} names no host; write for example rtsp://10.0.0.7/stream.")
    return UrlSpec(text)


def _parse_camera(device: str) -> CameraSpec:
    if not device:
        raise SourceError("camera: needs a number or an id, for example camera:0.")
    return CameraSpec(str(int(device)) if device.isascii() and device.isdigit() else device)


def _parse_screen(rest: str) -> ScreenSpec:
    match = re.fullmatch(r"(\d{1,3})(?:,(-?\d{1,6}),(-?\d{1,6}),(\d{1,6}),(\d{1,6}))?", rest or "0")
    if match is None:
        raise SourceError(f"screen:{rest} is not understood; write screen:0 or screen:0,x,y,width,height.")
    if match[2] is None:
        return ScreenSpec(int(match[1]))
    x, y, width, height = (int(value) for value in match.groups()[1:])
    if width == 0 or height == 0:
        raise SourceError(f"screen:{rest} has no area; width and height must be at least 1.")
    return ScreenSpec(int(match[1]), (x, y, width, height))


_PATTERN_LINES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440),
                  "2160p": (3840, 2160)}  # fmt: skip
_NTSC_RATES = {"23.976": Fraction(24000, 1001), "29.97": Fraction(30000, 1001), "59.94": Fraction(60000, 1001)}


def _parse_test_pattern(rest: str) -> TestPatternSpec:
    shape, _, query = rest.partition("?")
    help_text = "write test:1080p30, test:640x480p25 or test:bars?drop=0.1&jitter=5&frames=300&live=0"
    try:
        spec = TestPatternSpec(**_pattern_shape(shape), **_pattern_options(query))
    except (ValueError, KeyError, ZeroDivisionError):
        raise SourceError(f"test:{rest} is not understood; {help_text}.") from None
    if not (16 <= spec.width <= 16384 and 16 <= spec.height <= 16384 and 0 < spec.rate <= 1000 and 0 <= spec.drop < 1):
        raise SourceError(f"test:{rest} is out of range: 16 to 16384 pixels, up to 1000 fps, drop below 1.")
    return spec


def _pattern_shape(shape: str) -> dict[str, Any]:
    if shape in ("", "bars"):
        return {}
    match = re.fullmatch(r"(\d+x\d+p|\d+p)(\d+(?:\.\d+)?|\d+/\d+)?", shape)
    if match is None:
        raise ValueError(shape)
    size, rate = match.groups()
    if "x" in size:
        width, height = (int(value) for value in size[:-1].split("x"))
    else:
        width, height = _PATTERN_LINES[size]
    return {"width": width, "height": height, "rate": _NTSC_RATES.get(rate or "30") or Fraction(rate or "30")}


def _pattern_options(query: str) -> dict[str, Any]:
    readers: dict[str, tuple[str, Any]] = {
        "drop": ("drop", float),
        "jitter": ("jitter_ms", float),
        "frames": ("frames", int),
        "seed": ("seed", int),
        "live": ("live", lambda text: bool(int(text))),
    }
    options = {}
    for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        name, reader = readers[key]
        options[name] = reader(value)
    return options


def _parse_path(text: str) -> SourceSpec:
    if "\0" in text:
        raise SourceError("A file name cannot hold a zero byte.")
    path = Path(text)
    if text.endswith(("/", os.sep)) or path.is_dir():
        return FolderSpec(path)
    if re.search(r"[*?\[]", text) and not path.exists():
        return _split_glob(path)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return ImageSpec(path)
    return ListSpec(path) if suffix == ".txt" else VideoSpec(path)


def _split_glob(path: Path) -> FolderSpec:
    """Everything before the first part with a wildcard is the folder."""
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return FolderSpec(Path(*parts[:first]), "/".join(parts[first:]))


def mask_url(url: str) -> str:
    """The address without what may be secret: password and query are replaced by ***.

    A password may itself hold / and @, unescaped. In doubt more is hidden, never less: everything between the first
    colon after the scheme and the last @ goes.
    """
    scheme, mark, rest = url.partition("://")
    userinfo, at, place = rest.rpartition("@")
    place, question, _ = place.partition("?")
    user, colon, _ = userinfo.partition(":")
    shown = f"{user}:***" if colon and not re.search(r"[/?#]", user) else "***"
    return f"{scheme}{mark}{shown if at else ''}{at}{place}{'?***' if question else ''}"
