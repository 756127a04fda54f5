"""Networks are converted for OpenVINO by a process of its own, so that the window never waits for Python's lock.

Converting goes through torch: its import, its tracer and the converter hold the lock of Python for seconds in all, and
the window's thread needs that lock for every picture. With the copy in the cache, loading is C++ that does not.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from ledetr.backends import ready_backends, source_of_weights
from ledetr.detector import Detector
from ledetr.errors import LeDetrError
from ledetr.weights_file import find_weights, read_info
from ledetr_app.handed import WEIGHTS_SUFFIXES
from ledetr_app.model_loader import ModelWish

log = logging.getLogger("ledetr_app")

LIMIT_S = 900.0
_NICE = 5


def convert_elsewhere(wish: ModelWish) -> None:
    """Return when a converted copy is in the cache, or where none is needed, or none can be made.

    The other process says nothing to the user: what stands in the way stands in the way of loading too, which says it.
    Raises WeightsError where the weights are not there or damaged.
    """
    if not needs_conversion(wish):
        return
    words = [sys.executable, "-m", "ledetr_app.conversion", wish.choice]
    words += [] if wish.decoder_layers is None else [str(wish.decoder_layers)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s is converted in the window's own process: %s", wish.choice, error)
        return
    if done.returncode != 0:
        log.warning("%s is converted in the window's own process: %s", wish.choice, done.stderr.strip()[-500:])


def needs_conversion(wish: ModelWish) -> bool:
    """Whether loading would convert the network: OpenVINO is the engine, and its copy is not kept yet."""
    if Path(wish.choice).suffix.lower() in WEIGHTS_SUFFIXES[1:] or wish.device.startswith("cuda"):
        return False
    ready = ready_backends()
    if ready["openvino"] is not None or (wish.device == "auto" and ready["torch-cuda"] is None):
        return False
    from ledetr.backends.openvino_runtime import is_converted

    path = find_weights(wish.choice)
    info = read_info(path)
    return not is_converted(source_of_weights(path, info, info.input_hw, wish.decoder_layers))


def main(argv: list[str]) -> int:
    """In the other process: load once, which leaves the copy in the cache."""
    if hasattr(os, "nice"):
        os.nice(_NICE)  # the picture on the screen comes first
    layers = int(argv[1]) if len(argv) > 1 else None
    try:
        Detector.load(argv[0], backend="openvino", decoder_layers=layers).close()
    except LeDetrError as error:
        print(error, file=sys.stderr)  # noqa: T201 - read by the process that asked
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
