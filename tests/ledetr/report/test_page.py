"""Pages and drawings: whole, escaped, self-contained; points where they belong."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledetr.errors import OutputError
from ledetr.report.page import Markup, check_place, element, escaped, facts, page, paragraph, section, table, write_page
from ledetr.report.svg import Curve, bars, curves, matrix, ticks


def test_text_is_escaped_once_and_markup_is_not() -> None:
    assert escaped('<b onclick="x">&\'') == "&lt;b onclick=&quot;x&quot;&gt;&amp;&#x27;"
    assert escaped(escaped("<")) == "&lt;"
    assert element("p", Markup("<i>x</i>")) == "<p><i>x</i></p>"
    assert element("p", "x", class_='"><script>') == '<p class="&quot;&gt;&lt;script&gt;">x</p>'


def test_control_direction_and_half_characters_are_shown_as_such() -> None:
    assert escaped("a\x00b\u202ec\ud800d\ne") == "a\ufffdb\ufffdc\ufffdd\ne"


def test_a_page_is_whole_and_loads_nothing(structure_of: Callable[[str], Any]) -> None:
    evil = '</style></title><script>alert(1)</script><img src="http://x/y.png">'
    text = page(evil, section(evil, paragraph(evil, quiet=True), table((evil, "n"), [(evil, 1), (None, 2)])))
    structure = structure_of(text)
    assert structure.text.count("<script>alert(1)</script>") == 6
    assert structure.seen.count("section") == 1 and structure.seen.count("tr") == 3
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)=\"http|url\(|@import", text)


def test_facts_without_a_value_are_left_out(structure_of: Callable[[str], Any]) -> None:
    assert structure_of(facts([("a", 1), ("b", None), ("c", ""), ("d", 0)])).text.split() == ["a", "1", "d", "0"]


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    check_place(path)
    assert not path.parent.exists(), "a check leaves nothing behind"
    write_page(path, "<p>ä</p>")
    assert path.read_bytes() == "<p>ä</p>".encode()
    with pytest.raises(UnicodeEncodeError):
        write_page(path, "\ud800")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"] and path.read_text("utf-8") == "<p>ä</p>"


def test_places_where_no_report_can_be(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; name the file"):
        check_place(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a folder was expected"):
        check_place(tmp_path / "file" / "report.html")
    with pytest.raises(OutputError, match="Cannot write"):
        write_page(tmp_path / "file" / "report.html", "")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 300.0, [0, 50, 100, 150, 200, 250, 300]),
        (-1.3, 4.1, [-1, 0, 1, 2, 3, 4]),
        (0.0012, 0.0047, [0.002, 0.003, 0.004]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def points_of(drawing: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'points="([^"]+)"', drawing)
    return [[tuple(map(float, pair.split(","))) for pair in one.split()] for one in found]  # type: ignore[misc]


def test_curves_start_at_the_left_axis_and_rise_to_the_top(structure_of: Callable[[str], Any]) -> None:
    drawing = curves([Curve("up", [0, 1, 2], [0, 0.5, 1])], x_label="step", y_label="loss", size_wh=(500, 300))
    ((start, middle, end),) = points_of(drawing)
    assert start == (56, 300 - 44) and end == (500 - 16, 14)
    assert middle == ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    structure_of(drawing)
    assert "<span>" not in drawing, "one line needs no legend"


def test_a_gap_parts_a_curve_and_a_lonely_point_is_a_dot() -> None:
    nan, inf = float("nan"), float("inf")
    drawing = curves(
        [Curve("a<b", [0, 1, 2, 3, 4, 5], [1, 2, nan, 3, inf, 4]), Curve("flat", [0, 5], [2, 2])],
        x_label="x",
        y_label="y",
    )
    assert [len(points) for points in points_of(drawing)] == [2, 2]
    assert drawing.count("<circle") == 2
    assert "a&lt;b" in drawing and "NaN" not in drawing and "nan" not in drawing


@pytest.mark.parametrize("values", [[], [float("nan")], [5.0], [0.0, 0.0]])
def test_there_is_always_something_to_draw_on(values: list[float], structure_of: Callable[[str], Any]) -> None:
    structure_of(curves([Curve("c", list(range(len(values))), values)], x_label="x", y_label="y"))


def test_bars_are_as_long_as_their_values(structure_of: Callable[[str], Any]) -> None:
    drawing = bars([("one", 0.2, "+20"), ("two", 0.1, "+10"), ("below", -0.1, "-10")])
    lengths = [float(n) for n in re.findall(r'class="bar"[^>]*? width="([\d.]+)"', drawing)]
    assert lengths == [pytest.approx(2 * lengths[1]), lengths[1], 0.0]
    structure_of(bars([]))


def test_a_matrix_tells_every_count_that_is_not_zero(structure_of: Callable[[str], Any]) -> None:
    drawing = matrix(["a&b", "c", "background"], np.array([[3, 1, 0], [0, 0, 2], [0, 0, 0]]))
    told = re.findall(r"<title>([^<]+)</title>", drawing)
    assert told == ["a&amp;b taken for a&amp;b: 3", "a&amp;b taken for c: 1", "c taken for background: 2"]
    structure_of(drawing)
    structure_of(matrix([f"class {k}" for k in range(200)], np.eye(200, dtype=int)))
