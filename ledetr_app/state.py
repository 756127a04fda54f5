"""What the window shows, as one immutable value: replaced whole by the session, read by widgets without a lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ledetr.chain.pipeline import FrameDetector, State
from ledetr.chain.sources import SourceInfo
from ledetr.zones import ZonePlan
from ledetr_app.class_filter import ClassFilter
from ledetr_app.drawing import Drawing
from ledetr_app.model_loader import ModelWish
from ledetr_app.playlist import Playlist
from ledetr_app.viewport import View

DEFAULT_CONF = 0.5


@dataclass(frozen=True, slots=True)
class Problem:
    """One sentence for the error bar, and what stands behind it. gentle: nothing broke, something is only missing."""

    sentence: str
    details: str = ""
    gentle: bool = False


@dataclass(frozen=True, slots=True)
class Toast:
    """Good news for a few seconds; path: the file it speaks of. serial tells two equal ones apart."""

    text: str
    path: Path | None
    serial: int


@dataclass(frozen=True, slots=True)
class Loss:
    """The source is silent: since when on the chain's clock, which attempt comes next and in how many seconds."""

    since_ns: int
    attempt: int = 0
    next_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunningModel:
    """What really runs, as the detector tells it. reason: why this engine."""

    wish: ModelWish
    model_id: str
    engine: str
    device: str
    precision: str
    reason: str
    class_names: tuple[str, ...]
    score_threshold: float | None
    random_weights: bool

    @property
    def choice(self) -> str:
        """The scale or path that was asked for."""
        return self.wish.choice

    @classmethod
    def of(cls, wish: ModelWish, detector: FrameDetector) -> RunningModel:
        """The facts of a detector that was loaded for this wish."""
        return cls(
            wish=wish,
            model_id=detector.model_id,
            engine=detector.info.name,
            device=detector.info.device,
            precision=detector.info.precision,
            reason=detector.info.reason,
            class_names=tuple(detector.class_names),
            score_threshold=detector.score_threshold,
            random_weights=detector.random_weights,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """source: facts of the open source. opening: name of what is being opened. ended: parked on the last frame.

    model: the chosen one, a scale or a path. running: the one whose boxes are seen. loading: on its way.
    device, precision, decoder_layers: the chosen ones, see ModelWish. devices: what can be chosen, and its name;
    None = not looked for yet. has_weights: for each scale; a scale that was not looked for yet is absent.
    speed: of files, 1.0 is real time. in_s, out_s: the part of the file that matters, pts_s of its first and last
    frame; None = from the start, to the end. loop: it is played again and again.
    own_conf: the user's threshold; None = the model's.
    shown_classes: names; None = all. class_conf: thresholds of single classes, by name. line_weight: of the boxes'
    lines, 1.0 as usual. view: which part of the picture is seen. stats: the meters stand over it.
    recording: the file being written.
    cameras: what opens each, and its name; None = not looked for yet.
    queue: files that are played in turn. queue_panel: its list is shown where there is one.
    tracking: things have ids; track_buffer_s: so long one may be hidden. ids, trails: whether they are drawn.
    by_track: each track has its colour, instead of each class.
    zones: of the open source, in parts of the picture. drawing: what is being drawn of them.
    results_panel, zones_panel: what stands beside the picture; of these and the queue one at a time.
    results_by_track: the table has a row for each track, instead of each box.
    """

    phase: State = State.IDLE
    ended: bool = False
    source: SourceInfo | None = None
    opening: str = ""
    loss: Loss | None = None
    model: str = "n"
    running: RunningModel | None = None
    loading: str | None = None
    device: str = "auto"
    precision: str = "auto"
    decoder_layers: int | None = None
    devices: Mapping[str, str] | None = None
    has_weights: Mapping[str, bool] = field(default_factory=dict)
    speed: float = 1.0
    in_s: float | None = None
    out_s: float | None = None
    loop: bool = False
    own_conf: float | None = None
    shown_classes: frozenset[str] | None = None
    class_conf: Mapping[str, float] = field(default_factory=dict)
    boxes: bool = True
    labels: bool = True
    scores: bool = True
    line_weight: float = 1.0
    view: View = field(default_factory=View)
    recording: Path | None = None
    recents: tuple[str, ...] = ()
    cameras: tuple[tuple[str, str], ...] | None = None
    theme: str = "system"
    side_panel: bool = False
    queue: Playlist = field(default_factory=Playlist)
    queue_panel: bool = True
    stats: bool = False
    tracking: bool = False
    track_buffer_s: float = 2.0
    ids: bool = True
    trails: bool = True
    by_track: bool = False
    zones: ZonePlan = field(default_factory=ZonePlan)
    drawing: Drawing = field(default_factory=Drawing)
    results_panel: bool = False
    results_by_track: bool = False
    zones_panel: bool = False
    problem: Problem | None = None
    toast: Toast | None = None

    @property
    def conf(self) -> float:
        """The score threshold in force: the user's, else the model's own, else 0.5."""
        if self.own_conf is not None:
            return self.own_conf
        if self.running is not None and self.running.score_threshold is not None:
            return min(max(self.running.score_threshold, 0.05), 0.95)
        return DEFAULT_CONF

    @property
    def wish(self) -> ModelWish:
        """What is chosen, together."""
        return self.wish_for(self.model)

    def wish_for(self, model: str) -> ModelWish:
        """Another model with the same device and precision. Decoder layers are of one model."""
        layers = self.decoder_layers if model == self.model else None
        return ModelWish(model, self.device, self.precision, layers)

    @property
    def class_filter(self) -> ClassFilter:
        """Which boxes are seen."""
        return ClassFilter(self.conf, self.class_conf, self.shown_classes)

    @property
    def has_source(self) -> bool:
        """Something is open or on its way."""
        return self.phase not in (State.IDLE, State.FAILED, State.STOPPING)
