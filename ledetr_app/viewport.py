"""Which part of the picture is seen and how large: fit, zoom and pan as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_ZOOM = 32.0
ZOOM_STEP = 1.25


@dataclass(frozen=True, slots=True)
class View:
    """zoom: screen pixels per pixel of the picture; None = as large as the room allows.

    centre_xy: the point of the picture, 0..1 in both directions, in the middle of the room; of no meaning without zoom.
    """

    zoom: float | None = None
    centre_xy: tuple[float, float] = (0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the whole picture lies in its room, in whole screen pixels; it may be larger than the room."""

    source_wh: tuple[int, int]
    room_wh: tuple[int, int]
    origin_xy: tuple[int, int]
    size_wh: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Screen pixels per pixel of the picture."""
        return self.size_wh[0] / self.source_wh[0], self.size_wh[1] / self.source_wh[1]

    @property
    def can_pan(self) -> bool:
        """Whether some of the picture is outside the room."""
        return self.size_wh[0] > self.room_wh[0] or self.size_wh[1] > self.room_wh[1]

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """A point of the room as a point of the picture, in its pixels."""
        scale_x, scale_y = self.scale_xy
        return (x - self.origin_xy[0]) / scale_x, (y - self.origin_xy[1]) / scale_y

    def visible(self) -> tuple[int, int, int, int]:
        """The pixels x0, y0, x1, y1 of the picture that are seen, at least one."""
        spans = []
        for axis in (0, 1):
            source, room, scale = self.source_wh[axis], self.room_wh[axis], self.scale_xy[axis]
            low = int(max(0, -self.origin_xy[axis]) / scale)
            high = -int(-(room - self.origin_xy[axis]) // scale)
            low = min(low, source - 1)
            spans.append((low, max(low + 1, min(high, source))))
        (x0, x1), (y0, y1) = spans
        return x0, y0, x1, y1


def fitted_size(source_wh: tuple[int, int], room_wh: tuple[int, int]) -> tuple[int, int]:
    """Largest size with the source's aspect ratio inside the room, at least 1 x 1."""
    (source_w, source_h), (room_w, room_h) = source_wh, room_wh
    if source_w * room_h > source_h * room_w:
        return max(1, room_w), max(1, round(source_h * room_w / source_w))
    return max(1, round(source_w * room_h / source_h)), max(1, room_h)


def place(view: View, source_wh: tuple[int, int], room_wh: tuple[int, int]) -> Placed:
    """Where the picture lies: in the middle where it is smaller than the room, else with no empty edge."""
    if view.zoom is None:
        size_wh = fitted_size(source_wh, room_wh)
    else:
        size_wh = max(1, round(source_wh[0] * view.zoom)), max(1, round(source_wh[1] * view.zoom))
    x, y = (_origin(size_wh[axis], room_wh[axis], view.centre_xy[axis]) for axis in (0, 1))
    return Placed(source_wh, room_wh, (x, y), size_wh)


def zoomed(
    view: View, factor: float, at_xy: tuple[float, float], source_wh: tuple[int, int], room_wh: tuple[int, int]
) -> View:
    """Larger or smaller by a factor; the point of the picture under at_xy, a point of the room, stays there.

    Not smaller than what fits, or than 100 % where the picture is smaller than its room.
    """
    now = place(view, source_wh, room_wh)
    fit = place(View(), source_wh, room_wh).scale_xy[0]
    zoom = min(max((view.zoom or fit) * factor, min(fit, 1.0)), LARGEST_ZOOM)
    if abs(zoom / fit - 1) < 1e-3:
        return View()
    at_source = now.to_source(*at_xy)
    x, y = (_centre(at_source[axis] * zoom, at_xy[axis], source_wh[axis] * zoom, room_wh[axis]) for axis in (0, 1))
    return View(zoom, (x, y))


def panned(view: View, by_xy: tuple[float, float], source_wh: tuple[int, int], room_wh: tuple[int, int]) -> View:
    """The picture moved by some screen pixels, as far as it goes."""
    if view.zoom is None:
        return view
    now = place(view, source_wh, room_wh)
    x, y = (_centre(-now.origin_xy[axis] - by_xy[axis], 0.0, now.size_wh[axis], room_wh[axis]) for axis in (0, 1))
    return View(view.zoom, (x, y))


def _origin(size: int, room: int, centre: float) -> int:
    if size <= room:
        return (room - size) // 2
    return min(0, max(room - size, round(room / 2 - centre * size)))


def _centre(at_size: float, at_room: float, size: float, room: int) -> float:
    """The centre 0..1 with which at_size pixels of the scaled picture are left of the point at_room of the room."""
    if size <= room:
        return 0.5
    half = room / 2 / size
    return min(max((at_size + room / 2 - at_room) / size, half), 1 - half)
