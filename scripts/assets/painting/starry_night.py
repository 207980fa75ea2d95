"""`starry_night`: a homage to Vincent van Gogh's The Starry Night (1889), in his palette and brushwork.

This program paints every stroke; it uses no photograph or scan of the painting.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from .fields import Field, flow_noise, look_up, noise, pick, plane, ramp, smoothstep, spline
from .strokes import Canvas, lay, scatter, straight, trace
from .surface import finish, relief, weave

SIZE = (960, 768)
SCALE = 2

NIGHT = (
    (9, 14, 38), (18, 34, 82), (26, 54, 122), (36, 80, 156), (52, 110, 178), (84, 146, 196), (138, 186, 206),
    (190, 216, 208), (236, 238, 198),
)  # fmt: skip
STARLIGHT = ((255, 172, 44), (252, 206, 84), (248, 228, 130), (250, 246, 208), (222, 232, 190), (140, 186, 196))
MOONLIGHT = ((250, 226, 120), (252, 214, 84), (248, 234, 150), (240, 236, 170), (196, 212, 168), (120, 170, 190))
CREAM = ((240, 232, 170), (246, 240, 206), (226, 214, 120), (200, 216, 190))
HILLS = ((10, 16, 46), (20, 36, 88), (32, 62, 124), (50, 96, 156), (92, 142, 178), (150, 186, 186))
GROVES = ((8, 16, 34), (14, 40, 66), (26, 72, 98), (54, 118, 132), (110, 164, 150), (188, 206, 150))
CYPRESS = ((8, 11, 22), (14, 24, 28), (22, 44, 38), (44, 60, 38), (70, 44, 30), (96, 86, 46))

# Vortices: u, v, reach, strength, inward pull.
VORTICES = ((0.630, 0.300, 0.225, 3.6, 0.28), (0.955, 0.490, 0.095, 3.0, 0.32))
# Stars: u, v, radius.
STARS = (
    (0.305, 0.085, 0.062), (0.372, 0.330, 0.038), (0.035, 0.455, 0.045), (0.150, 0.490, 0.050), (0.435, 0.600, 0.092),
    (0.880, 0.160, 0.058), (0.740, 0.035, 0.046), (0.070, 0.155, 0.048), (1.200, 0.395, 0.046), (0.520, 0.040, 0.034),
)  # fmt: skip
FAR_HILL = (0.725, 0.20, 0.4)
MOON = (1.105, 0.150, 0.155)


def _ridge(u: Field, level: float, rise: float, phase: float) -> Field:
    return level - rise * (u / 1.25) ** 2 + 0.030 * np.sin(6.1 * u + phase) + 0.014 * np.sin(14.0 * u + 2 * phase)


def _sky_flow(u: Field, v: Field) -> Field:
    """Return the wind's unit vectors: a long wave across the sky, the vortices, and rings around stars and moon."""
    angle = 0.42 * np.sin(5.2 * u + 1.9 + 1.4 * v) - 0.36 * smoothstep(0.5, 1.2, u) * smoothstep(0.35, 0.7, v)
    x, y = np.cos(angle), np.sin(angle)
    for cu, cv, reach, strength, pull in VORTICES:
        du, dv = u - cu, v - cv
        r = np.hypot(du, dv) + 1e-4
        w = strength * np.exp(-((r / reach) ** 2) * 0.9)
        x += w * (-dv - pull * du) / r
        y += w * (du - pull * dv) / r
    for cu, cv, radius in (*STARS, MOON):
        du, dv = u - cu, v - cv
        r = np.hypot(du, dv) + 1e-4
        w = 9.0 * smoothstep(1.65, 0.9, r / radius)
        x += w * -dv / r
        y += w * du / r
    # The ribbon of dawn follows the hills.
    top = _ridge(u, *FAR_HILL)
    along = np.arctan(np.gradient(top[0]) * u.shape[0])
    w = 7.0 * smoothstep(0.115, 0.03, top - v)
    x += w * np.cos(along)
    y += w * np.sin(along)
    return np.stack([x, y], axis=-1) / np.maximum(np.hypot(x, y), 1e-6)[..., None]


