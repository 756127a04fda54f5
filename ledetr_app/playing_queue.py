"""Files that are played one after the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from ledetr_app.player import Player
from ledetr_app.playlist import Playlist
from ledetr_app.store import Store

STILL_S = 4.0  # how long a picture is looked at


class PlayingQueue:
    """Opens sources in the player: one by itself, or the files of a queue in turn."""

    def __init__(self, store: Store, player: Player) -> None:
        self._store = store
        self._player = player
        self._later: threading.Timer | None = None
        self._closed = False
        player.on_over = self._play_on
        player.on_still = self._play_on_later

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

    def close(self) -> None:
        """Nothing is played on any more."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()

    def _play_on_later(self) -> None:
        """A picture is looked at for a while, unless something else is played by then."""
        if self._later is not None:
            self._later.cancel()
        queue = self._store.state.queue
        if not self._closed and queue.at is not None and queue.neighbour(1) is not None:
            self._later = threading.Timer(STILL_S, self._play_on_from, (queue.current,))
            self._later.daemon = True
            self._later.start()

    def _play_on_from(self, path: str | None) -> None:
        if self._store.state.queue.current == path:
            self._play_on()

    def _play_on(self) -> None:
        """The next of the queue, where one of it has come to its end, good or bad, while it was played."""
        state = self._store.state
        following = state.queue.neighbour(1)
        if state.queue.at is None or following is None or not self._player.plays or state.opening:
            return
        self.play_queued(following)
        self._store.change(problem=state.problem)  # of the file before; it stays until the user has read it
