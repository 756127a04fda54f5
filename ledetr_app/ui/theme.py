"""Light and dark: one table of colours each, one style sheet made from it, followed live."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Protocol

import shiboken6
from PySide6.QtCore import QByteArray, QObject, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

from ledetr_app.resources import asset, icon_svg
from ledetr_app.settings import THEMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Colours by their duty. Every text colour has a contrast of 4.5:1 or more on the ground it is used on."""

    name: str
    window: str  # bars
    surface: str  # fields, menus, side panel
    raised: str  # controls at rest
    hover: str
    line: str
    text: str
    muted: str
    disabled: str
    accent: str
    on_accent: str
    accent_soft: str
    heat: str  # the columns over the timeline
    danger: str
    error_ground: str
    error_text: str
    notice_ground: str
    notice_text: str
    stage: str  # around the picture
    stage_text: str
    stage_muted: str


LIGHT = Tokens(
    name="light",
    window="#f6f7f9",
    surface="#ffffff",
    raised="#e9ecf1",
    hover="#dde2ea",
    line="#d5dbe3",
    text="#141a22",
    muted="#535f6e",
    disabled="#98a2ae",
    accent="#1d5fe0",
    on_accent="#ffffff",
    accent_soft="#dbe7ff",
    heat="#7d9fe0",
    danger="#c9252d",
    error_ground="#fde8e8",
    error_text="#7d1219",
    notice_ground="#fff2cc",
    notice_text="#5c4300",
    stage="#e7eaef",
    stage_text="#141a22",
    stage_muted="#4d5866",
)

DARK = Tokens(
    name="dark",
    window="#15191f",
    surface="#1b2028",
    raised="#262d38",
    hover="#323b48",
    line="#2b323d",
    text="#e9edf3",
    muted="#9fabba",
    disabled="#5d6876",
    accent="#6aa5ff",
    on_accent="#071426",
    accent_soft="#1f3658",
    heat="#4d78b8",
    danger="#ff6b72",
    error_ground="#43191d",
    error_text="#ffd9db",
    notice_ground="#3d3110",
    notice_text="#ffe4a0",
    stage="#0c0f13",
    stage_text="#e9edf3",
    stage_muted="#9fabba",
)


def contrast(one: str, other: str) -> float:
    """Contrast ratio 1..21 of two colours (WCAG 2.1, relative luminance)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class _HasIcon(Protocol):
    def setIcon(self, icon: QIcon) -> None: ...


class Theme(QObject):
    """Applies the chosen or the system's colours to the application, and keeps icons in step."""

    changed = Signal()

    def __init__(self, app: QApplication, choice: str = "system") -> None:
        super().__init__(app)
        self.app = app
        self._icons: list[tuple[weakref.ref[_HasIcon], str, str]] = []
        self.choice = choice
        self.tokens = LIGHT
        app.setStyle("Fusion")
        app.setWindowIcon(QIcon(str(asset("icons/app.svg"))))
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._apply)
        self._apply()

    def set_choice(self, choice: str) -> None:
        """ "system", "light" or "dark"."""
        if choice not in THEMES:
            raise ValueError(f"theme must be one of {THEMES}, got {choice!r}")
        self.choice = choice
        self._apply()

    def bind_icon(self, target: _HasIcon, name: str, role: str = "text") -> None:
        """Give the target our icon in the colour of that role, now and after each change of colours."""
        self._icons = [entry for entry in self._icons if _is_there(entry[0]()) and entry[0]() is not target]
        self._icons.append((weakref.ref(target), name, role))
        target.setIcon(self.icon(name, role))

    def icon(self, name: str, role: str = "text") -> QIcon:
        """Our SVG icon in the colour of that role, crisp up to a scale of 3."""
        icon = QIcon()
        accent = self.tokens.on_accent
        for scale in (1, 2, 3):
            icon.addPixmap(svg_pixmap(name, getattr(self.tokens, role), 20, scale), QIcon.Mode.Normal)
            icon.addPixmap(svg_pixmap(name, self.tokens.disabled, 20, scale), QIcon.Mode.Disabled)
            icon.addPixmap(svg_pixmap(name, accent, 20, scale), QIcon.Mode.Selected)
        return icon

    def _apply(self) -> None:
        scheme = QGuiApplication.styleHints().colorScheme()
        dark = self.choice == "dark" or (self.choice == "system" and scheme == Qt.ColorScheme.Dark)
        self.tokens = DARK if dark else LIGHT
        self.app.setPalette(palette(self.tokens))
        self.app.setStyleSheet(style_sheet(self.tokens))
        self._icons = [entry for entry in self._icons if _is_there(entry[0]())]
        for reference, name, role in self._icons:
            target = reference()
            if target is not None:
                target.setIcon(self.icon(name, role))
        self.changed.emit()


