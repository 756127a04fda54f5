"""Labels that detectors make: `ledetr label PICTURES --teacher FILE [--teacher FILE ...] -o LABELS.json`.

Several teachers are fused, see training/fusion.py. Each picture is written to a part file as it is done, so that a run
can be stopped; the COCO file appears whole at the end and says that no person drew its boxes.
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.backends import BACKENDS
from ledetr.chain.images import list_images
from ledetr.chain.sources import FolderSpec, ImageSpec, ListSpec, parse_source
from ledetr.cli.interruption import stop_on_ctrl_c
from ledetr.cli.one_document import one_document
from ledetr.cli.progress import shown_progress
from ledetr.coco_file import inside
from ledetr.errors import Interrupted, PartialFailure, SourceError, UsageError
from ledetr.pictures import read_picture
from training import edge
from training.data.dataset import read_size
from training.ensemble import Ensemble
from training.fusion import MAX_BOXES, OVERLAP, SCORE_FLOOR
from training.label_file import Labelled, PartFile, write_labels

MIN_SCORE = 0.1
READ_AHEAD = 8
READER_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which fused boxes become labels: those with at least this score, so many at most; hard: without their scores."""

    min_score: float
    hard: bool
    max_boxes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run. unreadable: pictures without a label, and why. here, seconds: done by this run, and how long
    it took."""

    pictures: int
    boxes: int
    unreadable: tuple[tuple[Path, str], ...]
    here: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "pictures": self.pictures,
            "boxes": self.boxes,
            "unreadable": [{"file": str(path), "why": why} for path, why in self.unreadable],
            "pictures_per_s": round(self.here / self.seconds, 3) if self.here else None,
        }


def find_pictures(word: str) -> tuple[Path, dict[str, Path]]:
    """The folder that names are counted from, and the pictures by name: a folder's, a glob's, a list's, or one.

    SourceError for other sources, and where a picture lies outside that folder, as it could not be named.
    """
    spec = parse_source(word)
    if not isinstance(spec, ImageSpec | FolderSpec | ListSpec):
        raise SourceError(f"{word!r} is no folder of pictures, no glob such as 'pictures/**/*.jpg' and no list (.txt)")
    folder = spec.path if isinstance(spec, FolderSpec) else spec.path.parent
    found = {}
    for path in list_images(spec):
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
        found[name] = inside(folder, name, named_by=spec.path)
    return folder, found


def label_pictures(
    pictures: dict[str, Path], folder: Path, ensemble: Ensemble, output: Path, rule: Rule, *, resume: bool, quiet: bool
) -> Report:
    """Label every picture and write the COCO file; Interrupted after Ctrl-C, with what is done kept in the part file.

    SourceError where not one picture can be read.
    """
    with PartFile(output, job_of(folder, ensemble, rule), resume=resume) as part:
        left = {name: path for name, path in pictures.items() if name not in part.done}
        started_s = time.monotonic()
        unreadable = _label_left(left, len(pictures), ensemble, rule, part, quiet=quiet)
        seconds = max(time.monotonic() - started_s, 1e-9)
        labelled = [part.done[name] for name in pictures if name in part.done]
        if not labelled:
            part.remove()
            raise SourceError(f"none of the {len(pictures)} pictures can be read; the first: {unreadable[0][1]}")
        write_labels(
            output, labelled, ensemble.class_names, ensemble.category_ids, info_of(ensemble, rule), scores=not rule.hard
        )
        part.remove()
    boxes = sum(len(picture.rows) for picture in labelled)
    return Report(len(labelled), boxes, tuple(unreadable), len(left) - len(unreadable), seconds)


def _label_left(
    left: dict[str, Path], total: int, ensemble: Ensemble, rule: Rule, part: PartFile, *, quiet: bool
) -> list[tuple[Path, str]]:
    """Label these into the part file; those that cannot be read come back with the reason."""
    unreadable: list[tuple[Path, str]] = []
    started_s, before = time.monotonic(), total - len(left)
    with (
        stop_on_ctrl_c() as stop,
        shown_progress("", unit="pictures", quiet=quiet, rate_unit="pictures/s") as show,
    ):
        for number, (name, path, rgb) in enumerate(_read_ahead(left), 1):
            if isinstance(rgb, SourceError):
                unreadable.append((path, str(rgb)))
            else:
                found = ensemble.detect(rgb, max_boxes=rule.max_boxes).filter(conf=rule.min_score)
                labelled = Labelled.of(name, (rgb.shape[0], rgb.shape[1]), found, read_size(path)[1])
                part.add(labelled)
            rate = number / max(time.monotonic() - started_s, 1e-9)
            show(before + number, total, (len(left) - number) / rate, rate)
            if stop.is_set() and number < len(left):
                raise Interrupted(
                    f"stopped after {before + number} of {total} pictures; the same command with --resume goes on"
                )
    return unreadable


def _read_ahead(pictures: dict[str, Path]) -> Iterator[tuple[str, Path, np.ndarray | SourceError]]:
    """Name, path and pixels in order, a few pictures decoded beforehand; the error in the place of what is damaged."""
    with ThreadPoolExecutor(READER_THREADS, thread_name_prefix="pictures") as pool:
        waiting: deque[tuple[str, Path, Future[np.ndarray | SourceError]]] = deque()
        for name, path in pictures.items():
            waiting.append((name, path, pool.submit(_read, path)))
            if len(waiting) > READ_AHEAD:
                first, where, decoded = waiting.popleft()
                yield first, where, decoded.result()
        for first, where, decoded in waiting:
            yield first, where, decoded.result()


def _read(path: Path) -> np.ndarray | SourceError:
    try:
        return read_picture(path)
    except SourceError as error:
        return error


def job_of(folder: Path, ensemble: Ensemble, rule: Rule) -> dict[str, Any]:
    """All that decides what the labels of a picture are; the keys are words of messages."""
    return {
        "pictures": str(folder.resolve()),
        "boxes": "of the stored pictures",
        "teachers": [teacher.sha256 for teacher in ensemble.teachers],
        "classes": list(ensemble.class_names),
        "flip": ensemble.flip,
        "lowest score": rule.min_score,
        "most boxes": rule.max_boxes,
        "hard labels": rule.hard,
    }


def info_of(ensemble: Ensemble, rule: Rule) -> dict[str, Any]:
    """What the COCO file says about where its boxes come from."""
    scored = "Boxes have no scores." if rule.hard else "Each box has the score of the detectors."
    return {
        "description": f"Machine labels: boxes that detectors found, not checked by a person. {scored}",
        "machine_labels": True,
        "teachers": [teacher.to_json() for teacher in ensemble.teachers],
        "fusion": {
            "passes": len(ensemble.teachers) * (2 if ensemble.flip else 1),
            "flip": ensemble.flip,
            "overlap": OVERLAP,
            "score_floor": SCORE_FLOOR,
        },
        "min_score": rule.min_score,
        "max_boxes": rule.max_boxes,
    }


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ledetr label", description="Write labels that detectors make, as a COCO file with scores."
    )
    add = parser.add_argument
    add("pictures", help="a folder, a glob such as 'pictures/**/*.jpg' in quotes, a list (.txt), or one picture")
    add("--teacher", action="append", required=True, metavar="FILE", help="a .safetensors, an .onnx, or a scale; again")
    add("-o", "--output", type=Path, required=True, metavar="LABELS.json", help="the COCO file to write")
    add("--flip", action="store_true", help="each teacher also looks at the mirrored picture")
    add("--min-score", type=float, metavar="S", help=f"keep boxes from this score on (default {MIN_SCORE})")
    add("--hard", type=float, metavar="S", help="keep boxes from this score on, and leave the scores out (say 0.4)")
    add("--max-boxes", type=int, default=MAX_BOXES, metavar="N", help=f"best boxes of a picture (default {MAX_BOXES})")
    add("--resume", action="store_true", help="go on where a stopped run was")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--backend", default="auto", help=f"of .safetensors teachers: auto, {', '.join(BACKENDS)}")
    add("--device", default="auto", help="of .safetensors teachers: auto, cpu, cuda; .onnx files run on the processor")
    add("--threads", type=int, help="processor threads of each teacher")
    add("--json", action="store_true", help="print one JSON document")
    add("-q", "--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(words)
    if args.hard is not None and args.min_score is not None:
        parser.error("--hard and --min-score both say the lowest score; name one")
    if not all(0 <= score <= 1 for score in (args.hard, args.min_score) if score is not None):
        parser.error("a score lies in 0..1")
    if args.max_boxes < 1:
        parser.error("--max-boxes must be above 0")
    if args.output.suffix.lower() != ".json":
        parser.error(f"the output {str(args.output)!r} must end in .json")
    return args


def _rule(args: argparse.Namespace) -> Rule:
    soft = MIN_SCORE if args.min_score is None else args.min_score
    return Rule(
        min_score=soft if args.hard is None else args.hard, hard=args.hard is not None, max_boxes=args.max_boxes
    )


def main(words: Sequence[str] | None = None) -> None:
    """Open the teachers, label, write; PartialFailure where some pictures could not be read."""
    args = parse_arguments(words)
    if args.output.exists() and not args.overwrite:
        raise UsageError(f"{str(args.output)!r} is there already; give another name, or --overwrite")
    with one_document(args.json) as document:
        folder, pictures = find_pictures(args.pictures)
        with Ensemble.open(
            args.teacher, flip=args.flip, backend=args.backend, device=args.device, threads=args.threads
        ) as ensemble:
            report = label_pictures(
                pictures, folder, ensemble, args.output, _rule(args), resume=args.resume, quiet=args.quiet
            )
        document.update(output=str(args.output), **report.to_json())
    if not args.json:
        print(args.output)
    if not args.quiet:
        print(_summary(report, args.output, folder), file=sys.stderr)
    if report.unreadable:
        for _, why in report.unreadable:
            print(f"ledetr: {why}", file=sys.stderr)
        raise PartialFailure(
            f"{len(report.unreadable)} of {len(pictures)} pictures could not be read and have no labels; the others "
            f"are in {str(args.output)!r}"
        )


def _summary(report: Report, output: Path, folder: Path) -> str:
    where = "" if folder.resolve() == output.with_suffix("").resolve() else f" --images {folder}"
    rate = f", {report.here / report.seconds:.2f} pictures/s" if report.here else ""
    return f"{report.pictures} pictures, {report.boxes} boxes{rate}; to train: ledetr train {output}{where}"


if __name__ == "__main__":
    edge.run(main)
