"""`ledetr detect`: pictures, videos and live sources, given back with boxes, and lists of what was found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ledetr.chain.split import parse_split
from ledetr.chain.video import VideoProgress
from ledetr.cli.detect_jobs import Outcome, Wish, class_names_of, cut_of, planned_jobs, tracking_of
from ledetr.cli.detect_report import document_of, print_summary
from ledetr.cli.detect_spread import ModelWish, detect_spread
from ledetr.cli.interruption import stop_on_ctrl_c
from ledetr.cli.one_document import one_document
from ledetr.cli.progress import Show, shown_progress
from ledetr.detector import Detector
from ledetr.errors import UsageError
from ledetr.zones import load_zones


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
    split: Annotated[
        str | None,
        typer.Option(
            help="A video in parts, name_001.mp4 and so on: a new one after so long or before it is so large.",
            metavar="10m|500MB",
        ),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many pictures.")] = None,
    start: Annotated[str | None, typer.Option(help="From this time of a video on: 12.5 or 1:02:03.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to this time of a video.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Only every so many-th picture of a video.")] = 1,
    every_frame: Annotated[
        bool | None, typer.Option("--every-frame/--latest", help="Live sources: lose nothing, or be on time (default).")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a lost live source is tried again.")] = 10,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Run a model that has no weights.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="A folder of videos: so many at a time, each in a process of its own."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="A folder of videos: on the machines of this Ray cluster, host:port or auto; --jobs says how many "
            "at a time.",
            metavar="ADDRESS",
        ),
    ] = None,
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
        split=None if split is None else parse_split(split),
        cut=cut_of(start, end, max_frames, stride),
        every_frame=every_frame,
        retries=retries,
        tracking=tracking_of(track, track_buffer, zones, save_mot),
        zones=None if zones is None else load_zones(zones),
    )
    names = class_names_of(classes)
    model_wish = ModelWish(model, backend, device, precision, imgsz, random_weights)
    side_targets = {kind: path for kind, path in side_paths.items() if path is not None}
    if jobs is not None or cluster is not None:
        if split is not None:
            raise UsageError("--split is for one process; leave out --jobs and --cluster, or --split.")
        detect_spread(
            sources, output, side_targets, wish, model_wish, names,
            workers=jobs, cluster=cluster, json=json, quiet=quiet,
        )  # fmt: skip
        return
    with one_document(json) as document:
        planned = planned_jobs(sources, output, side_targets, wish)
        outcome = Outcome()
        todo = [job for job in planned if outcome.survives(job, lambda job: job.check(wish), single=len(planned) == 1)]
        outcome.raise_if_all_failed(todo)
        with Detector.load(model, **model_wish.options) as detector:
            if names is not None:
                wish = replace(wish, class_ids=detector.class_ids(names))
            with stop_on_ctrl_c() as stop:
                for job in todo:
                    with shown_progress(job.spec.display_name, unit="pictures", quiet=quiet) as show:
                        outcome.run(job, detector, wish, _follow(show), stop, single=len(sources) == 1)
            document.update(document_of(detector, outcome))
            if not json:
                print_summary(detector, outcome)
    outcome.raise_for_failures()


def _follow(show: Show) -> Callable[[VideoProgress], None]:
    return lambda progress: show(progress.frames, progress.total, progress.seconds_left, fps=progress.fps)
