"""The program as the user starts it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Closes the window as soon as a picture with the wanted words was painted.
DRIVER = """
import sys
from PySide6.QtCore import QTimer
from ledetr_app.ui import application, window
from ledetr_app.__main__ import main

class Watched(window.Window):
    def __init__(self, *args):
        super().__init__(*args)
        self.timer = QTimer(self)
        self.timer.timeout.connect(self.look)
        self.timer.start(50)
    def look(self):
        state = self.session.state
        if self.session.shown is not None and state.running is not None and self.session.shown.detections.model_id:
            print(state.source.display_name, state.running.model_id, state.running.random_weights, self.view.words)
            self.timer.stop()
            self.close()

application.Window = Watched
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments, driver=DRIVER, home):
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", driver, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
def test_plays_detects_and_ends_cleanly(clip, tmp_path):
    done = run(clip, "-m", "n", "--random-weights", "--theme", "dark", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("clip.mp4 n ")
    assert done.stderr == ""
    assert [p.name for p in (tmp_path / "ledetr").iterdir()] == ["settings.json"]


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_answers_without_a_window(tmp_path, flag):
    done = run(flag, driver="import sys; from ledetr_app.__main__ import main; main(sys.argv[1:])", home=tmp_path)
    assert done.returncode == 0
    assert "Le-DETR" in done.stdout or "ledetr-app" in done.stdout


def test_session_and_settings_need_no_qt(tmp_path):
    code = "import sys, ledetr_app.session; print([m for m in sys.modules if m.startswith(('PySide6', 'torch.'))])"
    done = run(driver=code, home=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr
