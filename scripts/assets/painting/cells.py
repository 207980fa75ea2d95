"""Divide a plane into irregular panes, and find each pane's center, radius and borders for shading."""

from dataclasses import dataclass

import numpy as np

from .fields import Field, Shape, blur


def voronoi(rng: np.random.Generator, x: Field, y: Field, jitter: float = 0.9) -> Field:
    """Return integer labels of the Voronoi cells of a jittered unit lattice, at the given coordinates.

    This is cheap because the nearest seed can only lie in the 3 x 3 squares around a point.
    """
    table = 0.5 + jitter * (rng.random((64, 64, 2), dtype=np.float32) - 0.5)
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    best = np.full(x.shape, np.inf, np.float32)
    label = np.zeros(x.shape, np.int64)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            i, j = row + down, column + right
            seed = table[i % 64, j % 64]
            distance = (j + seed[..., 0] - x) ** 2 + (i + seed[..., 1] - y) ** 2
            nearer = distance < best
            best = np.where(nearer, distance, best)
            label = np.where(nearer, (i + 512) * 4096 + j + 512, label)
    return label


def shards(rng: np.random.Generator, shape: Shape, cuts: int, angles: tuple[float, ...], smallest: float) -> Field:
    """Cut a plane repeatedly by lines and shallow arcs at a few favored angles; return the pieces' labels.

    A piece is not cut further if its radius is below `smallest`, a share of the height.
    """
    # Half size is enough for edges and takes a quarter of the work.
    half = (shape[0] // 2, shape[1] // 2)
    y, x = np.mgrid[0 : half[0], 0 : half[1]].astype(np.float32)
    label = np.zeros(half, np.int64)
    for _ in range(cuts):
        panes = Panes.of(label)
        angle = rng.choice(angles, panes.count) + rng.normal(0.0, 0.10, panes.count)
        offset = rng.normal(0.0, 0.22, panes.count) * panes.radius
        arc = np.where(rng.random(panes.count) < 0.35, rng.normal(0.0, 0.45, panes.count), 0.0) / panes.radius
        dx, dy = x - panes.center[panes.index, 0], y - panes.center[panes.index, 1]
        cos, sin = np.cos(angle)[panes.index], np.sin(angle)[panes.index]
        side = dx * cos + dy * sin + arc[panes.index] * (dy * cos - dx * sin) ** 2 > offset[panes.index]
        label = 2 * panes.index + (side & (panes.radius > smallest * half[0])[panes.index])
    return np.repeat(np.repeat(label, 2, axis=0), 2, axis=1)


def borders(label: Field) -> Field:
    """Return 1 where a pixel's right or lower neighbor is in another cell."""
    edge = np.zeros(label.shape, np.float32)
    edge[:, :-1] += label[:, 1:] != label[:, :-1]
    edge[:-1] += label[1:] != label[:-1]
    return np.minimum(edge, 1.0)


@dataclass
class Panes:
    """Cells numbered 0 to count - 1, with their centers and radii in pixels."""

    index: Field
    center: Field
    radius: Field

    @classmethod
    def of(cls, label: Field) -> "Panes":
        _, index = np.unique(label, return_inverse=True)
        flat = index.reshape(-1)
        area = np.bincount(flat).astype(np.float32)
        rows, columns = np.divmod(np.arange(flat.size), label.shape[1])
        center = np.stack([np.bincount(flat, columns) / area, np.bincount(flat, rows) / area], axis=-1)
        return cls(flat.reshape(label.shape), center.astype(np.float32), np.sqrt(area / np.pi))

    @property
    def count(self) -> int:
        return len(self.radius)

    def slope(self, angle: Field) -> Field:
        """Return a gradient across each pane at its `angle`, from about -1 on one side to 1 on the other."""
        height, width = self.index.shape
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        across = (np.cos(angle) / self.radius).astype(np.float32)[self.index]
        down = (np.sin(angle) / self.radius).astype(np.float32)[self.index]
        middle = self.center[self.index]
        return np.clip((x - middle[..., 0]) * across + (y - middle[..., 1]) * down, -1.6, 1.6)


def leading(label: Field, width: float) -> tuple[Field, Field]:
    """Return antialiased lines of even width along the cells' borders, and their rounded height."""
    near = blur(borders(label), width / 2)
    peak = 1.0 / width
    return np.clip((near / peak - 0.30) / 0.14, 0.0, 1.0), np.sqrt(np.clip(near / peak, 0.0, 1.2))
