"""Any data set by its path: COCO JSON, YOLO's data.yaml, a Pascal VOC folder, a CSV file, or a folder with one of them.

Numbers of classes are never given and ids never remapped by hand: classes are what the data set names, in its order.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ledetr.errors import SourceError
from training.data.coco import read_coco, split_tune
from training.data.dataset import Dataset, Picture, Problem
from training.data.table import read_table
from training.data.voc import read_voc
from training.data.yolo import has_split, read_yolo

SMALL_SET = 110
"""Of fewer pictures every fifth is set aside, so that there is something to judge by."""
FORMATS = "a COCO .json, a YOLO data.yaml, a Pascal VOC folder with .xml files, or a .csv"


def read_dataset(
    path: Path, images: Path | None = None, *, split: str = "train", class_names: Sequence[str] | None = None
) -> Dataset:
    """The data set at a path, in whichever format it is, with faulty rows listed among its problems.

    images: folder of the pictures where it is not the usual one. split: for formats that hold several in one place.
    class_names: for VOC and CSV, which name no classes beforehand. SourceError where no format fits.
    """
    path = _description(path)
    if path.suffix == ".json":
        return read_coco(path, images)
    if path.suffix in (".yaml", ".yml"):
        return read_yolo(path, split, images)
    if path.suffix == ".csv":
        return read_table(path, images, class_names)
    if path.is_dir():
        listed = (path / "ImageSets" / "Main" / f"{split}.txt").is_file()
        return read_voc(path, split if listed else None, class_names)
    raise SourceError(f"{str(path)!r} is no data set: expected {FORMATS}")


def read_splits(path: Path, val: Path | None = None, images: Path | None = None) -> tuple[Dataset, Dataset]:
    """(train, tune). Tune is the data set `val`, or the format's own val split, or about every eleventh picture
    (every fifth of a small set).

    The drawn one goes by a hash of each picture's name, so it is the same in every run and on every machine. Both have
    the classes of train; SourceError where `val` numbers them otherwise.
    """
    train = read_dataset(path, images)
    if val is not None:
        # a folder of pictures of its own: the one of train is not guessed to hold those of val
        return train, with_classes_of(read_dataset(val, split="val", class_names=train.class_names), train)
    described = _description(path)
    if described.suffix in (".yaml", ".yml") and has_split(described, "val"):
        return train, read_yolo(described, "val", images)
    if described.is_dir() and (described / "ImageSets" / "Main" / "val.txt").is_file():
        return train, read_voc(described, "val", train.class_names)
    kept, tune = split_tune(train.pictures, one_in=11 if len(train.pictures) >= SMALL_SET else 5)
    if not tune or not kept:
        raise SourceError(
            f"{str(path)!r} has {len(train.pictures)} pictures, too few to set some aside for judging; "
            "name a second data set with --val"
        )
    return replace(train, pictures=tuple(kept)), replace(train, pictures=tuple(tune), problems=())


def with_classes_of(data: Dataset, train: Dataset) -> Dataset:
    """The same boxes with train's labels, matched by class name; classes train does not have become problems."""
    if data.class_names == train.class_names and data.category_ids == train.category_ids:
        return data
    index = {name.casefold(): label for label, name in enumerate(train.class_names)}
    table = np.array([index.get(name.casefold(), -1) for name in data.class_names], np.int64)
    problems = [
        Problem(
            "unknown class",
            f"{data.name!r} has the class {name!r}, which the training set {train.name!r} does not have",
        )
        for name, label in zip(data.class_names, table, strict=True)
        if label < 0
    ]
    pictures = tuple(_relabelled(picture, table, len(train.class_names)) for picture in data.pictures)
    return Dataset(pictures, train.class_names, train.category_ids, data.name, (*data.problems, *problems))


def _relabelled(picture: Picture, table: np.ndarray, classes: int) -> Picture:
    kept = picture.keep(table[picture.labels] >= 0)
    annotated = None
    if picture.annotated is not None:
        annotated = np.ones(classes, bool)
        annotated[table[(table >= 0) & ~picture.annotated]] = False
    return replace(kept, labels=table[kept.labels], annotated=annotated)


def _description(path: Path) -> Path:
    """The one file in a folder that describes a data set, or the folder itself for VOC."""
    if not path.exists():
        raise SourceError(f"there is no data set {str(path)!r}")
    if not path.is_dir():
        return path
    found = [p for name in ("data.yaml", "data.yml", "dataset.yaml") if (p := path / name).is_file()]
    found = found[:1] or sorted(path.glob("*.json")) or sorted(path.glob("*.csv"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.name for p in found[:4])
        raise SourceError(f"{str(path)!r} holds several data sets ({names}); name one of these files")
    if (path / "Annotations").is_dir() or any(path.glob("*.xml")):
        return path
    raise SourceError(f"{str(path)!r} holds no data set: expected {FORMATS}")
