"""A second opinion on the very frames that are shown: another model, or what people drew.

While it is on, the window shows a frame only once both opinions on it are there, so that left and right are always of
one picture. The second one is made in a thread of its own, of the newest frame: a slow model costs frames, not delay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ledetr.chain.images import list_images
from ledetr.chain.inference import FrameDetector
from ledetr.chain.pipeline import Result
from ledetr.chain.sources import FolderSpec, ImageSpec, ListSpec, parse_source
from ledetr.detections import Detections
from ledetr.errors import LeDetrError, SourceError
from ledetr_app.model_loader import LoadDetector, ModelWish
from ledetr_app.state import RunningModel
from ledetr_app.store import Store, nothing
from ledetr_app.verdict import Annotations, Verdict, check_upright

SPLIT_RANGE = (0.02, 0.98)


@dataclass(frozen=True, slots=True)
class Comparison:
    """other: the model beside the running one. truth: the file of annotations. At most one of them; None: off.

    running: the other model as it really runs, once it does. split: where the picture is divided, 0..1 of its width.
    """

    other: ModelWish | None = None
    truth: Path | None = None
    running: RunningModel | None = None
    split: float = 0.5

    @property
    def on(self) -> bool:
        """Something is compared."""
        return self.other is not None or self.truth is not None


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Both opinions on one frame. other: of the other model, and other_ms: how long it looked.

    verdict: beside annotations; None where they do not know the picture.
    """

    result: Result
    other: Detections | None = None
    other_ms: float = 0.0
    verdict: Verdict | None = None

    @property
    def other_result(self) -> Result:
        """The frame with the other model's boxes."""
        assert self.other is not None
        return replace(self.result, detections=self.other)


