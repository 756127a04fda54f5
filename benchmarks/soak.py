"""A live chain for long: models that change, a source that is lost and comes back; nothing may grow.

    python -m benchmarks.soak --minutes 10
    python -m benchmarks.soak --minutes 60 --losses 12 --switches 60

A stream over a real socket on loopback goes through capture, tracking, the real (smallest) network and the results. As
in the window, the next model is loaded beside the running one and swapped in. The source is lost in turn by hanging up
and by falling silent. By default there is a switch a minute and a loss every five, at least two of each.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.good_files import picture, write_tiny_weights
from benchmarks.loopback import StreamServer, transport_stream
from ledetr.chain.pipeline import Pipeline, Restored, Stalled
from ledetr.chain.sources import parse_source
from ledetr.detector import Detector
from ledetr.tracking import Tracking

SIZE_WH, RATE = (320, 240), Fraction(12)
AWAY_S = 8.0  # how long the source stays away
MOST_MB_PER_HOUR, MOST_LOSS_S, MOST_BACK_S = 20.0, 6.0, 12.0
# Two samples of a process differ by so much without anything growing; below it a slope over minutes means nothing.
NOISE_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: seconds since the start, memory of this process alone, threads, open file handles."""

    at_s: float
    nbytes: int
    threads: int
    handles: int


@dataclass(slots=True)
class Record:
    """What was seen. lost_s, back_s: how long until a loss was shown, and until there was a picture again."""

    samples: list[Sample] = field(default_factory=list)
    lost_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    switches: int = 0
    results: int = 0
    unaccounted: int = 0
    age_p95_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table."""

    what: str
    seen: str
    allowed: str
    good: bool


def slope_mb_per_hour(samples: Sequence[Sample]) -> float:
    """How fast memory grows: the line through the samples after the first fifth, in which everything is warmed up."""
    after = [one for one in samples if one.at_s >= samples[-1].at_s / 5]
    line = np.polynomial.Polynomial.fit([one.at_s for one in after], [one.nbytes / 1e6 for one in after], 1)
    return float(line.convert().coef[1]) * 3600


def verdicts(record: Record) -> list[Verdict]:
    """The rows; memory passes where its slope is small, or where it rose by less than its own noise."""
    samples = record.samples
    slope = slope_mb_per_hour(samples)
    quarter = max(1, len(samples) // 5)
    rise = statistics.median(one.nbytes for one in samples[-quarter:]) - statistics.median(
        one.nbytes for one in samples[quarter : 2 * quarter]
    )

    def flat(name: str, values: Sequence[int]) -> Verdict:
        first = statistics.median(values[quarter : 2 * quarter])
        last = statistics.median(values[-quarter:])
        return Verdict(f"{name}, begin to end", f"{first:g} to {last:g}", "no more than at the begin", last <= first)

    def times(name: str, values: Sequence[float], most_s: float) -> Verdict:
        seen = ", ".join(f"{value:.1f}" for value in values) or "none"
        return Verdict(f"{name} (s)", seen, f"at most {most_s:g}", bool(values) and max(values) <= most_s)

    rate = f"slope {slope:.1f} MB/h, rise {rise / 1e6:.1f} MB"
    small = slope <= MOST_MB_PER_HOUR or rise <= NOISE_BYTES
    return [
        Verdict("memory", rate, f"at most {MOST_MB_PER_HOUR:g} MB/h, or {NOISE_BYTES / 1e6:g} MB in all", small),
        flat("threads", [one.threads for one in samples]),
        flat("file handles", [one.handles for one in samples]),
        times("loss shown after", record.lost_s, MOST_LOSS_S),
        times("picture back after return", record.back_s, MOST_BACK_S),
        Verdict("frames captured and not accounted for", str(record.unaccounted), "0", record.unaccounted == 0),
        Verdict("model switches done", str(record.switches), "1 or more", record.switches >= 1),
    ]


class Soak:
    """The chain, its server, and what is done to them."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._process = psutil.Process()
        self._events: list[tuple[float, Any]] = []
        self._results: list[float] = []
        self._count = 0
        self._server = StreamServer(_pieces)
        self._pipeline = Pipeline(self._load(), tracking=Tracking(), on_event=self._on_event, on_result=self._on_result)
        self.record = Record()

    def _load(self) -> Detector:
        return Detector.load(self._weights, backend="torch-cpu", threads=1)

    def _on_event(self, event: Any) -> None:
        self._events.append((time.monotonic(), event))

    def _on_result(self) -> None:
        self._count += 1
        self._results = [time.monotonic()]
        result = self._pipeline.latest()
        if result is not None:
            self._pipeline.painted(result)

    def run(self, seconds: float, *, switches: int, losses: int) -> Record:
        """From the first picture on; both are spread evenly."""
        self._pipeline.open(parse_source(self._server.url))
        self._wait(lambda: self._count > 3, 120)
        began_s = time.monotonic()
        plan = [((n + 0.5) / switches * seconds, self._switch) for n in range(switches)]
        plan += [((n + 0.5) / losses * seconds, self._lose) for n in range(losses)]
        waiting = sorted(plan, key=lambda row: row[0])
        while (at_s := time.monotonic() - began_s) < seconds or waiting:
            if waiting and at_s >= waiting[0][0]:
                waiting.pop(0)[1]()
            self._sample(began_s)
            time.sleep(1.0)
        self._finish()
        return self.record

    def _sample(self, began_s: float) -> None:
        # What was swapped out counts too: a system that takes pages away would else hide what grows.
        memory = self._process.memory_full_info()
        nbytes = memory.uss + getattr(memory, "swap", 0)
        at_s, threads = time.monotonic() - began_s, self._process.num_threads()
        self.record.samples.append(Sample(at_s, nbytes, threads, self._process.num_fds()))

    def _switch(self) -> None:
        """As the window does: load beside the running one, swap, and close the old one when no frame is in it."""
        self._pipeline.set_detector(self._load(), release=lambda old: old.close())
        self.record.switches += 1
        gc.collect()

    def _lose(self) -> None:
        """By turns the connection is cut, and nothing comes any more; then the source comes back at its address."""
        begin, port = len(self._events), self._server.port
        lost_s = time.monotonic()
        if len(self.record.lost_s) % 2:
            self._server.fall_silent()
        else:
            self._server.close()
        self._wait(lambda: any(isinstance(event, Stalled) for _, event in self._events[begin:]), 60)
        shown_s = next(at for at, event in self._events[begin:] if isinstance(event, Stalled))
        self.record.lost_s.append(shown_s - lost_s)
        self._server.close()
        time.sleep(AWAY_S)
        self._server = StreamServer(_pieces, port=port)
        back_s = time.monotonic()
        self._wait(lambda: any(isinstance(event, Restored) for _, event in self._events[begin:]), 120)
        count = self._count
        self._wait(lambda: self._count > count, 60)
        self.record.back_s.append(self._results[-1] - back_s)

    def _wait(self, condition: Any, most_s: float) -> None:
        end = time.monotonic() + most_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("what was waited for never came")
            time.sleep(0.01)

    def _finish(self) -> None:
        self.record.age_p95_ms = self._pipeline.meters.snapshot().age_p95_ms
        self._pipeline.stop()
        meters = self._pipeline.meters.snapshot()
        known = meters.published + meters.dropped_before_inference + meters.discarded
        self.record.unaccounted = meters.captured - known
        self.record.results = self._count
        self._pipeline.close()
        self._server.close()


