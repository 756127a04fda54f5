"""Denoising slots: structure, bounds of the noise, and where the randomness comes from."""

import pytest
import torch

from ledetr.losses.denoising import DenoisingConfig, make_denoising, uniform_numbers

CLASSES = 10
COUNTS = [0, 1, 3, 7, 100, 130]


def made(synthetic, counts=COUNTS, seed=0, **settings):
    targets = synthetic.targets(counts, slots=140, classes=CLASSES)
    config = DenoisingConfig(classes=CLASSES, **settings)
    return targets, make_denoising(targets, config, torch.Generator().manual_seed(seed))


def corners(boxes_cxcywh):
    return torch.cat(
        [boxes_cxcywh[..., :2] - boxes_cxcywh[..., 2:] / 2, boxes_cxcywh[..., :2] + boxes_cxcywh[..., 2:] / 2], -1
    )


def test_shape_never_depends_on_the_objects(synthetic):
    for counts in ([0, 0], [1, 100], [140, 140]):
        _, queries = made(synthetic, counts)
        assert queries.labels.shape == (2, 200) and queries.boxes_cxcywh.shape == (2, 200, 4)
        assert queries.boxes_cxcywh.isfinite().all()
        assert ((queries.boxes_cxcywh >= 0) & (queries.boxes_cxcywh <= 1)).all()


def test_groups_are_whole_sets_of_objects(synthetic):
    _, queries = made(synthetic)
    for b, count in enumerate(COUNTS):
        kept = min(count, 100)
        groups = 100 // kept if kept else 0
        assert queries.group[b].max().item() == groups - 1
        assert (queries.group[b] >= 0).sum() == 2 * kept * groups
        for group in range(groups):
            inside = queries.group[b] == group
            positive, negative = inside & queries.positive[b], inside & ~queries.positive[b]
            assert positive.sum() == negative.sum() == kept
            objects = queries.target[b][positive].sort().values
            assert len(objects.unique()) == kept and (objects < count).all()
            assert objects.equal(queries.target[b][negative].sort().values)


def test_empty_slots_are_marked(synthetic):
    _, queries = made(synthetic)
    empty = queries.group < 0
    assert empty[0].all() and empty[3].sum() == 200 - 2 * 7 * 14
    assert (queries.labels[empty] == CLASSES).all() and (queries.labels[~empty] < CLASSES).all()
    assert not queries.positive[empty].any() and (queries.target[empty] == 0).all()


def test_only_valid_objects_are_copied(synthetic):
    targets = synthetic.targets([6], slots=8, classes=CLASSES)
    targets.valid[0, [0, 3]] = False
    queries = make_denoising(targets, DenoisingConfig(classes=CLASSES), torch.Generator().manual_seed(0))
    assert set(queries.target[0][queries.group[0] >= 0].tolist()) == {1, 2, 4, 5}


def test_too_many_objects_keep_a_random_part(synthetic):
    _, first = made(synthetic, [130], seed=1)
    _, second = made(synthetic, [130], seed=2)
    assert set(first.target[0].tolist()) != set(second.target[0].tolist())
    assert len(set(first.target[0].tolist())) == 100


def test_positive_edges_move_less_and_negative_edges_more_than_half_a_side(synthetic):
    targets = synthetic.targets([3] * 50, slots=3, classes=CLASSES)
    # small boxes in the middle: no edge reaches the border, so nothing is clipped
    targets.boxes_cxcywh[..., :2] = targets.boxes_cxcywh[..., :2] * 0.2 + 0.4
    targets.boxes_cxcywh[..., 2:] *= 0.2
    queries = make_denoising(targets, DenoisingConfig(classes=CLASSES), torch.Generator().manual_seed(0))
    truth = targets.boxes_cxcywh.gather(1, queries.target[..., None].expand(-1, -1, 4))
    shift = (corners(queries.boxes_cxcywh) - corners(truth)).abs() / truth[..., 2:].repeat(1, 1, 2) * 2
    positive, negative = queries.positive, (queries.group >= 0) & ~queries.positive
    assert shift[positive].max() < 1 + 1e-4 and shift[positive].mean() == pytest.approx(0.5, abs=0.01)
    # an edge that passed the other one is pulled back to a box without extent: only those may have moved less
    flat = (queries.boxes_cxcywh[..., 2:] == 0).repeat(1, 1, 2)
    far = shift[negative][~flat[negative]]
    assert far.min() > 1 - 1e-4 and far.max() < 2 + 1e-4
    assert (shift[positive].sum() > 0) and flat[negative].float().mean() == pytest.approx(0.25, abs=0.02)
    assert not flat[positive].any()


