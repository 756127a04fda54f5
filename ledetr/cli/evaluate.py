"""`ledetr eval`: how good a model, or a file of predictions, is on a COCO data set, and where it errs."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledetr.cli.bench import describe_machine, describe_versions, input_sides
from ledetr.cli.one_document import one_document
from ledetr.cli.progress import counted
from ledetr.coco_file import CocoSet, read_coco
from ledetr.confusion import BACKGROUND, Confusion
from ledetr.detector import DEFAULT_SCORE_THRESHOLD, Detector, StageTimes
from ledetr.error_split import KINDS, ErrorSplit
from ledetr.errors import UsageError
from ledetr.evaluated import Evaluated, evaluate_rows
from ledetr.evaluation import detect_all
from ledetr.predictions import read_predictions
from ledetr.report.evaluation import evaluation_report, percent, title_of
from ledetr.report.page import check_place, write_page
from ledetr.weights_info import WeightsInfo

_MOST_CLASSES_IN_TEXT = 12
_OF_A_MODEL = ("model", "imgsz", "backend", "device", "precision", "random_weights")


def evaluate(
    ctx: typer.Context,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A COCO instances JSON.", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures. Default: the folder beside DATA that bears its name.")
    ] = None,
    model: Annotated[str, typer.Option("-m", "--model", help="n, m, l, x, or a weights file.")] = "n",
    predictions: Annotated[
        Path | None, typer.Option(help="Score this COCO results or labels file instead of running a model.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures, by id.")] = None,
    conf: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score for recall, confusion and worst pictures. Default: the model's."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Recall and precision of each class too.")] = False,
    confusion: Annotated[bool, typer.Option("--confusion", help="What is taken for what.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="What each kind of error costs.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write all of it, with pictures, as one HTML file.")] = None,
    imgsz: Annotated[
        str | None, typer.Option(help="Sides of the network input, with commas; multiples of 32. Default: as trained.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, torch-cuda, torch-cpu, openvino or onnx.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, as model cards are measured, auto, fp16 or bf16.")] = "fp32",
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Run a model that has no weights.")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the bootstrap interval; 0 for none.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Average precision on a COCO data set, as pycocotools computes it: every query, no score floor, the 100 best.

    The 95 % interval comes from drawing the pictures anew, with replacement. Latency is that of this very run.
    """
    sides = input_sides(imgsz)
    if report is not None:
        check_place(report)
    with one_document(json) as document:
        data_set = read_coco(data, images)
        data_set = data_set if limit is None else data_set.first(limit)
        card: WeightsInfo | None = None
        if predictions is not None:
            _refuse_words_of_a_model(ctx)
            engine: dict[str, Any] = {"model": None, "predictions": str(predictions)}
            rows = read_predictions(predictions, data_set)
            threshold = DEFAULT_SCORE_THRESHOLD if conf is None else conf
            runs = [evaluate_rows(data_set, rows, engine=engine, threshold=threshold, resamples=resamples)]
        else:
            runs = []
            for side in sides:
                with Detector.load(
                    model,
                    backend=backend,
                    device=device,
                    precision=precision,
                    imgsz=side,
                    random_weights=random_weights,
                ) as detector:
                    card = detector.weights
                    runs.append(run_detector(detector, data_set, conf=conf, resamples=resamples, quiet=quiet))
        document.update(_document(data, runs, with_confusion=confusion, with_errors=errors))
        if report is not None:
            machine, versions = document["machine"], document["versions"]
            text = evaluation_report(runs, command=_command(ctx), machine=machine, versions=versions, card=card)
            write_page(report, text)
            document["report"] = str(report)
    if not json:
        _print_tables(runs, data, per_class=per_class)
        if errors:
            _print_errors(runs[0].errors())
        if confusion:
            _print_confusion(runs[0].confusion())


def run_detector(
    detector: Detector, data: CocoSet, *, conf: float | None = None, resamples: int = 1000, quiet: bool = False
) -> Evaluated:
    """One model at one size over all pictures; the first run of the engine, which is slow, is not timed."""
    times: list[StageTimes] = []
    detector.warm_up()
    with counted("pictures", len(data.pictures), quiet=quiet) as progress:
        rows = detect_all(detector, data, progress=progress, timed=times.append)
    threshold = detector.score_threshold if conf is None else conf
    return evaluate_rows(data, rows, engine=_engine(detector), threshold=threshold, times=times, resamples=resamples)


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


def _document(data: Path, runs: list[Evaluated], *, with_confusion: bool, with_errors: bool) -> dict[str, Any]:
    """The first size at the top, as if it were the only one; all of them under "sizes", where there are several."""
    first = runs[0]
    document = {"data": str(data), **first.engine, **first.to_json()}
    document |= {"machine": describe_machine(), "versions": describe_versions()}
    if with_confusion:
        document["confusion"] = first.confusion().to_json()
    if with_errors:
        split = first.errors()
        document["errors"] = None if split is None else split.to_json()
    if len(runs) > 1:
        kept = (*first.scores.figures, "ap_interval", "recall", "precision", "latency")
        every = [(run, run.to_json()) for run in runs]
        document["sizes"] = [
            {"imgsz": run.engine["imgsz"], **{key: value[key] for key in kept}} for run, value in every
        ]
    return document


