"""Is this data set fit to train on? A report in seconds, before a run fails in hours.

    python -m training.check_data DATA [--val VAL] [--images FOLDER] [--sheet SHEET.png] [--fix CLEANED.json] [--json]

Errors are what training would stop at; warnings are what it would work around; notes are only said.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledetr.chain.overlay import class_colour
from ledetr.cli.one_document import one_document
from ledetr.errors import OutputError, SourceError
from ledetr.files import sha256_of, whole_file
from ledetr.pictures import read_picture
from ledetr.weights_info import MAX_NAME_LENGTH
from training import edge
from training.data.dataset import Dataset, Picture, Problem, in_threads, stored_boxes, stored_size
from training.data.read import read_dataset, read_splits

TINY_PX = 2.0
OUTSIDE_PX = 1.0
"""A box may stick out so far by rounding without being mentioned."""
SHEET_PICTURES, SHEET_COLUMNS, THUMBNAIL_PX = 64, 8, 160
SHOWN_PER_KIND = 3
DEFAULT_QUERIES = 300
SIZE_STEPS_PX = (2, 8, 16, 32, 96)
REPEAT_SHARE, MOST_REPEATS = 0.02, 4.0


@dataclass(frozen=True, slots=True)
class ClassCount:
    """repeat: how often its pictures would be repeated to balance the classes (sqrt(0.02 / share), at most 4)."""

    name: str
    category_id: int
    boxes: int
    pictures: int
    repeat: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known about a data set before training. objects_per_picture: median, 95 % and most, crowds left out."""

    name: str
    pictures: int
    pictures_without_objects: int
    boxes: int
    crowds: int
    objects_per_picture: tuple[int, int, int]
    sizes_px: dict[str, int]
    classes: tuple[ClassCount, ...]
    problems: tuple[Problem, ...] = field(default=())

    @property
    def errors(self) -> list[Problem]:
        """What training would stop at."""
        return [problem for problem in self.problems if problem.level == "error"]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"errors": len(self.errors)}


def check(
    data: Dataset, *, val: Dataset | None = None, input_px: int = 640, queries: int = DEFAULT_QUERIES, deep: bool = True
) -> Report:
    """The report on a data set. deep: also decode every picture and compare their contents, also with those of val.

    input_px: side of the network input, for the histogram of box sizes. queries: of the network that will be trained.
    """
    problems = [*data.problems, *_class_problems(data), *_box_problems(data), *_many_objects(data, queries)]
    if deep:
        problems += _content_problems(data.pictures, () if val is None else val.pictures)
    counts = [int((~p.crowd).sum()) for p in data.pictures] or [0]
    empty = sum(len(p.labels) == 0 for p in data.pictures)
    if empty:
        problems.append(
            Problem("no objects", f"{empty} pictures have no objects; they teach what is background", "note")
        )
    return Report(
        name=data.name,
        pictures=len(data.pictures),
        pictures_without_objects=empty,
        boxes=sum(counts),
        crowds=sum(int(p.crowd.sum()) for p in data.pictures),
        objects_per_picture=(int(np.median(counts)), int(np.percentile(counts, 95)), max(counts)),
        sizes_px=_size_histogram(data.pictures, input_px),
        classes=_class_counts(data),
        problems=tuple(problems),
    )


def _class_counts(data: Dataset) -> tuple[ClassCount, ...]:
    boxes, pictures = np.zeros(len(data.class_names), int), np.zeros(len(data.class_names), int)
    for picture in data.pictures:
        labels = picture.labels[~picture.crowd]
        boxes += np.bincount(labels, minlength=len(boxes))
        pictures[np.unique(labels)] += 1
    shares = pictures / max(1, len(data.pictures))
    repeats = np.clip(np.sqrt(REPEAT_SHARE / np.maximum(shares, 1e-9)), 1.0, MOST_REPEATS)
    return tuple(
        ClassCount(name, category_id, int(b), int(p), round(float(r), 2) if p else 0.0)
        for name, category_id, b, p, r in zip(
            data.class_names, data.category_ids, boxes, pictures, repeats, strict=True
        )
    )


