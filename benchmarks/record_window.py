"""A short animated picture of the real window at work, for the README.

    QT_QPA_PLATFORM=offscreen python benchmarks/record_window.py docs/images/window.webp
    QT_QPA_PLATFORM=offscreen python benchmarks/record_window.py docs/images/window.webp --slow 4

Each frame is the window as it was, grabbed while it plays the bundled clip with scale N and its real weights. With
--slow the clip plays so many times slower and the frames are shown so many times faster: on a machine that is busy
with other things the motion stays even. The picture therefore says nothing about speed, and the status bar, whose
numbers would, is left out.
"""

import argparse
import io
from pathlib import Path

from driven_window import LOAD_LIMIT_S, OPEN_LIMIT_S, DrivenWindow
from PIL import Image
from PySide6.QtCore import QBuffer, QIODevice, QRect, Qt

from ledetr_app.model_loader import ModelWish

SAMPLE = Path(__file__).parents[1] / "assets" / "sample.mp4"
STREET_S = 4.8  # so long the clip shows a street, which is looped
MOST_BYTES = 3_000_000
SCAN_STEP = 14  # parts of the heat bar that are filled between two frames
QUALITIES = (72, 60, 50, 40, 30, 20)


class Recorder:
    """Plays a story and keeps a frame of it every 1 / fps seconds of the finished picture."""

    def __init__(self, driven: DrivenWindow, *, fps: int, slow: float, width: int) -> None:
        self.driven = driven
        self.frames: list[Image.Image] = []
        self._period_s = slow / fps
        self._fps = fps
        self._width = width

    def live(self, seconds: float) -> None:
        """Record so many seconds of the finished picture."""
        for _ in range(round(seconds * self._fps)):
            self.driven.live(self._period_s)
            self.frames.append(self._grab())

    def _grab(self) -> Image.Image:
        window = self.driven.window
        image = window.grab(QRect(0, 0, window.width(), window.statusBar().y())).toImage()
        image = image.scaledToWidth(self._width, Qt.TransformationMode.SmoothTransformation)
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        image.save(buffer, "BMP")
        return Image.open(io.BytesIO(buffer.data().data())).convert("RGB")


def story(recorder: Recorder) -> None:
    """Play, filter, switch to fewer layers, compare both, find with the heat bar, go there, track."""
    driven, session = recorder.driven, recorder.driven.session
    recorder.live(2.5)
    session.set_side_panel(True)
    recorder.live(1)
    for conf in (0.45, 0.4, 0.35, 0.3):
        session.set_conf(conf)
        recorder.live(0.3)
    session.set_side_panel(False)
    session.set_decoder_layers(1)
    recorder.live(1.5)
    session.set_decoder_layers(None)
    driven.wait(lambda: session.state.loading is None, LOAD_LIMIT_S)
    session.compare.with_model(ModelWish("n", decoder_layers=1))
    driven.wait(lambda: session.compare.of(session.shown), LOAD_LIMIT_S)
    for step in range(24):
        session.compare.set_split(0.5 + 0.4 * (1 - abs(step - 12) / 6))
        recorder.live(1 / 8)
    session.compare.off()
    session.pause()
    session.heat.toggle_scan()
    known = 0
    while session.heat.scanning:
        driven.live(0.2)
        heights = session.heat.heights()
        if heights is not None and (heights >= 0).sum() >= known + SCAN_STEP:
            known = int((heights >= 0).sum())
            recorder.live(1 / 8)
    source = session.state.source
    assert source is not None
    for place in (1.0, 6.5, 2.6):
        session.seek(source.start_s + place)
        driven.wait(lambda place=place: session.shown and session.shown.frame.meta.pts_s >= place, 20, must=False)
        recorder.live(0.75)
    session.clear_points()
    session.set_theme("dark")
    session.tracks.set_tracking(True)
    session.play()
    recorder.live(4)


def save(frames: list[Image.Image], path: Path, fps: int) -> int:
    """Write the animation at the best quality that keeps it below MOST_BYTES; its size."""
    for quality in QUALITIES:
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, quality=quality, method=4
        )
        size = path.stat().st_size
        if size <= MOST_BYTES:
            break
    return size


def main() -> None:
    """Record and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, help="a .webp file")
    parser.add_argument("--slow", type=float, default=1.0)
    parser.add_argument("--fps", type=int, default=8)
    parser.add_argument("--width", type=int, default=800)
    options = parser.parse_args()
    driven = DrivenWindow(theme="light")
    driven.window.resize(1120, 700)
    driven.use("n")
    driven.session.open_source(SAMPLE)
    driven.session.set_speed(max(0.25, 1 / options.slow))
    driven.wait(lambda: driven.session.shown, OPEN_LIMIT_S)
    driven.session.set_out(STREET_S)
    recorder = Recorder(driven, fps=options.fps, slow=options.slow, width=options.width)
    story(recorder)
    driven.close()
    size = save(recorder.frames, options.output, options.fps)
    seconds = len(recorder.frames) / options.fps
    print(f"{options.output}: {len(recorder.frames)} frames, {seconds:.1f} s, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