class Compare:
    """newest: the newest result of the running model. source: what opens the open source again.

    state: replaced whole, read by anyone. on_ready: called from the thread when there is a newer pair.
    """

    def __init__(
        self, store: Store, load: LoadDetector, *, newest: Callable[[], Result | None], source: Callable[[], str]
    ) -> None:
        self.state = Comparison()
        self.on_ready: Callable[[], None] = nothing
        self._store = store
        self._load = load
        self._newest = newest
        self._source = source
        self._wake = threading.Condition()
        self._poked = False
        self._thread: threading.Thread | None = None
        self._compared: Compared | None = None

    # Commands; they return at once

    def with_model(self, wish: ModelWish) -> None:
        """Let this model look too."""
        running = self.state.running if self.state.other == wish else None
        self._begin(Comparison(other=wish, running=running, split=self.state.split))

    def with_annotations(self, path: str | Path) -> None:
        """Show the boxes of a COCO file beside the detections."""
        self._begin(Comparison(truth=Path(path), split=self.state.split))

    def off(self) -> None:
        """One opinion again."""
        with self._wake:
            self.state = Comparison(split=self.state.split)
            self._compared = None
            self._wake.notify()
        self._store.on_change()
        self.on_ready()

    def set_split(self, split: float) -> None:
        """Divide the picture elsewhere, 0..1 of its width."""
        self.state = replace(self.state, split=min(max(split, SPLIT_RANGE[0]), SPLIT_RANGE[1]))
        self._store.on_change()

    def poke(self) -> None:
        """There may be a newer result. Any thread."""
        if self.state.on:
            with self._wake:
                self._poked = True
                self._wake.notify()

    def latest(self) -> Result | None:
        """The newest result that both opinions are there for; while there is none, of the open source, the newest."""
        newest, compared = self._newest(), self._compared
        if not self.state.on or compared is None or newest is None or not _same_source(newest, compared.result):
            return newest
        return compared.result

    def of(self, result: Result | None) -> Compared | None:
        """Both opinions on this result; None where the other one is not there."""
        compared = self._compared
        return compared if compared is not None and self.state.on and compared.result is result else None

    def close(self, timeout_s: float) -> bool:
        """End the thread; False when it did not end in time."""
        thread = self._thread
        with self._wake:
            self.state = Comparison()
            self._wake.notify()
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _begin(self, wanted: Comparison) -> None:
        with self._wake:
            self.state, self._compared, self._poked = wanted, None, True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="compare", daemon=True)
                self._thread.start()
            self._wake.notify()
        self._store.on_change()

    # Thread "compare"

    def _run(self) -> None:
        opinion: _Opinion | None = None
        while True:
            wanted = self._next_wish(opinion)
            if opinion is not None and not opinion.serves(wanted):
                opinion.close()
                opinion = None
            if wanted is None:
                return
            try:
                if opinion is None:
                    opinion = self._open(wanted)
                self._look(opinion, wanted)
            except Exception as error:  # the edge of this thread: one sentence, and one opinion again
                self._store.report(error)
                self.off()

    def _next_wish(self, opinion: _Opinion | None) -> Comparison | None:
        """Waits for something to do; None ends the thread, and the next wish starts a new one."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._poked or not self.state.on or opinion is None or not opinion.serves(self.state)
            )
            self._poked = False
            if not self.state.on:
                self._thread = None
                return None
            return self.state

    def _open(self, wanted: Comparison) -> _Opinion:
        if wanted.truth is not None:
            return _OfPeople(Annotations(wanted.truth), self._source, self._frame_count)
        assert wanted.other is not None
        detector = self._load(wanted.other)
        with self._wake:
            if self.state.other == wanted.other:
                self.state = replace(self.state, running=RunningModel.of(wanted.other, detector))
        self._store.on_change()
        return _OfModel(wanted.other, detector)

    def _frame_count(self) -> int | None:
        source = self._store.state.source
        return None if source is None else source.frame_count

    def _look(self, opinion: _Opinion, wanted: Comparison) -> None:
        result, done = self._newest(), self._compared
        if result is None or (done is not None and done.result is result) or not opinion.serves(wanted):
            return
        compared = opinion.look(result)
        with self._wake:
            if opinion.serves(self.state):
                self._compared = compared
        self.on_ready()


class _OfModel:
    def __init__(self, wish: ModelWish, detector: FrameDetector) -> None:
        self._wish = wish
        self._detector = detector

    def serves(self, wanted: Comparison | None) -> bool:
        return wanted is not None and wanted.other == self._wish

    def look(self, result: Result) -> Compared:
        began_s = time.perf_counter()
        found, _ = self._detector.detect_frame(result.frame.rgb)
        return Compared(result, found, 1000 * (time.perf_counter() - began_s))

    def close(self) -> None:
        self._detector.close()


class _OfPeople:
    def __init__(self, annotations: Annotations, source: Callable[[], str], frames: Callable[[], int | None]) -> None:
        self._annotations = annotations
        self._source = source
        self._frames = frames
        self._listed: tuple[str, list[Path] | None] = ("", None)

    def serves(self, wanted: Comparison | None) -> bool:
        return wanted is not None and wanted.truth == self._annotations.path

    def look(self, result: Result) -> Compared:
        meta, paths = result.frame.meta, self._paths()
        if meta.index is None:
            raise SourceError("Annotations are for pictures and files, and this source is live; open one of those.")
        if paths is None:
            # Without a list of files: a video, whose frames are told apart by their number.
            picture = self._annotations.picture_at(meta.index, self._frames())
        else:
            picture = self._annotations.picture_of(paths[meta.index])
            if picture is not None:
                check_upright(paths[meta.index])
        if picture is None:
            return Compared(result)
        return Compared(result, verdict=self._annotations.judge(picture, result.detections))

    def _paths(self) -> list[Path] | None:
        """The pictures of the open source in their order; None where it is a video."""
        source = self._source()
        if self._listed[0] != source:
            try:
                spec = parse_source(source)
            except LeDetrError:
                self._listed = source, None
            else:
                self._listed = (
                    source,
                    list_images(spec) if isinstance(spec, ImageSpec | FolderSpec | ListSpec) else None,
                )
        return self._listed[1]

    def close(self) -> None:
        """Nothing is held."""


_Opinion = _OfModel | _OfPeople


def _same_source(one: Result, other: Result) -> bool:
    """Of one opening or seek: an older picture of another place is not kept on the screen."""
    return one.frame.meta.epoch == other.frame.meta.epoch and one.frame.meta.source_id == other.frame.meta.source_id
