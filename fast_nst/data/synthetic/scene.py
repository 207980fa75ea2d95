"""The canvas of a synthetic photograph, and how a leaf is painted on it."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFilter

from fast_nst.data.synthetic import shapes, textures


@dataclass
class Scene:
    """A picture being drawn: the canvas, (height, width, 3) float32, and the settings its leaves share."""

    rng: np.random.Generator
    canvas: np.ndarray
    light: tuple[float, float]  # unit vector in the image plane toward the light
    haze: np.ndarray  # (3,) color that distant things fade to
    palette: list[np.ndarray] = field(default_factory=list)  # (3,) RGB each

    @property
    def height(self) -> int:
        """Return the number of rows of the canvas."""
        return self.canvas.shape[0]

    @property
    def width(self) -> int:
        """Return the number of columns of the canvas."""
        return self.canvas.shape[1]

    @property
    def unit(self) -> int:
        """Return the shorter side, the unit of sizes."""
        return min(self.canvas.shape[:2])

    def chance(self, p: float) -> bool:
        """Return True with probability p."""
        return bool(self.rng.random() < p)

    def uniform(self, low: float, high: float) -> float:
        """Draw a float uniformly from [low, high)."""
        return float(self.rng.uniform(low, high))

    def tint(self) -> np.ndarray:
        """Draw a color from the palette and vary it."""
        base = self.palette[int(self.rng.integers(len(self.palette)))]
        return np.clip(base * self.rng.uniform(0.75, 1.3) + self.rng.normal(0, 0.025, 3), 0.01, 1).astype(np.float32)


@dataclass
class Skin:
    """The appearance of a leaf: color, texture, relief and edge."""

    base: np.ndarray
    other: np.ndarray | None = None  # second color of a two-tone texture
    texture: str = "noise"
    contrast: float = 0.4  # the texture's contrast, 0 to 1
    zoom: float = 1.0  # the texture's magnification
    angle: float = 0.0  # the texture's rotation in radians
    relief: float = 0.3  # shading of a rounded body
    slope: float = 0.15  # shading of a flat body
    rough: float = 0.0  # ragged edge, as a share of the radius
    blur: float = 0.0  # defocus in pixels
    shadow: float = 0.0  # darkness of the shadow it casts
    haze: float = 0.0  # share of the haze color


def _shifted(plane: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Shift a (height, width) plane by (-dx, -dy) pixels, repeating its border."""
    rows = np.clip(np.arange(plane.shape[0]) + round(dy), 0, plane.shape[0] - 1)
    columns = np.clip(np.arange(plane.shape[1]) + round(dx), 0, plane.shape[1] - 1)
    return plane[rows][:, columns]


def _ragged(image: Image.Image, scene: Scene, depth: float) -> Image.Image:
    """Break up the edge of a mask with foliage noise over about `depth` pixels."""
    width, height = image.size
    dome = np.asarray(image.filter(ImageFilter.GaussianBlur(float(depth))), np.float32)
    tones = textures.crop(scene.rng, "foliage", height, width, scene.uniform(0.25, 0.7), scene.uniform(0, 6.28))
    return Image.fromarray(
        np.clip((dome - 128 + (tones.astype(np.float32) - 128) * 0.9) * 3 + 128, 0, 255).astype(np.uint8)
    )


def sloped(scene: Scene, height: int, width: int, amount: float) -> np.ndarray:
    """Return factors, (height, width), mean 1, that rise toward the light."""
    x = np.linspace(-amount, amount, width, dtype=np.float32) * scene.light[0]
    y = np.linspace(-amount, amount, height, dtype=np.float32) * scene.light[1]
    return 1 + y[:, None] + x[None]


def paint(scene: Scene, shape: shapes.Shape, skin: Skin) -> None:
    """Draw one leaf on the canvas. shape: its outline in pixels (`shapes.place`)."""
    drawn = shapes.mask(shape, scene.height, scene.width, skin.blur)
    if drawn is None:
        return
    image, left, top = drawn
    width, height = image.size
    spread = float(np.ptp(np.concatenate(shape), axis=0).min()) / 2  # the shape's own half width
    if skin.rough > 0 and spread > 3:
        image = _ragged(image, scene, skin.rough * spread)
    if skin.shadow > 0:
        _shade(scene, image, left, top, spread * scene.uniform(0.15, 0.5), skin.shadow)
    tones = textures.crop(scene.rng, skin.texture, height, width, skin.zoom, skin.angle)
    body = textures.ramp(scene.rng, skin.base, skin.contrast, skin.other)[tones]
    light = sloped(scene, height, width, skin.slope)
    if skin.relief > 0 and spread > 2:
        dome = np.asarray(image.filter(ImageFilter.GaussianBlur(0.4 * spread)), np.float32)
        dx, dy = (0.35 * spread * v for v in scene.light)
        light += (skin.relief / 255) * (_shifted(dome, -dx, -dy) - _shifted(dome, dx, dy))
    if spread > 0.04 * scene.unit:  # large surfaces are never even: wear, folds, cast light
        mottle = textures.crop(scene.rng, "soft", height, width, scene.uniform(0.3, 1.2), scene.uniform(0, 6.28))
        light += (mottle.astype(np.float32) - 128) * (scene.uniform(0, 0.6) / 255)
    body *= light[..., None]
    if skin.haze:
        body += skin.haze * (scene.haze - body)
    alpha = np.asarray(image, np.float32)[..., None] * np.float32(1 / 255)
    under = scene.canvas[top : top + height, left : left + width]
    under += alpha * (body - under)


def _shade(scene: Scene, image: Image.Image, left: int, top: int, offset: float, darkness: float) -> None:
    """Draw a soft shadow: darken the canvas under a mask moved away from the light."""
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(max(1.0, float(offset) / 2))), np.float32)
    left, top = left - round(offset * scene.light[0]), top - round(offset * scene.light[1])
    x, y = max(0, -left), max(0, -top)
    bottom, right = max(0, top + soft.shape[0]), max(0, left + soft.shape[1])  # a shadow may lie outside the canvas
    under = scene.canvas[top + y : bottom, left + x : right]
    under *= 1 - (darkness / 255) * soft[y : y + under.shape[0], x : x + under.shape[1], None]


def defocus(scene: Scene, radius: float) -> None:
    """Blur everything drawn so far by `radius` pixels: it becomes the out-of-focus background of later leaves."""
    image = Image.fromarray((np.clip(scene.canvas, 0, 1) * 255).astype(np.uint8))
    factor = max(1, int(radius / 1.5))
    small = image.reduce(factor).filter(ImageFilter.GaussianBlur(radius / factor))
    scene.canvas[:] = np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), np.float32) / 255
