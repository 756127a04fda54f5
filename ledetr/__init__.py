"""Le-DETR: real-time object detection on pictures and video.

The front door: Detector, Detections, Frame, LeDetrError and the names of the scales. Importing it loads neither torch
nor an engine; each name is fetched when first used. Pipelines and video are in ledetr.chain.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ledetr.errors import LeDetrError

if TYPE_CHECKING:
    from ledetr.detections import Detections
    from ledetr.detector import Detector
    from ledetr.frame import Frame, FrameMeta

__version__ = "0.1.0"

SCALES = ("n", "m", "l", "x")

_HOME = {
    "Detections": "ledetr.detections",
    "Detector": "ledetr.detector",
    "Frame": "ledetr.frame",
    "FrameMeta": "ledetr.frame",
}

__all__ = ["SCALES", "Detections", "Detector", "Frame", "FrameMeta", "LeDetrError", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ledetr' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
