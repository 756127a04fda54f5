"""Streams over a real socket that come back as something else (F5) or through a network that loses packets (F6)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from benchmarks.loopback import StreamServer, over_lossy_udp, transport_stream
from ledetr.chain.pipeline import Opened, Pipeline, Restored, Stalled, State
from ledetr.chain.sources import parse_source
from ledetr.tracking import Tracking


def grey(level: int, size_wh: tuple[int, int]) -> Callable[[int], np.ndarray]:
    return lambda _: np.full((size_wh[1], size_wh[0], 3), level, np.uint8)


@pytest.mark.parametrize(
    ("codec", "size_wh", "rate"),
    [
        ("mpeg2video", (64, 48), Fraction(25)),
        ("libx264", (96, 64), Fraction(25)),
        ("libx264", (64, 48), Fraction(50)),
        ("libx265", (160, 128), Fraction(15)),
    ],
    ids=["codec", "size", "rate", "all three"],
)
def test_what_comes_back_as_another_stream_is_read_anew(
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
    one_box: Any,
    codec: str,
    size_wh: tuple[int, int],
    rate: Fraction,
) -> None:
    monkeypatch.setattr("ledetr.chain.capture._RETRY_DELAYS_S", (0.05,))
    streams = [
        lambda: transport_stream(grey(60, (64, 48)), frames=30),
        lambda: transport_stream(grey(180, size_wh), codec=codec, rate=rate, paced=True),
    ]
    calls = itertools.count()
    server = StreamServer(lambda: streams[min(next(calls), 1)]())
    events: list[Any] = []
    results: list[Any] = []
    with Pipeline(one_box(), policy="every", tracking=Tracking(), on_event=events.append) as pipeline:
        pipeline.on_result = lambda: results.append(pipeline.latest())
        pipeline.open(parse_source(server.url))
        wait_until(lambda: results and results[-1].frame.rgb.mean() > 120)
        number = len(results)
        wait_until(lambda: len(results) > number + 5)
        assert pipeline.state is State.RUNNING
    server.close()
    assert [type(event) for event in events[:2]] == [Opened, Stalled]
    restored = next(event for event in events if isinstance(event, Restored))
    assert (restored.info.width, restored.info.height) == size_wh and restored.info.rate == rate
    before = [result for result in results if result.frame.rgb.mean() < 120]
    after = results[len(before) :]
    for result, level, (width, height) in [*((r, 60, (64, 48)) for r in before), *((r, 180, size_wh) for r in after)]:
        assert result.frame.rgb.shape == (height, width, 3)
        assert np.abs(result.frame.rgb.astype(int) - level).max() <= 4
    assert max(r.frame.meta.epoch for r in before) < min(r.frame.meta.epoch for r in after)
    # The box stands where it stood, and is still another thing.
    assert {int(r.detections.tracker_id[0]) for r in before} == {1}
    assert {int(r.detections.tracker_id[0]) for r in after} == {2}


def moving(number: int) -> np.ndarray:
    rgb = np.full((240, 320, 3), 30 + 5 * (number % 40), np.uint8)
    rgb[::4, ::4] = np.random.default_rng(number).integers(0, 255, (60, 80, 3))
    return rgb


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_lost_late_and_reordered_packets_are_survived_and_counted(
    wait_until: Callable[..., None], one_box: Any, codec: str
) -> None:
    sent, frames = [0], 200

    def counted() -> Iterator[bytes]:
        for number, piece in enumerate(transport_stream(moving, codec=codec, rate=Fraction(100), frames=frames)):
            sent[0] = number
            yield piece

    server = StreamServer(lambda: over_lossy_udp(counted(), lost=1 / 20, seed=5, pause_s=0.002))
    events: list[Any] = []
    behind: list[int] = []
    results: list[Any] = []

    def look() -> None:
        result = pipeline.latest()
        results.append(result)
        behind.append(sent[0] - round(result.frame.meta.pts_s * 100 - first_pts(results)))

    with Pipeline(one_box(), tracking=Tracking(), on_event=events.append) as pipeline:
        pipeline.on_result = look
        pipeline.open(parse_source(server.url))
        wait_until(lambda: any(isinstance(event, Stalled) for event in events))  # the stream's own end
        meters = pipeline.meters.snapshot()
    server.close()
    times = [result.frame.meta.pts_s for result in results]
    assert times == sorted(times) and len({result.frame.meta.epoch for result in results}) == 1
    assert meters.captured >= frames * 0.7 and meters.damaged >= 5
    assert max(behind[-20:]) <= max(behind[:20]) + 25  # a quarter of a second: nothing piles up


def first_pts(results: list[Any]) -> float:
    return float(results[0].frame.meta.pts_s) * 100


def test_a_stream_without_losses_has_nothing_damaged(wait_until: Callable[..., None], one_box: Any) -> None:
    server = StreamServer(lambda: over_lossy_udp(transport_stream(moving, frames=60), lost=0.0, seed=5))
    events: list[Any] = []
    with Pipeline(one_box(), policy="every", on_event=events.append) as pipeline:
        pipeline.open(parse_source(server.url))
        wait_until(lambda: any(isinstance(event, Stalled) for event in events))
        meters = pipeline.meters.snapshot()
    server.close()
    assert meters.captured >= 59 and meters.damaged == 0
