"""Outlines in synthetic photographs: polygons in a unit frame, and their soft masks.

A shape is a list of polygons, (n, 2) float arrays of (x, y) within about [-1, 1], y down; the shape is their union.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Shape = list[np.ndarray]


def ellipse(x: float = 0, y: float = 0, a: float = 1, b: float = 1, angle: float = 0, points: int = 28) -> np.ndarray:
    """Return an ellipse, (points, 2), at (x, y) with half axes a and b, rotated by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    u, v = a * np.cos(t), b * np.sin(t)
    return np.stack([x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], axis=1)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Return an upright rectangle, (4, 2)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def blob(rng: np.random.Generator, wobble: float = 0.25) -> np.ndarray:
    """Draw a smooth closed curve, (36, 2): a circle whose radius has a few low harmonics of falling amplitude."""
    t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    k = np.arange(2, 7)[:, None]
    waves = np.cos(k * t + rng.uniform(0, 2 * np.pi, (5, 1))) * (rng.standard_normal((5, 1)) * (2.0 / k) ** 1.3)
    r = np.maximum(0.3, 1 + wobble * waves.sum(0))
    return np.stack([r * np.cos(t), r * np.sin(t) * rng.uniform(0.5, 1)], axis=1)


def facets(rng: np.random.Generator) -> np.ndarray:
    """Draw a polygon, (3 to 7, 2), with its corners on a circle."""
    t = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def stroke(path: np.ndarray, first: float, last: float) -> np.ndarray:
    """Return the outline, (2 n, 2), of a path, (n, 2), drawn with a pen of half width `first` to `last`."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * np.linspace(first, last, len(path))[:, None]
    return np.concatenate([path + side, (path - side)[::-1]])


def limb(x0: float, y0: float, x1: float, y1: float, first: float, last: float, bend: float = 0) -> np.ndarray:
    """Return a tapered limb, (14, 2), from (x0, y0) to (x1, y1), bowed sideways by `bend`."""
    t = np.linspace(0, 1, 7)[:, None]
    start, end = np.array([x0, y0]), np.array([x1, y1])
    normal = np.array([y0 - y1, x1 - x0])
    return stroke(start + t * (end - start) + bend * np.sin(np.pi * t) * normal, first, last)


def twigs(rng: np.random.Generator, depth: int = 3) -> Shape:
    """Draw a bare tree: a trunk from (0, 1) upward that forks `depth` times, each limb thinner and shorter."""
    shape: Shape = []
    tips = [(0.0, 1.0, -np.pi / 2 + rng.normal(0, 0.12), rng.uniform(0.6, 0.95), rng.uniform(0.03, 0.09))]
    for level in range(depth + 1):
        grown = []
        for x, y, angle, length, width in tips:
            ex, ey = x + length * np.cos(angle), y + length * np.sin(angle)
            shape.append(limb(x, y, ex, ey, width, width * 0.6, rng.normal(0, 0.08)))
            for turn in rng.uniform(0.15, 0.8, 2) * (-1, 1) if level < 2 else rng.normal(0, 0.6, 2):
                grown.append((ex, ey, angle + turn, length * rng.uniform(0.5, 0.8), width * 0.55))
        tips = grown
    return shape


def animal(rng: np.random.Generator) -> Shape:
    """Draw a four-legged animal that faces right: body, neck, head, ears, legs, tail."""
    girth, leg, lift = rng.uniform(0.2, 0.42), rng.uniform(0.35, 0.75), rng.uniform(-0.15, 0.6)
    width, head = rng.uniform(0.05, 0.11), rng.uniform(0.13, 0.24)
    hx, hy = 0.62 + rng.uniform(0.15, 0.35), -lift
    shape = [
        ellipse(0, 0, 0.68, girth, rng.normal(0, 0.06)),
        ellipse(0.42, -0.02, 0.3, girth * 1.12),
        ellipse(-0.42, 0, 0.32, girth * 1.1),
        limb(0.45, -0.05, hx, hy, girth * 0.75, head * 0.7),
        ellipse(hx, hy, head * 1.1, head * 0.85, 0.3),
        ellipse(hx + head * 0.9, hy + head * 0.35, head * 0.65, head * 0.42, 0.35),
        ellipse(hx - head * 0.45, hy - head * 0.9, head * 0.28, head * rng.uniform(0.3, 0.7), -0.3),
        limb(-0.66, -0.05, -0.85 - rng.uniform(0, 0.2), rng.uniform(-0.3, 0.5), 0.05, 0.03, rng.normal(0, 0.25)),
    ]
    for x in (-0.55, -0.4, 0.38, 0.52):
        shape.append(limb(x, girth * 0.3, x + rng.normal(0, 0.09), girth * 0.3 + leg, width * 1.5, width * 0.7, 0.06))
    return shape


def bird(rng: np.random.Generator) -> Shape:
    """Draw a bird in flight: a slim body and two broad, raised wings."""
    lift, sweep = rng.uniform(-0.5, 0.7), rng.uniform(-0.3, 0.4)
    ends = [(0.05, -0.08), (0.45, -lift * 0.7 - 0.12), (1, -lift + sweep), (0.5, 0.16 - lift * 0.3), (0.05, 0.14)]
    wings = [np.array(ends) * (s, 1) for s in (-1, 1)]
    return [*wings, ellipse(0, 0, 0.12, 0.3), ellipse(0, -0.34, 0.07, 0.1), facets(rng) * 0.12 + (0, 0.34)]


def petals(rng: np.random.Generator) -> Shape:
    """Draw a ring of 5 to 21 petals, seen from near its axis."""
    count, slant = int(rng.integers(5, 22)), rng.uniform(0.5, 1)
    wide = min(0.34, rng.uniform(2.2, 3.4) / count)
    turn = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + rng.normal(0, 0.05, count)
    return [ellipse(0.58 * np.cos(t), 0.58 * np.sin(t), 0.42, wide, t) * (1, slant) for t in turn]


def skyline(rng: np.random.Generator, slope: float, points: int = 65) -> np.ndarray:
    """Draw a ridge line: (points,) heights, mean 0, deviation 1, amplitude spectrum ~ f ** -slope."""
    f = np.arange(1, points // 2)
    wave = np.cos(2 * np.pi * f[:, None] * np.linspace(0, 0.7, points) + rng.uniform(0, 2 * np.pi, (f.size, 1)))
    line = (wave * (rng.standard_normal(f.size) * f**-slope)[:, None]).sum(0)
    return (line - line.mean()) / max(float(line.std()), 1e-6)


def place(shape: Shape, x: float, y: float, radius: float, angle: float = 0.0, flip: bool = False) -> Shape:
    """Convert a shape to pixels: mirror it if `flip`, rotate by `angle` radians, scale by `radius`, move to (x, y)."""
    cos, sin = np.cos(angle) * radius, np.sin(angle) * radius
    turn = np.array([(cos, sin), (-sin, cos)]) * ([[-1], [1]] if flip else 1)
    # Written out: a matrix product may differ in the last bit between BLAS libraries.
    center = np.array([x, y])
    return [p[:, :1] * turn[0] + p[:, 1:] * turn[1] + center for p in shape]


def mask(shape: Shape, height: int, width: int, blur: float = 0.0) -> tuple[Image.Image, int, int] | None:
    """Draw the soft mask of a placed shape in a (height, width) picture; return it, cropped, with its left and top.

    The mask, mode L, is drawn at twice the size for soft edges, then blurred by `blur` pixels. None if the shape lies
    outside the picture.
    """
    points = np.concatenate(shape)
    margin = 2 + 2 * blur
    left, top = (max(0, int(v - margin)) for v in points.min(0))
    right, bottom = (min(s, int(v + margin) + 1) for s, v in zip((width, height), points.max(0), strict=True))
    if right - left < 2 or bottom - top < 2:
        return None
    image = Image.new("L", (2 * (right - left), 2 * (bottom - top)))
    pen = ImageDraw.Draw(image)
    for polygon in shape:
        pen.polygon(((polygon - (left, top)) * 2).ravel().tolist(), fill=255)
    image = image.reduce(2)
    return (image.filter(ImageFilter.GaussianBlur(float(blur))) if blur > 0 else image), left, top
