"""`stained_glass`: a leaded window of a sun over hills and a river, poppies in front, in a border of small panes."""

import numpy as np
from PIL import Image

from .cells import Panes, leading, voronoi
from .fields import Field, blur, look_up, mix, noise, plane, ramp, smoothstep
from .surface import finish, relief

SIZE = (768, 960)
SCALE = 2
SUN = (0.43, 0.29)

PALETTES = {
    "sun": ((255, 236, 150), (255, 206, 60), (250, 160, 28)),
    "halo": ((255, 190, 40), (246, 120, 24), (226, 62, 30)),
    "sky": (
        (250, 186, 84),
        (244, 140, 96),
        (206, 96, 140),
        (104, 96, 190),
        (40, 110, 206),
        (18, 70, 168),
        (16, 40, 116),
    ),
    "far": ((126, 82, 176), (84, 64, 160), (150, 92, 170), (62, 56, 140)),
    "hill": ((22, 116, 96), (40, 150, 92), (16, 90, 100), (96, 176, 84)),
    "field": ((196, 190, 40), (120, 170, 44), (230, 170, 40), (70, 140, 52)),
    "river": ((30, 110, 190), (70, 170, 214), (150, 214, 224), (24, 80, 170), (250, 190, 90)),
    "meadow": ((20, 84, 44), (36, 120, 50), (14, 66, 60), (70, 146, 46)),
    "poppy": ((226, 30, 34), (190, 16, 40), (246, 78, 36), (214, 24, 80)),
    "heart": ((50, 20, 60), (90, 30, 90)),
    "border": ((150, 20, 44), (24, 56, 150), (216, 150, 30), (16, 100, 90), (96, 30, 110)),
}
POPPIES = ((0.17, 0.80, 0.085), (0.36, 0.885, 0.075), (0.60, 0.845, 0.088), (0.08, 0.93, 0.06), (0.735, 0.92, 0.06),
           (0.49, 0.955, 0.05))  # fmt: skip


def _design(rng: np.random.Generator, u: Field, v: Field) -> tuple[Field, list[str]]:
    """Return a label per pixel, the same within a pane, and the region's name for each block of 10**8 labels."""
    warp = 0.016 * (noise(rng, u.shape, 260, 2) - 0.5)
    x, y = u + warp, v + 0.016 * (noise(rng, u.shape, 260, 2) - 0.5)
    r, turn = np.hypot(x - SUN[0], y - SUN[1]), np.arctan2(y - SUN[1], x - SUN[0])
    swirl = turn + 0.9 * np.log(r + 0.08)
    names: list[str] = []
    label = np.zeros(u.shape, np.int64)

    def fill(name: str, where: Field, cells: Field) -> None:
        nonlocal label
        label = np.where(where, len(names) * 10**8 + cells, label)
        names.append(name)

    fill("sky", np.ones(u.shape, bool), voronoi(rng, swirl * 30 / (2 * np.pi), 7.4 * np.log(r + 0.05), 0.60))
    rings = np.floor((r - 0.115) / 0.042).astype(np.int64)
    fill("halo", r < 0.199, rings * 64 + np.floor(turn * 24 / (2 * np.pi) + 0.5 * rings).astype(np.int64))
    fill("sun", r < 0.115, voronoi(rng, 19 * x, 19 * y, 0.85))
    far = 0.475 - 0.07 * np.abs(np.sin(8.4 * x + 0.6)) - 0.05 * np.sin(3.1 * x)
    fill("far", y > far, voronoi(rng, 17 * (x + 0.6 * (y - far)), 21 * (y - far), 0.9))
    hill = 0.535 + 0.055 * np.sin(6.2 * x + 2.4)
    fill("hill", y > hill, voronoi(rng, 14 * (x - 0.5 * (y - hill)), 26 * (y - hill), 0.8))
    field = 0.635 + 0.045 * np.sin(5.0 * x + 0.2)
    fill("field", y > field, voronoi(rng, 12 * (x - 0.6 * (y - field)), 30 * (y - field), 0.7))
    depth = np.clip((y - 0.50) / 0.5, 0.0, 1.0)
    bank = 0.46 + 0.15 * np.sin(9.0 * depth**0.75 + 0.3) * (0.35 + depth)
    wide = 0.022 + 0.13 * depth**1.1
    fill("river", (np.abs(x - bank) < wide) & (y > 0.515),
         voronoi(rng, 0.95 * (x - bank) / wide, 19 * depth**0.8, 0.9))  # fmt: skip
    meadow = 0.80 - 0.05 * np.sin(4.2 * x + 1.9)
    fill("meadow", y > meadow, voronoi(rng, 21 * (x + 0.25 * np.sin(9 * y)), 9 * y, 0.9))
    for cu, cv, radius in POPPIES:
        pr, pt = np.hypot(x - cu, (y - cv) * 1.12) / radius, np.arctan2(y - cv, x - cu)
        petals = 6
        edge = 0.86 + 0.14 * np.cos(petals * pt + 1.0)
        outer = pr > 0.60
        petal = np.floor((pt + 1.0 / petals) * petals / (2 * np.pi) + 0.5 * outer).astype(np.int64)
        fill("poppy", pr < edge, 64 * outer + petal + 8)
        fill("heart", pr < 0.24, np.zeros_like(label))
    inset = np.minimum(np.minimum(u, u.max() - u), np.minimum(v, v.max() - v))
    side = np.stack([u, u.max() - u, v, v.max() - v])
    nearest = side.argmin(axis=0)
    along = np.where(nearest < 2, v, u)
    fill("border", inset < 0.036, np.floor((along - 0.036) * 17.3).astype(np.int64) + 1000 * (nearest + 1))
    corner = np.maximum(side[:2].min(axis=0), side[2:].min(axis=0)) < 0.036
    fill("poppy", corner, 2 * (u > 0.4) + (v > 0.5))
    return label, names


