"""What outlives the window: the state begins with the settings of the last run, and becomes those of the next."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledetr.zones import ZonePlan, plan_of
from ledetr_app.model_loader import ModelWish
from ledetr_app.settings import LoadedSettings, Settings, load_settings, save_settings
from ledetr_app.state import Problem, SessionState
from ledetr_app.store import Store
from ledetr_app.worker import Worker


class Remembered:
    """The settings of one run. path: None = nothing is read and nothing is kept (as with --safe)."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._loaded = LoadedSettings(Settings()) if path is None else load_settings(path)
        self.settings = self._loaded.settings
        self._lock = threading.Lock()

    def first_state(self) -> SessionState:
        """The choices of the last run, and a problem where its file was broken."""
        settings = self.settings
        return SessionState(
            model=settings.model,
            device=settings.device,
            precision=settings.precision,
            decoder_layers=settings.decoder_layers,
            own_conf=settings.conf,
            shown_classes=None if settings.class_names is None else frozenset(settings.class_names),
            class_conf=settings.class_conf,
            line_weight=settings.line_weight,
            boxes=settings.boxes,
            labels=settings.labels,
            scores=settings.scores,
            tracking=settings.tracking,
            track_buffer_s=settings.track_buffer_s,
            ids=settings.ids,
            trails=settings.trails,
            by_track=settings.by_track,
            side_panel=settings.side_panel,
            theme=settings.theme,
            recents=settings.recents,
            problem=self._problem(),
        )

    def zones(self) -> dict[str, ZonePlan]:
        """By source, what was drawn in earlier runs."""
        return {source: plan_of(document) for source, document in self.settings.zones.items()}

    def remember(self, **changes: Any) -> None:
        """Keep fields of Settings that are not in the state, e.g. the geometry of the window."""
        with self._lock:
            self.settings = replace(self.settings, **changes)

    def save_soon(self, store: Store, files: Worker) -> None:
        """Write the choices of now, in the thread of the files."""
        if self.path is None:
            return
        path, settings = self.path, self._with_choices_of(store.state)
        files.submit(lambda: save_settings(path, settings), newest_of="settings")

    def _with_choices_of(self, state: SessionState) -> Settings:
        names = None if state.shown_classes is None else tuple(sorted(state.shown_classes))
        with self._lock:
            self.settings = replace(
                self.settings,
                **self._model_of(state),
                conf=state.own_conf,
                class_names=names,
                class_conf=dict(state.class_conf),
                line_weight=state.line_weight,
                boxes=state.boxes,
                labels=state.labels,
                scores=state.scores,
                tracking=state.tracking,
                track_buffer_s=state.track_buffer_s,
                ids=state.ids,
                trails=state.trails,
                by_track=state.by_track,
                side_panel=state.side_panel,
                theme=state.theme,
                recents=state.recents,
            )
            return self.settings

    def _model_of(self, state: SessionState) -> dict[str, Any]:
        """What runs, not what was only wished."""
        running, settings = state.running, self.settings
        if running is not None:
            return running.wish.fields()
        return ModelWish(settings.model, settings.device, settings.precision, settings.decoder_layers).fields()

    def _problem(self) -> Problem | None:
        loaded = self._loaded
        if not loaded.problem:
            return None
        where = f" It was set aside as {loaded.set_aside.name}." if loaded.set_aside is not None else ""
        return Problem(f"The settings file could not be used as it was: {loaded.problem}.{where}")
