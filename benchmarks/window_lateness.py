"""How late the window's own thread is while the window works, and whether it grows: a timer of 50 ms in that thread.

    python benchmarks/window_lateness.py --minutes 10
    QT_QPA_PLATFORM=offscreen python benchmarks/window_lateness.py --minutes 1 --json       (where there is no display)
    python benchmarks/window_lateness.py --minutes 0 --why      (says where the thread was whenever it was late)

The real window and the real chain, one phase after the other: a 1080p30 file plays, the model is switched N-M-L-X-N,
the file is sought in, dead addresses are opened, the file plays on for --minutes, and the live test pattern is shown.
Scales that have no weights here get files of random ones in out/, which load, convert and run as trained ones do; what
was switched to is printed. Printed: for each phase the lateness of the timer
(bars: p99 20 ms, longest 100 ms), then memory, the most frame events that ever waited (bar: 1), and the age of live
pictures on the screen. Exit code 1 where a bar is missed.

Two more columns tell the window from the machine. "alone": the lateness of a process beside it that does nothing but
sleep on the same grid; on a busy machine that is late too, and a bar that it misses itself says nothing about the
window. "work": processor time that the window's thread spends between two looks at its events.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import openvino
import psutil
import PySide6
from driven_window import OPEN_LIMIT_S, DrivenWindow
from PySide6.QtCore import QAbstractEventDispatcher, QObject, Qt, QTimer
from PySide6.QtWidgets import QApplication

import ledetr
from ledetr.errors import LeDetrError
from ledetr.weights_file import find_weights

ROOT = Path(__file__).parents[1]
PERIOD_MS = 50
WARM_S = 15.0  # until the pictures that are kept for stepping back, and other bounded things, are there
P99_BAR_MS, LONGEST_BAR_MS, PENDING_BAR = 20.0, 100.0, 1
SWITCHES = ("m", "l", "x", "n")
# Nobody answers: the first refuses at once, the second (kept for documentation, RFC 5737) is silent.
DEAD_ADDRESSES = ("rtsp://127.0.0.1:9/nothing", "http://192.0.2.1/nothing.mp4")


@dataclass(frozen=True, slots=True)
class Phase:
    """What was done, for how long, and the lateness of the timer meanwhile."""

    name: str
    seconds: float
    ticks: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    alone_p99_ms: float
    alone_longest_ms: float
    work_p99_ms: float
    work_longest_ms: float


class Lateness(QObject):
    """Ticks on a grid of PERIOD_MS. A tick is late by the time between its place on the grid and its slot.

    A thread that is held for long misses several ticks; each of them counts, with its own lateness.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values_ms: list[float] = []
        self.due_s = time.perf_counter() + PERIOD_MS / 1000
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._tick)
        self._timer.start(PERIOD_MS)

    def _tick(self) -> None:
        now_s = time.perf_counter()
        if now_s < self.due_s:  # a timer of whole milliseconds may fire a little early
            self._timer.start(1)
            return
        while self.due_s <= now_s:
            self.values_ms.append(1000 * (now_s - self.due_s))
            self.due_s += PERIOD_MS / 1000
        self._timer.start(max(0, round(1000 * (self.due_s - time.perf_counter()))))


class Bursts:
    """Processor time of the GUI thread from each waking to the next sleep, in ms."""

    def __init__(self) -> None:
        self.values_ms: list[float] = []
        self._woken_s: float | None = None
        dispatcher = QAbstractEventDispatcher.instance()
        dispatcher.awake.connect(self._on_awake)
        dispatcher.aboutToBlock.connect(self._on_block)

    def _on_awake(self) -> None:
        if self._woken_s is None:
            self._woken_s = time.thread_time()

    def _on_block(self) -> None:
        if self._woken_s is not None:
            self.values_ms.append(1000 * (time.thread_time() - self._woken_s))
        self._woken_s = None


