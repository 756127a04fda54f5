"""`ledetr doctor`: the report comes out whatever is broken, and names what to do."""

import json

import pytest

from ledetr.cli import doctor
from ledetr.cli.main import main
from ledetr.cli.system_libraries import OFFSCREEN, X_DISPLAY, SystemLibrary, missing_libraries


def findings(capsys: pytest.CaptureFixture[str], exit_code: int) -> dict[str, dict]:
    assert main(["doctor", "--json"]) == exit_code
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (exit_code == 0)
    for check in document["checks"]:
        assert set(check) == {"name", "status", "found", "advice"} and check["status"] in ("ok", "note", "fail")
        assert check["advice"] or check["status"] != "fail", "a failure comes with what to do"
    return {check["name"]: check for check in document["checks"]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the probes that load an engine."""
    for name in ("_torch", "_openvino"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))


def test_everything_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, 0)
    expected = {"python", "machine", "torch", "openvino", "opencv", "video", "window", "cameras", "weights n"}
    assert expected <= set(found)
    assert "libx264" in found["video"]["found"]


def test_the_table_for_people(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "Python 3." in capsys.readouterr().out


def test_a_broken_probe_is_a_finding(quick: None, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken():
        raise ImportError("libsomething.so.1: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "_openvino", broken)
    check = findings(capsys, 1)["openvino"]
    assert check["found"] == "ImportError: libsomething.so.1: cannot open shared object file"


def test_missing_system_libraries_are_named_with_their_packages(
    quick: None, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "missing_libraries", lambda *, window: [OFFSCREEN[0], X_DISPLAY[0]])
    check = findings(capsys, 1)["window"]
    assert "libEGL.so.1, libxcb-cursor.so.0" in check["found"]
    assert check["advice"].endswith("sudo apt-get install libegl1 libxcb-cursor0")


def test_two_builds_of_one_package_clash(quick: None, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = doctor._installed
    foreign = ("onnxruntime", "onnxruntime-gpu", "opencv-python")
    monkeypatch.setattr(doctor, "_installed", lambda name: name in foreign or real(name))
    found = findings(capsys, 1)
    assert "overwrite each other" in found["onnxruntime"]["found"]
    assert found["opencv"]["status"] == "note" and "opencv-python " in found["opencv"]["advice"]


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = SystemLibrary("libledetr-absent.so.7", "libabsent7")
    monkeypatch.setattr("ledetr.cli.system_libraries.X_DISPLAY", (absent,))
    monkeypatch.setattr("sys.platform", "linux")
    assert absent in missing_libraries(window=True)
    assert absent not in missing_libraries(window=False)
    monkeypatch.setattr("sys.platform", "win32")
    assert missing_libraries(window=True) == []
