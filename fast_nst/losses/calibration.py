"""How much style a painting can give without swallowing the photograph, from the style image alone.

A photograph shows through light and shade and through marks. A painting that has hardly any of one, a night sky or a
surface of gravel, areas of one colour each, has a style that leaves no place for it at the weight of all others.
"""

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from fast_nst.validate import Invalid, number, one_of

LOWEST = 0.1


def masses(painting: Tensor) -> float:
    """How much the large masses of a painting (1, 3, H, W) differ: the standard deviation of its values at 32 x 32
    points, a mean over RGB. 0.14 to 0.26 for most; a night sky or a surface of gravel has 0.06."""
    return float(F.interpolate(painting, size=(32, 32), mode="area").std((2, 3)).mean())


def marks(painting: Tensor) -> float:
    """How much a painting (1, 3, H, W), at 256 pixels on its shorter side or less, differs from pixel to pixel: the
    mean length of its gradient. 0.04 to 0.25 for most; areas of one colour each have 0.02."""
    h, w = painting.shape[2:]
    if min(h, w) < 2:
        return 0.0
    if min(h, w) > 256:
        painting = F.interpolate(painting, size=(256 * h // min(h, w), 256 * w // min(h, w)), mode="area")
    across, down = painting[:, :, :-1].diff(dim=3), painting[:, :, :, :-1].diff(dim=2)
    return float((across.square() + down.square()).sqrt().mean())


MEASURES: dict[str, Callable[[Tensor], float]] = {"masses": masses, "marks": marks}


def calibration(paintings: Sequence[Tensor], least: Mapping[str, float]) -> float:
    """What to multiply the style weight by, 0.1 to 1: the lowest share that a painting has of what is asked.

    least: {"masses" or "marks": enough for the full weight}. Raises Invalid for another name or value.
    """
    if not isinstance(least, Mapping):
        raise Invalid(f"loss.calibrate: got {least!r}; allowed: {{masses: 0.13, marks: 0.04}}, either alone, or {{}}")
    shares = [1.0]
    for name, enough in least.items():
        one_of("loss.calibrate", name, tuple(MEASURES))
        if number(f"loss.calibrate.{name}", enough, 0, 0.5):
            shares += [MEASURES[name](painting) / enough for painting in paintings]
    return round(max(LOWEST, min(shares)), 2)  # two digits, which every machine finds the same