def _class_problems(data: Dataset) -> list[Problem]:
    used = {int(label) for picture in data.pictures for label in picture.labels}
    problems = []
    for label, (name, category_id) in enumerate(zip(data.class_names, data.category_ids, strict=True)):
        if label not in used:
            text = f"{data.name!r}: the class {name!r} (id {category_id}) has no box"
            problems.append(Problem("unused class", text, "warning"))
        if name.casefold() in ("background", "__background__", "bg"):
            text = (
                f"{data.name!r}: the class {name!r} (id {category_id}) would be learnt like any other; "
                "background needs no class"
            )
            problems.append(Problem("background class", text, "warning"))
    for name in data.class_names:
        if not name.isprintable() or len(name) > MAX_NAME_LENGTH:
            text = (
                f"{data.name!r} has the class name {name[:40]!r}: expected at most {MAX_NAME_LENGTH} printable letters"
            )
            problems.append(Problem("odd class name", text))
    doubles = [name for name, count in Counter(n.casefold() for n in data.class_names).items() if count > 1]
    for name in doubles:
        text = f"{data.name!r} has the class name {name!r} twice; classes are known by name, so rename one"
        problems.append(Problem("class name twice", text))
    return problems


def _many_objects(data: Dataset, queries: int) -> list[Problem]:
    crowded = [p for p in data.pictures if (~p.crowd).sum() > queries]
    if not crowded:
        return []
    worst = max(crowded, key=lambda p: len(p.labels))
    text = (
        f"{len(crowded)} pictures have more objects than the network has queries ({queries}), {str(worst.path)!r} "
        f"has {int((~worst.crowd).sum())}; take a larger scale or cut such pictures into parts"
    )
    return [Problem("many objects", text, "warning")]


def _box_problems(data: Dataset) -> list[Problem]:
    problems = []
    for picture in data.pictures:
        for index, kind, level, what in _odd_boxes(picture):
            box = ", ".join(f"{v:g}" for v in picture.boxes_xyxy[index].round(1))
            problems.append(
                Problem(kind, f"{picture.where(index)}: the box ({box}) in {picture.path.name!r} {what}", level)
            )
    return problems


def _odd_boxes(picture: Picture) -> list[tuple[int, str, Any, str]]:
    """(box, kind, level, what is odd about it) for the boxes that are not plainly good, one line for each."""
    if picture.size_hw is None or not len(picture.labels):
        return []
    height, width = picture.size_hw
    x0, y0, x1, y1 = picture.boxes_xyxy.T
    size = f"the picture has {width} x {height} pixels"
    found: dict[int, tuple[str, str, str]] = {}

    def mark(which: np.ndarray, kind: str, level: str, what: str) -> None:
        for index in np.flatnonzero(which):
            found.setdefault(int(index), (kind, level, what.replace("{over}", f"{over[index]:.0f}")))

    over = np.stack([-x0, -y0, x1 - width, y1 - height]).max(0)
    mark((x1 < x0) | (y1 < y0), "inverted box", "error", "ends before it starts")
    mark((x1 == x0) | (y1 == y0), "empty box", "warning", "has no area and is left out")
    gone = (x0 >= width) | (y0 >= height) | (x1 <= 0) | (y1 <= 0)
    mark(gone, "box outside", "error", f"lies outside; {size}")
    mark(over > OUTSIDE_PX, "box sticks out", "warning", f"sticks out by {{over}} px and is clipped; {size}")
    mark((x1 - x0 < TINY_PX) | (y1 - y0 < TINY_PX), "tiny box", "warning", f"has a side below {TINY_PX:g} px")
    rows = np.column_stack([picture.boxes_xyxy.round(2), picture.labels])
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        again = np.ones(len(rows), bool)
        again[first] = False
        mark(again, "same box twice", "warning", "stands there twice with the same class")
    return [(index, *rest) for index, rest in sorted(found.items())]


def _content_problems(pictures: Sequence[Picture], val: Sequence[Picture]) -> list[Problem]:
    """Files that cannot be decoded to their end, and files with equal bytes."""
    problems = [problem for problem in in_threads(_decode, pictures) if problem is not None]
    first: dict[str, Path] = {}
    for picture, digest in zip(pictures, in_threads(_digest, pictures), strict=True):
        if digest in first and first[digest] != picture.path:
            text = f"{str(picture.path)!r} is the same file as {str(first[digest])!r}"
            problems.append(Problem("same picture twice", text, "warning"))
        first.setdefault(digest, picture.path)
    for picture, digest in zip(val, in_threads(_digest, val), strict=True):
        if digest in first:
            text = f"{str(picture.path)!r} of the validation set is also in training, as {str(first[digest])!r}"
            problems.append(Problem("in train and val", text, "warning"))
    return problems


