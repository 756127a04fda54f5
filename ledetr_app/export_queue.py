"""Files that are exported one after the other, by the same function as `ledetr detect`, in a thread of their own.

The queue is kept in a file that is replaced whole at each change, so that a window that was killed, and the power too,
leave it for the next start. Each running window has a file of its own; what a dead one left is taken over.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from platformdirs import user_state_path

from ledetr.chain.inference import FrameDetector
from ledetr.chain.resume import still_runs
from ledetr.chain.video import VideoProgress
from ledetr.errors import Interrupted, LeDetrError
from ledetr.files import whole_file
from ledetr_app.export_job import OVER, ExportJob, ExportRow, Status, class_ids_of, row_of_json, row_to_json
from ledetr_app.model_loader import LoadDetector, ModelWish
from ledetr_app.store import problem_of

log = logging.getLogger("ledetr_app")

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 64 << 20
PROGRESS_PERIOD_S = 0.2


@dataclass(frozen=True, slots=True)
class Exports:
    """rows: in the order they are done. paused: none begins, the running one holds. found: rows of an earlier run
    that wait for the user to say whether to go on."""

    rows: tuple[ExportRow, ...] = ()
    paused: bool = False
    found: int = 0

    def count(self, status: Status) -> int:
        """How many stand there."""
        return sum(row.status is status for row in self.rows)

    def index(self, number: int) -> int | None:
        """Place of a row; None where it is gone."""
        return next((place for place, row in enumerate(self.rows) if row.number == number), None)

    @property
    def running(self) -> ExportRow | None:
        """The one that is being done."""
        return next((row for row in self.rows if row.status is Status.RUNNING), None)


def exports_folder() -> Path:
    """Where queues are kept, in the user's own state folder; nothing is created by asking."""
    return user_state_path("ledetr", appauthor=False) / "exports"


