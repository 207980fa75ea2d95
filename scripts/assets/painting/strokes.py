"""Bristle brush strokes: their paths, and painting thousands of them on a canvas at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .fields import Field, Shape, look_up

SPACING = 0.7  # pixels between two samples of a stroke; below 0.71 a rotated lattice leaves no holes
SAMPLES_AT_ONCE = 1_500_000


@dataclass
class Canvas:
    """Paint on a surface: its color (H, W, 3) and its thickness (H, W), which `relief` lights later."""

    color: Field
    thickness: Field

    @classmethod
    def primed(cls, shape: Shape, color: Sequence[float]) -> "Canvas":
        ground = np.asarray(color, np.float32) / 255.0
        return cls(np.broadcast_to(ground, (*shape, 3)).copy(), np.zeros(shape, np.float32))

    @property
    def shape(self) -> Shape:
        return self.thickness.shape


def trace(start: Field, length: Field, direction: Field, knots: int = 9, centered: bool = True) -> Field:
    """Return paths (n, knots, 2) in pixels along a direction field, through `start` if `centered`, else from it."""
    half = knots // 2 if centered else 0
    step = (length / (knots - 1))[:, None].astype(np.float32)
    path = np.empty((len(start), knots, 2), np.float32)
    path[:, half] = start
    for sign, order in ((1.0, range(half + 1, knots)), (-1.0, range(half - 1, -1, -1))):
        point = path[:, half].copy()
        for k in order:
            point = point + sign * step * look_up(direction, point[:, 0], point[:, 1])
            path[:, k] = point
    return path


def straight(start: Field, length: Field, angle: Field, bend: Field | float = 0.0, knots: int = 5) -> Field:
    """Return paths (n, knots, 2) centered on `start` at an angle; `bend` is their turn end to end, in radians."""
    t = np.linspace(-0.5, 0.5, knots, dtype=np.float32)
    turn = np.asarray(angle)[:, None] + np.asarray(bend).reshape(-1, 1) * t
    step = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * (np.asarray(length) / (knots - 1))[:, None, None]
    path = np.cumsum(step, axis=1)
    return (start[:, None] + path - path.mean(axis=1, keepdims=True)).astype(np.float32)


def scatter(rng: np.random.Generator, count: int, density: Field) -> Field:
    """Draw random points (n, 2) on the canvas, each kept with the probability that `density` has there."""
    height, width = density.shape
    points = rng.random((count, 2), dtype=np.float32) * np.asarray([width, height], np.float32)
    return points[rng.random(count) < look_up(density, points[:, 0], points[:, 1])]


def _hat(count: int, knots: int) -> Field:
    """Return the weights (count, knots) of linear interpolation between evenly spaced knots."""
    at = np.linspace(0.0, knots - 1.0, count, dtype=np.float32)[:, None]
    return np.clip(1.0 - np.abs(at - np.arange(knots, dtype=np.float32)), 0.0, None)


def lay(
    canvas: Canvas,
    rng: np.random.Generator,
    paths: Field,
    width: Field,
    color: Field,
    *,
    load: float = 1.0,
    dryness: float = 0.0,
    streak: float = 0.25,
    opacity: float = 0.95,
    blunt: float = 6.0,
    within: tuple[Field, Field] | None = None,
) -> None:
    """Paint strokes in order, later ones over earlier ones.

    Each stroke is a ribbon sampled more finely than the pixels. Its bristles make streaks of color, ridges of thickness
    and, with `dryness`, gaps toward its end. `load` is how much paint the brush carries; `blunt` is how square the ends
    are (2 makes an ellipse). `within` holds a label per pixel and one per stroke, and limits a stroke to its label.
    """
    rows, columns = canvas.shape
    flat_color, flat_thickness = canvas.color.reshape(-1, 3), canvas.thickness.reshape(-1)
    length = np.hypot(*np.moveaxis(np.diff(paths, axis=1), 2, 0)).sum(axis=1)
    per_stroke = (length.max() / SPACING + 3) * (width.max() / SPACING + 3)
    chunk_size = max(1, int(SAMPLES_AT_ONCE / per_stroke))
    for first in range(0, len(paths), chunk_size):
        chunk = slice(first, first + chunk_size)
        path, broad = paths[chunk], width[chunk].astype(np.float32)
        along = int(length[chunk].max() / SPACING) + 3
        across = int(broad.max() / SPACING) + 3
        s = np.linspace(0.0, 1.0, along, dtype=np.float32)
        t = np.linspace(-1.0, 1.0, across, dtype=np.float32)
        center = _hat(along, path.shape[1]) @ path
        tangent = np.gradient(center, axis=1)
        tangent /= np.maximum(np.hypot(tangent[..., 0], tangent[..., 1]), 1e-6)[..., None]
        profile = np.sqrt(np.clip(1.0 - np.abs(2.0 * s - 1.0) ** blunt, 0.0, 1.0))
        half = 0.5 * broad[:, None] * profile
        reach = half[:, :, None] * t
        x = np.rint(center[..., 0, None] - tangent[..., 1, None] * reach).astype(np.int32)
        y = np.rint(center[..., 1, None] + tangent[..., 0, None] * reach).astype(np.int32)

        hairs = int(np.clip(broad.mean() / 2.2, 4, 24))
        coarse = rng.random((len(path), 6, hairs), dtype=np.float32)
        hair = _hat(along, 6) @ coarse @ _hat(across, hairs).T
        weight = opacity * np.clip((1.0 - np.abs(t)) * half[:, :, None] / 1.3, 0.0, 1.0)
        if dryness:
            gap = dryness * (0.35 + 0.65 * s)[None, :, None]
            weight *= np.clip((hair - gap) * 6.0, 0.0, 1.0)
        # The brush pushes paint to the stroke's sides and leaves more where it lifts.
        body = (0.45 + 0.55 * hair) * (0.75 + 0.4 * np.abs(t) ** 3) * (0.85 + 0.3 * s[:, None])
        keep = (weight > 0.02) & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        if within is not None:
            labels, own = within
            underneath = labels[np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)]
            keep &= underneath == own[chunk][:, None, None]
        stroke = np.broadcast_to(np.arange(len(path))[:, None, None], keep.shape)[keep]
        at, weight, hair = y[keep] * columns + x[keep], weight[keep], hair[keep]
        paint = color[chunk][stroke] * (1.0 + streak * (hair - 0.5))[:, None]
        # A pixel that two samples hit takes the last one, which belongs to the upper stroke.
        flat_color[at] += (paint - flat_color[at]) * weight[:, None]
        flat_thickness[at] += (load * body[keep] * broad[stroke] - flat_thickness[at]) * weight
