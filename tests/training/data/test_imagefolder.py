"""Folders and shards of pictures: what is read, and what is refused with which words."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ledetr.errors import SourceError
from training.data.imagefolder import NO_LABEL, read_pictures, split


def picture(path: Path, value: int = 100, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)
    return path


def png(value: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 0, 0)).save(data, "PNG")
    return data.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_class_folders_give_sorted_classes_and_their_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "dog" / "b.png", 1)
    picture(tmp_path / "cat" / "deep" / "a.JPG.png", 2)
    picture(tmp_path / "dog" / "a.png", 3)
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    data = read_pictures(tmp_path)
    assert data.class_names == ("cat", "dog") and data.labelled
    assert [(e.key, e.label) for e in data.entries] == [("cat/deep/a.JPG.png", 0), ("dog/a.png", 1), ("dog/b.png", 1)]
    assert data.entries[1].read()[0, 0].tolist() == [3, 0, 0] and data.entries[1].read().shape == (10, 12, 3)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        picture(tmp_path / name)
    data = read_pictures(tmp_path)
    assert [(e.key, e.label) for e in data.entries] == [("a.png", NO_LABEL), ("b.png", NO_LABEL)]
    assert not data.labelled


def test_judging_folders_use_the_numbers_of_training(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a" / "1.png")
    picture(tmp_path / "train" / "b" / "1.png")
    picture(tmp_path / "val" / "b" / "1.png")
    names = read_pictures(tmp_path / "train").class_names
    assert [e.label for e in read_pictures(tmp_path / "val", names).entries] == [1]
    picture(tmp_path / "val" / "c" / "1.png")
    with pytest.raises(SourceError, match="has the class folder 'c', which the training set has not"):
        read_pictures(tmp_path / "val", names)


def test_shards_are_read_in_place(tmp_path: Path) -> None:
    shard(tmp_path / "a-0.tar", {"x/1.cls": b"2\n", "x/1.png": png(7), "x/2.png": png(8), "x/2.cls": b"0"})
    shard(tmp_path / "a-1.tar", {"../../evil.png": png(9), "../../evil.cls": b"1", "x/3.json": b"{}"})
    data = read_pictures(tmp_path)
    assert data.class_names == ("0", "1", "2")
    assert [(e.label, int(e.read()[0, 0, 0])) for e in data.entries] == [(2, 7), (0, 8), (1, 9)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-0.tar", "a-1.tar"], "nothing is unpacked"
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    assert read_pictures(tmp_path).class_names == ("ant", "bee", "cow")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(SourceError, match="has the class 2, but there are 2 classes"):
        read_pictures(tmp_path)


def test_shards_without_labels_are_for_teachers(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {"1.png": png(7)})
    data = read_pictures(tmp_path)
    assert not data.labelled and np.array_equal(data.entries[0].read()[0, 0], [7, 0, 0])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"1.png": b"", "1.cls": b"0"}, "has 0 bytes, allowed are 1 to"),
        ({"1.png": b"x", "1.cls": b"9" * 33}, "has 33 bytes, allowed are 1 to 32"),
        ({"1.png": b"x", "1.cls": b"-1"}, "is no class number"),
        ({"1.png": b"x", "1.cls": b"100000"}, "is no class number below 100000"),
        ({"1.png": b"x", "1.cls": b"0", "2.png": b"x"}, "has no .cls member beside it, and others have"),
        ({"1.json": b"{}"}, "hold no pictures"),
    ],
)
def test_odd_members_are_refused(members: dict[str, bytes], words: str, tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", members)
    with pytest.raises(SourceError, match=words):
        read_pictures(tmp_path)


def test_links_inside_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(SourceError, match="hold no pictures"):
        read_pictures(tmp_path)


def test_a_cut_or_packed_shard_is_named(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar", {"1.png": png(7), "1.cls": b"0"})
    whole.write_bytes(whole.read_bytes()[:300])
    with pytest.raises(SourceError, match=r"the shard '.*a\.tar': it is no uncompressed tar, or is cut"):
        read_pictures(tmp_path)


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {"1.png": png(7)[:40]})
    with pytest.raises(SourceError, match=r"Cannot open 'a\.tar/1'"):
        read_pictures(tmp_path).entries[0].read()


def test_more_pixels_than_allowed_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledetr.pictures.MAX_PIXELS", 20)
    shard(tmp_path / "a.tar", {"1.png": png(7)})
    with pytest.raises(SourceError, match="6 x 4 pixels"):
        read_pictures(tmp_path).entries[0].read()


@pytest.mark.parametrize("what", ["folder", "picture"])
def test_a_link_out_of_the_folder_is_refused(what: str, tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside" / "a.png")
    root = tmp_path / "root"
    picture(root / "cat" / "1.png")
    if what == "folder":
        (root / "dog").symlink_to(outside.parent)
    else:
        (root / "cat" / "2.png").symlink_to(outside)
    with pytest.raises(SourceError, match="is a link that leads out of the folder"):
        read_pictures(root)


def test_a_link_to_the_folder_itself_is_fine(tmp_path: Path) -> None:
    picture(tmp_path / "root" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert len(read_pictures(tmp_path / "link").entries) == 1


def test_folders_without_pictures_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder of pictures"):
        read_pictures(tmp_path / "none")
    with pytest.raises(SourceError, match=r"expected class folders with pictures, pictures, or \.tar"):
        read_pictures(tmp_path)


def test_holding_out_takes_some_of_each_class_and_loses_nothing(tmp_path: Path) -> None:
    for name, count in (("a", 4), ("b", 6)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png")
    data = read_pictures(tmp_path)
    train, held = split(data, 2)
    assert sorted(e.label for e in held.entries) == [0, 0, 1, 1, 1]
    assert {e.key for e in train.entries} | {e.key for e in held.entries} == {e.key for e in data.entries}
    assert not {e.key for e in train.entries} & {e.key for e in held.entries}
    with pytest.raises(SourceError, match="too few to hold some out; name others with --val"):
        split(data, 20)
