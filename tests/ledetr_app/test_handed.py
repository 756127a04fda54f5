"""What is dropped on the window or named on its command line, told apart."""

import pytest

from ledetr_app.handed import Handed


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], Handed(None, None, ())),
        (["a.mp4"], Handed(None, None, ("a.mp4",))),
        (["a.mp4", "folder", "b.PNG"], Handed(None, None, ("a.mp4", "folder", "b.PNG"))),
        (["w.safetensors"], Handed("w.safetensors", None, ())),
        (["w.onnx", "a.mp4", "v.XML"], Handed("v.XML", None, ("a.mp4",))),
        (["truth.json", "a.mp4"], Handed(None, "truth.json", ("a.mp4",))),
        (["http://x/list.json", "rtsp://x/net.xml"], Handed(None, None, ("http://x/list.json", "rtsp://x/net.xml"))),
    ],
)
def test_what_is_what(texts, expected):
    assert Handed.of(texts) == expected
