"""`ledetr eval`: COCO average precision of a model, or of a file of predictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ledetr.cli.one_document import one_document
from ledetr.cli.progress import counted
from ledetr.coco_file import CocoSet, read_coco
from ledetr.detector import Detector
from ledetr.evaluation import CocoRow, Scores, detect_all, read_predictions, score


def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A COCO instances JSON.", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures. Default: the folder beside DATA that bears its name.")
    ] = None,
    model: Annotated[str, typer.Option("-m", "--model", help="n, m, l, x, or a weights file.")] = "n",
    predictions: Annotated[
        Path | None, typer.Option(help="Score this COCO results file instead of running a model.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures, by id.")] = None,
    imgsz: Annotated[int | None, typer.Option(min=32, help="Side of the network input; a multiple of 32.")] = None,
    backend: Annotated[str, typer.Option(help="auto, torch-cuda, torch-cpu, openvino or onnx.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Run a model that has no weights.")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap interval; 0 for none.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Average precision on a COCO data set, as pycocotools computes it: every query, no score floor, the 100 best.

    The 95 % interval comes from drawing the pictures anew, with replacement.
    """
    with one_document(json) as document:
        data_set = read_coco(data, images)
        data_set = data_set if limit is None else data_set.first(limit)
        if predictions is not None:
            name, rows = str(predictions), read_predictions(predictions, data_set)
        else:
            with (
                Detector.load(
                    model,
                    backend=backend,
                    device=device,
                    precision=precision,
                    imgsz=imgsz,
                    random_weights=random_weights,
                ) as detector,
                counted("pictures", len(data_set.pictures), quiet=quiet) as progress,
            ):
                name, rows = _describe(detector), _rows(detector, data_set, progress)
        scores = score(data_set, rows, resamples=resamples)
        document.update(model=name, data=str(data), random_weights=random_weights and predictions is None)
        document.update(scores.to_json())
    if not json:
        _print_tables(scores, name, data)


def _rows(detector: Detector, data_set: CocoSet, progress: Callable[[int], None]) -> list[CocoRow]:
    return detect_all(detector, data_set, progress=progress)


def _describe(detector: Detector) -> str:
    info = detector.info
    height, width = info.input_hw
    random = ", RANDOM WEIGHTS" if detector.random_weights else ""
    return f"{detector.model_id} ({info.name}, {info.device}, {info.precision}, {height}x{width}{random})"


def _print_tables(scores: Scores, name: str, data: Path) -> None:
    console = Console()
    table = Table(
        title=f"{name} on {data.name}: {scores.pictures} pictures, {scores.boxes} boxes", title_justify="left"
    )
    for figure in scores.figures:
        table.add_column(figure, justify="right")
    table.add_row(*(_percent(value) for value in scores.figures.values()))
    console.print(table)
    if scores.interval is not None:
        low, high = scores.interval
        console.print(f"AP {_percent(scores.ap)}, 95 % interval {_percent(low)} to {_percent(high)} over the pictures")
    classes = Table(title="Classes", title_justify="left")
    for column in ("class", "boxes", "ap", "ap50"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for row in scores.classes:
        if row.boxes:
            classes.add_row(row.name, str(row.boxes), _percent(row.ap), _percent(row.ap50))
    console.print(classes)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
