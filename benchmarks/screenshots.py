"""Pictures of the real window in the states that people meet, taken by a program: to be looked at, and for the README.

    QT_QPA_PLATFORM=offscreen python benchmarks/screenshots.py out/screenshots
    QT_QPA_PLATFORM=offscreen python benchmarks/screenshots.py out/screenshots --only light dark zones

The window plays the bundled clip with scale N and its real weights; nothing is drawn into the pictures. Each scale
factor of the screen is a process of its own, as Qt reads it once.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from driven_window import LOAD_LIMIT_S, OPEN_LIMIT_S, DrivenWindow

from ledetr.zones import Line, Zone, ZonePlan
from ledetr_app.export_job import ExportJob, Status
from ledetr_app.model_loader import ModelWish

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "assets" / "sample.mp4"
AT_S = 2.6
STREET_S = 4.8
ZONES_S = 30.0
SETTLES_S = 11.0  # after which the meters speak of a held picture, not of the way to it
SCAN_LIMIT_S = 240.0
TRIES = 3
DOUBLE = "double"  # the scene at twice the pixels
DEAD = "rtsp://127.0.0.1:9/entrance"

Scene = Callable[[DrivenWindow], None]


def first_run(driven: DrivenWindow) -> None:
    """Nothing is open."""
    driven.live(0.5)


def playing(driven: DrivenWindow) -> None:
    """A held picture with boxes, the list of classes beside it, and the heat bar as far as it is scanned by then."""
    _hold(driven)
    driven.session.heat.toggle_scan()
    driven.wait(lambda: not driven.session.heat.scanning, SCAN_LIMIT_S, must=False)
    driven.session.set_side_panel(True)


def small(driven: DrivenWindow) -> None:
    """The smallest window."""
    _hold(driven)
    driven.window.resize(960, 600)


def fullscreen(driven: DrivenWindow) -> None:
    """The picture alone."""
    _hold(driven)
    driven.window.toggle_fullscreen()


def numbers(driven: DrivenWindow) -> None:
    """While it plays, with the meters over the picture."""
    driven.open("test:720p30")
    driven.session.set_stats(True)
    driven.live(12)


def error_bar(driven: DrivenWindow) -> None:
    """An address that nobody answers."""
    driven.session.open_source(DEAD)
    driven.wait(lambda: driven.session.state.problem, OPEN_LIMIT_S)
    driven.window.errors.details_button.click()


def queue(driven: DrivenWindow) -> None:
    """Several files, played in turn."""
    folder = Path(tempfile.mkdtemp())
    names = ["entrance north.mp4", "entrance south.mp4", "car park.mp4", "loading bay.mp4"]
    for name in names:
        (folder / name).symlink_to(SAMPLE)
    driven.session.open_files([str(folder / name) for name in names])
    driven.wait(lambda: driven.session.shown, OPEN_LIMIT_S)
    driven.hold_at(AT_S)


def exports(driven: DrivenWindow) -> None:
    """One is being done, one is done, one is broken, others wait."""
    _hold(driven)
    folder, queue = Path(tempfile.mkdtemp()), driven.session.exporting.queue
    for name in ("entrance north.mp4", "entrance south.mp4", "car park.mp4"):
        (folder / name).symlink_to(SAMPLE)
    (folder / "phone.mp4").write_bytes(b"cut off")
    job = ExportJob(source="", model=ModelWish("n"), outputs=("video", "csv"), folder=str(folder / "results"))
    short = replace(job, source=str(folder / "entrance north.mp4"), end_s=0.5)
    others = [replace(job, source=str(folder / name)) for name in ("phone.mp4", "entrance south.mp4", "car park.mp4")]
    queue.add([short, *others])
    driven.session.exporting.set_folder("/srv/Videos/Le-DETR")  # only its name is shown
    driven.session.exporting.set_shown(True)

    def far_enough() -> bool:
        row = queue.state.running
        return queue.state.count(Status.FAILED) == 1 and row is not None and (row.part or 0) > 0.3

    driven.wait(far_enough, 600)
    queue.set_paused(True)
    driven.live(1)


def zones(driven: DrivenWindow) -> None:
    """A zone and a line that count."""
    _play_the_street(driven)
    path = ((0.05, 0.45), (0.55, 0.35), (0.62, 0.75), (0.1, 0.95))
    plan = ZonePlan(zones=(Zone("path", path),), lines=(Line("gate", (0.62, 0.25), (0.7, 0.95)),))
    driven.session.tracks.set_tracking(True)
    driven.session.store.change(zones=plan)
    driven.session.zones.set_panel(True)
    driven.live(ZONES_S)
    driven.session.pause()


def results(driven: DrivenWindow) -> None:
    """The table of what was found."""
    _play_the_street(driven)
    driven.session.results.set_panel(True)
    driven.wait(lambda: driven.session.shown and driven.session.shown.frame.meta.pts_s > AT_S, OPEN_LIMIT_S)
    driven.session.pause()
    driven.live(1)


def compare(driven: DrivenWindow) -> None:
    """Two thresholds of what a model knows: N with all its decoder layers, and with one."""
    _hold(driven)
    driven.session.compare.with_model(ModelWish("n", decoder_layers=1))
    driven.wait(lambda: driven.session.compare.of(driven.session.shown), LOAD_LIMIT_S)
    driven.live(0.5)


def _play_the_street(driven: DrivenWindow) -> None:
    """Slowly and again and again, so that a busy machine too sees enough of it."""
    driven.open(SAMPLE)
    driven.session.set_speed(0.25)
    driven.session.set_out(STREET_S)


def _hold(driven: DrivenWindow) -> None:
    driven.open(SAMPLE)
    driven.hold_at(AT_S)


# Name of the picture: scene, colours.
SCENES: dict[str, tuple[Scene, str]] = {
    "first_run": (first_run, "light"),
    "light": (playing, "light"),
    "dark": (playing, "dark"),
    DOUBLE: (playing, "light"),
    "small": (small, "dark"),
    "fullscreen": (fullscreen, "dark"),
    "numbers": (numbers, "dark"),
    "error_bar": (error_bar, "light"),
    "queue": (queue, "light"),
    "exports": (exports, "light"),
    "zones": (zones, "light"),
    "results": (results, "dark"),
    "compare": (compare, "dark"),
}


def take(names: list[str], folder: Path) -> None:
    """In this process: one window after the other. On a busy machine a scene may miss a deadline, and is tried anew."""
    for name in names:
        for tries_left in reversed(range(TRIES)):
            scene, theme = SCENES[name]
            driven = DrivenWindow(theme=theme)
            try:
                driven.use("n")
                scene(driven)
                driven.live(SETTLES_S)
                driven.window.grab().save(str(folder / f"{name}.png"))
            except SystemExit as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                if not tries_left:
                    raise
            else:
                print(folder / f"{name}.png", flush=True)
                break
            finally:
                driven.close()


def main() -> None:
    """All pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.here:
        take(options.only, options.folder)
        return
    single = [name for name in options.only if name != DOUBLE]
    for names, scale in ((single, "1"), ([DOUBLE] if DOUBLE in options.only else [], "2")):
        if names:
            words = [sys.executable, __file__, str(options.folder), "--here", "--only", *names]
            subprocess.run(words, check=True, env={**os.environ, "QT_SCALE_FACTOR": scale})


if __name__ == "__main__":
    main()
