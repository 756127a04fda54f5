"""Variants of the design: each is what its name says, all begin alike, and the table says who differs by how much."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ledetr.errors import UsageError
from ledetr.model.config import ledetr_l, ledetr_n, ledetr_tiny
from ledetr.model.ledetr import LeDetr, build_model
from training import ablations
from training.ablations import ConvolutionMixer, Variant, count_variant, main, table, variants_of
from training.data.shapes import write_shapes

TINY = replace(ledetr_tiny(3), input_hw=(160, 160))


@pytest.fixture(scope="module")
def design() -> LeDetr:
    torch.manual_seed(0)
    return build_model(TINY)


def pixels(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 160, 160), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def names(config: Any) -> list[str]:
    return [variant.name for variant in variants_of(config)]


def test_the_variants_of_each_scale() -> None:
    n = replace(ledetr_n(), input_hw=(320, 320))
    assert names(n) == ["design", "naifi-3", "naifi-5", "naifi-9", "convolution", "neighborhood-3", "neighborhood-5",
                        "neighborhood-9"]  # fmt: skip
    assert "sees all of 10 x 10" in variants_of(n)[0].note  # kernel 13: AIFI would be the same again
    assert names(ledetr_l()) == ["design", "aifi", "naifi-15", "naifi-31", "naifi-127", "convolution", "neighborhood-3",
                                 "neighborhood-5", "neighborhood-9"]  # fmt: skip


def test_only_the_layers_in_question_begin_anew(design: LeDetr) -> None:
    torch.manual_seed(7)
    changed = Variant(name="design", note="")(design)
    before, after = design.state_dict(), changed.state_dict()
    assert before.keys() == after.keys()
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing and all("naifi" in name or ".mixer." in name for name in differing)
    assert any("naifi" in name for name in differing) and any(".mixer." in name for name in differing)


def test_all_variants_begin_with_the_same_values_elsewhere(design: LeDetr) -> None:
    for variant in variants_of(TINY):
        torch.manual_seed(7)
        state = variant(design).state_dict()
        for name, value in design.state_dict().items():
            if "naifi" not in name and ".mixer." not in name:
                assert torch.equal(state[name], value), (variant.name, name)


def test_what_the_design_lets_begin_at_nought_takes_part_from_the_first_step() -> None:
    small = replace(ledetr_n(), input_hw=(96, 96))
    model = Variant(name="design", note="", gate=0.5)(build_model(small))
    scales = model.encoder.naifi.scales
    assert scales is not None and all(bool((scale == 0.5).all()) for scale in scales)
    norms = [value for name, value in model.state_dict().items() if name.endswith("na_norm.weight")]
    assert len(norms) == 1 and bool((norms[0] == 0.5).all())
    tiny = Variant(name="design", note="", gate=0.5)(build_model(TINY))  # here nothing begins at 0
    assert bool((tiny.state_dict()["backbone.stages.4.1.mixer.na_norm.weight"] == 1).all())


def test_aifi_sees_all_and_naifi_its_neighbours(design: LeDetr) -> None:
    for variant, reach in (
        (Variant(name="aifi", note="", naifi="full"), 25),
        (Variant(name="naifi", note="", naifi_kernel=5), 5),
    ):
        naifi = variant(design).encoder.naifi.eval()
        x = torch.zeros(1, 32, 5, 5)
        moved = x.clone()
        moved[0, :, 2, 2] = torch.randn(32, generator=torch.Generator().manual_seed(1))
        changed = (naifi(moved) - naifi(x)).abs().sum(1)[0] > 1e-7
        assert int(changed.sum()) == reach


def test_a_convolution_of_the_same_reach_stands_for_the_attention(design: LeDetr) -> None:
    variant = Variant(name="convolution", note="", mixer="convolution")
    changed = variant(design)
    mixers = [layer for layer in changed.modules() if isinstance(layer, ConvolutionMixer)]
    assert len(mixers) == TINY.backbone.depths[4]  # type: ignore[union-attr]
    mixer, x = mixers[0], torch.randn(2, 5, 5, 32, generator=torch.Generator().manual_seed(0))
    kernel, bias = mixer.spatial.weight[:, 0], mixer.spatial.bias
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    by_hand = torch.zeros(2, 5, 5, 32)
    for i in range(5):
        for j in range(5):
            window = padded[:, i : i + 3, j : j + 3].permute(0, 3, 1, 2)
            by_hand[:, i, j] = (window * kernel).sum((2, 3)) + bias
    assert torch.allclose(mixer(x), mixer.proj(by_hand), atol=1e-5)


def test_a_variant_computes_the_same_when_it_is_folded(design: LeDetr) -> None:
    for variant in variants_of(TINY):
        model = variant(design).eval()
        folded, x = model.fused(), pixels().float() / 255
        with torch.inference_mode():
            for one, other in zip(model.encoder(model.backbone(x)), folded.encoder(folded.backbone(x)), strict=True):
                assert torch.allclose(one, other, atol=1e-4), variant.name


def test_parameters_and_operations_are_counted_as_changed() -> None:
    base, wide, conv = (count_variant(TINY, variant) for variant in (
        Variant(name="design", note=""), Variant(name="n", note="", na_kernel=5),
        Variant(name="c", note="", mixer="convolution")))  # fmt: skip
    assert wide == base  # the products of attention are not counted, its projections are the same
    # One layer of 32 channels: queries, keys and values go, a depthwise convolution of 3 x 3 with its bias comes.
    assert round(1e6 * (base.params_m - conv.params_m)) == 3 * 32 * 33 - 32 * 10
    assert round(1e9 * (base.gflops - conv.gflops)) == 2 * 25 * (3 * 32 * 32 - 32 * 9)


# The table


def result(ap: float, samples: list[float]) -> dict[str, Any]:
    return {"params_m": 1.0, "gflops": 2.0, "loss": 3.0, "ap": ap, "interval": [0.1, 0.3], "samples": samples}


def test_the_difference_is_of_the_same_draws() -> None:
    draws = np.random.default_rng(0).normal(0.2, 0.05, 1000)
    first, better = result(0.2, draws.tolist()), result(0.21, (draws + 0.01).tolist())
    text = table(
        [(Variant(name="design", note="as it is"), first), (Variant(name="x", note="other"), better)], "About."
    )
    assert text.splitlines()[-2] == "| as it is | 1.000 | 2.000 | 3.000 | 20.00 | 10.00 to 30.00 |  |  |"
    assert text.splitlines()[-1].endswith("| +1.00 | +1.00 to +1.00 |")


def test_nothing_found_at_all_is_no_number() -> None:
    none = result(0.2, [0.1]) | {"ap": None, "interval": None}
    assert "| – | – |" in table([(Variant(name="design", note="as it is"), none)], "About.")


# The command


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on toy shapes with the tiny network."""
    data = write_shapes(tmp_path / "shapes", "coco", 24, ids=(2, 5, 9))
    monkeypatch.setitem(ablations.VARIANTS, "tiny", lambda: ledetr_tiny(3))
    monkeypatch.setattr(ablations, "recipe_for", lambda name, scale: _recipe())

    def run(*words: str) -> None:
        main([str(data), "-m", "tiny", "--random-weights", "--imgsz", "96", "--batch", "4", "--threads", "1", "-q",
              "-o", str(tmp_path / "run"), *words])  # fmt: skip

    return run


