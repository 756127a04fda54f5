import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mss.exception import ScreenShotError

from ledetr.chain.clock import FakeClock
from ledetr.chain.sources import open_source, parse_source
from ledetr.errors import SourceError


class FakeScreens:
    """Two screens in the place of the real ones; the second begins at x = 40."""

    monitors = [  # noqa: RUF012, as mss has it
        {"left": 0, "top": 0, "width": 72, "height": 30},
        {"left": 0, "top": 0, "width": 40, "height": 30},
        {"left": 40, "top": 5, "width": 32, "height": 24},
    ]

    def __init__(self) -> None:
        self.closed = False
        self.error: Exception | None = None

    def grab(self, area: dict[str, int]) -> Any:
        if self.error:
            raise self.error
        bgra = np.zeros((area["height"], area["width"], 4), np.uint8)
        bgra[..., 0] = area["left"]
        bgra[..., 1] = area["top"]
        bgra[..., 2] = 200
        return SimpleNamespace(raw=bytearray(bgra.tobytes()), width=area["width"], height=area["height"])

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def screens(monkeypatch) -> FakeScreens:
    fake = FakeScreens()
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("ledetr.chain.screen.mss.mss", lambda: fake)
    return fake


def test_a_part_of_a_screen(screens) -> None:
    source = open_source(parse_source("screen:1,3,4,10,8"), clock=FakeClock())
    frame = source.read()
    assert frame.rgb.shape == (8, 10, 3) and tuple(frame.rgb[0, 0]) == (200, 9, 43)  # RGB, from left 43, top 9
    assert (source.info.live, source.info.width, source.info.height) == (True, 10, 8)
    source.close()
    assert screens.closed


def test_pictures_come_at_30_a_second_and_missed_ones_are_left_out(screens, wait_until) -> None:
    clock = FakeClock()
    source = open_source(parse_source("screen:0"), clock=clock)
    frames = []
    reader = threading.Thread(target=lambda: [frames.append(source.read()) for _ in range(3)], name="reader")
    reader.start()
    wait_until(lambda: len(frames) == 1 and "reader" in clock.sleepers())
    clock.advance(50_000_000)  # past the second moment, before the third
    wait_until(lambda: len(frames) == 2 and "reader" in clock.sleepers())
    assert clock.sleepers()["reader"] == pytest.approx(66_666_667, abs=1)
    clock.advance(20_000_000)
    reader.join(5)
    times_us = [frame.meta.pts for frame in frames]
    assert times_us == [0, 50_000, 70_000] and all(frame.meta.wall_time_s for frame in frames)


def test_interrupt_ends_a_waiting_read(screens) -> None:
    source = open_source(parse_source("screen:0"), clock=FakeClock())
    source.interrupt()
    assert source.read() is None


def test_sentences(screens, monkeypatch) -> None:
    with pytest.raises(SourceError, match=r"There is no screen 7; this machine has 2"):
        open_source(parse_source("screen:7"))
    with pytest.raises(SourceError, match=r"does not lie on screen 0, which is 40 x 30"):
        open_source(parse_source("screen:0,30,0,20,10"))
    source = open_source(parse_source("screen:0"))
    screens.error = ScreenShotError("XGetImage failed")
    with pytest.raises(SourceError, match="Cannot read screen 0 any further"):
        source.read()
    monkeypatch.setattr("ledetr.chain.screen.platform.system", lambda: "Linux")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(SourceError, match="under Wayland"):
        open_source(parse_source("screen:0"))


def test_no_display_is_one_sentence(monkeypatch) -> None:
    def no_display() -> None:
        raise ScreenShotError("Unable to open display")

    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("ledetr.chain.screen.mss.mss", no_display)
    with pytest.raises(SourceError, match="is there a display"):
        open_source(parse_source("screen:0"))
