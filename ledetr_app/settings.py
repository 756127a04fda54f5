"""What the window remembers between two runs: one JSON file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from ledetr.errors import OutputError
from ledetr.files import whole_file
from ledetr.zones import plan_of

SCHEMA_VERSION = 1
THEMES = ("system", "light", "dark")
MAX_RECENTS = 15
MAX_CLASSES = 100_000
MAX_ZONED_SOURCES = 50
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every field has a default, so an empty file is a valid file.

    conf: score threshold 0.05..0.95; None = the model's own. class_names: shown classes; None = all.
    class_conf: thresholds of single classes. line_weight: 0.5..3 times the usual. theme: "system",
    "light" or "dark". geometry: x, y, width, height of the window in logical pixels. recents: newest first.
    zones: by path or address of the source, as ZonePlan.to_json gives them, newest last.
    """

    schema_version: int = SCHEMA_VERSION
    model: str = "n"
    device: str = "auto"
    precision: str = "auto"
    decoder_layers: int | None = None
    conf: float | None = None
    class_names: tuple[str, ...] | None = None
    class_conf: dict[str, float] = field(default_factory=dict)
    boxes: bool = True
    labels: bool = True
    scores: bool = True
    tracking: bool = False
    track_buffer_s: float = 2.0
    ids: bool = True
    trails: bool = True
    by_track: bool = False
    zones: dict[str, Any] = field(default_factory=dict)
    line_weight: float = 1.0
    side_panel: bool = False
    theme: str = "system"
    geometry: tuple[int, int, int, int] | None = None
    maximized: bool = False
    recents: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """settings, and where a broken file was set aside with what was wrong in it."""

    settings: Settings
    set_aside: Path | None = None
    problem: str = ""


def settings_path() -> Path:
    """The file in the user's own settings folder; nothing is created by asking."""
    return user_config_path("ledetr", appauthor=False) / "settings.json"


def load_settings(path: Path) -> LoadedSettings:
    """Settings of the file; a missing file gives the defaults.

    A file that is no JSON object, or holds a value of the wrong kind, is renamed aside and reported; the values that
    are right are still used. Unknown fields (from a newer version) are not an error.
    """
    try:
        if not path.exists():
            return LoadedSettings(Settings())
        if path.stat().st_size > MAX_FILE_BYTES:
            return _set_aside(path, Settings(), f"it is larger than {MAX_FILE_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return _set_aside(path, Settings(), f"it is not JSON ({type(error).__name__})")
    except OSError as error:
        return LoadedSettings(Settings(), None, f"it cannot be read: {error.strerror}")
    if not isinstance(document, dict):
        return _set_aside(path, Settings(), "it is not a JSON object")
    settings, wrong = _checked(document)
    if wrong:
        return _set_aside(path, settings, f"wrong value for {', '.join(wrong)}")
    return LoadedSettings(settings)


def save_settings(path: Path, settings: Settings) -> None:
    """Write beside the file, flush, then rename over it, so that a crash leaves the old or the new file whole.

    Readable by the owner only, since recent addresses are in it. Raises OutputError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, private=True) as part:
            part.write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the settings cannot be saved to {path}: {error.strerror}. Check that the folder is writable"
        ) from error


def _set_aside(path: Path, settings: Settings, problem: str) -> LoadedSettings:
    aside = path.with_name(path.name + ".broken")
    try:
        path.replace(aside)
    except OSError:
        return LoadedSettings(settings, None, problem)
    return LoadedSettings(settings, aside, problem)


def _checked(document: dict[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from the right values, and the names of the wrong ones."""
    good: dict[str, Any] = {}
    wrong = []
    for name in (f.name for f in fields(Settings)):
        if name == "schema_version" or name not in document:
            continue
        try:
            good[name] = _READERS[name](document[name])
        except (TypeError, ValueError):
            wrong.append(name)
    return Settings(**good), wrong


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise TypeError
    return value


def _texts(value: Any, limit: int) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(item) for item in value[:limit])


def _theme(value: Any) -> str:
    if value not in THEMES:
        raise ValueError
    return str(value)


def _conf(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.05 <= value <= 0.95:
        raise ValueError
    return float(value)


def _class_conf(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or len(value) > MAX_CLASSES:
        raise TypeError
    checked = {_text(name): _conf(conf) for name, conf in value.items()}
    return {name: conf for name, conf in checked.items() if conf is not None}


def _line_weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value <= 3:
        raise ValueError
    return float(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 60:
        raise ValueError
    return float(value)


def _zones(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_ZONED_SOURCES:
        raise TypeError
    return {_text(source): plan_of(document).to_json() for source, document in value.items()}


def _layers(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 1 <= value <= 100):
        raise ValueError
    return value


def _geometry(value: Any) -> tuple[int, int, int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or any(type(v) is not int or abs(v) > 100_000 for v in value):
        raise ValueError
    x, y, width, height = value
    return x, y, width, height


_READERS: dict[str, Callable[[Any], Any]] = {
    "model": _text,
    "device": _text,
    "precision": _text,
    "decoder_layers": _layers,
    "conf": _conf,
    "class_names": lambda value: None if value is None else _texts(value, MAX_CLASSES),
    "class_conf": _class_conf,
    "boxes": _boolean,
    "labels": _boolean,
    "scores": _boolean,
    "tracking": _boolean,
    "track_buffer_s": _seconds,
    "ids": _boolean,
    "trails": _boolean,
    "by_track": _boolean,
    "zones": _zones,
    "line_weight": _line_weight,
    "side_panel": _boolean,
    "theme": _theme,
    "geometry": _geometry,
    "maximized": _boolean,
    "recents": lambda value: _texts(value, MAX_RECENTS),
}
