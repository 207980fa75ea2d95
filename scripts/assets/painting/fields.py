"""Fields on the image plane: noise, blurs, ramps and curves, all as float32 arrays."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = np.ndarray
Shape = tuple[int, int]


def plane(shape: Shape) -> tuple[Field, Field]:
    """Return every pixel's coordinates (u, v) in units of the image's height, so that circles stay round."""
    height, width = shape
    v, u = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(height)
    return u, v


def smoothstep(low: float, high: float, value: Field) -> Field:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def resize(field: Field, shape: Shape) -> Field:
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def noise(rng: np.random.Generator, shape: Shape, cell: float | tuple[float, float], octaves: int = 4) -> Field:
    """Return fractal value noise of mean about 0.5, mostly in [0, 1]; a (tall, wide) cell stretches it into streaks."""
    tall, wide = cell if isinstance(cell, tuple) else (cell, cell)
    total, weight, weights = np.zeros(shape, np.float32), 1.0, 0.0
    for _ in range(octaves):
        rows, columns = int(np.ceil(shape[0] / tall)) + 3, int(np.ceil(shape[1] / wide)) + 3
        lattice = rng.random((rows, columns), dtype=np.float32)
        # Crop at a random offset: octaves with aligned lattices show as a weave.
        big = resize(lattice, (max(1, round(rows * tall)), max(1, round(columns * wide))))
        top, left = (int(size * (0.6 + 0.8 * rng.random())) for size in (tall, wide))
        total += weight * big[top : top + shape[0], left : left + shape[1]]
        weights += weight
        weight, tall, wide = weight * 0.55, max(tall / 1.9, 1.0), max(wide / 1.9, 1.0)
    return (total / weights - 0.5) * 1.6 + 0.5


def blur(field: Field, radius: float) -> Field:
    """Blur with three box blurs, which approximate a Gaussian; Pillow blurs only 8-bit images."""
    size = max(1, round(radius))
    for axis in (0, 1):
        for _ in range(3):
            pad = [(0, 0)] * field.ndim
            pad[axis] = (size + 1, size)
            total = np.cumsum(np.pad(field, pad, mode="edge"), axis=axis, dtype=np.float64)
            count = field.shape[axis]
            upper = np.take(total, range(2 * size + 1, 2 * size + 1 + count), axis=axis)
            field = ((upper - np.take(total, range(count), axis=axis)) / (2 * size + 1)).astype(np.float32)
    return field


def look_up(field: Field, x: Field, y: Field) -> Field:
    """Return the field at the nearest pixel, clamped at the image's edge."""
    height, width = field.shape[:2]
    return field[np.clip(np.rint(y).astype(int), 0, height - 1), np.clip(np.rint(x).astype(int), 0, width - 1)]


def ramp(colors: Sequence[Sequence[float]], position: Field) -> Field:
    """Return colors in [0, 1] from a palette of 8-bit colors, at positions from 0 to 1."""
    palette = np.asarray(colors, np.float32) / 255.0
    stops = np.linspace(0.0, 1.0, len(palette))
    return np.stack([np.interp(position, stops, palette[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def pick(rng: np.random.Generator, colors: Sequence[Sequence[float]], count: int, spread: float = 0.05) -> Field:
    """Draw palette colors (count, 3), each varied a little, like paint mixed by hand."""
    palette = np.asarray(colors, np.float32) / 255.0
    chosen = palette[rng.integers(0, len(palette), count)]
    return np.clip(chosen + rng.normal(0.0, spread, (count, 1)) + rng.normal(0.0, spread / 2, (count, 3)), 0.0, 1.0)


def mix(base: Field, top: Field | Sequence[float], amount: Field | float) -> Field:
    """Blend `top` over `base`, with a weight per pixel."""
    weight = np.asarray(amount, np.float32)
    return base + (np.asarray(top, np.float32) - base) * (weight[..., None] if weight.ndim else weight)


def spline(points: npt.ArrayLike, count: int = 200, closed: bool = False) -> Field:
    """Return a Catmull-Rom curve (count, 2) through the points."""
    knots = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    spans = len(padded) - 3
    t = np.linspace(0.0, spans, count, endpoint=not closed)
    index = np.minimum(t.astype(int), spans - 1)
    f = (t - index)[:, None]
    a, b, c, d = (padded[index + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3)


def flow_noise(rng: np.random.Generator, direction: Field, cell: float, reach: float) -> Field:
    """Return noise smeared along a direction field (line integral convolution): bands along the flow, in [0, 1]."""
    height, width = direction.shape[:2]
    small = (height // 4, width // 4)
    grain = noise(rng, small, cell / 4, 2)
    steps = max(2, int(reach / 8))
    y0, x0 = np.mgrid[0 : small[0], 0 : small[1]].astype(np.float32)
    total = grain.copy()
    for sign in (1.0, -1.0):
        x, y = x0.copy(), y0.copy()
        for _ in range(steps):
            step = look_up(direction, x * 4, y * 4)
            x += sign * step[..., 0]
            y += sign * step[..., 1]
            total += look_up(grain, x, y)
    total = resize(total, (height, width))
    return np.clip(0.5 + (total - total.mean()) / (4.0 * total.std()), 0.0, 1.0)
