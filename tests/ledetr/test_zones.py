"""Zones and lines: geometry against OpenCV, counts on hand-made ways, and files that others may have spoilt."""

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledetr.detections import Detections
from ledetr.errors import OutputError, UsageError
from ledetr.zones import (
    Line,
    ShapeCount,
    Zone,
    ZoneCounter,
    ZonePlan,
    anchors_of,
    inside_polygon,
    load_zones,
    save_zones,
    signed_distance,
)

HD = (100, 200)  # height, width
SQUARE = Zone("door", ((50, 20), (150, 20), (150, 80), (50, 80)))
DOWN = Line("gate", (100, 0), (100, 100))  # who walks down the picture has its left side on the right


def seen(*rows: tuple[int, float, float], classes: tuple[int, ...] | None = None) -> Detections:
    """Boxes 4 wide and 10 high that stand on these points: (id, x, y of the foot)."""
    return Detections(
        np.array([[x - 2, y - 10, x + 2, y] for _, x, y in rows], np.float32).reshape(-1, 4),
        np.ones(len(rows), np.float32),
        np.array(classes or [0] * len(rows), np.int64),
        tracker_id=np.array([i for i, _, _ in rows], np.int64),
        class_names=("person", "car"),
    )


def counted(plan: ZonePlan, frames: list[Detections], step_s: float = 1.0) -> list[ShapeCount]:
    counter = ZoneCounter(plan)
    for i, detections in enumerate(frames):
        counter.update(detections, i * step_s, HD)
    return list(counter.counts())


def pixels(*shapes: Zone | Line) -> ZonePlan:
    zones = tuple(shape for shape in shapes if isinstance(shape, Zone))
    return ZonePlan(zones, tuple(shape for shape in shapes if isinstance(shape, Line)), "pixels")


# Geometry.

corner = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: (float(p[0]), float(p[1])))


@settings(max_examples=150, deadline=None)
@given(st.lists(corner, min_size=3, max_size=8), st.integers(0, 2**32 - 1))
@example([(0.0, 0.0), (40.0, 40.0), (40.0, 0.0), (0.0, 40.0)], 0)  # an hourglass
def test_inside_is_what_opencv_calls_inside(corners: list[tuple[float, float]], seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-5, 45, (40, 2))
    contour = np.array(corners, np.float32).reshape(-1, 1, 2)
    for point, inside in zip(points.tolist(), inside_polygon(points, tuple(corners)), strict=True):
        place = cv2.pointPolygonTest(contour, point, measureDist=True)
        if abs(place) > 1e-3:  # on the edge OpenCV has a third answer
            assert inside == (place > 0)


def test_a_shared_edge_belongs_to_one_of_two() -> None:
    points = np.array([[100.0, y] for y in range(5, 95, 5)])
    left, right = ((0, 0), (100, 0), (100, 100), (0, 100)), ((100, 0), (200, 0), (200, 100), (100, 100))
    assert (inside_polygon(points, left) ^ inside_polygon(points, right)).all()


def test_anchors() -> None:
    boxes = np.array([[10, 20, 30, 60]], np.float32)
    assert anchors_of(boxes, "bottom").tolist() == [[20, 60]]
    assert anchors_of(boxes, "centre").tolist() == [[20, 40]]
    assert inside_polygon(anchors_of(boxes[:0], "bottom"), SQUARE.points).shape == (0,)


def test_distance_is_positive_to_the_right_of_the_walker() -> None:
    assert signed_distance((93, 50), DOWN) == 7  # walking down the picture, the right hand is on the picture's left
    assert signed_distance((104, 10), DOWN) == -4


# Counts.


def test_through_a_zone_and_out_again() -> None:
    (door,) = counted(pixels(SQUARE), [seen((1, x, 50)) for x in (10, 40, 60, 100, 140, 160, 190)])
    assert (door.entered, door.left, door.now) == ({"person": 1}, {"person": 1}, {})
    assert (door.visits, door.dwell_mean_s, door.dwell_max_s) == (1, 2.0, 2.0)


def test_who_begins_inside_did_not_go_in_and_who_vanishes_inside_did_not_go_out() -> None:
    (door,) = counted(pixels(SQUARE), [seen((1, 60, 50)), seen((1, 70, 50)), seen()])
    assert (door.entered, door.left, door.now, door.visits) == ({}, {}, {}, 1)
    assert door.dwell_max_s == 1.0


def test_occupancy_is_of_this_frame_and_by_class() -> None:
    frame = seen((1, 60, 50), (2, 70, 50), (3, 80, 50), (4, 10, 50), classes=(0, 0, 1, 0))
    (door,) = counted(pixels(SQUARE), [frame])
    assert door.now == {"person": 2, "car": 1}


