"""A toy data set of coloured shapes in any of the formats, to try training with and to test it on.

    python -m training.data.shapes OUT --format yolo --pictures 60

Boxes are exact by construction: the smallest rectangle around the pixels that were painted.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

NAMES = ("circle", "square", "triangle")
ALL_NAMES = (*NAMES, "diamond", "cross", "ring", "hexagon", "bar", "corner", "frame")
COLOURS = dict(
    zip(
        ALL_NAMES,
        (
            (220, 60, 50),
            (50, 170, 80),
            (60, 90, 220),
            (230, 200, 40),
            (200, 60, 200),
            (40, 200, 210),
            (240, 140, 40),
            (130, 90, 50),
            (30, 30, 30),
            (240, 240, 240),
        ),
        strict=True,
    )
)
# Corners in sides of the square around the shape.
POLYGONS = {
    "triangle": ((0.5, 0), (0, 1), (1, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "hexagon": ((0.25, 0), (0.75, 0), (1, 0.5), (0.75, 1), (0.25, 1), (0, 0.5)),
    "bar": ((0, 0.35), (1, 0.35), (1, 0.65), (0, 0.65)),
    "corner": ((0, 0), (0.3, 0), (0.3, 0.7), (1, 0.7), (1, 1), (0, 1)),
    "cross": (
        (0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65),
        (0.65, 1), (0.35, 1), (0.35, 0.65), (0, 0.65), (0, 0.35), (0.35, 0.35),
    ),
}  # fmt: skip

Shape = tuple[str, tuple[int, int, int, int]]
"""Name and left, top, right, bottom in pixels; right and bottom are the first that are outside."""


def draw_shapes(
    number: int, size_hw: tuple[int, int], *, most: int = 4, classes: int = 3
) -> tuple[np.ndarray, list[Shape]]:
    """Picture `number` as (H, W, 3) uint8 RGB and its shapes, which do not touch; a fixed picture for each number."""
    rng = np.random.default_rng((2026, number))
    height, width = size_hw
    rgb = rng.integers(100, 140, (height, width, 3)).astype(np.uint8)
    taken = np.zeros((height, width), np.uint8)
    shapes: list[Shape] = []
    for _ in range(0 if number % 8 == 7 else int(rng.integers(1, most + 1))):
        name = ALL_NAMES[int(rng.integers(classes))]
        side = int(rng.integers(min(size_hw) // 5, min(size_hw) // 2))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        mask = np.zeros((height, width), np.uint8)
        _paint(mask, name, x, y, side)
        if np.logical_and(mask, cv2.dilate(taken, np.ones((5, 5), np.uint8))).any():
            continue
        taken |= mask
        rgb[mask > 0] = np.clip(np.array(COLOURS[name]) + rng.integers(-25, 26, 3), 0, 255)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        shapes.append((name, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)))
    return rgb, shapes


def _paint(mask: np.ndarray, name: str, x: int, y: int, side: int) -> None:
    if name in ("circle", "ring"):
        cv2.circle(mask, (x + side // 2, y + side // 2), side // 2 - 1, (1,), -1)
    elif name in ("square", "frame"):
        cv2.rectangle(mask, (x, y), (x + side - 1, y + side - 1), (1,), -1)
    else:
        corners = np.floor(np.array(POLYGONS[name]) * (side - 1) + 0.5) + np.array([x, y])
        cv2.fillPoly(mask, [corners.astype(np.int32)], (1,))
    if name == "ring":
        cv2.circle(mask, (x + side // 2, y + side // 2), side // 4, (0,), -1)
    elif name == "frame":
        edge = max(2, side // 5)
        cv2.rectangle(mask, (x + edge, y + edge), (x + side - 1 - edge, y + side - 1 - edge), (0,), -1)


def write_shapes(
    folder: Path, form: str, pictures: int, *, size_hw: tuple[int, int] = (96, 128), ids: Sequence[int] = (1, 2, 3)
) -> Path:
    """Write the set and return the path to train on. ids: category ids of the classes, where the format has any; as
    many classes as ids, at most ten."""
    images = folder / {"coco": "images", "yolo": "images/train", "voc": "JPEGImages", "csv": "pictures"}[form]
    images.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, list[Shape]]] = []
    for number in range(pictures):
        rgb, shapes = draw_shapes(number, size_hw, classes=len(ids))
        name = f"shapes_{number:04d}.png"
        Image.fromarray(rgb).save(images / name)
        drawn.append((name, shapes))
    return WRITERS[form](folder, drawn, size_hw, ids)


def _write_coco(
    folder: Path, drawn: list[tuple[str, list[Shape]]], size_hw: tuple[int, int], ids: Sequence[int]
) -> Path:
    content = {
        "images": [
            {"id": i, "file_name": name, "height": size_hw[0], "width": size_hw[1]}
            for i, (name, _) in enumerate(drawn, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(ids, ALL_NAMES, strict=False)],
        "annotations": [
            {
                "image_id": i,
                "category_id": ids[ALL_NAMES.index(shape)],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
            for i, (_, shapes) in enumerate(drawn, 1)
            for shape, (x0, y0, x1, y1) in shapes
        ],
    }
    path = folder / "shapes.json"
    path.write_text(json.dumps(content))
    return path


def _write_yolo(
    folder: Path, drawn: list[tuple[str, list[Shape]]], size_hw: tuple[int, int], ids: Sequence[int]
) -> Path:
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True, exist_ok=True)
    height, width = size_hw
    numbers = [i - min(ids) for i in ids]  # YOLO counts from 0
    for name, shapes in drawn:
        lines = [
            f"{numbers[ALL_NAMES.index(shape)]} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}"
            for shape, (x0, y0, x1, y1) in shapes
        ]
        if lines:  # a picture without a label file has no objects
            (labels / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    names = "".join(f"  {number}: {name}\n" for number, name in zip(numbers, ALL_NAMES, strict=False))
    path = folder / "data.yaml"
    path.write_text(f"# toy shapes\ntrain: images/train\nnames:\n{names}")
    return path


def _write_voc(
    folder: Path, drawn: list[tuple[str, list[Shape]]], size_hw: tuple[int, int], ids: Sequence[int]
) -> Path:
    annotations = folder / "Annotations"
    annotations.mkdir(exist_ok=True)
    for name, shapes in drawn:
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = name
        size = ElementTree.SubElement(root, "size")
        for key, value in (("width", size_hw[1]), ("height", size_hw[0]), ("depth", 3)):
            ElementTree.SubElement(size, key).text = str(value)
        for shape, (x0, y0, x1, y1) in shapes:
            element = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(element, "name").text = shape
            box = ElementTree.SubElement(element, "bndbox")
            for key, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
                ElementTree.SubElement(box, key).text = str(value)
        ElementTree.ElementTree(root).write((annotations / name).with_suffix(".xml"))
    return folder


def _write_csv(
    folder: Path, drawn: list[tuple[str, list[Shape]]], size_hw: tuple[int, int], ids: Sequence[int]
) -> Path:
    path = folder / "shapes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "xmin", "ymin", "xmax", "ymax", "class"])
        for name, shapes in drawn:
            writer.writerows([f"pictures/{name}", *box, shape] for shape, box in shapes)
            if not shapes:
                writer.writerow([f"pictures/{name}", "", "", "", "", ""])
    return path


Writer = Callable[[Path, list[tuple[str, list[Shape]]], tuple[int, int], Sequence[int]], Path]
WRITERS: dict[str, Writer] = {"coco": _write_coco, "yolo": _write_yolo, "voc": _write_voc, "csv": _write_csv}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.shapes", description="Write a toy data set of coloured shapes."
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--format", choices=tuple(WRITERS), default="coco")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--classes", type=int, default=3, choices=range(1, len(ALL_NAMES) + 1), metavar="1..10")
    args = parser.parse_args()
    print(write_shapes(args.output, args.format, args.pictures, ids=range(1, args.classes + 1)))


if __name__ == "__main__":
    main()
