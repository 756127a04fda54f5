"""Every engine in every precision it has here: average precision on an annotated set, and the model's time.

    python benchmarks/engines.py ../shared/data/coco_val_dev.json --calibrate ../shared/data/coco_train \
        --json out/engines.json --markdown out/engines.md

The float32 network in torch is the measure: another engine or precision may differ by 0.3 points of average precision,
int8 by 1.0. Times are of the model alone at batch 1, all engines taking turns run by run. --runs 0 leaves times out,
--limit takes the first pictures alone. Exits with 1 where a bar is missed.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledetr.cli.bench import Series, describe_machine, describe_versions, measure
from ledetr.cli.progress import counted
from ledetr.coco_file import CocoSet, read_coco
from ledetr.detector import Detector
from ledetr.errors import BackendUnavailable
from ledetr.evaluation import detect_all, score
from ledetr.export import export_model

MOST_POINTS = 0.3
MOST_POINTS_INT8 = 1.0


@dataclass(frozen=True)
class Engine:
    """One row: how to open it."""

    name: str
    precision: str
    load: Callable[[], Detector]

    @property
    def bar(self) -> float:
        """How many points of average precision it may differ."""
        return MOST_POINTS_INT8 if self.precision == "int8" else MOST_POINTS


def engines_of(model: str, imgsz: int | None, folder: Path, calibrate: Path | None) -> list[Engine]:
    """The measure first. Files of fp16 and int8 are written to `folder` when their turn comes."""

    def of_weights(backend: str, precision: str) -> Engine:
        load = lambda: Detector.load(model, backend=backend, precision=precision, imgsz=imgsz, device="cpu")  # noqa: E731
        return Engine(backend, precision, load)

    def of_file(backend: str, precision: str, path: Path, **options: Any) -> Engine:
        def load() -> Detector:
            if not path.exists():
                export_model(model, path, precision=precision, imgsz=imgsz, **options)
            return Detector.load(path)

        return Engine(backend, precision, load)

    engines = [of_weights("torch-cpu", "fp32"), of_weights("torch-cpu", "bf16")]
    engines += [of_weights("openvino", "fp32"), of_weights("openvino", "bf16")]
    if calibrate is not None:
        path = folder / "int8.xml"
        engines.append(of_file("openvino", "int8", path, format="openvino", calibrate=calibrate))
    engines += [of_weights("onnx", "fp32"), of_file("onnx", "fp16", folder / "fp16.onnx")]
    return engines


def main() -> int:
    """Measure, print and write."""
    args = _arguments()
    data = None if args.data is None else _first(read_coco(args.data, args.images), args.limit)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        all_series = []
        for engine in engines_of(args.model, args.imgsz, Path(folder), args.calibrate):
            try:
                detector = opened.enter_context(engine.load())
            except BackendUnavailable as error:
                print(f"{engine.name} {engine.precision} is left out: {error}", file=sys.stderr)
                continue
            all_series.append(Series(detector))
            rows.append({"backend": engine.name, "precision": engine.precision, "bar": engine.bar})
            if data is not None:
                rows[-1]["ap"] = _average_precision(detector, data, f"{engine.name} {engine.precision}")
        if args.runs:
            measure(all_series, runs=args.runs, warmup=min(10, args.runs))
            for row, series in zip(rows, all_series, strict=True):
                row |= {key: series.row()[key] for key in ("median_ms", "p95_ms", "min_ms", "imgsz", "runs")}
    _add_differences(rows)
    document = {
        "command": shlex.join(["python", *sys.argv]),
        "model": args.model,
        "data": None if data is None else args.data.name,
        "pictures": None if data is None else len(data.pictures),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "results": rows,
    }
    text = markdown(document)
    print(text)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if args.markdown is not None:
        args.markdown.write_text(text + "\n", encoding="utf-8")
    return 0 if all(row.get("passes", True) for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="COCO instances JSON; without it times alone")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--model", default="n")
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--calibrate", type=Path, help="folder of pictures for int8; without it no int8")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _first(data: CocoSet, limit: int | None) -> CocoSet:
    return data if limit is None else data.first(limit)


def _average_precision(detector: Detector, data: CocoSet, name: str) -> float | None:
    with counted(f"pictures of {name}", len(data.pictures)) as progress:
        return score(data, detect_all(detector, data, progress=progress), resamples=0).ap


def _add_differences(rows: list[dict[str, Any]]) -> None:
    """To each row with a figure: points away from the first, and whether that is within its bar."""
    first = rows[0].get("ap")
    for row in rows:
        if first is not None and row["ap"] is not None:
            row["points"] = 100 * (row["ap"] - first)
            row["passes"] = abs(row["points"]) < row["bar"]


def markdown(document: dict[str, Any]) -> str:
    """The table, and under it where it comes from."""
    machine, versions = document["machine"], document["versions"]
    lines = [
        "| engine | precision | AP | to torch fp32 | median ms | p95 ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["results"]:
        ap = "-" if row.get("ap") is None else f"{100 * row['ap']:.2f}"
        away = (
            "-"
            if "points" not in row
            else f"{row['points']:+.2f} ({'within' if row['passes'] else 'beyond'} {row['bar']})"
        )
        times = [f"{row[key]:.1f}" if key in row else "-" for key in ("median_ms", "p95_ms")]
        lines.append(f"| {row['backend']} | {row['precision']} | {ap} | {away} | {times[0]} | {times[1]} |")
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['date']}; {packages}"
    return "\n".join(
        [
            *lines,
            "",
            f"Model {document['model']}, {document['pictures'] or 'no'} pictures; {where}.",
            "",
            f"    {document['command']}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
