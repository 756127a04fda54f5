"""Media made on the spot, scripted sources and detectors, and a wait that ends as soon as it can."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from ledetr.chain.sources import SourceInfo
from ledetr.detections import Detections
from ledetr.frame import Frame, FrameMeta

CLIPS = Path(__file__).parents[3] / ".." / "shared" / "data" / "clips"


@pytest.fixture
def clip() -> Callable[[str], Path]:
    """Path of a real clip; skips where the folder beside the repository is absent."""

    def find(name: str) -> Path:
        path = CLIPS / name
        if not path.exists():
            pytest.skip(f"no {name} in ../shared/data/clips")
        return path

    return find


def wait_until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Look again and again until the condition holds; fails where it never does."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        pause.wait(0.001)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    """See wait_until."""
    return wait_until


@dataclass
class VideoMaker:
    """Writes small videos; the grey level of frame i is levels(i), so that frames can be told apart after decoding."""

    folder: Path

    def __call__(
        self,
        name: str = "clip.mp4",
        *,
        pts: Sequence[int] = tuple(range(0, 250, 10)),
        time_base: Fraction = Fraction(1, 250),
        size: tuple[int, int] = (64, 48),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        gop: int = 12,
        sound: bool = False,
        pictures: bool = True,
    ) -> Path:
        path = self.folder / name
        with av.open(str(path), "w", options=container_options or {}) as output:
            stream: Any = None
            if pictures:
                stream = output.add_stream(codec, rate=25, options=options or {})
                stream.width, stream.height = size
                stream.pix_fmt = pix_fmt
                stream.time_base = stream.codec_context.time_base = time_base
                stream.codec_context.gop_size = gop
            audio: Any = output.add_stream("aac", rate=8000) if sound else None
            if pictures:
                for i, at in enumerate(pts):
                    rgb = np.full((size[1], size[0], 3), self.level(i), np.uint8)
                    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt)
                    frame.pts, frame.time_base = at, time_base
                    output.mux(stream.encode(frame))
                output.mux(stream.encode(None))
            if sound:
                tone = (np.sin(np.arange(8000) / 8000 * 880 * np.pi) * 8000).astype(np.int16)
                for start in range(0, 8000 - 1024, 1024):
                    block = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "s16", "mono")
                    block.sample_rate, block.pts = 8000, start
                    output.mux(audio.encode(block))
                output.mux(audio.encode(None))
        return path

    @staticmethod
    def level(i: int) -> int:
        """Grey of frame i."""
        return 30 + 37 * i % 200


@pytest.fixture
def make_video(tmp_path: Path) -> VideoMaker:
    """See VideoMaker."""
    return VideoMaker(tmp_path)


class FakeDetector:
    """Finds one box whose left edge is the grey of the first pixel; work() takes as long as it likes."""

    def __init__(self, model_id: str = "fake", work: Callable[[], None] | None = None) -> None:
        self.model_id = model_id
        self.class_names = ("person",)
        self.category_ids = (1,)
        self.score_threshold = 0.5
        self.random_weights = False
        self.info: Any = None
        self.work = work or (lambda: None)
        self.seen: list[int] = []
        self.closed = False

    def detect_frame(
        self, rgb: np.ndarray, *, score_floor: float = 0.05, max_detections: int = 300
    ) -> tuple[Detections, Any]:
        assert not self.closed, "used after its release"
        assert not rgb.flags.writeable
        self.work()
        self.seen.append(int(rgb[0, 0, 0]))
        found = Detections(
            np.array([[rgb[0, 0, 0], 0, 300, 300]], np.float32),
            np.array([0.9], np.float32),
            np.array([0]),
            class_names=self.class_names,
            model_id=self.model_id,
        )
        return found, SimpleNamespace(preprocess_ms=1.0, infer_ms=2.0, postprocess_ms=3.0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_detector() -> type[FakeDetector]:
    """See FakeDetector."""
    return FakeDetector


class ScriptedSource:
    """A source of count tiny frames; the red of frame i is i % 256. before_read(i) may wait, raise or count."""

    def __init__(
        self,
        *,
        count: int | None = 10,
        rate: Fraction = Fraction(25),
        live: bool = False,
        epoch: int = 0,
        clock: Any = None,
        before_read: Callable[[int], None] = lambda _: None,
        size: tuple[int, int] = (8, 6),
    ) -> None:
        self.count = count
        self.epoch = epoch
        self.seq = 0
        self.next = 0
        self.clock = clock
        self.before_read = before_read
        self.closed = threading.Event()
        self.interrupted = threading.Event()
        width, height = size
        self.info = SourceInfo(
            "scripted", "scripted", live, width, height, rate, count, None, 1 / rate, seekable=not live
        )

    def read(self, skip_to_s: float | None = None) -> Frame | None:
        assert not self.closed.is_set(), "read after close"
        number = self.next
        if self.count is not None and number >= self.count:
            return None
        self.before_read(number)
        self.next += 1
        self.seq += 1
        rgb = np.zeros((self.info.height, self.info.width, 3), np.uint8)
        rgb[:, :, 0] = number % 256
        now_ns = 0 if self.clock is None else self.clock.now_ns()
        meta = FrameMeta(
            "scripted", self.epoch, self.seq - 1, number, self.info.time_base, now_ns, self.info.width,
            self.info.height, index=number,
        )  # fmt: skip
        return Frame(meta, rgb)

    def seek(self, pts_s: float) -> None:
        assert not self.closed.is_set(), "seek after close"
        self.next = max(0, -int(-Fraction(pts_s).limit_denominator(10**6) / self.info.time_base // 1))
        if self.count is not None:
            self.next = min(self.next, self.count - 1)
        self.epoch += 1
        self.seq = 0

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def scripted_source() -> type[ScriptedSource]:
    """See ScriptedSource."""
    return ScriptedSource
