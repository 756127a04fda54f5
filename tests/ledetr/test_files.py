"""Files that are there whole or not at all."""

import os
from pathlib import Path

import pytest

from ledetr import files


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"), files.whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError("in the middle")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    named: list[bool] = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: named.append(path.exists()))
    with files.whole_file(path) as part:
        part.write_text("new")
    assert named == [False] and path.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_private_file_is_never_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    left_behind = tmp_path / f".a.txt.{os.getpid()}.part"
    left_behind.write_text("by a killed process, for all to read")
    with files.whole_file(path, private=True) as part:
        assert part.stat().st_mode & 0o777 == 0o600
        part.write_text("secret")
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == "secret"
