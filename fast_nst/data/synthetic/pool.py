"""Synthetic photographs: the default content images, so that training needs no data set.

The dead-leaves model builds a picture from occluding shapes whose sizes follow a power law, density ~ r ** -3, which
gives it the edges, the scale invariance and the ~ 1/f ** 2 power spectrum of natural images (Lee, Mumford, Huang 2001,
"Occlusion models for natural images"); restoration networks trained on such pictures alone work on real photographs
(Achddou, Gousseau, Ladjal 2021, "Synthetic images as a regularity prior for image restoration neural networks").
Style transfer also meets skies, grounds, faces and defocus, so the leaves are laid out here as in a photograph: a
backdrop, a ground, then shapes from far, hazy and blurred to near and large, then the lens and the exposure. Beside
this file: `shapes` (outlines), `textures` (colors, textures), `scene` (painting one leaf), `backdrops`, `things`,
`layouts` (the picture's parts). Nothing is copied from any photograph.
"""

import mmap

import numpy as np
from PIL import Image, ImageFilter

from fast_nst import errors
from fast_nst.data.synthetic import textures
from fast_nst.data.synthetic.layouts import LAYOUTS, SHARES
from fast_nst.data.synthetic.scene import Scene

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def vignette(scene: Scene, amount: float) -> None:
    """Darkens the corners by `amount`, with the square of the distance from the middle."""
    x = np.linspace(-1, 1, scene.width, dtype=np.float32) ** 2
    y = np.linspace(-1, 1, scene.height, dtype=np.float32) ** 2
    scene.canvas *= (1 - 0.5 * amount * (x[None] + y[:, None]))[..., None]


def expose(scene: Scene) -> np.ndarray:
    """(height, width, 3) uint8: the canvas through a camera that meters it, to a drawn mean and contrast.

    The tone curve moves mean and deviation of the luminance part of the way to those of photographs, which lie about
    0.44 and 0.19 and spread by 0.11 and 0.055; white balance differs by a few per cent between the channels.
    """
    rng, canvas = scene.rng, np.clip(scene.canvas, 0, 1)
    luma = (canvas[::4, ::4] * _LUMA).sum(-1)
    mean, spread = float(np.clip(luma.mean(), 0.02, 0.95)), max(float(luma.std()), 0.02)
    aim, reach = float(np.clip(rng.normal(0.46, 0.115), 0.08, 0.85)), float(np.clip(rng.normal(0.21, 0.06), 0.05, 0.36))
    gamma = float(np.clip(np.log(aim) / np.log(mean), 0.4, 2.2)) ** 0.85
    gain = float(np.clip(reach / spread, 0.6, 2.2))
    tone = np.linspace(0, 1, 1024, dtype=np.float32) ** gamma
    middle = mean**gamma
    tone = middle + gain * (tone - middle)
    balance = np.exp(rng.normal(0, 0.04, 3))
    # film and flare leave blacks above zero, which also keeps dark colours from full saturation
    black = rng.uniform(0, 0.06)
    tables = np.clip((black + (1 - black) * np.clip(tone, 0, 1)[:, None]) * balance * 255 + 0.5, 0, 255).astype(
        np.uint8
    )
    levels = (canvas * 1023).astype(np.int16)
    return np.stack([tables[:, c][levels[..., c]] for c in range(3)], axis=-1)


def sharpen(picture: np.ndarray, percent: float) -> np.ndarray:
    """The (height, width, 3) uint8 picture with fine detail raised by `percent`, as cameras and scanners do."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.UnsharpMask(1.2, round(percent), 0)))


def grain(rng: np.random.Generator, picture: np.ndarray, amount: float) -> np.ndarray:
    """A (height, width, 3) uint8 picture with grey noise of deviation `amount` (in levels) added."""
    noise = textures.crop(rng, "grain", *picture.shape[:2]).astype(np.float32) - 128
    return np.clip(picture + (noise * (amount / 46))[..., None], 0, 255).astype(np.uint8)


def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One synthetic photograph, (height, width, 3) uint8, which depends only on the state of `rng`.

    Height and width are at least 1; ValueError otherwise.
    """
    for name, value in (("height", height), ("width", width)):
        errors.check_int(name, value, 1)
    angle = rng.uniform(-np.pi, 0)  # light from above
    scene = Scene(
        rng, np.full((height, width, 3), 0.4, np.float32), (float(np.cos(angle)), float(np.sin(angle))),
        textures.colour(rng, "white"), textures.palette(rng),
    )  # fmt: skip
    LAYOUTS[int(rng.choice(len(LAYOUTS), p=SHARES))](scene)
    if scene.chance(0.4):  # uneven light: clouds' shadows, a canopy
        light = textures.crop(rng, "soft", height, width, scene.uniform(0.7, 2)).astype(np.float32)
        scene.canvas *= (0.65 + light * (0.7 / 255))[..., None]
    if scene.chance(0.5):
        vignette(scene, scene.uniform(0.1, 0.5))
    picture = expose(scene)
    if scene.chance(0.7):
        picture = sharpen(picture, scene.uniform(10, 70))
    return grain(rng, picture, scene.uniform(1, 7)) if scene.chance(0.5) else picture


class SyntheticPhotographs:
    """A pool of `count` synthetic photographs, `size` by `size`, deterministic in (seed, index).

    An image is drawn when first asked for and kept as uint8 from then on, in memory that forked processes share;
    copies sent to other processes start empty.
    """

    def __init__(self, count: int = 400, size: int = 264, seed: int = 0) -> None:
        """ValueError, naming the argument, unless count and size are integers >= 1 and seed an integer >= 0; UserError,
        one too, where there is no memory for so many."""
        self.count = errors.check_int("count", count, 1)
        self.size = errors.check_int("size", size, 1)
        self.seed = errors.check_int("seed", seed, 0)
        self._allocate()

    def _allocate(self) -> None:
        bytes_each = self.size**2 * 3
        try:
            pictures, drawn = mmap.mmap(-1, self.count * bytes_each), mmap.mmap(-1, self.count)
        except (OSError, OverflowError):
            raise errors.UserError(
                f"data.count={self.count}: pictures of {self.size} x {self.size} pixels, by data.size and "
                f"data.val_size, take {self.count * bytes_each / 2**30:.3g} GiB of memory together, more than there is"
            ) from None
        self._pictures = np.frombuffer(pictures, np.uint8).reshape(self.count, self.size, self.size, 3)
        self._drawn = np.frombuffer(drawn, np.bool_)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        """Image `index` in 0 .. count - 1 as PIL RGB, size x size; IndexError for any other index."""
        if not 0 <= index < self.count:
            raise IndexError(f"index: got {index}; allowed: 0 to {self.count - 1}")
        if not self._drawn[index]:  # two processes at once write the same
            self._pictures[index] = draw(np.random.default_rng((self.seed, index)), self.size, self.size)
            self._drawn[index] = True
        return Image.fromarray(self._pictures[index])

    def drawn(self, index: int) -> bool:
        """Whether image `index` is kept already."""
        return bool(self._drawn[index])

    def __getstate__(self) -> dict[str, int]:
        """All but the pictures: one costs less to draw again than to send."""
        return {"count": self.count, "size": self.size, "seed": self.seed}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__.update(state)
        self._allocate()
