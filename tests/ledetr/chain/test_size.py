"""A result of usual quality does not outgrow its source; one of a quality that was asked for may."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from ledetr.chain.video import process_video
from ledetr.chain.video_outputs import most_bits_per_s
from ledetr.chain.video_reader import Cut
from ledetr.detections import Detections


class FindsNothing:
    model_id, random_weights, score_threshold = "n", False, 0.5
    class_names, category_ids, info = ("thing",), (1,), None

    def detect_frame(self, rgb: np.ndarray, **_: Any) -> Any:
        return Detections.empty(), SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 s of a moving grain, of which the encoder kept a part; to keep that costs more than the limit allows."""
    path = tmp_path_factory.mktemp("coarse") / "clip.mp4"
    grain = np.random.default_rng(0).normal(128, 40, (240, 1320)).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"crf": "22", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(1000):
            part = grain[:, number : number + 320]
            frame = av.VideoFrame.from_ndarray(np.repeat(part[..., None], 3, axis=2).copy(), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def bytes_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size for packet in container.demux(video=0))


def test_usual_quality_stays_below_half_as_much_again(coarse: Path, tmp_path: Path) -> None:
    usual = process_video(coarse, tmp_path / "usual.mp4", FindsNothing())  # type: ignore[arg-type]
    asked = process_video(coarse, tmp_path / "asked.mp4", FindsNothing(), crf=12)  # type: ignore[arg-type]
    assert usual.path is not None and asked.path is not None and usual.frames == asked.frames == 1000
    assert bytes_of(usual.path) <= 1.5 * bytes_of(coarse) < bytes_of(asked.path)


def reader(**values: Any) -> Any:
    return SimpleNamespace(**{"size_wh": (1000, 500), "rate": Fraction(50), **values})


def test_the_limit_follows_the_source_down_to_a_floor() -> None:
    assert most_bits_per_s(reader(bits_per_s=1_000_000)) == 1_450_000
    assert most_bits_per_s(reader(bits_per_s=10_000)) == 250_000  # a hundredth of a bit for each pixel
    assert most_bits_per_s(reader(bits_per_s=10_000, size_wh=(100, 50))) == 150_000
    assert most_bits_per_s(reader(bits_per_s=None)) is None


def test_every_other_picture_may_have_half_the_bits(coarse: Path) -> None:
    import threading

    from ledetr.chain.video_reader import VideoReader

    rates = []
    for stride in (1, 2):
        with VideoReader(coarse, cut=Cut(stride=stride), stopped=threading.Event()) as one:
            rates.append(one.bits_per_s)
    assert rates[0] == pytest.approx(bytes_of(coarse) * 8 / 40, rel=0.02)
    assert rates[1] == pytest.approx(rates[0] / 2, abs=1)
