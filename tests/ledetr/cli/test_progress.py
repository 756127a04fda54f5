"""What is said of a job under way, on a terminal and off it."""

import pytest

from ledetr.cli import progress


@pytest.fixture
def lines_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)


@pytest.mark.usefixtures("lines_at_once")
def test_off_a_terminal_it_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown_progress("a.mp4", unit="pictures", quiet=False) as show:
        show(3, 10, 4.2, fps=12.34)
        show(4, None, None)
    with progress.counted("rounds", 2) as count:
        count(0)
        count(2)
    assert capsys.readouterr().err.splitlines() == [
        "a.mp4: 3 of 10 pictures, 12.3 fps end to end, 4 s left",
        "a.mp4: 4 pictures",
        "0 of 2 rounds",
        "2 of 2 rounds, 0 s left",
    ]


@pytest.mark.usefixtures("lines_at_once")
def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown_progress("a.mp4", unit="pictures", quiet=True) as show:
        show(3, 10, 4.2, fps=12.34)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_brackets_in_a_name_are_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress.shown_progress("clip [/bold].mp4", unit="pictures", quiet=False) as show:
        show(3, 10, 4.2, fps=12.34)
    assert "clip [/bold].mp4" in capsys.readouterr().err
