import json
import os
import stat
from dataclasses import asdict, replace

import pytest

from ledetr.errors import OutputError
from ledetr.zones import Line, Zone, ZonePlan
from ledetr_app import settings as settings_module
from ledetr_app.settings import Settings, load_settings, save_settings

PLAN = ZonePlan((Zone("yard", ((0.0, 0.5), (1.0, 0.0), (1.0, 1.0))),), (Line("gate", (0.5, 0.0), (0.5, 1.0)),))
FULL = Settings(
    model="m",
    conf=0.35,
    class_names=("person", "<b>dog</b>"),
    boxes=False,
    labels=False,
    scores=False,
    side_panel=True,
    theme="dark",
    geometry=(10, -20, 1200, 800),
    maximized=True,
    recents=("/a/b.mp4", "rtsp://10.0.0.7/x"),
    tracking=True,
    track_buffer_s=8.0,
    ids=False,
    trails=False,
    by_track=True,
    zones={"/a/b.mp4": PLAN.to_json()},
)


def test_no_file_gives_the_defaults_and_makes_nothing(tmp_path):
    loaded = load_settings(tmp_path / "none" / "settings.json")
    assert loaded.settings == Settings()
    assert loaded.problem == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [Settings(), FULL], ids=["defaults", "all fields"])
def test_round_trip(tmp_path, settings):
    path = tmp_path / "new folder" / "settings.json"
    save_settings(path, settings)
    assert load_settings(path).settings == settings
    assert [p.name for p in path.parent.iterdir()] == ["settings.json"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_only_the_owner_reads_it(tmp_path):
    save_settings(tmp_path / "s.json", FULL)
    assert stat.S_IMODE((tmp_path / "s.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"null", b"[" * 100_000, b"\x00" * 64],
    ids=["empty", "cut", "not UTF-8", "a list", "null", "deep", "zeros"],
)
def test_a_broken_file_is_set_aside_and_not_lost(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    loaded = load_settings(path)
    assert loaded.settings == Settings()
    assert loaded.problem
    assert loaded.set_aside is not None
    assert loaded.set_aside.read_bytes() == content
    assert not path.exists()


def test_wrong_values_are_named_and_the_right_ones_kept(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({**asdict(FULL), "conf": "high", "theme": "pink", "geometry": [1, 2, 3], "boxes": 1}))
    loaded = load_settings(path)
    assert loaded.settings == replace(FULL, conf=None, theme="system", geometry=None, boxes=True)
    assert loaded.problem == "wrong value for conf, boxes, theme, geometry"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tracking", "yes"),
        ("track_buffer_s", -1),
        ("track_buffer_s", True),
        ("trails", None),
        ("zones", []),
        ("zones", {"a.mp4": {"zones": [{"name": "x", "points": [[0, 0], [1, 1]]}]}}),
        ("zones", {"a.mp4": {"zones": [{"name": "x", "points": [[0, 0], [1, 1], [5, 5]]}]}}),
        ("zones", {f"{number}.mp4": PLAN.to_json() for number in range(51)}),
    ],
)
def test_wrong_values_of_tracking_and_zones_are_named(tmp_path, field, value):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({**asdict(FULL), field: value}))
    loaded = load_settings(path)
    assert loaded.settings == replace(FULL, **{field: getattr(Settings(), field)})
    assert loaded.problem == f"wrong value for {field}"


def test_a_newer_file_with_unknown_fields_is_no_error(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"schema_version": 99, "model": "l", "holograms": True}))
    loaded = load_settings(path)
    assert loaded.settings == Settings(model="l")
    assert loaded.problem == ""


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    save_settings(path, Settings(model="m"))

    def no_rename(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(settings_module.Path, "replace", no_rename)
    with pytest.raises(OutputError, match="No space left on device"):
        save_settings(path, Settings(model="x"))
    assert json.loads(path.read_text())["model"] == "m"
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="settings cannot be saved"):
        save_settings(tmp_path / "file" / "settings.json", Settings())
