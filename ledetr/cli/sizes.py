"""How large the four scales are. Counting takes seconds and torch, so the figures stand here; a test recounts them."""

from dataclasses import dataclass

COUNTED_HW = (640, 640)


@dataclass(frozen=True, slots=True)
class Size:
    """Millions of parameters and GFLOPs at COUNTED_HW: as the paper counts (ledetr.model.count), and as deployed."""

    params_m: float
    gflops: float
    params_deploy_m: float
    gflops_deploy: float


SIZES = {
    "n": Size(3.247, 6.61, 3.201, 6.49),
    "m": Size(32.725, 114.98, 32.185, 110.95),
    "l": Size(41.451, 124.34, 40.891, 120.29),
    "x": Size(44.933, 196.83, 44.543, 192.79),
}
