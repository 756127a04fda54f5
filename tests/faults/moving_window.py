"""A window that is moved between a coarse and a fine screen while it plays; prints what was seen as JSON.

A program of its own, because the screens of Qt's offscreen platform are chosen when the application is made: a coarse
one up to column 1600, and a fine one beyond it.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PySide6.QtCore import QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication

from ledetr.backends.base import BackendInfo
from ledetr.detections import Detections
from ledetr_app.session import Session
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.window import Window

BOX = (200.3, 120.7, 420.3, 300.7)  # between pixels, so that its lines must be drawn anew for each scale


class FixedDetector:
    model_id, random_weights, score_threshold = "n", False, 0.5
    class_names, category_ids = ("thing",), (1,)
    info = BackendInfo("openvino", "cpu", "fp32", (64, 64))

    def detect_frame(self, rgb: np.ndarray, **_: Any) -> Any:
        found = Detections(
            np.array([BOX], np.float32), np.array([0.9], np.float32), np.array([0]), class_names=self.class_names
        )
        return found, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        pass


def wait_until(app: QApplication, condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("what was waited for never came")
        app.processEvents()
        time.sleep(0.002)


def pixels(image: Any) -> np.ndarray:
    rgb = image.convertToFormat(image.Format.Format_RGB888)
    rows = np.frombuffer(rgb.constBits(), np.uint8).reshape(rgb.height(), rgb.bytesPerLine())
    return rows[:, : 3 * rgb.width()].reshape(rgb.height(), rgb.width(), 3).copy()


def look(view: Any, picture: Any) -> dict[str, Any]:
    """How the view is painted at this moment."""
    seen, ratio = pixels(view.grab().toImage()), view.devicePixelRatioF()
    rect = view.picture_rect
    left, top = round(rect.x() * ratio), round(rect.y() * ratio)
    width, height = picture.size_wh
    part = seen[top : top + height, left : left + width]
    # Without the marks every pixel is the one that display prep made for this screen; the marks cover a little.
    equal = (np.abs(part.astype(int) - picture.bgrx[..., 2::-1]).max(axis=2) <= 2).mean()
    blocks = seen[: seen.shape[0] // 2 * 2, : seen.shape[1] // 2 * 2]
    blocks = blocks.reshape(blocks.shape[0] // 2, 2, blocks.shape[1] // 2, 2, 3)
    scale = width / picture.result.frame.meta.width
    left_block, top_block = int(left + BOX[0] * scale) // 2, int(top + BOX[1] * scale) // 2
    label = blocks[top_block - 14 : top_block + 2, :, left_block : left_block + 30]
    return {
        "ratio": ratio,
        "seen": seen.shape[1::-1],
        "picture": (width, height),
        "room": (rect.width() * ratio, rect.height() * ratio),
        "equal": float(equal),
        # Text that was drawn for a coarse screen and stretched would be made of blocks of four equal pixels.
        "blocks of four differ": float((np.ptp(label, axis=(1, 3)).max(axis=-1) > 40).mean()),
    }


def main() -> None:
    app = QApplication([])
    problems: list[str] = []
    plain = (QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg)
    qInstallMessageHandler(
        lambda kind, _, text: problems.append(text) if kind not in plain and "propagateSizeHints" not in text else None
    )
    folder = Path(sys.argv[1])
    session = Session(
        load_detector=lambda wish: FixedDetector(), find=lambda _: folder, pictures=folder, videos=folder,
        list_devices=lambda: {"cpu": "cpu"},
    )  # fmt: skip
    window = Window(session, Theme(app, "light"))
    window.resize(1000, 700)
    window.move(50, 50)
    window.show()
    view = window.view
    session.start(model="n", source="test:640x360p30")
    looks = []
    for x in (50, 1700, 50, 1700, 50):
        window.move(x, 50)
        ratio = 2.0 if x > 1600 else 1.0
        wait_until(app, lambda ratio=ratio: view.devicePixelRatioF() == ratio)
        number = 0 if session.shown is None else session.shown.number
        wait_until(app, lambda number=number: session.shown is not None and session.shown.number > number + 3)
        wait_until(app, lambda: len(session.shown.detections) == 1)
        session.pause()
        wait_until(app, lambda: not _behind(view, window.bridge.prep))
        looks.append(look(view, view._picture))
        session.play()
    window.close()
    left = session.close()
    print(json.dumps({"looks": looks, "problems": problems, "left": left}))


def _behind(view: Any, prep: Any) -> bool:
    """Whether the painted picture is not yet the one that this screen asks for."""
    picture, ratio = view._picture, view.devicePixelRatioF()
    if picture is not prep.picture or picture is None:
        return True
    rect = view.picture_rect
    return picture.size_wh != (round(rect.width() * ratio), round(rect.height() * ratio))


if __name__ == "__main__":
    main()