def _recipe() -> Any:
    from training.recipes import finetune

    return finetune("n")


def test_the_whole_of_it_and_going_on(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--steps", "2", "--judge", "4", "--only", "aifi", "convolution")
    command(*words)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| NAIFI 5, neighborhood 3", "| AIFI (plain attention) instead of NAIFI",
        "| depthwise convolution 3 x 3 instead of neighborhood attention in the trunk",
    ]  # fmt: skip
    assert (tmp_path / "run" / "table.md").read_text() == text

    (tmp_path / "run" / "convolution" / "result.json").unlink()
    begun = []
    monkeypatch.setattr(ablations, "launch", lambda job, work: begun.append(job.folder.name) or work(0, job))
    command(*words)
    assert begun == ["convolution"]  # and that only loads its last checkpoint
    assert capsys.readouterr().out == text
    with pytest.raises(UsageError, match="a comparison of another kind"):
        command("--steps", "3", "--judge", "4", "--only", "aifi", "convolution")


def test_minutes_become_steps_once(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "result_of", lambda *_: result(0.1, [0.1]))
    command("--minutes", "30", "--judge", "2", "--only", "aifi")
    steps = json.loads((tmp_path / "run" / "plan.json").read_text())["steps_each"]
    assert steps >= ablations.FEWEST_STEPS
    monkeypatch.setattr(ablations, "_steps_that_fit", lambda *_: pytest.fail("measured again"))
    command("--minutes", "30", "--judge", "2", "--only", "aifi")


def test_too_little_time_says_how_much_is_needed(command: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"each variant would have 0 steps of .* s; give at least \d+ minutes for each"
    ):
        command("--minutes", "0.01", "--judge", "2")
    assert not (tmp_path / "run" / "plan.json").exists()


def test_words_that_make_no_sense(command: Any) -> None:
    with pytest.raises(UsageError, match="no variant 'naifi-9' at this size; there are design, aifi"):
        command("--steps", "1", "--only", "naifi-9")
    with pytest.raises(UsageError, match="multiple of 32 from 96 on"):
        command("--steps", "1", "--imgsz", "100")


def test_the_list_trains_nothing(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("--list")
    assert "convolution      depthwise convolution" in capsys.readouterr().out and not (tmp_path / "run").exists()
