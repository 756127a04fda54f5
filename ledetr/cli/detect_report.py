"""What `ledetr detect` says at the end: lines for people, or rows of one JSON document."""

from collections.abc import Mapping
from typing import Any

import typer

from ledetr.chain.images_out import ImagesReport
from ledetr.chain.video import VideoReport
from ledetr.cli.detect_jobs import Job, Outcome, Report
from ledetr.detector import Detector
from ledetr.zones import ShapeCount


def print_summary(detector: Detector, outcome: Outcome) -> None:
    """The model, then a few lines for each source that is done."""
    print_engine(engine_of(detector))
    for job, report in outcome.done:
        files = [report.path, *report.side_files.values()]
        places = ", ".join(str(path) for path in files if path is not None)
        if isinstance(report, VideoReport) and len(report.parts) > 1:
            places += f" and {len(report.parts) - 1} more parts"
        typer.echo(f"{job.spec.display_name} -> {places}")
        typer.echo(f"  {report.frames} pictures, {found_line(report.boxes, report.boxes_by_class)}")
        typer.echo(f"  {report.fps:.1f} fps end to end ({_stages(report)})")
        typer.echo(f"  {report.wall_s:.1f} s in all, without loading the model")
        if isinstance(report, VideoReport) and report.tracks:
            typer.echo(f"  {report.tracks} tracks")
        for shape in report.zones if isinstance(report, VideoReport) else ():
            typer.echo(f"  {_zone_line(shape)}")
        for note in report.notes if isinstance(report, VideoReport) else ():
            typer.echo(f"  {note}")


def print_engine(engine: Mapping[str, Any]) -> None:
    """The line about the model; engine: see engine_of."""
    backend = engine["backend"]
    height, width = backend["input_hw"]
    typer.echo(
        f"Model {engine['model']} on {backend['name']}, {backend['device']}, {backend['precision']}, "
        f"input {width}x{height}."
    )
    if engine["random_weights"]:
        typer.echo("RANDOM WEIGHTS: this model has learnt nothing, its boxes mean nothing.")


def found_line(boxes: int, by_class: Mapping[str, int]) -> str:
    """The number of boxes, and of those of the most frequent classes."""
    found = ", ".join(f"{name} {count}" for name, count in list(by_class.items())[:5])
    return f"{boxes} boxes{f' ({found})' if found else ''}"


def _zone_line(shape: ShapeCount) -> str:
    crossed = f"in {_by_class(shape.entered)}, out {_by_class(shape.left)}"
    if shape.kind == "line":
        return f"line {shape.name}: {crossed}"
    stays = f"{shape.visits} visits of {shape.dwell_mean_s:.1f} s, at most {shape.dwell_max_s:.1f} s"
    return f"zone {shape.name}: {crossed}; at the end {_by_class(shape.now)}; {stays}"


def _by_class(counts: Mapping[str, int]) -> str:
    return " + ".join(f"{count} {name}" for name, count in counts.items()) or "0"


def _stages(report: Report) -> str:
    if isinstance(report, ImagesReport) or not report.stage_ms:
        return "read, detect, draw and write"
    ms = ", ".join(f"{stage} {value:.1f} ms" for stage, value in report.stage_ms.items())
    return f"per picture, overlapping: {ms}"


def engine_of(detector: Detector) -> dict[str, Any]:
    """Which model runs on what, as JSON values."""
    info = detector.info
    return {
        "model": detector.model_id,
        "random_weights": detector.random_weights,
        "backend": {
            "name": info.name,
            "device": info.device,
            "precision": info.precision,
            "input_hw": list(info.input_hw),
        },
    }


def document_of(detector: Detector, outcome: Outcome) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        **engine_of(detector),
        "results": [result_row(job, report) for job, report in outcome.done],
        "failed": failed_rows(outcome),
    }


def failed_rows(outcome: Outcome) -> list[dict[str, str]]:
    """The sources that could not be done, and why."""
    return [{"source": name, "error": str(error)} for name, error in outcome.failed]


def result_row(job: Job, report: Report) -> dict[str, Any]:
    """One source that is done, as JSON values."""
    row: dict[str, Any] = {
        "source": job.spec.display_name,
        "output": None if report.path is None else str(report.path),
        "side_files": {kind: str(path) for kind, path in report.side_files.items()},
        "frames": report.frames,
        "boxes": report.boxes,
        "boxes_by_class": dict(report.boxes_by_class),
        "wall_s": round(report.wall_s, 3),
        "fps_end_to_end": round(report.fps, 2),
    }
    if isinstance(report, VideoReport):
        row["media_s"] = round(report.media_s, 6)
        row["stage_ms"] = {stage: round(value, 3) for stage, value in report.stage_ms.items()}
        row["notes"] = list(report.notes)
        row["parts"] = [str(path) for path in report.parts]
        row["tracks"] = report.tracks
        row["zones"] = [shape.to_json() for shape in report.zones]
    return row