class Alone:
    """A process that only sleeps, on a grid of PERIOD_MS, and writes down how late it was and when."""

    CODE = """
import time
due_s = time.monotonic()
while True:
    due_s += {period_s}
    time.sleep(max(0, due_s - time.monotonic()))
    now_s = time.monotonic()
    while due_s <= now_s:
        print(now_s, 1000 * (now_s - due_s), flush=True)
        due_s += {period_s}
    due_s -= {period_s}
"""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in end()
        code = self.CODE.format(period_s=PERIOD_MS / 1000)
        self._process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=self._file)

    def since(self, began_s: float) -> list[float]:
        """Lateness in ms from that moment of time.monotonic() on."""
        rows = [line.split() for line in Path(f"/proc/self/fd/{self._file.fileno()}").read_text().splitlines()]
        return [float(late) for at_s, late in (row for row in rows if len(row) == 2) if float(at_s) >= began_s] or [0.0]

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()
        self._file.close()


class Culprits(threading.Thread):
    """Looks every 5 ms where the GUI thread is, while its timer is overdue by more than the p99 bar."""

    def __init__(self, lateness: Lateness) -> None:
        super().__init__(name="culprits", daemon=True)
        self._lateness = lateness
        self._gui = threading.get_ident()
        self._over = threading.Event()
        self.places: Counter[str] = Counter()
        self.own_lateness_ms: list[float] = []

    def run(self) -> None:
        """Until end() is called."""
        woken_s = time.perf_counter()
        while not self._over.wait(0.005):
            now_s = time.perf_counter()
            self.own_lateness_ms.append(1000 * (now_s - woken_s) - 5)
            woken_s = now_s
            if now_s - self._lateness.due_s > P99_BAR_MS / 1000:
                stack = traceback.extract_stack(sys._current_frames()[self._gui])
                names = [f"{Path(place.filename).name}:{place.lineno} {place.name}" for place in stack]
                self.places[" < ".join(reversed(names[-4:]))] += 1

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()


