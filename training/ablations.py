"""What the parts of the design bring, on few pictures: the same short training for each variant, and one table.

    python -m training.ablations DATA --images DIR --val VAL -o RUN [-m n] [--minutes 25]

Every variant starts from the same weights, but for the layers in question, which begin anew in all of them, the design
itself among them; then all see the same pictures in the same order for the same number of steps. With --minutes that
number is measured once, so that all of it fits. The same command goes on where it was stopped, variant by variant.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ledetr.errors import Interrupted, UsageError
from ledetr.evaluation import bootstrap_ap, run_coco, scores_of
from ledetr.files import whole_file
from ledetr.model.backbone import NeighborhoodMixer
from ledetr.model.config import VARIANTS, EncoderConfig, ModelConfig
from ledetr.model.count import Count, count_network
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.weights import find_weights, read_info
from ledetr.weights_info import WeightsInfo
from training import edge
from training.config import TrainConfig
from training.data.dataset import Dataset
from training.data.read import read_splits
from training.distributed import Team
from training.judge import coco_set_of, detect_pictures
from training.launch import device_named, launch
from training.loop import Job, Run, best_model, train
from training.recipes import recipe_for
from training.run_log import read_log

RESAMPLES = 1000
FEWEST_STEPS = 20
STEPS_MEASURED = 4
SECONDS_AROUND = 10.0
"""Of each variant, for building and saving."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The design with one thing changed. A call makes it of the design's network: same values, the layers in question
    (attention of the encoder and of the trunk) as they begin.

    naifi, naifi_kernel, na_kernel: as in the model's config; None: as the design has it. mixer: what stands in the
    place of the trunk's neighborhood attention. gate: what a factor of these layers begins with that the design lets
    begin at 0 (N's do): else they would learn nothing before it has moved. note: for the table.
    """

    name: str
    note: str
    naifi: Literal["na1d", "na2d", "full"] | None = None
    naifi_kernel: int | None = None
    na_kernel: int | None = None
    mixer: Literal["attention", "convolution"] = "attention"
    gate: float = 0.25

    def config(self, base: ModelConfig) -> ModelConfig:
        """The config of the network, but for a mixer by convolution, which has none."""
        encoder: EncoderConfig = replace(
            base.encoder,
            naifi=self.naifi or base.encoder.naifi,
            naifi_kernel=self.naifi_kernel or base.encoder.naifi_kernel,
        )
        backbone = replace(base.backbone, na_kernel=self.na_kernel or base.backbone.na_kernel)
        return replace(base, encoder=encoder, backbone=backbone)

    def __call__(self, model: LeDetr) -> LeDetr:
        """The variant's network; the one that was given is spent."""
        where = next(model.parameters()).device
        changed = build_model(self.config(model.config), device=where)
        if where.type != "meta":
            anew = _layers_in_question(changed)
            kept = {name: value for name, value in model.state_dict().items() if not name.startswith(anew)}
            changed.load_state_dict(kept, strict=False)
            for factor in _gates(changed):
                nn.init.constant_(factor, self.gate)
        if self.mixer == "convolution":
            for mixer in _mixers(changed):
                mixer.na = ConvolutionMixer(mixer.na)  # type: ignore[assignment]  # it takes and gives the same
        return changed


class ConvolutionMixer(nn.Module):
    """In the place of neighborhood attention: a depthwise convolution of the same reach, then the same projection.

    Takes and gives (B, H, W, D), as the attention does.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        proj, kernel = attention.proj, attention.kernel
        assert isinstance(proj, nn.Linear) and isinstance(kernel, int)
        width, where = proj.in_features, proj.weight.device
        self.spatial = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, device=where)
        nn.init.trunc_normal_(self.spatial.weight, std=1 / kernel)  # a sum of kernel x kernel values keeps its size
        nn.init.zeros_(self.spatial.bias)  # type: ignore[arg-type]  # it has one
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.proj(self.spatial(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return mixed


def _mixers(model: LeDetr) -> list[NeighborhoodMixer]:
    return [layer for layer in model.backbone.modules() if isinstance(layer, NeighborhoodMixer)]


def _gates(model: LeDetr) -> list[Tensor]:
    """The factors of the layers in question that begin at 0."""
    factors = [*(model.encoder.naifi.scales or ()), *(mixer.na_norm.weight for mixer in _mixers(model))]
    return [factor for factor in factors if isinstance(factor, Tensor) and not bool(factor.any())]


def _layers_in_question(model: LeDetr) -> tuple[str, ...]:
    """Beginnings of the names of their values."""
    wanted = {id(model.encoder.naifi), *(id(mixer) for mixer in _mixers(model))}
    return tuple(f"{name}." for name, layer in model.named_modules() if id(layer) in wanted)


def variants_of(base: ModelConfig, gate: float = 0.25) -> tuple[Variant, ...]:
    """The design, then one change at a time; what computes the same at this input size is left out."""
    return tuple(replace(variant, gate=gate) for variant in _variants_of(base))


def _variants_of(base: ModelConfig) -> tuple[Variant, ...]:
    side = base.input_hw[0] // 32
    reach = side * side if base.encoder.naifi == "na1d" else side
    kernels = [k for k in ((15, 31, 127) if base.encoder.naifi == "na1d" else (3, 5, 9)) if k < reach]
    sees_all = base.encoder.naifi == "full" or base.encoder.naifi_kernel >= reach
    design = f"NAIFI {base.encoder.naifi_kernel}, neighborhood {base.backbone.na_kernel}"
    whole = f"; sees all of {side} x {side}, so it is AIFI" if sees_all else ""
    kind = base.encoder.naifi
    return (
        Variant(name="design", note=f"{design}{whole}"),
        *([] if sees_all else [Variant(name="aifi", note="AIFI (plain attention) instead of NAIFI", naifi="full")]),
        *(
            Variant(name=f"naifi-{k}", note=f"NAIFI of kernel {k}", naifi=kind, naifi_kernel=k)
            for k in kernels
            if k != base.encoder.naifi_kernel
        ),
        Variant(
            name="convolution",
            note=f"depthwise convolution {base.backbone.na_kernel} x {base.backbone.na_kernel} instead of neighborhood "
            "attention in the trunk",
            mixer="convolution",
        ),
        *(
            Variant(name=f"neighborhood-{k}", note=f"neighborhood of kernel {k} in the trunk", na_kernel=k)
            for k in (3, 5, 9)
            if k < side and k != base.backbone.na_kernel
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is the same for all variants."""

    folder: Path
    start: Path | None
    model: ModelConfig
    config: TrainConfig
    train: Dataset
    tune: Dataset
    device: str
    threads: int | None
    workers: int
    quiet: bool

    def job(self, variant: Variant, steps: int) -> Job:
        """The training of one variant."""
        return Job(
            folder=self.folder / variant.name,
            config=self.config,
            model=self.model,
            train=self.train,
            tune=self.tune,
            total=steps,
            start=self.start,
            rebuild=variant,
            device=self.device,
            precision="bf16" if self.device == "cuda" else "fp32",
            threads=self.threads,
            workers=self.workers,
            log_every=max(1, steps // 20),
            save_every=max(1, steps // 4),
            quiet=self.quiet,
        )


def plan_of(args: argparse.Namespace) -> Plan:
    """All that a command line says. Raises SourceError, WeightsError, UsageError."""
    train_set, tune = read_splits(args.data, args.val, args.images)
    tune = replace(tune, pictures=tune.pictures[: args.judge])
    info: WeightsInfo | None = None
    if args.random_weights:
        if args.model not in VARIANTS:
            raise UsageError(f"random weights are for a scale ({', '.join(VARIANTS)}), not for {args.model!r}")
        base, start = VARIANTS[args.model](), None
    else:
        start = find_weights(args.model)
        info = read_info(start)
        base = info.config
    if args.imgsz % 32 or args.imgsz < 96:
        raise UsageError(f"--imgsz must be a multiple of 32 from 96 on, got {args.imgsz}")
    model = replace(base, input_hw=(args.imgsz, args.imgsz)).with_classes(len(train_set.class_names))
    config = replace(recipe_for("finetune", info.name if info else args.model), batch=args.batch, evaluations=1)
    return Plan(
        folder=args.output,
        start=start,
        model=model,
        config=replace(config, seed=args.seed),
        train=train_set,
        tune=tune,
        device=device_named(args.device),
        threads=args.threads,
        workers=args.workers,
        quiet=args.quiet,
    )


def steps_of(plan: Plan, args: argparse.Namespace, variants: Sequence[Variant]) -> int:
    """Steps of each variant: as asked, as an earlier start of the same command found, or as many as fit."""
    said = {
        "minutes": args.minutes,
        "steps": args.steps,
        "variants": [variant.name for variant in variants],
        "config": plan.config.to_dict(),
        "input": plan.model.input_hw[0],
        "judged": len(plan.tune.pictures),
        "gate": args.gate,
    }
    said = json.loads(json.dumps(said))  # as it is read back
    path = plan.folder / "plan.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["said"] != said:
            raise UsageError(f"{plan.folder} holds a comparison of another kind; give the same words or another folder")
        return int(kept["steps_each"])
    steps = args.steps or _steps_that_fit(plan, 60 * args.minutes / len(variants), variants[0])
    plan.folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps({"said": said, "steps_each": steps}, indent=1))
    return int(steps)


def _steps_that_fit(plan: Plan, seconds_each: float, variant: Variant) -> int:
    """Measured on the first of the variants; the others differ by little."""
    with tempfile.TemporaryDirectory() as folder:
        job = replace(plan.job(variant, 1000), folder=Path(folder), quiet=True)
        run = Run(job, Team())
        stream = run.batches(0)
        marks = [time.perf_counter()]
        for batch in islice(stream, STEPS_MEASURED + 1):  # the first one warms up
            run.step(batch)
            marks.append(time.perf_counter())
        few = replace(plan.tune, pictures=plan.tune.pictures[:8])
        detect_pictures(run.model.eval(), few, device=plan.device)
        per_picture_s = (time.perf_counter() - marks[-1]) / len(few.pictures)
    per_step_s = float(np.median(np.diff(marks[1:])))
    # Judged twice: by the run, and for the interval.
    left_s = seconds_each - SECONDS_AROUND - 2 * per_picture_s * len(plan.tune.pictures)
    steps = int(left_s / per_step_s)
    if steps < FEWEST_STEPS:
        needed = (seconds_each - left_s + FEWEST_STEPS * per_step_s) / 60
        raise UsageError(
            f"each variant would have {max(0, steps)} steps of {per_step_s:.1f} s; give at least {needed:.0f} minutes "
            "for each, or a smaller --batch, --imgsz or --judge"
        )
    return steps


def result_of(plan: Plan, variant: Variant, steps: int) -> dict[str, Any]:
    """Train a variant, or what is left of it, and judge it; what was found before is read."""
    job = plan.job(variant, steps)
    path = job.folder / "result.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    outcome = launch(job, train)
    if not outcome.ended:
        raise Interrupted(
            f"stopped at step {outcome.step} of {outcome.total} of {variant.name}; the same command goes on"
        )
    model, _ = best_model(job)
    rows = detect_pictures(model.to(plan.device), plan.tune, device=plan.device)
    data = coco_set_of(plan.tune)
    with redirect_stdout(sys.stderr):
        evaluator = run_coco(data, rows)
        scores = scores_of(data, evaluator, resamples=RESAMPLES)
        samples = bootstrap_ap(evaluator, resamples=RESAMPLES, seed=0)
    counted = count_variant(plan.model, variant)
    result = {
        "steps": steps,
        "params_m": counted.params_m,
        "gflops": counted.gflops,
        "loss": loss_at_the_end(job.folder),
        "ap": scores.ap,
        "ap50": scores.figures["ap50"],
        "interval": scores.interval,
        "samples": [round(float(value), 6) for value in samples],
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(result))
    return result


def loss_at_the_end(folder: Path) -> float:
    """Mean of the loss over the last quarter of the run; the batches are the same in every variant."""
    losses = [float(row["total"]) for row in read_log(folder).steps if "total" in row]
    return float(np.mean(losses[-max(1, len(losses) // 4) :]))


def count_variant(base: ModelConfig, variant: Variant) -> Count:
    """As it is deployed, at the size it was trained at."""
    model = variant(build_model(base, device="meta"))
    return count_network(model.fused(), size_hw=base.input_hw)


def table(results: Sequence[tuple[Variant, dict[str, Any]]], about: str) -> str:
    """Markdown. The differences are to the first row, on the same draws of pictures."""
    first = results[0][1]
    lines = [
        about,
        "",
        "| variant | parameters M | GFLOPs | loss | AP % | 95 % | difference to the first | 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, result in results:
        difference = ["", ""] if result is first else _difference(result, first)
        cells = [
            variant.note,
            f"{result['params_m']:.3f}",
            f"{result['gflops']:.3f}",
            f"{result['loss']:.3f}",
            _percent(result["ap"]),
            _range(result["interval"]),
            *difference,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(result: dict[str, Any], first: dict[str, Any]) -> list[str]:
    if result["ap"] is None or first["ap"] is None:
        return ["", ""]
    both = np.array(result["samples"]) - np.array(first["samples"])
    low, high = np.nanpercentile(both, (2.5, 97.5))
    return [f"{100 * (result['ap'] - first['ap']):+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}"]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _range(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ablations", description="Compare variants of the design on few pictures."
    )
    add = parser.add_argument
    add("data", type=Path, help="a data set of any of the formats of ledetr train")
    add("--images", type=Path, help="folder of its pictures, where it is not the usual one")
    add("--val", type=Path, help="data set to judge by; default: its val split, or about every 11th picture")
    add("-m", "--model", default="n", help="scale or weights file that everything else starts from (default n)")
    add("--random-weights", action="store_true", help="start everything from random values")
    add("-o", "--output", type=Path, default=Path("runs/ablations"), help="folder (default runs/ablations)")
    add("--only", nargs="+", metavar="VARIANT", help="these variants beside the design")
    add(
        "--minutes",
        type=float,
        default=25.0,
        help="for all variants together, from which the steps follow (default 25)",
    )
    add("--steps", type=int, help="of each variant, instead of --minutes")
    add("--batch", type=int, default=8, help="pictures of a step (default 8)")
    add("--imgsz", type=int, default=320, help="side of the network input (default 320)")
    add("--judge", type=int, default=500, help="so many of the pictures kept apart are judged by (default 500)")
    add(
        "--gate", type=float, default=0.25, help="what factors of the layers in question begin with instead of 0 (0.25)"
    )
    add("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="CPU threads")
    add("--workers", type=int, default=0, help="processes that make pictures ready (default 0)")
    add("--list", action="store_true", help="name the variants and end")
    add("-q", "--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(words)
    low = [name for name in ("minutes", "steps", "batch", "judge", "threads") if (getattr(args, name) or 1) <= 0]
    if low:
        parser.error(f"--{low[0]} must be above 0")
    return args


def main(words: Sequence[str] | None = None) -> None:
    """Train every variant, print the table, and keep it as table.md."""
    args = parse_arguments(words)
    plan = plan_of(args)
    variants = _chosen(variants_of(plan.model, args.gate), args.only)
    if args.list:
        print("\n".join(f"{variant.name:16} {variant.note}" for variant in variants))
        return
    steps = steps_of(plan, args, variants)
    results = []
    for number, variant in enumerate(variants, 1):
        if not args.quiet:
            print(f"{number} of {len(variants)}: {variant.name}, {steps} steps", file=sys.stderr, flush=True)
        results.append((variant, result_of(plan, variant, steps)))
    start = (
        "random values"
        if plan.start is None
        else f"{plan.start.name} (the layers in question anew, gates {args.gate:g})"
    )
    about = (
        f"{plan.model.name.upper()} at {args.imgsz} px, {steps} steps of {args.batch} pictures each, from {start}; "
        f"loss of the last quarter of the steps; AP on {len(plan.tune.pictures)} pictures kept apart, its "
        f"interval and that of the difference by {RESAMPLES} draws of pictures; torch {torch.__version__} on "
        f"{plan.device}."
    )
    text = table(results, about)
    with whole_file(plan.folder / "table.md") as part:
        part.write_text(text + "\n", encoding="utf-8")
    print(text)


def _chosen(variants: Sequence[Variant], only: Sequence[str] | None) -> list[Variant]:
    names = [variant.name for variant in variants]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UsageError(f"there is no variant {unknown[0]!r} at this size; there are {', '.join(names)}")
    return [variant for variant in variants if only is None or variant.name in ("design", *only)]


if __name__ == "__main__":
    edge.run(main)
