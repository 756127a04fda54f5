"""Train or fine-tune a detector on a data set of any of the formats.

    python -m training.train DATA -o RUN [--val VAL] [--recipe finetune] [--model n] [--minutes 60]

The same command goes on where the run was stopped, by Ctrl-C, by time or by a power cut. The weights file that it
writes into RUN at the end opens in `ledetr detect -m` and in the window.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.errors import Interrupted, SourceError, UsageError
from ledetr.evaluation import run_coco, scores_of
from ledetr.files import whole_file
from ledetr.matching import matching_of
from ledetr.model.config import VARIANTS, ModelConfig
from ledetr.weights import find_weights, read_info
from ledetr.weights_info import MAX_INPUT_SIDE, WeightsInfo
from training import edge
from training.backbone_file import read_backbone_info
from training.check_data import check, cleaned, print_report, write_sheet
from training.config import TrainConfig
from training.data.dataset import Dataset, Picture
from training.data.read import read_dataset, read_splits
from training.distributed import Team
from training.flags import add_run_flags, refuse_low_numbers, scaled
from training.judge import coco_set_of, detect_pictures
from training.launch import device_named, is_first, launch, make_folder, processes_of, workers_for
from training.loop import Job, Run, best_model, in_vain, train
from training.recipes import RECIPES, recipe_for
from training.release import best_f1, one_line, write_measured

LOOKED_THROUGH = 20_000
"""Pictures that are decoded before the first step; more would take minutes."""
FEW_TO_JUDGE = 20
FEW_PICTURES = 8
"""A batch smaller than this has no batch statistics worth learning from."""


def prepared_data(args: argparse.Namespace, model: ModelConfig) -> tuple[Dataset, Dataset]:
    """(train, tune), checked: errors stop, warnings are said and worked around. The report lies in the run's folder."""
    queries, side = model.decoder.queries, max(model.input_hw)
    train_set, tune = few_by_heart(args, side) if args.overfit else read_splits(args.data, args.val, args.images)
    again = (args.output / "check.json").is_file() or not is_first()  # one process looks and tells for all
    deep = not again and len(train_set.pictures) <= LOOKED_THROUGH
    report = check(train_set, val=None if args.overfit else tune, input_px=side, queries=queries, deep=deep)
    if args.dry_run:
        if is_first():
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


def few_by_heart(args: argparse.Namespace, side: int) -> tuple[Dataset, Dataset]:
    """(train, tune), the same: the first few pictures with objects, none of them smaller than --least-px."""
    data = read_dataset(args.data, args.images)
    fit = [picture for picture in data.pictures if _smallest_px(picture, side) >= args.least_px]
    if not fit:
        rule = f" of at least {args.least_px:g} px each" if args.least_px else ""
        raise SourceError(f"{str(args.data)!r} has no picture with objects{rule} to learn by heart")
    if args.least_px:
        _say(
            args,
            f"by heart: the first {min(args.overfit, len(fit))} of the {len(fit)} pictures (of {len(data.pictures)}) "
            f"whose objects are all at least {args.least_px:g} px wide and high at {side} px",
        )
    few = tuple(fit[: args.overfit])
    return replace(data, pictures=few), replace(data, pictures=few, problems=())


def _smallest_px(picture: Picture, side: int) -> float:
    """Shortest side of its objects in pixels of a square input; below 0 without objects."""
    boxes = picture.boxes_xyxy[~picture.crowd]
    if not len(boxes) or picture.size_hw is None:
        return -1.0
    height, width = picture.size_hw
    return float(((boxes[:, 2:] - boxes[:, :2]) * side / np.array([width, height])).min())


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
        config = replace(config, optimiser=scaled(config.optimiser, args.lr_scale))
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
    data, tune = prepared_data(args, model)
    config = config_of(args, info.name if info else args.model, fine=start is not None)
    processes = processes_of(args.processes)
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
        processes=processes,
        workers=workers_for(args.workers, device, processes),
        threads=args.threads,
        minutes=args.minutes,
        accumulate=args.accumulate,
        patience=args.patience,
        log_every=args.log_every,
        quiet=args.quiet,
    )
    return job, info


def finish(job: Job, info: WeightsInfo | None, words: Sequence[str]) -> Path:
    """The best average of the run as a weights file with threshold, figures and card."""
    model, step = best_model(job)
    scale = info.name if info else job.model.name
    target = job.folder / f"ledetr_{scale}.safetensors"
    data = coco_set_of(job.tune)
    rows = detect_pictures(model.to(job.device), job.tune, device=job.device)
    evaluator = run_coco(data, rows)
    scores = scores_of(data, evaluator)
    name = Path(job.train.name).name
    note = (
        f"Box AP on {scores.pictures} pictures ({scores.boxes} boxes) that were set aside from `{name}`; 95 % interval "
        "by bootstrap over pictures. The checkpoint and the threshold were chosen on the same pictures, so these "
        "figures flatter a little: judge by pictures that were never used with `ledetr eval`."
    )
    if job.config.recipe == "overfit":
        note = (
            "The pictures it was judged by are the ones it learnt by heart; nothing follows for any other picture. The "
            "command above says by which rule they were chosen."
        )
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
    point = best_f1(matching_of(data, rows, evaluator))
    write_measured(model.cpu(), new, target, table, point, measured_on=one_line(f"tune split of {name}"), note=note)
    return target


def _say(args: argparse.Namespace, text: str) -> None:
    if not is_first():
        return
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
    add("-m", "--model", default="n", help="scale or weights file to start from (default n)")
    add("--random-weights", action="store_true", help="start a scale from random values")
    add("--imagenet-trunk", action="store_true", help="start N from random values with an ImageNet trunk")
    add("--backbone", type=Path, help="start a scale from random values with this trunk, from training.pretrain")
    add("--recipe", help=f"{', '.join(RECIPES)} (default finetune, with --overfit overfit)")
    add("--overfit", type=int, metavar="N", help="learn the first N pictures with objects by heart and judge by them")
    add(
        "--least-px",
        type=float,
        default=0.0,
        metavar="PX",
        help="with --overfit: pictures without smaller objects",
    )
    add("--accumulate", type=int, default=1, metavar="K", help="make each step in K parts, which takes less memory")
    add("--evaluations", type=int, help="how often the set to judge by is judged, instead of the recipe's")
    add("--patience", type=int, metavar="K", help="end when K of these in a row found nothing better")
    add("--imgsz", type=int, help="side of the network input; a multiple of 32 (default: the model's)")
    add("--dry-run", action="store_true", help="say what would be done and end; nothing is written")
    add_run_flags(parser, product="weights", default_folder="runs/NAME")
    args = parser.parse_args(words)
    if args.backbone is not None and args.imagenet_trunk:
        parser.error("--backbone and --imagenet-trunk both give the trunk; name one")
    refuse_low_numbers(parser, args, ("accumulate", "evaluations", "patience", "overfit"))
    if args.least_px and not args.overfit:
        parser.error("--least-px chooses the pictures of --overfit; name both")
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
    if is_first() and (args.dry_run or not (args.export or args.quiet)):
        introduce(args, job)
    if args.dry_run:
        return
    if not args.export:
        outcome = launch(job, train)
        if not outcome.ended and not in_vain(job, outcome.step):
            text = f"stopped at step {outcome.step} of {outcome.total}; the same command goes on from there"
            if outcome.interrupted:
                raise Interrupted(text)
            _say(args, text)
            return
    if is_first():
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
