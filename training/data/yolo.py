"""YOLO's form: data.yaml with names and folders, and for each picture a text file with a line per object."""

import math
from collections.abc import Iterator
from pathlib import Path

from ledetr.coco_file import inside
from ledetr.errors import SourceError
from training.data.dataset import IMAGE_SUFFIXES, Box, Dataset, Draft, Problem, open_pictures
from training.data.yaml_subset import Value, read_yaml

KEYS = ("path", "train", "val", "test", "names", "nc")


def has_split(yaml: Path, split: str) -> bool:
    """Whether data.yaml names pictures for a split."""
    return bool(read_yaml(yaml, KEYS).get(split))


def read_yolo(yaml: Path, split: str = "train", root: Path | None = None) -> Dataset:
    """One split of a data.yaml. Labels lie in `labels` where the pictures lie in `images`, else beside the pictures.

    root: the folder that the splits are named from, by default that of the file. A picture without a label file has no
    objects. Classes keep their numbers as category ids, holes included.
    """
    values = read_yaml(yaml, KEYS)
    names = _names(yaml, values)
    folder = (root or _root(yaml, values)).resolve()
    index = {number: label for label, number in enumerate(names)}
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for number, path in enumerate(_pictures(yaml, folder, values, split), 1):
        labels = _label_file(folder, path)
        draft = Draft(path=path, key=path.stem, image_id=number, source=str(labels), relative=True)
        problems += _read_labels(draft, labels, index)
        drafts.append(draft)
    if not drafts:
        raise SourceError(f"{str(yaml)!r} names no pictures for {split!r}: {values.get(split)!r} holds none")
    pictures, unreadable = open_pictures(drafts, len(names))
    return Dataset(pictures, tuple(names.values()), tuple(names), str(yaml), (*problems, *unreadable))


def _names(yaml: Path, values: dict[str, Value]) -> dict[int, str]:
    given = values.get("names")
    if isinstance(given, list):
        table = dict(enumerate(given))
    elif isinstance(given, dict) and all(key.isdecimal() for key in given):
        table = dict(sorted((int(key), name) for key, name in given.items()))
    else:
        raise SourceError(f"{str(yaml)!r} has no names: expected a list of class names, or a table of number to name")
    if not table or not all(table.values()):
        raise SourceError(f"{str(yaml)!r} has an empty list of names, or an empty name")
    count = values.get("nc")
    if isinstance(count, str) and count != str(len(table)):
        raise SourceError(f"{str(yaml)!r} says nc: {count}, but has {len(table)} names; correct one of them")
    return table


def _root(yaml: Path, values: dict[str, Value]) -> Path:
    """`path`, where it is a folder inside that of the file; else the file's own folder, whatever machine wrote it."""
    given = values.get("path")
    if isinstance(given, str) and given not in ("", "."):
        candidate = yaml.parent / given
        if candidate.is_dir() and candidate.resolve().is_relative_to(yaml.parent.resolve()):
            return candidate
    return yaml.parent


def _pictures(yaml: Path, folder: Path, values: dict[str, Value], split: str) -> Iterator[Path]:
    """Pictures of a split in name order; entries are folders, lists of pictures, or several of these."""
    entries = values.get(split)
    if not entries:
        raise SourceError(f"{str(yaml)!r} names no pictures for {split!r}")
    if isinstance(entries, dict):
        raise SourceError(f"{str(yaml)!r}: {split!r} must be a folder, a list file or a list of these")
    for entry in [entries] if isinstance(entries, str) else entries:
        path = _entry(yaml, folder, entry)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file() and path.suffix == ".txt":
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                if line.strip():
                    yield inside(folder, line.strip().removeprefix("./"), named_by=path)
        else:
            raise SourceError(f"{str(yaml)!r} names {entry!r} for {split!r}, which is not in {str(folder)!r}")


def _entry(yaml: Path, folder: Path, entry: str) -> Path:
    """A common exporter writes ../train/images for what lies beside the file, so leading dots fall away if need be."""
    words = entry.replace("\\", "/").split("/")
    while words[0] == ".." and not (folder / Path(*words)).exists():
        words = words[1:] or ["."]
    return inside(folder, "/".join(words), named_by=yaml)


def _label_file(folder: Path, picture: Path) -> Path:
    parts = picture.relative_to(folder).parts if picture.is_relative_to(folder) else picture.parts
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts = (*parts[:last], "labels", *parts[last + 1 :])
    return (folder / Path(*parts)).with_suffix(".txt")


def _read_labels(draft: Draft, labels: Path, index: dict[int, int]) -> Iterator[Problem]:
    """Put the lines of a label file into the draft; lines that make no sense are given back."""
    if not labels.is_file():
        return
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        yield Problem("unreadable labels", f"{str(labels)!r} cannot be read as text: {error}")
        return
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        found = _object(words)
        where = f"{str(labels)!r} line {number}"
        if found is None:
            yield Problem("bad line", f"{where}: expected 'class x y width height', got {line.strip()[:60]!r}")
            continue
        number_of_class, box, score = found
        if number_of_class not in index:
            yield Problem("unknown class", f"{where} has the class {number_of_class}; data.yaml knows {_some(index)}")
        elif max(abs(v) for v in box) > 2:
            yield Problem("not relative", f"{where}: {line.strip()[:60]!r} is not in 0..1 of the picture; pixels?")
        elif not 0 <= score <= 1:
            yield Problem("bad score", f"{where} has the score {score:g}, expected a number in 0..1")
        else:
            draft.add(box, index[number_of_class], number, weight=score)


def _some(index: dict[int, int]) -> str:
    known = list(index)
    return ", ".join(str(i) for i in known[:8]) + (", ..." if len(known) > 8 else "")


def _object(words: list[str]) -> tuple[int, Box, float] | None:
    """Class, box and score of one line; a polygon gives the box around it. None where it is neither."""
    try:
        number, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return None
    if not all(math.isfinite(value) for value in values):
        return None
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return number, box, values[4] if len(values) == 5 else 1.0
    if len(values) >= 6 and len(values) % 2 == 0:
        return number, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])), 1.0
    return None
