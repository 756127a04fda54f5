"""How long the window takes to be there: from the start of the process to the window, the first picture, first boxes.

    python benchmarks/window_start.py --runs 5
    QT_QPA_PLATFORM=offscreen python benchmarks/window_start.py        (where there is no display)

Each run is a new process that opens the bundled clip with scale N, as `make run` does; the first one may find a cold
cache and is printed apart. Printed: seconds after the process began, one line a run, then the medians of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "assets" / "sample.mp4"
MARKS = ("window", "picture", "boxes")
GIVE_UP_S = 120.0


def watch(begin_s: float, source: str) -> None:
    """In the child: run the application, print a JSON object of seconds since begin_s, and close it."""
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    from ledetr_app.session import Session
    from ledetr_app.ui.application import show_window

    session, seen = Session(), {}
    timer = QTimer()

    def look() -> None:
        now_s = time.time() - begin_s
        result = session.latest()
        if any(widget.isVisible() for widget in QApplication.topLevelWidgets()):
            seen.setdefault("window", now_s)
        if result is not None and result.timings.painted_ns:
            seen.setdefault("picture", now_s)
            if len(result.detections):
                seen.setdefault("boxes", now_s)
        if len(seen) == len(MARKS) or now_s > GIVE_UP_S:
            timer.stop()
            for widget in QApplication.topLevelWidgets():
                widget.close()

    def begin() -> None:
        timer.timeout.connect(look)
        timer.start(2)
        session.start(model="n", source=source)

    show_window(session, begin=begin)
    session.close()
    print(json.dumps(seen), flush=True)


def one_run(source: Path) -> dict[str, float]:
    """Seconds of one start; an error where the window never came so far."""
    words = [sys.executable, str(Path(__file__).resolve()), "--child", repr(time.time()), "--source", str(source)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=GIVE_UP_S + 30, env=dict(os.environ))
    if done.returncode != 0:
        raise SystemExit(f"the window ended with {done.returncode}: {done.stderr.strip()}")
    seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    missing = [mark for mark in MARKS if mark not in seen]
    if missing:
        raise SystemExit(f"never seen in {GIVE_UP_S:.0f} s: {', '.join(missing)}")
    return seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, default=SAMPLE)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        watch(args.child, str(args.source))
        return
    first, *others = [one_run(args.source) for _ in range(args.runs + 1)]
    for label, seen in (("first", first), *((f"run {i}", seen) for i, seen in enumerate(others, 1))):
        print(label, "  ".join(f"{mark} {seen[mark]:.2f} s" for mark in MARKS))
    print("median of the others", "  ".join(f"{mark} {median(s[mark] for s in others):.2f} s" for mark in MARKS))


if __name__ == "__main__":
    main()
