"""`pointillism`: a river in late sun, in dots of unmixed pigment that only the eye blends."""

import numpy as np
from PIL import Image

from .fields import Field, blur, look_up, mix, noise, plane, ramp, resize, smoothstep
from .strokes import Canvas, lay, scatter, straight
from .surface import finish, relief, weave

SIZE = (960, 720)
SCALE = 2
HORIZON = 0.44
SUN = (0.90, 0.235)

PIGMENTS = np.asarray((
    (250, 244, 222), (255, 232, 150), (254, 208, 70), (248, 160, 44), (236, 104, 48), (214, 54, 50), (160, 36, 62),
    (246, 178, 158), (232, 130, 150), (176, 100, 160), (112, 74, 150), (66, 54, 128), (38, 58, 140), (46, 100, 186),
    (96, 158, 214), (164, 206, 230), (60, 160, 170), (28, 110, 104), (30, 90, 62), (70, 140, 64), (140, 184, 70),
    (204, 212, 96), (120, 80, 54), (52, 40, 66), (212, 190, 214),
), np.float32) / 255.0  # fmt: skip


def _trees(rng: np.random.Generator, u: Field, v: Field, clumps: tuple) -> tuple[Field, Field]:
    """Return the mask of foliage made of ragged discs (u, v, radius), and how much sun falls on it."""
    ragged = noise(rng, u.shape, 60, 4) - 0.5
    mass, light = np.zeros(u.shape, np.float32), np.zeros(u.shape, np.float32)
    for cu, cv, radius in clumps:
        du, dv = (u - cu) / radius, (v - cv) / radius
        here = smoothstep(1.04, 0.96, np.hypot(du, dv) + 0.75 * ragged)
        lit = np.clip(0.5 + 0.42 * (du - dv) + 0.9 * ragged, 0.0, 1.0)
        light = light + (lit - light) * here
        mass = np.maximum(mass, here)
    return mass, light


