"""The soak's judgement on made-up records, and a short soak."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.good_files import write_tiny_weights
from benchmarks.sizes import ssim_of
from benchmarks.soak import Record, Sample, Soak, slope_mb_per_hour, verdicts


def record(*, mb_per_hour: float = 0.0, threads: int = 0, handles: int = 0, minutes: int = 10) -> Record:
    """A warm-up of 50 MB in the first minute, then growth as said; threads, handles: more at the end."""
    samples = []
    for second in range(60 * minutes):
        late = second > 30 * minutes
        nbytes = 200e6 + min(second, 60) / 60 * 50e6 + mb_per_hour * 1e6 * second / 3600
        samples.append(Sample(float(second), round(nbytes), 12 + late * threads, 20 + late * handles))
    return Record(samples, lost_s=[0.2, 5.6], back_s=[9.0, 8.0], switches=10)


def failed(one: Record) -> list[str]:
    return [verdict.what for verdict in verdicts(one) if not verdict.good]


def test_what_is_flat_passes() -> None:
    assert slope_mb_per_hour(record().samples) == pytest.approx(0, abs=0.1)
    assert failed(record()) == []


def test_each_kind_of_growth_and_delay_fails() -> None:
    assert slope_mb_per_hour(record(mb_per_hour=100).samples) == pytest.approx(100, rel=0.01)
    assert failed(record(mb_per_hour=100)) == ["memory"]
    assert failed(record(threads=1)) == ["threads, begin to end"]
    assert failed(record(handles=1)) == ["file handles, begin to end"]
    slow = record()
    slow.lost_s.append(6.5)
    slow.back_s.append(12.5)
    slow.unaccounted, slow.switches = 1, 0
    assert failed(slow) == [
        "loss shown after (s)", "picture back after return (s)", "frames captured and not accounted for",
        "model switches done",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_half_a_minute_with_a_switch_and_both_kinds_of_loss(tmp_path: Path) -> None:
    """Memory is not judged: half a minute is all warm-up."""
    seen = Soak(write_tiny_weights(tmp_path / "tiny.safetensors")).run(30.0, switches=1, losses=2)
    assert seen.switches == 1 and len(seen.lost_s) == len(seen.back_s) == 2
    assert seen.unaccounted == 0 and seen.results > 10


def test_similarity_of_pictures() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
    assert ssim_of(noise, noise) == pytest.approx(1.0)
    assert ssim_of(noise, noise + 10) > 0.9 > ssim_of(noise, 255 - noise)
