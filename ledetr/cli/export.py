"""`ledetr export`: a model as a file for other programs, compared with torch on the spot."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ledetr.cli.one_document import one_document
from ledetr.errors import UsageError
from ledetr.export import FORMATS, ExportReport, export_model


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .onnx, .xml or .pt2.")],
    model: Annotated[str, typer.Option("-m", "--model", help="n, m, l, x, or a weights file.")] = "n",
    format: Annotated[
        str | None, typer.Option(help="onnx, openvino or torch-export. Default: as the name of the output ends.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, or int8 (OpenVINO only, with --calibrate).")] = "fp32",
    imgsz: Annotated[
        int | None, typer.Option(min=32, help="Side of the network input; a multiple of 32. Default: as trained.")
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Any number of pictures at once, instead of one.")
    ] = False,
    with_postprocess: Annotated[
        bool,
        typer.Option("--with-postprocess", help="Ranked labels, boxes in source pixels and scores come out."),
    ] = False,
    decoder_layers: Annotated[
        int | None, typer.Option(min=1, help="Fewer are faster and a little less exact. Default: as the weights say.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Export a scale that has no weights; the file says so.")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="Folder of pictures that int8 is calibrated on: of the kind it will see.")
    ] = None,
    accuracy_on: Annotated[
        Path | None,
        typer.Option(help="A COCO instances JSON, its pictures beside it: average precision before and after."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a model as ONNX, OpenVINO or torch.export file, for one picture size, standard operators only.

    The file is compared with torch on pictures before it gets its name, and is not written where it would differ
    (exit code 5). Class names and ids travel in it; ledetr opens .onnx and .xml with -m FILE.
    """
    chosen = format or next((name for name, suffix in FORMATS.items() if suffix == output.suffix.lower()), "onnx")
    if output.exists() and not overwrite:
        raise UsageError(f"{str(output)!r} is there already; give another name, or --overwrite")
    with one_document(json) as document:
        report = export_model(
            model,
            output,
            format=chosen,
            precision=precision,
            imgsz=imgsz,
            dynamic_batch=dynamic_batch,
            with_postprocess=with_postprocess,
            decoder_layers=decoder_layers,
            random_weights=random_weights,
            calibrate=calibrate,
            accuracy_on=accuracy_on,
        )
        document.update(_document(report))
    if not json:
        _print_report(report)


def trtexec_line(report: ExportReport) -> str:
    """What builds a TensorRT engine of an ONNX file. It was never run: no machine of ours had TensorRT."""
    words = ["trtexec", f"--onnx={report.path}", f"--saveEngine={report.path.with_suffix('.engine')}"]
    words += ["--stronglyTyped"] if report.precision == "fp16" else []  # as the graph casts, not as trtexec chooses
    if report.dynamic_batch:
        height, width = report.input_hw
        for option, batch in (("min", 1), ("opt", 1), ("max", 8)):
            shapes = [f"pixels:{batch}x{height}x{width}x3"]
            shapes += [f"orig_target_sizes:{batch}x2"] if report.with_postprocess else []
            words.append(f"--{option}Shapes={','.join(shapes)}")
    return " ".join(words)


def _document(report: ExportReport) -> dict[str, Any]:
    return {
        "model": report.model,
        "format": report.format,
        "output": str(report.path),
        "files": [str(path) for path in report.files],
        "size_bytes": report.size_bytes,
        "input_hw": list(report.input_hw),
        "dynamic_batch": report.dynamic_batch,
        "with_postprocess": report.with_postprocess,
        "decoder_layers": report.decoder_layers,
        "precision": report.precision,
        "random_weights": report.random_weights,
        "check": {
            "batches": list(report.batches),
            "pictures": list(report.pictures),
            "detections": report.detections_compared,
            "share_of_rows": report.share,
            "logit_error": report.logit_error,
            "score_error": report.score_error,
            "box_error": report.box_error,
            "relative_error": report.relative_error,
            "objects_kept": report.kept_share,
        },
        "ap": None if report.ap is None else {"fp32": report.ap[0], "file": report.ap[1]},
        "trtexec": {"command": trtexec_line(report), "run_here": False} if report.format == "onnx" else None,
    }


def _print_report(report: ExportReport) -> None:
    height, width = report.input_hw
    batch = "any batch" if report.dynamic_batch else "batch 1"
    files = " and ".join(str(path) for path in report.files)
    size = f"{report.size_bytes / 1e6:.1f} MB"
    typer.echo(f"{files}: model {report.model}, {report.precision}, input {width}x{height}, {batch}, {size}.")
    if report.random_weights:
        typer.echo("RANDOM WEIGHTS: this model has learnt nothing, its boxes mean nothing.")
    typer.echo(_comparison(report))
    if report.ap is not None:
        before, after = (100 * ap for ap in report.ap)
        typer.echo(f"Average precision: {after:.1f}, of the weights in fp32 {before:.1f} ({after - before:+.1f}).")
    if report.format == "onnx":
        typer.echo(f"For TensorRT, not run here: {trtexec_line(report)}")


def _comparison(report: ExportReport) -> str:
    logits = "" if report.logit_error is None else f"{report.logit_error:.1e} in logits, "
    batches = ", ".join(str(batch) for batch in report.batches)
    rows = "at most" if report.share == 1 else f"in the best {report.share:.0%} of the rows at most"
    same = "" if report.kept_share is None else f"; {report.kept_share:.1%} of the objects shown are the same"
    return (
        f"Compared with torch on {len(report.pictures)} pictures, batch {batches}, {report.detections_compared} "
        f"detections: {rows} {logits}{report.score_error:.1e} in scores, {report.box_error:.1e} in boxes (of the "
        f"picture's side), {report.relative_error:.1e} relative{same}."
    )
