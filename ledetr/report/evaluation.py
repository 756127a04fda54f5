"""The report of `ledetr eval`: figures, curves, classes, confusion, errors, the worst pictures, and what was run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ledetr.confusion import BACKGROUND
from ledetr.error_split import KINDS
from ledetr.evaluated import Evaluated
from ledetr.evaluation import RECALL_STEPS
from ledetr.report.page import Markup, element, facts, joined, page, paragraph, section, table
from ledetr.report.pictures import worst_pictures
from ledetr.report.svg import Curve, bars, curves, matrix
from ledetr.weights_info import WeightsInfo

FIGURES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "small", "ap_medium": "medium", "ap_large": "large",
    "ar100": "recall (AR100)",
}  # fmt: skip


def evaluation_report(
    runs: Sequence[Evaluated],
    *,
    command: str,
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    card: WeightsInfo | None = None,
) -> str:
    """The whole page. runs: one for each size, the first of which is shown in depth. card: of the weights that ran."""
    return page(
        f"{title_of(runs[0].engine)} on {runs[0].data.path.name}",
        *evaluation_sections(runs),
        what_was_run(runs[0].engine, command=command, machine=machine, versions=versions, card=card),
    )


def evaluation_sections(runs: Sequence[Evaluated]) -> list[Markup]:
    """All that a report says about results; at least one run."""
    first = runs[0]
    return [
        _summary(first),
        *([_sizes(runs)] if len(runs) > 1 else []),
        _precision_and_recall(first),
        _classes(first),
        _errors(first),
        _confusion(first),
        _worst(first),
    ]


def title_of(engine: Mapping[str, Any]) -> str:
    """What ran, in a few words."""
    if engine["model"] is None:
        return str(engine["predictions"])
    random = ", RANDOM WEIGHTS" if engine["random_weights"] else ""
    words = ", ".join(str(engine[key]) for key in ("backend", "device", "precision", "imgsz"))
    return f"{engine['model']} ({words}{random})"


def percent(value: float | None) -> str:
    """A share in 0..1 as it stands in tables."""
    return "-" if value is None else f"{100 * value:.1f}"


def what_was_run(
    engine: Mapping[str, Any],
    *,
    command: str,
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    card: WeightsInfo | None,
) -> Markup:
    """Command, engine, machine, versions and what the weights say about themselves."""
    return section(
        "What was run",
        facts([("command", element("code", command))]),
        element("h3", "Engine"),
        facts(engine.items()),
        *([] if card is None else [element("h3", "Model card"), facts(_card(card))]),
        element("h3", "Machine"),
        facts(machine.items()),
        element("h3", "Versions"),
        facts(versions.items()),
    )


def _card(info: WeightsInfo) -> list[tuple[str, object]]:
    figures = {k: round(100 * v, 1) if isinstance(v, float) else v for k, v in (info.ap or {}).items()}
    return [
        ("scale", info.name),
        ("classes", len(info.class_names)),
        ("input", f"{info.input_hw[0]} x {info.input_hw[1]}"),
        ("score threshold", info.score_threshold),
        ("figures in the file", ", ".join(f"{key} {value}" for key, value in figures.items())),
        ("trained on", info.trained_on),
        ("started from", info.started_from),
        ("command", info.command),
        ("licence", info.licence),
        ("SHA-256 of the tensors", info.sha256),
    ]


def _summary(run: Evaluated) -> Markup:
    scores, (_, total) = run.scores, run.at_threshold()
    cards = [(name, percent(scores.figures[key])) for key, name in FIGURES.items()]
    if run.latency is not None:
        cards += [("ms a picture, median", f"{run.latency.median_ms:.1f}"), ("ms, p95", f"{run.latency.p95_ms:.1f}")]
    words = [f"{scores.pictures} pictures, {scores.boxes} boxes. "]
    if scores.interval is not None:
        low, high = scores.interval
        words.append(f"95 % of the draws of the pictures give an AP of {percent(low)} to {percent(high)}. ")
    words.append(
        f"From the score {run.threshold:.3g} on, at IoU 0.5: recall {percent(total.recall)}, precision "
        f"{percent(total.precision)}."
    )
    cells = [element("div", element("b", value), element("span", name), class_="card") for name, value in cards]
    return joined([element("div", *cells, class_="cards"), paragraph("".join(words)), *_stages(run), *_notes(run)])


def _stages(run: Evaluated) -> list[Markup]:
    if run.latency is None:
        return []
    rows = [(name, f"{median:.2f}", f"{p95:.2f}") for name, (median, p95) in run.latency.stages.items()]
    told = f"Milliseconds a picture, one at a time, over the {run.latency.pictures} pictures of this very run:"
    return [paragraph(told, quiet=True), table(("stage", "median", "p95"), rows)]


def _notes(run: Evaluated) -> list[Markup]:
    return [paragraph(note) for note in run.scores.notes]


def _sizes(runs: Sequence[Evaluated]) -> Markup:
    rows = [
        [
            run.engine.get("imgsz"),
            *(percent(run.scores.figures[key]) for key in FIGURES),
            None if run.scores.interval is None else " to ".join(percent(value) for value in run.scores.interval),
            None if run.latency is None else f"{run.latency.median_ms:.1f}",
            None if run.latency is None else f"{run.latency.p95_ms:.1f}",
        ]
        for run in runs
    ]
    columns = ["input", *FIGURES.values(), "95 % interval", "median ms", "p95 ms"]
    return section("At several input sizes", table(columns, rows))


def _precision_and_recall(run: Evaluated) -> Markup:
    if not run.scores.curves:
        return section("Precision over recall", paragraph("The data set has no box to find."))
    lines = [
        Curve(f"IoU {name}", tuple(RECALL_STEPS.tolist()), precision) for name, precision in run.scores.curves.items()
    ]
    drawing = curves(lines, x_label="recall", y_label="precision", y_range=(0.0, 1.0))
    return section("Precision over recall", paragraph("Mean over the classes.", quiet=True), drawing)


def _classes(run: Evaluated) -> Markup:
    each, _ = run.at_threshold()
    known = [(row, point) for row, point in zip(run.scores.classes, each, strict=True) if row.boxes]
    known.sort(key=lambda both: -(both[0].ap or 0.0))
    rows = [
        (row.name, row.boxes, *(percent(value) for value in (row.ap, row.ap50, point.recall, point.precision)))
        for row, point in known
    ]
    without = len(run.scores.classes) - len(known)
    told = "The best AP first; recall and precision are those at the score threshold."
    if without:
        told += f" {without} classes of the data set have no box and are left out."
    columns = ("class", "boxes", "AP", "AP50", "recall", "precision")
    return section("Classes", paragraph(told, quiet=True), table(columns, rows))


def _errors(run: Evaluated) -> Markup:
    split = run.errors()
    if split is None:
        return section("Where precision is lost", paragraph("The data set has no box to find."))
    told = (
        f"AP50 is {percent(split.ap50)}. A bar is what it would gain if there were no errors of one kind; each is "
        "measured alone, so they do not add up. The kinds are those of TIDE (arXiv:2008.08115)."
    )
    rows = [(kind.name, KINDS[kind.name], f"+{100 * kind.gain:.1f}", kind.count, kind.shown) for kind in split.kinds]
    columns = ("kind", "what it is", "AP50", "of any score", f"from {split.threshold:.3g} on")
    drawing = bars([(kind.name, kind.gain, f"+{100 * kind.gain:.1f}") for kind in split.kinds])
    return section("Where precision is lost", paragraph(told), drawing, table(columns, rows, words=2))


def _confusion(run: Evaluated) -> Markup:
    confusion = run.confusion()
    counts = confusion.counts
    seen = np.flatnonzero((counts.sum(0) + counts.sum(1)) > 0)
    if not len(seen):
        return section("Confusion", paragraph("There are neither boxes nor detections."))
    names = [*confusion.names, BACKGROUND]
    told = (
        f"From the score {confusion.threshold:.3g} on, at IoU 0.5. A row is what it is, a column what it was taken "
        f"for; the last column is missed ({confusion.missed} boxes), the last row false alarms "
        f"({confusion.false_alarms}). Colour is the share of the row; a cell says its number when pointed at."
    )
    drawing = element("div", matrix([names[k] for k in seen], counts[np.ix_(seen, seen)]), class_="wide")
    top = confusion.top(20)
    listed = [table(("it is", "taken for", "times"), top, words=2)] if top else []
    return section("Confusion", paragraph(told), drawing, *listed)


def _worst(run: Evaluated) -> Markup:
    told = (
        f"Most mistakes first, from the score {run.threshold:.3g} on. Left what was found, with its score; right what "
        "is there."
    )
    return section("Worst pictures", paragraph(told, quiet=True), worst_pictures(run))
