"""Eight-bit integers for OpenVINO: post-training quantisation by NNCF, calibrated on pictures the user names.

Convolutions and matrix products of backbone and encoder become int8. The decoder stays in float: query selection, box
geometry and the heads turn on differences that 256 steps do not hold, and they are a few percent of the work.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from ledetr.backends.deploy import PIXELS, SIZES
from ledetr.chain.images import list_images
from ledetr.chain.sources import FolderSpec
from ledetr.errors import UsageError
from ledetr.pictures import read_picture
from ledetr.preprocess import preprocess

CALIBRATION_PICTURES = 300  # more change nothing that AP on a few hundred pictures could show
FEWEST_PICTURES = 10
CHECK_PICTURES = 20  # left out of the calibration, to compare the file with torch on
# Layers by the names that conversion from torch keeps.
FLOAT_LAYERS = (r"decoder",)


def split_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Pictures of a folder to calibrate with, and others to check with, spread over the whole folder.

    Raises SourceError where there are none, UsageError where there are too few to tell what numbers occur.
    """
    paths = list_images(FolderSpec(folder))
    if len(paths) < FEWEST_PICTURES:
        raise UsageError(
            f"{str(folder)!r} holds {len(paths)} pictures; calibration needs at least {FEWEST_PICTURES}, better "
            f"{CALIBRATION_PICTURES}, of the kind that the model will see"
        )
    check_count = min(CHECK_PICTURES, len(paths) // 5)
    check_rows = set(_spread(len(paths), check_count))
    rest = [path for row, path in enumerate(paths) if row not in check_rows]
    calibration = [rest[row] for row in _spread(len(rest), min(CALIBRATION_PICTURES, len(rest)))]
    return calibration, [paths[row] for row in sorted(check_rows)]


def _spread(length: int, count: int) -> list[int]:
    """Places of `count` of `length` things, evenly."""
    return [int(place) for place in np.linspace(0, length - 1, count)]


def quantised(model: Any, pictures: Sequence[Path], input_hw: tuple[int, int]) -> Any:
    """An openvino.Model of convert_module() with int8 where it does no harm. UsageError where NNCF is not installed."""
    nncf = _nncf()
    names = [port.get_any_name() for port in model.inputs]

    def inputs_of(path: Path) -> dict[str, np.ndarray]:
        rgb = read_picture(path)
        values = {PIXELS: preprocess(rgb, input_hw)[0][None], SIZES: np.array([[rgb.shape[1], rgb.shape[0]]], np.int64)}
        return {name: values[name] for name in names}

    ignored = [op.get_friendly_name() for op in model.get_ordered_ops() if _stays_float(op.get_friendly_name())]
    with _quiet(nncf):
        return nncf.quantize(
            model,
            nncf.Dataset(list(pictures), inputs_of),
            preset=nncf.QuantizationPreset.MIXED,  # activations without negative numbers use all 256 steps
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(pictures),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def _stays_float(name: str) -> bool:
    return any(re.search(part, name) for part in FLOAT_LAYERS)


def _nncf() -> Any:
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise UsageError(
            "--precision int8 needs the package nncf: pip install -c constraints.txt 'ledetr[quantise]'"
        ) from error
    return nncf


@contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """NNCF tells of each layer it leaves alone, and how far it is, on stdout; the second belongs to stderr."""
    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.getLogger("nncf").setLevel(level)