def test_a_gap_within_a_visit_belongs_to_it() -> None:
    (door,) = counted(pixels(SQUARE), [seen((1, 10, 50)), seen((1, 60, 50)), seen(), seen(), seen((1, 90, 50))])
    assert (door.entered, door.visits, door.dwell_max_s) == ({"person": 1}, 1, 3.0)


def test_memory_of_the_lost_ends() -> None:
    counter = ZoneCounter(pixels(SQUARE, DOWN), forget_s=5)
    for i in range(2000):
        counter.update(seen((2 * i, 60, 50), (2 * i + 1, 10, 50)), i * 1.0, HD)
    door, _ = counter._zones["door"], counter._lines["gate"]
    assert len(door.inside) <= 7 and len(door.outside) <= 7 and len(counter._lines["gate"].side) <= 14
    assert counter.counts()[0].visits == 2000


def test_over_a_line_and_back() -> None:
    (gate,) = counted(pixels(DOWN), [seen((1, x, 50)) for x in (120, 105, 95, 80, 95, 105, 120, 80)])
    assert (gate.entered, gate.left) == ({"person": 2}, {"person": 1})


def test_both_directions_by_class() -> None:
    ways = [seen((1, x, 50), (2, 200 - x, 60), classes=(0, 1)) for x in (130, 70)]
    (gate,) = counted(pixels(DOWN), ways)
    assert (gate.entered, gate.left) == ({"person": 1}, {"car": 1})
    turned = Line("gate", DOWN.end, DOWN.start)
    (gate,) = counted(pixels(turned), ways)
    assert (gate.entered, gate.left) == ({"car": 1}, {"person": 1})


def test_past_the_end_of_a_line_is_not_over_it() -> None:
    short = Line("gate", (100, 0), (100, 40))
    assert counted(pixels(short), [seen((1, 120, 50)), seen((1, 80, 50))])[0].entered == {}
    assert counted(pixels(short), [seen((1, 120, 39)), seen((1, 80, 39))])[0].entered == {"person": 1}


def test_trembling_on_a_line_counts_once() -> None:
    """The band is a twentieth of the box's height, 0.5 px here."""
    (gate,) = counted(pixels(DOWN), [seen((1, x, 50)) for x in (110, 100.2, 99.8, 100.0, 100.3, 99.7, 90)])
    assert (gate.entered, gate.left) == ({"person": 1}, {})
    (gate,) = counted(pixels(DOWN), [seen((1, x, 50)) for x in (110, 99.8, 100.2, 110)])
    assert (gate.entered, gate.left) == ({}, {})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 100), min_size=2, max_size=12), min_size=1, max_size=4))
def test_in_less_out_is_where_everybody_ended(ways: list[list[int]]) -> None:
    """Over a line through the whole picture, per walker: ended on the right less began on the right.

    Nobody comes nearer to the line at 100 than 0.6, which is outside the band of 0.5 where a trembling box stays.
    """
    frames = max(map(len, ways))
    clip = [
        seen(*((i, 2 * way[min(frame, len(way) - 1)] + 0.6 * (1 - 2 * (i % 2)), 50) for i, way in enumerate(ways)))
        for frame in range(frames)
    ]
    (gate,) = counted(pixels(DOWN), clip)
    places = [[float(d.xyxy[k, 0]) + 2 for d in clip] for k in range(len(ways))]
    expected = sum(int(way[-1] < 100) - int(way[0] < 100) for way in places)
    crossings = sum(sum((a < 100) != (b < 100) for a, b in pairwise(way)) for way in places)
    entered, left = gate.entered.get("person", 0), gate.left.get("person", 0)
    assert entered - left == expected and entered + left == crossings


