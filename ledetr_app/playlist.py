"""Files that are played in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Playlist:
    """paths: in turn, at most LONGEST. at: the one that is played; None = something else is, or nothing."""

    paths: tuple[str, ...] = ()
    at: int | None = None

    @classmethod
    def of(cls, paths: Sequence[str]) -> Playlist:
        """The first LONGEST of them, none played yet."""
        return cls(tuple(paths[:LONGEST]))

    @property
    def current(self) -> str | None:
        """The path that is played."""
        return None if self.at is None else self.paths[self.at]

    def neighbour(self, by: int) -> int | None:
        """Row of the one after (1) or before (-1) the one that is played; None at the ends."""
        if self.at is None:
            return 0 if self.paths and by > 0 else None
        row = self.at + by
        return row if 0 <= row < len(self.paths) else None

    def playing(self, at: int | None) -> Playlist:
        """The same files, another of them played."""
        return replace(self, at=at)

    def without(self, row: int) -> Playlist:
        """One file less; what is played goes on, and is of the list no more where it is that one."""
        at = self.at
        if at is not None:
            at = None if row == at else at - (row < at)
        return Playlist(self.paths[:row] + self.paths[row + 1 :], at)
