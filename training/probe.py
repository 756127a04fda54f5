"""What a backbone's maps hold, on pictures it never saw, beside a random trunk of the same shape.

    python -m training.probe BACKBONE.safetensors FOLDER [--val FOLDER] [--teacher lite0] [--imgsz 224]

Two figures for each trunk, both by ridge regression in closed form, so that no training of theirs can favour one:
the cosine between the teacher's maps and the best 1x1 adaptor of the trunk's, at strides 8, 16 and 32; and a linear
probe of the mean stride-32 map, on the labels of FOLDER or, without labels, on the teacher's answers. The adaptors are
fitted on the part of FOLDER that pretraining learns from and judged on the part that it holds out.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ledetr.errors import UsageError
from ledetr.model.backbone import build_backbone
from ledetr.model.config import ModelConfig
from training import edge
from training.backbone_file import load_backbone, read_backbone_info
from training.data.imagefolder import PictureSet, read_pictures, split
from training.launch import device_named
from training.pretrain import HELD_OUT_EVERY, SCALES
from training.pretrain_distil import STRIDES, Teacher, open_teacher
from training.pretrain_loop import estimate_norms, plain_batches

Maps = Callable[[Tensor], list[Tensor]]
"""From pixels (B, 3, H, W) float in 0..255 to the maps at strides 8, 16 and 32."""


class Ridge:
    """Least squares from rows (N, D) to rows (N, T) with a constant, by sums that never hold all rows.

    Columns are brought to one scale first, and `ridge` is the weight of the penalty by the number of rows.
    """

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge
        self.xx: Tensor | None = None
        self.xy: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """More rows."""
        wide = _with_one(x.double())
        xx, xy = wide.T @ wide, wide.T @ y.double()
        self.xx, self.xy = (xx, xy) if self.xx is None or self.xy is None else (self.xx + xx, self.xy + xy)

    def solve(self) -> Tensor:
        """(D + 1, T) float64 weights, the constant's last."""
        assert self.xx is not None and self.xy is not None
        rows = self.xx[-1, -1]
        mean = self.xx[-1, :-1] / rows
        scale = (self.xx.diagonal()[:-1] / rows - mean.square()).clamp(min=1e-12).sqrt()
        # rows of x become (x - mean) / scale: a change of basis, undone at the end
        basis = torch.zeros_like(self.xx)
        basis[:-1, :-1] = torch.diag(1 / scale)
        basis[-1, :-1], basis[-1, -1] = -mean / scale, 1.0
        inner = basis.T @ self.xx @ basis
        penalty = torch.full_like(mean, float(self.ridge * rows))
        inner = inner + torch.diag(F.pad(penalty, (0, 1)))
        solved: Tensor = torch.linalg.solve(inner, basis.T @ self.xy)
        return basis @ solved


def _with_one(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1), value=1.0)


def predicted(x: Tensor, weights: Tensor) -> Tensor:
    """(N, T) for rows (N, D)."""
    return _with_one(x.double()) @ weights


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What is asked of every trunk. fit and judge: pixels (b, 3, S, S) uint8 and labels (b,)."""

    fit: list[tuple[Tensor, Tensor]]
    judge: list[tuple[Tensor, Tensor]]
    classes: int
    """0: without labels."""
    teacher: Teacher
    device: torch.device

    @torch.no_grad()
    def figures(self, trunk: Maps) -> dict[str, float]:
        """cosine_8, _16, _32 and their mean; top1 and top5 of the linear probe; all in 0..1 but the cosines."""
        mean, std = self._teacher_scale()
        maps, answers = [Ridge() for _ in STRIDES], Ridge()
        for pixels, labels in self._moved(self.fit):
            mine, (theirs, logits) = trunk(pixels), self.teacher(pixels)
            for i, ridge in enumerate(maps):
                ridge.add(_rows(mine[i]), (_rows(theirs[i]) - mean[i]) / std[i])
            wanted = F.one_hot(labels, self.classes) if self.classes else logits - logits.mean(1, keepdim=True)
            answers.add(mine[-1].mean((2, 3)), wanted)
        weights, probe = [ridge.solve() for ridge in maps], answers.solve()
        sums, pictures = torch.zeros(len(STRIDES) + 2, dtype=torch.float64, device=self.device), 0
        for pixels, labels in self._moved(self.judge):
            mine, (theirs, logits) = trunk(pixels), self.teacher(pixels)
            for i in range(len(STRIDES)):
                guess, truth = predicted(_rows(mine[i]), weights[i]), (_rows(theirs[i]) - mean[i]) / std[i]
                sums[i] += F.cosine_similarity(guess, truth, dim=1).mean() * len(pixels)
            right = labels if self.classes else logits.argmax(1)
            scores = predicted(mine[-1].mean((2, 3)), probe)
            best = scores.topk(min(5, scores.shape[1])).indices == right[:, None]
            sums[-2] += best[:, 0].sum()
            sums[-1] += best.any(1).sum()
            pictures += len(pixels)
        found = dict(zip([*(f"cosine_{s}" for s in STRIDES), "top1", "top5"], (sums / pictures).tolist(), strict=True))
        return {**found, "cosine": sum(found[f"cosine_{s}"] for s in STRIDES) / len(STRIDES)}

    def _teacher_scale(self) -> tuple[list[Tensor], list[Tensor]]:
        """Mean and spread of each channel of the teacher's maps on the pictures to fit on."""
        rows: list[list[Tensor]] = [[] for _ in STRIDES]
        for pixels, _ in self._moved(self.fit):
            for kept, m in zip(rows, self.teacher(pixels)[0], strict=True):
                kept.append(_rows(m))
        joined = [torch.cat(kept) for kept in rows]
        return [m.mean(0) for m in joined], [m.std(0).clamp(min=1e-6) for m in joined]

    def _moved(self, batches: Sequence[tuple[Tensor, Tensor]]) -> "itertools.starmap[tuple[Tensor, Tensor]]":
        return itertools.starmap(lambda p, labels: (p.to(self.device).float(), labels.to(self.device)), batches)


