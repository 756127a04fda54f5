"""One HTML page about a training run: recipe, data, throughput, curves and, with --data, the weights it gave.

python -m training.report RUN [--data DATA.json] [--images FOLDER] [-o REPORT.html] [--tensorboard FOLDER]
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.cli.bench import describe_machine, describe_versions
from ledetr.cli.evaluate import run_detector
from ledetr.coco_file import read_coco, read_json
from ledetr.detector import Detector
from ledetr.errors import SourceError, UsageError, WeightsError
from ledetr.pictures import read_picture
from ledetr.report.evaluation import evaluation_sections, percent, what_was_run
from ledetr.report.page import Markup, check_place, element, facts, page, paragraph, section, table, write_page
from ledetr.report.pictures import image
from ledetr.report.svg import Curve, curves
from training import edge
from training.config import differing_fields
from training.recipes import RECIPES, recipe_for
from training.run_log import RunLog, read_log, seconds_of, series

MOST_POINTS = 800
MOST_PROBLEMS = 30
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")


def training_sections(run: Path, log: RunLog) -> list[Markup]:
    """All that the folder of a run tells by itself."""
    return [_summary(log), _recipe(log), *_data_check(run), _throughput(log), _losses(log), _precision(log)]


def evaluated_sections(run: Path, data: Path, images: Path | None, *, command: str, quiet: bool) -> list[Markup]:
    """The run's weights on a COCO data set, as `ledetr eval --report` shows them."""
    data_set = read_coco(data, images)
    with Detector.load(weights_of(run), precision="fp32") as detector:
        evaluated = run_detector(detector, data_set, quiet=quiet)
        card = detector.weights
    machine, versions = describe_machine(), describe_versions()
    return [
        section(f"The weights on {data.name}"),
        *evaluation_sections([evaluated]),
        what_was_run(evaluated.engine, command=command, machine=machine, versions=versions, card=card),
    ]


