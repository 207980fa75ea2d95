"""Surfaces and light: relief, canvas weave, paper, and the finished picture."""

import numpy as np
from PIL import Image, ImageDraw

from .fields import Field, Shape, blur, noise


def relief(color: Field, thickness: Field, depth: float, gloss: float = 0.12) -> Field:
    """Light `color` from the upper left: ridges are bright on that side and shaded on the other."""
    smooth = blur(thickness, 1)
    dy, dx = np.gradient(smooth)
    # A surface that rises away from the light faces it.
    slope = np.clip((dx * 0.6 + dy * 0.8) * depth, -1.0, 1.0)
    lit = color * (1.0 + 0.42 * slope)[..., None]
    return lit + gloss * np.clip(slope - 0.35, 0.0, 1.0)[..., None]


def weave(shape: Shape, pitch: float) -> Field:
    """Return the threads of a plain-woven canvas, about 0 on average."""
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) * np.float32(np.pi / pitch)
    over = np.sin(u) * np.sin(v) > 0
    return np.where(over, np.abs(np.sin(u)), np.abs(np.sin(v))).astype(np.float32) - 0.64


def paper(rng: np.random.Generator, shape: Shape) -> Field:
    """Return paper tooth with long fibers in all directions, about 0 on average, mostly in [-1, 1]."""
    tooth = noise(rng, shape, 7, 3) - 0.5
    image = Image.new("L", (shape[1], shape[0]), 128)
    draw = ImageDraw.Draw(image)
    count = shape[0] * shape[1] // 700
    middle = rng.random((count, 2)) * (shape[1], shape[0])
    angle, bend, length = rng.uniform(0, np.pi, count), rng.normal(0, 0.5, count), rng.uniform(14, 70, count)
    tone = rng.integers(96, 162, count)
    for k in range(count):
        turn = angle[k] + bend[k] * np.linspace(-1.0, 1.0, 6)
        path = middle[k] + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=-1), axis=0) * length[k] / 6
        draw.line([tuple(p) for p in path], fill=int(tone[k]), width=2)
    fibers = np.asarray(image, np.float32) / 128.0 - 1.0
    return 1.1 * tooth + 1.5 * blur(fibers, 1)


def finish(color: Field, size: tuple[int, int]) -> Image.Image:
    """Return the picture, reduced from the size at which it was painted to `size`, (width, height)."""
    pixels = (np.clip(color, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
