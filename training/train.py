"""Train or fine-tune a detector on a data set of any of the formats.

    python -m training.train DATA -o RUN [--val VAL] [--recipe finetune] [--model n] [--minutes 60]

The same command goes on where the run was stopped, by Ctrl-C, by time or by a power cut. The weights file that it
writes into RUN at the end opens in `ledetr detect -m` and in the window.
"""

import argparse
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar, get_args

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from ledetr.errors import BackendUnavailable, Interrupted, LeDetrError, OutputError, SourceError, UsageError
from ledetr.evaluation import score
from ledetr.files import whole_file
from ledetr.model.config import VARIANTS, ModelConfig
from ledetr.weights import find_weights, read_info
from ledetr.weights_info import MAX_INPUT_SIDE, WeightsInfo
from training import edge
from training.backbone_file import read_backbone_info
from training.check_data import check, cleaned, print_report, write_sheet
from training.checkpoint import Checkpoints
from training.config import TrainConfig
from training.data.dataset import Dataset
from training.data.read import read_dataset, read_splits
from training.distributed import Team
from training.judge import coco_set_of, detect_pictures
from training.loop import Job, Outcome, Precision, Run, best_model, in_vain, train
from training.recipes import RECIPES, recipe_for
from training.release import best_f1, write_measured

LOOKED_THROUGH = 20_000
"""Pictures that are decoded before the first step; more would take minutes."""
FEW_TO_JUDGE = 20
FEW_PICTURES = 8
"""A batch smaller than this has no batch statistics worth learning from."""


def prepared_data(args: argparse.Namespace, queries: int) -> tuple[Dataset, Dataset]:
    """(train, tune), checked: errors stop, warnings are said and worked around. The report lies in the run's folder."""
    train_set, tune = few_by_heart(args) if args.overfit else read_splits(args.data, args.val, args.images)
    again = (args.output / "check.json").is_file()
    deep = not again and len(train_set.pictures) <= LOOKED_THROUGH
    report = check(
        train_set, val=None if args.overfit else tune, input_px=args.imgsz or 640, queries=queries, deep=deep
    )
    if args.dry_run:
        print_report(report)
    elif not again:
        with whole_file(args.output / "check.json") as part:
            part.write_text(json.dumps(report.to_json(), indent=1))
        write_sheet(train_set, args.output / "contact_sheet.png")
    replace(train_set, problems=report.problems).raise_errors()
    tune_report = check(tune, queries=queries, deep=False)
    replace(tune, problems=tune_report.problems).raise_errors()
    warnings = [problem.text for problem in report.problems if problem.level == "warning"]
    for text in warnings[:5]:
        _say(args, f"warning: {text}")
    if len(warnings) > 5:
        where = "above" if args.dry_run else f"in {args.output / 'check.json'}"
        _say(args, f"... and {len(warnings) - 5} more {where}")
    median, most_95, most = report.objects_per_picture
    _say(
        args,
        f"{report.pictures} pictures to learn from, {len(tune.pictures)} to judge by; {report.boxes} boxes; objects in "
        f"a picture: median {median}, 95 % at most {most_95}, most {most}",
    )
    if len(tune.pictures) < FEW_TO_JUDGE:
        _say(args, f"warning: {len(tune.pictures)} pictures are few to judge by; the figures will be rough")
    return cleaned(train_set)[0], cleaned(tune)[0]


