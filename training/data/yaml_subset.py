"""The part of YAML that data.yaml files use, and nothing that could grow or run: no anchors, aliases, tags, merges.

Known keys are read as a text, a list of texts or a table of number to text; other keys are skipped with their block.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ledetr.errors import SourceError

Value = str | list[str] | dict[str, str]

_KEY = re.compile(r"^([A-Za-z_][\w-]*)\s*:(?:\s+(.*))?$")
_ENTRY = re.compile(r"""^('[^']*'|"[^"]*"|[\w.-]+)\s*:\s+(.*)$""")
MAX_BYTES = 4_000_000


def read_yaml(path: Path, keys: Sequence[str]) -> dict[str, Value]:
    """The values of these keys, where they are there. SourceError names file and line of what is not understood."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{str(path)!r} has more than {MAX_BYTES:,} bytes; a data.yaml is a short text")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{str(path)!r} is no UTF-8 text") from error
    values: dict[str, Value] = {}
    number = 0
    while number < len(lines):
        text, number = _without_comment(lines[number]), number + 1
        if not text.strip() or text.strip() in ("---", "..."):
            continue
        match = _KEY.match(text.rstrip())
        if match is None:
            raise SourceError(f"{str(path)!r} line {number}: expected 'key: value', got {text.strip()[:60]!r}")
        block, start = [], number
        while number < len(lines) and _belongs_to_block(lines[number]):
            block.append(_without_comment(lines[number]))
            number += 1
        key, rest = match.group(1), (match.group(2) or "").strip()
        if key in keys:
            if key in values:
                raise SourceError(f"{str(path)!r} line {start}: the key {key!r} stands twice")
            values[key] = _value(path, start, rest, block)
    return values


def _belongs_to_block(line: str) -> bool:
    """Indented, a list item, empty or a comment: not the next key."""
    return not line.strip() or line[0] in " \t-]}#"


def _value(path: Path, number: int, rest: str, block: list[str]) -> Value:
    where = f"{str(path)!r} line {number}"
    if rest[:1] in ("[", "{"):
        return _flow(where, " ".join([rest, *(line.strip() for line in block)]).strip())
    items = [line.strip() for line in block if line.strip()]
    if rest and items:
        raise SourceError(f"{where}: values over several lines are not read; write a list or one line")
    if rest:
        return _scalar(where, rest)
    if items and all(item.startswith("- ") for item in items):
        return [_scalar(where, item[2:].strip()) for item in items]
    return _table(where, items)


def _flow(where: str, text: str) -> Value:
    closing = {"[": "]", "{": "}"}[text[0]]
    if not text.endswith(closing):
        raise SourceError(f"{where}: the list is not closed with {closing!r}")
    parts = [part.strip() for part in _split(text[1:-1])]
    parts = parts[:-1] if parts and not parts[-1] else parts
    return [_scalar(where, part) for part in parts] if closing == "]" else _table(where, parts)


def _split(text: str) -> list[str]:
    """At commas outside quotes."""
    parts, quote, start = [], "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == ",":
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _table(where: str, items: list[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    for item in items:
        match = _ENTRY.match(item)
        if match is None:
            raise SourceError(f"{where}: expected 'number: name', got {item[:60]!r}")
        key = _scalar(where, match.group(1))
        if key in table:
            raise SourceError(f"{where}: the entry {key!r} stands twice")
        table[key] = _scalar(where, match.group(2).strip())
    return table


def _scalar(where: str, text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text[:1] in tuple("&*!|>[{'\"%@`"):
        raise SourceError(
            f"{where}: {text[:40]!r} needs more YAML than is read here; anchors, aliases, tags and nesting are refused"
        )
    return text


def _without_comment(line: str) -> str:
    """Up to a # that starts a word outside quotes."""
    quote = ""
    for position, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and (position == 0 or line[position - 1] in " ,[{:"):
            quote = letter
        elif letter == "#" and (position == 0 or line[position - 1] in " \t"):
            return line[:position]
    return line
