"""The workers of spread.py as actors of a Ray cluster that is there already.

Every machine of the cluster needs this package, the same model files, and the videos under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import Any

from ledetr import __version__
from ledetr.chain.spread import Died, Done, Event, Failed, Said, Task, Worker
from ledetr.errors import LeDetrError, UsageError

_CONNECT_LIMIT_S = 5.0
_THREADS = 3  # of an actor: one works, the others answer meanwhile


class RayWorker(Worker):
    """A worker that says which version it is of; an actor of this class runs on any machine of the cluster."""

    def version(self) -> str:
        """Of the package on that machine."""
        return __version__


class RayCrew:
    """Actors of a cluster, each with one processor, and one GPU where gpus is set.

    address: host:port of its head, or "auto" for the cluster that this machine belongs to. size: at most so many
    workers; None: one for each machine, or for each GPU. Raises UsageError where there is no cluster.
    """

    def __init__(self, address: str, size: int | None, *, gpus: bool) -> None:
        self._ray = _connected(address)
        self._unit = "GPU" if gpus and self._total("GPU") else "CPU"
        wanted = size or (self._total("GPU") if self._unit == "GPU" else self._machines())
        self.size = max(1, min(wanted, self._total(self._unit)))
        self._actor_class = self._ray.remote(
            num_cpus=0 if self._unit == "GPU" else 1,
            num_gpus=1 if self._unit == "GPU" else 0,
            max_concurrency=_THREADS,
            max_restarts=0,  # a worker that died is replaced by spread, which knows its task
        )(RayWorker)
        self._busy: dict[int, _Actor] = {}
        self._idle: list[Any] = []

    def _total(self, unit: str) -> int:
        return int(self._ray.cluster_resources().get(unit, 0))

    def _machines(self) -> int:
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    def room(self) -> int:
        """How many tasks it would take now."""
        return self.size - len(self._busy)

    def give(self, number: int, task: Task, attempt: int) -> None:
        """Let a worker do a task."""
        handle = self._idle.pop() if self._idle else self._actor_class.remote()
        # The version first: a task of another version may not even be readable there.
        self._busy[number] = _Actor(handle, handle.version.remote(), None, task, attempt)

    def events(self, timeout_s: float) -> list[Event]:
        """What came since the last time."""
        if self._busy:
            self._ray.wait([actor.answer for actor in self._busy.values()], timeout=timeout_s)
        events: list[Event] = []
        for number, actor in list(self._busy.items()):
            event = self._heard(number, actor)
            if event is not None:
                events.append(event)
            if isinstance(event, Done | Failed | Died):
                del self._busy[number]
                if not isinstance(event, Died):
                    self._idle.append(actor.handle)
        return events

    def _heard(self, number: int, actor: _Actor) -> Event | None:
        errors = self._ray.exceptions
        try:
            if not self._is_ready(actor.answer):
                return self._looked(number, actor)
            answer = self._ray.get(actor.answer)
        except errors.ActorUnavailableError:
            return None  # out of reach for now; Ray goes on to ask
        except errors.RayActorError as error:
            return Died(number, _first_line(error))
        except errors.RayError as error:
            return Failed(number, LeDetrError(f"{actor.task.name!r} could not be given to Ray: {_first_line(error)}."))
        if not actor.is_checked:
            return self._begun(number, actor, answer)
        assert isinstance(answer, Done | Failed)
        return answer

    def _begun(self, number: int, actor: _Actor, version: str) -> Failed | None:
        if version != __version__:
            return Failed(
                number,
                UsageError(f"A machine of the cluster has ledetr {version} and this one {__version__}; install one."),
            )
        actor.is_checked = True
        actor.answer = actor.handle.run.remote(number, actor.task, actor.attempt)
        return None

    def _looked(self, number: int, actor: _Actor) -> Said | None:
        if actor.look is None:
            actor.look = actor.handle.look.remote()
            return None
        if not self._is_ready(actor.look):
            return None
        said, actor.look = self._ray.get(actor.look), None
        return None if said is None else Said(number, said)

    def _is_ready(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=0)[0])

    def rest(self) -> None:
        """Let the workers without a task go, so that their place is free for others."""
        for handle in self._idle:
            self._ray.kill(handle)
        self._idle.clear()

    def stop(self) -> None:
        """Ask the workers to end early."""
        for actor in self._busy.values():
            actor.handle.stop.remote()

    def close(self) -> None:
        """End all workers and leave the cluster, which goes on."""
        for handle in [*(actor.handle for actor in self._busy.values()), *self._idle]:
            with suppress(self._ray.exceptions.RayError):  # it is dead already
                self._ray.kill(handle)
        self._ray.shutdown()


class _Actor:
    """One worker with a task: what it was asked, and what it was asked last about how far it is."""

    def __init__(self, handle: Any, answer: Any, look: Any, task: Task, attempt: int) -> None:
        self.handle, self.answer, self.look, self.task, self.attempt = handle, answer, look, task, attempt
        self.is_checked = False


def _connected(address: str) -> Any:
    """The module ray, connected. It is told to send nothing out and to print nothing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address.startswith("127.0.0.1:"):
        # What Ray does elsewhere by default: a cluster of this machine alone listens to this machine alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--cluster needs the package ray: pip install 'ledetr[cluster]'; --jobs alone needs nothing."
        ) from None
    if address != "auto":
        _check_somebody_listens(address)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(f"The Ray cluster {address} cannot be joined: {_first_line(error)}.") from error
    return ray


def _check_somebody_listens(address: str) -> None:
    """Ray itself would wait for a long time, or end the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--cluster {address} is no address of a Ray cluster; write host:port, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"No Ray cluster answers at {address} ({error}); docs/cluster.md says how to start one."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].strip().rstrip(".") or type(error).__name__
