"""Map high dynamic range video (PQ, HLG) to standard range, because a network knows only ordinary photographs.

Sources: ITU-R BT.2100-2 (PQ, HLG), BT.2390-10 section 5.4 (the roll-off of highlights), BT.2087-0 (BT.2020 to BT.709),
BT.2408-7 (reference white: 203 cd/m2), BT.1886 (gamma 2.4). Light is in cd/m2; H height, W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

PEAK, WHITE = 1000.0, 203.0  # cd/m2: the brightest light of a clip; the light that becomes 1.0, after the roll-off
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073  # HLG
_LUMA_2020 = (0.2627, 0.6780, 0.0593)
_TO_709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))


def pq_to_light(signal: Tensor) -> Tensor:
    """Apply the PQ EOTF: signal in [0, 1] -> cd/m2, up to 10,000."""
    power = signal.clamp(0, 1) ** (1 / _M2)
    return 10000 * ((power - _C1).clamp_min(0) / (_C2 - _C3 * power)) ** (1 / _M1)


def light_to_pq(light: Tensor) -> Tensor:
    """Apply the inverse of `pq_to_light`."""
    power = (light / 10000).clamp(0, 1) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_to_light(signal: Tensor) -> Tensor:
    """Apply the HLG EOTF for a display of 1,000 cd/m2: (1, 3, H, W) in [0, 1] -> cd/m2."""
    signal = signal.clamp(0, 1)
    scene = torch.where(signal <= 0.5, signal.square() / 3, (((signal - _C) / _A).exp() + _B) / 12)
    luminance = (scene * scene.new_tensor(_LUMA_2020)[:, None, None]).sum(1, keepdim=True)
    return 1000 * luminance.clamp_min(1e-6) ** 0.2 * scene


def roll_off(light: Tensor) -> Tensor:
    """Compress light from [0, PEAK] to [0, WHITE] along BT.2390's spline; dark values stay as they are."""
    peak, white = (float(light_to_pq(torch.tensor(value))) for value in (PEAK, WHITE))
    top = white / peak
    knee = 1.5 * top - 0.5
    x = (light_to_pq(light) / peak).clamp_max(1)
    t = (x - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return pq_to_light(torch.where(x < knee, x, spline) * peak)


TRANSFERS: dict[int, tuple[str, Callable[[Tensor], Tensor]]] = {16: ("PQ", pq_to_light), 18: ("HLG", hlg_to_light)}


def to_standard_range(signal: Tensor, transfer: int) -> Tensor:
    """Convert BT.2020, (1, 3, H, W) in [0, 1], to BT.709 in [0, 1]. transfer: a key of TRANSFERS (ISO 23091).

    The brightest channel of a pixel is rolled off and the other two keep their ratio to it, so hues do not change.
    """
    light = TRANSFERS[transfer][1](signal)
    brightest = light.amax(1, keepdim=True).clamp_min(1e-4)
    linear = light * (roll_off(brightest) / brightest / WHITE)
    linear = torch.einsum("ij,bjhw->bihw", linear.new_tensor(_TO_709), linear)
    return linear.clamp(0, 1) ** (1 / 2.4)
