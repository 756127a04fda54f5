"""`ledetr bench --training`: what it counts and times, and its document."""

import json
import sys
from typing import Any

import pytest
import torch

from ledetr.cli.bench import words_of
from ledetr.cli.main import main as ledetr
from training import bench_training, edge
from training.bench_training import PARTS, Clock, CountCriterion, Series, main

SMALL = ("--batch", "2", "--imgsz", "64", "--device", "cpu", "--threads", "1", "--workers", "0", "-q")
MOST_OPERATORS = 600
"""Of the criterion: losses are stacked over the layers."""


def test_each_part_is_timed_and_the_criterion_counted(capsys: pytest.CaptureFixture[str]) -> None:
    main(["-m", "tiny", *SMALL, "--runs", "2", "--warmup", "1", "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert document["schema_version"] == 1 and document["versions"]["torch"] and document["machine"]["date"]
    assert (document["device"], document["precision"], document["workers"]) == ("cpu", "fp32", 0)
    (row,) = document["results"]
    assert (row["model"], row["imgsz"], row["batch"], row["runs"]) == ("tiny", 64, 2, 2)
    assert all(row[f"{part}_ms"] > 0 for part in PARTS) and row["host_syncs"] is None
    assert 0 < row["criterion_operators"] <= MOST_OPERATORS
    each_ms = row["step_ms"] + row["data_wait_ms"]
    assert row["pictures_per_s"] == pytest.approx(2000 / each_ms, rel=1e-3)
    assert row["coco_epoch_hours"] == pytest.approx(118_287 * each_ms / 2 / 3.6e6, rel=1e-2)
    assert row["recipe_hours"] == pytest.approx(row["coco_epoch_hours"] * 160, rel=1e-2), "words other than n: as n"


@pytest.mark.timeout(300)
def test_d_fine_takes_turns_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Its parts are those of ours, and its criterion calls many times the operators."""
    pytest.importorskip("transformers", reason="needs the extra: ledetr[peers]")
    main(["-m", "n", *SMALL, "--imgsz", "256", "--runs", "1", "--warmup", "0", "--peers"])
    table = capsys.readouterr().out
    rows = [line.split() for line in table.splitlines() if " 256 " in line]
    cells = [[cell for cell in row if cell not in "│┃"] for row in rows]
    assert [row[0] for row in cells] == ["n", "d-fine-n"]
    ours, theirs = (int(row[10].replace(",", "")) for row in cells)
    assert 0 < ours <= MOST_OPERATORS and theirs > 3 * ours
    assert "torch" in table and "transformers" in table
    for row in cells:
        assert all(float(cell) > 0 for cell in row[3:10]), row


def test_without_the_extra_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SystemExit) as stop:
        edge.run(lambda: main(["-m", "n", *SMALL, "--imgsz", "256", "--runs", "1", "--warmup", "0", "--peers"]))
    out, err = capsys.readouterr()
    assert stop.value.code == 4 and out == ""
    assert err == "ledetr: --peers needs the package transformers: pip install -c constraints.txt '.[peers]'\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-m", "q"], "--training takes scales with commas between them (n, m, l, x, tiny), got 'q'"),
        (["--imgsz", "100"], "a multiple of 32 in 32..8192, got '100'"),
        (["--imgsz", "64,96"], "takes one --imgsz"),
        (["--imgsz", "64", "--peers"], "d-fine-n takes 300 queries from 20 positions at --imgsz 64; take 256 or more"),
        (["--imgsz", "big"], "such as 416,640, got 'big'"),
    ],
)
def test_wrong_words(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        edge.run(lambda: main([*words, "-q"]))
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_ledetr_bench_hands_its_words_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called: list[Any] = []
    monkeypatch.setattr("ledetr.cli.bench.call_training", lambda module, words: called.append((module, words)) or 7)
    words = ["bench", "--training", "-m", "n,m", "--batch", "8", "--imgsz", "64", "--runs", "3", "--peers", "--json"]
    assert ledetr(words) == 7
    (module, handed) = called[0]
    assert module == "training.bench_training"
    args = bench_training.parse_arguments(handed)
    assert (args.models, args.batch, args.imgsz, args.runs, args.warmup) == ("n,m", 8, "64", 3, 3)
    assert args.peers and args.json and not args.quiet and args.device == args.precision == "auto"
    assert ledetr(["bench", "--batch", "8"]) == 2
    assert ledetr(["bench", "--training", "--backend", "onnx"]) == 2
    assert words_of({"a": None, "b": 2}, {"c": True, "d": False}) == ["--b=2", "--c"]
    capsys.readouterr()


def test_the_clock_adds_up_parts_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.1, 10.3, 10.4, 10.8, 11.0])
    monkeypatch.setattr("training.bench_training.time.perf_counter", lambda: next(times))
    clock = Clock(torch.device("cpu"))
    clock.start()
    for part in ("forward", "criterion", "forward", "backward", "optimiser"):
        clock.mark(part)
    parts = clock.stop()
    assert parts == pytest.approx({"forward": 200, "criterion": 200, "backward": 400, "optimiser": 200})


def test_only_the_criterion_is_counted() -> None:
    counter, x = CountCriterion(), torch.ones(3)
    with counter:
        x = x + 1
        counter.mark("forward")
        x = (x * 2).view(3, 1)
        counter.mark("criterion")
        x = x - 1
    assert counter.count == 2 and x.shape == (3, 1)


@pytest.mark.parametrize(("workers", "wait"), [(0, 400.0), (2, 300.0)])
def test_workers_make_the_next_batch_during_the_step(workers: int, wait: float) -> None:
    series = Series("n", None, 3.0, 160)  # type: ignore[arg-type]
    series.parts_ms = [dict.fromkeys(PARTS, 25.0), dict.fromkeys(PARTS, 20.0), dict.fromkeys(PARTS, 30.0)]
    row = series.row(16, 416, read_ms=400.0, workers=workers)
    assert (row["step_ms"], row["data_wait_ms"]) == (100, wait)
    assert row["pictures_per_s"] == pytest.approx(16_000 / (100 + wait), rel=1e-3)