def _pieces() -> Iterator[bytes]:
    return transport_stream(lambda number: picture(SIZE_WH, number), rate=RATE, paced=True)


def main() -> int:
    """Exit code 1 where something grew or took too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--switches", type=int, help="models in all; by default one a minute")
    parser.add_argument("--samples", type=Path, metavar="CSV", help="write each second's memory, threads and handles")
    parser.add_argument("--losses", type=int, help="of the source, in all; by default one every five minutes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    switches = args.switches if args.switches is not None else max(2, round(args.minutes))
    losses = args.losses if args.losses is not None else max(2, round(args.minutes / 5))
    with tempfile.TemporaryDirectory() as folder:
        weights = write_tiny_weights(Path(folder) / "tiny.safetensors")
        record = Soak(weights).run(60 * args.minutes, switches=switches, losses=losses)
    if args.samples is not None:
        lines = [f"{one.at_s:.1f},{one.nbytes},{one.threads},{one.handles}" for one in record.samples]
        args.samples.write_text("\n".join(["at_s,nbytes,threads,handles", *lines]) + "\n", encoding="utf-8")
    rows = verdicts(record)
    print("| measure | seen | allowed | verdict |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.what} | {row.seen} | {row.allowed} | {'pass' if row.good else 'FAIL'} |")
    age = "-" if record.age_p95_ms is None else f"{record.age_p95_ms:.0f} ms"
    print(f"\n{args.minutes:g} minutes, {record.results} pictures shown, age p95 at the end {age}.")
    left = [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("capture", "inference", "source"))
    ]
    print(f"Threads of the chain that are left: {', '.join(left) or 'none'}.")
    return 0 if all(row.good for row in rows) and not left else 1


if __name__ == "__main__":
    sys.exit(main())
