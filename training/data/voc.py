"""Pascal VOC: one XML file for each picture. Entities and document types are refused before anything is expanded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from ledetr.coco_file import inside
from ledetr.errors import SourceError
from training.data.dataset import IMAGE_SUFFIXES, Box, Dataset, Draft, Problem, open_pictures

MAX_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class _Object:
    name: str
    box: Box
    row: int
    difficult: bool


def read_voc(folder: Path, split: str | None = None, class_names: Sequence[str] | None = None) -> Dataset:
    """A folder with Annotations and JPEGImages, or one where XML files and pictures lie side by side.

    split: the list ImageSets/Main/SPLIT.txt, all pictures if None. class_names: default the names that occur, sorted.
    Category ids count from 1. Corners count pixels from 1, as VOC's do, unless one of the set is 0. Objects marked as
    difficult are regions to ignore.
    """
    files = _files(folder, split)
    drafts: list[tuple[Draft, list[_Object]]] = []
    problems: list[Problem] = []
    for number, path in enumerate(files, 1):
        draft, objects, odd = _read_one(folder, path, number)
        problems += odd
        if draft is not None:
            drafts.append((draft, objects))
    names = tuple(class_names or sorted({o.name for _, objects in drafts for o in objects}))
    if not names:
        raise SourceError(f"{str(folder)!r} has no object in any of its {len(files)} XML files")
    index = {name: label for label, name in enumerate(names)}
    first = 0.0 if any(min(o.box[:2]) == 0 for _, objects in drafts for o in objects) else 1.0
    for draft, objects in drafts:
        for o in objects:
            if o.name not in index:
                problems.append(
                    Problem("unknown class", f"{draft.source!r} object {o.row} is a {o.name!r}, not among the classes")
                )
                continue
            x0, y0, x1, y1 = o.box
            draft.add((x0 - first, y0 - first, x1, y1), index[o.name], o.row, crowd=o.difficult)
    pictures, unreadable = open_pictures([draft for draft, _ in drafts], len(names))
    ids = tuple(range(1, len(names) + 1))
    return Dataset(pictures, names, ids, str(folder), (*problems, *unreadable))


def _files(folder: Path, split: str | None) -> list[Path]:
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    if split is None:
        files = sorted(annotations.glob("*.xml"))
    else:
        listed = folder / "ImageSets" / "Main" / f"{split}.txt"
        if not listed.is_file():
            raise SourceError(f"there is no list {str(listed)!r} of the pictures for {split!r}")
        words = [line.split() for line in listed.read_text(encoding="utf-8-sig").splitlines()]
        files = [inside(annotations, f"{line[0]}.xml", named_by=listed) for line in words if line]
    if not files:
        raise SourceError(f"{str(annotations)!r} has no XML files")
    return files


def _read_one(folder: Path, path: Path, number: int) -> tuple[Draft | None, list[_Object], list[Problem]]:
    try:
        root = parse_xml(path)
    except SourceError as error:
        return None, [], [Problem("unreadable labels", str(error))]
    picture = _picture(folder, path, root)
    size = [root.findtext(f"size/{key}", "") for key in ("height", "width")]
    declared = (int(size[0]), int(size[1])) if all(s.isdecimal() and int(s) > 0 for s in size) else None
    draft = Draft(path=picture, key=picture.stem, image_id=number, source=str(path), declared_hw=declared)
    objects, problems = [], []
    for row, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        box = _box([element.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")])
        if not name or box is None:
            text = f"{str(path)!r} object {row}: expected a name and a bndbox of four finite numbers"
            problems.append(Problem("no box", text))
            continue
        objects.append(_Object(name, box, row, element.findtext("difficult", "0").strip() == "1"))
    return draft, objects, problems


def _picture(folder: Path, path: Path, root: ElementTree.Element) -> Path:
    """Where the file says, in JPEGImages or beside; the XML's own name with a picture's ending if it says nothing."""
    pictures = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else folder
    name = (root.findtext("filename") or "").strip()
    if name:
        named = inside(pictures, name, named_by=path)
        if named.suffix.lower() in IMAGE_SUFFIXES:
            return named
    candidates = (pictures / f"{path.stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
    return next((c for c in candidates if c.is_file()), pictures / f"{path.stem}.jpg")


def _box(words: Sequence[str]) -> Box | None:
    try:
        x0, y0, x1, y1 = (float(word) for word in words)
    except ValueError:
        return None
    return (x0, y0, x1, y1) if all(math.isfinite(v) for v in (x0, y0, x1, y1)) else None


def parse_xml(path: Path) -> ElementTree.Element:
    """The tree of a small XML file without a document type; SourceError for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{str(path)!r} has more than {MAX_BYTES:,} bytes; refused")
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error

    def refuse(*_: object) -> None:
        raise SourceError(f"{str(path)!r} declares a document type or entities, which labels do not need; refused")

    scanner = expat.ParserCreate()
    scanner.StartDoctypeDeclHandler = refuse
    scanner.EntityDeclHandler = refuse
    try:
        scanner.Parse(content, True)
        root = ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{str(path)!r} is not valid XML: {error}") from error
    if root.tag != "annotation":
        raise SourceError(f"{str(path)!r} is no VOC file: its root is <{root.tag[:40]}>, expected <annotation>")
    return root