def _scene(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Draw the scene in smooth color, before it is split into dots."""
    shape = u.shape
    sky = ramp(((82, 138, 208), (132, 178, 222), (190, 204, 226), (236, 178, 176), (246, 186, 120)), v / HORIZON)
    cloud = smoothstep(0.52, 0.74, noise(rng, shape, (90, 330), 4) + 0.10 * np.sin(16 * v + 3 * u))
    sky = mix(sky, ramp(((224, 150, 172), (252, 214, 190), (255, 244, 214)), 1.2 - v / HORIZON), 0.8 * cloud)
    away = np.hypot(u - SUN[0], v - SUN[1])
    sky = mix(sky, (1.0, 0.76, 0.34), 0.90 * np.exp(-away / 0.13))
    scene = mix(sky, (1.0, 0.97, 0.78), smoothstep(0.070, 0.064, away))

    hills = HORIZON - 0.07 - 0.035 * np.sin(4.6 * u + 0.8) - 0.018 * np.sin(11 * u)
    scene = mix(
        scene, ramp(((96, 92, 168), (150, 124, 180), (220, 150, 160)), u / 1.33), smoothstep(-0.002, 0.003, v - hills)
    )
    clumps = [
        (x, HORIZON - 0.015 - 0.012 * np.sin(40 * x), 0.028 + 0.012 * np.sin(57 * x))
        for x in np.arange(0.0, 1.36, 0.032)
    ]
    clumps += [(0.71 + 0.001 * k, HORIZON - 0.03 - 0.027 * k, 0.026 - 0.0022 * k) for k in range(7)]
    clumps += [(0.765 + 0.001 * k, HORIZON - 0.03 - 0.024 * k, 0.023 - 0.002 * k) for k in range(7)]
    clumps += [(1.235 + 0.001 * k, HORIZON - 0.03 - 0.030 * k, 0.030 - 0.0024 * k) for k in range(8)]
    mass, light = _trees(rng, u, v, tuple(clumps))
    scene = mix(scene, ramp(((38, 52, 110), (34, 100, 96), (110, 156, 70), (222, 198, 90)), light), mass)
    # A few houses on the far bank, with sunlit walls and red roofs.
    for x, w, h in ((0.545, 0.05, 0.035), (0.605, 0.035, 0.028), (0.655, 0.04, 0.032), (0.985, 0.05, 0.034)):
        wall = (np.abs(u - x) < w / 2) & (v > HORIZON - h) & (v < HORIZON)
        over = HORIZON - h - v
        roof = (np.abs(u - x) < w / 2 + 0.004 - 0.7 * over) & (over >= 0) & (over < 0.026)
        scene = mix(scene, (0.97, 0.86, 0.72), wall.astype(np.float32))
        scene = mix(scene, (0.80, 0.28, 0.20), roof.astype(np.float32))

    # Sails, drawn before the water so that it reflects them.
    for x, tall in ((0.415, 0.19), (0.86, 0.12), (1.09, 0.155)):
        rise = (HORIZON + 0.012 - v) / tall
        left, right = x - (1 - rise) * tall / 3, x + 0.30 * tall * np.clip(1 - rise, 0, 1) ** 0.8
        inside = (rise > 0.06) & (rise < 1) & (u > left) & (u < right)
        shade = ramp(((244, 190, 150), (255, 240, 206), (250, 250, 240)), 0.5 + (u - x) / (0.5 * tall))
        scene = mix(scene, shade, inside.astype(np.float32))
        afloat = np.abs(v - HORIZON - 0.004)
        hull = (np.abs(u - x - 0.05 * tall) < 0.36 * tall - 0.6 * afloat) & (afloat < 0.011)
        scene = mix(scene, (0.42, 0.16, 0.22), hull.astype(np.float32))

    depth = np.clip(v - HORIZON, 0.0, 1.0)
    wobble = (noise(rng, shape, (14, 120), 3) - 0.5) * (0.03 + 0.25 * depth)
    mirror = look_up(scene, (u + wobble) * shape[0], (HORIZON - 0.95 * depth + 0.2 * wobble) * shape[0])
    water = mix(
        mirror,
        ramp(((120, 160, 206), (54, 110, 176), (34, 74, 146)), depth / 0.5),
        0.22 + 0.45 * smoothstep(0.0, 0.5, depth),
    )
    ripple = noise(rng, shape, (9, 110), 3)
    glitter = np.exp(-(((u - SUN[0]) / (0.035 + 0.22 * depth)) ** 2)) * smoothstep(0.42, 0.62, ripple)
    water = mix(water, (1.0, 0.82, 0.42), 0.9 * glitter)
    water = mix(water, (0.80, 0.62, 0.78), 0.45 * smoothstep(0.56, 0.72, ripple))
    scene = mix(scene, water, smoothstep(0.0, 0.004, v - HORIZON))

    # The near bank, with the shadow of the tree on it.
    bank = 0.99 - 0.36 * smoothstep(1.10, 0.0, u) - 0.02 * np.sin(9 * u) + 0.05 * (noise(rng, shape, 90, 3) - 0.5)
    grass = noise(rng, shape, (70, 24), 3)
    ground = ramp(((40, 96, 70), (96, 158, 64), (190, 200, 80), (246, 220, 110)), 0.15 + 0.75 * grass)
    shadow = smoothstep(0.42, 0.54, noise(rng, shape, (50, 130), 3) + 0.9 * (0.42 - u) - 0.4 * np.abs(v - 0.82))
    ground = mix(ground, ramp(((46, 44, 112), (40, 92, 110), (80, 120, 110)), grass), 0.9 * shadow)
    flowers = noise(rng, shape, 16, 2)
    ground = mix(ground, (0.90, 0.26, 0.28), smoothstep(0.80, 0.86, flowers))
    ground = mix(ground, (0.98, 0.94, 0.90), smoothstep(0.13, 0.08, flowers))
    on_bank = smoothstep(0.0, 0.008, v - bank)
    scene = mix(scene, (0.16, 0.22, 0.36), smoothstep(-0.03, 0.0, v - bank) * 0.7)
    scene = mix(scene, ground, on_bank)

    trunk = np.abs(u - (0.155 + 0.05 * np.sin(4.2 * v + 0.6))) / (0.024 + 0.022 * smoothstep(0.60, 0.86, v))
    bark = ramp(
        ((238, 150, 90), (150, 84, 80), (74, 52, 96), (52, 40, 80)),
        0.5 - 0.45 * (u - 0.16) / 0.03 + 0.8 * smoothstep(0.44, 0.34, v) + 0.5 * smoothstep(0.72, 0.82, v),
    )
    scene = mix(scene, bark, smoothstep(1.1, 0.9, trunk) * (v > 0.2) * smoothstep(0.87, 0.80, v))
    crown = (
        (0.02, 0.06, 0.15), (0.20, 0.03, 0.14), (0.36, 0.05, 0.10), (0.10, 0.20, 0.13), (0.27, 0.17, 0.11),
        (0.43, 0.13, 0.055), (-0.02, 0.31, 0.09), (0.17, 0.28, 0.075), (0.33, 0.25, 0.05), (0.02, 0.42, 0.045),
    )  # fmt: skip
    mass, light = _trees(rng, u, v, crown)
    leaves = ramp(((40, 36, 106), (24, 84, 92), (50, 130, 70), (150, 184, 66), (248, 214, 90)), light)
    return mix(scene, leaves, mass)


def _form(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Return the angle of the dots: level on the water, around the sun in the sky, random on the near bank."""
    round_sun = np.arctan2(v - SUN[1], u - SUN[0]) + np.pi / 2
    loose = 2.5 * np.pi * (noise(rng, u.shape, 120, 2) - 0.5)
    land = np.where(v < HORIZON, round_sun, 0.0)
    return land + loose * np.where(v < HORIZON, 0.12, np.where(v > 0.99 - 0.36 * smoothstep(1.1, 0.0, u), 1.0, 0.05))


def _pigment(rng: np.random.Generator, color: Field, spread: float) -> Field:
    """Return the pigment nearest to the color after a random shift; sometimes to its complement, for contrast."""
    push = rng.normal(0.0, spread, color.shape) + rng.normal(0.0, spread / 2, (len(color), 1))
    gray = color.mean(axis=1, keepdims=True)
    vivid = gray + 1.35 * (color - gray)
    opposite = rng.random(len(color)) < 0.10
    vivid[opposite] = (gray - 0.9 * (color - gray))[opposite]
    distance = (((vivid + push)[:, None] - PIGMENTS) ** 2).sum(axis=2)
    return PIGMENTS[distance.argmin(axis=1)] + rng.normal(0.0, 0.015, color.shape)


def pointillism(rng: np.random.Generator) -> Image.Image:
    shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    half = (shape[0] // 2, shape[1] // 2)
    small = _scene(rng, *plane(half))
    # Sharpen, so that forms stand out from the ground with light edges against dark (irradiation).
    small = np.clip(small + 0.7 * (small - blur(small, 12)), 0.0, 1.0)
    scene = np.stack([resize(small[..., c], shape) for c in range(3)], axis=-1)
    angle = _form(rng, *plane(shape))
    canvas = Canvas.primed(shape, (214, 198, 160))
    everywhere = np.ones(shape, np.float32)
    # The finest dots go where there is detail.
    detail = 0.25 + 6.0 * resize(blur(np.abs(small - blur(small, 5)).sum(axis=-1), 3), shape)
    for count, size, spread in ((12000, 30.0, 0.07), (26000, 19.0, 0.13), (34000, 13.5, 0.15), (42000, 9.5, 0.11)):
        start = scatter(rng, count, detail if size < 10 else everywhere)
        color = _pigment(rng, look_up(scene, *start.T), spread)
        width = size * rng.uniform(0.8, 1.15, len(start))
        paths = straight(start, width * rng.uniform(1.0, 1.5, len(start)), look_up(angle, *start.T), knots=3)
        lay(canvas, rng, paths, width, color, load=0.8, streak=0.22, blunt=2.2, opacity=0.97)
    return finish(relief(canvas.color, canvas.thickness + 0.4 * weave(shape, 5.0), 0.40), SIZE)
