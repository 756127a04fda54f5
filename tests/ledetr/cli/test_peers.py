"""The peers of `ledetr bench --peers`: built to their published sizes, merged without changing what they compute."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ledetr.cli.bench import add_ratios
from ledetr.cli.main import main
from ledetr.cli.peers import PEERS_OF, merge_branches, peer_network, randomise

# Millions of parameters as the peers' own tables state them.
PUBLISHED_M = {"d-fine-n": 4, "d-fine-m": 19, "d-fine-l": 31, "d-fine-x": 62, "rt-detrv2-r50": 42}


@pytest.mark.parametrize(("name", "published_m"), PUBLISHED_M.items())
def test_parameters_are_as_published(name: str, published_m: int) -> None:
    pytest.importorskip("transformers", reason="the extra 'peers' is not installed")
    with torch.device("meta"):
        network = peer_network(name, (64, 64), values=False)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == published_m


def test_the_smallest_peer_gives_logits_and_boxes() -> None:
    pytest.importorskip("transformers", reason="the extra 'peers' is not installed")
    network = peer_network("d-fine-n", (320, 352))
    with torch.inference_mode():
        logits, boxes_cxcywh = network(torch.randint(0, 256, (1, 3, 320, 352), dtype=torch.uint8))
    # Of the 550 positions at strides 16 and 32 it takes 300.
    assert logits.shape == (1, 300, 80) and boxes_cxcywh.shape == (1, 300, 4)
    assert torch.isfinite(logits).all() and ((boxes_cxcywh >= 0) & (boxes_cxcywh <= 1)).all()


class ConvNorm(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, side, padding=side // 2, bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class ToyRepVggBlock(nn.Module):
    """The shape of a peer's block: two branches, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.activation = ConvNorm(3), ConvNorm(1), nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.conv1(x) + self.conv2(x))  # type: ignore[no-any-return]


def test_merging_keeps_the_function() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(ToyRepVggBlock(), ToyRepVggBlock())
    x = torch.randn(2, 6, 9, 7)
    for _ in range(3):
        network(torch.randn(4, 6, 9, 7))  # norms with statistics of their own
    network.eval()
    with torch.no_grad():
        expected = network(x)
        merge_branches(network)
        assert not any(isinstance(m, ToyRepVggBlock) for m in network.modules())
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


def test_heads_of_zeros_get_values_and_others_stay() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.zeros_(network[1].weight)
    before = network[0].weight.clone()
    randomise(network)
    assert network[1].weight.abs().min() > 0 and torch.equal(network[0].weight, before)


def test_ratios_are_of_medians_at_the_same_size() -> None:
    rows = [
        {"model": "n", "imgsz": 416, "median_ms": 15.0},
        {"model": "n", "imgsz": 640, "median_ms": 40.0},
        {"model": "d-fine-n", "imgsz": 416, "median_ms": 20.0},
    ]
    add_ratios(rows)
    assert [row["ratio_to"] for row in rows] == [{"d-fine-n": 0.75}, {}, {}]
    assert set(PEERS_OF) == {"n", "m", "l", "x"}


def test_a_file_has_no_peers(tiny_weights: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-m", str(tiny_weights), "--backend", "torch-cpu", "--peers", "--json"]) == 2
    out, err = capsys.readouterr()
    assert "have no peers" in out + err


@pytest.mark.slow
def test_a_peer_takes_its_turn(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers", reason="the extra 'peers' is not installed")
    words = ["bench", "-m", "n", "--imgsz", "320", "--peers", "--random-weights", "--backend", "torch-cpu", "--json"]
    assert main([*words, "--runs", "2", "--warmup", "1", "-q"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["model"] for row in rows] == ["n", "d-fine-n"]
    assert rows[1]["params_m"] == pytest.approx(3.766, abs=0.01) and np.isfinite(rows[0]["ratio_to"]["d-fine-n"])
