"""The stacked, masked criterion against loops over pictures, queries and edges in plain Python floats.

The reference knows no tensor trick: it is written from the formulas alone, finds its own pairs, and holds constant
what the formulas call detached by evaluating those parts at a second, frozen set of values. That also makes its
numerical derivative the right thing to compare the gradient with.
"""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.utils._python_dispatch import TorchDispatchMode

from ledetr.losses.criterion import LossConfig, criterion
from ledetr.losses.denoising import DenoisingConfig, make_denoising
from ledetr.losses.targets import Targets
from ledetr.model.outputs import QueryOutputs, TrainOutputs

BATCH, QUERIES, CLASSES, SLOTS, NOISY, REG_MAX, LAYERS = 5, 7, 3, 6, 12, 8, 3
COUNTS = [0, 1, SLOTS, 3, 2]
DOUBLE = 1e-9  # two ways to sum a few thousand float64 numbers
OPERATORS = 600  # dispatched operators of one forward pass; views count too


# --- the reference -------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def corners_of(box):
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def overlaps(a, b):
    """IoU and GIoU of two cxcywh boxes."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = corners_of(a), corners_of(b)
    inter = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
    hull = (max(ax2, bx2) - min(ax1, bx1)) * (max(ay2, by2) - min(ay1, by1))
    return inter / union, inter / union - (hull - union) / hull


def cross_entropy(logit, target):
    return -(target * math.log(sigmoid(logit)) + (1 - target) * math.log(1 - sigmoid(logit)))


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [value / sum(powers) for value in powers]


def bins(up=0.5, scale=4.0, r=REG_MAX):
    a = up * scale
    s = (a + 1) ** (2 / (r - 2))
    middle = r // 2
    low = [-2 * a] + [1 - s ** (middle - n) for n in range(1, middle)]
    return [*low, 0.0, *[s ** (n - middle) - 1 for n in range(middle + 1, r)], 2 * a]


def numpy_of(queries: QueryOutputs | None) -> dict | None:
    if queries is None:
        return None
    return {f.name: getattr(queries, f.name).detach().double().numpy().copy() for f in fields(queries)}


class Values:
    """A copy of all numbers of one forward pass, in float64."""

    def __init__(self, outputs: TrainOutputs):
        self.matching, self.denoising = numpy_of(outputs.matching), numpy_of(outputs.denoising)
        self.encoder_logits = outputs.encoder_logits.detach().double().numpy().copy()
        self.encoder_boxes = outputs.encoder_boxes_cxcywh.detach().double().numpy().copy()

    def heads(self):
        m = self.matching
        return [
            (self.encoder_logits, self.encoder_boxes),
            (m["pre_logits"], m["pre_boxes_cxcywh"]),
            *zip(m["logits"], m["boxes_cxcywh"], strict=True),
        ]

    def noisy_heads(self):
        d = self.denoising
        return [(d["pre_logits"], d["pre_boxes_cxcywh"]), *zip(d["logits"], d["boxes_cxcywh"], strict=True)]


def objects_of(targets: Targets, b: int) -> list[int]:
    return [t for t in range(targets.labels.shape[1]) if targets.valid[b, t]]


def slow_cost(logits, box, label, truth):
    p = sigmoid(logits[label])
    classification = 0.25 * (1 - p) ** 2 * -math.log(p + 1e-8) - 0.75 * p**2 * -math.log(1 - p + 1e-8)
    distance = sum(abs(u - v) for u, v in zip(box, truth, strict=True))
    return 2 * classification + 5 * distance - 2 * overlaps(box, truth)[1]


def slow_pairs(values: Values, targets: Targets):
    """For every head and picture a dict query -> object, and the union of them by votes."""
    own, union = [], []
    for logits, boxes in values.heads():
        own.append([])
        for b in range(len(logits)):
            objects = objects_of(targets, b)
            cost = np.array(
                [
                    [
                        slow_cost(
                            logits[b][q], boxes[b][q], int(targets.labels[b, t]), targets.boxes_cxcywh[b, t].tolist()
                        )
                        for t in objects
                    ]
                    for q in range(len(boxes[b]))
                ]
            ).reshape(len(boxes[b]), len(objects))
            rows, columns = linear_sum_assignment(cost)
            own[-1].append({int(q): objects[c] for q, c in zip(rows, columns, strict=True)})
    for b in range(len(own[0])):
        votes: dict[tuple[int, int], list[int]] = {}
        for depth, head in enumerate(own):
            for q, t in head[b].items():
                votes.setdefault((q, t), []).append(depth)
        chosen = {}
        for q in {q for q, _ in votes}:
            ballots = [(len(depths), max(depths), t) for (other, t), depths in votes.items() if other == q]
            chosen[q] = max(ballots)[2]
        union.append(chosen)
    return own, union


def ignored(box, targets: Targets, b: int) -> bool:
    if targets.ignore_xyxy is None:
        return False
    x1, y1, x2, y2 = corners_of(box)
    for i in range(targets.ignore_xyxy.shape[1]):
        if targets.ignore_valid[b, i]:
            u1, v1, u2, v2 = targets.ignore_xyxy[b, i].tolist()
            inter = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
            if inter / ((x2 - x1) * (y2 - y1)) > 0.5:
                return True
    return False


def slow_class(head, frozen, pairs, targets, config, exists):
    """Sum of the class loss of one head over all pictures."""
    total = 0.0
    for b, picture in enumerate(pairs):
        for q, logits in enumerate(head[0][b]):
            if not exists(b, q):
                continue
            t = picture.get(q)
            u = 0.0 if t is None else overlaps(frozen[1][b][q], targets.boxes_cxcywh[b, t].tolist())[0]
            for c, logit in enumerate(logits):
                if t is not None and c == int(targets.labels[b, t]):
                    target, weight = (u**1.5, 1.0) if config.class_kind == "mal" else (u, u)
                    total += float(targets.weight[b, t]) * weight * cross_entropy(logit, target)
                elif not ignored(frozen[1][b][q], targets, b) and (
                    targets.annotated is None or targets.annotated[b, c]
                ):
                    p = sigmoid(frozen[0][b][q][c])
                    total += (p**1.5 if config.class_kind == "mal" else 0.75 * p**2) * cross_entropy(logit, 0.0)
    return total


def slow_boxes(boxes, pairs, targets):
    distance = overlap = 0.0
    for b, picture in enumerate(pairs):
        for q, t in picture.items():
            truth, weight = targets.boxes_cxcywh[b, t].tolist(), float(targets.weight[b, t])
            distance += weight * sum(abs(u - v) for u, v in zip(boxes[b][q], truth, strict=True))
            overlap += weight * (1 - overlaps(boxes[b][q], truth)[1])
    return distance, overlap


def slow_fgl(corners, initial, frozen_boxes, pairs, targets, scale=4.0):
    grid, total = bins(), 0.0
    for b, picture in enumerate(pairs):
        for q, t in picture.items():
            truth = targets.boxes_cxcywh[b, t].tolist()
            x1, y1, x2, y2 = corners_of(truth)
            cx, cy, w, h = initial[b][q]
            left, top = (cx - x1) * scale / w - scale / 2, (cy - y1) * scale / h - scale / 2
            right, bottom = (x2 - cx) * scale / w - scale / 2, (y2 - cy) * scale / h - scale / 2
            u = overlaps(frozen_boxes[b][q], truth)[0] * float(targets.weight[b, t])
            for edge, distance in enumerate([left, top, right, bottom]):
                p = softmax(corners[b][q].reshape(4, -1)[edge])
                if distance < grid[0]:
                    n, wr = 0, 0.0
                elif distance >= grid[-1]:
                    n, wr = REG_MAX - 1, 1.0
                else:
                    n = max(i for i in range(REG_MAX) if grid[i] <= distance)
                    wr = (distance - grid[n]) / (grid[n + 1] - grid[n])
                total += u * ((1 - wr) * -math.log(p[n]) + wr * -math.log(p[n + 1]))
    return total


def slow_ddf(student, teacher, last_logits, student_boxes, pairs, targets, exists, mix=None):
    """One student layer; also the numbers of matched and other edges, which the denoising part takes from elsewhere."""
    matched, others = [], []
    for b, picture in enumerate(pairs):
        for q in range(len(student[b])):
            if not exists(b, q):
                continue
            if q in picture:
                weight = overlaps(student_boxes[b][q], targets.boxes_cxcywh[b, picture[q]].tolist())[0]
            else:
                weight = max(sigmoid(x) for x in last_logits[b][q])
            for edge in range(4):
                t = softmax(teacher[b][q].reshape(4, -1)[edge], 5.0)
                s = softmax(student[b][q].reshape(4, -1)[edge], 5.0)
                divergence = sum(x * math.log(x / y) for x, y in zip(t, s, strict=True)) * 25 * weight
                (matched if q in picture else others).append(divergence)
    p, n = mix or (len(matched) * 8 / len(pairs), len(others) * 8 / len(pairs))
    a, b = (sum(part) / len(part) if part else 0.0 for part in (matched, others))
    return (a * math.sqrt(p) + b * math.sqrt(n)) / (math.sqrt(p) + math.sqrt(n)), (p, n)


def reference(values: Values, frozen: Values, targets: Targets, config: LossConfig, denoising=None, pairs=None):
    """The ten weighted terms, from `values`, with everything detached taken from `frozen`."""
    own, union = pairs or slow_pairs(frozen, targets)
    objects = max(1.0, sum(float(targets.weight[b, t]) for b in range(len(union)) for t in objects_of(targets, b)))
    num_union = max(1.0, sum(float(targets.weight[b, t]) for b, p in enumerate(union) for t in p.values()))

    def always(b, q):
        return True

    losses = dict.fromkeys(["class", "l1", "giou", "fgl", "ddf"], 0.0)
    for head, frozen_head, head_pairs in zip(values.heads(), frozen.heads(), own, strict=True):
        losses["class"] += slow_class(head, frozen_head, head_pairs, targets, config, always) / objects
        distance, overlap = slow_boxes(head[1], union, targets)
        losses["l1"] += 5 * distance / num_union
        losses["giou"] += 2 * overlap / num_union
    m, f = values.matching, frozen.matching
    mix = None
    for layer in range(len(m["corners"])):
        fgl = slow_fgl(m["corners"][layer], f["initial_boxes_cxcywh"], f["boxes_cxcywh"][layer], union, targets)
        losses["fgl"] += 0.15 * fgl / num_union
        if layer < len(m["corners"]) - 1:
            teacher, last = f["corners"][-1], f["logits"][-1]
            ddf, mix = slow_ddf(m["corners"][layer], teacher, last, f["boxes_cxcywh"][layer], union, targets, always)
            losses["ddf"] += 1.5 * ddf
    if denoising is not None:
        losses |= noisy_reference(values, frozen, targets, config, denoising, mix)
    return losses


def noisy_reference(values, frozen, targets, config, denoising, mix):
    pairs = [
        {q: int(denoising.target[b, q]) for q in range(denoising.group.shape[1]) if denoising.positive[b, q]}
        for b in range(len(denoising.group))
    ]

    def exists(b, q):
        return int(denoising.group[b, q]) >= 0

    count = max(1.0, sum(float(targets.weight[b, t]) for b, p in enumerate(pairs) for t in p.values()))
    losses = dict.fromkeys([f"denoising_{name}" for name in ("class", "l1", "giou", "fgl", "ddf")], 0.0)
    for head, frozen_head in zip(values.noisy_heads(), frozen.noisy_heads(), strict=True):
        losses["denoising_class"] += slow_class(head, frozen_head, pairs, targets, config, exists) / count
        distance, overlap = slow_boxes(head[1], pairs, targets)
        losses["denoising_l1"] += 5 * distance / count
        losses["denoising_giou"] += 2 * overlap / count
    d, f = values.denoising, frozen.denoising
    for layer in range(len(d["corners"])):
        fgl = slow_fgl(d["corners"][layer], f["initial_boxes_cxcywh"], f["boxes_cxcywh"][layer], pairs, targets)
        losses["denoising_fgl"] += 0.15 * fgl / count
        if layer < len(d["corners"]) - 1:
            ddf, _ = slow_ddf(
                d["corners"][layer],
                f["corners"][-1],
                f["logits"][-1],
                f["boxes_cxcywh"][layer],
                pairs,
                targets,
                exists,
                mix,
            )
            losses["denoising_ddf"] += 1.5 * ddf
    return losses


# --- the tests -----------------------------------------------------------------------------------------------------


def case(synthetic, counts=COUNTS, *, layers=LAYERS, seed=0, noisy=NOISY, soft=False, ignore=None, slots=SLOTS):
    targets = synthetic.targets(
        counts, slots=slots, classes=CLASSES, seed=seed, soft=soft, ignore=ignore, dtype=torch.float64
    )
    outputs = synthetic.outputs(
        layers, len(counts), QUERIES, CLASSES, slots=noisy, reg_max=REG_MAX, seed=seed, dtype=torch.float64
    )
    if noisy is None:
        return targets, outputs, None
    config = DenoisingConfig(classes=CLASSES, slots=noisy)
    return targets, outputs, make_denoising(targets, config, torch.Generator().manual_seed(seed))


def assert_equal_terms(losses, expected):
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=DOUBLE, abs=DOUBLE), name
    assert losses["total"].item() == pytest.approx(sum(expected.values()), rel=DOUBLE)


@pytest.mark.parametrize("kind", ["mal", "vfl"])
@pytest.mark.parametrize("layers", [1, 3, 6])
def test_every_term_equals_the_slow_reference(synthetic, layers, kind):
    for seed in range(3):
        targets, outputs, denoising = case(synthetic, layers=layers, seed=seed)
        config = LossConfig(class_kind=kind)
        values = Values(outputs)
        assert_equal_terms(
            criterion(outputs, targets, config, denoising), reference(values, values, targets, config, denoising)
        )


@pytest.mark.parametrize("counts", [[0], [1], [SLOTS], [0, 0, 0], [0, SLOTS], [1, 0, 1]])
def test_pictures_with_no_one_and_all_objects(synthetic, counts):
    targets, outputs, denoising = case(synthetic, counts)
    values = Values(outputs)
    losses = criterion(outputs, targets, LossConfig(), denoising)
    if sum(counts):
        assert_equal_terms(losses, reference(values, values, targets, LossConfig(), denoising))
    assert losses["total"].isfinite()


def test_more_objects_than_queries(synthetic):
    targets, outputs, denoising = case(synthetic, [10, 2], slots=10)
    values = Values(outputs)
    losses = criterion(outputs, targets, LossConfig(), denoising)
    # 10 objects need 20 noisy slots and 12 are there: which six got in is for the denoising tests, not for this one
    assert_equal_terms(losses, reference(values, values, targets, LossConfig(), denoising))


def test_soft_labels_crowds_and_classes_nobody_looked_for(synthetic):
    targets, outputs, denoising = case(synthetic, seed=4, soft=True, ignore=[1, 0, 2, 4, 1])
    annotated = torch.ones(BATCH, CLASSES, dtype=torch.bool)
    annotated[1, 0] = annotated[3, 2] = False
    targets = replace(targets, annotated=annotated)
    values = Values(outputs)
    expected = reference(values, values, targets, LossConfig(), denoising)
    assert_equal_terms(criterion(outputs, targets, LossConfig(), denoising), expected)
    without = reference(values, values, replace(targets, ignore_xyxy=None, ignore_valid=None), LossConfig(), denoising)
    assert without["class"] > expected["class"]  # or the regions covered nobody and nothing was tested


def test_a_batch_of_two_has_the_sums_of_its_pictures(synthetic):
    """Masked sums must not leak between pictures: with the normalisers undone, the terms add up."""
    targets, outputs, _ = case(synthetic, [3, 2], noisy=None)

    def cut(value, b):
        if isinstance(value, QueryOutputs):
            parts = {f.name: getattr(value, f.name) for f in fields(value)}
            batch_axis = {"logits": 1, "boxes_cxcywh": 1, "corners": 1}
            return QueryOutputs(**{k: v.narrow(batch_axis.get(k, 0), b, 1) for k, v in parts.items()})
        return value

    both = criterion(outputs, targets, LossConfig())
    single = []
    for b in range(2):
        one = replace(
            outputs,
            matching=cut(outputs.matching, b),
            encoder_logits=outputs.encoder_logits[b : b + 1],
            encoder_boxes_cxcywh=outputs.encoder_boxes_cxcywh[b : b + 1],
        )
        picture = Targets(**{k: v[b : b + 1] for k, v in vars(targets).items() if v is not None})
        single.append(criterion(one, picture, LossConfig())["class"] * [3, 2][b])
    assert both["class"].item() * 5 == pytest.approx(sum(single).item(), rel=DOUBLE)


def test_gradient_equals_the_derivative_of_the_reference(synthetic):
    targets, outputs, denoising = case(synthetic, [0, 2, 4], soft=True, ignore=[0, 1, 1], seed=7)
    config, frozen = LossConfig(), Values(outputs)
    leaves = synthetic.leaves(outputs)
    gradients = torch.autograd.grad(criterion(outputs, targets, config, denoising)["total"], leaves)
    pairs, generator, step = slow_pairs(frozen, targets), torch.Generator().manual_seed(1), 1e-6
    for _ in range(3):
        directions = [torch.randn(leaf.shape, generator=generator, dtype=torch.float64) for leaf in leaves]
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for leaf, direction in zip(leaves, directions, strict=True):
                    leaf.add_(direction, alpha=sign * step)
                moved = Values(outputs)
                for leaf, direction in zip(leaves, directions, strict=True):
                    leaf.sub_(direction, alpha=sign * step)
            sides.append(sum(reference(moved, frozen, targets, config, denoising, pairs).values()))
        expected = (sides[0] - sides[1]) / (2 * step)
        actual = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
        assert actual == pytest.approx(expected, rel=1e-6)  # central difference in float64: error of step^2


def test_half_precision_outputs_are_treated_in_float32(synthetic):
    targets = synthetic.targets(COUNTS, slots=SLOTS, classes=CLASSES)
    outputs = synthetic.outputs(LAYERS, BATCH, QUERIES, CLASSES, reg_max=REG_MAX)
    halved = replace(
        outputs,
        matching=QueryOutputs(**{f.name: getattr(outputs.matching, f.name).bfloat16() for f in fields(QueryOutputs)}),
        encoder_logits=outputs.encoder_logits.bfloat16(),
        encoder_boxes_cxcywh=outputs.encoder_boxes_cxcywh.bfloat16(),
    )
    widened = replace(
        outputs,
        matching=QueryOutputs(**{f.name: getattr(halved.matching, f.name).float() for f in fields(QueryOutputs)}),
        encoder_logits=halved.encoder_logits.float(),
        encoder_boxes_cxcywh=halved.encoder_boxes_cxcywh.float(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = criterion(halved, targets, LossConfig())
    full = criterion(widened, targets, LossConfig())
    for name in full:
        assert half[name].item() == full[name].item(), name


def test_float32_is_close_to_the_float64_reference(synthetic):
    targets = synthetic.targets(COUNTS, slots=SLOTS, classes=CLASSES)
    outputs = synthetic.outputs(LAYERS, BATCH, QUERIES, CLASSES, reg_max=REG_MAX)
    values = Values(outputs)
    losses = criterion(outputs, targets, LossConfig())
    for name, value in reference(values, values, targets, LossConfig()).items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5), name


def test_batch_without_any_object(synthetic):
    targets, outputs, denoising = case(synthetic, [0, 0, 0])
    losses = criterion(outputs, targets, LossConfig(), denoising)
    assert (denoising.group == -1).all()
    for name in ("l1", "giou", "fgl"):
        assert losses[name] == 0 and losses[f"denoising_{name}"] == 0
    assert losses["denoising_class"] == 0 and losses["denoising_ddf"] == 0
    assert losses["class"] > 0 and losses["ddf"] > 0  # every query is background and says so
    gradients = torch.autograd.grad(losses["total"], synthetic.leaves(outputs))  # all are in the graph
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_non_finite_values_are_returned_and_counted(synthetic):
    targets, outputs, denoising = case(synthetic)
    with torch.no_grad():
        outputs.matching.logits[1, 2, 3, :] = float("nan")
    losses = criterion(outputs, targets, LossConfig(), denoising)
    assert losses["total"].isnan() and losses["class"].isnan()
    assert losses["bad_costs"] == SLOTS  # one query, all objects of picture 2, in one head
    assert losses["bad_losses"] == 1
    for name in ("l1", "giou", "fgl", "denoising_class"):
        assert losses[name].isfinite()


def test_losses_by_head_add_up(synthetic):
    targets, outputs, denoising = case(synthetic)
    losses = criterion(outputs, targets, LossConfig(), denoising, by_head=True)
    heads = {"encoder", "pre", "layer1", "layer2", "layer3"}
    assert {name.split("/")[1] for name in losses if name.startswith("class/")} == heads
    assert {name.split("/")[1] for name in losses if name.startswith("denoising_l1/")} == heads - {"encoder"}
    assert {name.split("/")[1] for name in losses if name.startswith("ddf/")} == {"layer1", "layer2"}
    for term in ("class", "giou", "fgl", "ddf", "denoising_class", "denoising_ddf"):
        parts = sum(value for name, value in losses.items() if name.startswith(f"{term}/"))
        assert parts.item() == pytest.approx(losses[term].item(), rel=DOUBLE)


def test_two_processes_average_to_one(synthetic):
    """Losses with averaged normalisers, averaged over processes, are the losses of the whole batch."""
    targets, outputs, denoising = case(synthetic, [0, 0, SLOTS, 3])
    whole = criterion(outputs, targets, LossConfig(), denoising)

    def half(value, start):
        if value is None or isinstance(value, torch.Tensor):
            return value if value is None or value.shape[0] != 4 else value[start : start + 2]
        axis = {"logits": 1, "boxes_cxcywh": 1, "corners": 1} if isinstance(value, QueryOutputs) else {}
        return type(value)(
            **{k: None if v is None else v.narrow(axis.get(k, 0), start, 2) for k, v in vars(value).items()}
        )

    def run(start, average):
        part = TrainOutputs(
            matching=half(outputs.matching, start),
            denoising=half(outputs.denoising, start),
            encoder_logits=half(outputs.encoder_logits, start),
            encoder_boxes_cxcywh=half(outputs.encoder_boxes_cxcywh, start),
            dense_logits=outputs.dense_logits,
            anchors_cxcywh=outputs.anchors_cxcywh,
            anchor_valid=outputs.anchor_valid,
        )
        return criterion(part, half(targets, start), LossConfig(), half(denoising, start), average=average)

    counts = []
    for start in (0, 2):
        run(start, lambda vector: counts.append(vector) or vector)
    mean = torch.stack(counts).mean(0)
    parts = [run(start, lambda vector: mean) for start in (0, 2)]
    for name in ("total", "class", "l1", "giou", "fgl", "ddf", "denoising_class", "denoising_fgl", "denoising_ddf"):
        assert sum(part[name] for part in parts).item() / 2 == pytest.approx(whole[name].item(), rel=DOUBLE), name


def test_denoising_outputs_need_their_queries(synthetic):
    targets, outputs, _ = case(synthetic)
    with pytest.raises(ValueError, match="need the queries themselves"):
        criterion(outputs, targets, LossConfig())


class CountOperators(TorchDispatchMode):
    """Names of all operators that reach the dispatcher, views included."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["mal", "vfl"])
