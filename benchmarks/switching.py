"""N, M, L, X and back, again and again: memory ends where it began, and the first boxes come soon after a load.

    python benchmarks/switching.py --rounds 20 --imgsz 160 --json out/switching.json

M, L and X have random weights, saved to a temporary folder; converted networks are kept in a temporary cache, which the
first round fills. Memory is the resident set of this process after each round. Exits with 1 where it grew by more than
five percent since the second round, or where a first detection from the warm cache took more than three seconds.
"""

import argparse
import gc
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ledetr.backends import random_network
from ledetr.cli.bench import describe_machine, describe_versions
from ledetr.detector import Detector
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import VARIANTS
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo

MOST_GROWTH = 0.05
MOST_SECONDS = 3.0


def save_random(folder: Path, scale: str) -> Path:
    """A weights file of a scale that has learnt nothing."""
    config = VARIANTS[scale]()
    info = WeightsInfo(
        name=scale, config=config, class_names=COCO_NAMES, category_ids=COCO_CATEGORY_IDS, input_hw=config.input_hw,
        trained_on="nothing: random weights",
    )  # fmt: skip
    path = folder / f"ledetr_{scale}.safetensors"
    save_weights(path, random_network(config), info)
    return path


def rounds_of(models: Sequence[str | Path], rounds: int, imgsz: int, **options: Any) -> list[dict[str, float]]:
    """Memory in MiB after each round over the models, there and back, and the slowest first detection in seconds."""
    picture = np.random.default_rng(0).integers(0, 256, (imgsz, imgsz, 3), dtype=np.uint8)
    process, rows = psutil.Process(), []
    for number in range(rounds):
        slowest_s = 0.0
        for model in [*models, *reversed(models[1:-1])]:
            start = time.perf_counter()
            with Detector.load(model, imgsz=imgsz, **options) as detector:
                detector.detect_frame(picture)
                slowest_s = max(slowest_s, time.perf_counter() - start)
        gc.collect()
        rows.append({"round": number + 1, "mib": process.memory_info().rss / 2**20, "first_boxes_s": slowest_s})
    return rows


def growth(rows: Sequence[dict[str, float]]) -> float:
    """Share by which memory grew from the second round (the first fills the cache and loads the engines) to the end."""
    return rows[-1]["mib"] / rows[min(1, len(rows) - 1)]["mib"] - 1


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # read by platformdirs when the cache is asked for
        models = ["n", *(save_random(Path(folder), scale) for scale in ("m", "l", "x"))]
        rows = rounds_of(models, args.rounds, args.imgsz, backend=args.backend)
    for row in rows:
        print(f"round {row['round']:2}: {row['mib']:7.1f} MiB, first boxes after {row['first_boxes_s']:.2f} s at most")
    slowest_s = max(row["first_boxes_s"] for row in rows[1:] or rows)
    passes = growth(rows) <= MOST_GROWTH and slowest_s <= MOST_SECONDS
    print(f"memory {growth(rows):+.1%} since the second round, first boxes within {slowest_s:.2f} s of a warm load")
    if args.json is not None:
        document = {"command": shlex.join(["python", *sys.argv]), "machine": describe_machine()}
        document |= {"versions": describe_versions(), "rounds": rows, "growth": growth(rows), "passes": passes}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if passes else 1


if __name__ == "__main__":
    sys.exit(main())
