"""Distillation of N: the student's maps, what they are compared with, and the losses of one step.

B batch, C classes. c3, c4: maps of the frozen lower trunk at strides 8 and 16; t16, t32: the teacher's encoder maps.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ledetr.losses.criterion import LossConfig, criterion
from ledetr.losses.denoising import DenoisingConfig, make_denoising
from ledetr.losses.targets import Targets
from ledetr.model.backbone import LiteNat, NeighborhoodMixer
from ledetr.model.boxes import cxcywh_to_xyxy, iou_and_giou
from ledetr.model.config import ledetr_n
from ledetr.model.decoder import Decoder
from ledetr.model.encoder import SumEncoder
from ledetr.model.ledetr import LeDetr, build_model
from ledetr.model.outputs import TrainOutputs
from training.distil_cache import FIRST_TRAINED_STAGE, MAX_BOXES
from training.teachers import load_femto_decoder, load_femto_fusion, load_lite0

# How many positions the two decoders are compared at; most of the rest is background for both.
ANSWERED_POSITIONS = 120
# D-FINE's weights of the box losses beside a class loss of weight one (arXiv:2410.13842).
L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
# Weight of a position where the teacher sees nothing, before the mean is brought to one.
BACKGROUND_WEIGHT = 0.3
MIXER_START = 0.1


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """maps: squared error to the teacher's maps. dense: class scores of every position. boxes: detection losses.

    answers: what the decoder makes of the student's maps against what the teacher's makes of its own.
    teacher_score: from which score on a detection of the teacher counts as an object of an unlabelled view.
    """

    maps: float = 1.0
    dense: float = 0.5
    answers: float = 0.0
    boxes: float = 0.0
    teacher_score: float = 0.35


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher's decoder, and the variance of each channel of its two maps."""

    decoder: Decoder
    variances: tuple[Tensor, Tensor]


def starting_model(teacher: dict[str, Tensor]) -> LeDetr:
    """N with every public weight it can start from; `teacher` are the tensors of DEIMv2-Femto."""
    torch.manual_seed(0)
    model = build_model(ledetr_n())
    assert isinstance(model.backbone, LiteNat) and isinstance(model.encoder, SumEncoder)
    load_lite0(model.backbone)
    load_femto_decoder(model.decoder, teacher)
    load_femto_fusion(model.encoder, teacher)
    for module in model.backbone.modules():
        if isinstance(module, NeighborhoodMixer):
            assert isinstance(module.na_norm, nn.BatchNorm2d)
            # Zero would leave what the norm scales without gradient; a tenth lets the attention learn at once.
            nn.init.constant_(module.na_norm.weight, MIXER_START)
    return model


def set_training_mode(model: LeDetr, first_stage: int, *, decoder: bool) -> None:
    """Free what is trained from `first_stage` on, and the decoder if asked.

    Only what is new estimates its norms from the batch; pretrained norms keep their statistics, but scale and shift.
    """
    model.train()
    encoder, backbone = model.encoder, model.backbone
    assert isinstance(encoder, SumEncoder)
    pretrained = (backbone, encoder.pool, encoder.global_fusion, encoder.top_down, encoder.down, encoder.bottom_up)
    for part in pretrained:
        for module in part.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    for module in backbone.modules():
        if isinstance(module, NeighborhoodMixer):
            module.na_norm.train()
    backbone.stem.requires_grad_(False)
    for i, stage in enumerate(backbone.stages):
        stage.requires_grad_(i >= first_stage)
    model.decoder.requires_grad_(decoder)


def student_maps(model: LeDetr, batch: dict[str, Tensor], first_stage: int) -> list[Tensor]:
    """The encoder's two maps from cached ones: of stride 16 (stage 5 is trained) or of stride 8 (stages 3 to 5)."""
    assert isinstance(model.backbone, LiteNat)
    if first_stage == FIRST_TRAINED_STAGE:
        coarse = [batch["c4"], *model.backbone.forward_from(batch["c4"], first_stage)]
    else:
        coarse = model.backbone.forward_from(batch["c3"], first_stage)
    maps: list[Tensor] = model.encoder([batch["c3"], *coarse])
    return maps