def stained_glass(rng: np.random.Generator) -> Image.Image:
    shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    u, v = plane(shape)
    label, names = _design(rng, u, v)
    panes = Panes.of(label)
    owner = look_up(label, panes.center[:, 0], panes.center[:, 1]) // 10**8
    # The center of a crescent may lie outside it, so read each pane's region from the labels.
    owner[panes.index.reshape(-1)] = label.reshape(-1) // 10**8

    color = np.zeros((panes.count, 3), np.float32)
    away = np.hypot(panes.center[:, 0] / shape[0] - SUN[0], panes.center[:, 1] / shape[0] - SUN[1])
    for region, name in enumerate(names):
        indices = np.flatnonzero(owner == region)
        tone = rng.random(len(indices))
        if name == "sky":
            tone = np.clip((away[indices] - 0.18) / 0.42 + rng.normal(0.0, 0.12, len(indices)), 0.0, 1.0)
        color[indices] = ramp(PALETTES[name], tone) ** rng.uniform(0.75, 1.35, (len(indices), 1))
    color += rng.normal(0.0, 0.025, color.shape)

    # Within a pane: light from one side, and the streaks of hand-blown glass.
    slope = panes.slope(rng.uniform(0.0, 2 * np.pi, panes.count))
    bend = 90 * (noise(rng, shape, 170, 3) - 0.5)
    row, column = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    streak = noise(rng, shape, (26, 150), 4)
    streak = look_up(streak, column + bend, row + 1.6 * bend) - 0.5
    cloud = noise(rng, shape, 70, 3) - 0.5
    light = 1.0 + 0.26 * slope + 0.85 * streak + 0.35 * cloud
    glass = np.clip(color, 0.02, 1.0)[panes.index]
    # Thick glass is more saturated, not grayer, so raise it to a power instead of scaling it; red fades least.
    glass = glass ** (np.clip(2.0 - light, 0.45, 2.4)[..., None] * np.asarray((0.78, 1.06, 1.0), np.float32))

    lead, bulge = leading(label, 8.0)
    shade = blur(lead, 14)
    glass *= (1.12 - 0.95 * shade)[..., None]
    hammered = 3.2 * noise(rng, shape, 16, 2) + 4.0 * streak
    glass = relief(glass, hammered, 0.55, gloss=0.35)
    metal = np.asarray((0.085, 0.085, 0.10), np.float32) * (1.0 + 0.7 * (noise(rng, shape, 10, 3) - 0.5))[..., None]
    metal = relief(metal + 0.05, 9.0 * bulge, 0.7, gloss=0.35)
    window = mix(glass, metal, lead)
    glow = blur(np.clip(window - 0.35, 0.0, 1.0), 26)
    vignette = 1.06 - 0.25 * smoothstep(0.35, 0.75, np.hypot(u - 0.4, v - 0.45))
    return finish((window + 0.22 * glow) * vignette[..., None], SIZE)