def _sky_tone(rng: np.random.Generator, u: Field, v: Field, flow: Field) -> Field:
    """Return the sky's lightness, about 0 to 1: bands along the wind, pale arms of vortices, glow, dawn's ribbon."""
    tone = 0.08 + 0.58 * flow_noise(rng, flow, 64, 280) + 0.10 * smoothstep(0.1, 0.6, v)
    for cu, cv, reach, _, pull in VORTICES:
        du, dv = u - cu, v - cv
        r = np.hypot(du, dv) / reach
        # The arms are constant along the spirals of the flow.
        arms = np.cos(2.0 * (np.arctan2(dv, du) + np.log(r + 0.02) / pull) + 1.0)
        tone += np.exp(-((r - 0.65) ** 2) * 2.4) * (0.10 + 0.20 * arms)
    for cu, cv, radius in (*STARS, MOON):
        tone += 0.26 * smoothstep(1.8, 0.8, np.hypot(u - cu, v - cv) / radius)
    ribbon = v - (_ridge(u, *FAR_HILL) - 0.060)
    return tone + 0.34 * np.exp(-((ribbon / 0.045) ** 2))


def _paint_sky(canvas: Canvas, rng: np.random.Generator, u: Field, v: Field) -> None:
    flow = _sky_flow(u, v)
    tone = _sky_tone(rng, u, v, flow)
    everywhere = np.ones(canvas.shape, np.float32)
    for count, length, width, spread in ((3000, 120, 26, 0.09), (8000, 94, 16.0, 0.13), (4200, 72, 10.5, 0.17)):
        start = scatter(rng, count, everywhere)
        paths = trace(start, length * rng.uniform(0.6, 1.25, len(start)), flow)
        light = look_up(tone, start[:, 0], start[:, 1])
        color = ramp(NIGHT, light + rng.normal(0.0, spread, len(start)))
        warm = rng.random(len(start)) < smoothstep(0.58, 1.05, light) * 0.75
        color[warm] = pick(rng, CREAM, int(warm.sum()))
        color += rng.normal(0.0, 0.02, color.shape)
        lay(canvas, rng, paths, width * rng.uniform(0.7, 1.25, len(start)), color, dryness=0.3, streak=0.4)


def _paint_light(
    canvas: Canvas, rng: np.random.Generator, star: tuple[float, float, float], colors: tuple, core: float
) -> None:
    """Paint rings of short arcs from the outside in, sparser toward the dark."""
    height = canvas.shape[0]
    center, radius = np.asarray(star[:2]) * height, star[2] * height
    count = int(26 + radius * 2.6)
    ring = np.sort(rng.uniform(0.02, 1.0, count) ** 0.72)[::-1] * 1.12
    kept = rng.random(count) < 1.12 - 0.62 * ring**2
    ring = ring[kept]
    turn = rng.uniform(0.0, 2 * np.pi, len(ring))
    r = ring * radius
    width = np.clip(0.085 * radius, 7.0, 13.0) * rng.uniform(0.8, 1.3, len(ring))
    span = np.clip(rng.uniform(28, 56, len(ring)) / np.maximum(r, 1.0), 0.25, 2.2)
    sweep = turn[:, None] + span[:, None] * np.linspace(-0.5, 0.5, 9)
    paths = center + r[:, None, None] * np.stack([np.cos(sweep), np.sin(sweep)], axis=-1)
    tone = np.clip((ring - core) / (1.1 - core) + rng.normal(0.0, 0.10, len(ring)), 0.0, 1.0)
    color = ramp(colors, tone) * rng.uniform(0.9, 1.05, (len(ring), 1))
    lay(canvas, rng, paths.astype(np.float32), width, color, load=1.25, dryness=0.15, streak=0.35)