def _is_there(target: _HasIcon | None) -> bool:
    """Qt may have deleted its half of an object while Python's half waits for the collector."""
    return target is not None and bool(shiboken6.isValid(target))


def svg_pixmap(name: str, colour: str, size: int, scale: float) -> QPixmap:
    """Icon of size x size logical pixels for a screen of that scale."""
    svg = icon_svg(name).replace("currentColor", colour)
    pixmap = QPixmap(round(size * scale), round(size * scale))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, pixmap.width(), pixmap.height()))
    painter.end()
    pixmap.setDevicePixelRatio(scale)
    return pixmap


def palette(t: Tokens) -> QPalette:
    """The same colours for what a style sheet does not reach: text cursors, file dialogs, tool tips."""
    result = QPalette()
    role = QPalette.ColorRole
    for which, colour in {
        role.Window: t.window,
        role.WindowText: t.text,
        role.Base: t.surface,
        role.AlternateBase: t.window,
        role.Text: t.text,
        role.PlaceholderText: t.muted,
        role.Button: t.raised,
        role.ButtonText: t.text,
        role.BrightText: t.danger,
        role.Highlight: t.accent,
        role.HighlightedText: t.on_accent,
        role.Link: t.accent,
        role.ToolTipBase: t.surface,
        role.ToolTipText: t.text,
        role.Accent: t.accent,
    }.items():
        result.setColor(which, QColor(colour))
    for which in (role.WindowText, role.Text, role.ButtonText):
        result.setColor(QPalette.ColorGroup.Disabled, which, QColor(t.disabled))
    return result


