"""Colors and textures of synthetic photographs.

Textures come from a small bank of tone tiles, drawn once per process from fixed seeds: Gaussian noise with power-law
spectra (natural images have amplitude ~ 1/f: Field 1987, "Relations between the statistics of natural images and the
response properties of cortical cells"), anisotropic and thresholded variants (fur, water, spots, stripes, foliage),
dead-leaves tiles (Lee, Mumford, Huang 2001, "Occlusion models for natural images") and masonry. A leaf crops, rotates
and zooms one tile and maps its tones through a color ramp.
"""

import colorsys
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_TILE = 512  # period of the noise tiles
_BANK = 1024  # side of a stored tile: two periods, so that a rotated crop of a whole image fits

# kind: hue mean and spread (degrees), minimum and maximum saturation, minimum and maximum value (HSV). Natural colors
# are mostly earths, yellowish greens, blues and near-grays; few are vivid.
KINDS: dict[str, tuple[float, float, float, float, float, float]] = {
    "earth": (32, 9, 0.2, 0.65, 0.12, 0.85),
    "green": (76, 19, 0.25, 0.7, 0.12, 0.7),
    "blue": (207, 11, 0.15, 0.7, 0.15, 0.85),
    "sky": (207, 9, 0.15, 0.65, 0.45, 0.95),
    "gray": (42, 45, 0.03, 0.25, 0.05, 1.0),
    "dark": (30, 45, 0.1, 0.55, 0.02, 0.2),
    "white": (45, 30, 0.01, 0.16, 0.75, 1.0),
    "skin": (21, 4, 0.3, 0.65, 0.35, 0.95),
    "red": (4, 8, 0.6, 0.95, 0.3, 0.9),
    "yellow": (47, 6, 0.55, 0.98, 0.6, 1.0),
    "any": (180, 180, 0.3, 0.85, 0.2, 0.95),
}