def map_losses(student: list[Tensor], wanted: tuple[Tensor, Tensor], teacher: Teacher) -> tuple[Tensor, Tensor]:
    """Squared error to the teacher's maps, in units of its variance, and cross-entropy to its dense class scores.

    Both count a position more the surer the teacher is that something is there: most positions are background.
    """
    error, entropy = wanted[0].new_zeros(()), wanted[0].new_zeros(())
    score = teacher.decoder.encoder_score
    for ours, theirs, variance in zip(student, wanted, teacher.variances, strict=True):
        with torch.no_grad():
            target = score(theirs.flatten(2).transpose(1, 2)).sigmoid()
            weight = BACKGROUND_WEIGHT + target.amax(-1).sqrt()
            weight = weight / weight.mean()
        squared = ((ours.float() - theirs).square() / variance[None, :, None, None]).mean(1).flatten(1)
        error = error + (squared * weight).mean()
        logits = score(ours.float().flatten(2).transpose(1, 2))
        # Focal in the difference, so that the many easy negatives are silent.
        focal = (logits.sigmoid() - target).abs().detach()
        crossed = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * focal
        entropy = entropy + crossed.sum() / target.sum().clamp(min=1)
    return error, entropy


def answer_losses(decoder: Decoder, student: list[Tensor], wanted: list[Tensor], teacher: Teacher) -> Tensor:
    """Class scores and boxes of every decoder layer against the teacher's, at the positions that either finds best.

    Both decoders start from the same positions, so nothing is matched: query i answers for query i. Positions that
    only the student ranks high are among them, with the teacher's low score as their target.
    """
    score = teacher.decoder.encoder_score
    with torch.no_grad():
        best = [
            torch.cat([score(m.float().flatten(2).transpose(1, 2)).amax(-1) for m in maps], 1)
            for maps in (student, wanted)
        ]
        positions = torch.maximum(*best).topk(min(ANSWERED_POSITIONS, best[0].shape[1]), 1).indices
        theirs = teacher.decoder.answers_at(wanted, positions)
        target = theirs.logits.sigmoid()
        sure = target.amax(-1)
    ours = decoder.answers_at(student, positions)
    focal = (ours.logits.sigmoid() - target).abs().detach()
    crossed = F.binary_cross_entropy_with_logits(ours.logits, target, reduction="none") * focal
    _, giou = iou_and_giou(cxcywh_to_xyxy(ours.boxes_cxcywh), cxcywh_to_xyxy(theirs.boxes_cxcywh))
    distance = (ours.boxes_cxcywh - theirs.boxes_cxcywh).abs().sum(-1)
    boxes = sure * (L1_WEIGHT * distance + GIOU_WEIGHT * (1 - giou))
    return (crossed.sum() + boxes.sum()) / sure.sum().clamp(min=1)


@torch.no_grad()
def targets_of(batch: dict[str, Tensor], teacher: Teacher, teacher_score: float) -> Targets:
    """True boxes of labelled views; the teacher's detections, weighted by their score, of the others."""
    logits, boxes = teacher.decoder([batch["t16"], batch["t32"]])
    scores, flat = logits.sigmoid().flatten(1).topk(MAX_BOXES, 1)
    queries, found_labels = flat // logits.shape[2], flat % logits.shape[2]
    found_boxes = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    labelled, crowd, there = batch["labelled"][:, None], batch["crowd"], batch["labels"] >= 0
    return Targets(
        labels=torch.where(labelled, batch["labels"].long().clamp(min=0), found_labels),
        boxes_cxcywh=torch.where(labelled[..., None], batch["boxes"], found_boxes),
        valid=torch.where(labelled, there & ~crowd, scores >= teacher_score),
        weight=torch.where(labelled, torch.ones_like(scores), scores),
        ignore_xyxy=cxcywh_to_xyxy(batch["boxes"]),
        ignore_valid=crowd & there & labelled,
    )


def step_losses(
    model: LeDetr,
    batch: dict[str, Tensor],
    teacher: Teacher,
    weights: LossWeights,
    *,
    first_stage: int,
    noise_seed: int,
) -> dict[str, Tensor]:
    """The losses of one step, unweighted, and their weighted sum under "total"."""
    device = batch["c3"].device.type
    with torch.autocast(device, dtype=torch.bfloat16):
        maps = student_maps(model, batch, first_stage)
    error, dense = map_losses(maps, (batch["t16"], batch["t32"]), teacher)
    losses = {"maps": error, "dense": dense, "total": weights.maps * error + weights.dense * dense}
    if weights.answers > 0:
        wanted = [batch["t16"], batch["t32"]]
        losses["answers"] = answer_losses(model.decoder, [m.float() for m in maps], wanted, teacher)
        losses["total"] = losses["total"] + weights.answers * losses["answers"]
    if weights.boxes > 0:
        targets = targets_of(batch, teacher, weights.teacher_score)
        config = model.config.decoder
        noisy = make_denoising(
            targets,
            DenoisingConfig(classes=config.classes, slots=config.denoising),
            torch.Generator(device).manual_seed(noise_seed),
        )
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs = model.decoder(maps, noisy)
        assert isinstance(outputs, TrainOutputs)
        losses["boxes"] = criterion(outputs, targets, LossConfig(), noisy)["total"]
        losses["total"] = losses["total"] + weights.boxes * losses["boxes"]
    return losses
