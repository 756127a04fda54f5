"""N on a CPU: teach the late trunk and the encoder to give the maps of a public detector, then to find true boxes.

    python -m training.distil cache  --data DATA --teacher FEMTO.onnx --cache CACHE --views 25600
    python -m training.distil train  --cache CACHE --teacher FEMTO.safetensors --run RUN --phase maps|boxes --minutes 60
    python -m training.distil export --state RUN/boxes.safetensors --data DATA -o ledetr_n.safetensors

The lower trunk (EfficientNet-Lite0) and the teacher see every view once; their maps are cached. Phase "maps" trains the
last stage and the encoder on the squared error to the teacher's maps, so that the teacher's decoder, copied into N,
works at once. Phase "boxes" goes on from there with two more stages free and the detection losses: true boxes where a
picture has them, the teacher's own detections elsewhere. A run can be stopped and started again at any moment.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ledetr.coco_file import read_coco
from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES
from ledetr.losses.criterion import LossConfig, criterion
from ledetr.losses.denoising import DenoisingConfig, make_denoising
from ledetr.losses.targets import Targets
from ledetr.model.backbone import LiteNat, NeighborhoodMixer
from ledetr.model.config import ledetr_n
from ledetr.model.decoder import Decoder
from ledetr.model.encoder import SumEncoder
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.model.outputs import TrainOutputs
from ledetr.weights_info import WeightsInfo
from training.data.coco import Picture, load_coco, load_unlabelled, split_tune
from training.depthwise import use_channels_last_depthwise
from training.distil_cache import FIRST_TRAINED_STAGE, MAX_BOXES, SHARD_VIEWS, CacheJob, write_cache
from training.release import only_pictures, release
from training.teachers import load_femto_decoder, load_femto_fusion, load_lite0


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """One phase. Learning rates are for a batch of 16; the schedule is in fractions of `steps`."""

    phase: str
    steps: int
    first_stage: int = FIRST_TRAINED_STAGE
    batch: int = 16
    lr: float = 2e-3
    trunk_lr: float = 5e-4
    decoder_lr: float = 0.0
    weight_decay: float = 1e-4
    warm_up: float = 0.03
    flat_until: float = 0.3
    final_lr: float = 0.03
    clip: float = 15.0
    ema: float = 0.997
    map_weight: float = 1.0
    dense_weight: float = 0.5
    box_weight: float = 0.0
    teacher_score: float = 0.35
    seed: int = 0


def maps_phase(steps: int) -> DistilConfig:
    """Squared error to the teacher's maps, the last stage and the encoder."""
    return DistilConfig(phase="maps", steps=steps)


def boxes_phase(steps: int) -> DistilConfig:
    """From stride 8 on, with the detection losses; the maps still guide."""
    return DistilConfig(
        phase="boxes",
        steps=steps,
        first_stage=3,
        lr=4e-4,
        trunk_lr=1.5e-4,
        decoder_lr=5e-5,
        flat_until=0.4,
        map_weight=0.5,
        dense_weight=0.25,
        box_weight=0.1,
    )


# ---------------------------------------------------------------------------------------------------------------- data


