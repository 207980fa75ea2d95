"""`ink_wash`: misty karst mountains in layers of ink on paper, pines on a near crag, a boat, a red seal."""

import numpy as np
from PIL import Image

from .cells import Panes, leading, voronoi
from .fields import Field, blur, look_up, mix, noise, plane, smoothstep, spline
from .strokes import Canvas, lay, scatter, straight, trace
from .surface import finish, paper

SIZE = (768, 1000)
SCALE = 2
PAPER = (0.925, 0.890, 0.800)
INK = np.asarray((0.085, 0.090, 0.105), np.float32)
BLUE_INK = np.asarray((0.16, 0.22, 0.28), np.float32)

# The lines cut into the seal, (x0, y0, x1, y1), in a square of side 1 around its center.
SEAL = (
    (-0.32, -0.32, -0.04, -0.32), (-0.32, -0.12, -0.04, -0.12), (-0.18, -0.36, -0.18, 0.34), (-0.32, 0.12, -0.06, 0.12),
    (-0.32, 0.34, -0.04, 0.34), (0.08, -0.32, 0.34, -0.32), (0.08, -0.32, 0.08, 0.0), (0.34, -0.32, 0.34, 0.0),
    (0.08, 0.0, 0.34, 0.0), (0.21, 0.0, 0.21, 0.34), (0.08, 0.18, 0.34, 0.18), (0.08, 0.36, 0.34, 0.36),
)  # fmt: skip

# Ranges from far to near: peaks (u, height above the foot, half-width), foot, tone.
RANGES = (
    (((0.10, 0.13, 0.10), (0.30, 0.19, 0.09), (0.52, 0.12, 0.12), (0.70, 0.20, 0.08)), 0.36, 0.42),
    (((0.18, 0.17, 0.07), (0.43, 0.27, 0.065), (0.53, 0.18, 0.06), (0.75, 0.20, 0.08)), 0.47, 0.60),
    (((0.02, 0.24, 0.10), (0.29, 0.13, 0.07), (0.58, 0.25, 0.062), (0.66, 0.31, 0.055), (0.77, 0.14, 0.06)),
     0.60, 0.80),
    (((0.08, 0.21, 0.085), (0.20, 0.12, 0.06), (0.74, 0.19, 0.07)), 0.72, 1.00),
)  # fmt: skip


def _ridge(rng: np.random.Generator, x: Field, peaks: tuple, foot: float) -> Field:
    """Return the skyline v(u) of a range: steep rounded towers, roughened."""
    top = np.full(x.shape, foot)
    for center, rise, half in peaks:
        d = np.abs(x - center) / half
        top = np.minimum(top, foot - rise * np.exp(-(d**2.4)))
    rough = noise(rng, (4, len(x)), (4, 90), 5)[0] - 0.5
    return top + 0.05 * rough


def _range(
    canvas: Canvas, rng: np.random.Generator, u: Field, v: Field, peaks: tuple, foot: float, tone: float
) -> None:
    height = canvas.shape[0]
    top = _ridge(rng, u[0], peaks, foot)
    depth = v - top[None, :] + 0.004 * (noise(rng, canvas.shape, 14, 3) - 0.5)
    body = smoothstep(-0.0015, 0.0015, depth)
    # The wash is dense at the skyline and thins into mist at the foot.
    mist = smoothstep(foot + 0.05, foot - 0.13, v + 0.10 * (noise(rng, canvas.shape, (120, 380), 3) - 0.5))
    mottle = 0.55 + 0.9 * (noise(rng, canvas.shape, 130, 5) - 0.1)
    wash = body * mist * (0.30 + 0.70 * np.exp(-depth / 0.065)) * mottle * tone * 1.05
    # Paper color first, because a range hides those behind it.
    canvas.color[:] = mix(canvas.color, np.asarray(PAPER) * 0.99, body * mist * 0.9)
    tint = mix(np.broadcast_to(INK, canvas.color.shape), BLUE_INK, 0.85 - 0.6 * tone)
    canvas.color[:] = mix(canvas.color, tint, np.clip(wash, 0.0, 0.9))

    # Dry texture strokes (cun) with a split brush, down from the ridge.
    slope = np.gradient(top) * height
    fall = np.arctan2(1.0, 0.75 * np.clip(slope, -2.5, 2.5))
    lean = fall[None, :] + 0.9 * (noise(rng, canvas.shape, 70, 3) - 0.5)
    flow = np.stack([np.cos(lean), np.sin(lean)], axis=-1).astype(np.float32)
    density = body * mist * smoothstep(0.26, 0.0, depth)
    for count, length, broad, opacity in ((5200, 84, 19, 0.26), (9000, 56, 9.5, 0.48), (7000, 32, 5.5, 0.70)):
        start = scatter(rng, count, density)
        paths = trace(start, length * rng.uniform(0.5, 1.3, len(start)), flow, centered=False)
        shade = look_up(tint, *start.T) * rng.uniform(0.7, 1.5, (len(start), 1))
        lay(
            canvas,
            rng,
            paths,
            broad * rng.uniform(0.5, 1.2, len(start)),
            shade,
            dryness=0.62,
            streak=0.2,
            opacity=opacity * (0.35 + 0.65 * tone),
            blunt=3.0,
        )
    # The skyline in broken strokes of dark ink, with moss dots along it.
    x = np.sort(rng.uniform(0, canvas.shape[1], 260))
    keep = look_up(mist, x, top[np.clip(x.astype(int), 0, len(top) - 1)] * height) > 0.35
    x = x[keep]
    knots = np.clip(x[:, None] + np.linspace(0, 46, 9), 0, len(top) - 1)
    line = np.stack([knots, top[knots.astype(int)] * height + 2], axis=-1).astype(np.float32)
    lay(
        canvas,
        rng,
        line,
        rng.uniform(3, 9, len(x)),
        np.tile(tint[0, 0], (len(x), 1)),
        dryness=0.55,
        blunt=3.0,
        opacity=0.30 + 0.6 * tone,
    )
    dots = scatter(rng, int(1600 * tone), density * smoothstep(0.05, 0.0, depth))
    size = rng.uniform(5, 13, len(dots)) * (0.6 + 0.5 * tone)
    lay(
        canvas,
        rng,
        straight(dots, size * 1.2, rng.normal(0.2, 0.5, len(dots))),
        size,
        np.tile(INK, (len(dots), 1)),
        opacity=0.25 + 0.55 * tone,
        blunt=2.0,
        dryness=0.2,
    )


