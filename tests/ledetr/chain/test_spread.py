"""Tasks handed out to workers: none lost, none given up early, and what a stop and a death do."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ledetr.chain.spread import ATTEMPTS, Died, Done, Event, Failed, LocalCrew, Said, Worker, spread
from ledetr.errors import Interrupted, LeDetrError, SourceError


@dataclass(frozen=True)
class Named:
    """A task that only has a name; the scripted crew does nothing with it."""

    name: str

    def __call__(self, attempt: int, say: Callable[[Any], None], stop: threading.Event) -> Any:
        raise AssertionError("the scripted crew runs no tasks")


@dataclass
class ScriptedCrew:
    """Answers a task with what the script says for (number, attempt); Done where it says nothing."""

    size: int = 2
    script: dict[tuple[int, int], list[Event]] = field(default_factory=dict)
    given: list[tuple[int, int]] = field(default_factory=list)
    busy: deque[tuple[int, int]] = field(default_factory=deque)
    most: int = 0
    stops: int = 0
    rested: bool = False

    def room(self) -> int:
        return self.size - len(self.busy)

    def give(self, number: int, task: Any, attempt: int) -> None:
        assert self.room() > 0
        self.given.append((number, attempt))
        self.busy.append((number, attempt))
        self.most = max(self.most, len(self.busy))

    def events(self, timeout_s: float) -> list[Event]:
        number, attempt = self.busy[0]
        events = self.script.get((number, attempt), [Done(number, f"result {number}")])
        if not isinstance(events[-1], Said):
            self.busy.popleft()
        return events

    def rest(self) -> None:
        self.rested = True

    def stop(self) -> None:
        self.stops += 1

    def close(self) -> None:
        pass


def tasks(count: int) -> list[Named]:
    return [Named(f"clip{number}.mp4") for number in range(count)]


def test_every_task_is_given_once_in_order_and_ends_once() -> None:
    crew = ScriptedCrew(size=3)
    events = list(spread(tasks(7), crew, stop=threading.Event()))
    assert events == [Done(number, f"result {number}") for number in range(7)]
    assert crew.given == [(number, 0) for number in range(7)]
    assert crew.most == 3 and crew.rested


def test_no_tasks_end_at_once() -> None:
    assert list(spread([], ScriptedCrew(), stop=threading.Event())) == []


def test_a_task_whose_worker_died_is_given_again_before_the_others() -> None:
    crew = ScriptedCrew(size=1, script={(0, 0): [Said(0, 5), Died(0, "killed by SIGKILL")]})
    events = list(spread(tasks(2), crew, stop=threading.Event()))
    assert events == [Said(0, 5), Died(0, "killed by SIGKILL"), Done(0, "result 0"), Done(1, "result 1")]
    assert crew.given == [(0, 0), (0, 1), (1, 0)]


def test_a_task_of_which_all_workers_die_is_given_up_and_the_others_are_done() -> None:
    crew = ScriptedCrew(size=1, script={(0, attempt): [Died(0, "killed by SIGKILL")] for attempt in range(9)})
    *_, failed, last = spread(tasks(2), crew, stop=threading.Event())
    assert isinstance(failed, Failed) and failed.number == 0
    assert "'clip0.mp4' was given up: its worker died 3 times (killed by SIGKILL)" in str(failed.error)
    assert last == Done(1, "result 1")
    assert crew.given == [*((0, attempt) for attempt in range(ATTEMPTS)), (1, 0)]


def test_a_task_that_fails_is_not_tried_again() -> None:
    error = SourceError("Cannot open 'clip0.mp4'.")
    crew = ScriptedCrew(script={(0, 0): [Failed(0, error)]})
    assert list(spread(tasks(2), crew, stop=threading.Event())) == [Failed(0, error), Done(1, "result 1")]


def test_stop_begins_no_more_and_every_task_still_ends_once() -> None:
    stop = threading.Event()
    crew = ScriptedCrew(size=1, script={(0, 0): [Failed(0, Interrupted("Stopped as asked."))]})
    crew.script[(0, 0)].insert(0, Said(0, 1))
    ended = []
    for event in spread(tasks(4), crew, stop=stop):
        stop.set()
        ended += [] if isinstance(event, Said) else [event]
    assert crew.given == [(0, 0)] and crew.stops == 1
    assert sorted(event.number for event in ended) == [0, 1, 2, 3]
    assert all(isinstance(event, Failed) and isinstance(event.error, Interrupted) for event in ended)


def test_stop_waits_for_a_worker_that_does_not_answer_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledetr.chain.spread._STOP_LIMIT_S", 0.0)
    stop = threading.Event()
    stop.set()
    crew = ScriptedCrew(size=1)
    crew.script[(0, 0)] = [Said(0, "still here")]
    started = spread(tasks(1), crew, stop=threading.Event())
    next(started)
    assert [event.number for event in spread(tasks(1), crew, stop=stop)] == [0]


def test_the_worker_answers_with_errors_too() -> None:
    def refuse(attempt: int, say: Any, stop: Any) -> None:
        raise SourceError("Cannot open 'a.mp4'.")

    def break_down(attempt: int, say: Any, stop: Any) -> None:
        raise RuntimeError("two\nlines")

    refuse.name = break_down.name = "a.mp4"  # type: ignore[attr-defined]
    refused = Worker().run(3, refuse, 0)  # type: ignore[arg-type]
    assert isinstance(refused, Failed) and isinstance(refused.error, SourceError) and refused.number == 3
    broken = Worker().run(3, break_down, 0)  # type: ignore[arg-type]
    assert isinstance(broken, Failed) and type(broken.error) is LeDetrError
    assert str(broken.error) == "'a.mp4' met an unexpected RuntimeError: two lines"
    assert "break_down" in broken.error.__notes__[0]


# What the processes do stands in a module of its own: a worker is a fresh interpreter and imports it by name.
_WORK = '''
"""Tasks of a test."""
import os, time
from dataclasses import dataclass
from pathlib import Path
from ledetr.errors import Interrupted, SourceError

@dataclass(frozen=True)
class Task:
    name: str
    folder: Path
    hold: bool = False

    def __call__(self, attempt, say, stop):
        with (self.folder / f"{self.name}.begun").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        say("begun")
        while self.hold and attempt == 0:
            if stop.wait(0.01):
                raise Interrupted("Stopped as asked.")
        if self.name == "bad":
            raise SourceError("Cannot open 'bad'.")
        (self.folder / f"{self.name}.done").open("x").write(str(attempt))
        return os.getpid()
'''


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class of tasks that processes can do."""
    (tmp_path / "work_of_a_test.py").write_text(_WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    import work_of_a_test  # type: ignore[import-not-found]

    yield work_of_a_test.Task
    sys.modules.pop("work_of_a_test", None)


def begun_by(folder: Path, name: str) -> list[int]:
    path = folder / f"{name}.begun"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_two_processes_share_the_work_and_the_death_of_one_loses_none(task: Any, tmp_path: Path) -> None:
    all_tasks = [task("held", tmp_path, hold=True), *(task(f"t{n}", tmp_path) for n in range(6)), task("bad", tmp_path)]
    crew = LocalCrew(2)
    ended: dict[int, Event] = {}
    deaths = []
    try:
        for event in spread(all_tasks, crew, stop=threading.Event()):
            if isinstance(event, Died):
                deaths.append(event)
            elif not isinstance(event, Said):
                assert event.number not in ended, "a task ended twice"
                ended[event.number] = event
            elif event.number == 0 and not deaths:
                os.kill(begun_by(tmp_path, "held")[0], signal.SIGKILL)
    finally:
        crew.close()
    assert deaths == [Died(0, "killed by SIGKILL")]
    assert isinstance(ended[7], Failed) and str(ended[7].error) == "Cannot open 'bad'."
    assert all(isinstance(ended[number], Done) for number in range(7)) and len(ended) == 8
    first, second = begun_by(tmp_path, "held")
    assert first != second
    assert sorted(path.name for path in tmp_path.glob("*.done")) == ["held.done", *(f"t{n}.done" for n in range(6))]
    # Three processes in all: two, and one in place of the one that died; they were used again and again.
    assert len({pid for path in tmp_path.glob("*.begun") for pid in begun_by(tmp_path, path.stem)}) == 3


def test_a_stop_reaches_the_processes_and_close_leaves_none(task: Any, tmp_path: Path) -> None:
    stop = threading.Event()
    crew = LocalCrew(1)
    events = []
    try:
        for event in spread([task("held", tmp_path, hold=True)], crew, stop=stop):
            events.append(event)
            stop.set()
    finally:
        crew.close()
    assert isinstance(events[-1], Failed) and isinstance(events[-1].error, Interrupted)
    (pid,) = begun_by(tmp_path, "held")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
