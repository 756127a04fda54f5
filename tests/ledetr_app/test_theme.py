from itertools import product

import pytest
import shiboken6
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QColor, QGuiApplication
from PySide6.QtWidgets import QToolButton

from ledetr_app.resources import icon_svg
from ledetr_app.ui.theme import DARK, LIGHT, Theme, contrast, svg_pixmap

LEAST_CONTRAST = 4.5  # WCAG 2.1, level AA, text of any size

TEXT_ON_GROUND = [
    *product(["text", "muted"], ["window", "surface", "raised"]),
    ("text", "hover"),
    ("text", "accent_soft"),
    ("on_accent", "accent"),
    ("error_text", "error_ground"),
    ("notice_text", "notice_ground"),
    ("stage_text", "stage"),
    ("stage_muted", "stage"),
    ("text", "stage"),
    ("muted", "stage"),
    ("window", "text"),  # toast
]


def test_contrast_of_known_pairs():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1.0


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT_ON_GROUND)
def test_every_text_is_readable(tokens, text, ground):
    assert contrast(getattr(tokens, text), getattr(tokens, ground)) >= LEAST_CONTRAST


@pytest.mark.parametrize(("choice", "tokens"), [("light", LIGHT), ("dark", DARK)])
def test_own_choice_colours_the_application(qapp, choice, tokens):
    Theme(qapp, choice)
    assert qapp.palette().window().color() == QColor(tokens.window)
    assert tokens.surface in qapp.styleSheet()


def test_follows_the_system_live(qapp, monkeypatch):
    theme = Theme(qapp, "system")
    seen = []
    theme.changed.connect(lambda: seen.append(theme.tokens.name))
    hints = QGuiApplication.styleHints()
    for scheme, name in ((Qt.ColorScheme.Dark, "dark"), (Qt.ColorScheme.Light, "light")):
        monkeypatch.setattr(type(hints), "colorScheme", lambda self, scheme=scheme: scheme)
        hints.colorSchemeChanged.emit(scheme)
        assert seen[-1] == name
        assert qapp.palette().window().color() == QColor(theme.tokens.window)


def test_an_own_choice_does_not_follow_the_system(qapp, monkeypatch):
    theme = Theme(qapp, "light")
    hints = QGuiApplication.styleHints()
    monkeypatch.setattr(type(hints), "colorScheme", lambda self: Qt.ColorScheme.Dark)
    hints.colorSchemeChanged.emit(Qt.ColorScheme.Dark)
    assert theme.tokens is LIGHT


def test_unknown_choice(qapp):
    with pytest.raises(ValueError, match="pink"):
        Theme(qapp, "light").set_choice("pink")


def test_icons_change_colour_with_the_theme(qapp, qtbot):
    theme = Theme(qapp, "light")
    button = QToolButton()
    qtbot.addWidget(button)
    theme.bind_icon(button, "stop")

    def middle() -> QColor:
        return button.icon().pixmap(20, 20).toImage().pixelColor(10, 10)

    assert middle() == QColor(LIGHT.text)
    theme.set_choice("dark")
    assert middle() == QColor(DARK.text)


@pytest.mark.parametrize("scale", [1.0, 1.25, 2.0])
def test_icons_have_the_pixels_of_the_screen(qapp, scale):
    pixmap = svg_pixmap("play", "#ff0000", 20, scale)
    assert pixmap.width() == 20 * scale
    assert pixmap.devicePixelRatio() == scale
    assert pixmap.toImage().pixelColor(pixmap.width() // 2, pixmap.height() // 2) == QColor("#ff0000")


def test_icons_are_tinted_through_current_color():
    assert "currentColor" in icon_svg("record")


def test_an_icon_whose_widget_qt_deleted_is_let_go(qapp):
    theme, kept, gone = Theme(qapp), QAction(), QAction()
    theme.bind_icon(gone, "play")
    theme.bind_icon(kept, "play")
    shiboken6.delete(gone)  # its Python half is still held here
    before = kept.icon().cacheKey()
    theme.set_choice("dark")
    theme.set_choice("light")
    assert kept.icon().cacheKey() != before
