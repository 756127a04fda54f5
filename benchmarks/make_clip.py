"""A clip of constant rate and size for measuring `ledetr detect`, made from the bundled one.

    python benchmarks/make_clip.py out/clip_720p25.mp4
    ledetr detect out/clip_720p25.mp4 -m n -o out/measured.mp4 --overwrite

Every output frame is the newest source frame at its time, enlarged; the sound is left out.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

SAMPLE = Path(__file__).parents[1] / "assets" / "sample.mp4"


def frames_at_rate(source: Path, fps: int) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB pictures, one each 1 / fps seconds."""
    with av.open(str(source)) as container:
        shown: np.ndarray | None = None
        due_s = 0.0
        for frame in container.decode(video=0):
            while shown is not None and due_s < frame.time:
                yield shown
                due_s += 1 / fps
            shown = frame.to_ndarray(format="rgb24")
        if shown is not None:
            yield shown


def main() -> None:
    """Write the clip."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--source", type=Path, default=SAMPLE)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=int, default=25)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(args.output), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(args.fps), options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = args.width, args.height, "yuv420p"
        count = 0
        for rgb in frames_at_rate(args.source, args.fps):
            larger = cv2.resize(rgb, (args.width, args.height), interpolation=cv2.INTER_CUBIC)
            frame = av.VideoFrame.from_ndarray(larger, format="rgb24")
            frame.pts = count
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    print(f"{args.output}: {count} frames of {args.width}x{args.height} at {args.fps} fps")


if __name__ == "__main__":
    main()
