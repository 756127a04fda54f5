"""Pictures to compare an exported file with the network on: frames of the bundled clip, and made ones."""

from pathlib import Path

import numpy as np

from ledetr.chain.clock import MonotonicClock
from ledetr.chain.sources import open_source, parse_source
from ledetr.preprocess import preprocess
from ledetr.weights_file import search_folders

CLIP_FRAMES = 3
MADE_PICTURES = 4


def default_pictures(input_hw: tuple[int, int]) -> dict[str, np.ndarray]:
    """Frames of the bundled clip, where it is, and made pictures, by name; seven in all with the clip."""
    clips = [folder.parent / "sample.mp4" for folder in search_folders()]
    clip = next((path for path in clips if path.is_file()), None)
    frames = {} if clip is None else _clip_frames(clip)
    return frames | _made_pictures(input_hw, CLIP_FRAMES + MADE_PICTURES - len(frames))


def _clip_frames(clip: Path) -> dict[str, np.ndarray]:
    """Frames from the start, a third and two thirds of a clip."""
    source = open_source(parse_source(clip), clock=MonotonicClock())
    frames = {}
    try:
        for third in range(CLIP_FRAMES):
            pts_s = third / CLIP_FRAMES * (source.info.duration_s or 0.0)
            source.seek(pts_s)
            frame = source.read()
            if frame is not None:
                frames[f"{clip.name} at {pts_s:.1f} s"] = np.array(frame.rgb)
    finally:
        source.close()
    return frames


def _made_pictures(input_hw: tuple[int, int], count: int) -> dict[str, np.ndarray]:
    """Smooth random colours, finer from one to the next: closer to photographs than plain noise."""
    random = np.random.default_rng(0)
    sides = [3 * 2**i for i in range(count)]
    tiles = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]
    return {f"made of {side}x{side}": preprocess(tile, input_hw)[0] for side, tile in zip(sides, tiles, strict=True)}
