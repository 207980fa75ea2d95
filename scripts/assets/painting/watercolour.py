"""`watercolour`: garden flowers in transparent washes, with wet edges, granulation, blooms and spatter."""

import numpy as np
from PIL import Image, ImageDraw

from .fields import Field, Shape, blur, look_up, noise, resize, smoothstep, spline
from .surface import finish, paper

SIZE = (800, 960)
SCALE = 2

# Pigments as the transmittance of a full wash; a thinner wash is a power of it.
ROSE, CORAL, CRIMSON = (0.87, 0.30, 0.46), (0.96, 0.44, 0.34), (0.66, 0.10, 0.25)
VIOLET, BLUE, COBALT = (0.46, 0.30, 0.66), (0.26, 0.42, 0.76), (0.12, 0.25, 0.60)
GOLD, PEACH = (0.98, 0.74, 0.20), (0.99, 0.68, 0.48)
SAP, OLIVE, TEAL, SHADOW = (0.36, 0.56, 0.20), (0.56, 0.58, 0.20), (0.12, 0.46, 0.47), (0.13, 0.22, 0.32)
GREENS = (SAP, OLIVE, TEAL, (0.20, 0.42, 0.24))

# The flowers: u, v, radius, pigments.
PLACES = (
    (0.27, 0.27, 0.170, (ROSE, CORAL, CRIMSON)),
    (0.60, 0.20, 0.135, (BLUE, VIOLET, COBALT)),
    (0.57, 0.49, 0.180, (CORAL, PEACH, CRIMSON)),
    (0.19, 0.56, 0.140, (VIOLET, BLUE, COBALT)),
    (0.76, 0.36, 0.095, (GOLD, PEACH, CORAL)),
    (0.40, 0.735, 0.130, (ROSE, VIOLET, CRIMSON)),
    (0.71, 0.74, 0.120, (BLUE, COBALT, VIOLET)),
    (0.10, 0.80, 0.095, (GOLD, CORAL, CRIMSON)),
    (0.07, 0.11, 0.085, (BLUE, VIOLET, COBALT)),
    (0.44, 0.055, 0.075, (PEACH, ROSE, CRIMSON)),
    (0.80, 0.075, 0.070, (ROSE, CORAL, CRIMSON)),
)

Patch = tuple[Field, tuple[float, float, float], float]


def _wash(picture: Field, rng: np.random.Generator, patches: list[Patch], tooth: Field, wet: float = 9.0) -> None:
    """Glaze the picture, in place, with one pass of wet patches (outline, pigment, strength).

    Outlines waver. Pigment collects at the rims and in the pits of the paper, and backruns push it aside.
    """
    shape = tooth.shape
    image = Image.new("I", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    for number, (outline, _, _) in enumerate(patches, 1):
        draw.polygon([tuple(p) for p in np.asarray(outline) * shape[0]], fill=number)
    row, column = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    shake = [wet * 3.2 * (noise(rng, shape, 46, 4) - 0.5) for _ in range(2)]
    index = look_up(np.asarray(image), column + shake[0], row + shake[1])
    covered = (index > 0).astype(np.float32)
    strength = np.asarray([0.0, *(s for _, _, s in patches)], np.float32)[index]
    pigment = np.asarray([(1.0, 1.0, 1.0), *(p for _, p, _ in patches)], np.float32)[index]

    # The rims of patches, also where two patches meet.
    edge = np.zeros(shape, np.float32)
    edge[:, 1:] += index[:, 1:] != index[:, :-1]
    edge[1:] += index[1:] != index[:-1]
    rim = np.clip(blur(np.minimum(edge, 1.0), 3) * 7.0, 0.0, 1.0)
    pool = noise(rng, shape, 110, 4) - 0.5
    level = noise(rng, shape, 150, 3)
    backrun = smoothstep(0.05, 0.0, np.abs(level - 0.62)) * 0.45 - 0.35 * smoothstep(0.62, 0.70, level)
    load = strength * np.clip(0.80 + 1.25 * pool + 0.75 * rim + backrun - 0.36 * tooth, 0.12, 2.4)
    soft = blur(covered, 1)
    # Adjacent pigments bleed into each other while wet; this is smooth, so half size is enough.
    creep = blur(np.log(pigment[::2, ::2]), wet / 2)
    creep = np.stack([resize(creep[..., c], shape) for c in range(3)], axis=-1)
    picture *= np.exp(creep * (load * soft)[..., None])


def _petal(
    x: float, y: float, angle: float, length: float, width: float, frill: float, rng: np.random.Generator
) -> Field:
    t = np.linspace(0.0, 1.0, 30)
    waves = np.interp(t, np.linspace(0, 1, 9), rng.normal(0, 1, 9))
    half = width * np.sin(np.pi * t**0.72) ** 0.75 * (1 + frill * waves)
    bend = rng.normal(0.0, 0.10) * length * t**2
    along = np.concatenate([t, t[::-1]]) * length
    aside = np.concatenate([half + bend, (bend - half)[::-1]])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + cos * along - sin * aside, y + sin * along + cos * aside], axis=-1)


def _stem(points: list[tuple[float, float]], width: float) -> Field:
    path = spline(points, 40)
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=-1) / np.hypot(*along.T)[:, None]
    side = across * width * np.linspace(1.0, 0.5, 40)[:, None]
    return np.concatenate([path + side, (path - side)[::-1]])