class ExportQueue:
    """load: how a choice of model becomes a detector. folder: where the queue is kept; None = nowhere.

    state: replaced whole, read by anyone. on_change is called from any thread when it is another one.
    """

    def __init__(self, load: LoadDetector, folder: Path | None = None) -> None:
        self.state = Exports()
        self.on_change: Callable[[], None] = _nothing
        self._load = load
        self._folder = folder
        process = psutil.Process()
        self._process = {"pid": process.pid, "pid_began_s": process.create_time()}
        self._changed = threading.Condition()
        self._serial = 0
        self._stop = threading.Event()  # ends the row that is being done
        self._cancelled: int | None = None
        self._closing = False
        self._dirty = False
        self._detector: tuple[ModelWish, FrameDetector] | None = None
        self._adopted: list[Path] = []
        self._texts: dict[int, tuple[ExportRow, str]] = {}
        self._thread = threading.Thread(target=self._run, name="exports", daemon=True)
        self._thread.start()

    # Commands; they return at once

    def add(self, jobs: Iterable[ExportJob]) -> None:
        """At the end of the queue; begins unless it is held."""
        with self._changed:
            rows = [ExportRow(self._next_number(), job) for job in jobs]
            self._set(rows=(*self.state.rows, *rows))
        self.on_change()

    def remove(self, number: int) -> None:
        """Take a row out; the running one is cancelled first."""
        with self._changed:
            place = self.state.index(number)
            if place is None:
                return
            if self.state.rows[place].status is Status.RUNNING:
                self._end_running(number)
            self._set(rows=tuple(row for row in self.state.rows if row.number != number))
        self.on_change()

    def cancel(self, number: int) -> None:
        """Do not do it; what there is of it becomes a partial file."""
        with self._changed:
            place = self.state.index(number)
            if place is None or self.state.rows[place].status in OVER:
                return
            if self.state.rows[place].status is Status.RUNNING:
                self._end_running(number)
            else:
                self._change_row(number, status=Status.CANCELLED)
        self.on_change()

    def retry(self, number: int) -> None:
        """Once more: one that failed or was cancelled waits again, where it stands."""
        with self._changed:
            place = self.state.index(number)
            if place is None or self.state.rows[place].status not in (Status.FAILED, Status.CANCELLED):
                return
            self._change_row(number, status=Status.WAITING, sentence="", frames=0, paths=())
        self.on_change()

    def move(self, number: int, by: int) -> None:
        """Earlier (-1) or later (1) in the order."""
        with self._changed:
            place, rows = self.state.index(number), list(self.state.rows)
            if place is None:
                return
            row = rows.pop(place)
            rows.insert(min(max(place + by, 0), len(rows)), row)
            self._set(rows=tuple(rows))
        self.on_change()

    def set_paused(self, paused: bool) -> None:
        """Hold, the running one too, or go on; going on also takes over what an earlier run left."""
        with self._changed:
            self._set(paused=paused, found=self.state.found if paused else 0)
        self.on_change()

    def clear_over(self) -> None:
        """Forget what is done, failed or cancelled."""
        with self._changed:
            self._set(rows=tuple(row for row in self.state.rows if row.status not in OVER))
        self.on_change()

    def forget_found(self) -> None:
        """Do not go on with what an earlier run left."""
        with self._changed:
            self._set(rows=tuple(row for row in self.state.rows if row.status in OVER), paused=False, found=0)
        self.on_change()

    def close(self, timeout_s: float) -> bool:
        """End, with the running one kept so that the next start can go on; False when it did not end in time."""
        with self._changed:
            self._closing = True
            self._stop.set()
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # The state; the lock is held

    def _next_number(self) -> int:
        self._serial += 1
        return self._serial

    def _end_running(self, number: int) -> None:
        self._cancelled = number
        self._stop.set()

    def _change_row(self, number: int, **changes: Any) -> None:
        self._set(rows=tuple(replace(row, **changes) if row.number == number else row for row in self.state.rows))

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self._dirty = True  # until it is on disk
        self._changed.notify_all()

    # Thread "exports"

    def _run(self) -> None:
        try:
            self._adopt()
            while (row := self._next_row()) is not None:
                self._do(row)
                self.on_change()
        finally:
            self._let_go()

    def _next_row(self) -> ExportRow | None:
        """The next one to do, now marked as running; waits for it, and keeps what changed meanwhile. None: the end."""
        while True:
            with self._changed:
                waiting = None if self.state.paused else self._first_waiting()
                if self._closing:
                    self._keep()
                    return None
                if waiting is not None:
                    self._stop.clear()
                    self._cancelled = None
                    self._change_row(waiting.number, status=Status.RUNNING, frames=0, total=None, sentence="")
                elif not self._dirty:
                    self._changed.wait()
                    continue
                self._dirty = False
            self._keep()
            if waiting is not None:
                self.on_change()
                return waiting
            self._let_go()

    def _first_waiting(self) -> ExportRow | None:
        return next((row for row in self.state.rows if row.status is Status.WAITING), None)

    def _do(self, row: ExportRow) -> None:
        try:
            changes = self._done(row)
        except Interrupted as error:
            mine = self._cancelled == row.number
            changes = {"status": Status.CANCELLED if mine else Status.WAITING, "sentence": str(error) if mine else ""}
        except Exception as error:  # the edge of this thread: the row says it, the others go on
            if not isinstance(error, LeDetrError):
                log.error("exporting %s", row.job.name, exc_info=error)
            changes = {"status": Status.FAILED, "sentence": problem_of(error).sentence}
        with self._changed:
            self._change_row(row.number, seconds_left=None, **changes)

    def _done(self, row: ExportRow) -> dict[str, Any]:
        job, wish = row.job.plan()
        job.check(wish)
        detector = self._detector_for(row.job.model)
        names = tuple(detector.class_names)
        wish = replace(wish, class_ids=class_ids_of(row.job.class_names, names))
        report = job.run(detector, wish, self._follow(row.number), self._stop)  # type: ignore[arg-type]
        written = [report.path, *report.side_files.values()]
        return {
            "status": Status.DONE,
            "frames": report.frames,
            "fps": report.fps,
            "paths": tuple(str(path) for path in written if path is not None),
        }

    def _detector_for(self, wish: ModelWish) -> FrameDetector:
        if self._detector is not None and self._detector[0] == wish:
            return self._detector[1]
        self._let_go()
        self._detector = wish, self._load(wish)
        return self._detector[1]

    def _let_go(self) -> None:
        """Nothing waits: the model's memory is given back."""
        detector, self._detector = self._detector, None
        if detector is not None:
            detector[1].close()

    def _follow(self, number: int) -> Callable[[VideoProgress], None]:
        """Takes progress over a few times a second, and holds the export while the queue is held."""
        told_s = -PROGRESS_PERIOD_S

        def follow(progress: VideoProgress) -> None:
            nonlocal told_s
            self._hold()
            now_s = time.monotonic()
            if now_s - told_s >= PROGRESS_PERIOD_S:
                told_s = now_s
                self._show_progress(number, progress)

        return follow

    def _hold(self) -> None:
        """Wait while the queue is held; the other stages of the export wait too, by their bounded queues."""
        while True:
            with self._changed:
                if self._dirty:
                    self._dirty = False
                elif self.state.paused and not self._stop.is_set():
                    self._changed.wait()
                    continue
                else:
                    return
            self._keep()

    def _show_progress(self, number: int, progress: VideoProgress) -> None:
        with self._changed:
            dirty = self._dirty
            self._change_row(
                number,
                frames=progress.frames,
                total=progress.total,
                fps=progress.fps,
                seconds_left=progress.seconds_left,
            )
            self._dirty = dirty  # how far it is, is not kept: its job file knows
        self.on_change()

    # On disk

    @property
    def _file(self) -> Path | None:
        return None if self._folder is None else self._folder / f"{self._process['pid']}.json"

    def _keep(self) -> None:
        """Write the queue, whole; without rows there is no file. A disk that refuses costs only the memory of it."""
        path, rows = self._file, self.state.rows
        if path is None:
            return
        try:
            if any(row.status not in OVER for row in rows):
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path, private=True) as part:
                    part.write_text(self._document(rows), encoding="utf-8")
            else:
                path.unlink(missing_ok=True)
            for old in self._adopted:
                if old != path:  # a dead window may have had our own number
                    old.unlink(missing_ok=True)
            self._adopted = []
        except OSError as error:
            log.warning("the queue of exports is not kept in %s: %s", path.parent, error)

    def _document(self, rows: Sequence[ExportRow]) -> str:
        """The queue as JSON. Of a thousand rows one has changed, so the texts of the others are taken as they were."""
        before = self._texts
        self._texts = {
            row.number: known
            if (known := before.get(row.number)) is not None and known[0] is row
            else (row, json.dumps(row_to_json(row)))
            for row in rows
        }
        head = json.dumps({"schema_version": SCHEMA_VERSION, **self._process})
        return f'{head[:-1]}, "rows": [{", ".join(text for _, text in self._texts.values())}]}}'

    def _adopt(self) -> None:
        """Take over what windows that are gone have left; the user is asked before it goes on."""
        if self._folder is None or not self._folder.is_dir():
            return
        left: list[ExportRow] = []
        for path in sorted(self._folder.glob("*.json")):
            rows = _rows_of(path, self._next_number)
            if rows is not None:
                left += rows
                self._adopted.append(path)
        waiting = sum(row.status is Status.WAITING for row in left)
        with self._changed:
            if waiting:
                self._set(rows=(*left, *self.state.rows), paused=True, found=waiting)
        if waiting:
            self.on_change()


def _rows_of(path: Path, number: Callable[[], int]) -> list[ExportRow] | None:
    """The rows of a dead window's file; None where its window lives. A file that cannot be read has none, and goes."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        if int(document["pid"]) == os.getpid() and abs(psutil.Process().create_time() - document["pid_began_s"]) < 1:
            return None
        if still_runs(int(document["pid"]), float(document["pid_began_s"])):
            return None
        return [row_of_json(row, number()) for row in document["rows"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("the queue of exports in %s cannot be read and is left out: %s", path, error)
        return []


def _nothing() -> None:
    """Nobody listens yet, or no more."""
