"""The table of what was found in the open source, and its way into a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from ledetr.chain.images import list_images
from ledetr.chain.pipeline import Result
from ledetr.chain.side_files import SIDE_FILE_ENDINGS, PictureResult, SideHeader, open_side_files
from ledetr.chain.sources import FolderSpec, ImageSpec, ListSpec
from ledetr_app.class_filter import ClassFilter
from ledetr_app.gathered import Gathered, Rows
from ledetr_app.pictures import output_path
from ledetr_app.player import Player
from ledetr_app.state import Problem
from ledetr_app.store import Store
from ledetr_app.worker import Worker

Stills: TypeAlias = ImageSpec | FolderSpec | ListSpec


class Results:
    """Gathers what is seen, frame by frame. rows: the table as it was when it was last asked for.

    folder: where lists go; None = the user's own. work: the thread that makes the table.
    """

    def __init__(self, store: Store, player: Player, *, work: Worker, files: Worker, folder: Path | None) -> None:
        self._store = store
        self._player = player
        self._work = work
        self._files = files
        self._folder = folder
        self.gathered = Gathered()
        self.rows = Rows()
        self._made_of: object = None

    def set_panel(self, shown: bool) -> None:
        """Unfold or fold the table; the queue and the zones make room."""
        folded = {"queue_panel": False, "zones_panel": False} if shown else {}
        self._store.change(results_panel=shown, **folded)

    def set_by_track(self, by_track: bool) -> None:
        """One row a track, or one row a box."""
        self._store.change(results_by_track=by_track)
        self.ask()

    def ask(self) -> None:
        """Make the table anew if there is something newer; on_change is called once it is there."""
        state = self._store.state
        made_of = (self.gathered.version, state.class_filter, state.results_by_track)
        if made_of != self._made_of:
            self._made_of = made_of
            self._work.submit(self._make, newest_of="rows")

    def go_to(self, row: int) -> None:
        """Show the frame of this row, held; a live source cannot go back, which is said."""
        if not 0 <= row < len(self.rows):
            return
        source = self._store.state.source
        if source is None or not source.seekable:
            self._store.toast("A live source cannot go back to an earlier picture", None)
            return
        self._player.pause()
        self._player.seek(float(self.rows.pts_s[row]))

    def clear(self) -> None:
        """Forget what was gathered so far."""
        source = self._store.state.source
        self.gathered.begin(live=source is not None and source.live)
        self.ask()

    def export(self, kind: str) -> None:
        """Write what the table holds as a list of this kind, a key of SIDE_FILES, beside the recordings."""
        state = self._store.state
        problem = self._why_not(kind)
        if problem:
            self._store.change(problem=Problem(problem))
            return
        header = SideHeader(
            source=self._store.source_name,
            model=", ".join(self.gathered.models),
            random_weights=state.running is not None and state.running.random_weights,
            class_names=self.gathered.class_names,
        )
        stills, class_filter = self._player.stills, state.class_filter
        self._files.submit(lambda: self._write(kind, header, class_filter, stills))

    # In the thread that infers

    def follow(self, result: Result) -> None:
        """There is a newer result; where no model looked there is nothing to gather."""
        if not result.detections.model_id:
            return
        self.gathered.add(result, result.detections[self._store.state.class_filter.mask(result.detections)])

    def begin(self, *, live: bool) -> None:
        """Another source is open."""
        self.gathered.begin(live=live)

    # In other threads

    def _make(self) -> None:
        state = self._store.state
        self.rows = self.gathered.rows(state.class_filter, by_track=state.results_by_track)
        self._store.on_change()

    def _why_not(self, kind: str) -> str:
        if not len(self.gathered):
            return "There are no results to write yet: open a source first."
        if kind == "mot" and not self.gathered.has_tracks:
            return "MOT is a list of ids, and nothing was tracked yet: switch tracking on (T) and play."
        return ""

    def _write(self, kind: str, header: SideHeader, class_filter: ClassFilter, stills: Stills | None) -> None:
        path = output_path(self._folder, "videos", header.source, SIDE_FILE_ENDINGS[kind])
        names = [] if stills is None else [file.name for file in list_images(stills)]
        side = open_side_files({kind: path}, header)[kind]
        try:
            for picture in self.gathered.pictures(class_filter):
                side.add(picture if stills is None else _of_still(picture, names))
            path = side.finish()
        except BaseException:
            side.abort()
            raise
        self._store.toast(f"Results saved: {path.name}", path)


def _of_still(picture: PictureResult, names: list[str]) -> PictureResult:
    """Without a time, and with the name of its file, where it is still there."""
    return replace(picture, pts_s=None, file=names[picture.index] if picture.index < len(names) else None)
