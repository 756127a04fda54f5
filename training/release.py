"""From a trained network to the file that ships: measure it, choose its threshold, write weights and model card."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ledetr.boxes import box_iou, xywh_to_xyxy
from ledetr.coco_file import CocoSet, read_coco
from ledetr.detector import Detector
from ledetr.evaluation import CocoRow, Scores, detect_all, score
from ledetr.files import whole_file
from ledetr.model.ledetr import LeDetr
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo

MATCH_IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class Operating:
    """The score at which precision and recall, both at IoU 0.5, have their best harmonic mean."""

    threshold: float
    precision: float
    recall: float
    f1: float


def best_f1(data: CocoSet, rows: Sequence[CocoRow]) -> Operating:
    """One threshold for all classes. Greedy matching by falling score, within picture and class; crowds are ignored."""
    scores, hits, ignored = _matches(data, rows)
    wanted = sum(not truth.crowd for truth in data.truths)
    order = np.argsort(-scores[~ignored], kind="stable")
    scores, hits = scores[~ignored][order], hits[~ignored][order]
    if not len(scores) or not wanted:
        return Operating(threshold=0.5, precision=0.0, recall=0.0, f1=0.0)
    found = np.cumsum(hits)
    precision, recall = found / np.arange(1, len(hits) + 1), found / wanted
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    best = int(np.argmax(f1))
    return Operating(
        threshold=float(scores[best]), precision=float(precision[best]), recall=float(recall[best]), f1=float(f1[best])
    )


def _matches(data: CocoSet, rows: Sequence[CocoRow]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every row: its score, whether it found an object of its own, whether it lies on a crowd."""
    truths: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    crowds: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    for truth in data.truths:
        (crowds if truth.crowd else truths).setdefault((truth.image_id, truth.category_id), []).append(truth.bbox)
    groups: dict[tuple[int, int], list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: -rows[i].score):
        groups.setdefault((rows[i].image_id, rows[i].category_id), []).append(i)
    scores = np.array([row.score for row in rows])
    hits, ignored = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    for key, members in groups.items():
        boxes = xywh_to_xyxy(np.array([rows[i].bbox for i in members]).reshape(-1, 4))
        overlap = box_iou(boxes, xywh_to_xyxy(np.array(truths.get(key, [])).reshape(-1, 4)))
        on_crowd = box_iou(boxes, xywh_to_xyxy(np.array(crowds.get(key, [])).reshape(-1, 4)))
        free = np.ones(overlap.shape[1], bool)
        for row, i in enumerate(members):
            candidates = np.where(free, overlap[row], 0.0)
            if candidates.size and candidates.max() >= MATCH_IOU:
                free[candidates.argmax()] = False
                hits[i] = True
            elif on_crowd.shape[1] and on_crowd[row].max() >= MATCH_IOU:
                ignored[i] = True
    return scores, hits, ignored


def only_pictures(data: CocoSet, keys: set[str]) -> CocoSet:
    """The part of a data set whose file names without ending are among `keys`."""
    pictures = tuple(p for p in data.pictures if p.path.stem in keys)
    kept = {p.image_id for p in pictures}
    return CocoSet(data.path, pictures, data.categories, tuple(t for t in data.truths if t.image_id in kept))


def measure(path: Path, data: CocoSet, *, imgsz: int | None = None) -> tuple[Scores, list[CocoRow]]:
    """COCO figures of a weights file, through the engine a user gets, in full precision."""
    with Detector.load(path, backend="openvino", precision="fp32", imgsz=imgsz) as detector:
        rows = detect_all(detector, data)
    return score(data, rows), rows


def release(
    model: LeDetr, info: WeightsInfo, target: Path, *, tune: CocoSet, held_out: Path
) -> tuple[WeightsInfo, Scores]:
    """Write `target` with threshold (chosen on `tune`) and figures (of `held_out`) in its metadata, and its card."""
    save_weights(target, model, info)
    scores, _ = measure(target, read_coco(held_out))
    _, tune_rows = measure(target, tune)
    larger, _ = measure(target, read_coco(held_out), imgsz=640)
    rows = ((f"{info.input_hw[0]} px (default)", scores), ("640 px", larger))
    note = (
        f"COCO box AP on `{held_out.stem}` ({scores.pictures} pictures, {scores.boxes} boxes; "
        "OpenVINO, fp32; 95 % interval by bootstrap over pictures). Most training pictures are from COCO val2017, "
        "so these figures compare our own runs only and are not val2017 results."
    )
    point = best_f1(tune, tune_rows)
    return write_measured(model, info, target, rows, point, measured_on=held_out.stem, note=note), scores


def write_measured(
    model: LeDetr,
    info: WeightsInfo,
    target: Path,
    rows: Sequence[tuple[str, Scores]],
    point: Operating,
    *,
    measured_on: str,
    note: str,
) -> WeightsInfo:
    """The weights with threshold and figures in their metadata, and their card beside them.

    rows: label and figures of each line of the card's table, the default setting first. measured_on: name of the data
    the figures are of. note: the paragraph above the table, which says what the figures mean.
    """
    scores = rows[0][1]
    figures: dict[str, float | str] = {k: round(v, 4) for k, v in scores.figures.items() if v is not None}
    figures["data"] = measured_on
    if scores.interval is not None:
        figures |= {"interval_low": round(scores.interval[0], 4), "interval_high": round(scores.interval[1], 4)}
    info = save_weights(target, model, replace(info, score_threshold=round(point.threshold, 3), ap=figures))
    with whole_file(target.with_suffix(".md")) as part:
        part.write_text(card(info, rows, point, note))
    return info


def card(info: WeightsInfo, rows: Sequence[tuple[str, Scores]], point: Operating, note: str) -> str:
    """The model card, as Markdown."""
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

    def line(label: str, s: Scores) -> str:
        cells = [f"{100 * v:.1f}" if (v := s.figures[n]) is not None else "-" for n in names]
        interval = "-" if s.interval is None else f"{100 * s.interval[0]:.1f} to {100 * s.interval[1]:.1f}"
        return f"| {label} | " + " | ".join(cells) + f" | {interval} |"

    return "\n".join(
        [
            f"# Le-DETR-{info.name.upper()}",
            "",
            f"Started from: {info.started_from}",
            "",
            f"Trained on: {info.trained_on}",
            "",
            f"Command: `{info.command}`",
            "",
            f"Licence: {info.licence}",
            "",
            f"SHA-256 of the tensors: `{info.sha256}`",
            "",
            note,
            "",
            "| input | AP | AP50 | AP75 | small | medium | large | interval of AP |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(line(label, scores) for label, scores in rows),
            "",
            f"Default score threshold {point.threshold:.3f}: best F1 on the tune split "
            f"(precision {point.precision:.2f}, recall {point.recall:.2f}, at IoU 0.5).",
            "",
        ]
    )