def few_by_heart(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """(train, tune), the same: the first few pictures with objects."""
    data = read_dataset(args.data, args.images)
    few = tuple([picture for picture in data.pictures if (~picture.crowd).any()][: args.overfit])
    if not few:
        raise SourceError(f"{str(args.data)!r} has no picture with objects to learn by heart")
    return replace(data, pictures=few), replace(data, pictures=few, problems=())


def network(args: argparse.Namespace) -> tuple[ModelConfig, Path | None, WeightsInfo | None]:
    """Config of the network (classes not yet those of the data), weights to start from, and what they say."""
    if args.random_weights or args.imagenet_trunk or args.backbone is not None:
        if args.model not in VARIANTS:
            raise UsageError(f"random weights are for a scale ({', '.join(VARIANTS)}), not for {args.model!r}")
        return _sized(VARIANTS[args.model](), args.imgsz), None, None
    path = find_weights(args.model)
    info = read_info(path)
    return _sized(info.config, args.imgsz), path, info


def _sized(model: ModelConfig, side: int | None) -> ModelConfig:
    if side is None:
        return model
    if side % 32 or not 32 <= side <= MAX_INPUT_SIDE:
        raise UsageError(f"--imgsz must be a multiple of 32 in 32..{MAX_INPUT_SIDE}, got {side}")
    return replace(model, input_hw=(side, side))


def config_of(args: argparse.Namespace, scale: str, fine: bool) -> TrainConfig:
    """The recipe with what the command line changes."""
    config = recipe_for(args.recipe, scale)
    if args.batch is not None:
        config = replace(config, batch=args.batch)
    if args.evaluations is not None:
        config = replace(config, evaluations=args.evaluations)
    if args.epochs is not None:
        config = replace(config, epochs=args.epochs, least_steps=1)
    if args.seed is not None:
        config = replace(config, seed=args.seed)
    if args.lr_scale != 1:
        rates = config.optimiser
        scaled = replace(rates, lr=rates.lr * args.lr_scale, backbone_lr=rates.backbone_lr * args.lr_scale)
        config = replace(config, optimiser=scaled)
    at_once = config.batch // args.accumulate
    if fine and at_once < FEW_PICTURES and not config.freeze_backbone_norms:
        what = f"batch {config.batch}" + (f" in {args.accumulate} parts" if args.accumulate > 1 else "")
        _say(args, f"{what} is below {FEW_PICTURES}: the trunk keeps its batch statistics")
        config = replace(config, freeze_backbone_norms=True)
    return config


def job_of(args: argparse.Namespace) -> tuple[Job, WeightsInfo | None]:
    """The whole run that a command line asks for."""
    model, start, info = network(args)
    if not args.dry_run:
        make_folder(args.output)
    data, tune = prepared_data(args, model.decoder.queries)
    config = config_of(args, info.name if info else args.model, fine=start is not None)
    processes = int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else args.processes
    if config.batch % processes:
        raise UsageError(f"a batch of {config.batch} cannot be dealt out evenly to {processes} processes")
    if config.batch // processes % args.accumulate:
        each = config.batch // processes
        raise UsageError(
            f"the {each} pictures of a process cannot be parted evenly into {args.accumulate} (--accumulate)"
        )
    device = device_named(args.device)
    job = Job(
        folder=args.output,
        config=config,
        model=model.with_classes(len(data.class_names)),
        train=data,
        tune=tune,
        total=args.steps or config.steps(len(data.pictures)),
        start=start,
        imagenet_trunk=args.imagenet_trunk,
        backbone=args.backbone,
        device=device,
        precision=args.precision or ("bf16" if device == "cuda" else "fp32"),
        processes=args.processes,
        workers=workers_for(args.workers, device, args.processes),
        threads=args.threads,
        minutes=args.minutes,
        accumulate=args.accumulate,
        patience=args.patience,
        log_every=args.log_every,
        quiet=args.quiet,
    )
    return job, info


def make_folder(folder: Path) -> None:
    """The run's folder and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the run's folder {str(folder)!r} cannot be made: {error.strerror}") from error


def device_named(asked: str) -> str:
    """The device to train on; BackendUnavailable rather than another one."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("--device cuda was asked for, but torch finds no CUDA device; ledetr doctor says why")
    return asked


def workers_for(asked: int | None, device: str, processes: int) -> int:
    """On a CPU the training itself needs the cores; beside a GPU they are free."""
    if asked is not None:
        return asked
    return max(1, min(16, (os.cpu_count() or 2) - 1) // processes) if device == "cuda" else 0


class Dealt(Protocol):
    """What a run must say so that it can be dealt out to processes."""

    @property
    def folder(self) -> Path: ...
    @property
    def processes(self) -> int: ...
    @property
    def total(self) -> int: ...


AnyJob = TypeVar("AnyJob", bound=Dealt)


def run(job: AnyJob, work: Callable[[int, AnyJob], Outcome]) -> Outcome:
    """All processes of the run, each doing its work, to its end or to its interruption."""
    (job.folder / "meeting").unlink(missing_ok=True)
    if job.processes == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return work(0, job)
    context = spawn(work, (job,), job.processes, join=False)
    assert context is not None
    interrupted = False

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if number == signal.SIGTERM:  # Ctrl-C reaches the whole group by itself
            for process in context.processes:
                process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not context.join():
            pass
    except ProcessRaisedException as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        raise LeDetrError(last.split(": ", 1)[-1]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    last_checkpoint = Checkpoints(job.folder / "checkpoints").last()
    step = last_checkpoint.step if last_checkpoint else 0
    return Outcome(step=step, total=job.total, interrupted=interrupted)


def finish(job: Job, info: WeightsInfo | None, words: Sequence[str]) -> Path:
    """The best average of the run as a weights file with threshold, figures and card."""
    model, step = best_model(job)
    scale = info.name if info else job.model.name
    target = job.folder / f"ledetr_{scale}.safetensors"
    data = coco_set_of(job.tune)
    rows = detect_pictures(model.to(job.device), job.tune, device=job.device)
    scores = score(data, rows)
    name = Path(job.train.name).name
    note = (
        f"Box AP on {scores.pictures} pictures ({scores.boxes} boxes) that were set aside from `{name}`; 95 % interval "
        "by bootstrap over pictures. The checkpoint and the threshold were chosen on the same pictures, so these "
        "figures flatter a little: judge by pictures that were never used with `ledetr eval`."
    )
    if job.config.recipe == "overfit":
        note = "The pictures it was judged by are the ones it learnt by heart; nothing follows for any other picture."
    started = "random values"
    if info is not None:
        started = (
            f"{info.path.name if info.path else scale} ({info.sha256[:16]}), which started from {info.started_from}"
        )
    elif job.backbone is not None:
        trunk = read_backbone_info(job.backbone)
        started = (
            f"{job.backbone.name} ({trunk.trained_on}; {trunk.started_from}) for the trunk, random values elsewhere"
        )
    elif job.imagenet_trunk:
        started = "EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) for the trunk, random values elsewhere"
    new = WeightsInfo(
        name=scale,
        config=model.config,
        class_names=job.train.class_names,
        category_ids=job.train.category_ids,
        input_hw=model.config.input_hw,
        trained_on=one_line(f"{len(job.train.pictures)} pictures of {name}, step {step} of {job.total}"),
        command=one_line("ledetr train " + shlex.join(words)),
        started_from=one_line(started),
        licence=info.licence if info else "",
    )
    table = ((f"{new.input_hw[0]} px (default)", scores),)
    write_measured(
        model.cpu(), new, target, table, best_f1(data, rows), measured_on=one_line(f"tune split of {name}"), note=note
    )
    return target


def one_line(text: str) -> str:
    """Printable and not too long, as the file's metadata must be."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:5000]


def _say(args: argparse.Namespace, text: str) -> None:
    if args.dry_run:
        print(text)
    elif not args.quiet:
        print(text, file=sys.stderr, flush=True)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ledetr train",
        description="Train or fine-tune on your own pictures; once more goes on after a stop.",
    )
    add = parser.add_argument
    add("data", type=Path, help="a COCO .json, a YOLO data.yaml, a Pascal VOC folder, or a .csv")
    add("--val", type=Path, help="data set to judge by; default: its val split, or about every 11th picture")
    add("--images", type=Path, help="folder of the pictures, where it is not the usual one")
    add("-o", "--output", type=Path, help="folder of the run (default runs/NAME)")
    add("-m", "--model", default="n", help="scale or weights file to start from (default n)")
    add("--random-weights", action="store_true", help="start a scale from random values")
    add("--imagenet-trunk", action="store_true", help="start N from random values with an ImageNet trunk")
    add("--backbone", type=Path, help="start a scale from random values with this trunk, from training.pretrain")
    add("--recipe", help=f"{', '.join(RECIPES)} (default finetune, with --overfit overfit)")
    add("--overfit", type=int, metavar="N", help="learn the first N pictures with objects by heart and judge by them")
    add("--epochs", type=float, help="passes over the data, instead of the recipe's")
    add("--steps", type=int, help="steps of the optimiser, instead of epochs")
    add("--batch", type=int, help="pictures of one step, over all processes; the rate follows its root")
    add("--accumulate", type=int, default=1, metavar="K", help="make each step in K parts, which takes less memory")
    add("--evaluations", type=int, help="how often the set to judge by is judged, instead of the recipe's")
    add("--patience", type=int, metavar="K", help="end when K of these in a row found nothing better")
    add("--lr-scale", type=float, default=1.0, help="multiply the recipe's rates")
    add("--imgsz", type=int, help="side of the network input; a multiple of 32 (default: the model's)")
    add("--seed", type=int, help="of everything that is drawn (default 0)")
    add("--minutes", type=float, default=math.inf, help="stop and save after so long")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=get_args(Precision), help="default: bf16 on a GPU, fp32 on a CPU")
    add("--processes", type=int, default=1, help="training processes, one GPU each")
    add("--workers", type=int, help="processes that make pictures ready, for each training process")
    add("--threads", type=int, help="CPU threads of each training process")
    add("--log-every", type=int, default=50, help="steps between two lines of log.jsonl (default 50)")
    add("--dry-run", action="store_true", help="say what would be done and end; nothing is written")
    add("--export", action="store_true", help="train no more; write the weights from the best checkpoint so far")
    add("-q", "--quiet", action="store_true", help="say nothing but the path of the weights")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(words)
    if args.backbone is not None and args.imagenet_trunk:
        parser.error("--backbone and --imagenet-trunk both give the trunk; name one")
    counts = ("steps", "batch", "processes", "log-every", "accumulate", "evaluations", "patience", "overfit")
    given = {word: getattr(args, word.replace("-", "_")) for word in counts}
    low = next((f"--{word}" for word, value in given.items() if value is not None and value < 1), None)
    if low is not None or args.lr_scale <= 0 or (args.epochs or 1) <= 0:
        parser.error(f"{low or '--lr-scale and --epochs'} must be above 0")
    if args.recipe is None:
        args.recipe = "overfit" if args.overfit else "finetune"
    if args.output is None:
        args.output = Path("runs") / (args.data.stem or args.data.resolve().name or "run")
    return args


def main(words: Sequence[str] | None = None) -> None:
    """Check, train, measure, write."""
    words = sys.argv[1:] if words is None else words
    args = parse_arguments(words)
    job, info = job_of(args)
    if args.dry_run:
        introduce(args, job)
        return
    if not args.export:
        if job.processes == 1 and not args.quiet:
            introduce(args, job)
        outcome = run(job, train)
        if not outcome.ended and not in_vain(job, outcome.step):
            text = f"stopped at step {outcome.step} of {outcome.total}; the same command goes on from there"
            if outcome.interrupted:
                raise Interrupted(text)
            _say(args, text)
            return
    if int(os.environ.get("RANK", "0")) == 0:
        print(finish(job, info, words))


def introduce(args: argparse.Namespace, job: Job) -> None:
    """What the run will be: every value of the recipe, classes kept and new, groups of parameters, length."""
    if args.dry_run:
        _say(args, "\n".join(f"{name} = {value}" for name, value in _flat(job.config.to_dict())))
    run_state = Run(job, Team())
    if run_state.match is not None:
        _say(args, run_state.match.table())
    _say(args, run_state.tables())
    config = job.config
    rate, windows = config.schedule.resolve(job.total)
    _say(
        args,
        f"recipe {config.recipe}: {job.total} steps of {config.batch} pictures "
        f"({job.total * config.batch / len(job.train.pictures):.1f} passes), warm-up {rate.warm_up}, mosaic from "
        f"{windows.strong_from} until {windows.mosaic_until}, plain from {windows.strong_until}; rates scaled by "
        f"{config.optimiser.factor(config.batch):.3g} for the batch; {job.device}, {job.precision}",
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


if __name__ == "__main__":
    edge.run(main)