def _decode(picture: Picture) -> Problem | None:
    try:
        read_picture(picture.path)
    except SourceError as error:
        return Problem("unreadable picture", f"{str(picture.path)!r}: {error}")  # the error names the file alone
    return None


def _digest(picture: Picture) -> str:
    try:
        return sha256_of(picture.path)
    except OSError:
        return hashlib.sha256(str(picture.path).encode()).hexdigest()  # already reported as unreadable


def _size_histogram(pictures: Sequence[Picture], input_px: int) -> dict[str, int]:
    """Boxes by the root of their area at the network's input, between the steps."""
    roots = [np.zeros(0)]
    for picture in pictures:
        if picture.size_hw is not None:
            sides = (picture.boxes_xyxy[:, 2:] - picture.boxes_xyxy[:, :2]).clip(0)
            roots.append(np.sqrt(sides.prod(1) / (picture.size_hw[0] * picture.size_hw[1])) * input_px)
    edges = (0, *SIZE_STEPS_PX, np.inf)
    counts, _ = np.histogram(np.concatenate(roots), edges)
    names = [f"{low}-{high}" for low, high in zip(edges, SIZE_STEPS_PX, strict=False)] + [f"{SIZE_STEPS_PX[-1]}+"]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def cleaned(data: Dataset) -> tuple[Dataset, list[str]]:
    """Boxes clipped to their pictures; empty, inverted and outside ones and doubles dropped. Second: what was done."""
    log: list[str] = []
    return replace(data, pictures=tuple(_cleaned(picture, log) for picture in data.pictures)), log


def _cleaned(picture: Picture, log: list[str]) -> Picture:
    if picture.size_hw is None or not len(picture.labels):
        return picture
    height, width = picture.size_hw
    boxes = picture.boxes_xyxy.clip(0, [width, height, width, height]).astype(np.float32)
    kept = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))
    for index, kind, _, _ in _odd_boxes(picture):
        if kind == "same box twice":
            kept[index] = False
        if kind != "tiny box":
            log.append(f"{picture.where(index)}: {kind}, {'clipped' if kept[index] else 'dropped'}")
    return picture.keep(kept, boxes)


def write_coco(data: Dataset, path: Path) -> None:
    """The data set as COCO JSON whose pictures are named from the JSON's own folder; they must lie inside it."""
    folder = path.parent.resolve()
    strange = next((p.path for p in data.pictures if not p.path.resolve().is_relative_to(folder)), None)
    if strange is not None:
        raise OutputError(f"{str(path)!r} must be in a folder that holds the pictures, {str(strange)!r} is outside")
    content = {
        "images": [
            {
                "id": p.image_id,
                "file_name": p.path.resolve().relative_to(folder).as_posix(),
                **_size_and_turn(p),
            }
            for p in data.pictures
        ],
        "categories": [{"id": i, "name": n} for i, n in zip(data.category_ids, data.class_names, strict=True)],
        "annotations": [row for p in data.pictures for row in _rows(p, data.category_ids)],
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(content))


def _size_and_turn(picture: Picture) -> dict[str, int]:
    """Of the stored picture, which is what COCO's boxes are of."""
    if picture.size_hw is None:
        return {}
    height, width = stored_size(picture.size_hw, picture.orientation)
    turned = {} if picture.orientation == 1 else {"exif_orientation": picture.orientation}
    return {"height": height, "width": width, **turned}