def weights_of(run: Path) -> Path:
    """The weights file that the run wrote at its end, the newest where there are several; WeightsError without one."""
    files = sorted(run.glob("ledetr_*.safetensors"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise WeightsError(
            f"{str(run)!r} has no weights file yet, so nothing can be evaluated; `ledetr train ... --export` writes "
            "one, or leave --data out"
        )
    return files[-1]


def write_tensorboard(log: RunLog, folder: Path) -> int:
    """Event files of the log for TensorBoard; how many values were written. UsageError without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
    written = 0
    with SummaryWriter(str(folder)) as writer:
        for group, rows in (("train", log.steps), ("tune", log.judged)):
            for row in rows:
                name = f"{group}_{row['decay']}" if "decay" in row else group
                for key, value in row.items():
                    if key not in ("step", "steps", "decay") and type(value) in (int, float):
                        writer.add_scalar(f"{name}/{key}", value, row["step"], seconds_of(row))
                        written += 1
    return written


def _summary(log: RunLog) -> Markup:
    best, speeds = log.best(), _finite(series(log.steps, "pictures_per_s")[1])
    cards = [("steps of " + str(log.total), str(log.done))]
    if best is not None:
        cards += [("best AP on the tune split", percent(best.get("ap"))), ("AP50 then", percent(best.get("ap50")))]
        cards += [("at step", str(best["step"]))]
    if len(speeds):
        cards += [("pictures/s, median", f"{np.median(speeds):.1f}")]
    if log.steps:
        cards += [("steps skipped", str(log.steps[-1].get("skipped", 0)))]
    return element(
        "div", *(element("div", element("b", v), element("span", n), class_="card") for n, v in cards), class_="cards"
    )


def _recipe(log: RunLog) -> Markup:
    config = log.start["config"]
    name, scale = str(config.get("recipe")), str(config.get("scale"))
    if name in RECIPES:
        differing = differing_fields(config, recipe_for(name, scale).to_dict())
        told = f"Recipe {name} of scale {scale}" + (
            ", changed in these values:" if differing else ", with every value as it stands in training/recipes.py."
        )
    else:
        differing, told = [], f"Recipe {name}, which this version does not know, so there is nothing to compare with."
    rows = [(key, now, was) for key, now, was in (_parted(line) for line in differing)]
    changes = [table(("value", "this run", "recipe"), rows, words=3)] if rows else []
    every = element("details", element("summary", "Every value"), facts(_flat(config)))
    kept = ("version", "pictures_sha256")
    more = [(key, log.start.get(key)) for key in kept] + [("classes", ", ".join(map(str, _names(log))))]
    return section("Recipe", paragraph(told), *changes, every, facts(more), *_interruptions(log))


def _interruptions(log: RunLog) -> list[Markup]:
    words = []
    if log.resumes:
        words.append(f"The run went on after a stop at step {', '.join(map(str, log.resumes))}.")
    words += [
        f"It went back to step {row['back_to']} with lower rates: {row.get('reason', 'no reason is given')}."
        for row in log.setbacks
    ]
    if log.unreadable:
        words.append(f"{log.unreadable} lines of the log are cut and were passed over.")
    return [paragraph(word) for word in words]


def _data_check(run: Path) -> list[Markup]:
    if not (run / "check.json").is_file():
        return []
    check = read_json(run / "check.json")
    if not isinstance(check, dict):
        raise SourceError(f"{str(run / 'check.json')!r} is no report of `ledetr check-data`; delete it to go without")
    problems = [p for p in _tables(check.get("problems")) if p.get("level") != "note"]
    classes = [(c.get("name"), c.get("boxes"), c.get("pictures")) for c in _tables(check.get("classes"))]
    parts = [
        facts((key.replace("_", " "), check.get(key)) for key in ("pictures", "pictures_without_objects", "boxes")),
        table(("class", "boxes", "pictures"), classes),
    ]
    if problems:
        rows = [(p.get("level"), p.get("kind"), p.get("text")) for p in problems[:MOST_PROBLEMS]]
        parts += [
            element("h3", f"{len(problems)} warnings and errors"),
            table(("level", "kind", "what"), rows, words=3),
        ]
    sheet = run / "contact_sheet.png"
    if sheet.is_file():
        parts.append(image(read_picture(sheet), "pictures of the data set with their boxes"))
    return [section("Data", *parts)]


def _throughput(log: RunLog) -> Markup:
    x, y = series(log.steps, "pictures_per_s")
    speeds = _finite(y)
    if not len(speeds):
        return section("Throughput", paragraph("Nothing was logged yet."))
    first, last = seconds_of(log.start), seconds_of(log.steps[-1])
    hours = None if first is None or last is None else f"{(last - first) / 3600:.2f}"
    figures = [
        ("pictures/s, median", f"{np.median(speeds):.1f}"),
        ("pictures/s, lowest tenth", f"{np.percentile(speeds, 10):.1f}"),
        ("hours from first to last line", hours),
        ("boxes left out for want of slots", log.steps[-1].get("left_out")),
    ]
    return section("Throughput", facts(figures), _drawn([("pictures/s", x, y)], "pictures/s"))


def _losses(log: RunLog) -> Markup:
    names = log.losses()
    if not names:
        return section("Losses", paragraph("Nothing was logged yet."))
    groups = {
        "total": ["total"],
        "matched queries": [n for n in names if not n.startswith(("denoising", "bad")) and n != "total"],
        "denoising queries": [n for n in names if n.startswith("denoising")],
    }
    parts: list[Markup] = []
    for group, members in groups.items():
        lines = [(name, *series(log.steps, name)) for name in members if name in names]
        if lines:
            parts += [element("h3", group), _drawn(lines, "loss")]
    for key, label in (("norm", "norm of the gradient"), ("lr", "rate of the first group")):
        parts += [element("h3", label), _drawn([(label, *series(log.steps, key))], key)]
    return section("Losses", *parts)


def _precision(log: RunLog) -> Markup:
    if not log.judged:
        return section("Average precision", paragraph("The tune split was not judged yet."))
    lines = []
    for decay in log.decays():
        rows = [row for row in log.judged if row.get("decay") == decay]
        lines += [(f"{key} of the average {decay:.6g}", *series(rows, key)) for key in ("ap", "ap50")]
    figures = [[row["step"], row.get("decay"), *(percent(row.get(key)) for key in FIGURES)] for row in log.judged]
    told = "On the tune split, which also chose the weights: these figures flatter a little."
    drawing = _drawn(lines, "average precision") if lines else Markup("")
    return section("Average precision", paragraph(told), drawing, table(("step", "decay", *FIGURES), figures, words=0))


def _drawn(lines: Sequence[tuple[str, list[float], list[float]]], y_label: str) -> Markup:
    drawn = [Curve(name, *_thinned(x, y)) for name, x, y in lines]
    return curves(drawn, x_label="step", y_label=y_label, size_wh=(760, 280))


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most MOST_POINTS points, each the mean of equally many neighbours; a mean without any finite value is NaN."""
    step = -(-len(x) // MOST_POINTS)
    if step <= 1:
        return list(x), list(y)
    pieces = [slice(start, start + step) for start in range(0, len(x), step)]
    means = [float(np.mean(values)) if len(values := _finite(y[piece])) else float("nan") for piece in pieces]
    return [float(np.mean(x[piece])) for piece in pieces], means


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def _parted(line: str) -> tuple[str, str, str]:
    """Key, value and value before, of a line of differing_fields()."""
    key, _, rest = line.partition(": ")
    now, _, was = rest.rpartition(", was ")
    return key, now, was


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in config.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", str(value))]
    return found


def _names(log: RunLog) -> list[Any]:
    names = log.start.get("class_names")
    return names if isinstance(names, list) else []


def _tables(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description="Write the report of a run.")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run, as given to ledetr train -o")
    add("-o", "--output", type=Path, help="the page (default RUN/report.html)")
    add("--data", type=Path, help="a COCO instances JSON: evaluate the run's weights on it")
    add("--images", type=Path, help="folder of its pictures (default: beside the JSON, with its name)")
    add("--tensorboard", type=Path, metavar="FOLDER", help="write the log as event files for TensorBoard too")
    add("-q", "--quiet", action="store_true", help="say nothing but the path of the page")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Read the run, evaluate its weights where asked to, write the page."""
    words = sys.argv[1:] if words is None else words
    args = parse_arguments(words)
    target = args.output or args.run / "report.html"
    log = read_log(args.run)
    check_place(target)
    if args.tensorboard is not None:
        count = write_tensorboard(log, args.tensorboard)
        if not args.quiet:
            print(f"{count} values written to {args.tensorboard}", file=sys.stderr)
    parts = training_sections(args.run, log)
    if args.data is not None:
        command = shlex.join(["python", "-m", "training.report", *words])
        parts += evaluated_sections(args.run, args.data, args.images, command=command, quiet=args.quiet)
    write_page(target, page(f"Training run {args.run.resolve().name}", *parts))
    print(target)


if __name__ == "__main__":
    edge.run(main)
