"""The one way to a file in assets/, from a checkout or an installed wheel."""

from functools import cache
from pathlib import Path

import ledetr

_ROOTS = (
    Path(next(iter(ledetr.__path__))) / "assets",  # a wheel carries assets/ inside the package
    Path(next(iter(ledetr.__path__))).parent / "assets",  # a checkout keeps it beside
)


def asset(name: str) -> Path:
    """Path of assets/<name>; FileNotFoundError names the places looked at."""
    for root in _ROOTS:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"assets/{name} is in none of {', '.join(map(str, _ROOTS))}")


def sample_clip() -> Path | None:
    """The bundled clip, where this installation has it."""
    return next((root / "sample.mp4" for root in _ROOTS if (root / "sample.mp4").exists()), None)


@cache
def icon_svg(name: str) -> str:
    """Text of one of our icons; strokes are "currentColor"."""
    return asset(f"icons/{name}.svg").read_text(encoding="utf-8")
