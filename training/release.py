"""From a trained network to the file that ships: measure it, choose its threshold, write weights and model card."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ledetr.coco_file import CocoSet, read_coco
from ledetr.detector import Detector
from ledetr.evaluation import CocoRow, Scores, detect_all, run_coco, score
from ledetr.files import whole_file
from ledetr.matching import Matching, matching_of
from ledetr.model.ledetr import LeDetr
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo


@dataclass(frozen=True, kw_only=True)
class Operating:
    """The score at which precision and recall, both at IoU 0.5, have their best harmonic mean."""

    threshold: float
    precision: float
    recall: float
    f1: float


def best_f1(matching: Matching) -> Operating:
    """One threshold for all classes, from the matches of an evaluation; what COCO leaves out is left out here too."""
    order = np.argsort(-matching.score[matching.counted], kind="stable")
    scores, hits = matching.score[matching.counted][order], matching.hit[matching.counted][order]
    wanted = int((~matching.truth_crowd).sum())
    if not len(scores) or not wanted:
        return Operating(threshold=0.5, precision=0.0, recall=0.0, f1=0.0)
    found = np.cumsum(hits)
    precision, recall = found / np.arange(1, len(hits) + 1), found / wanted
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # a threshold takes all of one score or none
    best = int(np.argmax(f1))
    return Operating(
        threshold=float(scores[best]), precision=float(precision[best]), recall=float(recall[best]), f1=float(f1[best])
    )


def one_line(text: str) -> str:
    """Printable and not too long, as the file's metadata must be."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:5000]


def only_pictures(data: CocoSet, keys: set[str]) -> CocoSet:
    """The part of a data set whose file names without ending are among `keys`."""
    pictures = tuple(p for p in data.pictures if p.path.stem in keys)
    kept = {p.image_id for p in pictures}
    return CocoSet(data.path, pictures, data.categories, tuple(t for t in data.truths if t.image_id in kept))


def measure(path: Path, data: CocoSet, *, imgsz: int | None = None) -> tuple[Scores, list[CocoRow]]:
    """COCO figures of a weights file, through the engine a user gets, in full precision."""
    rows = _found_in(path, data, imgsz)
    return score(data, rows), rows


def _found_in(path: Path, data: CocoSet, imgsz: int | None = None) -> list[CocoRow]:
    with Detector.load(path, backend="openvino", precision="fp32", imgsz=imgsz) as detector:
        return detect_all(detector, data)


def release(
    model: LeDetr, info: WeightsInfo, target: Path, *, tune: CocoSet, held_out: Path
) -> tuple[WeightsInfo, Scores]:
    """Write `target` with threshold (chosen on `tune`) and figures (of `held_out`) in its metadata, and its card."""
    save_weights(target, model, info)
    scores, _ = measure(target, read_coco(held_out))
    tune_rows = _found_in(target, tune)
    larger, _ = measure(target, read_coco(held_out), imgsz=640)
    rows = ((f"{info.input_hw[0]} px (default)", scores), ("640 px", larger))
    note = (
        f"COCO box AP on `{held_out.stem}` ({scores.pictures} pictures, {scores.boxes} boxes; "
        "OpenVINO, fp32; 95 % interval by bootstrap over pictures). Most training pictures are from COCO val2017, "
        "so these figures compare our own runs only and are not val2017 results."
    )
    point = best_f1(matching_of(tune, tune_rows, run_coco(tune, tune_rows)))
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