def _rows(m: Tensor) -> Tensor:
    """(B * H * W, D) float64 of a map (B, D, H, W)."""
    return m.double().movedim(1, -1).flatten(0, -2)


def trunk_of(backbone: nn.Module, model: ModelConfig) -> Maps:
    """The backbone in eval mode with the scale of its pixels before it."""
    backbone.eval()
    return lambda pixels: list(backbone((pixels - model.pixel_mean) / model.pixel_std))


def random_trunk(model: ModelConfig, probe: Probe, seed: int) -> Maps:
    """Random weights, but with the batch statistics of the pictures: without them its maps would be all but 0."""
    torch.manual_seed(seed)
    backbone = build_backbone(model.backbone).to(probe.device)
    inputs = ((p.to(probe.device).float() - model.pixel_mean) / model.pixel_std for p, _ in probe.fit)
    estimate_norms(backbone, inputs)
    return trunk_of(backbone, model)


def table(rows: dict[str, dict[str, float]], probed: str) -> str:
    """The figures as a table in plain text."""
    heads = ("trunk", *(f"stride {s}" for s in STRIDES), "mean cosine", f"{probed} top-1", "top-5")
    keys = (*(f"cosine_{s}" for s in STRIDES), "cosine", "top1", "top5")
    lines = [heads, *((name, *(f"{row[key]:.3f}" for key in keys)) for name, row in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.probe", description="What a backbone's maps hold, beside a random trunk."
    )
    add = parser.add_argument
    add("backbone", type=Path, help="file of training.pretrain")
    add("data", type=Path, help="folder that pretraining was given, or any other")
    add("--val", type=Path, help=f"folder to judge by; default: every {HELD_OUT_EVERY}th picture of the folder")
    add("--teacher", default="lite0", help="lite0, lite2, ... or timm:NAME (default lite0)")
    add("--imgsz", type=int, default=224, help="side of the input, a multiple of 32 (default 224)")
    add("--fit-pictures", type=int, default=600, help="pictures to fit the adaptors on (default 600)")
    add("--seed", type=int, default=0, help="of the random trunk (default 0)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="CPU threads")
    add("--json", action="store_true", help="print one JSON document instead of a table")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(words)
    if args.imgsz % 32 or args.imgsz < 32 or args.fit_pictures < 1:
        parser.error("--imgsz must be a multiple of 32, --fit-pictures above 0")
    return args


def probe_of(args: argparse.Namespace) -> tuple[Probe, PictureSet]:
    """The question that a command line asks, and the pictures it is judged on."""
    teacher = open_teacher(args.teacher)
    data = read_pictures(args.data)
    if args.val is None:
        data, held_out = split(data, HELD_OUT_EVERY)
    else:
        held_out = read_pictures(args.val, data.class_names)
    if data.labelled != held_out.labelled:
        raise UsageError(f"one of {str(args.data)!r} and {str(args.val)!r} has class folders, the other has not")
    device = torch.device(device_named(args.device))
    probe = Probe(
        fit=list(plain_batches(data, args.imgsz, 1.0, args.fit_pictures)),
        judge=list(plain_batches(held_out, args.imgsz, 1.0)),
        classes=len(data.class_names),
        teacher=teacher.to(device),
        device=device,
    )
    return probe, held_out


def main(words: Sequence[str] | None = None) -> None:
    """Measure both trunks and print."""
    args = parse_arguments(words)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    info = read_backbone_info(args.backbone)
    if info.name not in SCALES:
        raise UsageError(f"{str(args.backbone)!r} is of the scale {info.name!r}; known are {', '.join(SCALES)}")
    model = SCALES[info.name]()
    backbone = build_backbone(model.backbone)
    load_backbone(args.backbone, backbone, model)
    probe, held_out = probe_of(args)
    rows = {
        args.backbone.stem: probe.figures(trunk_of(backbone.to(probe.device), model)),
        "random": probe.figures(random_trunk(model, probe, args.seed)),
    }
    pictures = len(held_out.entries)
    if args.json:
        print(json.dumps({"pictures": pictures, "teacher": args.teacher, "imgsz": args.imgsz, "trunks": rows}))
        return
    print(table(rows, "probe" if probe.classes else "agreement"))
    print(
        f"{pictures} held-out pictures at {args.imgsz} px; adaptors fitted on {sum(len(p) for p, _ in probe.fit)}; "
        f"cosines to {probe.teacher.name}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    edge.run(main)
