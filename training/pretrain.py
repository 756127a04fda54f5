"""Pretrain a backbone: on labelled pictures, or by a public teacher on any pictures.

    python -m training.pretrain FOLDER -m l --recipe imagenet-paper -o RUN
    python -m training.pretrain FOLDER -m m --distil lite0 -o RUN [--minutes 60]

FOLDER holds class folders, pictures, or WebDataset .tar shards. The same command goes on where a run was stopped. At
the end RUN/backbone_SCALE.safetensors is written, which `python -m training.train ... --backbone FILE` takes.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ledetr.errors import Interrupted, UsageError
from ledetr.model.config import VARIANTS, ledetr_tiny
from ledetr.weights_info import MAX_INPUT_SIDE
from training import edge
from training.backbone_file import described, save_backbone
from training.data.imagefolder import PictureSet, read_pictures, split
from training.distributed import Team
from training.flags import add_run_flags, refuse_low_numbers, scaled
from training.launch import device_named, is_first, launch, make_folder, processes_of, workers_for
from training.pretrain_distil import open_teacher
from training.pretrain_loop import PretrainJob, PretrainRun, figure_words, finished_student, places_of, pretrain
from training.pretrain_recipes import RECIPES, PretrainConfig, recipe_for
from training.release import one_line

HELD_OUT_EVERY = 20
SCALES = {**VARIANTS, "tiny": ledetr_tiny}
"""The four, and one that only shows that everything works."""


def pictures_of(args: argparse.Namespace) -> tuple[PictureSet, PictureSet]:
    """(train, held out)."""
    data = read_pictures(args.data)
    if not data.labelled and args.distil is None:
        raise UsageError(
            f"{str(args.data)!r} has no class folders, so there is nothing to learn but from a teacher: add --distil "
            "lite0, or name a folder with a folder for each class"
        )
    if args.val is None:
        return split(data, HELD_OUT_EVERY)
    return data, read_pictures(args.val, data.class_names)


def config_of(args: argparse.Namespace) -> PretrainConfig:
    """The recipe with what the command line changes."""
    name = args.recipe or ("distil" if args.distil else "imagenet-paper")
    config = recipe_for(name, args.model)
    if (config.distil is None) != (args.distil is None):
        raise UsageError(f"the recipe {name!r} and --distil do not go together: --distil TEACHER needs 'distil'")
    if args.batch is not None:
        config = replace(config, batch=args.batch)
    if args.epochs is not None:
        ratio = args.epochs / config.epochs
        config = replace(
            config,
            epochs=args.epochs,
            warm_up_epochs=config.warm_up_epochs * ratio,
            cool_down_epochs=config.cool_down_epochs * ratio,
        )
    if args.seed is not None:
        config = replace(config, seed=args.seed)
    if args.imgsz is not None:
        if any(side % 32 or not 32 <= side <= MAX_INPUT_SIDE for side in args.imgsz):
            raise UsageError(f"--imgsz takes multiples of 32 in 32..{MAX_INPUT_SIDE}, got {args.imgsz}")
        config = replace(config, sizes=tuple(args.imgsz), judge_side=max(args.imgsz))
    if args.lr_scale != 1:
        config = replace(config, optimiser=scaled(config.optimiser, args.lr_scale))
    return config


def job_of(args: argparse.Namespace) -> PretrainJob:
    """The whole run that a command line asks for."""
    if args.model not in SCALES:
        raise UsageError(f"unknown scale {args.model!r}: known are {', '.join(SCALES)}")
    config = config_of(args)
    processes = processes_of(args.processes)
    places_of(config.batch, 0, processes)
    device = device_named(args.device)
    if args.distil is not None:
        open_teacher(args.distil)  # what is missing is said before any picture is read
    train, held_out = pictures_of(args)
    make_folder(args.output)
    return PretrainJob(
        folder=args.output,
        config=config,
        model=SCALES[args.model](),
        train=train,
        held_out=held_out,
        total=args.steps or config.steps(len(train.entries)),
        teacher=args.distil,
        lite0_start=not args.random_weights,
        device=device,
        precision=args.precision or ("bf16" if device == "cuda" else "fp32"),
        processes=processes,
        workers=workers_for(args.workers, device, processes),
        threads=args.threads,
        minutes=args.minutes,
        log_every=args.log_every,
        quiet=args.quiet,
    )


def finish(job: PretrainJob, words: Sequence[str]) -> Path:
    """The average of the run as a backbone file, with its figures on held-out pictures."""
    model, before, after, step = finished_student(job)
    if job.config.norm_pictures and not job.quiet:
        print(f"with the batch statistics of training: {figure_words(before)}", file=sys.stderr)
    if not job.quiet:
        print(f"as written: {figure_words(after)}", file=sys.stderr)
    started, licence = "random values", "Apache-2.0"
    if job.lite0_start and job.model.backbone.kind == "lite":
        started = "EfficientNet-Lite0 (ImageNet-1k, Apache-2.0)"
    if job.teacher is not None:
        teacher = open_teacher(job.teacher)
        started += f", taught by {teacher.name}"
        licence = f"that of its teacher: {teacher.licence}"
    target = job.folder / f"backbone_{job.model.name}.safetensors"
    info = described(
        job.model,
        figures=after,
        trained_on=one_line(f"{len(job.train.entries)} pictures of {job.train.name}, step {step} of {job.total}"),
        command=one_line("python -m training.pretrain " + shlex.join(words)),
        started_from=started,
        licence=licence,
    )
    save_backbone(target, model.backbone, info)
    return target


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pretrain",
        description="Pretrain a backbone on labelled pictures or by a teacher; once more goes on after a stop.",
    )
    add = parser.add_argument
    add("data", type=Path, help="folder of class folders, of pictures, or of WebDataset .tar shards")
    add("--val", type=Path, help=f"folder to judge by; default: every {HELD_OUT_EVERY}th picture, held out")
    add("-m", "--model", default="m", help=f"scale: {', '.join(SCALES)} (default m)")
    add("--recipe", help=f"{', '.join(RECIPES)} (default imagenet-paper; distil with --distil)")
    add("--distil", metavar="TEACHER", help="learn from lite0, lite2, ... or timm:NAME; no labels needed")
    add("--random-weights", action="store_true", help="N too starts from random values")
    add("--imgsz", type=int, nargs="+", help="sides of the input, one is drawn for each step; multiples of 32")
    add_run_flags(parser, product="backbone", default_folder="runs/pretrain-SCALE")
    args = parser.parse_args(words)
    refuse_low_numbers(parser, args, ())
    if args.output is None:
        args.output = Path("runs") / f"pretrain-{args.model}"
    return args


def main(words: Sequence[str] | None = None) -> None:
    """Read, train, measure, write."""
    words = sys.argv[1:] if words is None else words
    args = parse_arguments(words)
    job = job_of(args)
    if not args.export:
        if is_first() and not job.quiet:
            _introduce(job)
        outcome = launch(job, pretrain)
        if not outcome.ended:
            text = f"stopped at step {outcome.step} of {outcome.total}; the same command goes on from there"
            if outcome.interrupted:
                raise Interrupted(text)
            if is_first() and not job.quiet:
                print(text, file=sys.stderr)
            return
    if is_first():
        print(finish(job, words))


def _introduce(job: PretrainJob) -> None:
    """What the run will be."""
    config, pictures = job.config, len(job.train.entries)
    rate = config.schedule(job.total)
    print(PretrainRun(job, Team()).tables(), file=sys.stderr)
    print(
        f"{pictures} pictures ({len(job.train.class_names) or 'no'} classes), {len(job.held_out.entries)} held out; "
        f"recipe {config.recipe}: {job.total} steps of {config.batch} ({job.total * config.batch / pictures:.1f} "
        f"passes), warm-up {rate.warm_up}, sides {', '.join(map(str, config.sizes))}; rates scaled by "
        f"{config.optimiser.factor(config.batch):.3g} for the batch; {job.device}, {job.precision}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    edge.run(main)
