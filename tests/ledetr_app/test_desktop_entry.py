"""The menu entry: valid by the rules of freedesktop.org, complete, written whole, and taken away again."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ledetr.errors import OutputError, UsageError
from ledetr_app import desktop_entry
from ledetr_app.__main__ import main
from ledetr_app.desktop_entry import ICON_SIZES, data_home, entry_text, install, uninstall
from ledetr_app.resources import asset

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="menu entries of Linux desktops")
ENTRY = "Desktop Entry"


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=True)
    parser.optionxform = str
    parser.read_string(text)
    return parser


def command_of(text: str) -> list[str]:
    """The words that a desktop runs: its escapes of values undone, then its quotes, which a shell reads alike."""
    value = parsed(text)[ENTRY]["Exec"].replace("\\\\", "\\")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {value}"], capture_output=True, text=True, check=True).stdout
    return [word.replace("%%", "%") for word in words.splitlines()]


@pytest.mark.parametrize("text", [entry_text(sys.executable), asset("linux/ledetr.desktop").read_text()])
def test_the_entry_keeps_the_rules(text, tmp_path):
    parser = parsed(text)
    entry = parser[ENTRY]
    assert text.startswith("[Desktop Entry]\n")
    assert entry["Type"] == "Application" and entry["Terminal"] == "false" and entry["Icon"] == "ledetr"
    assert all(re.fullmatch("[A-Za-z0-9-]+", key) for section in parser.sections() for key in parser[section])
    for key in ("Categories", "Keywords", "MimeType", "Actions"):
        assert entry[key].endswith(";") and ";;" not in entry[key]
    actions = entry["Actions"].strip(";").split(";")
    assert parser.sections() == [ENTRY, *(f"Desktop Action {name}" for name in actions)]
    assert all(parser[f"Desktop Action {name}"]["Name"] for name in actions)
    if shutil.which("desktop-file-validate"):
        file = tmp_path / "ledetr.desktop"
        file.write_text(text)
        done = subprocess.run(["desktop-file-validate", str(file)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")


def test_it_takes_what_the_window_opens():
    kinds = parsed(entry_text(sys.executable))[ENTRY]["MimeType"].strip(";").split(";")
    assert len(kinds) == len(set(kinds))
    assert {"video/mp4", "video/x-matroska", "video/webm", "video/quicktime", "image/jpeg", "image/png"} <= set(kinds)
    declared = ElementTree.parse(asset("linux/ledetr-mime.xml")).getroot()
    space = "{http://www.freedesktop.org/standards/shared-mime-info}"
    (kind,) = declared.findall(f"{space}mime-type")
    assert kind.get("type") in kinds
    assert kind.find(f"{space}glob").get("pattern") == "*.safetensors"


@pytest.mark.parametrize("python", ["/usr/bin/python3", '/srv/a b/50% "x" $HOME `id` \\ it\'s/python'])
def test_the_command_survives_its_quotes(python):
    assert command_of(entry_text(python)) == [python, "-m", "ledetr_app", "%F"]
    assert parsed(entry_text(python))[ENTRY]["TryExec"].replace("\\\\", "\\") == python


def test_install_and_uninstall(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    written = install()
    assert data_home() == tmp_path / "data"
    assert all(path.is_file() and path.is_relative_to(tmp_path / "data") for path in written)
    assert (tmp_path / "data/applications/ledetr.desktop").read_text() == entry_text(sys.executable)
    for size in ICON_SIZES:
        with Image.open(tmp_path / f"data/icons/hicolor/{size}x{size}/apps/ledetr.png") as icon:
            assert icon.size == (size, size)
    assert not list(tmp_path.rglob("*.part"))
    assert install() == written, "a second time replaces the first"
    assert sorted(uninstall()) == sorted(written)
    assert not any(path.exists() for path in written)
    assert uninstall() == []


def test_home_is_where_the_rules_say(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert data_home() == tmp_path / ".local/share"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert data_home() == tmp_path / ".local/share"


def test_all_or_nothing(monkeypatch, tmp_path):
    write, calls = desktop_entry._write, []

    def fail_late(path, content):
        calls.append(path)
        if path.suffix == ".desktop":
            raise PermissionError(13, "Permission denied")
        write(path, content)

    monkeypatch.setattr(desktop_entry, "_write", fail_late)
    with pytest.raises(OutputError, match="not permitted"):
        install(tmp_path)
    assert len(calls) > len(ICON_SIZES)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_elsewhere_it_says_so(monkeypatch):
    monkeypatch.setattr(desktop_entry.sys, "platform", "win32")
    with pytest.raises(UsageError, match="Linux"):
        install()


def test_from_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["--install-desktop"]) == 0
    assert str(tmp_path / "applications/ledetr.desktop") in capsys.readouterr().out
    assert (tmp_path / "applications/ledetr.desktop").exists()
    assert main(["--uninstall-desktop"]) == 0
    assert not (tmp_path / "applications/ledetr.desktop").exists()
    capsys.readouterr()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert main(["--install-desktop"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("size", ICON_SIZES)
def test_icons_are_those_of_the_drawing(qapp, size, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "assets"))
    from make_linux_icons import SIZES, render

    assert SIZES == ICON_SIZES
    image = render(asset("icons/app.svg"), size)
    drawn = np.frombuffer(image.constBits(), np.uint8).reshape(size, size, 4)[..., [2, 1, 0, 3]].astype(int)
    with Image.open(asset(f"linux/icons/{size}.png")) as kept:
        # Renderers of different releases differ at the edges only.
        assert np.abs(np.asarray(kept.convert("RGBA"), int) - drawn).mean() < 2