def _water(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint long horizontal strokes, denser, shorter and thinner toward the far shore."""
    height, width = canvas.shape
    count = 900
    far = rng.uniform(0.0, 1.0, count)
    y = (0.70 + 0.30 * far**1.3) * height
    start = np.stack([rng.uniform(0, width, count), y], axis=-1)
    paths = straight(start, rng.uniform(90, 420, count) * (0.4 + far), rng.normal(0.0, 0.012, count), knots=9)
    paths[..., 1] += 2.5 * np.sin(paths[..., 0] / 34.0 + y[:, None])
    lay(
        canvas,
        rng,
        paths,
        rng.uniform(2.5, 9, count) * (0.5 + far),
        np.tile(BLUE_INK, (count, 1)),
        dryness=0.75,
        opacity=0.48,
        blunt=3.0,
    )


def _crag(canvas: Canvas, rng: np.random.Generator, u: Field, v: Field) -> None:
    """Paint the near rock at the lower right: slabs of wet black ink with split-brush light between them."""
    edge = 0.800 - 0.22 * smoothstep(0.33, 0.80, u) + 0.15 * smoothstep(0.40, 0.24, u)
    rough = noise(rng, canvas.shape, 130, 5) - 0.5
    depth = v - edge + 0.10 * rough
    body = smoothstep(-0.001, 0.002, depth)
    canvas.color[:] = mix(canvas.color, np.asarray(PAPER) * 0.97, body)
    # Boulders: ink along the upper left, fading to bare paper, with an axe-cut outline.
    warp = 0.07 * (noise(rng, canvas.shape, 120, 4) - 0.5)
    label = voronoi(rng, 11 * (u + 0.5 * v + warp), 8 * (v - 0.4 * u + warp), 0.95)
    rocks = Panes.of(label)
    slope = rocks.slope(rng.normal(0.6, 0.35, rocks.count))
    tone = np.clip(0.36 - 0.42 * slope + 0.6 * rough + 0.30 * np.exp(-depth / 0.02), 0.0, 1.0)
    tone = np.maximum(tone, 0.95 * leading(label, 7.0)[0] * smoothstep(0.30, 0.55, noise(rng, canvas.shape, 60, 3)))
    canvas.color[:] = mix(canvas.color, INK, body * tone * 0.85)
    lean = 1.15 + 1.3 * (noise(rng, canvas.shape, 110, 3) - 0.5)
    flow = np.stack([np.cos(lean), np.sin(lean)], axis=-1).astype(np.float32)
    for count, length, broad, opacity in ((5000, 95, 22, 0.35), (9000, 60, 9, 0.6), (5000, 36, 5, 0.8)):
        start = scatter(rng, count, body * np.clip(1.3 * tone - 0.1, 0, 1))
        paths = trace(start, length * rng.uniform(0.5, 1.3, len(start)), flow)
        lay(
            canvas,
            rng,
            paths,
            broad * rng.uniform(0.5, 1.2, len(start)),
            np.tile(INK, (len(start), 1)),
            dryness=0.70,
            opacity=opacity,
            blunt=3.0,
        )
    dots = scatter(rng, 5200, smoothstep(-0.012, 0.0, depth) * smoothstep(0.05, 0.0, depth))
    size = rng.uniform(7, 17, len(dots))
    lay(
        canvas,
        rng,
        straight(dots, size * 1.3, rng.normal(0.1, 0.6, len(dots))),
        size,
        np.tile(INK, (len(dots), 1)),
        opacity=0.75,
        blunt=2.0,
        dryness=0.3,
    )


def _pine(canvas: Canvas, rng: np.random.Generator, trunk: np.ndarray, girth: float, boughs: int) -> None:
    """Paint a leaning trunk, crooked boughs, and flat fans of needles on them."""
    height = canvas.shape[0]
    path = spline(trunk, 60) * height
    taper = np.linspace(1.0, 0.35, 59)
    pieces = np.stack([path[:-1], path[1:]], axis=1)
    pieces = np.concatenate([pieces[:, :1] - 0.4 * (pieces[:, 1:] - pieces[:, :1]), pieces[:, 1:]], axis=1)
    for side, shade, dry in ((0.0, INK * 1.6, 0.25), (0.22, INK, 0.55), (-0.26, INK * 0.8, 0.3)):
        offset = np.asarray([side * girth * height, 0.0])
        lay(canvas, rng, (pieces + offset * taper[:, None, None]).astype(np.float32),
            girth * height * taper * (1.0 if side == 0 else 0.4), np.tile(shade, (59, 1)),
            dryness=dry, opacity=0.9, blunt=8.0)  # fmt: skip
    for k in range(boughs):
        at = 0.34 + 0.66 * (k + rng.uniform(0, 0.6)) / boughs
        root = path[min(59, int(at * 59))]
        side = 1 if (k % 2) else -1
        reach = rng.uniform(0.055, 0.115) * height * (1.25 - 0.55 * at)
        knots = root + np.asarray([(0, 0), (0.35 * side, -0.10), (0.65 * side, 0.04), (side, -0.06)]) * reach
        bough = spline(knots, 9)[None].astype(np.float32)
        lay(canvas, rng, bough, np.full(1, girth * height * 0.28), INK[None], dryness=0.3, blunt=3.0)
        fans = int(7 + reach / 14)
        for f in np.linspace(0.25, 1.05, fans):
            center = bough[0, min(8, int(f * 8))] + rng.normal(0, 1.0, 2) * (reach * 0.10, reach * 0.06)
            needles = 34
            angle = -np.pi / 2 + np.linspace(-1.45, 1.45, needles) + rng.normal(0, 0.06, needles)
            length = rng.uniform(0.75, 1.1, needles) * 30
            middle = center + 0.5 * length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
            lay(
                canvas,
                rng,
                straight(middle, length, angle, 0.15),
                rng.uniform(2.4, 4.0, needles),
                np.tile(INK * rng.uniform(0.7, 2.6), (needles, 1)),
                opacity=0.8,
                blunt=3.0,
                dryness=0.2,
            )
            wash = straight(center[None] + (0, -9), np.asarray([44.0]), np.asarray([0.0]))
            lay(canvas, rng, wash, np.asarray([24.0]), BLUE_INK[None] * 0.8, opacity=0.28, blunt=2.0)


def _boat(canvas: Canvas, rng: np.random.Generator) -> None:
    height = canvas.shape[0]
    x, y = 0.235 * height, 0.862 * height
    hull = np.asarray((
        ((-92, -10), (-50, 8), (0, 12), (50, 8), (98, -16)),
        ((-88, -12), (-40, -2), (0, 0), (40, -2), (92, -18)),
        ((-26, -4), (-18, -26), (2, -34), (22, -26), (30, -4)),
        ((-20, -4), (-10, -22), (2, -28), (14, -22), (24, -4)),
        ((62, -12), (60, -36), (64, -52), (66, -60), (66, -66)),
        ((70, -70), (80, -20), (90, 20), (96, 36), (104, 56)),
        ((-110, 24), (-40, 28), (0, 30), (60, 27), (120, 22)),
    ))  # fmt: skip
    widths = np.asarray([13, 5, 7, 12, 16, 4, 5.0])
    lay(canvas, rng, (hull + np.asarray((x, y))).astype(np.float32), widths, np.tile(INK, (7, 1)), dryness=0.35,
        blunt=3.0, opacity=0.9)  # fmt: skip
    head = straight(np.asarray([[x + 66, y - 74]]), np.asarray([30.0]), np.asarray([0.0]))
    lay(canvas, rng, head, np.asarray([11.0]), INK[None], blunt=2.0)


def _birds(canvas: Canvas, rng: np.random.Generator) -> None:
    height = canvas.shape[0]
    for x, y, s in (
        (0.30, 0.105, 1.0),
        (0.345, 0.09, 0.8),
        (0.375, 0.115, 0.9),
        (0.42, 0.10, 0.7),
        (0.335, 0.135, 0.7),
        (0.46, 0.125, 0.6),
    ):
        wing = (
            np.asarray(
                [
                    [(0, 0), (-9, -9), (-19, -11), (-27, -7), (-33, 0)],
                    [(0, 0), (9, -10), (19, -13), (28, -10), (36, -3)],
                ]
            )
            * s
        )
        lay(
            canvas,
            rng,
            (wing + np.asarray((x, y)) * height).astype(np.float32),
            np.full(2, 5.5 * s + 1),
            np.tile(INK, (2, 1)),
            blunt=2.5,
        )


def _seal(canvas: Canvas, rng: np.random.Generator, u: Field, v: Field, x: float, y: float, size: float) -> None:
    """Paint a carved square in cinnabar; its marks are not writing."""
    a, b = (u - x) / size, (v - y) / size
    square = smoothstep(0.53, 0.49, np.maximum(np.abs(a), np.abs(b)) + 0.05 * (noise(rng, u.shape, 14, 3) - 0.5))
    cut = np.zeros(u.shape, np.float32)
    for x0, y0, x1, y1 in SEAL:
        along = np.clip(((a - x0) * (x1 - x0) + (b - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0.0, 1.0)
        gap = np.hypot(a - x0 - along * (x1 - x0), b - y0 - along * (y1 - y0))
        cut = np.maximum(cut, smoothstep(0.055, 0.03, gap))
    worn = smoothstep(0.22, 0.36, noise(rng, u.shape, 10, 3))
    canvas.color[:] = mix(canvas.color, (0.74, 0.13, 0.10), square * (1 - cut) * (0.35 + 0.6 * worn))


def ink_wash(rng: np.random.Generator) -> Image.Image:
    shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    u, v = plane(shape)
    canvas = Canvas.primed(shape, tuple(255 * c for c in PAPER))
    # The sky: wet-in-wet clouds in the bands of a broad brush, around a pale sun.
    cloud = noise(rng, shape, (150, 420), 5)
    band = noise(rng, shape, (22, 300), 3)
    away = np.hypot(u - 0.165, v - 0.145)
    wash = np.clip(1.9 * (cloud - 0.36), 0.0, 1.0) * (0.6 + 0.8 * (band - 0.3)) * smoothstep(0.85, 0.0, v)
    canvas.color[:] = mix(canvas.color, BLUE_INK, 0.66 * wash * smoothstep(0.045, 0.065, away))
    canvas.color[:] = mix(
        canvas.color, (0.80, 0.30, 0.20), 0.72 * smoothstep(0.052, 0.048, away) * (0.6 + 0.7 * (cloud - 0.3))
    )
    flow = np.zeros((*shape, 2), np.float32)
    lean = 0.5 * (noise(rng, shape, (160, 400), 2) - 0.5)
    flow[..., 0], flow[..., 1] = np.cos(lean), np.sin(lean)
    start = scatter(rng, 900, np.clip(wash * 2, 0.05, 1.0) * smoothstep(0.55, 0.3, v))
    lay(
        canvas,
        rng,
        trace(start, rng.uniform(100, 340, len(start)), flow),
        rng.uniform(8, 34, len(start)),
        np.tile(BLUE_INK, (len(start), 1)),
        dryness=0.85,
        opacity=0.17,
        blunt=3.0,
    )
    _birds(canvas, rng)
    for peaks, foot, tone in RANGES:
        _range(canvas, rng, u, v, peaks, foot, tone)
    _water(canvas, rng)
    _boat(canvas, rng)
    _pine(canvas, rng, np.asarray([(0.62, 0.70), (0.60, 0.63), (0.635, 0.56), (0.60, 0.49), (0.615, 0.43)]), 0.017, 12)
    _pine(canvas, rng, np.asarray([(0.53, 0.72), (0.50, 0.67), (0.515, 0.62), (0.475, 0.575), (0.46, 0.53)]), 0.012, 9)
    _crag(canvas, rng, u, v)
    _seal(canvas, rng, u, v, 0.085, 0.925, 0.062)
    grain = paper(rng, shape)
    soaked = 1.0 - canvas.color.mean(axis=2)
    toned = canvas.color * (1.0 + (0.06 + 0.22 * soaked) * grain)[..., None]
    stain = noise(rng, shape, 420, 3) - 0.5
    edge = blur(np.pad(np.zeros((shape[0] - 60, shape[1] - 60), np.float32), 30, constant_values=1.0), 40)
    return finish(toned * (1.0 - 0.10 * edge + 0.07 * stain)[..., None], SIZE)