def color(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Draw a color of a kind in `KINDS`: (3,) float32 RGB in [0, 1]."""
    hue, spread, s0, s1, v0, v1 = KINDS[kind]
    h = (hue + spread * float(np.clip(rng.standard_normal(), -2, 2))) / 360
    s, v = s0 + (s1 - s0) * rng.uniform(0, 1, 2).mean(), rng.uniform(v0, v1)
    return np.array(colorsys.hsv_to_rgb(h % 1, s, v), np.float32)


def palette(rng: np.random.Generator, size: int = 6) -> list[np.ndarray]:
    """Draw `size` matching colors, because a photograph usually shows only two or three kinds."""
    kinds = ["earth", "green", "blue", "gray", "dark", "white", "red", "yellow", "any"]
    base = np.array([3.0, 2.7, 1.3, 2.2, 2.2, 1.2, 0.6, 0.5, 0.4])
    # A gamma distribution of small shape makes the weights sparse, so that each image has few kinds.
    weights = rng.standard_gamma(base * 0.45) + 1e-6
    return [color(rng, k) for k in rng.choice(kinds, size, p=weights / weights.sum())]


def ramp(rng: np.random.Generator, base: np.ndarray, contrast: float, other: np.ndarray | None = None) -> np.ndarray:
    """Return a table from tone to color, (256, 3) float32: shadow, base, highlight; or `base` to `other` if given.

    Shadows are bluish (skylight) and highlights yellowish (sunlight). contrast: in [0, 1].
    """
    if other is None:
        cool = np.array([-0.04, 0.0, 0.04], np.float32) * rng.uniform(0.0, 2.5)
        contrast = min(contrast, 1.0)
        shadow = base * (1 - 0.92 * contrast) * (1 + cool)
        highlight = base * (1 + 0.9 * contrast) + 0.3 * contrast - cool * contrast
        knots = np.stack([shadow, base, highlight])
    else:
        knots = np.stack([base, 0.5 * (base + other), other])
    tones = np.linspace(0, 2, 256, dtype=np.float32)
    table = np.stack([np.interp(tones, (0, 1, 2), knots[:, c]) for c in range(3)], axis=1)
    return np.clip(table, 0, 1.15).astype(np.float32)


def spectral_noise(seed: int, slope: float, stretch: float = 1.0, band: float = 0.0) -> np.ndarray:
    """Return periodic Gaussian noise, (512, 512) float32, mean 0, deviation 1, amplitude spectrum f ** -slope.

    stretch: a value above 1 elongates features along y. band: a value above 0 keeps only frequencies near `band` cycles
    per tile.
    """
    fy, fx = np.fft.fftfreq(_TILE)[:, None] * _TILE, np.fft.rfftfreq(_TILE)[None] * _TILE
    radius = np.hypot(fy * stretch, fx)
    radius[0, 0] = 1
    amplitude = radius**-slope
    if band:
        amplitude = amplitude * np.exp(-(np.log(radius / band) ** 2) / (2 * 0.35**2))
    amplitude[0, 0] = 0
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal((_TILE, _TILE)))
    noise = np.fft.irfft2(white * amplitude, s=(_TILE, _TILE))
    return (noise / noise.std()).astype(np.float32)


def _tile(noise: np.ndarray) -> Image.Image:
    """Convert noise of mean 0 and deviation 1 to a stored tile: mean 128, deviation 46."""
    return Image.fromarray(np.tile(np.clip(128 + 46 * noise, 0, 255).astype(np.uint8), (2, 2)))


def _steep(noise: np.ndarray, at: float, gain: float) -> np.ndarray:
    """Softly threshold noise at `at`, to [-1.6, 1.6]."""
    return 1.6 * np.tanh(gain * (noise - at))


def _dead_leaves(seed: int, smallest: float, largest: float, slim: float) -> Image.Image:
    """Draw a tile of occluding ellipses with size density ~ r ** -3: litter, pebbles, scales."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (_BANK, _BANK), 90)
    pen = ImageDraw.Draw(image)
    radii = power_law(rng, smallest, largest, 9000)
    for r, x, y, tone, shape in zip(radii, *rng.uniform(0, 1, (4, radii.size)), strict=True):
        a, b = r * (1 - slim * shape), r * (1 - slim * (1 - shape))
        x, y, tone = x * _BANK, y * _BANK, int(40 + 175 * tone)
        pen.ellipse((x - a, y - b, x + a, y + b), fill=int(tone * 0.55))  # a dark rim, then the lit face
        pen.ellipse((x - a, y - b, x + 0.7 * a, y + 0.6 * b), fill=tone)
    return image.filter(ImageFilter.GaussianBlur(0.8))


def _clumped(leaves: Image.Image, clumps: np.ndarray) -> Image.Image:
    """Group leaves into lit clumps with dark gaps: foliage."""
    tones = (np.asarray(leaves, np.float32) - 40) * (0.75 + 0.45 * np.tile(clumps, (2, 2)))
    return Image.fromarray(np.clip(tones + 40, 0, 255).astype(np.uint8))


def _courses(seed: int, height: int, length: int, joint: int, shift: bool) -> Image.Image:
    """Draw a tile of bricks (`shift`), planks or panes: courses of blocks of random tone, with dark joints."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (_BANK, _BANK), 40)
    pen = ImageDraw.Draw(image)
    for row, y in enumerate(range(0, _BANK, height)):
        for x in range(-length * (row % 2) // 2 if shift else 0, _BANK, length):
            tone = int(np.clip(rng.normal(150, 22), 60, 250))
            pen.rectangle((x, y, x + length - 1 - joint, y + height - 1 - joint), fill=tone)
    grain = np.asarray(image, np.float32) + 14 * np.tile(spectral_noise(seed, 1.0), (2, 2))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


@cache
def bank() -> dict[str, tuple[Image.Image, ...]]:
    """Return the tone tiles by name, each (1024, 1024), mode L. Drawn on first use from fixed seeds."""
    n = spectral_noise
    cracks = [-np.abs(n(30 + i, s)) * 2.2 + 1.2 for i, s in enumerate((1.2, 1.6))]
    return {
        "grain": (_tile(n(1, 0.0)),),
        "soft": (_tile(n(2, 2.0)), _tile(n(3, 1.8))),
        "noise": (_tile(n(4, 1.0)), _tile(n(5, 1.2)), _tile(n(6, 0.8))),
        "rough": (_tile(n(7, 0.5)), _tile(n(8, 0.65))),
        "fur": (_tile(n(9, 0.8, 6)), _tile(0.7 * n(10, 0.6, 9) + 0.7 * n(11, 1.3))),
        "waves": (_tile(n(12, 1.0, 0.22)), _tile(0.8 * n(13, 0.7, 0.2, 40) + 0.6 * n(14, 1.4))),
        "spots": (_tile(_steep(n(15, 0, 1, 26), 0.8, 4) + 0.3), _tile(_steep(n(16, 0, 1, 16), 0.9, 5) + 0.3)),
        "stripes": (_tile(_steep(n(17, 0, 4, 18), 0.2, 4)), _tile(_steep(n(18, 0, 3, 28), 0, 3))),
        "folds": tuple(_tile(1.4 - 1.9 * np.abs(n(80 + i, 1.7, 3))) for i in range(2)),
        "cracks": tuple(_tile(c) for c in cracks),
        "foliage": tuple(_clumped(_dead_leaves(63 + i, 2, 14, 0.75), n(50 + i, 1.0, 1, 14)) for i in range(2)),
        "litter": (_dead_leaves(60, 2, 40, 0.8), _dead_leaves(61, 3, 60, 0.4), _dead_leaves(62, 2, 16, 0.75)),
        "brick": (_courses(70, 16, 40, 2, True), _courses(71, 24, 36, 2, True)),
        "planks": (_courses(72, 1024, 18, 2, False), _courses(73, 1024, 30, 3, False)),
        "panes": (_courses(74, 34, 26, 9, False), _courses(75, 26, 40, 8, False)),
    }


def power_law(rng: np.random.Generator, smallest: float, largest: float, count: int) -> np.ndarray:
    """Draw (count,) radii with density ~ r ** -3 on [smallest, largest]: scale-invariant sizes."""
    a, b = smallest**-2.0, max(largest, smallest) ** -2.0
    return (a + rng.uniform(0, 1, count) * (b - a)) ** -0.5


def crop(
    rng: np.random.Generator,
    name: str,
    height: int,
    width: int,
    zoom: float = 1.0,
    angle: float = 0.0,
    tilt: float = 0.0,
) -> np.ndarray:
    """Crop tones, (height, width) uint8, from a tile of `name`, magnified by `zoom` and rotated by `angle` radians.

    tilt: a value above 0 projects the texture onto a slanted ground plane, 1 + tilt times smaller at the top than at
    the bottom.
    """
    tiles = bank()[name]
    tile = tiles[int(rng.integers(len(tiles)))]
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    # The crop must stay inside the tile: shrink the step if it is too wide, then place it anywhere it fits.
    reach = max(abs(cos) * width + abs(sin) * height, abs(sin) * width + abs(cos) * height) * (1 + tilt) + 2
    fit = min(1.0, (_BANK - 4) / reach)
    cos, sin, reach = cos * fit, sin * fit, reach * fit
    x, y = rng.uniform(reach / 2 + 1, _BANK - reach / 2 - 1, 2) if reach < _BANK - 4 else (_BANK / 2, _BANK / 2)
    box, by = (width, height), Image.Resampling.BILINEAR
    if not tilt:
        left, top = x - (cos * width - sin * height) / 2, y - (sin * width + cos * height) / 2
        turn = (cos, -sin, left, sin, cos, top)
        return np.asarray(tile.transform(box, Image.Transform.AFFINE, turn, by))
    # A slanted plane: a column is `first` / (1 + g * row) steps wide, so that the top row is the farthest.
    g, first = tilt / height, fit * (1 + tilt) / zoom
    far = first * height * (1 + tilt) / tilt
    start = y + reach / 2 - far
    slant = (first, x * g, x - first * width / 2, 0.0, start * g, start + far, 0.0, g)
    return np.asarray(tile.transform(box, Image.Transform.PERSPECTIVE, slant, by))