def _paint_moon(canvas: Canvas, rng: np.random.Generator) -> None:
    _paint_light(canvas, rng, MOON, MOONLIGHT, 0.25)
    height = canvas.shape[0]
    center, radius = np.asarray(MOON[:2]) * height, 0.062 * height
    bite = center + np.asarray([-0.42, -0.16]) * radius
    start = center + rng.uniform(-1.0, 1.0, (900, 2)) * radius
    inside = np.hypot(*(start - center).T) < radius
    hidden = np.hypot(*(start - bite).T) < 0.74 * radius
    for keep, colors in ((inside & hidden, ((250, 232, 140), (252, 240, 180))),
                          (inside & ~hidden, ((250, 160, 30), (255, 182, 50), (240, 140, 24)))):  # fmt: skip
        offset = start[keep] - center
        paths = straight(start[keep], np.full(keep.sum(), 30.0), np.arctan2(offset[:, 0], -offset[:, 1]), 0.6)
        lay(canvas, rng, paths, np.full(keep.sum(), 8.5), pick(rng, colors, int(keep.sum()), 0.03), load=1.4)


def _paint_hill(
    canvas: Canvas, rng: np.random.Generator, u: Field, v: Field, ridge: tuple, colors: tuple, lightness: float
) -> None:
    height, width = canvas.shape
    top = _ridge(u, *ridge)
    slope = np.gradient(top[0]) * height
    angle = np.broadcast_to(np.arctan(slope), canvas.shape) + 0.55 * (noise(rng, canvas.shape, 260, 2) - 0.5)
    flow = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    depth = v - top
    density = smoothstep(0.0, 0.006, depth) * smoothstep(0.50, 0.42, depth)
    bands = flow_noise(rng, flow, 44, 240)
    for count, length, broad in ((3600, 90, 24), (12000, 62, 12)):
        start = scatter(rng, count, density)
        light = lightness + 0.5 * (look_up(bands, *start.T) - 0.3) - 0.9 * look_up(depth, *start.T)
        color = ramp(colors, light + rng.normal(0.0, 0.16, len(start)))
        paths = trace(start, length * rng.uniform(0.6, 1.2, len(start)), flow)
        lay(canvas, rng, paths, broad * rng.uniform(0.7, 1.2, len(start)), color, dryness=0.25, streak=0.4)
    # The contour, in long dark strokes as in the original.
    x = rng.permutation(np.arange(-20.0, width + 20.0, 15.0))
    knots = x[:, None] + rng.uniform(0.5, 1.0, (len(x), 1)) * np.linspace(-46, 46, 7)
    line = np.stack([knots, _ridge(knots / height, *ridge) * height + rng.normal(0.0, 4.0, (len(x), 1))], axis=-1)
    lay(canvas, rng, line.astype(np.float32), rng.uniform(7.0, 17.0, len(x)),
        pick(rng, ((8, 12, 34), (14, 22, 50), (24, 44, 96)), len(x), 0.02), dryness=0.3, blunt=3.0)  # fmt: skip


