"""Accuracy and latency of every decoder depth that the scales have, chosen when the model is loaded.

    python -m benchmarks.decoder_depth coco_val.json --images coco_val -m n m l x

Table 4 of the paper, on the weights that are there. AP is that of `ledetr eval` in fp32; latency is that of `ledetr
bench`, all depths of a scale taking turns, with the engine and precision that --backend and --precision name. A scale
without weights is said and passed over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ledetr.cli.bench import Series, describe_machine, measure
from ledetr.cli.evaluate import run_detector
from ledetr.coco_file import CocoSet, read_coco
from ledetr.detector import Detector
from ledetr.errors import LeDetrError, WeightsError
from ledetr.evaluation import Scores
from ledetr.model.config import VARIANTS, ModelConfig
from ledetr.model.count import Count, count_paper
from ledetr.weights import find_weights, read_info


@dataclass(frozen=True, slots=True)
class Depth:
    """One row. used: whether it is the depth that the scale has by default. infer_ms, frame_ms: medians."""

    model: str
    layers: int
    used: bool
    scores: Scores
    count: Count
    infer_ms: float
    infer_p95_ms: float
    frame_ms: float
    engine: str


def depths_of(model: str, data: CocoSet, args: argparse.Namespace) -> list[Depth]:
    """Every depth from 1 to as many layers as were trained. Raises WeightsError where there are no weights."""
    info = read_info(find_weights(model))
    config, layers = info.config, range(1, info.config.decoder.layers + 1)
    scores = []
    for count in layers:
        # Accuracy in fp32 by torch, as model cards are measured; the engines' own differences are another table.
        with Detector.load(model, backend="torch-cpu", precision="fp32", decoder_layers=count) as detector:
            scores.append(run_detector(detector, data, resamples=args.resamples, quiet=args.quiet).scores)
    with ExitStack() as opened:
        series = [
            Series(opened.enter_context(Detector.load(model, backend=args.backend, device=args.device,
                                                      precision=args.precision, decoder_layers=count)))
            for count in layers
        ]  # fmt: skip
        measure(series, runs=args.runs, warmup=args.warmup, quiet=args.quiet)
        return [_depth(config, *row) for row in zip(layers, scores, series, strict=True)]


def _depth(config: ModelConfig, layers: int, scores: Scores, series: Series) -> Depth:
    row, info = series.row(), series.detector.info
    return Depth(
        model=config.name.upper(),
        layers=layers,
        used=layers == config.decoder.eval_layers,
        scores=scores,
        count=count_paper(config, layers=layers, size_hw=info.input_hw),
        infer_ms=row["median_ms"],
        infer_p95_ms=row["p95_ms"],
        frame_ms=row["frame_to_boxes_ms"],
        engine=f"{info.name}, {info.device}, {info.precision}, {info.input_hw[0]} px",
    )


def table(depths: Sequence[Depth]) -> str:
    """Markdown; the depth that a scale has by default is bold."""
    columns = ("model, layers", "AP %", "95 %", "AP50 %", "model ms (p95)", "frame to boxes ms", "parameters M",
               "GFLOPs", "engine")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for one in depths:
        name = f"{one.model}, {one.layers}"
        interval = one.scores.interval
        cells = [
            f"**{name}**" if one.used else name,
            _percent(one.scores.ap),
            "–" if interval is None else f"{_percent(interval[0])} to {_percent(interval[1])}",
            _percent(one.scores.figures["ap50"]),
            f"{one.infer_ms:.2f} ({one.infer_p95_ms:.2f})",
            f"{one.frame_ms:.2f}",
            f"{one.count.params_m:.2f}",
            f"{one.count.gflops:.2f}",
            one.engine,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 where at least one scale has weights."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder_depth", description=description)
    add = parser.add_argument
    add("data", type=Path, help="a COCO instances JSON")
    add("--images", type=Path, help="folder of the pictures; default: the folder beside DATA that bears its name")
    add("-m", "--model", nargs="+", default=list(VARIANTS), help="scales or weights files (default: all four scales)")
    add("--limit", type=int, help="only the first pictures, by id")
    add("--resamples", type=int, default=1000, help="draws of the bootstrap interval (default 1000)")
    add("--runs", type=int, default=50, help="rounds of timing (default 50)")
    add("--warmup", type=int, default=10, help="rounds before (default 10)")
    add("--backend", default="auto", help="engine that is timed (default auto)")
    add("--device", default="auto")
    add("--precision", default="auto", help="of what is timed (default auto)")
    add("-q", "--quiet", action="store_true", help="no progress")
    args = parser.parse_args(words)
    try:
        return _print_tables(args)
    except LeDetrError as error:
        print(f"decoder_depth: {error}", file=sys.stderr)
        return error.exit_code


def _print_tables(args: argparse.Namespace) -> int:
    data = read_coco(args.data, args.images)
    data = data if args.limit is None else data.first(args.limit)
    depths: list[Depth] = []
    for model in args.model:
        try:
            depths += depths_of(model, data, args)
        except WeightsError:
            if model not in VARIANTS:
                raise
            print(f"No weights for {model.upper()} here, so its depths are left out.", file=sys.stderr)
    if not depths:
        return WeightsError.exit_code
    machine = describe_machine()
    print(f"{len(data.pictures)} pictures of {args.data.name}; {machine['processor']}, {machine['cores']} cores.\n")
    print(table(depths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