@pytest.mark.parametrize("layers", [1, 3, 6])
def test_number_of_operators_does_not_grow_with_layers(synthetic, layers, kind):
    targets, outputs, denoising = case(synthetic, layers=layers, ignore=[1] * BATCH)
    with CountOperators() as counted:
        criterion(outputs, targets, LossConfig(class_kind=kind), denoising)
    assert len(counted.names) <= OPERATORS, len(counted.names)
    # what makes a device wait, or makes shapes depend on values
    forbidden = ("nonzero", "_local_scalar_dense", "masked_select", "is_nonzero", "equal.default", "unique")
    assert not [name for name in counted.names if any(word in name for word in forbidden)]


def test_no_value_is_read_outside_the_assignment(synthetic):
    """On a device without values a read would raise: shapes and graph cannot depend on what is in the tensors."""
    targets, outputs, denoising = case(synthetic, ignore=[1] * BATCH)

    def bare(value):
        if isinstance(value, torch.Tensor):
            return value.to("meta")
        return None if value is None else type(value)(**{k: bare(v) for k, v in vars(value).items()})

    def assign(cost, valid):
        return torch.empty(cost.shape[:3], dtype=torch.int64, device=cost.device)

    losses = criterion(bare(outputs), bare(targets), LossConfig(), bare(denoising), assign=assign, by_head=True)
    assert losses["total"].is_meta and losses["denoising_ddf/layer1"].shape == ()
