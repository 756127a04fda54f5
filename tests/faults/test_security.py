"""The points of docs/security.md that no other test holds: nothing listens, calls home, or runs what it reads."""

import ast
import csv
import json
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QLabel, QWidget

from ledetr.backends.base import BackendInfo
from ledetr.chain.resume import JobFile, settings_hash
from ledetr.chain.side_files import PictureResult, SideHeader, open_side_files
from ledetr.cli.main import main
from ledetr.detections import Detections
from ledetr_app.session import Session
from ledetr_app.ui.theme import Theme
from ledetr_app.ui.window import Window

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for room in ("ledetr", "ledetr_app", "training") for path in (ROOT / room).rglob("*.py"))


@cache
def calls_and_imports(path: Path) -> list[tuple[str, ast.AST]]:
    """Dotted names of what a file calls and imports."""
    return list(_calls_and_imports(path))


def _calls_and_imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def found(pattern: str) -> list[str]:
    """Where the product calls or imports something that matches."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"  # type: ignore[attr-defined]
        for path in PRODUCT
        for name, node in calls_and_imports(path)
        if re.fullmatch(pattern, name)
    ]


def test_the_search_finds_what_is_there() -> None:
    assert any(line.startswith("ledetr/files.py") for line in found(r"hashlib(\..*)?"))


# 1 and 10: what is read is data


def test_nothing_that_is_read_is_run() -> None:
    assert found(r"(eval|exec|compile|__import__)") == []
    assert found(r"(cPickle|dill|marshal|shelve|joblib)(\..*)?|yaml(\.\w+)?") == []
    # Of pickle, the name of its error alone: torch raises it where weights_only refuses.
    assert {line.partition(":")[0] for line in found(r"pickle(\..*)?")} <= {"training/convert.py"}
    assert "pickle." not in (ROOT / "training/convert.py").read_text().replace("pickle.UnpicklingError", "")
    # Files of NumPy may hold pickles, which it reads only where it is asked to.
    assert not [path for path in PRODUCT if "allow_pickle=True" in path.read_text()]
    assert found(r"(os\.system|os\.popen|subprocess\.(getoutput|getstatusoutput))") == []


def test_torch_loads_tensors_alone() -> None:
    for path in PRODUCT:
        for name, node in calls_and_imports(path):
            if name == "torch.load" and isinstance(node, ast.Call):
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert words.get("weights_only") == "True", f"{path}:{node.lineno}"
    assert found(r"torch\.(hub|jit\.load)(\..*)?") == []


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", ["model.pth", "model.pt", "model.safetensors", "model.engine", "model.trt", "model.onnx"]
)
def test_a_model_file_that_is_a_pickle_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "it ran")))
    assert (
        main(["detect", str(ROOT / "assets/sample.mp4"), "-m", str(tmp_path / name), "-o", str(tmp_path / "o.mp4")])
        == 4
    )
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


# 7: engines of TensorRT are code


def test_tensorrt_is_never_loaded() -> None:
    assert found(r"(tensorrt|trt|torch_tensorrt|pycuda)(\..*)?") == []
    providers = [line for path in PRODUCT for line in path.read_text().splitlines() if "ExecutionProvider" in line]
    assert not [line for line in providers if "Tensorrt" in line]


# 2 and 11: nothing is fetched, nothing listens, nothing is sent


def test_the_product_has_no_client_and_no_server() -> None:
    clients = (
        r"(urllib\.request|http\.client|http\.server|requests|httpx|aiohttp|ftplib|smtplib|socketserver|asyncio)(\..*)?"
    )
    assert found(clients) == []
    assert found(r"huggingface_hub(\..*)?|.*\.from_pretrained|.*hf_hub_download|.*snapshot_download") == []
    # The one socket there is looks whether a cluster that was named answers.
    assert {line.split(":")[0] for line in found(r"socket\.(socket|create_connection|create_server)")} == {
        "ledetr/chain/spread_ray.py"
    }


_QUIET = """
import os, sys, threading, psutil
seen, done = set(), threading.Event()
def look():
    while not done.is_set():
        for one in psutil.Process().net_connections(kind="inet"):
            seen.add((one.status, str(one.laddr), str(one.raddr)))
        done.wait(0.05)
