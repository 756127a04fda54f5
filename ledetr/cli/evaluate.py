"""`ledetr eval`: COCO average precision of a model, or of a file of predictions."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledetr.cli.one_document import one_document
from ledetr.cli.progress import counted
from ledetr.coco_file import read_coco
from ledetr.detector import Detector
from ledetr.evaluation import Scores, detect_all, score
from ledetr.predictions import read_predictions


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
    precision: Annotated[str, typer.Option(help="fp32, as model cards are measured, auto, fp16 or bf16.")] = "fp32",
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
            engine: dict[str, Any] = {"model": None, "predictions": str(predictions)}
            rows = read_predictions(predictions, data_set)
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
                engine = _engine(detector)
                rows = detect_all(detector, data_set, progress=progress)
        scores = score(data_set, rows, resamples=resamples)
        document.update(data=str(data), **engine, **scores.to_json())
    if not json:
        _print_tables(scores, _title(engine), data)


def _engine(detector: Detector) -> dict[str, Any]:
    """What was really run, as in the rows of `ledetr bench`."""
    info = detector.info
    height, width = info.input_hw
    return {
        "model": detector.model_id,
        "backend": info.name,
        "device": info.device,
        "precision": info.precision,
        "imgsz": height if height == width else [height, width],
        "random_weights": detector.random_weights,
    }


def _title(engine: dict[str, Any]) -> str:
    if engine["model"] is None:
        return str(engine["predictions"])
    random = ", RANDOM WEIGHTS" if engine["random_weights"] else ""
    words = ", ".join(str(engine[key]) for key in ("backend", "device", "precision", "imgsz"))
    return f"{engine['model']} ({words}{random})"


def _print_tables(scores: Scores, name: str, data: Path) -> None:
    console = Console()
    # Names of files and classes are outside text, in which brackets are no markup.
    title = Text(f"{name} on {data.name}: {scores.pictures} pictures, {scores.boxes} boxes")
    table = Table(title=title, title_justify="left")
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
            classes.add_row(Text(row.name), str(row.boxes), _percent(row.ap), _percent(row.ap50))
    console.print(classes)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
