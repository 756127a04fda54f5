"""PySide6 6.12.0 on Python 3.11 loses one reference to None in every call without a result.

After some thousand calls, a few seconds of video, the interpreter aborts with "deallocating None". A failure here
means that this binding must not be used with this Python.
"""

import sys

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtWidgets import QLabel

CALLS = 300
# Other threads may take or drop a few references meanwhile; one a call is CALLS.
NOISE = 50


def test_calls_without_a_result_keep_the_references_of_none(qapp):
    label, image = QLabel(), QImage(8, 8, QImage.Format.Format_RGB32)
    painter = QPainter(image)
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        label.setText("x")
        painter.fillRect(QRectF(0, 0, 4, 4), QColor("red"))
    lost = before - sys.getrefcount(None)
    painter.end()
    assert lost < NOISE