watcher = threading.Thread(target=look); watcher.start()
from ledetr.cli.main import main
code = main(sys.argv[1:])
done.set(); watcher.join()
print(code, sorted(seen))
"""


@pytest.mark.weights
@pytest.mark.timeout(300)
def test_a_whole_run_opens_no_connection_and_listens_to_none(tmp_path: Path) -> None:
    """Also not by a library in C: the system is asked again and again while it runs."""
    words = ["detect", str(ROOT / "assets/sample.mp4"), "-o", str(tmp_path / "out.mp4"), "-q", "--max-frames", "3"]
    done = subprocess.run(
        [sys.executable, "-c", _QUIET, *words], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_that_look_would_see_a_listener() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); main = lambda _: (done.wait(0.2), 0)[1]"
    program = _QUIET.replace("from ledetr.cli.main import main", code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "LISTEN" in done.stdout


# 4: passwords


@pytest.mark.parametrize(
    "password", ["p@ssw0rd", "pa/ss/w0rd", "pa:ssw:0rd", "p@/:ssw0rd", "p%20a%40ssw0rd", "pa ssw0rd"]
)
@pytest.mark.parametrize("flag", ["--json", "--debug"])
def test_no_output_of_the_command_holds_a_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, password: str, flag: str
) -> None:
    with socket.socket() as free:  # nobody answers at this port
        free.bind(("127.0.0.1", 0))
        address = f"rtsp://me:{password}@127.0.0.1:{free.getsockname()[1]}/live"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("ledetr.cli.detect.Detector.load", lambda *_, **__: _FakeModel())
        assert main(["detect", address, "--retries", "0", "-m", "n", flag]) in (2, 3)
    out, err = capfd.readouterr()
    said = (out + err + "".join(path.name for path in tmp_path.iterdir())).replace("127.0.0.1", "")
    for piece in [password, *(part for part in re.split(r"[@/: ]|%..", password) if len(part) > 2)]:
        assert piece not in said, piece


class _FakeModel:
    model_id, random_weights, score_threshold = "n", False, 0.5
    class_names, category_ids = ("<b>person</b>", "dog"), (1, 2)
    info = BackendInfo("openvino", "cpu", "fp32", (64, 64))

    def __enter__(self) -> "_FakeModel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detect_frame(self, rgb: np.ndarray, **_: Any) -> Any:
        one = Detections(
            np.array([[8, 8, 60, 60]], np.float32), np.array([0.9], np.float32), np.array([0]),
            class_names=self.class_names, category_ids=self.category_ids,
        )  # fmt: skip
        return one, SimpleNamespace(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)

    def close(self) -> None:
        pass


# 5 and 10: job files


def a_job(folder: Path, **changes: Any) -> tuple[JobFile, Path]:
    """A job file that fits, but for the changes; and a file that is none of its business."""
    source, victim = folder / "in.mp4", folder / "elsewhere" / "holiday.mp4"
    source.write_bytes((ROOT / "assets/sample.mp4").read_bytes())
    victim.parent.mkdir()
    victim.write_bytes(source.read_bytes())
    (folder / "results").mkdir()
    job = JobFile(folder / "results" / "out.mp4", source, settings_hash({}))
    job.write([folder / "results" / "out.part.mp4"], {})
    kept = json.loads(job.path.read_text())
    job.path.write_text(json.dumps({**kept, "pid": 0, **changes}))
    return job, victim


@pytest.mark.parametrize(
    "name", ["../elsewhere/holiday.mp4", "{folder}/elsewhere/holiday.mp4", "../elsewhere/x.part.mp4"]
)
@pytest.mark.parametrize("field", ["parts", "sides"])
def test_a_job_file_cannot_name_files_of_others(tmp_path: Path, name: str, field: str) -> None:
    name = name.format(folder=tmp_path)
    changes = {"parts": [name]} if field == "parts" else {"parts": ["holiday.part.mp4"], "sides": {"json": name}}
    job, victim = a_job(tmp_path, **changes)
    assert job.past() is None
    job.done()
    assert victim.exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_job_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    job, _ = a_job(tmp_path)
    job.write([tmp_path / "results" / "out.part.mp4"], {})
    assert job.path.stat().st_mode & 0o777 == 0o600


# 9: tables


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_class_name_becomes_a_formula(tmp_path: Path, name: str) -> None:
    header = SideHeader("=evil.mp4", "n", False, (name,))
    (side,) = open_side_files({"csv": tmp_path / "boxes.csv"}, header).values()
    box = np.array([[1, 2, 3, 4]], np.float32)
    side.add(
        PictureResult(0, None, Detections(box, np.ones(1, np.float32), np.zeros(1, int), class_names=(name,)), "=1.jpg")
    )
    side.finish()
    with (tmp_path / "boxes.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 2
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@", "\t", "\r"))]
    assert f"'{name}" in rows[1] and "'=1.jpg" in rows[1]


# 8: text in the window


def test_outside_text_is_never_taken_for_html(qtbot: Any, qapp: Any, tmp_path: Path) -> None:
    clip = tmp_path / "<img src=x><b>a.mp4"
    clip.write_bytes((ROOT / "assets/sample.mp4").read_bytes())
    session = Session(load_detector=lambda _: _FakeModel(), list_devices=lambda: {"cpu": "<i>CPU</i>"},
                      find=lambda _: Path(__file__), pictures=tmp_path, videos=tmp_path)  # fmt: skip
    window = Window(session, Theme(qapp, "light"))
    qtbot.addWidget(window)
    window.show()
    try:
        session.start(model="n")
        session.open_files([str(clip), str(clip)])
        qtbot.waitUntil(lambda: session.state.running is not None and session.shown is not None, timeout=60_000)
        session.report(RuntimeError("<b>broken</b>"))
        qtbot.waitUntil(lambda: any("<b>" in label.text() for label in window.findChildren(QLabel)), timeout=10_000)
        labels = [label for label in window.findChildren(QLabel) if "<" in label.text()]
        assert labels
        for label in labels:
            assert label.textFormat().name == "PlainText", label.text()
        for widget in window.findChildren(QWidget):
            words = widget.toolTip()
            assert "<img" not in words and "<b>" not in words and "<i>" not in words, words
    finally:
        window.close()
        session.close()


# 12: what is installed


def test_every_version_is_pinned_exactly() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line) for line in lines)
    names = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert len(set(names)) == len(names)
