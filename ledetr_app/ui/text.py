"""Outside text (file names, addresses, class names) for places where Qt would guess HTML or look for accelerators."""

from __future__ import annotations

import html


def tip(text: str) -> str:
    """For tool tips: shown as it is, whatever it looks like."""
    return f"<span>{html.escape(text)}</span>"


def plain(text: str) -> str:
    """For buttons and menus, where & would underline the next letter."""
    return text.replace("&", "&&")


def clock(seconds: float, *, ms: bool = True) -> str:
    """12.48 s as "00:12.480", hours only where there are some."""
    total_ms = max(0, round(seconds * 1000))
    minutes, rest_ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes:02d}"
    tail = f"{rest_ms // 1000:02d}"
    return f"{head}:{tail}.{rest_ms % 1000:03d}" if ms else f"{head}:{tail}"


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
