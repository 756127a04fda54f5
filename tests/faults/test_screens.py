"""F23: the window is moved to a screen of another scale while it plays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCREEN = {"y": 0, "width": 1600, "height": 1200, "logicalBaseDpi": 96, "dpr": 1}
SCREENS = [
    {**SCREEN, "name": "coarse", "x": 0, "logicalDpi": 96},
    {**SCREEN, "name": "fine", "x": 1600, "logicalDpi": 192},
]


@pytest.mark.timeout(180)
def test_moved_to_a_finer_screen_and_back_while_it_plays(tmp_path: Path) -> None:
    program, screens = Path(__file__).with_name("moving_window.py"), tmp_path / "screens.json"
    screens.write_text(json.dumps({"screens": SCREENS}))
    environment = {**os.environ, "QT_QPA_PLATFORM": f"offscreen:configfile={screens}"}
    environment.pop("QT_QPA_PLATFORMTHEME", None)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True, text=True, timeout=150, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["problems"] == [] and seen["left"] == [] and "Traceback" not in done.stderr
    assert [look["ratio"] for look in seen["looks"]] == [1.0, 2.0, 1.0, 2.0, 1.0]
    coarse, fine = seen["looks"][0], seen["looks"][1]
    assert [2 * side for side in coarse["seen"]] == fine["seen"]
    for look in seen["looks"]:
        assert look["picture"] == pytest.approx(look["room"], abs=1)  # made for this very screen
        assert look["equal"] > 0.9  # and painted pixel by pixel
        assert look["blocks of four differ"] > 0.05, "the text is stretched"
