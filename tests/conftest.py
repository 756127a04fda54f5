"""Settings that hold for every test; set before Qt, torch or OpenMP is imported."""

import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]

# A slow or busy machine is not a failure; the time limit of each test is pytest-timeout's.
settings.register_profile("ledetr", deadline=None)
settings.load_profile("ledetr")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU or trained weights are skipped, with the reason, where there are none."""
    needs_gpu = [item for item in items if item.get_closest_marker("gpu")]
    needs_weights = [item for item in items if item.get_closest_marker("weights")]
    if needs_gpu and not _cuda_is_there():
        for item in needs_gpu:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))
    if needs_weights and not (ROOT / "assets/weights/ledetr_n.safetensors").exists():
        for item in needs_weights:
            item.add_marker(pytest.mark.skip(reason="no assets/weights/ledetr_n.safetensors here"))


def _cuda_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


NO_END = {"meta", "img", "br"}
MAY_LOAD = {"src", "href", "xlink:href", "data", "action", "srcset", "poster"}


class HtmlStructure(HTMLParser):
    """Every element closed by its own end, nothing that runs or loads; the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} are never closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        self.seen.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in MAY_LOAD or (value or "").startswith("data:image/jpeg;base64,")
        if tag not in NO_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def structure_of() -> type[HtmlStructure]:
    """Checks a page, or a part of one, and tells what is in it."""
    return HtmlStructure