def _blob(rng: np.random.Generator, x: float, y: float, r: float) -> Field:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = r * (1 + 0.16 * np.sin(3 * t + rng.uniform(0, 6)) + 0.10 * np.sin(5 * t + rng.uniform(0, 6)))
    return np.stack([x + reach * np.cos(t), y + reach * np.sin(t)], axis=-1)


def _flower(rng: np.random.Generator, x: float, y: float, r: float, pigments: tuple) -> tuple[list[Patch], ...]:
    """Return the patches of three passes: outer petals, inner petals, and the center with its veins."""
    turn, petals = rng.uniform(0, 6), int(rng.integers(6, 9))
    outer, inner, heart = [], [], []
    for k in range(petals):
        angle = turn + 2 * np.pi * k / petals + rng.normal(0, 0.10)
        pigment = pigments[int(rng.integers(len(pigments)))]
        outer.append(
            (_petal(x, y, angle, r * rng.uniform(0.85, 1.1), 0.36 * r, 0.06, rng), pigment, rng.uniform(0.45, 0.85))
        )
        inner.append(
            (
                _petal(x, y, angle + np.pi / petals, r * rng.uniform(0.5, 0.72), 0.22 * r, 0.08, rng),
                pigment,
                rng.uniform(0.5, 0.9),
            )
        )
        for _ in range(3):
            vein = angle + rng.normal(0, 0.16)
            root = 0.2 * r
            at = x + root * np.cos(vein), y + root * np.sin(vein)
            line = _petal(*at, vein, r * rng.uniform(0.3, 0.6), 0.016 * r, 0.0, rng)
            heart.append((line, pigments[-1], 0.8))
    heart.append((_blob(rng, x, y, 0.19 * r), GOLD, 1.4))
    for _ in range(16):
        a, d = rng.uniform(0, 2 * np.pi), r * rng.uniform(0.08, 0.30)
        heart.append((_blob(rng, x + d * np.cos(a), y + d * np.sin(a), 0.026 * r), SHADOW, 1.2))
    return outer, inner, heart


def watercolour(rng: np.random.Generator) -> Image.Image:
    shape: Shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    picture = np.broadcast_to(np.asarray((0.975, 0.962, 0.925), np.float32), (*shape, 3)).copy()
    tooth = paper(rng, shape)
    wide = SIZE[0] / SIZE[1]

    # The ground, wet-in-wet: warm light above, greens and blues below.
    grounds = (
        (9, (PEACH, GOLD, ROSE), (-0.1, 0.55), 0.22, 0.40),
        (10, (BLUE, VIOLET, TEAL), (0.0, 0.7), 0.17, 0.42),
        (16, GREENS, (0.40, 1.1), 0.17, 0.75),
    )
    for count, pigments, level, size, strength in grounds:
        ground: list[Patch] = []
        for _ in range(count):
            spot = _blob(rng, rng.uniform(-0.1, wide + 0.1), rng.uniform(*level), size * rng.uniform(0.6, 1.3))
            ground.append((spot, pigments[int(rng.integers(len(pigments)))], strength))
        _wash(picture, rng, ground, tooth, 34.0)

    stems: list[Patch] = []
    for k, (x, y, _, _) in enumerate(PLACES):
        path = [(x, y), (x + rng.normal(0, 0.03), y + 0.22), (0.42 + 0.5 * (x - 0.42), 1.05)]
        stems.append((_stem(path, 0.0055), GREENS[k % 4], 1.2))
    for passes, number, size, strength in ((2, 26, 0.17, 0.60), (2, 44, 0.11, 0.80)):
        for _ in range(passes):
            leaves = []
            for _ in range(number):
                x, y = rng.uniform(-0.05, wide + 0.05), 1.08 - abs(rng.normal(0.0, 0.55))
                angle = -np.pi / 2 + rng.normal(0.0, 0.9)
                leaves.append((_petal(x, y, angle, size * rng.uniform(0.6, 1.4), size * rng.uniform(0.13, 0.24), 0.04,
                                      rng),
                               GREENS[int(rng.integers(4))], strength * rng.uniform(0.6, 1.2)))  # fmt: skip
            _wash(picture, rng, leaves, tooth)
    _wash(picture, rng, stems, tooth, 4.0)

    blooms = [_flower(rng, *place) for place in PLACES]
    # Petals hide the leaves behind them, so lift the color there first, as a damp brush does.
    image = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    for outline, _, _ in (patch for bloom in blooms for patch in bloom[0]):
        draw.polygon([tuple(p) for p in outline * shape[0]], fill=1)
    lifted = blur(np.asarray(image, np.float32), 7)
    picture += (np.asarray((0.975, 0.955, 0.915), np.float32) - picture) * (0.90 * lifted)[..., None]
    for layer, wet in ((0, 9.0), (1, 7.0), (2, 3.0)):
        _wash(picture, rng, [patch for bloom in blooms for patch in bloom[layer]], tooth, wet)

    spatter = [(_blob(rng, rng.uniform(0, wide), rng.uniform(0, 1), 0.0012 + 0.006 * rng.random() ** 3),
                (ROSE, BLUE, GOLD, SAP, VIOLET)[k % 5], rng.uniform(0.5, 1.2)) for k in range(260)]  # fmt: skip
    _wash(picture, rng, spatter, tooth, 2.0)
    return finish(picture * (1.0 + 0.05 * tooth)[..., None], SIZE)
