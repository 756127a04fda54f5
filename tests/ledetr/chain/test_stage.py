"""Results in a folder of their own until they are whole, and handed out once."""

import json
import os
from pathlib import Path

import psutil
import pytest

from ledetr.chain.stage import Stage, owned, owner_folders
from ledetr.errors import UsageError


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "lists").mkdir()
    finals = {"video": tmp_path / "a_boxes.mp4", "json": tmp_path / "lists" / "a.json"}
    return Stage("a_boxes.mp4", finals, "made of this")


def test_nothing_has_a_final_name_before_it_is_handed_out(stage: Stage, tmp_path: Path) -> None:
    assert stage.begin(resume=False) is False
    for kind, path in stage.staged.items():
        assert path.parent.is_dir() and path.parent.parent.name == "unfinished"
        path.write_text(kind)
    assert not any(path.exists() for path in stage.finals.values())

    assert stage.hand_out(overwrite=False) == stage.finals
    assert {kind: path.read_text() for kind, path in stage.finals.items()} == {"video": "video", "json": "json"}
    stage.clear()
    assert not list(tmp_path.rglob("unfinished"))


def test_handing_out_twice_makes_nothing_twice(stage: Stage, tmp_path: Path) -> None:
    stage.begin(resume=False)
    for path in stage.staged.values():
        path.write_text("once")
    stage.hand_out(overwrite=False)
    assert stage.hand_out(overwrite=False) == stage.finals
    assert sorted(path.name for path in tmp_path.rglob("a*.*") if path.is_file()) == ["a.json", "a_boxes.mp4"]


def test_a_file_of_that_name_is_kept_unless_it_may_be_replaced(stage: Stage, tmp_path: Path) -> None:
    for overwrite, name in ((False, "a_boxes (2).mp4"), (True, "a_boxes.mp4")):
        stage.finals["video"].write_text("older")
        stage.begin(resume=False)
        stage.staged["video"].write_text("newer")
        assert stage.hand_out(overwrite=overwrite)["video"] == tmp_path / name
        assert (tmp_path / name).read_text() == "newer"


def test_a_receipt_is_for_what_it_was_made_of(stage: Stage) -> None:
    stage.begin(resume=False)
    assert stage.receipt() is None
    stage.write_receipt({"frames": 3})
    assert stage.receipt() == {"frames": 3}
    assert Stage(stage.key, stage.finals, "made of something else").receipt() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"made_of": "made of this"}', '{"made_of": "made of this", "given": 3}']
)
def test_a_damaged_receipt_is_none(stage: Stage, text: str) -> None:
    stage.begin(resume=False)
    (stage.staged["video"].parent / "receipt.json").write_text(text)
    assert stage.receipt() is None


def test_beginning_afresh_empties_the_folders_and_going_on_keeps_them(stage: Stage) -> None:
    stage.begin(resume=False)
    left = stage.staged["video"].parent / "a_boxes.mp4.job.json"
    left.write_text("{}")
    assert stage.begin(resume=True) is True and left.exists()
    assert stage.begin(resume=False) is False and not left.exists()
    assert stage.begin(resume=True) is False  # nothing is there to go on with


def test_one_process_at_a_time_hands_out(stage: Stage, tmp_path: Path) -> None:
    folders = owner_folders([stage, stage])
    assert folders == [tmp_path, tmp_path / "lists"]
    with owned(folders):
        mine = json.loads((tmp_path / "unfinished" / "owner.json").read_text())
        assert mine["pid"] == os.getpid()
    assert not list(tmp_path.rglob("unfinished"))

    other = psutil.Process(os.getppid())
    (tmp_path / "unfinished").mkdir()
    owner = tmp_path / "unfinished" / "owner.json"
    owner.write_text(json.dumps({**mine, "pid": other.pid, "began_s": other.create_time()}))
    with pytest.raises(UsageError, match=f"Process {other.pid} on .* works in"), owned(folders):
        pass
    owner.write_text(
        json.dumps({**mine, "pid": other.pid, "began_s": other.create_time() - 1000})
    )  # its number is reused
    with owned(folders):
        pass
    owner.parent.mkdir()
    owner.write_text(json.dumps({**mine, "host": "elsewhere"}))
    with pytest.raises(UsageError, match="on elsewhere works in"), owned(folders):
        pass
