"""How large an export is against its source, and what is lost: by encoder setting, over real clips.

    python -m benchmarks.sizes                              # the settings below, as a table
    python -m benchmarks.sizes --only "crf 20" "crf 20, capped" --clips ../shared/data/clips

The pictures are written without any boxes, by the product's own writer, so that what differs is the encoder's doing:
PSNR of the luma over all pictures together, and the mean SSIM (8 x 8 windows) of every fifth one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from ledetr.chain import recorder
from ledetr.chain.recorder import VideoWriter
from ledetr.chain.video_file import open_video_container
from ledetr.chain.video_outputs import most_bits_per_s
from ledetr.chain.video_reader import Cut, Picture, VideoReader

CLIPS = Path(__file__).parents[1] / ".." / "shared" / "data" / "clips"
MOST_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class Setting:
    """Of x264. capped: with the product's limit of bits a second, which follows the source."""

    crf: int
    preset: str
    capped: bool = False


SETTINGS = {
    "crf 20": Setting(20, "veryfast"),
    "crf 23": Setting(23, "veryfast"),
    "crf 20, capped": Setting(20, "veryfast", capped=True),
    "crf 20 faster, capped": Setting(20, "faster", capped=True),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """ratio: bytes of the result's pictures over those of the source's. psnr_db, ssim: of the luma."""

    ratio: float
    psnr_db: float
    ssim: float


def measure(clip: Path, setting: Setting, folder: Path) -> Outcome:
    """Write the clip anew and compare it with what went in."""
    result = _write(clip, setting, folder / "out.mp4")
    psnr_db, ssim = _compare(clip, result)
    return Outcome(bytes_of_pictures(result) / bytes_of_pictures(clip), psnr_db, ssim)


def bytes_of_pictures(path: Path) -> int:
    """Of all packets of the video track."""
    with open_video_container(path) as container:
        return sum(packet.size for packet in container.demux(container.streams.video[0]))


def _write(clip: Path, setting: Setting, target: Path) -> Path:
    codec = recorder.CODECS["h264"]
    recorder.CODECS["h264"] = replace(codec, options={**codec.options, "preset": setting.preset})
    try:
        with VideoReader(clip, cut=Cut(), stopped=threading.Event()) as reader:
            writer = VideoWriter(
                target, width=reader.size_wh[0], height=reader.size_wh[1], time_base=reader.time_base,
                rate=reader.rate, colour=reader.colour, crf=setting.crf, shift_s=reader.shift_s, overwrite=True,
                most_bits_per_s=most_bits_per_s(reader) if setting.capped else None,
            )  # fmt: skip
            for item in reader.items():
                if isinstance(item, Picture):
                    writer.write(item.rgb, item.pts, item.duration)
            return writer.finish()
    finally:
        recorder.CODECS["h264"] = codec


def _compare(clip: Path, result: Path) -> tuple[float, float]:
    errors, pixels, similar = 0.0, 0, []
    for number, (one, two) in enumerate(zip(_lumas(clip), _lumas(result), strict=True)):
        errors += float(np.square(one - two).sum())
        pixels += one.size
        if number % 5 == 0:
            similar.append(ssim_of(one, two))
    mean = errors / pixels
    return (float("inf") if mean == 0 else 10 * np.log10(255**2 / mean)), float(np.mean(similar))


def _lumas(path: Path) -> Iterator[np.ndarray]:
    with VideoReader(path, cut=Cut(), stopped=threading.Event()) as reader:
        for item in reader.items():
            if isinstance(item, Picture):
                yield cv2.cvtColor(item.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)


def ssim_of(one: np.ndarray, two: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) with 8 x 8 windows; (H, W) float32 in 0..255."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (8, 8))

    mean_one, mean_two = blurred(one), blurred(two)
    spread_one = blurred(one * one) - mean_one**2
    spread_two = blurred(two * two) - mean_two**2
    both = blurred(one * two) - mean_one * mean_two
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_one * mean_two + c1) * (2 * both + c2)
    return float((above / ((mean_one**2 + mean_two**2 + c1) * (spread_one + spread_two + c2))).mean())


def main() -> int:
    """Prints one row a clip and setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=Path, default=CLIPS, help="a folder of videos")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    args = parser.parse_args()
    clips = [path for path in args.clips.iterdir() if path.suffix in (".mp4", ".webm", ".mkv")]
    clips.sort(key=lambda path: path.stat().st_size)
    print("| clip | kbit/s |", " | ".join(args.only), "|")
    print("| --- |" + " --- |" * (1 + len(args.only)))
    above = dict.fromkeys(args.only, 0)
    with tempfile.TemporaryDirectory() as name:
        for clip in clips:
            with open_video_container(clip) as container:
                seconds = Fraction(container.duration or 1, av.time_base)
            cells = []
            for setting in args.only:
                seen = measure(clip, SETTINGS[setting], Path(name))
                above[setting] += seen.ratio > MOST_RATIO
                cells.append(f"{seen.ratio:.2f} x, {seen.psnr_db:.1f} dB, {seen.ssim:.4f}")
            rate = float(bytes_of_pictures(clip) * 8 / 1000 / seconds)
            print(f"| {clip.name} | {rate:.0f} |", " | ".join(cells), "|", flush=True)
    print(f"\nAbove {MOST_RATIO:g} x:", ", ".join(f"{setting} {count}" for setting, count in above.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
