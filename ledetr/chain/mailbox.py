"""The two hand-overs between threads: newest wins, or the producer waits. There is no third."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

MEBIBYTE = 1024 * 1024
DEFAULT_QUEUE_BYTES = 256 * MEBIBYTE


class _HandOver(Generic[T]):
    """What both have in common: items that wait to be taken, the oldest first, and two ends that close wakes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[tuple[T, int]] = deque()
        self._nbytes = 0
        self._closed = False
        self._nudged = False
        self._dropped = 0
        self._discarded = 0
        self._waiting = 0

    def take(self, timeout_s: float | None = None) -> T | None:
        """The oldest item; None when it is closed and empty, nudged, or timeout_s passed without one."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._items or self._closed or self._nudged, timeout_s)
            self._waiting -= 1
            self._nudged = False
            if not self._items:
                return None
            item, nbytes = self._items.popleft()
            self._nbytes -= nbytes
            self._changed.notify_all()
            return item

    def peek(self) -> T | None:
        """The item that take would give, left in place."""
        with self._changed:
            return self._items[0][0] if self._items else None

    def clear(self) -> int:
        """Throw away what waits, e.g. at a seek; how many items that were."""
        with self._changed:
            count = len(self._items)
            self._discarded += count
            self._items.clear()
            self._nbytes = 0
            self._changed.notify_all()
            return count

    def nudge(self) -> None:
        """Make the next (or waiting) take return, with None where nothing waits."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def close(self, drain: bool = False) -> int:
        """Refuse new items and wake both ends; drain: what waits can still be taken. How many were discarded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return 0 if drain else self.clear()

    @property
    def closed(self) -> bool:
        """Whether it takes no more items."""
        with self._changed:
            return self._closed

    @property
    def dropped(self) -> int:
        """Items replaced by a newer one."""
        with self._changed:
            return self._dropped

    @property
    def discarded(self) -> int:
        """Items thrown away by clear or close."""
        with self._changed:
            return self._discarded

    @property
    def waiting(self) -> int:
        """Takers that wait right now."""
        with self._changed:
            return self._waiting

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)


class Mailbox(_HandOver[T]):
    """One slot in which the newest item replaces the older one, which is counted as dropped; put never waits."""

    def put(self, item: T) -> bool:
        """Leave the item; False when the mailbox is closed and the item was refused."""
        with self._changed:
            if self._closed:
                return False
            self._dropped += len(self._items)
            self._items.clear()
            self._items.append((item, 0))
            self._changed.notify_all()
            return True

    def wait_empty(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing lies there (or it is closed), for a producer that wants no item replaced."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items or self._closed, timeout_s)


class ByteQueue(_HandOver[T]):
    """First in, first out, bounded by the bytes of its items; the producer waits while it is full, nothing is dropped.

    An item larger than the bound is let in when the queue is empty, so that one huge picture cannot block for ever.
    """

    def __init__(self, max_bytes: int = DEFAULT_QUEUE_BYTES) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, got {max_bytes}")
        super().__init__()
        self._max_bytes = max_bytes

    def put(self, item: T, nbytes: int, timeout_s: float | None = None) -> bool:
        """Append the item, waiting for room; False when the queue was closed or timeout_s passed, the item refused."""
        if nbytes < 0:
            raise ValueError(f"nbytes must not be negative, got {nbytes}")
        with self._changed:
            room = self._changed.wait_for(lambda: self._closed or self._fits(nbytes), timeout_s)
            if self._closed or not room:
                return False
            self._items.append((item, nbytes))
            self._nbytes += nbytes
            self._changed.notify_all()
            return True

    def _fits(self, nbytes: int) -> bool:
        return not self._items or self._nbytes + nbytes <= self._max_bytes

    @property
    def nbytes(self) -> int:
        """Bytes that wait right now."""
        with self._changed:
            return self._nbytes
