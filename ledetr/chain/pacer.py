"""The times at which the frames of a file are due on the clock: speed, slips and fresh starts."""

from fractions import Fraction

from ledetr.chain.clock import Clock

# Later than this the plan is given up and begun anew from the frame at hand, so that nothing races to catch up.
_GIVE_UP_NS = 250_000_000


class Pacer:
    """Maps pts to clock. Used by one thread; set_speed may come from any."""

    def __init__(self, clock: Clock, speed: float = 1.0) -> None:
        self._clock = clock
        self._speed = speed
        self._anchor: tuple[Fraction, int] | None = None

    @property
    def speed(self) -> float:
        """1.0 is real time."""
        return self._speed

    def set_speed(self, speed: float) -> None:
        """Go on at another speed, 0.05 to 32, from the frame at hand."""
        if not 0.05 <= speed <= 32:
            raise ValueError(f"speed must be 0.05 to 32, got {speed}")
        self._speed = speed
        self._anchor = None

    def reset(self) -> None:
        """The next frame is due at once and begins a new plan: after a pause, a seek, a gap."""
        self._anchor = None

    def now(self) -> Fraction | None:
        """The pts (seconds) that is due now by the plan; None without one."""
        if self._anchor is None:
            return None
        pts, since_ns = self._anchor
        return pts + Fraction(self._clock.now_ns() - since_ns, 1_000_000_000) * Fraction(self._speed)

    def due_ns(self, pts: Fraction, *, may_slip: bool) -> int:
        """When the frame at pts (seconds) is due. may_slip: a late frame moves the plan, none is meant to be missed."""
        now_ns = self._clock.now_ns()
        anchor = self._anchor
        if anchor is None:
            self._anchor = (pts, now_ns)
            return now_ns
        due_ns = anchor[1] + int((pts - anchor[0]) * 1_000_000_000 / Fraction(self._speed))
        if now_ns - due_ns > (0 if may_slip else _GIVE_UP_NS):
            self._anchor = (pts, now_ns)
            return now_ns
        return due_ns
