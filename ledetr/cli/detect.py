"""`ledetr detect`: pictures, videos and live sources, given back with boxes, and lists of what was found."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ledetr.chain.images_out import ImagesReport
from ledetr.chain.video import VideoProgress, VideoReport
from ledetr.cli.detect_jobs import Job, Outcome, Report, Wish, class_names_of, cut_of, planned_jobs, tracking_of
from ledetr.cli.interruption import stop_on_ctrl_c
from ledetr.cli.one_document import one_document
from ledetr.cli.progress import Show, shown_progress
from ledetr.detector import Detector
from ledetr.zones import ShapeCount, load_zones


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A video, a picture, a folder, a pattern such as 'dir/*.jpg', a .txt list, an address (rtsp://...), "
            "camera:0, screen:0 or test:720p30.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str, typer.Option("-m", "--model", help="n, m, l, x, or a file: .safetensors, .onnx, .xml.")
    ] = "n",
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="File, or folder for several sources. Default: NAME_boxes in the current folder, or nothing where "
            "only --save-... files are asked for.",
        ),
    ] = None,
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score. Default: the threshold of the weights, else 0.5.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Only these, by name: person,car.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    backend: Annotated[str, typer.Option(help="auto, torch-cuda, torch-cpu, openvino or onnx.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    imgsz: Annotated[int | None, typer.Option(min=32, help="Side of the network input; a multiple of 32.")] = None,
    save_json: Annotated[Path | None, typer.Option(help="One JSON document: a file, or a folder.")] = None,
    save_jsonl: Annotated[Path | None, typer.Option(help="JSON, one line a picture.")] = None,
    save_csv: Annotated[Path | None, typer.Option(help="A table, one line a box.")] = None,
    save_coco: Annotated[Path | None, typer.Option(help="COCO results, to be scored by `ledetr eval`.")] = None,
    save_mot: Annotated[Path | None, typer.Option(help="MOTChallenge text, one line a tracked box.")] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Ids that stay with things, from 1 in each source; draws their trails.")
    ] = False,
    track_buffer: Annotated[
        float | None,
        typer.Option(
            min=0, max=3600, help="Seconds a thing may be hidden and keep its id. Default: 2.", metavar="SECONDS"
        ),
    ] = None,
    zones: Annotated[
        Path | None, typer.Option(help="A JSON file of zones and lines: who is inside, who went in and out.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="h264, hevc, av1, vp9 or ffv1. Default: h264, and vp9 in .webm.")
    ] = None,
    crf: Annotated[
        int | None, typer.Option(min=0, max=63, help="Quality; lower is better and larger. Default: 20 for h264.")
    ] = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave the sound out.")] = False,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Class names beside the boxes.")] = True,
    scores: Annotated[bool, typer.Option("--scores/--no-scores", help="Scores beside the names.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there, instead of writing 'name (2).mp4'.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a video where an earlier run of the same command was cut off.")
    ] = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many pictures.")] = None,
    start: Annotated[str | None, typer.Option(help="From this time of a video on: 12.5 or 1:02:03.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to this time of a video.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Only every so many-th picture of a video.")] = 1,
    every_frame: Annotated[
        bool | None, typer.Option("--every-frame/--latest", help="Live sources: lose nothing, or be on time (default).")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a lost live source is tried again.")] = 10,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Run a model that has no weights.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Find objects and give the source back with boxes: same frames, same times, same sound, upright, same colours.

    Ctrl-C ends at the current picture and keeps a playable name.partial.mp4; a second one leaves at once.
    """
    side_paths = {"json": save_json, "jsonl": save_jsonl, "csv": save_csv, "coco": save_coco, "mot": save_mot}
    wish = Wish(
        conf=conf,
        labels=labels,
        scores=scores,
        codec=codec,
        crf=crf,
        audio=not no_audio,
        overwrite=overwrite,
        resume=resume,
        cut=cut_of(start, end, max_frames, stride),
        every_frame=every_frame,
        retries=retries,
        tracking=tracking_of(track, track_buffer, zones, save_mot),
        zones=None if zones is None else load_zones(zones),
    )
    names = class_names_of(classes)
    with one_document(json) as document:
        wanted_sides = {kind: path for kind, path in side_paths.items() if path is not None}
        jobs = planned_jobs(sources, output, wanted_sides, wish)
        outcome = Outcome()
        jobs = [job for job in jobs if outcome.survives(job, lambda job: job.check(wish), single=len(jobs) == 1)]
        outcome.raise_if_all_failed(jobs)
        with Detector.load(
            model,
            backend=backend,
            device=device,
            precision=precision,
            imgsz=imgsz,
            random_weights=random_weights,
        ) as detector:
            if names is not None:
                wish = replace(wish, class_ids=detector.class_ids(names))
            with stop_on_ctrl_c() as stop:
                for job in jobs:
                    with shown_progress(job.spec.display_name, unit="pictures", quiet=quiet) as show:
                        outcome.run(job, detector, wish, _follow(show), stop, single=len(sources) == 1)
            document.update(_document(detector, outcome))
            if not json:
                _print_summary(detector, outcome)
    outcome.raise_for_failures()


def _follow(show: Show) -> Callable[[VideoProgress], None]:
    return lambda progress: show(progress.frames, progress.total, progress.seconds_left, fps=progress.fps)


def _print_summary(detector: Detector, outcome: Outcome) -> None:
    info = detector.info
    height, width = info.input_hw
    typer.echo(f"Model {detector.model_id} on {info.name}, {info.device}, {info.precision}, input {width}x{height}.")
    if detector.random_weights:
        typer.echo("RANDOM WEIGHTS: this model has learnt nothing, its boxes mean nothing.")
    for job, report in outcome.done:
        files = [report.path, *report.side_files.values()]
        places = ", ".join(str(path) for path in files if path is not None)
        found = ", ".join(f"{name} {count}" for name, count in list(report.boxes_by_class.items())[:5])
        typer.echo(f"{job.spec.display_name} -> {places}")
        typer.echo(f"  {report.frames} pictures, {report.boxes} boxes{f' ({found})' if found else ''}")
        typer.echo(f"  {report.fps:.1f} fps end to end ({_stages(report)})")
        typer.echo(f"  {report.wall_s:.1f} s in all, without loading the model")
        if isinstance(report, VideoReport) and report.tracks:
            typer.echo(f"  {report.tracks} tracks")
        for shape in report.zones if isinstance(report, VideoReport) else ():
            typer.echo(f"  {_zone_line(shape)}")
        for note in report.notes if isinstance(report, VideoReport) else ():
            typer.echo(f"  {note}")


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


def _document(detector: Detector, outcome: Outcome) -> dict[str, Any]:
    info = detector.info
    return {
        "model": detector.model_id,
        "random_weights": detector.random_weights,
        "backend": {"name": info.name, "device": info.device, "precision": info.precision, "input_hw": info.input_hw},
        "results": [_result(job, report) for job, report in outcome.done],
        "failed": [{"source": name, "error": str(error)} for name, error in outcome.failed],
    }


def _result(job: Job, report: Report) -> dict[str, Any]:
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
        row["tracks"] = report.tracks
        row["zones"] = [shape.to_json() for shape in report.zones]
    return row
