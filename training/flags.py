"""Words of the command line that every training command takes, with the same meaning."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from training.config import OptimiserConfig
from training.loop import Precision


def add_run_flags(parser: argparse.ArgumentParser, *, product: str, default_folder: str) -> None:
    """Length, rates, device and processes of a run. product: what is written at the end, for the help."""
    add = parser.add_argument
    add("-o", "--output", type=Path, help=f"folder of the run (default {default_folder})")
    add("--epochs", type=float, help="passes over the data, instead of the recipe's")
    add("--steps", type=int, help="steps of the optimiser, instead of epochs")
    add("--batch", type=int, help="pictures of one step, over all processes; the rate follows as the recipe says")
    add("--lr-scale", type=float, default=1.0, help="multiply the recipe's rates")
    add("--seed", type=int, help="of everything that is drawn (default 0)")
    add("--minutes", type=float, default=math.inf, help="stop and save after so long")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=get_args(Precision), help="default: bf16 on a GPU, fp32 on a CPU")
    add("--processes", type=int, default=1, help="training processes, one GPU each")
    add("--workers", type=int, help="processes that make pictures ready, for each training process")
    add("--threads", type=int, help="CPU threads of each training process")
    add("--log-every", type=int, default=50, help="steps between two lines of log.jsonl (default 50)")
    add("--export", action="store_true", help=f"train no more; write the {product} from the checkpoints so far")
    add("-q", "--quiet", action="store_true", help=f"say nothing but the path of the {product}")
    add("--debug", action="store_true", help="show the traceback of an error")


def refuse_low_numbers(parser: argparse.ArgumentParser, args: argparse.Namespace, more_counts: Sequence[str]) -> None:
    """Leave with a sentence where a count is below 1, or a rate or length is not above 0. more_counts: own options."""
    counts = ("steps", "batch", "processes", "threads", "log-every", *more_counts)
    given = {word: getattr(args, word.replace("-", "_")) for word in counts}
    low = next((f"--{word}" for word, value in given.items() if value is not None and value < 1), None)
    if low is not None or args.lr_scale <= 0 or (args.epochs is not None and args.epochs <= 0):
        parser.error(f"{low or '--lr-scale and --epochs'} must be above 0")


def scaled(rates: OptimiserConfig, factor: float) -> OptimiserConfig:
    """Both rates multiplied (--lr-scale)."""
    return replace(rates, lr=rates.lr * factor, backbone_lr=rates.backbone_lr * factor)