def test_signs_of_all_edges_occur(synthetic):
    targets, queries = made(synthetic, [5])
    truth = targets.boxes_cxcywh.gather(1, queries.target[..., None].expand(-1, -1, 4))
    outwards = (corners(queries.boxes_cxcywh) > corners(truth))[queries.positive].float().mean(0)
    assert ((outwards > 0.3) & (outwards < 0.7)).all()


def test_a_quarter_of_the_labels_is_redrawn(synthetic):
    targets, queries = made(synthetic, [4] * 100)
    occupied = queries.group >= 0
    truth = targets.labels.gather(1, queries.target)
    changed = (queries.labels != truth)[occupied].float().mean().item()
    assert changed == pytest.approx(0.25 * (CLASSES - 1) / CLASSES, abs=0.01)
    redrawn = queries.labels[occupied & (queries.labels != truth)]
    assert redrawn.bincount(minlength=CLASSES).min() > 0.5 * len(redrawn) / CLASSES
    _, clean = made(synthetic, [4] * 10, label_noise=0.0)
    assert (clean.labels == targets.labels[:10].gather(1, clean.target))[clean.group >= 0].all()


def test_without_box_noise_the_boxes_are_the_objects(synthetic):
    targets, queries = made(synthetic, [4], box_noise=0.0)
    truth = targets.boxes_cxcywh.gather(1, queries.target[..., None].expand(-1, -1, 4))
    inside = (corners(truth) >= 0).all(-1) & (corners(truth) <= 1).all(-1) & (queries.group >= 0)
    assert torch.allclose(queries.boxes_cxcywh[inside], truth[inside], atol=1e-6)


def test_same_generator_state_same_noise(synthetic):
    _, first = made(synthetic, seed=5)
    torch.manual_seed(99)  # the global generator plays no part
    _, second = made(synthetic, seed=5)
    _, third = made(synthetic, seed=6)
    for name in vars(first):
        assert getattr(first, name).equal(getattr(second, name))
    assert not first.boxes_cxcywh.equal(third.boxes_cxcywh)


def test_with_keys_a_picture_has_the_same_noise_in_any_batch(synthetic):
    targets, config = synthetic.targets([3, 2, 5], slots=8, classes=CLASSES), DenoisingConfig(classes=CLASSES)
    keys = torch.tensor([11, 12, 13])
    together = make_denoising(targets, config, keys)
    for b in range(3):
        alone_targets = type(targets)(**{k: v[b : b + 1] for k, v in vars(targets).items() if v is not None})
        alone = make_denoising(alone_targets, config, keys[b : b + 1])
        for name in vars(alone):
            assert getattr(alone, name)[0].equal(getattr(together, name)[b])


def test_keyed_numbers_are_uniform_and_unrelated():
    numbers = uniform_numbers(torch.arange(64), 64, 4096, "cpu").double()
    assert numbers.min() >= 0 and numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.005)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.001)
    histogram = torch.histc(numbers, 16, 0, 1) / numbers.numel() * 16
    assert histogram.sub(1).abs().max() < 0.02
    rows, columns = torch.corrcoef(numbers) - torch.eye(64), torch.corrcoef(numbers[:, :64].T) - torch.eye(64)
    assert rows.abs().max() < 0.08 and columns.abs().max() < 0.6  # 4096 and 64 samples: five deviations


def test_odd_slots_and_wrong_keys_are_refused(synthetic):
    with pytest.raises(ValueError, match="even"):
        DenoisingConfig(slots=99)
    targets = synthetic.targets([1, 1], slots=2, classes=CLASSES)
    with pytest.raises(ValueError, match=r"keys must be \(2,\) int64"):
        make_denoising(targets, DenoisingConfig(classes=CLASSES), torch.zeros(2))
