"""N on a CPU: teach the late trunk and the encoder to give the maps of a public detector, then to find true boxes.

    python -m training.distil cache  --data DATA --teacher FEMTO.onnx --cache CACHE --views 25600
    python -m training.distil train  --cache CACHE --teacher FEMTO.safetensors --run RUN --phase maps --steps 3200
    python -m training.distil train  ... --phase boxes --steps 2000 --init RUN/maps
    python -m training.distil export --phase RUN/boxes --data DATA -o ledetr_n.safetensors

The lower trunk (EfficientNet-Lite0) and the teacher (DEIMv2-Femto) see every view once; their maps are cached. Phase
"maps" trains the last stage and the encoder on the squared error to the teacher's maps, so that the teacher's decoder,
copied into N, works at once. Phase "trunk" frees the stages from stride 8 on, and phase "answers" adds what the decoder
makes of the maps. Phases "boxes" and "deep" go on from there with the detection losses: true boxes where a picture has
them, the teacher's own detections elsewhere. A run can be stopped and started again at any moment.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from ledetr.coco_file import read_coco
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.model.config import ledetr_n
from ledetr.model.ledetr import build_model
from ledetr.weights import save_weights
from ledetr.weights_info import WeightsInfo
from training.data.coco import Picture, load_coco, load_unlabelled, split_tune
from training.distil_cache import CacheJob, write_cache
from training.distil_loop import PHASES, DistilConfig, RunOptions, averaged_weights, train
from training.release import measure, only_pictures, release

STARTED_FROM = (
    "EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) for the trunk; DEIMv2-Femto (trained on all of COCO train2017, "
    "Apache-2.0, Intellindust-AI-Lab/DEIMv2) for fusion and decoder, and as the teacher of the feature maps"
)


def training_pictures(data: Path) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(train: labelled without the tune split, then unlabelled; tune) of the data folder."""
    train_part, tune = split_tune(load_coco(data / "coco_train.json").pictures)
    return (*train_part, *load_unlabelled(data / "unlabelled")), tuple(tune)


def cache_command(args: argparse.Namespace) -> None:
    """Write the missing shards."""
    pictures, _ = training_pictures(args.data)
    job = CacheJob(pictures, args.cache, args.teacher, args.seed, ledetr_n().input_hw[0])
    write_cache(job, views=args.views, workers=args.workers)


def train_command(args: argparse.Namespace) -> None:
    """One phase, on one or several processes."""
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "rendezvous").unlink(missing_ok=True)
    options = RunOptions(
        run=args.run,
        cache=args.cache,
        teacher=args.teacher,
        config=scaled(PHASES[args.phase](args.steps), args.batch),
        minutes=args.minutes,
        init=args.init,
        processes=args.processes,
        threads=args.threads,
        nice=args.nice,
        device=args.device,
    )
    if args.processes == 1:
        train(0, options)
    else:
        spawn(train, (options,), args.processes)


def scaled(config: DistilConfig, batch: int | None) -> DistilConfig:
    """The phase with another batch: as Adam's steps are of one size, rates grow with the root of the batch."""
    if batch is None:
        return config
    factor = math.sqrt(batch / config.batch)
    rates = {name: getattr(config, name) * factor for name in ("lr", "trunk_lr", "decoder_lr")}
    return replace(config, batch=batch, **rates)


def blended_weights(phase: Path, other: Path | None, share: float) -> dict[str, Tensor]:
    """Averaged weights of a phase, or a point on the way from it to another: two ends of one run often meet better
    in the middle (model soups, arXiv:2203.05482). share 0 is `phase`, 1 is `other`."""
    weights = averaged_weights(phase)
    if other is None:
        return weights
    toward = averaged_weights(other)
    return {k: torch.lerp(v, toward[k], share) if v.is_floating_point() else v for k, v in weights.items()}


def export_command(args: argparse.Namespace) -> None:
    """Measure the averaged weights of a phase and write them as a file that ships."""
    model = build_model(ledetr_n()).eval()
    model.load_state_dict(blended_weights(args.phase, args.blend, args.share))
    pictures, tune = training_pictures(args.data)
    labelled = sum(p.labelled for p in pictures)
    info = WeightsInfo(
        name="n",
        config=model.config,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input_hw=model.config.input_hw,
        started_from=STARTED_FROM,
        trained_on=f"{labelled} labelled COCO pictures (most from val2017) and {len(pictures) - labelled} unlabelled "
        "photographs, as cached views",
        command=args.note,
        licence="Apache-2.0",
    )
    tune_set = only_pictures(read_coco(args.data / "coco_train.json"), {p.key for p in tune})
    held_out = args.data / "coco_val_dev.json"
    if args.tune:
        save_weights(args.output, model, info)
        scores, _ = measure(args.output, tune_set)
    else:
        info, scores = release(model, info, args.output, tune=tune_set, held_out=held_out)
    print(json.dumps({"threshold": info.score_threshold, **scores.figures, "interval": scores.interval}))


def main() -> None:
    """Commands of this file."""
    parser = argparse.ArgumentParser(prog="python -m training.distil", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True)
    cache = commands.add_parser("cache", help="write the feature cache, as far as it is missing")
    cache.set_defaults(run_command=cache_command)
    for name in ("--data", "--teacher", "--cache"):
        cache.add_argument(name, type=Path, required=True)
    cache.add_argument("--views", type=int, default=25600)
    cache.add_argument("--workers", type=int, default=2)
    cache.add_argument("--seed", type=int, default=0)
    phase = commands.add_parser("train", help="one phase; goes on where it was stopped")
    phase.set_defaults(run_command=train_command)
    for name in ("--cache", "--teacher", "--run"):
        phase.add_argument(name, type=Path, required=True)
    phase.add_argument("--phase", choices=tuple(PHASES), required=True)
    phase.add_argument("--steps", type=int, required=True, help="length of the whole phase, which sets its schedule")
    phase.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; start again to go on")
    phase.add_argument("--init", type=Path, help="folder of an earlier phase, or a weights file, to start from")
    phase.add_argument("--processes", type=int, default=1)
    phase.add_argument("--threads", type=int, default=2, help="of each process")
    phase.add_argument("--nice", type=int, default=0)
    phase.add_argument("--device", default="cpu", help="cpu, or cuda for one GPU and one process")
    phase.add_argument("--batch", type=int, help="views a step; rates grow with its square root (default 16)")
    export = commands.add_parser("export", help="measure and write weights and model card")
    export.set_defaults(run_command=export_command)
    export.add_argument("--phase", type=Path, required=True, help="folder of the phase, RUN/NAME")
    export.add_argument("--blend", type=Path, help="folder of another phase to mix in")
    export.add_argument("--share", type=float, default=0.5, help="of the other phase, 0 to 1; choose it on --tune")
    export.add_argument("--data", type=Path, required=True)
    export.add_argument("-o", "--output", type=Path, required=True)
    export.add_argument("--note", default="python -m training.distil", help="how it was trained, for the card")
    export.add_argument("--tune", action="store_true", help="only print the figures of the tune split: to choose by")
    args = parser.parse_args()
    args.run_command(args)


if __name__ == "__main__":
    main()
