"""scripts/setup.sh with a stand-in for everything that would fetch or install: what it calls, and when it does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="make is not used on Windows")

NO_LIBRARY_MISSING = ""
ONE_LIBRARY_MISSING = "print('libegl1')\n"


class Place:
    """A copy of what setup.sh reads, with a .venv/bin/python and system commands that only write down their words."""

    def __init__(self, folder: Path, system_libraries: str) -> None:
        self.folder, self.log, self.bin = folder, folder / "log", folder / "bin"
        for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        (folder / "ledetr/cli").mkdir(parents=True)
        (folder / "ledetr/cli/system_libraries.py").write_text(system_libraries)
        self.stand_in(".venv/bin/python", 'case "$1" in -c) ;; *) echo "python $*" >> "$LOG" ;; esac')
        self.stand_in("bin/python3", f'exec {sys.executable} "$@"')

    def stand_in(self, name: str, body: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def setup(self, purpose: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin", "LOG": str(self.log), "PYTHON": ""}
        command = ["sh", str(self.folder / "scripts/setup.sh"), purpose]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def test_installs_once_and_again_only_when_the_needs_change(tmp_path: Path) -> None:
    place = Place(tmp_path, NO_LIBRARY_MISSING)
    assert place.setup("run").returncode == 0
    (call,) = place.calls()
    assert "-m pip install" in call and "-c constraints.txt -e ." in call and "[dev]" not in call

    second = place.setup("run")
    assert (second.returncode, second.stderr, len(place.calls())) == (0, "", 1), (
        "the second time there is nothing to do"
    )

    assert place.setup("dev").returncode == 0
    assert place.calls()[1].endswith("-e .[dev]")
    assert place.setup("run").returncode == 0
    assert len(place.calls()) == 2, "what the tests need is enough for the program"

    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    place.setup("dev")
    assert len(place.calls()) == 3


def test_a_set_up_that_failed_is_not_taken_for_done(tmp_path: Path) -> None:
    place = Place(tmp_path, NO_LIBRARY_MISSING)
    place.stand_in(".venv/bin/python", 'case "$1" in -c) ;; *) exit 1 ;; esac')
    assert place.setup("run").returncode != 0
    assert not list((tmp_path / ".venv").glob("ready*"))


def test_root_installs_system_libraries(tmp_path: Path) -> None:
    place = Place(tmp_path, ONE_LIBRARY_MISSING)
    place.stand_in("bin/id", "echo 0")
    place.stand_in("bin/apt-get", 'echo "apt-get $*" >> "$LOG"')
    assert place.setup("run").returncode == 0
    assert place.calls()[:2] == ["apt-get update -qq", "apt-get install -y -qq --no-install-recommends libegl1"]


def test_others_are_told_in_one_sentence_and_the_set_up_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path, ONE_LIBRARY_MISSING)
    place.stand_in("bin/id", "echo 1000")
    place.stand_in("bin/apt-get", 'echo "apt-get $*" >> "$LOG"')
    place.stand_in("bin/sudo", 'echo "sudo $*" >> "$LOG"')
    done = place.setup("run")
    assert done.returncode == 0
    assert "please run: sudo apt-get install libegl1" in done.stderr
    assert not [call for call in place.calls() if call.startswith(("apt-get", "sudo"))], "no sudo without a yes"


def test_a_python_that_does_not_fit_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path, NO_LIBRARY_MISSING)
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        place.stand_in(f"bin/{name}", "exit 1")
    done = place.setup("run")
    assert done.returncode == 1 and "Le-DETR needs Python 3.11, 3.12 or 3.13" in done.stderr