def _rows(picture: Picture, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    boxes_xyxy = picture.boxes_xyxy
    if picture.size_hw is not None:
        boxes_xyxy = stored_boxes(boxes_xyxy, picture.size_hw, picture.orientation)
    return [
        {
            "image_id": picture.image_id,
            "category_id": category_ids[int(label)],
            "bbox": [round(float(v), 3) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "iscrowd": int(crowd),
            **({} if weight == 1 else {"score": round(float(weight), 4)}),
        }
        for box, label, crowd, weight in zip(boxes_xyxy, picture.labels, picture.crowd, picture.weights(), strict=True)
    ]


def contact_sheet(data: Dataset) -> np.ndarray:
    """(H, W, 3) uint8 RGB: up to 64 pictures with their boxes, chosen by a hash of their names."""
    chosen = sorted(data.pictures, key=lambda p: hashlib.sha256(p.key.encode()).hexdigest())[:SHEET_PICTURES]
    columns = min(SHEET_COLUMNS, max(1, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    sheet = np.full((rows * THUMBNAIL_PX, columns * THUMBNAIL_PX, 3), 40, np.uint8)
    for number, picture in enumerate(chosen):
        try:
            thumbnail = _thumbnail(picture, data.class_names)
        except SourceError:
            continue  # its place stays grey; the report names it
        top, left = number // columns * THUMBNAIL_PX, number % columns * THUMBNAIL_PX
        sheet[top : top + thumbnail.shape[0], left : left + thumbnail.shape[1]] = thumbnail
    return sheet


def _thumbnail(picture: Picture, class_names: Sequence[str]) -> np.ndarray:
    rgb = read_picture(picture.path)
    scale = (THUMBNAIL_PX - 4) / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    for box, label, crowd in zip(picture.boxes_xyxy, picture.labels, picture.crowd, strict=True):
        x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
        colour = (160, 160, 160) if crowd else class_colour(int(label))
        cv2.rectangle(small, (x0, y0), (x1 - 1, y1 - 1), colour, 1)
        cv2.putText(small, class_names[label][:12], (x0 + 1, y0 + 9), cv2.FONT_HERSHEY_PLAIN, 0.6, colour)
    return np.asarray(small)


def write_sheet(data: Dataset, path: Path) -> None:
    """The contact sheet as a PNG."""
    with whole_file(path) as part:
        Image.fromarray(contact_sheet(data)).save(part, format="PNG")


def print_report(report: Report) -> None:
    """Tables on stdout; at most a few sentences of each kind of problem."""
    console = Console()
    median, most_95, most = report.objects_per_picture
    console.print(
        Text(
            f"{report.name}: {report.pictures} pictures ({report.pictures_without_objects} without objects), "
            f"{report.boxes} boxes, {report.crowds} ignore regions; objects in a picture: median {median}, "
            f"95 % at most {most_95}, most {most}"
        )
    )
    table = Table(title="Classes", title_justify="left")
    for column in ("class", "id", "boxes", "pictures", "repeat"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in report.classes:
        table.add_row(Text(row.name), str(row.category_id), str(row.boxes), str(row.pictures), f"{row.repeat:g}")
    console.print(table)
    sizes = ", ".join(f"{name}: {count}" for name, count in report.sizes_px.items())
    console.print(Text(f"Boxes by the root of their area in pixels of the network input: {sizes}"))
    for level in ("error", "warning", "note"):
        kinds: dict[str, list[str]] = {}
        for problem in report.problems:
            if problem.level == level:
                kinds.setdefault(problem.kind, []).append(problem.text)
        for kind, texts in kinds.items():
            console.print(Text(f"{level}: {kind} ({len(texts)})"))
            for text in texts[:SHOWN_PER_KIND]:
                console.print(Text(f"  {text}"))
            if len(texts) > SHOWN_PER_KIND:
                console.print(Text(f"  ... and {len(texts) - SHOWN_PER_KIND} more (--json lists all)"))


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ledetr check-data", description="Is this data set fit to train on?")
    parser.add_argument("data", type=Path, help="a COCO .json, a YOLO data.yaml, a Pascal VOC folder, or a .csv")
    parser.add_argument("--val", type=Path, help="a second data set that training must not have seen")
    parser.add_argument("--images", type=Path, help="folder of the pictures, where it is not the usual one")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the network input (default 640)")
    parser.add_argument("--sheet", type=Path, help="write a PNG of up to 64 pictures with their boxes")
    parser.add_argument("--fix", type=Path, metavar="OUT.json", help="write a COCO file with what can be mended")
    parser.add_argument("--quick", action="store_true", help="do not decode the pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(words)


def main() -> None:
    """Report; exit code 3 where training would stop."""
    args = parse_arguments()
    with one_document(args.json) as document:
        if args.val is not None:
            data, val = read_splits(args.data, args.val, args.images)
        else:
            data, val = read_dataset(args.data, args.images), None
        report = check(data, val=val, input_px=args.imgsz, deep=not args.quick)
        if args.sheet is not None:
            write_sheet(data, args.sheet)
        if args.fix is not None:
            mended, log = cleaned(data)
            write_coco(mended, args.fix)
            for line in log:
                print(line, file=sys.stderr)
            document["fixes"] = log
        document.update(report.to_json())
    if not args.json:
        print_report(report)
    if report.errors:
        raise SourceError(f"{report.name!r} has {len(report.errors)} errors that training would stop at")


if __name__ == "__main__":
    edge.run(main)