class CachedViews:
    """Random access to the shards that exist; the cache may grow meanwhile (call refresh)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[dict[str, np.ndarray]] = []
        self.names: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Open shards that have appeared."""
        for path in sorted(self.folder.glob("shard_*")):
            if path.name not in self.names:
                self.names.add(path.name)
                self.shards.append({f.stem: np.load(f, mmap_mode="r") for f in path.glob("*.npy")})

    def __len__(self) -> int:
        return len(self.shards) * SHARD_VIEWS

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Maps as float32, boxes and flags as they are."""
        rows = [(self.shards[i // SHARD_VIEWS], i % SHARD_VIEWS) for i in indices]
        out = {}
        for name in ("c3", "c4", "t16", "t32", "boxes", "labels", "crowd", "labelled"):
            values = np.stack([shard[name][row] for shard, row in rows])
            out[name] = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float16 else values)
        return out


def batches(views: CachedViews, config: DistilConfig, start: int, rank: int, world: int) -> Iterator[dict[str, Tensor]]:
    """Batch of each step from `start` on; the global batch is a function of (seed, step) and dealt out to processes."""

    def load(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((config.seed, step))
        indices = rng.integers(0, len(views), config.batch)
        return views.batch([int(i) for i in indices[rank::world]])

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(load, start)
        for step in range(start, config.steps):
            current, ahead = ahead.result(), reader.submit(load, step + 1)
            if step % 200 == 0:
                views.refresh()
            yield current


# ------------------------------------------------------------------------------------------------------------- student


def starting_model(teacher: dict[str, Tensor]) -> LeDetr:
    """N with every public weight it can start from."""
    torch.manual_seed(0)
    model = build_model(ledetr_n())
    assert isinstance(model.backbone, LiteNat) and isinstance(model.encoder, SumEncoder)
    load_lite0(model.backbone)
    load_femto_decoder(model.decoder, teacher)
    load_femto_fusion(model.encoder, teacher)
    # Zero would leave both the norm and what it scales without gradient; a tenth lets the attention learn at once.
    for module in model.backbone.modules():
        if isinstance(module, NeighborhoodMixer):
            assert isinstance(module.na_norm, nn.BatchNorm2d)
            nn.init.constant_(module.na_norm.weight, 0.1)
    return model


def set_training_mode(model: LeDetr, first_stage: int) -> None:
    """Only what is new estimates its norms anew; pretrained norms keep their statistics but may scale and shift."""
    model.train()
    for part in (model.backbone, model.encoder.top_down, model.encoder.bottom_up, model.encoder.pool):
        _norms_eval(part)  # type: ignore[arg-type]
    _norms_eval(model.encoder.down)  # type: ignore[arg-type]
    _norms_eval(model.encoder.global_fusion)  # type: ignore[arg-type]
    for module in model.backbone.modules():
        if isinstance(module, NeighborhoodMixer):
            module.na_norm.train()
    model.backbone.stem.requires_grad_(False)
    for i, stage in enumerate(model.backbone.stages):
        stage.requires_grad_(i >= first_stage)


def _norms_eval(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def student_maps(model: LeDetr, batch: dict[str, Tensor], first_stage: int) -> list[Tensor]:
    """The encoder's maps from cached ones: from stride 16 (stage 5) or from stride 8 (stage 3)."""
    assert isinstance(model.backbone, LiteNat)
    if first_stage == FIRST_TRAINED_STAGE:
        return model.encoder([batch["c3"], batch["c4"], *model.backbone.forward_from(batch["c4"], first_stage)])
    return model.encoder([batch["c3"], *model.backbone.forward_from(batch["c3"], first_stage)])


# -------------------------------------------------------------------------------------------------------------- losses


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher's decoder, and the variance of each channel of its two maps."""

    decoder: Decoder
    variances: tuple[Tensor, Tensor]


def map_losses(student: list[Tensor], teacher_maps: tuple[Tensor, Tensor], teacher: Teacher) -> tuple[Tensor, Tensor]:
    """Squared error to the teacher's maps and cross-entropy to its dense class scores.

    Both count a position more the surer the teacher is that something is there: most positions are background.
    """
    score = teacher.decoder.encoder_score
    with torch.no_grad():
        truth = [score(m.flatten(2).transpose(1, 2)) for m in teacher_maps]
        weights = [0.3 + t.sigmoid().amax(-1).sqrt() for t in truth]
        weights = [w / w.mean() for w in weights]
    errors, entropies = [], []
    for maps, wanted, logits, weight, variance in zip(
        student, teacher_maps, truth, weights, teacher.variances, strict=True
    ):
        error = ((maps.float() - wanted).square() / variance[None, :, None, None]).mean(1).flatten(1)
        errors.append((error * weight).mean())
        ours = score(maps.float().flatten(2).transpose(1, 2))
        target = logits.sigmoid()
        # Focal in the difference, so that the many easy negatives are silent.
        focal = (ours.sigmoid() - target).abs().detach()
        entropy = F.binary_cross_entropy_with_logits(ours, target, reduction="none") * focal
        entropies.append(entropy.sum() / target.sum().clamp(min=1))
    return sum(errors), sum(entropies)  # type: ignore[return-value]


