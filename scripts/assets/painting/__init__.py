"""The project's own style images, one module each, and the helpers that they share."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from .cubist import cubist
from .ink_wash import ink_wash
from .pointillism import pointillism
from .stained_glass import stained_glass
from .starry_night import starry_night
from .watercolour import watercolour
from .woodblock_wave import woodblock_wave

# Each painting has its own seed, so that changing one leaves the others unchanged.
PAINTINGS: dict[str, tuple[Callable[[np.random.Generator], Image.Image], int]] = {
    "starry_night": (starry_night, 1889),
    "stained_glass": (stained_glass, 7),
    "woodblock_wave": (woodblock_wave, 7),
    "pointillism": (pointillism, 7),
    "ink_wash": (ink_wash, 7),
    "cubist": (cubist, 7),
    "watercolour": (watercolour, 7),
}


def paint(name: str) -> Image.Image:
    function, seed = PAINTINGS[name]
    return function(np.random.default_rng(seed))
