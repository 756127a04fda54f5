"""A list of tasks spread over workers: processes of this machine, or (spread_ray.py) of a Ray cluster.

The tasks, what a worker does with one, and the loop that hands them out are the same in both; a crew only starts
workers, asks them and ends them. A task whose worker dies is given to another one, a few times.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias

from ledetr.errors import Interrupted, LeDetrError

ATTEMPTS = 3
_POLL_S = 0.2
_STOP_LIMIT_S = 20.0
_CLOSE_LIMIT_S = 3.0


class Task(Protocol):
    """What can be done anywhere; is pickled on its way. name: for people."""

    @property
    def name(self) -> str:
        """Of what it works on."""
        ...

    def __call__(self, attempt: int, say: Callable[[Any], None], stop: threading.Event) -> Any:
        """Do it, and give what is to be told at home. Raises LeDetrError.

        attempt: 0, and one more each time a worker died of it. say: how far it is. stop: end early with Interrupted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """How far a task is: what it said last."""

    number: int
    value: Any


@dataclass(frozen=True, slots=True)
class Done:
    """A task is done; value: what it gave."""

    number: int
    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A task gave up, or its workers died of it too often."""

    number: int
    error: LeDetrError


@dataclass(frozen=True, slots=True)
class Died:
    """The worker of a task died; how: half a sentence."""

    number: int
    how: str


Event: TypeAlias = Said | Done | Failed | Died


class Crew(Protocol):
    """Workers that do tasks, each one at a time."""

    def room(self) -> int:
        """How many tasks it would take now."""
        ...

    def give(self, number: int, task: Task, attempt: int) -> None:
        """Let a worker do a task; only where there is room."""
        ...

    def events(self, timeout_s: float) -> list[Event]:
        """What came since the last time; waits a little where nothing did."""
        ...

    def rest(self) -> None:
        """Nothing waits: workers without a task may go."""
        ...

    def stop(self) -> None:
        """Ask the workers to end early; their tasks then fail with Interrupted."""
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...


def spread(tasks: Sequence[Task], crew: Crew, *, stop: threading.Event) -> Iterator[Event]:
    """Do all tasks and tell what happens; each number comes once as Done or Failed, after any Said and Died.

    The tasks are begun in their order. stop: no more are begun, those that run end early, and all that is not done
    fails with Interrupted.
    """
    waiting = deque((number, 0) for number in range(len(tasks)))
    attempts: dict[int, int] = {}
    deadline_s: float | None = None
    while waiting or attempts:
        if stop.is_set():
            if deadline_s is None:
                deadline_s = time.monotonic() + _STOP_LIMIT_S
                crew.stop()
            for number, _ in waiting:
                yield _interrupted(number)
            waiting.clear()
        while waiting and crew.room() > 0:
            number, attempt = waiting.popleft()
            attempts[number] = attempt
            crew.give(number, tasks[number], attempt)
        if not waiting:
            crew.rest()
        for event in crew.events(_POLL_S) if attempts else ():
            if not isinstance(event, Said):
                attempt = attempts.pop(event.number)
            yield event
            if isinstance(event, Died):
                if attempt + 1 < ATTEMPTS:
                    waiting.appendleft((event.number, attempt + 1))
                else:
                    yield Failed(event.number, _gave_up(tasks[event.number], event.how))
        if deadline_s is not None and time.monotonic() > deadline_s:
            for number in attempts:
                yield _interrupted(number)
            return


def _interrupted(number: int) -> Failed:
    return Failed(number, Interrupted("Stopped as asked."))


def _gave_up(task: Task, how: str) -> LeDetrError:
    return LeDetrError(
        f"{task.name!r} was given up: its worker died {ATTEMPTS} times ({how}); the memory may not suffice for so many "
        "workers, try fewer of them or this one alone."
    )


class Worker:
    """What stands at the far end, in a process of its own; one task at a time, asked from any thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._said: Any = None

    def run(self, number: int, task: Task, attempt: int, say: Callable[[Any], None] | None = None) -> Done | Failed:
        """Do a task; its error is an answer too."""
        self._said = None
        try:
            return Done(number, task(attempt, say or self._note, self._stop))
        except LeDetrError as error:
            return Failed(number, error)
        except Exception as error:
            reason = " ".join(str(error).split())
            told = LeDetrError(f"{task.name!r} met an unexpected {type(error).__name__}: {reason}")
            told.add_note(traceback.format_exc())
            return Failed(number, told)

    def _note(self, value: Any) -> None:
        self._said = value

    def look(self) -> Any:
        """How far it is."""
        return self._said

    def stop(self) -> None:
        """End the task, and all that come, early."""
        self._stop.set()


