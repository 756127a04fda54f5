"""Pictures of high dynamic range to standard range, so that they look right on an ordinary screen and to the network.

Light up to 0.75 of reference white (203 cd/m2, ITU-R BT.2408) is shown as it is; brighter light is bent towards white
instead of being cut. Curves are those of ITU-R BT.2100.
"""

from functools import cache

import cv2
import numpy as np

PQ, HLG = 16, 18  # codes of ITU-T H.273
_BT2020 = 9
_REFERENCE_WHITE_NITS = 203.0
_KNEE = 0.75
_BRIGHTEST = 4.0  # in reference whites; from there on everything is white
_STEPS = 1 << 14

# BT.2020 to BT.709 in linear light, from the primaries and the white point of both (ITU-R BT.2087).
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


def to_standard_range(rgb: np.ndarray, transfer: int, primaries: int | None) -> np.ndarray:
    """(H, W, 3) uint8 coded with the curve PQ or HLG, to BT.709 of the same shape.

    primaries: H.273 code; untagged is taken as BT.2020, which both curves come with.
    """
    light: np.ndarray = cv2.LUT(rgb, _light_of_code(transfer))
    if primaries in (None, _BT2020):
        light = cv2.transform(light, _TO_BT709)
    # The root gives dark tones as many steps of the table as bright ones.
    np.clip(light, 0, _BRIGHTEST, out=light)
    steps = cv2.sqrt(light) * np.float32((_STEPS - 1) / _BRIGHTEST**0.5)
    return _code_of_step()[steps.astype(np.uint16)]


@cache
def _light_of_code(transfer: int) -> np.ndarray:
    """(256,) float32: light of each code, in reference whites."""
    code = np.arange(256) / 255
    return ((_pq_nits(code) if transfer == PQ else _hlg_nits(code)) / _REFERENCE_WHITE_NITS).astype(np.float32)


def _pq_nits(code: np.ndarray) -> np.ndarray:
    root = code ** (32 / 2523)
    light = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    nits: np.ndarray = 10_000 * light ** (16384 / 2610)
    return nits


def _hlg_nits(code: np.ndarray) -> np.ndarray:
    """For a screen of 1000 cd/m2, with the system gamma 1.2 on each colour by itself."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    nits: np.ndarray = 1000 * scene**1.2
    return nits


@cache
def _code_of_step() -> np.ndarray:
    """(_STEPS,) uint8: the code of BT.1886 for each step of the root of light."""
    light = _BRIGHTEST * np.linspace(0, 1, _STEPS) ** 2
    bent = np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * np.tanh((light - _KNEE) / (1 - _KNEE)))
    return np.round(255 * bent ** (1 / 2.4)).astype(np.uint8)
