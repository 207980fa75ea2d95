"""Synthetic photographs: the default content images, so that training needs no data set.

The dead-leaves model builds an image from occluding shapes whose sizes follow a power law, density ~ r ** -3. This
gives the edges, the scale invariance and the ~ 1/f ** 2 power spectrum of natural images (Lee, Mumford, Huang 2001,
"Occlusion models for natural images"). Restoration networks trained only on such images work on real photographs
(Achddou, Gousseau, Ladjal 2021, "Synthetic images as a regularity prior for image restoration neural networks").

Style transfer also has to handle skies, grounds, faces and defocus, so the leaves are arranged as in a photograph: a
backdrop, a ground, shapes from far (hazy, blurred) to near (large), then lens and exposure. Modules: `shapes`
(outlines), `textures` (colors, textures), `scene` (painting one leaf), `backdrops`, `things`, `layouts` (composition).
No real photograph is used.
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
    """Darken the canvas with the squared distance from the center, by `amount` in the corners."""
    x = np.linspace(-1, 1, scene.width, dtype=np.float32) ** 2
    y = np.linspace(-1, 1, scene.height, dtype=np.float32) ** 2
    scene.canvas *= (1 - 0.5 * amount * (x[None] + y[:, None]))[..., None]


def expose(scene: Scene) -> np.ndarray:
    """Convert the canvas to uint8, (height, width, 3), with a random mean and contrast, like a camera's metering.

    The tone curve moves the mean and deviation of the luminance toward random values around those of
    photographs (mean 0.44 +- 0.11, deviation 0.19 +- 0.055). White balance varies by a few percent per channel.
    """
    rng, canvas = scene.rng, np.clip(scene.canvas, 0, 1)
    luma = (canvas[::4, ::4] * _LUMA).sum(-1)
    mean, spread = float(np.clip(luma.mean(), 0.02, 0.95)), max(float(luma.std()), 0.02)
    target_mean = float(np.clip(rng.normal(0.46, 0.115), 0.08, 0.85))
    target_spread = float(np.clip(rng.normal(0.21, 0.06), 0.05, 0.36))
    gamma = float(np.clip(np.log(target_mean) / np.log(mean), 0.4, 2.2)) ** 0.85
    gain = float(np.clip(target_spread / spread, 0.6, 2.2))
    tone = np.linspace(0, 1, 1024, dtype=np.float32) ** gamma
    middle = mean**gamma
    tone = middle + gain * (tone - middle)
    balance = np.exp(rng.normal(0, 0.04, 3))
    # Film and flare lift the blacks; this also limits the saturation of dark colors.
    black = rng.uniform(0, 0.06)
    tables = np.clip((black + (1 - black) * np.clip(tone, 0, 1)[:, None]) * balance * 255 + 0.5, 0, 255).astype(
        np.uint8
    )
    levels = (canvas * 1023).astype(np.int16)
    return np.stack([tables[:, c][levels[..., c]] for c in range(3)], axis=-1)


def sharpen(picture: np.ndarray, percent: float) -> np.ndarray:
    """Sharpen a (height, width, 3) uint8 picture by `percent`, as cameras and scanners do."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.UnsharpMask(1.2, round(percent), 0)))


def grain(rng: np.random.Generator, picture: np.ndarray, amount: float) -> np.ndarray:
    """Add gray noise of deviation `amount`, in levels, to a (height, width, 3) uint8 picture."""
    noise = textures.crop(rng, "grain", *picture.shape[:2]).astype(np.float32) - 128
    return np.clip(picture + (noise * (amount / 46))[..., None], 0, 255).astype(np.uint8)


def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw one synthetic photograph, (height, width, 3) uint8; it depends only on the state of `rng`.

    Raises UserError if height or width is below 1.
    """
    for name, value in (("height", height), ("width", width)):
        errors.check_int(name, value, 1)
    angle = rng.uniform(-np.pi, 0)  # light from above
    scene = Scene(
        rng, np.full((height, width, 3), 0.4, np.float32), (float(np.cos(angle)), float(np.sin(angle))),
        textures.color(rng, "white"), textures.palette(rng),
    )  # fmt: skip
    LAYOUTS[int(rng.choice(len(LAYOUTS), p=SHARES))](scene)
    if scene.chance(0.4):  # uneven light: shadows of clouds or trees
        light = textures.crop(rng, "soft", height, width, scene.uniform(0.7, 2)).astype(np.float32)
        scene.canvas *= (0.65 + light * (0.7 / 255))[..., None]
    if scene.chance(0.5):
        vignette(scene, scene.uniform(0.1, 0.5))
    picture = expose(scene)
    if scene.chance(0.7):
        picture = sharpen(picture, scene.uniform(10, 70))
    return grain(rng, picture, scene.uniform(1, 7)) if scene.chance(0.5) else picture


class SyntheticPhotographs:
    """A pool of `count` synthetic photographs, `size` x `size`, each a function of (seed, index).

    An image is drawn on first use and kept as uint8 in memory that forked processes share. A pickled copy starts empty.
    """

    def __init__(self, count: int = 400, size: int = 264, seed: int = 0) -> None:
        """Raises UserError unless count and size are at least 1, seed is at least 0 and the images fit in memory."""
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
                f"data.count: got {self.count}; pictures of {self.size} x {self.size} pixels (data.size, val_size) "
                f"take {self.count * bytes_each / 2**30:.3g} GiB of memory, more than is available"
            ) from None
        self._pictures = np.frombuffer(pictures, np.uint8).reshape(self.count, self.size, self.size, 3)
        self._drawn = np.frombuffer(drawn, np.bool_)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        """Return image `index`, RGB. Raises IndexError unless 0 <= index < count."""
        if not 0 <= index < self.count:
            raise IndexError(f"index: got {index}; allowed: 0 to {self.count - 1}")
        if not self._drawn[index]:  # two processes that draw it at once write the same bytes
            self._pictures[index] = draw(np.random.default_rng((self.seed, index)), self.size, self.size)
            self._drawn[index] = True
        return Image.fromarray(self._pictures[index])

    def drawn(self, index: int) -> bool:
        """Return whether image `index` is in memory."""
        return bool(self._drawn[index])

    def __getstate__(self) -> dict[str, int]:
        """Leave out the images: drawing one again is faster than sending it."""
        return {"count": self.count, "size": self.size, "seed": self.seed}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__.update(state)
        self._allocate()
