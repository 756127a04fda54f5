"""Pictures to pretrain on: a folder of class folders, a flat folder without labels, or tar shards.

    FOLDER/CLASS/**/picture     ImageNet's layout; classes are the names of the folders, sorted
    FOLDER/picture              no labels: for distillation
    FOLDER/*.tar                WebDataset: members that share a name up to its first dot are one sample, the label is
                                a number in NAME.cls; the names of the classes, one a line, may be in FOLDER/classes.txt

Whatever comes from outside is checked: links must not lead out of the folder, members of a tar are read in place and
never unpacked, and no picture is decoded whose header claims more pixels than ledetr.pictures allows.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ledetr.errors import SourceError
from ledetr.paths import printable
from ledetr.pictures import decode_picture, read_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
MAX_MEMBER_BYTES = 64 * 2**20
"""A picture of a tar that is larger is refused, as is a label of more than MAX_LABEL_BYTES."""
MAX_LABEL_BYTES = 32
MAX_CLASSES = 100_000
NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture: a file, or a part of a tar. key: its name for messages and for splitting, inside the folder."""

    path: Path
    key: str
    label: int
    offset: int = -1
    size: int = 0

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright. Raises SourceError with the entry's name."""
        if self.offset < 0:
            return read_picture(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise SourceError(f"Cannot read the shard {printable(str(self.path))!r}: {error.strerror}.") from None
        return decode_picture(io.BytesIO(data), self.key)


@dataclass(frozen=True)
class PictureSet:
    """Pictures with the number of their class, or NO_LABEL. class_names: by number, empty without labels."""

    name: str
    entries: tuple[Entry, ...]
    class_names: tuple[str, ...]

    @property
    def labelled(self) -> bool:
        """Whether every picture has a class."""
        return bool(self.class_names)


def read_pictures(folder: Path, class_names: Sequence[str] = ()) -> PictureSet:
    """The pictures of a folder in one of the three forms.

    class_names: those of the training set, where this is the set to judge by; folders of other names are refused.
    Raises SourceError, one sentence, for a folder that is not there, has no pictures or leads out of itself.
    """
    if not folder.is_dir():
        raise SourceError(f"there is no folder of pictures {printable(str(folder))!r}")
    root = folder.resolve()
    shards = sorted(root.glob("*.tar"))
    if shards:
        return _read_shards(root, shards, class_names)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    for path in folders:
        _refuse_way_out(root, path)
    by_class = {p.name: entries for p in folders if (entries := list(_files(root, p)))}
    if by_class:
        return _labelled(root, by_class, class_names)
    flat = tuple(_files(root, root))
    if not flat:
        raise SourceError(
            f"{printable(str(folder))!r} holds no pictures: expected class folders with pictures, pictures, or .tar "
            "shards"
        )
    return PictureSet(root.name, flat, ())


def split(data: PictureSet, every: int) -> tuple[PictureSet, PictureSet]:
    """(train, held out): of each class every so many-th picture by name is held out, the same ones each time."""
    seen: dict[int, int] = {}
    kept: list[Entry] = []
    held: list[Entry] = []
    for entry in data.entries:
        seen[entry.label] = seen.get(entry.label, 0) + 1
        (held if seen[entry.label] % every == 0 else kept).append(entry)
    if not held:
        raise SourceError(
            f"the {len(data.entries)} pictures of {data.name!r} are too few to hold some out; name others with --val"
        )
    return (
        PictureSet(data.name, tuple(kept), data.class_names),
        PictureSet(f"{data.name}, held out", tuple(held), data.class_names),
    )


def _labelled(root: Path, by_class: dict[str, list[Entry]], class_names: Sequence[str]) -> PictureSet:
    names = tuple(class_names) or tuple(by_class)
    unknown = sorted(set(by_class) - set(names))
    if unknown:
        raise SourceError(
            f"{printable(str(root))!r} has the class folder {printable(unknown[0])!r}, which the training set has not"
        )
    number = {name: index for index, name in enumerate(names)}
    entries = tuple(
        Entry(entry.path, entry.key, number[name]) for name, entries in by_class.items() for entry in entries
    )
    return PictureSet(root.name, entries, names)


def _files(root: Path, folder: Path) -> Iterator[Entry]:
    """Picture files below a folder in the order of their names; folders that are links are not entered."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place) / name
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                _refuse_way_out(root, path)
                yield Entry(path, path.relative_to(root).as_posix(), NO_LABEL)


def _refuse_way_out(root: Path, path: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise SourceError(
            f"{printable(str(path))!r} is a link that leads out of the folder; copy what it names, or name the folder "
            "that it lies in"
        )


def _read_shards(root: Path, shards: Sequence[Path], class_names: Sequence[str]) -> PictureSet:
    entries: list[Entry] = []
    for shard in shards:
        _refuse_way_out(root, shard)
        entries += _entries_of_shard(shard)
    if not entries:
        raise SourceError(f"the .tar shards in {printable(str(root))!r} hold no pictures")
    unlabelled = [entry for entry in entries if entry.label == NO_LABEL]
    if unlabelled and len(unlabelled) < len(entries):
        raise SourceError(f"{printable(unlabelled[0].key)!r} has no .cls member beside it, and others have")
    if unlabelled:
        return PictureSet(root.name, tuple(entries), ())
    names = tuple(class_names) or _names_of(root, 1 + max(entry.label for entry in entries))
    beyond = next((entry for entry in entries if entry.label >= len(names)), None)
    if beyond is not None:
        raise SourceError(f"{printable(beyond.key)!r} has the class {beyond.label}, but there are {len(names)} classes")
    return PictureSet(root.name, tuple(entries), names)


def _names_of(root: Path, classes: int) -> tuple[str, ...]:
    listed = root / "classes.txt"
    if not listed.is_file():
        return tuple(str(number) for number in range(classes))
    try:
        return tuple(
            printable(line.strip()) for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"the list of classes {printable(str(listed))!r} cannot be read: {error}") from None


def _entries_of_shard(shard: Path) -> Iterator[Entry]:
    """Pictures of one tar by place and size. Only plain members count; their names are never used as paths."""
    pictures: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:  # not compressed: members are read in place
            for member in tar:
                if not member.isreg():
                    continue
                stem, _, suffix = member.name.rpartition("/")[2].partition(".")
                key = f"{member.name.rpartition('/')[0]}/{stem}".lstrip("/")
                if f".{suffix.lower()}" in SUFFIXES:
                    _check_bytes(shard, member, MAX_MEMBER_BYTES)
                    pictures[key] = member
                elif suffix.lower() == "cls":
                    _check_bytes(shard, member, MAX_LABEL_BYTES)
                    file = tar.extractfile(member)
                    assert file is not None  # a plain member
                    labels[key] = _label(shard, member.name, file.read())
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise SourceError(
            f"Cannot read the shard {printable(str(shard))!r}: it is no uncompressed tar, or is cut ({error})."
        ) from None
    for key, member in pictures.items():
        yield Entry(
            shard, f"{shard.name}/{key}", labels.get(key, NO_LABEL), offset=member.offset_data, size=member.size
        )


def _check_bytes(shard: Path, member: tarfile.TarInfo, most: int) -> None:
    if not 0 < member.size <= most:
        raise SourceError(
            f"{printable(member.name)!r} in {printable(shard.name)!r} has {member.size} bytes, allowed are 1 to {most}"
        )


def _label(shard: Path, name: str, data: bytes) -> int:
    text = data.decode("ascii", "replace").strip()
    if not (text.isascii() and text.isdigit() and int(text) < MAX_CLASSES):
        raise SourceError(f"{printable(name)!r} in {printable(shard.name)!r} is no class number below {MAX_CLASSES}")
    return int(text)
