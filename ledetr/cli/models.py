"""`ledetr models`: the four scales, how large they are, and which weights are here."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledetr.cli.one_document import one_document
from ledetr.cli.sizes import COUNTED_HW, SIZES
from ledetr.errors import WeightsError
from ledetr.model.config import VARIANTS
from ledetr.weights_file import find_weights, read_header, read_info, verify_payload
from ledetr.weights_info import WeightsInfo

app = typer.Typer(add_completion=False)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback(invoke_without_command=True)
def models(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the scales: parameters, GFLOPs at 640 x 640, weights, average precision, licence.

    Parameters and GFLOPs are counted as the paper counts them; "deploy" is the folded form that runs.
    """
    if ctx.invoked_subcommand is not None:
        return
    with one_document(json) as document:
        rows = [describe(scale) for scale in VARIANTS]
        document.update(counted_hw=list(COUNTED_HW), models=rows)
    if not json:
        _print_table(rows)


@app.command()
def verify(
    model: Annotated[
        list[str] | None, typer.Argument(help="Scales or weights files; default: all scales that have weights.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Read weights files from end to end and compare them with the checksum in their header."""
    with one_document(json) as document:
        paths = [find_weights(one) for one in model] if model else [path for path in map(_found, VARIANTS) if path]
        checked = [{"weights": str(path), "sha256": _verified(path).sha256} for path in paths]
        document.update(verified=checked)
    if not json:
        for row in checked:
            typer.echo(f"{row['weights']}: intact, sha256 {row['sha256']}")
        if not checked:
            typer.echo("no weights here, so nothing to verify", err=True)


@app.command("path")
def weights_path(
    model: Annotated[str, typer.Argument(help="A scale: n, m, l or x.")] = "n", json: JsonFlag = False
) -> None:
    """Print where the weights of a scale are; exit code 4 and the places looked at where there are none."""
    with one_document(json) as document:
        path = find_weights(model)
        document.update(weights=str(path))
    if not json:
        typer.echo(path)


def describe(scale: str) -> dict[str, Any]:
    """One row of --json. ap in 0..1 as the weights file says, with its own test setting under ap_measured."""
    config = VARIANTS[scale]()
    path = _found(scale)
    problem, info = _read(path)
    measured = info.ap if info else None
    ap = measured.get("ap") if measured else None
    card = path.with_suffix(".md") if path else None
    return {
        "scale": scale,
        **asdict(SIZES[scale]),
        "decoder_layers": config.decoder.eval_layers,
        "input_hw": list(info.input_hw if info else config.input_hw),
        "weights": str(path) if path else None,
        "weights_problem": problem,
        "ap": ap if isinstance(ap, float) else None,
        "ap_measured": measured,
        "score_threshold": info.score_threshold if info else None,
        "trained_on": info.trained_on if info else None,
        "started_from": info.started_from if info else None,
        "licence": info.licence if info else None,
        "sha256": info.sha256 if info else None,
        "card": str(card) if card and card.is_file() else None,
    }


def _found(scale: str) -> Path | None:
    try:
        return find_weights(scale)
    except WeightsError:
        return None


def _read(path: Path | None) -> tuple[str | None, WeightsInfo | None]:
    """What keeps the file from being used, or what it says about itself."""
    if path is None:
        return None, None
    try:
        return None, read_info(path)
    except WeightsError as error:
        return str(error), None


def _verified(path: Path) -> WeightsInfo:
    verify_payload(path, read_header(path))
    return read_info(path)


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Parameters in millions and GFLOPs at 640 x 640, as the paper counts (deployed)")
    for column in ("model", "parameters", "GFLOPs", "input", "AP", "weights", "licence"):
        table.add_column(
            column, justify="right" if column in ("parameters", "GFLOPs", "AP") else "left", overflow="fold"
        )
    for row in rows:
        height, width = row["input_hw"]
        table.add_row(
            row["scale"],
            f"{row['params_m']:.1f} ({row['params_deploy_m']:.1f})",
            f"{row['gflops']:.1f} ({row['gflops_deploy']:.1f})",
            f"{height}x{width}",
            "-" if row["ap"] is None else f"{100 * row['ap']:.1f}",
            Text(row["weights_problem"] or row["weights"] or "none here"),
            Text(row["licence"] or "-"),
        )
    Console().print(table)