def test_boxes_without_ids_are_not_counted() -> None:
    (door,) = counted(pixels(SQUARE), [seen((-1, 10, 50)), seen((-1, 60, 50))])
    assert (door.entered, door.now, door.visits) == ({}, {}, 0)
    plain = Detections(np.array([[60, 40, 64, 50]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert counted(pixels(SQUARE), [plain])[0].now == {}


def test_a_jump_back_ends_visits_and_keeps_counts() -> None:
    counter = ZoneCounter(pixels(SQUARE))
    for pts_s, x in ((10.0, 10), (11.0, 60), (12.0, 60), (3.0, 60), (4.0, 60)):
        counter.update(seen((1, x, 50)), pts_s, HD)
    (door,) = counter.counts()
    assert (door.entered, door.visits, door.dwell_max_s) == ({"person": 1}, 2, 1.0)


def test_relative_points_are_of_the_picture() -> None:
    relative = ZonePlan((Zone("door", ((0.25, 0.2), (0.75, 0.2), (0.75, 0.8), (0.25, 0.8))),))
    assert relative.in_pixels(HD).zones[0].points == SQUARE.points
    counter = ZoneCounter(relative)
    counter.update(seen((1, 60, 50)), 0.0, HD)
    counter.update(seen((1, 60, 50)), 1.0, (1000, 2000))  # now the same point is far outside
    assert counter.counts()[0].now == {} and counter.counts()[0].left == {}


def test_counts_as_json() -> None:
    door, gate = counted(pixels(SQUARE, DOWN), [seen((1, 160, 50)), seen((1, 140, 50)), seen((1, 90, 50))])
    assert json.loads(json.dumps([door.to_json(), gate.to_json()])) == [
        {"name": "door", "kind": "zone", "in": {"person": 1}, "out": {}, "now": {"person": 1}, "visits": 1,
         "dwell_mean_s": 1.0, "dwell_max_s": 1.0},
        {"name": "gate", "kind": "line", "in": {"person": 1}, "out": {}},
    ]  # fmt: skip


# The file.

PLAN = ZonePlan((Zone("Tür 1", ((0, 0), (1, 0), (0.5, 1))),), (Line("gate", (0, 0.5), (1, 0.5)),), "relative", "centre")


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "zones.json"
    path.write_text("old")
    save_zones(PLAN, path)
    assert load_zones(path) == PLAN and [p.name for p in tmp_path.iterdir()] == ["zones.json"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="The zones cannot be written to"):
        save_zones(PLAN, tmp_path / "missing" / "zones.json")


ZONE = {"name": "a", "points": [[0, 0], [1, 0], [1, 1]]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "the document is \\[\\], not an object"),
        ({}, "holds neither zones nor lines"),
        ({"zones": [ZONE], "colour": 1}, "the document has 'colour'; known are"),
        ({"schema_version": 2, "zones": [ZONE]}, "schema_version is 2, this program reads 1"),
        ({"units": "feet", "zones": [ZONE]}, "units is 'feet', write \"relative\""),
        ({"anchor": ["bottom"], "zones": [ZONE]}, "anchor is \\['bottom'\\]"),
        ({"zones": {}}, "zones must be a list of at most 200"),
        ({"zones": [7]}, "a zone is 7, not an object"),
        ({"zones": [{"points": [[0, 0], [1, 0], [1, 1]]}]}, "a name is 1 to 80 letters in one line, got None"),
        ({"zones": [{**ZONE, "name": "a\nb"}]}, "a name is 1 to 80 letters"),
        ({"zones": [ZONE, ZONE]}, "the name 'a' is there twice"),
        ({"zones": [{"name": "a", "points": [[0, 0], [1, 1]]}]}, "needs 3 to 1000 points, got 2"),
        ({"zones": [{"name": "a", "points": [[0, 0]] * 1001}]}, "points must be a list of at most 1000"),
        ({"zones": [{"name": "a", "points": [[0, 0], [1, 0], [1, "1"]]}]}, "a point is \\[x, y\\]"),
        ({"zones": [{"name": "a", "points": [[0, 0], [1, 0], [True, 1]]}]}, "a point is \\[x, y\\]"),
        ({"zones": [{"name": "a", "points": [[0, 0], [1, 0], [1.5, 1]]}]}, r"outside 0\.\.1 \(relative\)"),
        ({"units": "pixels", "zones": [{"name": "a", "points": [[0, 0], [1, 0], [-3, 1]]}]}, r"outside 0\.\.65535"),
        ({"lines": [{"name": "a", "start": [0, 0], "end": [0, 0]}]}, "begins and ends at"),
        ({"lines": [{"name": "a", "start": [0, 0]}]}, "None for a point"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(tmp_path: Path, document: object, words: str) -> None:
    path = tmp_path / "zones.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=words) as error:
        load_zones(path)
    assert str(error.value).startswith(f"{path} is no file of zones: ") and str(error.value).endswith(".")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 200_000,
        b'{"zones": [{"name": "a", "points": [[0, 0], [1, 0], [NaN, 1]]}]}',
        b'{"zones": [{"name": "a", "points": [[0, 0], [1, 0], [1e999, 1]]}]}',
        b'{"zones": [{"name": "a", "points": [[0, 0], [1, 0], [1' + b"0" * 4000 + b", 1]]}]}",
        b'{"zones": [{"name": "a", "points": [[0, 0], [1, 0], [1' + b"0" * 9000 + b", 1]]}]}",
    ],
)
def test_spoilt_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "zones.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is no file of zones: "):
        load_zones(path)


def test_files_that_are_missing_or_huge_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The zones cannot be read from .*: No such file"):
        load_zones(tmp_path / "zones.json")
    with pytest.raises(UsageError, match="The zones cannot be read from"):
        load_zones(tmp_path)
    (tmp_path / "zones.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load_zones(tmp_path / "zones.json")


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["zones", "lines", "name", "points", "start", "end", "units", "anchor"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    try:
        plan = load_zones(path)
    except UsageError:
        return
    assert plan.zones or plan.lines
