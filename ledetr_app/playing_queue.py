"""Files that are played one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ledetr_app.player import Player
from ledetr_app.playlist import Playlist
from ledetr_app.store import Store


class PlayingQueue:
    """Opens sources in the player: one by itself, or the files of a queue in turn."""

    def __init__(self, store: Store, player: Player) -> None:
        self._store = store
        self._player = player
        player.on_over = self._play_on

    def open_source(self, source: str | Path) -> None:
        """Open a path, address, camera or test pattern in place of what is open; the queue waits."""
        self._store.change(queue=self._store.state.queue.playing(None))
        self._player.open_soon(source)

    def open_files(self, paths: Sequence[str]) -> None:
        """Open one path; several become the queue, and are played in turn."""
        if len(paths) == 1:
            self.open_source(paths[0])
        elif paths:
            self._store.change(queue=Playlist.of(paths))
            self.set_panel(True)
            self.play_queued(0)

    def set_panel(self, shown: bool) -> None:
        """Unfold or fold the list of the queue; the results and the zones make room."""
        folded = {"results_panel": False, "zones_panel": False} if shown else {}
        self._store.change(queue_panel=shown, **folded)

    def play_queued(self, row: int) -> None:
        """Play this one of the queue now."""
        queue = self._store.state.queue
        if 0 <= row < len(queue.paths):
            self._store.change(queue=queue.playing(row))
            self._player.open_soon(queue.paths[row])

    def play_neighbour(self, by: int) -> None:
        """Play the next (1) or the previous (-1) file of the queue."""
        row = self._store.state.queue.neighbour(by)
        if row is not None:
            self.play_queued(row)

    def remove_queued(self, row: int) -> None:
        """Take one out of the queue; what is played goes on."""
        queue = self._store.state.queue
        if 0 <= row < len(queue.paths):
            self._store.change(queue=queue.without(row))

    def clear_queue(self) -> None:
        """Forget the queue; what is played goes on."""
        self._store.change(queue=Playlist())

    def _play_on(self) -> None:
        """The next of the queue, where one of it has come to its end, good or bad, while it was played."""
        state = self._store.state
        following = state.queue.neighbour(1)
        if state.queue.at is None or following is None or not self._player.plays or state.opening:
            return
        self.play_queued(following)
        self._store.change(problem=state.problem)  # of the file before; it stays until the user has read it
