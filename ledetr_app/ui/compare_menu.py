"""What to compare with: another model, the same one with fewer layers, a weights file, or annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from ledetr import SCALES
from ledetr_app.model_loader import ModelWish
from ledetr_app.session import Session

FEW_LAYERS = 1


class CompareMenu(QMenu):
    """One of it is checked. toggle() is the short way: off, or on again with what was last compared."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Compare with"))
        self._session = session
        self._last: Callable[[], None] | None = None
        self.choices: dict[str, QAction] = {}
        group = QActionGroup(self)
        self._add("off", self.tr("Nothing"), session.compare.off, group)
        self.addSeparator()
        for scale in SCALES:
            self._add(scale, self.tr("Model {scale}").format(scale=scale.upper()), self._with_scale(scale), group)
        self._add("layers", self.tr("The same model with one decoder layer"), self._with_few_layers, group)
        self._add("file", self.tr("Weights file…"), self._ask_for_weights, group)
        self.addSeparator()
        self._add("truth", self.tr("Annotations (COCO)…"), self._ask_for_annotations, group)
        self.refresh()

    def refresh(self) -> None:
        """Follow what is compared, and which scales have weights."""
        state, compare = self._session.state, self._session.compare.state
        for scale in SCALES:
            missing = state.has_weights.get(scale) is False and not self._session.allows_random_weights
            self.choices[scale].setEnabled(not missing)
        self.choices[self._checked_name()].setChecked(True)
        self.choices["off"].setEnabled(compare.on)

    def toggle(self) -> None:
        """Off where something is compared, else on as the last time, at first with fewer layers."""
        if self._session.compare.state.on:
            self._session.compare.off()
        else:
            (self._last or self._with_few_layers)()

    def _checked_name(self) -> str:
        compare, running = self._session.compare.state, self._session.state.wish
        if compare.truth is not None:
            return "truth"
        if compare.other is None:
            return "off"
        if compare.other.choice in SCALES and compare.other.decoder_layers is None:
            return compare.other.choice
        return "layers" if compare.other == replace(running, decoder_layers=FEW_LAYERS) else "file"

    def _add(self, name: str, words: str, act: Callable[[], None], group: QActionGroup) -> None:
        action = self.addAction(words)
        action.setCheckable(True)
        group.addAction(action)
        action.triggered.connect(lambda _checked=False: self._do(act))
        self.choices[name] = action

    def _do(self, act: Callable[[], None]) -> None:
        act()
        self.refresh()  # Qt has checked what was clicked; what is compared may be another still

    def _with(self, begin: Callable[[], None]) -> None:
        self._last = begin
        begin()
        self.refresh()

    def _with_scale(self, scale: str) -> Callable[[], None]:
        return lambda: self._with(lambda: self._session.compare.with_model(self._wish(scale)))

    def _wish(self, choice: str) -> ModelWish:
        return replace(self._session.state.wish, choice=choice, decoder_layers=None)

    def _with_few_layers(self) -> None:
        wish = replace(self._session.state.wish, decoder_layers=FEW_LAYERS)
        self._with(lambda: self._session.compare.with_model(wish))

    def _ask_for_weights(self) -> None:
        self._ask(
            self.tr("Compare with weights"),
            self.tr("Models (*.safetensors *.onnx *.xml)"),
            lambda path: self._with(lambda: self._session.compare.with_model(self._wish(path))),
        )

    def _ask_for_annotations(self) -> None:
        self._ask(
            self.tr("Compare with annotations"),
            self.tr("COCO (*.json)"),
            lambda path: self._with(lambda: self._session.compare.with_annotations(path)),
        )

    def _ask(self, title: str, kinds: str, take: Callable[[str], None]) -> None:
        dialog = QFileDialog(self.parentWidget(), title, "", kinds)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(take)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()  # not exec(): the picture goes on meanwhile
