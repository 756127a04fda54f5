"""What the user chose for exports, and jobs made of it and of what the window shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from platformdirs import user_videos_path

from ledetr.chain.sources import SourceInfo
from ledetr.errors import UsageError
from ledetr.zones import ZonePlan
from ledetr_app.export_job import OUTPUTS, VIDEO, ExportJob
from ledetr_app.export_queue import ExportQueue
from ledetr_app.model_loader import LoadDetector
from ledetr_app.state import SessionState
from ledetr_app.store import Store

# The end of a part is the picture that was chosen, so the cut stands between it and the next one.
_PAST_THE_LAST = 0.6


@dataclass(frozen=True, slots=True)
class ExportForm:
    """outputs: some of OUTPUTS. folder: where they go. shown: the panel stands beside the picture."""

    outputs: tuple[str, ...]
    folder: Path
    shown: bool = False


class Exporting:
    """The queue, and the form that fills it. Commands return at once.

    source: what opens the shown source again, "" where nothing does. zones: what was drawn for a source. kept_in: where
    the queue outlives the window.
    """

    def __init__(
        self,
        store: Store,
        load: LoadDetector,
        *,
        source: Callable[[], str],
        zones: Callable[[str], ZonePlan | None] = lambda _source: None,
        folder: Path | None = None,
        kept_in: Path | None = None,
    ) -> None:
        self._store = store
        self._source = source
        self._zones = zones
        self.form = ExportForm((VIDEO, "csv"), folder or user_videos_path() / "Le-DETR")
        self.queue = ExportQueue(load, kept_in)

    def set_shown(self, shown: bool) -> None:
        """Unfold or fold the panel."""
        self._change(replace(self.form, shown=shown))

    def set_output(self, name: str, wanted: bool) -> None:
        """One of OUTPUTS, or not."""
        outputs = tuple(one for one in OUTPUTS if (wanted if one == name else one in self.form.outputs))
        self._change(replace(self.form, outputs=outputs))

    def set_folder(self, folder: str | Path) -> None:
        """Where results go from now on."""
        self._change(replace(self.form, folder=Path(folder)))

    @property
    def can_add(self) -> bool:
        """There is a file on the screen, and something is wanted of it."""
        return bool(self.form.outputs) and self._exportable() is not None

    def add_shown(self) -> None:
        """The file on the screen, from its in to its out point."""
        source, state = self._exportable(), self._store.state
        if source is None:
            self._store.report(UsageError("There is no file to export yet: open a video or pictures first."))
            return
        start_s, end_s = _part(state, source)
        self._add([replace(job, start_s=start_s, end_s=end_s) for job in self._jobs([self._source()])])

    def add_files(self, paths: Sequence[str]) -> None:
        """These, whole, one job each."""
        self._add(self._jobs(paths))

    def close(self, timeout_s: float) -> bool:
        """End the queue; False when it did not end in time."""
        return self.queue.close(timeout_s)

    def _exportable(self) -> SourceInfo | None:
        source = self._store.state.source
        return None if source is None or source.live or not self._source() else source

    def _jobs(self, sources: Sequence[str]) -> list[ExportJob]:
        state, form = self._store.state, self.form
        if not form.outputs:
            self._store.report(UsageError("Nothing is chosen to be exported: tick at least one kind of result."))
            return []
        names = None if state.shown_classes is None else tuple(sorted(state.shown_classes))
        wish = state.running.wish if state.running is not None else state.wish
        return [
            ExportJob(
                source=source,
                model=wish,
                outputs=form.outputs,
                folder=str(form.folder),
                conf=state.conf,
                class_names=names,
                labels=state.labels,
                scores=state.scores,
                tracked=state.tracking,
                track_buffer_s=state.track_buffer_s,
                zones=self._zones(source),
            )
            for source in sources
        ]

    def _add(self, jobs: Sequence[ExportJob]) -> None:
        if jobs:
            self.queue.add(jobs)
            self.set_shown(True)

    def _change(self, form: ExportForm) -> None:
        if form != self.form:
            self.form = form
            self._store.on_change()


def _part(state: SessionState, source: SourceInfo) -> tuple[float, float | None]:
    """In and out point as seconds from the first picture, the end excluded."""
    start_s = 0.0 if state.in_s is None else max(0.0, state.in_s - source.start_s)
    if state.out_s is None:
        return start_s, None
    period_s = float(1 / source.rate) if source.rate else float(source.time_base)
    return start_s, max(0.0, state.out_s - source.start_s) + _PAST_THE_LAST * period_s