class LocalCrew:
    """At most `size` processes of this machine; a worker keeps what it has loaded for its next task."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._busy: dict[int, _Process] = {}
        self._idle: list[_Process] = []

    def room(self) -> int:
        """How many tasks it would take now."""
        return self._size - len(self._busy)

    def give(self, number: int, task: Task, attempt: int) -> None:
        """Let a worker do a task."""
        worker = self._idle.pop() if self._idle else _Process()
        self._busy[number] = worker
        with suppress(OSError):  # it died while it had nothing to do; events will say so
            worker.pipe.send((number, task, attempt))

    def events(self, timeout_s: float) -> list[Event]:
        """What came since the last time."""
        connection.wait([worker.pipe for worker in self._busy.values()], timeout_s)
        events: list[Event] = []
        for number, worker in list(self._busy.items()):
            for event in worker.heard(number):
                events.append(event)
                if not isinstance(event, Said):
                    del self._busy[number]
                    if not isinstance(event, Died):
                        self._idle.append(worker)
        return events

    def rest(self) -> None:
        """Let the workers without a task go."""
        for worker in self._idle:
            worker.pipe.close()  # it goes by itself
        self._idle.clear()

    def stop(self) -> None:
        """Ask the workers to end early."""
        for worker in self._busy.values():
            with suppress(OSError):  # it just died
                worker.pipe.send(None)

    def close(self) -> None:
        """End all workers, with force where they do not go."""
        workers = [*self._busy.values(), *self._idle]
        for worker in workers:
            worker.pipe.close()
        end_s = time.monotonic() + _CLOSE_LIMIT_S
        for worker in workers:
            worker.process.join(max(0.0, end_s - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


class _Process:
    """One worker of a LocalCrew, seen from home."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the locks of our threads
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end,), daemon=True)
        with _deaf_to_ctrl_c():
            self.process.start()
        far_end.close()  # so that its death is the end of the pipe

    def heard(self, number: int) -> Iterator[Event]:
        """What it said of the task; the last is its end or its death."""
        try:
            while self.pipe.poll():
                event: Event = self.pipe.recv()
                yield event
                if not isinstance(event, Said):
                    return
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
            yield Died(number, _how(self.process.exitcode))


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-exit_code).name}"
    return f"it ended with code {exit_code}"


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile never hear Ctrl-C: a terminal sends it to all, and only home decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: connection.Connection) -> None:
    """The main thread of a worker process: tasks come, events go, until home closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker()
    tasks: SimpleQueue[tuple[int, Task, int] | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, worker, tasks), daemon=True).start()
    with suppress(OSError):  # home is gone
        while (given := tasks.get()) is not None:
            number, task, attempt = given
            pipe.send(worker.run(number, task, attempt, _sayer(pipe, number)))


def _listen(pipe: connection.Connection, worker: Worker, tasks: SimpleQueue[tuple[int, Task, int] | None]) -> None:
    try:
        while True:
            given = pipe.recv()
            if given is None:
                worker.stop()
            else:
                tasks.put(given)
    except (EOFError, OSError):
        worker.stop()
        tasks.put(None)


def _sayer(pipe: connection.Connection, number: int) -> Callable[[Any], None]:
    """Sends what a task says, the newest a few times a second."""
    next_s = 0.0

    def say(value: Any) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + _POLL_S
            pipe.send(Said(number, value))

    return say
