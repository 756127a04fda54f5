"""The program as the user starts it, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ledetr_app.__main__ as main_module

ROOT = Path(__file__).parents[2]

# A window that calls look() twenty times a second.
WATCHED = """
import sys
from PySide6.QtCore import QTimer
from ledetr_app.ui import application, window
from ledetr_app.__main__ import main

class Watched(window.Window):
    def __init__(self, *args):
        super().__init__(*args)
        self.timer = QTimer(self, interval=50)
        self.timer.timeout.connect(lambda: look(self, self.session))
        self.timer.start()

application.Window = Watched
"""
CLOSE_WITH_THE_FIRST_BOXES = """
def look(window, session):
    problem = session.state.problem
    if problem is not None or (session.shown is not None and session.shown.detections.model_id):
        print(problem or f"{session.state.source.display_name} {session.shown.detections.model_id}")
        window.timer.stop()
        window.close()
"""
RECORD_AND_TELL = """
def look(window, session):
    status = session.recording_status()
    if status is not None and status.frames > 3:
        window.timer.stop()
        print("recording", flush=True)
    elif session.shown is not None and session.state.recording is None:
        session.toggle_recording()
"""
RUN = "sys.exit(main(sys.argv[1:]))"


def start(code, *arguments, home):
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "QT_QPA_PLATFORM": "offscreen",
        "PYTHONFAULTHANDLER": "1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(code, *arguments, home):
    with start(code, *arguments, home=home) as process:
        out, err = finish(process, 300)  # a cold cache: the network is converted first
    return process.returncode, out, err


def finish(process, limit_s):
    """Its output; one that does not end is aborted, which makes Python print what each thread was doing."""
    try:
        return process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        return process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_plays_detects_and_ends_cleanly(clip, tmp_path):
    code = WATCHED + CLOSE_WITH_THE_FIRST_BOXES + RUN
    returned, out, err = run(code, clip, "-m", "n", "--random-weights", "--theme", "dark", home=tmp_path)
    assert returned == 0, err
    assert out == "clip.mp4 n\n"
    assert err == ""
    assert [p.name for p in (tmp_path / "ledetr").iterdir() if p.is_file()] == ["settings.json"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "end of the desktop session"])
def test_signals_close_the_window_and_keep_the_recording(tmp_path, number):
    code = WATCHED + RECORD_AND_TELL + RUN
    arguments = ("test:320x240p30", "-m", "nowhere.safetensors", "--safe", "--output", tmp_path / "out")
    with start(code, *arguments, home=tmp_path) as process:
        assert process.stdout.readline() == "recording\n"
        process.send_signal(number)
        _, err = finish(process, 30)
    assert process.returncode == 0, err
    assert [p.suffix for p in (tmp_path / "out").iterdir()] == [".mp4"]
    assert "part" not in next((tmp_path / "out").iterdir()).name


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_answers_without_a_window(tmp_path, flag):
    returned, out, err = run("import sys; from ledetr_app.__main__ import main; " + RUN, flag, home=tmp_path)
    assert returned == 0, err
    assert "Le-DETR" in out or "ledetr-app" in out


def test_session_and_settings_need_neither_qt_nor_torch(tmp_path):
    code = "import sys, ledetr_app.session; print([m for m in sys.modules if m.split('.')[0] in ('PySide6', 'torch')])"
    returned, out, err = run(code, home=tmp_path)
    assert returned == 0, err
    assert out == "[]\n"


def test_the_lock_of_python_changes_hands_quickly(monkeypatch):
    before, during = sys.getswitchinterval(), []

    def show(session, begin):
        during.append(sys.getswitchinterval())
        return 0

    monkeypatch.setattr(main_module, "show_window", show)
    try:
        assert main_module.main(["--safe"]) == 0
    finally:
        sys.setswitchinterval(before)
    assert during == [pytest.approx(0.001)]


def test_several_files_are_a_queue_and_weights_the_model(monkeypatch):
    begun = []

    def show(session, begin):
        monkeypatch.setattr(session, "start", lambda **of: begun.append(of))
        monkeypatch.setattr(session, "open_files", lambda paths: begun.append(tuple(paths)))
        begin()
        return 0

    monkeypatch.setattr(main_module, "show_window", show)
    before = sys.getswitchinterval()
    try:
        assert main_module.main(["--safe", "a.mp4", "mine.safetensors", "b.mp4"]) == 0
    finally:
        sys.setswitchinterval(before)
    assert begun == [{"model": "mine.safetensors"}, ("a.mp4", "b.mp4")]
