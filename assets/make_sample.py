"""Cut assets/sample.mp4 from two clips whose licence allows it (see CREDITS.md).

    python assets/make_sample.py ../shared/data/clips

People on a campus in silence, then a man and a dog on a bed with their own sound, each cut to 16:9 and scaled to
960x540. The parts keep their own frame times, so that the sample has a variable rate.
"""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from ledetr.chain.colour import rgb_to_video_frame, tag_encoder, upright_rgb
from ledetr.frame import Colour

WIDTH, HEIGHT = 960, 540
TIME_BASE = Fraction(1, 90_000)
SOUND_RATE = 44_100
BT709 = Colour(matrix=1, full_range=False, primaries=1, transfer=1)
# file, from which second, how many seconds, loudness of its sound
PARTS = (
    ("vtest_vfr.mp4", 0.0, 5.0, 0.0),
    ("person_dog_aac_bt709.mp4", 0.0, 4.97, 1.0),
)
TARGET = Path(__file__).parent / "sample.mp4"


def main(clips: Path) -> None:
    with av.open(str(TARGET), "w", options={"movflags": "faststart"}) as output:
        output.metadata["comment"] = "Sources and licences: assets/CREDITS.md of Le-DETR"
        video = _video_stream(output)
        sound = output.add_stream("aac", rate=SOUND_RATE, bit_rate=96_000, layout="stereo")
        begin_s = 0.0
        for name, from_s, length_s, loudness in PARTS:
            for rgb, time_s in _pictures(clips / name, from_s, length_s):
                frame = rgb_to_video_frame(rgb, BT709)
                frame.pts, frame.time_base = round((begin_s + time_s) / TIME_BASE), TIME_BASE
                output.mux(video.encode(frame))
            for samples in _sound(clips / name, from_s, length_s, loudness, begin_s):
                output.mux(sound.encode(samples))
            begin_s += length_s
        output.mux(video.encode(None))
        output.mux(sound.encode(None))


def _video_stream(output: av.container.OutputContainer) -> av.VideoStream:
    options = {"crf": "25", "preset": "slow"}
    video = output.add_stream("libx264", rate=Fraction(30_000, 1001), options=options)
    video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    video.time_base = video.codec_context.time_base = TIME_BASE
    video.codec_context.gop_size = 60
    tag_encoder(video.codec_context, BT709)
    return video


def _pictures(path: Path, from_s: float, length_s: float) -> Iterator[tuple[np.ndarray, float]]:
    with av.open(str(path)) as source:
        for frame in source.decode(video=0):
            time_s = float(frame.pts * frame.time_base) - from_s
            if time_s >= length_s:
                return
            if time_s >= 0:
                yield _fitted(upright_rgb(frame)), time_s


def _fitted(rgb: np.ndarray) -> np.ndarray:
    """The middle of the picture in 16:9, at the size of the sample."""
    height = min(rgb.shape[0], round(rgb.shape[1] * HEIGHT / WIDTH))
    top = (rgb.shape[0] - height) // 2
    smaller = height > HEIGHT
    middle = np.ascontiguousarray(rgb[top : top + height])
    return cv2.resize(middle, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _sound(path: Path, from_s: float, length_s: float, loudness: float, begin_s: float) -> Iterator[av.AudioFrame]:
    """Exactly length_s of stereo sound, silent where the clip is shorter."""
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_RATE)
    with av.open(str(path)) as source:
        frames = source.decode(audio=0) if source.streams.audio else ()
        pieces = [piece.to_ndarray() for frame in frames for piece in resampler.resample(frame)]
    samples = np.concatenate([np.zeros((2, 0), np.float32), *pieces], axis=1) * np.float32(loudness)
    begin, length = round(begin_s * SOUND_RATE), round((begin_s + length_s) * SOUND_RATE) - round(begin_s * SOUND_RATE)
    samples = samples[:, round(from_s * SOUND_RATE) :][:, :length]
    samples = np.pad(samples, ((0, 0), (0, max(0, length - samples.shape[1]))))
    for start in range(0, length, 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "stereo")
        frame.sample_rate, frame.time_base, frame.pts = SOUND_RATE, Fraction(1, SOUND_RATE), begin + start
        yield frame


if __name__ == "__main__":
    main(Path(sys.argv[1]))
