"""COCO's names and its two ways of counting classes."""

from ledetr.labels import COCO_CATEGORY_IDS, COCO_NAMES


def test_eighty_of_each() -> None:
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == len(COCO_CATEGORY_IDS) == 80
    assert list(COCO_CATEGORY_IDS) == sorted(set(COCO_CATEGORY_IDS))
    assert (COCO_CATEGORY_IDS[0], COCO_CATEGORY_IDS[-1]) == (1, 90)


def test_known_pairs() -> None:
    """As instances_val2017.json has them, on both sides of each hole."""
    ids = dict(zip(COCO_NAMES, COCO_CATEGORY_IDS, strict=True))
    known = {
        "person": 1, "fire hydrant": 11, "stop sign": 13, "cow": 21, "giraffe": 25, "backpack": 27,
        "umbrella": 28, "handbag": 31, "bottle": 44, "wine glass": 46, "bed": 65, "dining table": 67,
        "toilet": 70, "tv": 72, "refrigerator": 82, "book": 84, "toothbrush": 90,
    }  # fmt: skip
    assert {name: ids[name] for name in known} == known