@torch.no_grad()
def targets_of(batch: dict[str, Tensor], teacher: Teacher, config: DistilConfig) -> Targets:
    """True boxes of labelled views; the teacher's detections, weighted by their score, of the others."""
    logits, boxes = teacher.decoder([batch["t16"], batch["t32"]])
    scores, flat = logits.sigmoid().flatten(1).topk(MAX_BOXES, 1)
    queries, labels = flat // logits.shape[2], flat % logits.shape[2]
    found = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    labelled = batch["labelled"][:, None]
    crowd, there = batch["crowd"], batch["labels"] >= 0
    true_boxes = batch["boxes"]
    corners = torch.cat(
        [true_boxes[..., :2] - true_boxes[..., 2:] / 2, true_boxes[..., :2] + true_boxes[..., 2:] / 2], -1
    )
    return Targets(
        labels=torch.where(labelled, batch["labels"].long().clamp(min=0), labels),
        boxes_cxcywh=torch.where(labelled[..., None], true_boxes, found),
        valid=torch.where(labelled, there & ~crowd, scores >= config.teacher_score),
        weight=torch.where(labelled, torch.ones_like(scores), scores),
        ignore_xyxy=corners,
        ignore_valid=crowd & there & labelled,
    )


def step_losses(
    model: LeDetr, batch: dict[str, Tensor], teacher: Teacher, config: DistilConfig, step: int
) -> dict[str, Tensor]:
    """All losses of one step, with their sum under "total"."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = student_maps(model, batch, config.first_stage)
    error, dense = map_losses(maps, (batch["t16"], batch["t32"]), teacher)
    losses = {"maps": error, "dense": dense}
    total = config.map_weight * error + config.dense_weight * dense
    if config.box_weight > 0:
        targets = targets_of(batch, teacher, config)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        slots = DenoisingConfig(classes=model.config.decoder.classes, slots=model.config.decoder.denoising)
        noisy = make_denoising(targets, slots, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model.decoder(maps, noisy)
        assert isinstance(outputs, TrainOutputs)
        found = criterion(outputs, targets, LossConfig(), noisy)
        losses["boxes"] = found["total"]
        total = total + config.box_weight * found["total"]
    losses["total"] = total
    return losses


# ---------------------------------------------------------------------------------------------------------------- loop


def lr_factor(step: int, config: DistilConfig) -> float:
    """Linear warm-up, flat, cosine to final_lr."""
    at = step / config.steps
    if at < config.warm_up:
        return (step + 1) / (config.warm_up * config.steps + 1)
    if at < config.flat_until:
        return 1.0
    rest = (at - config.flat_until) / (1 - config.flat_until)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + float(np.cos(np.pi * min(rest, 1.0))))


def parameter_groups(model: LeDetr, config: DistilConfig) -> list[dict]:  # type: ignore[type-arg]
    """Trunk, encoder and decoder, each with its rate; 1-D parameters are not decayed."""
    groups = []
    for part, lr in ((model.backbone, config.trunk_lr), (model.encoder, config.lr), (model.decoder, config.decoder_lr)):
        part.requires_grad_(lr > 0) if part is model.decoder else None
        wanted = [p for p in part.parameters() if p.requires_grad and lr > 0]
        for decay, chosen in ((True, [p for p in wanted if p.dim() > 1]), (False, [p for p in wanted if p.dim() <= 1])):
            if chosen:
                groups.append({"params": chosen, "base_lr": lr, "weight_decay": config.weight_decay if decay else 0.0})
    return groups


def average_gradients(parameters: Sequence[Tensor], world: int) -> None:
    """One reduction of one flat buffer over all processes."""
    if world == 1:
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= world
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = g.view_as(p)


def train(rank: int, world: int, args: argparse.Namespace) -> None:
    """The loop of one process."""
    torch.set_num_threads(1 if world > 1 else args.threads)
    os.nice(args.nice)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{args.run}/rendezvous", rank=rank, world_size=world)
    config = maps_phase(args.steps) if args.phase == "maps" else boxes_phase(args.steps)
    state = load_file(args.teacher)
    teacher_model = starting_model(state).eval().requires_grad_(False)
    model = starting_model(state)
    use_channels_last_depthwise(model)
    ema = copy.deepcopy(model).requires_grad_(False)
    views = CachedViews(Path(args.cache))
    teacher = Teacher(teacher_model.decoder, channel_variances(views))
    set_training_mode(model, config.first_stage)
    groups = parameter_groups(model, config)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99))
    parameters = [p for g in groups for p in g["params"]]
    run = Run(Path(args.run), config)
    start = run.resume(model, ema, optimizer, args.init)
    deadline, began, seen = time.monotonic() + args.minutes * 60, time.monotonic(), 0
    sums: dict[str, float] = {}
    for step, batch in enumerate(batches(views, config, start, rank, world), start):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor(step, config)
        losses = step_losses(model, batch, teacher, config, step)
        optimizer.zero_grad()
        losses["total"].backward()
        average_gradients(parameters, world)
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        if not torch.isfinite(norm):
            run.log({"step": step, "skipped": True})
            continue
        optimizer.step()
        update_ema(ema, model, min(config.ema, (step + 1) / (step + 10)))
        seen += config.batch
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        stop = torch.tensor(float(time.monotonic() > deadline))
        if world > 1 and step % 20 == 0:
            dist.broadcast(stop, 0)
        last = step + 1 == config.steps or (bool(stop) and (world == 1 or step % 20 == 0))
        if rank == 0 and (step + 1) % 50 == 0:
            means = {k: round(v / 50, 4) for k, v in sums.items()}
            rate = seen / (time.monotonic() - began)
            run.log({"step": step + 1, **means, "norm": round(float(norm), 2), "views_s": round(rate, 1)})
            sums = {}
        if rank == 0 and ((step + 1) % 200 == 0 or last):
            run.save(step + 1, model, ema, optimizer)
        if last:
            break


def channel_variances(views: CachedViews) -> tuple[Tensor, Tensor]:
    """Variance of each channel of the teacher's maps over the first shard."""
    first = views.shards[0]
    return tuple(torch.from_numpy(first[n].astype(np.float32)).var((0, 2, 3)) for n in ("t16", "t32"))  # type: ignore[return-value]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Weights and norm statistics drift towards the model's."""
    ours, theirs = ema.state_dict(), model.state_dict()
    moving = [k for k, v in ours.items() if v.is_floating_point()]
    torch._foreach_lerp_([ours[k] for k in moving], [theirs[k] for k in moving], 1 - decay)