def _paint_groves(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint rows of round bushes across the valley, each a fan of small arcs that is light on top."""
    height, width = canvas.shape
    for row, size in ((0.835, 34), (0.868, 40), (0.905, 46), (0.95, 54), (0.99, 60)):
        for x in np.arange(-20, width + 40, size * 1.05):
            center = np.asarray([x + rng.normal(0, size / 4), row * height + rng.normal(0, size / 4)])
            count = 42
            turn = rng.uniform(-np.pi, 0.0, count)
            r = size * np.sqrt(rng.uniform(0.05, 1.0, count))
            r = np.sort(r)[::-1]
            start = center + np.stack([1.15 * r * np.cos(turn), 0.8 * r * np.sin(turn)], axis=-1)
            light = 0.16 + 0.68 * (r / size) * -np.sin(turn) + rng.normal(0.0, 0.14, count)
            paths = straight(start, rng.uniform(18, 34, count), turn + np.pi / 2, 0.9)
            lay(canvas, rng, paths, rng.uniform(6, 10, count), ramp(GROVES, light), dryness=0.15, streak=0.4)


def _block(canvas: Canvas, rng: np.random.Generator, corners: npt.ArrayLike, colors: tuple, width: float = 8.0) -> None:
    """Fill a quadrilateral (corners in pixels, in order) with strokes along its first side."""
    a, b, c, d = np.asarray(corners, np.float64)
    rows = max(2, int(np.linalg.norm(d - a) / (width * 0.55)))
    f = np.linspace(0.04, 0.96, rows)[:, None]
    left, right = a + (d - a) * f, b + (c - b) * f
    t = np.linspace(0.0, 1.0, 5)[None, :, None]
    paths = left[:, None] + (right - left)[:, None] * t + rng.normal(0.0, 0.8, (rows, 5, 2))
    lay(canvas, rng, paths.astype(np.float32), np.full(rows, width), pick(rng, colors, rows), blunt=14.0)


def _paint_village(canvas: Canvas, rng: np.random.Generator) -> None:
    walls = ((70, 108, 150), (104, 142, 170), (148, 172, 172), (52, 84, 128))
    roofs = ((28, 40, 76), (92, 56, 56), (46, 76, 122), (120, 84, 62))
    lamp = ((255, 206, 70), (252, 180, 44))
    height = canvas.shape[0]
    places = np.sort(np.concatenate([rng.uniform(0.48, 1.14, 19)]))
    order = rng.permutation(len(places))
    rows = np.sort(rng.uniform(0.855, 0.965, len(places)))
    for place, row in zip(places[order], rows, strict=True):
        x, y = place * height, row * height
        w, wall, roof = rng.uniform(42, 70), rng.uniform(30, 46), rng.uniform(24, 42)
        lean = rng.uniform(-5, 5)
        _block(canvas, rng, [(x, y), (x + w, y + lean), (x + w, y + wall), (x, y + wall)], walls)
        side = 0.55 * w
        _block(
            canvas,
            rng,
            [(x - 5, y), (x + side, y - roof), (x + side + w * 0.6, y - roof), (x + w + 5, y + lean)],
            roofs,
        )
        outline = np.asarray([[(x - 7, y + 1), (x + side, y - roof)], [(x + side, y - roof), (x + w + 8, y + lean)]])
        lay(canvas, rng, outline.astype(np.float32), np.full(2, 6.0), pick(rng, ((10, 14, 34),), 2, 0.02))
        if rng.random() < 0.6:
            wx, wy = x + w * rng.uniform(0.25, 0.6), y + wall * 0.35
            _block(canvas, rng, [(wx, wy), (wx + 15, wy), (wx + 15, wy + 19), (wx, wy + 19)], lamp, 8.0)
    # The church: nave, tower and a spire above the horizon.
    x, y = 0.742 * height, 0.90 * height
    _block(canvas, rng, [(x - 66, y), (x + 14, y), (x + 14, y + 52), (x - 66, y + 52)], walls)
    _block(canvas, rng, [(x - 76, y + 4), (x - 48, y - 34), (x + 14, y - 34), (x + 20, y + 4)], roofs)
    _block(canvas, rng, [(x, y - 62), (x + 36, y - 62), (x + 38, y + 56), (x - 2, y + 56)], walls)
    _block(canvas, rng, [(x - 44, y + 18), (x - 33, y + 18), (x - 33, y + 36), (x - 44, y + 36)], lamp, 7.0)
    _block(canvas, rng, [(x + 13, y - 40), (x + 22, y - 40), (x + 22, y - 20), (x + 13, y - 20)], lamp, 7.0)
    tip = (x + 18, y - 268)
    for dx, colors, w in ((0, ((30, 48, 88), (16, 26, 58)), 7), (9, ((64, 96, 134), (44, 74, 116)), 8),
                           (19, ((92, 128, 156), (70, 110, 146)), 8), (28, ((44, 74, 116), (30, 52, 96)), 8),
                           (38, ((12, 18, 40),), 6)):  # fmt: skip
        path = np.linspace((x - 1 + dx, y - 56), tip, 7)[None].astype(np.float32)
        lay(canvas, rng, path, np.full(1, float(w)), pick(rng, colors, 1), blunt=20.0)


def _paint_cypress(canvas: Canvas, rng: np.random.Generator, u: Field, v: Field) -> None:
    """Paint a cypress as flames: tongues that rise from the base, each a spine with outward strokes along it."""
    height = canvas.shape[0]
    tongues = (
        ((0.275, 1.02), (0.250, 0.78), (0.262, 0.56), (0.226, 0.38), (0.244, 0.22), (0.222, 0.03), 0.076),
        ((0.225, 1.02), (0.190, 0.80), (0.204, 0.60), (0.168, 0.43), (0.180, 0.25), 0.052),
        ((0.330, 1.02), (0.325, 0.84), (0.305, 0.68), (0.296, 0.56), (0.290, 0.42), 0.050),
        ((0.160, 1.02), (0.158, 0.90), (0.150, 0.79), (0.160, 0.71), (0.150, 0.62), 0.050),
        ((0.385, 1.02), (0.390, 0.94), (0.378, 0.86), (0.356, 0.79), (0.362, 0.69), 0.050),
        ((0.440, 1.03), (0.452, 0.98), (0.448, 0.93), (0.425, 0.89), (0.432, 0.83), 0.042),
        ((0.110, 1.03), (0.104, 0.98), (0.098, 0.92), (0.112, 0.87), (0.102, 0.80), 0.042),
    )
    for tongue in (*tongues[::-1], tongues[0]):
        spine = spline(tongue[:-1], 300) * height
        count = int(420 * (spine[0, 1] - spine[-1, 1]) / height) + 140
        for broad, number in ((20.0, count // 2), (10.5, count * 2)):
            along = np.sort(rng.uniform(0.0, 1.0, number) ** 1.05)
            aside = np.clip(rng.normal(0.0, 0.55, number), -1.15, 1.15)
            # Thick at the base, lobed and thin at the top, like a flame.
            girth = tongue[-1] * height * (1 - along) ** 0.62 * (0.8 + 0.3 * np.sin(17 * along + 3 * tongue[0][0]))
            point = spine[(along * 299).astype(int)]
            start = np.stack([point[:, 0] + aside * girth, point[:, 1]], axis=-1)
            ahead = spine[np.minimum((along * 299).astype(int) + 12, 299)] - point
            lean = np.arctan2(ahead[:, 1] - 1.0, ahead[:, 0]) + 0.42 * aside * (1 - along) + 0.22 * np.sin(38 * along)
            length = np.clip(rng.uniform(70, 150, number) * (1.1 - 0.6 * along), 24, None)
            paths = straight(start, length, lean, -0.9 * aside + rng.normal(0.0, 0.3, number), knots=7)
            tone = np.clip(0.20 + 0.24 * np.abs(aside) + rng.normal(0.0, 0.26, number), 0.0, 1.0)
            lay(
                canvas, rng, paths, broad * rng.uniform(0.7, 1.2, number), ramp(CYPRESS, tone), dryness=0.15, streak=0.5
            )


def starry_night(rng: np.random.Generator) -> Image.Image:
    shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    canvas = Canvas.primed(shape, (70, 92, 110))
    u, v = plane(shape)
    _paint_sky(canvas, rng, u, v)
    for star in STARS:
        _paint_light(canvas, rng, star, STARLIGHT, 0.12)
    _paint_moon(canvas, rng)
    _paint_hill(canvas, rng, u, v, FAR_HILL, HILLS, 0.52)
    _paint_hill(canvas, rng, u, v, (0.785, 0.12, 3.1), HILLS, 0.34)
    _paint_groves(canvas, rng)
    _paint_village(canvas, rng)
    _paint_cypress(canvas, rng, u, v)
    lit = relief(canvas.color, canvas.thickness + 0.5 * weave(shape, 5.0), 0.80)
    return finish(lit, SIZE)
