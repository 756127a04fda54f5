"""The numbers over the picture."""

from ledetr.chain.meters import MeterSnapshot


def test_a_number_that_grows_is_not_cut_before_the_layout_has_heard_of_it(qtbot, window, session, monkeypatch):
    overlay = window.stats_overlay
    overlay.show()
    overlay.place()
    qtbot.waitUntil(overlay.isVisible)
    for age_ms in (3.0, 1055.0):
        meters = MeterSnapshot(30.0, 30.0, 30.0, 0, age_ms, age_ms, {"preprocess": age_ms})
        monkeypatch.setattr(session, "meters", lambda meters=meters: meters)
        overlay.sample()
        for key, ends in (("age", f"{age_ms:.0f} / {age_ms:.0f} ms"), ("preprocess", f"{age_ms:.1f} ms")):
            label = overlay.values[key]
            assert label.text() == ends
            assert label.width() >= label.fontMetrics().horizontalAdvance(label.text())
