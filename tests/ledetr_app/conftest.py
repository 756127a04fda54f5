"""One offscreen application, a detector with fixed boxes, and two rules: no Qt warning, no thread left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Without a display the desktop's own theme plugin has nothing to say.
os.environ.pop("QT_QPA_PLATFORMTHEME", None)

import av
from PySide6.QtCore import QtMsgType, qInstallMessageHandler

from ledetr.backends.base import BackendInfo
from ledetr.chain.pipeline import State
from ledetr.detections import Detections
from ledetr.errors import BackendUnavailable, WeightsError
from ledetr_app.model_loader import ModelWish
from ledetr_app.session import Session
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.window import Window

# What the offscreen plugin says of itself; a desktop's plugin does not.
OF_THE_PLUGIN = ("This plugin does not support propagateSizeHints()",)

PATTERN = "test:320x240p30"
CLASSES = ("person", "dog", "car")
BOXES = np.array([[20, 20, 120, 200], [140, 60, 260, 200], [200, 10, 300, 90]], np.float32)
SCORES = np.array([0.9, 0.6, 0.3], np.float32)


@dataclass(frozen=True)
class Times:
    preprocess_ms: float = 0.1
    infer_ms: float = 0.2
    postprocess_ms: float = 0.1


@dataclass
class FixedDetector:
    """Three boxes in every frame: person 0.9, dog 0.6, car 0.3."""

    model_id: str = "n"
    random_weights: bool = False
    score_threshold: float = 0.5
    class_names: tuple[str, ...] = CLASSES
    category_ids: tuple[int, ...] = (1, 18, 3)
    info: BackendInfo = field(default_factory=lambda: BackendInfo("openvino", "cpu", "fp32", (416, 416)))
    frames: int = 0
    closed: int = 0
    work_s: float = 0.0

    def detect_frame(self, rgb, *, score_floor=0.05, max_detections=300):
        self.frames += 1
        if self.work_s:
            threading.Event().wait(self.work_s)
        detections = Detections(
            BOXES.copy(),
            SCORES.copy(),
            np.arange(3),
            class_names=self.class_names,
            category_ids=self.category_ids,
            model_id=self.model_id,
            score_floor=score_floor,
        )
        return detections, Times()

    def close(self):
        self.closed += 1


@dataclass
class Loader:
    """Hands out FixedDetectors; a scale in `missing` has no weights; a load waits until `gate` is set."""

    missing: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    loaded: list[FixedDetector] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    wishes: list[ModelWish] = field(default_factory=list)

    def __post_init__(self):
        self.gate.set()

    def __call__(self, wish: ModelWish | str) -> FixedDetector:
        wish = ModelWish(wish) if isinstance(wish, str) else wish
        choice = wish.choice
        self.asked.append(choice)
        self.wishes.append(wish)
        assert self.gate.wait(10)
        if choice in self.missing:
            raise WeightsError(f"Model {choice.upper()} has no weights on this computer yet: put them somewhere")
        if wish.device == "cuda:7":
            raise BackendUnavailable("backend 'torch-cuda' has no device 'cuda:7' here")
        device = "cpu" if wish.device == "auto" else wish.device
        precision = "fp32" if wish.precision == "auto" else wish.precision
        detector = FixedDetector(model_id=choice, info=BackendInfo("openvino", device, precision, (416, 416)))
        self.loaded.append(detector)
        return detector

    def find(self, choice: str) -> Path:
        if choice in self.missing:
            raise WeightsError(f"no weights for {choice}")
        return Path(__file__)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Wait for other threads without Qt's event loop."""

    def wait(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            threading.Event().wait(0.005)

    return wait


@pytest.fixture(autouse=True)
def no_qt_warning() -> Iterator[None]:
    messages: list[str] = []

    def take(kind, _context, message):
        if kind not in (QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg) and message not in OF_THE_PLUGIN:
            messages.append(message)

    previous = qInstallMessageHandler(take)
    yield
    qInstallMessageHandler(previous)
    assert messages == []


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert left == set()


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def make_session(loader: Loader, tmp_path: Path) -> Iterator[Callable[..., Session]]:
    made = []

    def make(**changes) -> Session:
        arguments = {
            "load_detector": loader,
            "find": loader.find,
            "list_devices": lambda: {"cpu": "Processor <1>", "cuda:0": "GPU & co", "cuda:7": "gone"},
            "settings_file": tmp_path / "config" / "settings.json",
            "pictures": tmp_path / "pictures",
            "videos": tmp_path / "videos",
        }
        made.append(Session(**{**arguments, **changes}))
        return made[-1]

    yield make
    loader.gate.set()
    for session in made:
        assert session.close() == []


@pytest.fixture
def session(make_session) -> Session:
    return make_session()


@pytest.fixture
def theme(qapp) -> Theme:
    return Theme(qapp, "light")


@pytest.fixture
def make_window(qtbot, theme) -> Iterator[Callable[[Session], Window]]:
    windows = []

    def make(session: Session) -> Window:
        window = Window(session, theme)
        qtbot.addWidget(window)
        window.show()
        windows.append(window)
        return window

    yield make
    for window in windows:
        window.close()


@pytest.fixture
def window(make_window, session) -> Window:
    return make_window(session)


@pytest.fixture
def playing(qtbot, window, session):
    """A window that plays the test pattern with N."""
    session.start(source=PATTERN)
    qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=10_000)
    qtbot.waitUntil(lambda: len(session.shown.detections) == 3)
    return window


@pytest.fixture
def player(qtbot, window, session, clip):
    """A window with the clip (2.4 s, 25 fps), paused."""
    session.start(source=clip)
    qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=10_000)
    session.pause()
    qtbot.waitUntil(lambda: session.state.phase is State.PAUSED)
    return window


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4")


@pytest.fixture
def make_clip() -> Callable[..., Path]:
    return write_clip


def write_clip(path: Path, *, frames: int = 60, size_wh: tuple[int, int] = (320, 240), rate: int = 25) -> Path:
    """A grey ramp: frame number i has the grey value 4 i, so that a picture tells its number."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
        stream.time_base = Fraction(1, 12800)
        for i in range(frames):
            rgb = np.full((size_wh[1], size_wh[0], 3), min(255, 4 * i), np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = i * 512 * 25 // rate, Fraction(1, 12800)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
