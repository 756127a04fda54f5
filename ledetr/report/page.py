"""One self-contained HTML page: text is escaped unless it is Markup, which only this package makes.

The page says to the browser that nothing may be loaded or run (its Content-Security-Policy), and follows the light or
dark setting of the system.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from ledetr.chain.output_files import check_writable, output_error
from ledetr.errors import OutputError
from ledetr.files import whole_file


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """A value as text of the page; control, direction and half characters become U+FFFD."""
    if isinstance(value, Markup):
        return value
    text = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in str(value))
    return Markup(html.escape(text))


def joined(parts: Iterable[object]) -> Markup:
    """The parts one after the other."""
    return Markup("\n".join(escaped(part) for part in parts))


def element(name: str, *parts: object, **attributes: str) -> Markup:
    """An element around parts; class_ stands for class."""
    words = "".join(f' {key.rstrip("_")}="{escaped(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{words}>{joined(parts)}</{name}>")


def paragraph(*parts: object, quiet: bool = False) -> Markup:
    """A paragraph; a quiet one stands back."""
    return element("p", *parts, class_="quiet") if quiet else element("p", *parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, words: int = 1) -> Markup:
    """A table whose first `words` columns hold words and the others figures. None becomes a dash."""

    def cells(name: str, values: Sequence[object]) -> Markup:
        return joined(
            element(name, "-" if value is None else value, class_="word" if place < words else "figure")
            for place, value in enumerate(values)
        )

    body = joined(element("tr", cells("td", row)) for row in rows)
    head = element("thead", element("tr", cells("th", columns)))
    return element("div", element("table", head, element("tbody", body)), class_="wide")


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names and values in two columns; those without a value are left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "")]
    return element("dl", *(joined([element("dt", name), element("dd", value)]) for name, value in shown))


def section(title: str, *parts: object) -> Markup:
    """A part of the page under a heading."""
    return element("section", element("h2", title), *parts)


def page(title: str, *parts: object) -> str:
    """The whole document."""
    head = joined(
        [
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            element("title", title),
            element("style", Markup(_STYLE)),
        ]
    )
    body = element("body", element("main", element("h1", title), *parts))
    return f'<!DOCTYPE html>\n<html lang="en">\n{element("head", head)}\n{body}\n</html>\n'


def check_place(path: Path) -> None:
    """Raises OutputError where a report cannot be written to this path, before time is spent on what it would say."""
    if path.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; name the file that the report shall be, such as report.html.")
    check_writable(path.parent)


def write_page(path: Path, text: str) -> None:
    """Whole or not at all; OutputError where the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise output_error(path, error) from error


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --text: #1b1f24; --quiet: #5a626c; --line: #d9dee4;
  --panel: #f5f7f9; --good: #0072b2; --c0: #0072b2; --c1: #c04f00; --c2: #007a58; --c3: #a8487f; --c4: #8a6d00; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --text: #e6e9ed; --quiet: #9aa4af; --line: #333a42; --panel: #1c2127;
    --good: #56b4e9; --c0: #56b4e9; --c1: #f0883e; --c2: #2fc79a; --c3: #dd8fc0; --c4: #e6c229; } }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
section { border-top: 1px solid var(--line); padding-top: 20px; margin-top: 28px; }
p { margin: 6px 0 10px; max-width: 75ch; }
p.quiet, figcaption, dt { color: var(--quiet); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--quiet); }
.word { text-align: left; overflow-wrap: anywhere; }
.figure { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; max-height: 640px; overflow-y: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 8px 0; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
code { font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; background: var(--panel); padding: 2px 5px;
  border-radius: 4px; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.card { background: var(--panel); border-radius: 8px; padding: 10px 16px; min-width: 92px; }
.card b { display: block; font-size: 24px; line-height: 1.3; }
.card span { color: var(--quiet); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 18px; }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: 4px; }
figcaption { font-size: 13px; padding-top: 4px; overflow-wrap: anywhere; }
svg { display: block; max-width: 100%; height: auto; color: var(--text); }
svg text { fill: currentColor; font-size: 12px; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--quiet); }
svg .c0 { stroke: var(--c0); } svg .c1 { stroke: var(--c1); } svg .c2 { stroke: var(--c2); }
svg .c3 { stroke: var(--c3); } svg .c4 { stroke: var(--c4); }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .bar { fill: var(--good); } svg .rest { fill: var(--panel); }
svg .dashed { stroke-dasharray: 6 4; }
@media print { .wide { max-height: none; } figure { break-inside: avoid; } }
"""
