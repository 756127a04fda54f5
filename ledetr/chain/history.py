"""The frames around the one that is shown, so that a step back needs no seek."""

from collections import deque

from ledetr.frame import Frame

KEEP_S = 2


class History:
    """A run of frames of one epoch with a mark on the one shown; bounded by bytes and by 2 s behind the mark.

    Used by one thread. The frame shown and the one after it are kept whatever the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._shown = -1  # row of the frame shown; -1: none yet
        self._nbytes = 0

    def append(self, frame: Frame) -> None:
        """Add a frame just read, the newest."""
        self._frames.append(frame)
        self._nbytes += frame.rgb.nbytes
        while self._shown > 0 and self._is_too_much():
            self._nbytes -= self._frames.popleft().rgb.nbytes
            self._shown -= 1

    def _is_too_much(self) -> bool:
        oldest, shown = self._frames[0].meta, self._frames[self._shown].meta
        return self._nbytes > self._max_bytes or (shown.pts - oldest.pts) * shown.time_base > KEEP_S

    def move_to(self, frame: Frame) -> None:
        """The frame is shown now; it must be one of those kept."""
        self._shown = next(i for i, kept in enumerate(self._frames) if kept is frame)

    def upcoming(self) -> Frame | None:
        """The frame after the one shown, where it was read already."""
        return self._frames[self._shown + 1] if self._shown + 1 < len(self._frames) else None

    def previous(self) -> Frame | None:
        """The frame before the one shown, where it is still kept."""
        return self._frames[self._shown - 1] if self._shown > 0 else None

    def clear(self) -> None:
        """Forget all, at a seek."""
        self._frames.clear()
        self._shown = -1
        self._nbytes = 0
