"""Pictures and videos that the user keeps: snapshots and recordings of what is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ledetr.chain.pipeline import Pipeline, RecordingEnded, Result
from ledetr.chain.recording import RecordingStatus
from ledetr_app.display import Display
from ledetr_app.pictures import output_path, save_snapshot
from ledetr_app.state import Problem
from ledetr_app.store import Store
from ledetr_app.worker import Worker


class Keeping:
    """Snapshots, made by the thread `files`, and one recording, begun and ended by the thread `control`.

    pictures, videos: the folders they go to; None = the user's own.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        display: Display,
        *,
        control: Worker,
        files: Worker,
        pictures: Path | None,
        videos: Path | None,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._display = display
        self._control = control
        self._files = files
        self._pictures = pictures
        self._videos = videos

    def snapshot(self, *, boxes: bool = True) -> None:
        """Save the picture that is shown in full size, with or without boxes, and its detections beside it."""
        result, name = self._store.shown, self._store.source_name
        if result is None:
            self._store.change(problem=Problem("There is no picture to save yet: open a source first."))
            return
        marks = self._display.marks_to_keep(result) if boxes else []
        seen, in_force = self._display.seen(result), self._in_force(result)

        def save() -> None:
            path = output_path(self._pictures, "pictures", name, ".png")
            save_snapshot(path, result, seen, marks, in_force)
            self._store.toast(f"Snapshot saved: {path.name}", path)

        self._files.submit(save)

    def toggle_recording(self) -> None:
        """Start or end a recording of what is seen."""
        if self._store.state.recording is not None:
            self._control.submit(self.stop_recording)
        elif self._store.state.has_source:
            self._control.submit(self._start_recording)
        else:
            self._store.change(problem=Problem("There is nothing to record yet: open a source first."))

    def recording_status(self) -> RecordingStatus | None:
        """Length and size so far; None when nothing is recorded."""
        return self._pipeline.recording

    def stop_recording(self) -> None:
        """End the recording, if one runs; in the thread `control`. The file is completed by a thread of its own."""
        if self._store.state.recording is None:
            return
        self._store.change(recording=None)
        if self._pipeline.recording is not None:
            self._pipeline.stop_recording(wait=False)

    def follow_end(self, event: RecordingEnded) -> None:
        """The recording is complete, or was ended by an error."""
        self._store.change(recording=None)
        if event.error is not None:
            self._store.report(event.error)
        elif event.path is not None:
            self._store.toast(f"Recording saved: {event.path.name}", event.path)

    def _start_recording(self) -> None:
        path = output_path(self._videos, "videos", self._store.source_name, ".mp4")
        self._pipeline.start_recording(path, with_boxes=True, marks=self._display.marks_to_keep)
        self._store.change(recording=path)

    def _in_force(self, result: Result) -> dict[str, Any]:
        """What else held at this moment, for the record; what was counted, where there are zones."""
        state = self._store.state
        counts = [count.to_json() for count in self._display.counts(result)]
        return ({"zones": counts} if counts else {}) | {
            "conf": state.conf,
            "class_conf": dict(state.class_conf),
            "random_weights": state.running is not None and state.running.random_weights,
        }