def _refuse_words_of_a_model(ctx: typer.Context) -> None:
    """A file of predictions runs no model, so what was said about one would be passed over in silence."""
    given = [option for name, option, _ in _given(ctx) if name in _OF_A_MODEL]
    if given:
        raise UsageError(f"--predictions scores a file and runs no model, so {given[0]} has no meaning beside it")


def _command(ctx: typer.Context) -> str:
    """The words that make this run again."""
    words = ["ledetr", "eval"]
    for _, option, value in _given(ctx):
        words += [str(value)] if option == "" else [option] if value is True else [option, str(value)]
    return shlex.join(words)


def _given(ctx: typer.Context) -> Iterator[tuple[str, str, Any]]:
    """(name, longest option or "" for an argument, value) of what stood on the command line."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            is_option = parameter.param_type_name == "option"
            yield name, max(parameter.opts, key=len) if is_option else "", ctx.params[name]


def _print_tables(runs: list[Evaluated], data: Path, *, per_class: bool) -> None:
    console, first = Console(), runs[0]
    scores = first.scores
    # Names of files and classes are outside text, in which brackets are no markup.
    title = Text(f"{title_of(first.engine)} on {data.name}: {scores.pictures} pictures, {scores.boxes} boxes")
    table = Table(title=title, title_justify="left")
    if len(runs) > 1:
        table.add_column("input", justify="right")
    for figure in scores.figures:
        table.add_column(figure, justify="right")
    for run in runs:
        cells = [percent(value) for value in run.scores.figures.values()]
        table.add_row(*([str(run.engine["imgsz"])] if len(runs) > 1 else []), *cells)
    console.print(table)
    for run in runs:
        _print_interval_and_latency(console, run, f"{run.engine['imgsz']} px: " if len(runs) > 1 else "")
    _print_classes(console, first, per_class)


def _print_interval_and_latency(console: Console, run: Evaluated, prefix: str) -> None:
    if run.scores.interval is not None:
        low, high = run.scores.interval
        words = (
            f"{prefix}AP {percent(run.scores.ap)}, 95 % interval {percent(low)} to {percent(high)} over the pictures"
        )
        console.print(words)
    if run.latency is not None:
        parts = ", ".join(f"{name} {median:.1f}" for name, (median, _) in run.latency.stages.items())
        latency = f"{run.latency.median_ms:.1f} ms a picture, p95 {run.latency.p95_ms:.1f} (median {parts})"
        console.print(f"{prefix}{latency}", highlight=False)


def _print_classes(console: Console, run: Evaluated, per_class: bool) -> None:
    each, total = run.at_threshold()
    columns = ["class", "boxes", "ap", "ap50", *(["recall", "precision"] if per_class else [])]
    title = f"Classes; recall and precision from {run.threshold:.3g} on" if per_class else "Classes"
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "class" else "right")
    for row, point in zip(run.scores.classes, each, strict=True):
        more = [percent(point.recall), percent(point.precision)] if per_class else []
        if row.boxes:
            table.add_row(Text(row.name), str(row.boxes), percent(row.ap), percent(row.ap50), *more)
    if per_class:
        table.add_section()
        figures = (percent(run.scores.ap), percent(run.scores.figures["ap50"]))
        table.add_row("all", str(run.scores.boxes), *figures, percent(total.recall), percent(total.precision))
    console.print(table)


def _print_errors(split: ErrorSplit | None) -> None:
    if split is None:
        Console().print("The data set has no box, so no error costs anything.")
        return
    title = f"What AP50, {percent(split.ap50)}, would gain without each kind of error"
    table = Table(title=title, title_justify="left")
    for column in ("kind", "what it is", "gain", "of any score", f"from {split.threshold:.3g} on"):
        table.add_column(column, justify="left" if column in ("kind", "what it is") else "right")
    for kind in split.kinds:
        table.add_row(kind.name, KINDS[kind.name], f"{100 * kind.gain:.1f}", str(kind.count), str(kind.shown))
    Console().print(table)


def _print_confusion(confusion: Confusion) -> None:
    console = Console()
    if len(confusion.names) <= _MOST_CLASSES_IN_TEXT:
        names = [*confusion.names, BACKGROUND]
        matrix = Table(title="Confusion: rows are the truth, columns what it was taken for", title_justify="left")
        matrix.add_column("")
        for name in names:
            matrix.add_column(Text(name), justify="right")
        for name, counts in zip(names, confusion.counts, strict=True):
            matrix.add_row(Text(name), *(str(count) for count in counts))
        console.print(matrix)
    words = f"{confusion.missed} boxes missed, {confusion.false_alarms} false alarms from {confusion.threshold:.3g} on"
    console.print(words, highlight=False)
    top = Table(title="Most often confused", title_justify="left")
    for column in ("it is", "taken for", "times"):
        top.add_column(column, justify="right" if column == "times" else "left")
    for truth, other, count in confusion.top():
        top.add_row(Text(truth), Text(other), str(count))
    if top.row_count:
        console.print(top)
