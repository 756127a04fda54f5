"""Small drawings as inline SVG: curves, bars, a matrix. Their colours come from the page's style."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ledetr.report.page import Markup, element, escaped, joined

_COLOURS = 5  # .c0 to .c4 of the page's style, then the same dashed
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 44


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one line, x rising; a y that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def curves(
    lines: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    size_wh: tuple[int, int] = (680, 320),
) -> Markup:
    """Lines over one pair of axes, with their names beneath."""
    width, height = size_wh
    x_low, x_high = _range([value for line in lines for value in line.x])
    y_low, y_high = y_range or _range([value for line in lines for value in line.y])

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * (width - _LEFT - _RIGHT),
            height - _BOTTOM - (y - y_low) / (y_high - y_low) * (height - _TOP - _BOTTOM),
        )

    parts = [_x_tick(at(x, y_low), x) for x in ticks(x_low, x_high)]
    parts += [_y_tick(at(x_low, y), y, width - _RIGHT) for y in ticks(y_low, y_high)]
    parts += [_polyline(line, at, place) for place, line in enumerate(lines)]
    parts += [
        _text(width / 2, height - 8, x_label, "middle"),
        _text(14, height / 2, y_label, "middle", turn=f"rotate(-90 14 {height / 2:g})"),
    ]
    return joined([_svg(size_wh, parts, f"{y_label} over {x_label}"), _legend(lines)])


def bars(rows: Sequence[tuple[str, float, str]], *, width: int = 680) -> Markup:
    """A bar for each (name, length from 0 on, words at its end)."""
    longest = max([value for _, value, _ in rows] + [1e-9])
    left, room, step = 130, width - 130 - 90, 26
    parts: list[Markup] = []
    for place, (name, value, words) in enumerate(rows):
        y, length = place * step, max(0.0, value) / longest * room
        parts.append(_text(left - 10, y + 16, name, "end"))
        parts.append(Markup(f'<rect class="rest" x="{left}" y="{y + 4}" width="{room}" height="16" rx="3"/>'))
        parts.append(Markup(f'<rect class="bar" x="{left}" y="{y + 4}" width="{length:.1f}" height="16" rx="3"/>'))
        parts.append(_text(left + room + 8, y + 16, words, "start"))
    return _svg((width, max(1, len(rows)) * step + 6), parts, "bars")


def matrix(names: Sequence[str], counts: np.ndarray) -> Markup:
    """Cells of (K, K) counts, coloured by the share of their row; each tells its names and number when pointed at."""
    cell = max(7, min(26, 780 // len(names)))
    labels = cell >= 9
    left = 130 if labels else 4
    top = left
    side = cell * len(names)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [Markup(f'<rect class="rest" x="{left}" y="{top}" width="{side}" height="{side}"/>')]
    for row, column in zip(*np.nonzero(counts), strict=True):
        told = escaped(f"{names[row]} taken for {names[column]}: {counts[row, column]}")
        place = f'x="{left + column * cell}" y="{top + row * cell}" width="{cell - 1}" height="{cell - 1}"'
        opacity = 0.15 + 0.85 * share[row, column]
        parts.append(Markup(f'<rect class="bar" {place} fill-opacity="{opacity:.2f}"><title>{told}</title></rect>'))
    for number, name in enumerate(names if labels else ()):
        middle = number * cell + cell / 2 + 4
        parts.append(_text(left - 6, top + middle, _cut(name), "end"))
        x = left + middle
        parts.append(_text(x, top - 6, _cut(name), "start", turn=f"rotate(-90 {x:g} {top - 6})"))
    return _svg((left + side + 4, top + side + 4), parts, "confusion matrix: rows are the truth, columns the guesses")


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between low and high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest finite value, never empty."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    return (low, high) if high - low > 1e-12 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)


def _polyline(line: Curve, at: Callable[[float, float], tuple[float, float]], place: int) -> Markup:
    pieces: list[list[str]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            pieces[-1].append("{:.1f},{:.1f}".format(*at(x, y)))
        elif pieces[-1]:
            pieces.append([])
    return joined(
        Markup(f'<polyline class="curve {_colour(place)}" points="{" ".join(points)}"/>')
        if len(points) > 1
        else Markup('<circle class="curve {}" cx="{}" cy="{}" r="2"/>'.format(_colour(place), *points[0].split(",")))
        for points in pieces
        if points
    )


def _legend(lines: Sequence[Curve]) -> Markup:
    if len(lines) < 2:
        return Markup("")
    parts = [
        joined(
            [
                Markup(f'<svg width="26" height="10" style="display:inline"><line class="curve {_colour(place)}" '
                       'x1="2" y1="6" x2="24" y2="6"/></svg>'),
                element("span", line.name),
            ]
        )
        for place, line in enumerate(lines)
    ]  # fmt: skip
    return element("p", Markup(" &nbsp; ".join(parts)), class_="quiet")


def _colour(place: int) -> str:
    return f"c{place % _COLOURS}" + (" dashed" if place // _COLOURS % 2 else "")


def _x_tick(at_xy: tuple[float, float], value: float) -> Markup:
    x, y = at_xy
    line = f'<line class="axis" x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{y + 4:.1f}"/>'
    return joined([Markup(line), _text(x, y + 18, _figure(value), "middle")])


def _y_tick(at_xy: tuple[float, float], value: float, right: float) -> Markup:
    x, y = at_xy
    line = f'<line class="grid" x1="{x:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>'
    return joined([Markup(line), _text(x - 6, y + 4, _figure(value), "end")])


def _text(x: float, y: float, text: str, anchor: str, *, turn: str = "") -> Markup:
    attributes = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"' + (f' transform="{turn}"' if turn else "")
    return Markup(f"<text {attributes}>{escaped(text)}</text>")


def _svg(size_wh: tuple[float, float], parts: Sequence[Markup], told: str) -> Markup:
    width, height = size_wh
    return Markup(
        f'<svg width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escaped(told)}">{joined(parts)}</svg>'
    )


def _figure(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:g}"


def _cut(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
