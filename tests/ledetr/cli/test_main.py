"""The edge of the command line: exit codes, one sentence each, and nothing of Python's own noise."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from ledetr import errors
from ledetr.cli import main as edge
from ledetr.cli.main import COMMANDS, load_command, main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Puts a function into the table as the command `trial`."""

    def put(function: Callable[[], None]) -> None:
        module = ModuleType("trial_command")
        module.trial = function
        monkeypatch.setitem(sys.modules, "trial_command", module)
        monkeypatch.setitem(COMMANDS, "trial", ("trial_command:trial", "A trial."))

    return put


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, (_, line) in COMMANDS.items():
        assert name in out and line.split()[0] in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded_and_explains_itself(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert load_command(name).name == name
    if name != "gui":  # its --help belongs to the window
        assert main([name, "--help"]) == 0
        out, _ = capfd.readouterr()  # of the file, because training's commands are processes of their own
        assert f"usage: ledetr {name}" in out.replace("Usage", "usage")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["detct"], "there is no command 'detct'; did you mean 'detect'?"),
        (["zzz"], "the commands are detect, models"),
        (["--vers"], "--version"),
        (["models", "--jsn"], "--json"),
        (["models", "verfy"], "'verify'"),
        (["eval"], "Missing argument 'DATA'"),
        (["eval", "x.json", "--limit", "none"], "'--limit'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and sentence in err and "--help" in err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "kind",
    [
        errors.LeDetrError,
        errors.UsageError,
        errors.SourceError,
        errors.WeightsError,
        errors.BackendUnavailable,
        errors.ExportError,
        errors.OutputError,
        errors.PartialFailure,
        errors.Interrupted,
    ],
)
def test_errors_for_users(kind: type[errors.LeDetrError], command, capsys: pytest.CaptureFixture[str]) -> None:
    def trial() -> None:
        raise kind("the disk is full: make room")

    command(trial)
    assert main(["trial"]) == kind.exit_code
    assert capsys.readouterr() == ("", "ledetr: the disk is full: make room\n")


def test_the_exit_codes_are_those_of_the_manual() -> None:
    kinds = [errors.LeDetrError, errors.UsageError, errors.SourceError, errors.WeightsError, errors.ExportError]
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4, 5]
    assert (errors.PartialFailure.exit_code, errors.Interrupted.exit_code) == (6, 130)


@pytest.mark.parametrize("words", [["trial", "--debug"], ["--debug", "trial"]])
def test_unexpected_errors(words: list[str], command, capsys: pytest.CaptureFixture[str]) -> None:
    def trial() -> None:
        raise RuntimeError("line one\nline two")

    command(trial)
    assert main(["trial"]) == 1
    assert capsys.readouterr() == (
        "",
        "ledetr: unexpected RuntimeError: line one line two (--debug shows the traceback)\n",
    )
    assert main(words) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_after_a_double_dash_belongs_to_the_command() -> None:
    assert edge._take_debug(["detect", "--", "--debug"]) == (["detect", "--", "--debug"], False)
    assert edge._take_debug(["detect", "--debug", "a"]) == (["detect", "a"], True)


def test_interrupt(command, capsys: pytest.CaptureFixture[str]) -> None:
    def trial() -> None:
        raise KeyboardInterrupt

    command(trial)
    assert main(["trial"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from ledetr.cli.main import script; sys.argv[1:] = ['--help']; script()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.stderr == ""


def test_a_name_the_terminal_cannot_show_is_escaped() -> None:
    code = "import sys; from ledetr.cli.main import main; sys.exit(main(['eval', 'b\\xe4ume \\udce4.json']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
        timeout=100,
    )
    assert done.returncode == 3
    assert b"there is no file" in done.stderr and b"Traceback" not in done.stderr


def test_json_is_one_document_whatever_libraries_print() -> None:
    code = (
        "import os, sys\n"
        "from ledetr.cli.one_document import one_document\n"
        "with one_document(True) as document:\n"
        "    print('a stray print')\n"
        "    os.write(1, b'a stray write of a C library')\n"
        "    document.update(answer=42)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == '{\n  "schema_version": 1,\n  "answer": 42\n}\n'
    assert "a stray print" in done.stderr and "a stray write" in done.stderr


def test_json_prints_nothing_when_the_command_fails() -> None:
    code = (
        "from ledetr.cli.one_document import one_document\n"
        "with one_document(True) as document:\n"
        "    document.update(answer=42)\n"
        "    raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
