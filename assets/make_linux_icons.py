"""The icon at the sizes that Linux desktops ask for, from icons/app.svg.

    python assets/make_linux_icons.py

Written: linux/icons/<size>.png. `ledetr gui --install-desktop` copies them, so that installing needs no renderer.
"""

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QRectF
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

ASSETS = Path(__file__).parent
SIZES = (16, 22, 24, 32, 48, 64, 128, 256, 512)


def render(svg: Path, size: int) -> QImage:
    """size x size pixels with a transparent ground."""
    image = QImage(size, size, QImage.Format.Format_ARGB32)
    image.fill(0)
    painter = QPainter(image)
    QSvgRenderer(str(svg)).render(painter, QRectF(0, 0, size, size))
    painter.end()
    return image


def main() -> None:
    """Write all sizes."""
    app = QGuiApplication.instance() or QGuiApplication([])
    folder = ASSETS / "linux" / "icons"
    folder.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        render(ASSETS / "icons" / "app.svg", size).save(str(folder / f"{size}.png"))
    del app


if __name__ == "__main__":
    main()
