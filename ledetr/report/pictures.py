"""Pictures of a report: what was found beside what is there, drawn as everywhere, small, as data of the page."""

import base64
import io

import cv2
import numpy as np
from PIL import Image

from ledetr.chain.overlay import draw_marks, marks_of
from ledetr.coco_file import read_stored
from ledetr.detections import Detections
from ledetr.errors import SourceError
from ledetr.evaluated import Evaluated, PictureErrors
from ledetr.report.page import Markup, element, escaped, paragraph

LONG_SIDE_PX = 420
_QUALITY = 78


def worst_pictures(evaluated: Evaluated, most: int = 32) -> Markup:
    """The pictures with the most mistakes, in two halves: what was found, what is there.

    A picture that cannot be read is named with the reason: the report of a predictions file needs no pictures.
    """
    worst = evaluated.worst(most)
    if not worst:
        return paragraph("No picture has a mistake at this threshold.")
    of_picture = list(evaluated.matching.pictures())
    return element("div", *(_figure(evaluated, errors, *of_picture[errors.place]) for errors in worst), class_="pair")


def _figure(evaluated: Evaluated, errors: PictureErrors, detections: np.ndarray, truths: np.ndarray) -> Markup:
    words = f"{errors.picture.path.name}: {errors.missed} missed, {errors.false_alarms} wrong, {errors.found} found"
    try:
        rgb = read_stored(errors.picture.path)
    except SourceError as error:
        return element("figure", element("figcaption", f"{words}. Not shown: {error}"))
    matching = evaluated.matching
    shown = detections[matching.score[detections] >= evaluated.threshold]
    shown = shown[np.argsort(-matching.score[shown], kind="stable")]
    crowd_names = tuple(f"{name} (crowd)" for name in matching.names)
    crowd = matching.truth_crowd[truths]
    guesses = _boxes(matching.boxes_xyxy[shown], matching.score[shown], matching.label[shown], matching.names)
    there = _boxes(
        matching.truth_boxes_xyxy[truths],
        np.ones(len(truths)),
        matching.truth_label[truths] + len(matching.names) * crowd,
        (*matching.names, *crowd_names),
    )
    pair = np.concatenate([_drawn(rgb, guesses, scores=True), _drawn(rgb, there, scores=False)], axis=1)
    return element("figure", image(pair, f"found, and what is there, in {words}"), element("figcaption", words))


def image(rgb: np.ndarray, told: str) -> Markup:
    """(H, W, 3) uint8 RGB as an element whose data is a JPEG inside the page."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = rgb.shape[:2]
    return Markup(f'<img width="{width}" height="{height}" alt="{escaped(told)}" src="data:image/jpeg;base64,{data}">')


def _boxes(xyxy: np.ndarray, score: np.ndarray, label: np.ndarray, names: tuple[str, ...]) -> Detections:
    return Detections(xyxy.astype(np.float32), score.astype(np.float32), label.astype(np.int64), class_names=names)


def _drawn(rgb: np.ndarray, boxes: Detections, *, scores: bool) -> np.ndarray:
    """A copy, made smaller before it is drawn on, so that lines and letters stay readable; with a gap at its right."""
    height, width = rgb.shape[:2]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    small_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, small_wh, interpolation=cv2.INTER_AREA) if scale < 1 else rgb.copy()
    scaled = Detections(boxes.xyxy * np.float32(scale), boxes.confidence, boxes.class_id, class_names=boxes.class_names)
    small = draw_marks(small, marks_of(scaled, conf=0.0, scores=scores, size_hw=small.shape[:2]))
    return np.pad(small, ((0, 0), (0, 4), (0, 0)), constant_values=128)
