"""What a weights file says about itself: typed values to header texts and back, each text checked. No torch here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args, get_origin, get_type_hints

from ledetr.errors import WeightsError
from ledetr.model.config import EfficientNatConfig, ModelConfig

FORMAT = "1"
MAX_CLASSES = 100_000
MAX_NAME_LENGTH = 200
MAX_TEXT_LENGTH = 10_000
MAX_INPUT_SIDE = 8192
MAX_DEPTH = 256  # blocks in a row; the largest scale has 27
MAX_WIDTH = 16_384  # channels, queries, kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """What a weights file says about itself.

    name: the scale, "n", "m", "l", "x", or another word for other configs. class_names and category_ids: one of each
    per class, ids are the data set's own. input_hw: height and width it was trained for. score_threshold: the default
    for showing boxes, in 0..1, or None. ap: measured figures, AP values in 0..1, or None. trained_on, command,
    started_from, licence: texts. sha256: of the tensor payload, hexadecimal; empty before the first save.
    """

    path: Path | None = None
    name: str
    config: ModelConfig
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    input_hw: tuple[int, int]
    score_threshold: float | None = None
    ap: dict[str, float | str] | None = None
    trained_on: str = ""
    command: str = ""
    started_from: str = ""
    licence: str = ""
    sha256: str = ""


def parse_metadata(path: Path, metadata: dict[str, str]) -> WeightsInfo:
    """WeightsInfo of the texts that metadata_of() made; WeightsError names the field that is missing or odd."""
    if metadata.get("ledetr_format") != FORMAT:
        raise WeightsError(
            f"{str(path)!r} was not written by Le-DETR (or by another version of it): its field ledetr_format is "
            f"{shorten(metadata.get('ledetr_format'))}, expected {FORMAT!r}"
        )
    fields = _Fields(path, metadata)
    class_names = fields.names("class_names")
    category_ids = fields.integers("category_ids", -(2**31), 2**31)
    config = fields.config("config")
    if not len(class_names) == len(category_ids) == config.decoder.classes:
        raise WeightsError(
            f"{str(path)!r} has {len(class_names)} class names and {len(category_ids)} category ids "
            f"for a network of {config.decoder.classes} classes"
        )
    return WeightsInfo(
        path=path,
        name=fields.text("scale"),
        config=config,
        class_names=class_names,
        category_ids=category_ids,
        input_hw=fields.input_hw("input_hw"),
        score_threshold=fields.score("score_threshold"),
        ap=fields.figures("ap"),
        trained_on=fields.text("trained_on"),
        command=fields.text("command"),
        started_from=fields.text("started_from"),
        licence=fields.text("licence"),
        sha256=fields.text("sha256"),
    )


def metadata_of(info: WeightsInfo) -> dict[str, str]:
    """The texts that go into a file's header; parse_metadata() reads them back."""
    return {
        "ledetr_format": FORMAT,
        "scale": info.name,
        "config": json.dumps(info.config.to_dict()),
        "class_names": json.dumps(info.class_names, ensure_ascii=False),
        "category_ids": json.dumps(info.category_ids),
        "input_hw": json.dumps(info.input_hw),
        "score_threshold": json.dumps(info.score_threshold),
        "ap": json.dumps(info.ap),
        "trained_on": info.trained_on,
        "command": info.command,
        "started_from": info.started_from,
        "licence": info.licence,
        "sha256": info.sha256,
    }


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed reading of metadata texts; each method returns a value that may be trusted, or raises WeightsError."""

    path: Path
    metadata: dict[str, str]

    def text(self, key: str) -> str:
        value = self.metadata.get(key)
        if value is None:
            raise self._error(key, "is missing")
        if len(value) > MAX_TEXT_LENGTH or not _is_plain(value):
            raise self._error(key, f"is longer than {MAX_TEXT_LENGTH} letters or has control characters")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        values = self._list(key, MAX_CLASSES)
        for value in values:
            if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH or not value.isprintable():
                raise self._error(key, f"has an entry that is no printable text of 1..{MAX_NAME_LENGTH} letters")
        return tuple(values)

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        values = self._list(key, MAX_CLASSES)
        if not all(type(value) is int and low <= value < high for value in values):
            raise self._error(key, f"has an entry that is no whole number in {low}..{high - 1}")
        return tuple(values)

    def input_hw(self, key: str) -> tuple[int, int]:
        values = self.integers(key, 32, MAX_INPUT_SIDE + 1)
        if len(values) != 2 or any(value % 32 for value in values):
            raise self._error(key, "is no height and width that are multiples of 32")
        return values[0], values[1]

    def score(self, key: str) -> float | None:
        value = self._json(key)
        if value is not None and not (_is_number(value) and 0 <= value <= 1):
            raise self._error(key, "is no number in 0..1")
        return None if value is None else float(value)

    def figures(self, key: str) -> dict[str, float | str] | None:
        value = self._json(key)
        if value is None:
            return None
        if not isinstance(value, dict) or len(value) > 1000:
            raise self._error(key, "is no table of figures")
        for name, figure in value.items():
            fit = _is_number(figure) or (
                isinstance(figure, str) and len(figure) <= MAX_NAME_LENGTH and _is_plain(figure)
            )
            if not (fit and len(name) <= MAX_NAME_LENGTH and name.isprintable()):
                raise self._error(key, "has an entry that is neither a finite number nor a short text")
        return value

    def config(self, key: str) -> ModelConfig:
        value = self._json(key)
        if not isinstance(value, dict):
            raise self._error(key, "is no table")
        try:
            config = ModelConfig.from_dict(value)
            problem = _type_problem(config) or _size_problem(config)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = f"({shorten(str(error), 120)})"
        if problem:
            raise self._error(key, f"does not describe a Le-DETR network: {problem}")
        return config

    def _list(self, key: str, limit: int) -> list[Any]:
        value = self._json(key)
        if not isinstance(value, list) or len(value) > limit:
            raise self._error(key, f"is no list of at most {limit} entries")
        return value

    def _json(self, key: str) -> Any:
        if key not in self.metadata:
            raise self._error(key, "is missing")
        try:
            return json.loads(self.metadata[key])
        except (ValueError, RecursionError) as error:
            raise self._error(key, "is not valid JSON") from error

    def _error(self, key: str, what: str) -> WeightsError:
        return WeightsError(f"weights file {str(self.path)!r}: metadata field {key} {what}")


def _type_problem(config: object) -> str:
    """The first field of a config, at any depth, whose value is not of the declared type; empty if none."""
    hints = get_type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            problem = _type_problem(value)
            if problem:
                return problem
        elif not _is_of_type(value, hints[field.name]):
            return f"{field.name} has the value {shorten(value)}"
    return ""


def _is_of_type(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if not isinstance(value, tuple) or (items[-1] is not ... and len(value) != len(items)):
            return False
        each = items[:1] * len(value) if items[-1] is ... else items
        return len(value) <= MAX_DEPTH and all(_is_of_type(v, h) for v, h in zip(value, each, strict=True))
    if hint is float:
        return _is_number(value)
    return type(value) is hint


def _size_problem(config: ModelConfig) -> str:
    """Why a network of this config would be absurdly large or empty; so it is refused before it is built."""
    depths, widths = _depths_and_widths(config)
    if not all(0 <= depth <= MAX_DEPTH for depth in depths):
        return f"a depth lies outside 0..{MAX_DEPTH}"
    if not all(0 < width <= MAX_WIDTH for width in widths):
        return f"a width lies outside 1..{MAX_WIDTH}"
    if not 1 <= config.decoder.classes <= MAX_CLASSES:
        return f"it has {config.decoder.classes} classes, allowed are 1..{MAX_CLASSES}"
    if not 1 <= config.decoder.eval_layers <= config.decoder.layers:
        return f"it uses {config.decoder.eval_layers} of {config.decoder.layers} decoder layers"
    if len(config.decoder.points) != len(config.strides):
        return f"its decoder samples {len(config.decoder.points)} levels, its encoder gives {len(config.strides)}"
    if config.pixel_std <= 0 or not all(32 <= side <= MAX_INPUT_SIDE for side in config.input_hw):
        return "its input is out of bounds"
    return ""


def _depths_and_widths(config: ModelConfig) -> tuple[list[int], list[int]]:
    backbone, encoder, decoder = config.backbone, config.encoder, config.decoder
    depths = [encoder.blocks, decoder.layers, decoder.position_layers]
    widths = [
        encoder.dim,
        encoder.heads,
        encoder.ffn,
        encoder.naifi_kernel,
        *decoder.points,
        decoder.dim,
        decoder.heads,
    ]
    widths += [decoder.ffn, decoder.queries, decoder.reg_max, decoder.position_hidden, decoder.denoising + 1]
    widths += [backbone.na_heads, backbone.na_kernel, backbone.na_dilation]
    if isinstance(backbone, EfficientNatConfig):
        depths += [sum(backbone.depths)]
        widths += [*backbone.widths, *backbone.down_expand, *backbone.block_expand]
    else:
        depths += [sum(stage[0] for stage in backbone.stages)]
        widths += [backbone.stem, *(number for stage in backbone.stages for number in stage[1:])]
    return depths, widths


def _is_number(value: Any) -> TypeGuard[int | float]:
    return type(value) in (int, float) and math.isfinite(value)


def _is_plain(text: str) -> bool:
    """Printable, line ends and tabs allowed; so a terminal cannot be steered by a file."""
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


def shorten(value: object, limit: int = 80) -> str:
    """repr() of a value from outside, control characters escaped, cut to `limit` letters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