class Run:
    """A folder with the state of a run: one file with weights, average and moments, replaced as a whole."""

    def __init__(self, folder: Path, config: DistilConfig) -> None:
        self.folder, self.config = folder, config
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / f"{config.phase}.safetensors"

    def log(self, row: dict[str, object]) -> None:
        """One JSON line, also printed."""
        line = json.dumps({"phase": self.config.phase, "time": time.strftime("%H:%M:%S"), **row})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def save(self, step: int, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Under a temporary name first, then renamed."""
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
        for index, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"moment.{index}.{k}": torch.as_tensor(v) for k, v in entry.items()}
        part = self.state.with_suffix(".part")
        meta = {"step": str(step), "config": json.dumps(asdict(self.config))}
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, meta)
        os.replace(part, self.state)

    def resume(self, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, init: str | None) -> int:
        """The next step: from this phase's own state, else 0 from the average of `init`, else 0 from public weights."""
        source = self.state if self.state.exists() else Path(init) if init else None
        if source is None:
            return 0
        tensors = load_file(source)
        if source != self.state:
            averaged = _below(tensors, "ema.")
            model.load_state_dict(averaged)
            ema.load_state_dict(averaged)
            return 0
        model.load_state_dict(_below(tensors, "model."))
        ema.load_state_dict(_below(tensors, "ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "moment.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(_metadata(source)["step"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata())


# ------------------------------------------------------------------------------------------------------------ commands


def training_pictures(data: Path) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(train: labelled without the tune split, then unlabelled; tune) of the data folder."""
    train_part, tune = split_tune(load_coco(data / "coco_train.json").pictures)
    return (*train_part, *load_unlabelled(data / "unlabelled")), tuple(tune)


def cache_command(args: argparse.Namespace) -> None:
    """Write the missing shards."""
    pictures, _ = training_pictures(Path(args.data))
    job = CacheJob(pictures, Path(args.cache), Path(args.teacher), 0, 416)
    write_cache(job, views=args.views, workers=args.workers)


def train_command(args: argparse.Namespace) -> None:
    """One phase, on one or several processes."""
    if args.processes == 1:
        return train(0, 1, args)
    Path(args.run).mkdir(parents=True, exist_ok=True)
    (Path(args.run) / "rendezvous").unlink(missing_ok=True)
    mp.spawn(train, (args.processes, args), args.processes)


def export_command(args: argparse.Namespace) -> None:
    """Measure the average of a state file and write it as weights that ship."""
    data, state = Path(args.data), Path(args.state)
    model = build_model(ledetr_n()).eval()
    model.load_state_dict(_below(load_file(state), "ema."))
    _, tune = training_pictures(data)
    info = WeightsInfo(
        name="n",
        config=model.config,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input_hw=model.config.input_hw,
        started_from="EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) for the trunk; DEIMv2-Femto (all of COCO train2017, "
        "Apache-2.0, Intellindust-AI-Lab/DEIMv2) for fusion and decoder, and as the teacher of the feature maps",
        trained_on="2555 labelled COCO pictures (most from val2017) and 3300 unlabelled photographs, as cached views",
        command=args.note,
        licence="Apache-2.0",
    )
    parts = read_coco(data / "coco_train.json")
    tune_set = only_pictures(parts, {p.key for p in tune})
    info, scores = release(
        model, info, Path(args.output), tune=tune_set, held_out=data / "coco_val_dev.json", quick=args.quick
    )
    print(json.dumps({"threshold": info.score_threshold, **scores.figures, "interval": scores.interval}))


def main() -> None:
    """Commands of this file."""
    parser = argparse.ArgumentParser(prog="python -m training.distil", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    cache = commands.add_parser("cache")
    cache.set_defaults(run_command=cache_command)
    cache.add_argument("--data", required=True)
    cache.add_argument("--teacher", required=True)
    cache.add_argument("--cache", required=True)
    cache.add_argument("--views", type=int, default=25600)
    cache.add_argument("--workers", type=int, default=2)
    phase = commands.add_parser("train")
    phase.set_defaults(run_command=train_command)
    for name in ("--cache", "--teacher", "--run"):
        phase.add_argument(name, required=True)
    phase.add_argument("--phase", choices=("maps", "boxes"), required=True)
    phase.add_argument("--steps", type=int, required=True)
    phase.add_argument("--minutes", type=float, default=1e9)
    phase.add_argument("--init", help="state file of an earlier phase, whose average is the start")
    phase.add_argument("--processes", type=int, default=1)
    phase.add_argument("--threads", type=int, default=2)
    phase.add_argument("--nice", type=int, default=0)
    export = commands.add_parser("export")
    export.set_defaults(run_command=export_command)
    for name in ("--state", "--data", "-o/--output"):
        export.add_argument(*name.split("/"), required=True)
    export.add_argument("--note", default="python -m training.distil", help="how it was trained, for the card")
    export.add_argument("--quick", action="store_true", help="only print the figures of the held-out pictures")
    args = parser.parse_args()
    args.run_command(args)


if __name__ == "__main__":
    main()