def style_sheet(t: Tokens) -> str:
    """Flat controls, 8 px corners, one accent; sizes in logical pixels, text sizes from the system's font."""
    tick = asset(f"icons/tick_{t.name}.svg").as_posix()
    return f"""
    QMainWindow, #bar, #transport {{ background: {t.window}; }}
    #bar {{ border-bottom: 1px solid {t.line}; }}
    #transport {{ border-top: 1px solid {t.line}; }}
    #sidePanel {{ background: {t.surface}; border-left: 1px solid {t.line}; }}

    QMenuBar {{ background: {t.window}; color: {t.text}; padding: 3px 8px; spacing: 2px; }}
    QMenuBar::item {{ padding: 4px 10px; border-radius: 6px; background: transparent; }}
    QMenuBar::item:selected {{ background: {t.hover}; }}
    QMenu {{ background: {t.surface}; color: {t.text}; border: 1px solid {t.line}; border-radius: 8px; padding: 6px; }}
    QMenu::item {{ padding: 7px 26px 7px 12px; border-radius: 6px; }}
    QMenu::icon {{ padding-left: 10px; }}
    QMenu::icon:checked {{ background: {t.accent_soft}; border: 1px solid {t.accent}; border-radius: 4px; }}
    QMenu::item:selected {{ background: {t.accent_soft}; color: {t.text}; }}
    QMenu::item:disabled {{ color: {t.disabled}; }}
    QMenu::indicator {{ width: 14px; height: 14px; margin-left: 9px; border-radius: 4px; }}
    QMenu::indicator:checked {{ background: {t.accent}; image: url("{tick}"); }}
    QMenu::separator {{ height: 1px; background: {t.line}; margin: 6px 8px; }}
    QToolTip {{ background: {t.surface}; color: {t.text}; border: 1px solid {t.line}; padding: 4px 8px; }}

    QToolButton, QPushButton {{
        background: transparent; color: {t.text}; border: 1px solid transparent; border-radius: 8px;
        padding: 6px 10px; min-height: 20px;
    }}
    QToolButton[flat="true"] {{ padding: 6px; }}
    QToolButton:hover, QPushButton:hover {{ background: {t.hover}; }}
    QToolButton:pressed, QPushButton:pressed {{ background: {t.line}; }}
    QToolButton:focus, QPushButton:focus, QLineEdit:focus, QListView:focus, QTableView:focus,
    QTreeView:focus {{ border: 1px solid {t.accent}; }}
    QToolButton:disabled, QPushButton:disabled {{ color: {t.disabled}; }}
    QToolButton:checked {{ background: {t.accent_soft}; }}
    QToolButton::menu-indicator {{ image: none; width: 0px; }}
    QToolButton#sourceButton {{ background: {t.accent}; color: {t.on_accent}; font-weight: 600; padding: 6px 14px; }}
    QToolButton#sourceButton:hover {{ background: {t.accent}; border: 1px solid {t.text}; }}
    QPushButton[kind="tile"] {{
        background: {t.surface}; border: 1px solid {t.line}; border-radius: 10px; padding: 10px 16px;
    }}
    QPushButton[kind="tile"]:hover {{ border: 1px solid {t.accent}; }}
    QPushButton[kind="small"] {{ padding: 4px 7px; min-width: 14px; }}
    QCheckBox {{ color: {t.text}; spacing: 8px; padding: 2px; border: 1px solid transparent; border-radius: 6px; }}
    QCheckBox:focus {{ border: 1px solid {t.accent}; }}
    QCheckBox::indicator {{ width: 14px; height: 14px; border: 1px solid {t.muted}; border-radius: 4px; }}
    QCheckBox::indicator:checked {{
        background: {t.accent}; border: 1px solid {t.accent}; image: url("{tick}");
    }}
    QPushButton[kind="tile"]:focus {{ border: 2px solid {t.accent}; }}
    QToolButton#recordButton:checked {{ background: {t.error_ground}; color: {t.error_text}; font-weight: 600; }}

    #segments {{ background: {t.raised}; border-radius: 9px; }}
    #segments QToolButton {{
        border-radius: 7px; padding: 4px 0px; min-width: 38px; font-weight: 600; color: {t.text}; margin: 0px;
    }}
    #segments QToolButton:hover {{ background: {t.hover}; }}
    #segments QToolButton:checked {{ background: {t.accent}; color: {t.on_accent}; }}
    #segments QToolButton[loading="true"] {{ border: 1px dashed {t.accent}; }}
    #segments QToolButton[missing="true"] {{ color: {t.muted}; font-weight: 400; }}
    #segments QToolButton[missing="true"]:checked {{ color: {t.on_accent}; }}

    QLabel {{ color: {t.text}; background: transparent; }}
    QLabel[tone="muted"] {{ color: {t.muted}; }}
    QLabel[tone="strong"] {{ font-weight: 600; }}
    QLabel[tone="clock"] {{ color: {t.text}; }}

    QSlider {{ min-height: 24px; background: transparent; }}
    QSlider::groove:horizontal {{ height: 4px; border-radius: 2px; background: {t.hover}; }}
    QSlider::sub-page:horizontal {{ height: 4px; border-radius: 2px; background: {t.accent}; }}
    QSlider::handle:horizontal {{
        width: 14px; height: 14px; margin: -5px 0; border-radius: 7px; background: {t.accent};
        border: 0px solid {t.window};
    }}
    QSlider::handle:horizontal:hover {{ background: {t.text}; }}
    QSlider:focus {{ border: 1px solid {t.accent}; border-radius: 8px; }}
    QSlider::sub-page:horizontal:disabled, QSlider::handle:horizontal:disabled {{ background: {t.disabled}; }}

    QLineEdit {{
        background: {t.surface}; color: {t.text}; border: 1px solid {t.line}; border-radius: 8px; padding: 6px 10px;
        selection-background-color: {t.accent}; selection-color: {t.on_accent};
    }}
    QListView, QTableView, QTreeView {{
        background: {t.surface}; color: {t.text}; border: 1px solid transparent; border-radius: 8px; outline: 0;
    }}
    QTableView::item {{ padding: 2px 3px; }}
    QTreeView::item {{ padding: 2px 6px; }}
    QTreeView::item:hover {{ background: {t.raised}; }}
    QTableView::item:selected, QTreeView::item:selected {{ background: {t.accent_soft}; color: {t.text}; }}
    QTreeView QLineEdit {{ padding: 0px 4px; border-radius: 4px; }}
    QHeaderView, QHeaderView::section {{
        background: {t.surface}; color: {t.muted}; border: none; padding: 4px 6px;
    }}
    QTableView QHeaderView::section {{ padding: 4px 3px; }}
    QHeaderView::section {{ border-bottom: 1px solid {t.line}; }}
    QPushButton:checked {{ background: {t.accent_soft}; }}
    QListView::item {{ padding: 5px 6px; border-radius: 6px; }}
    QListView::indicator {{ width: 14px; height: 14px; border: 1px solid {t.muted}; border-radius: 4px; }}
    QListView::indicator:checked {{
        background: {t.accent}; border: 1px solid {t.accent}; image: url("{tick}");
    }}
    QListView::item:hover {{ background: {t.raised}; }}
    QListView::item:selected {{ background: {t.accent_soft}; color: {t.text}; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
    QScrollBar::handle:vertical {{ background: {t.hover}; border-radius: 5px; min-height: 30px; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ height: 0px; width: 0px; }}

    QStatusBar {{ background: {t.window}; color: {t.muted}; border-top: 1px solid {t.line}; }}
    QStatusBar::item {{ border: none; }}
    #readout {{ color: {t.text}; }}
    #readoutName {{ color: {t.muted}; }}
    #modeChip {{ background: {t.raised}; color: {t.text}; border-radius: 9px; padding: 2px 10px; font-weight: 600; }}
    #modeChip[tone="live"] {{ background: {t.accent_soft}; color: {t.text}; }}
    #modeChip[tone="bad"] {{ background: {t.error_ground}; color: {t.error_text}; }}
    #randomChip {{ background: {t.notice_ground}; color: {t.notice_text}; border-radius: 9px; padding: 2px 10px; }}

    #errorBar[tone="error"] {{ background: {t.error_ground}; border-bottom: 1px solid {t.line}; }}
    #errorBar[tone="notice"] {{ background: {t.notice_ground}; border-bottom: 1px solid {t.line}; }}
    #errorBar QLabel, #errorBar QPlainTextEdit {{ background: transparent; border: none; }}
    #errorBar *[tone="error"] {{ color: {t.error_text}; }}
    #errorBar *[tone="notice"] {{ color: {t.notice_text}; }}
    #errorBar QToolButton:hover {{ background: rgba(127, 127, 127, 60); }}
    #statsOverlay {{ background: rgba(12, 15, 20, 238); border-radius: 10px; }}
    #statsOverlay QLabel {{ color: #e2e8f0; }}
    #toast {{ background: {t.text}; border-radius: 10px; }}
    #toast QLabel, #toast QPushButton {{ color: {t.window}; }}
    #toast QPushButton {{ font-weight: 600; border: 1px solid {t.muted}; }}
    #toast QPushButton:hover {{ background: {t.muted}; }}
    #addressBar {{ background: {t.window}; border-bottom: 1px solid {t.line}; }}
    #sheet {{ background: {t.surface}; border: 1px solid {t.line}; border-radius: 14px; }}
    """