class Bench(DrivenWindow):
    """The window, its timer, and the phases so far."""

    def __init__(self, source: Path, random: set[str]) -> None:
        super().__init__()
        self.source = source
        self.random = random
        self.lateness = Lateness()
        self.bursts = Bursts()
        self.alone = Alone()
        self.phases: list[Phase] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Collect the lateness of what happens in the block."""
        first, first_burst, began_s = len(self.lateness.values_ms), len(self.bursts.values_ms), time.monotonic()
        yield
        values, bursts = self.lateness.values_ms[first:], self.bursts.values_ms[first_burst:]
        alone = self.alone.since(began_s)
        numbers = [percentile(values, 50), percentile(values, 99), max(values)]
        numbers += [percentile(alone, 99), max(alone), percentile(bursts, 99), max(bursts)]
        self.phases.append(Phase(name, time.monotonic() - began_s, len(values), *numbers))
        print(_row(self.phases[-1]), file=sys.stderr, flush=True)

    def begin(self) -> None:
        """N runs and the file plays."""
        self.use("n")
        self.open(self.source)
        self.session.set_loop(True)

    def switch(self, times: int) -> list[str]:
        """Switch on, N-M-L-X-N; what was really switched to."""
        switched = []
        for number in range(times):
            scale = SWITCHES[number % len(SWITCHES)]
            self.use(scale)
            running = self.session.state.running
            assert running is not None
            switched.append(f"{scale.upper()} on {running.engine}{', random weights' if scale in self.random else ''}")
            self.live(0.5)
        return switched

    def seek(self, times: int) -> None:
        """Seek here and there, and wait for each picture."""
        source = self.session.state.source
        assert source is not None and source.duration_s is not None
        for place in np.random.default_rng(0).uniform(0, source.duration_s - 0.5, times):
            before = self.session.shown
            self.session.seek(source.start_s + float(place))
            self.wait(lambda before=before: self.session.shown is not before, OPEN_LIMIT_S)

    def open_dead_addresses(self) -> None:
        """Open each and wait for its sentence, or for its tries to be shown."""
        for address in DEAD_ADDRESSES:
            self.session.dismiss_problem()
            self.session.open_source(address)
            self.wait(lambda: self.session.state.problem or self.session.state.loss, OPEN_LIMIT_S)
        self.session.stop()
        self.session.dismiss_problem()

    def live_ages(self) -> tuple[float | None, float | None]:
        """The test pattern with N until the meters hold ten seconds of it: p50 and p95 of age in ms."""
        self.open("test:1080p30")
        self.live(15)
        meters = self.session.meters()
        return meters.age_p50_ms, meters.age_p95_ms

    def close(self) -> None:
        """End everything."""
        self.alone.end()
        super().close()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure: everything that is printed."""
    random = made_weights()
    bench = Bench(options.source or made_clip(), random)
    culprits = Culprits(bench.lateness) if options.why else None
    with bench.phase("starting, loading N"):
        bench.begin()
    if culprits is not None:
        culprits.start()
    with bench.phase("playing 1080p30"):
        bench.live(options.seconds)
    switched: list[str] = []
    if options.switches:
        with bench.phase(f"switching models {options.switches} times"):
            switched = bench.switch(options.switches)
        bench.use("n")
    if options.seeks:
        with bench.phase(f"seeking {options.seeks} times"):
            bench.seek(options.seeks)
    with bench.phase("opening dead addresses"):
        bench.open_dead_addresses()
    bench.open(bench.source)
    bench.session.set_loop(True)
    bench.live(WARM_S)
    memory = [psutil.Process().memory_info().rss]
    if options.minutes:
        with bench.phase(f"playing on for {options.minutes:g} minutes"):
            for _ in range(10):
                bench.live(6 * options.minutes)
                memory.append(psutil.Process().memory_info().rss)
    with bench.phase("live test pattern 1080p30"):
        ages = bench.live_ages()
    if culprits is not None:
        culprits.end()
        tell(culprits)
    most_pending, running = bench.window.bridge.most_pending, bench.session.state.running
    assert running is not None
    bench.close()
    return {
        **machine(),
        "torch_was_loaded": "torch" in sys.modules,
        "engine": f"{running.engine} {running.device} {running.precision}",
        "phases": [asdict(phase) for phase in bench.phases],
        "switched": dict(Counter(switched)),
        "memory_mb": [round(value / 1e6, 1) for value in memory],
        "most_pending_events": most_pending,
        "live_age_p50_ms": ages[0],
        "live_age_p95_ms": ages[1],
    }


MAKE_WEIGHTS = """
import sys
from pathlib import Path
from ledetr.backends import random_network
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import VARIANTS
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo

for scale in sys.argv[2:]:
    config = VARIANTS[scale]()
    info = WeightsInfo(name=scale, config=config, class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS,
                       input_hw=config.input_hw, trained_on="nothing, random weights")
    save_weights(Path(sys.argv[1]) / f"ledetr_{scale}.safetensors", random_network(config), info)
"""


def made_weights() -> set[str]:
    """Scales whose weights are random: files of them are made in out/, once, where Le-DETR then finds them.

    In a process of its own, so that this one loads torch only if the window does.
    """
    os.environ["XDG_DATA_HOME"] = str(ROOT / "out" / "window_data")
    folder = ROOT / "out" / "window_data" / "ledetr" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [scale for scale in ledetr.SCALES if not _has_weights(scale)]
    if missing:
        subprocess.run([sys.executable, "-c", MAKE_WEIGHTS, str(folder), *missing], check=True, cwd=ROOT)
    return {path.stem[-1] for path in folder.glob("ledetr_?.safetensors")}


def _has_weights(scale: str) -> bool:
    try:
        return find_weights(scale).is_file()
    except LeDetrError:
        return False


def made_clip() -> Path:
    """A 1080p30 clip made of the bundled one, once."""
    clip = ROOT / "out" / "clip_1080p30.mp4"
    if not clip.exists():
        words = [sys.executable, str(ROOT / "benchmarks/make_clip.py"), str(clip)]
        words += ["--width", "1920", "--height", "1080", "--fps", "30"]
        subprocess.run(words, check=True, stdout=sys.stderr)
    return clip


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
        "platform": QApplication.platformName() if QApplication.instance() else "",
        "versions": {
            "ledetr": ledetr.__version__,
            "python": platform.python_version(),
            "PySide6": PySide6.__version__,
            "av": av.__version__,
            "torch": version("torch"),
            "openvino": openvino.__version__,
        },
    }


def cpu_name() -> str:
    """As the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def tell(culprits: Culprits) -> None:
    """Where the thread was when it was late, the most frequent places first."""
    own = culprits.own_lateness_ms
    if own:
        print(
            f"a second thread of Python that sleeps 5 ms was late p99 {np.percentile(own, 99):.1f} ms, "
            f"longest {max(own):.1f} ms (the machine's share of it)",
            file=sys.stderr,
        )
    for place, count in culprits.places.most_common(25):
        print(f"{count:5d}  {place}", file=sys.stderr)


def missed_bars(found: dict[str, Any]) -> list[str]:
    """One sentence for each bar that was missed."""
    missed = []
    for phase in found["phases"]:
        if phase["p99_ms"] > P99_BAR_MS:
            missed.append(f"{phase['name']}: p99 {phase['p99_ms']:.1f} ms, allowed {P99_BAR_MS:.0f}")
        if phase["longest_ms"] > LONGEST_BAR_MS:
            missed.append(f"{phase['name']}: longest {phase['longest_ms']:.1f} ms, allowed {LONGEST_BAR_MS:.0f}")
    if found["most_pending_events"] > PENDING_BAR:
        missed.append(f"{found['most_pending_events']} frame events waited at once, allowed {PENDING_BAR}")
    return missed


def percentile(values: list[float], percent: float) -> float:
    """Of a list, as a plain number."""
    return float(np.percentile(values, percent))


def _row(phase: Phase) -> str:
    return (
        f"{phase.name:<30} {phase.seconds:7.1f} s  p50 {phase.p50_ms:5.1f}  p99 {phase.p99_ms:6.1f}  "
        f"longest {phase.longest_ms:6.1f} ms | alone p99 {phase.alone_p99_ms:6.1f}  longest "
        f"{phase.alone_longest_ms:6.1f} ms | work p99 {phase.work_p99_ms:5.1f}  longest {phase.work_longest_ms:5.1f} ms"
    )


def show(found: dict[str, Any]) -> None:
    """The table."""
    print(f"{found['date']}   {found['machine']}   load before {found['load_before']}")
    print(f"{found['system']}   {found['platform']}   N on {found['engine']}")
    print("  ".join(f"{name} {version}" for name, version in found["versions"].items()))
    for phase in found["phases"]:
        print(_row(Phase(**phase)))
    print("switched to:", ", ".join(f"{count} times {name}" for name, count in found["switched"].items()) or "nothing")
    print("torch was loaded by the window:", "yes" if found["torch_was_loaded"] else "no")
    memory = found["memory_mb"]
    print(f"memory: {memory[0]:.0f} MB at the beginning, {memory[-1]:.0f} MB at the end, at most {max(memory):.0f} MB")
    print(f"most frame events that waited at once: {found['most_pending_events']}")
    p50, p95 = found["live_age_p50_ms"], found["live_age_p95_ms"]
    if p50 is not None and p95 is not None:
        print(f"age of live pictures when painted: p50 {p50:.0f} ms, p95 {p95:.0f} ms")


def main() -> int:
    """Measure and print; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of playing on, for the memory (default: 10)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the first playing (default: 20)")
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--seeks", type=int, default=50)
    parser.add_argument("--source", type=Path, help="a video file (default: one of 1080p30 is made in out/)")
    parser.add_argument("--why", action="store_true", help="say where the thread was when it was late")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run(options)
    missed = found["missed"] = missed_bars(found)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
        print("\n".join(f"MISSED {sentence}" for sentence in missed) or "every bar is kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
