"""`woodblock_wave`: a homage to ukiyo-e prints, above all to Hokusai's Great Wave (about 1831).

Flat blocks of color with bokashi (wiped gradation), key-block outlines, wood grain and paper fibers.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .fields import Field, Shape, blur, mix, noise, plane, ramp, smoothstep, spline
from .surface import finish, paper

SIZE = (1008, 700)
SCALE = 2
WIDE = SIZE[0] / SIZE[1]

PAPER = (0.925, 0.875, 0.750)
KEY = (0.075, 0.130, 0.270)
INDIGO = (0.090, 0.190, 0.400)
PRUSSIAN = (0.170, 0.340, 0.545)
AQUA = (0.480, 0.660, 0.680)
FOAM = (0.960, 0.930, 0.845)

# The great wave: up its back on the left to the crest, then down inside its hollow. The curl hangs between them.
BACK = (
    (-0.06, 0.470),
    (0.10, 0.390),
    (0.24, 0.265),
    (0.36, 0.140),
    (0.49, 0.075),
    (0.61, 0.080),
    (0.71, 0.135),
    (0.775, 0.225),
)
HOLLOW = ((1.50, 0.775), (1.25, 0.835), (1.04, 0.855), (0.86, 0.825), (0.71, 0.735), (0.615, 0.605), (0.575, 0.470),
          (0.60, 0.355), (0.665, 0.290), (0.715, 0.265))  # fmt: skip
FRONT = ((-0.06, 0.800), (0.08, 0.745), (0.20, 0.665), (0.305, 0.600), (0.385, 0.615), (0.45, 0.700), (0.56, 0.810),
         (0.74, 0.905), (0.98, 0.935), (1.22, 0.895), (1.50, 0.800))  # fmt: skip


class Block:
    """One carved block: a mask drawn in units of the image's height, antialiased by the final reduction."""

    def __init__(self, shape: Shape) -> None:
        self.image = Image.new("L", (shape[1], shape[0]))
        self.draw = ImageDraw.Draw(self.image)
        self.unit = shape[0]

    def shape(self, points: npt.ArrayLike) -> None:
        self.draw.polygon([tuple(p) for p in np.asarray(points) * self.unit], fill=255)

    def taper(self, path: npt.ArrayLike, widths: npt.ArrayLike) -> None:
        """Draw a stroke of varying width along a path."""
        path = np.asarray(path)
        along = np.gradient(path, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=-1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        side = across * np.asarray(widths)[:, None] / 2
        self.shape(np.concatenate([path + side, (path - side)[::-1]]))

    def disc(self, x: float, y: float, r: float) -> None:
        self.draw.ellipse(
            [(x - r) * self.unit, (y - r) * self.unit, (x + r) * self.unit, (y + r) * self.unit], fill=255
        )

    def mask(self) -> Field:
        return np.asarray(self.image, np.float32) / 255.0


def _outline(mask: Field, width: float) -> Field:
    """Return the key-block line along a mask's edge."""
    soft = blur(mask, width)
    return smoothstep(0.05, 0.16, soft) * smoothstep(0.95, 0.84, soft)


def _claw(
    block: Block, rng: np.random.Generator, at: np.ndarray, angle: float, size: float, curl: float, depth: int
) -> None:
    """Draw a finger of foam that bends over to a hooked tip, with smaller fingers on its outer side."""
    steps = 26
    t = np.linspace(0.0, 1.0, steps)
    turn = angle + curl * t**1.5
    path = at + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=-1), axis=0) * size / steps
    girth = size * (0.36 * (1.0 - t) ** 0.8 + 0.035)
    for (x, y), g in zip(path, girth, strict=True):
        block.disc(x, y, g / 2)
    if depth:
        for f in (0.30, 0.58, 0.82)[: 2 + (depth > 1)]:
            k = int(f * steps)
            side = -np.sign(curl) * rng.uniform(0.5, 1.0)
            _claw(
                block,
                rng,
                path[k],
                turn[k] + side,
                size * rng.uniform(0.42, 0.56),
                curl * rng.uniform(0.9, 1.3),
                depth - 1,
            )


def _foam(
    rng: np.random.Generator, shape: Shape, edge: Field, size: float, outward: float, hook: float, depth: int,
    every: int,
) -> Field:  # fmt: skip
    """Return the mask of claws that leave an edge (a dense path) to one side, then bend by `hook`."""
    block = Block(shape)
    along = np.gradient(edge, axis=0)
    for k in range(0, len(edge), every):
        f = k / len(edge)
        heading = np.arctan2(along[k, 1], along[k, 0])
        girth = size * (0.55 + 0.60 * f) * rng.uniform(0.75, 1.2)
        x, y = edge[k]
        block.disc(x, y, girth * 0.45)
        _claw(
            block, rng, edge[k], heading + outward * rng.uniform(0.35, 1.0), girth, hook * rng.uniform(0.9, 1.7), depth
        )
    return block.mask()


def _water(block_dark: Block, lines: Block, low: Field, high: Field, count: int, swell: float) -> None:
    """Draw bands and lines up a wave's face, interpolated between two of its contours."""
    t = np.linspace(0.0, 1.0, len(low))
    for k in range(count):
        f = (k + 0.5) / count
        path = low + (high - low) * f
        start, stop = int(len(path) * 0.05 * (k % 3)), int(len(path) * (1.0 - 0.06 * ((k * 7) % 4)))
        width = swell * np.sin(np.pi * np.clip((t - 0.02) / 0.98, 0, 1)) ** 0.7 + 0.0008
        block_dark.taper(path[start:stop], width[start:stop])
        line = low + (high - low) * (f + 0.5 / count)
        lines.taper(line[start:stop], 0.0028 * np.sin(np.pi * t)[start:stop] + 0.001)


def _boat(picture: Field, x: float, y: float, length: float, tilt: float, shape: Shape) -> Field:
    hull, rim, crew = Block(shape), Block(shape), Block(shape)
    cos, sin = np.cos(tilt), np.sin(tilt)

    def put(points: Field) -> Field:
        p = np.asarray(points) * length
        return np.stack([x + cos * p[:, 0] - sin * p[:, 1], y + sin * p[:, 0] + cos * p[:, 1]], axis=-1)

    top = spline([(-0.55, -0.115), (-0.30, -0.020), (0.0, 0.010), (0.30, -0.015), (0.56, -0.150)], 60)
    keel = spline([(0.56, -0.150), (0.34, 0.055), (0.0, 0.090), (-0.32, 0.050), (-0.55, -0.115)], 60)
    hull.shape(put(np.concatenate([top, keel])))
    rim.taper(put(top + np.asarray((0, 0.028))), np.full(60, 0.012 * length))
    for k in range(7):
        a, b = put(np.asarray([(-0.26 + 0.08 * k, -0.030)]))[0]
        crew.disc(a, b, 0.030 * length)
    for block, color in ((crew, PRUSSIAN), (hull, (0.86, 0.68, 0.40)), (rim, (0.50, 0.30, 0.20))):
        mask = block.mask()
        picture = mix(mix(picture, color, mask), KEY, _outline(mask, 2))
    return picture


def woodblock_wave(rng: np.random.Generator) -> Image.Image:
    shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    u, v = plane(shape)
    grain = _wood(rng, shape)
    cloudy = noise(rng, shape, (60, 420), 4)

    # Sky: wiped from dusk blue above through paper to a warm haze; cloud bands with hard upper edges.
    picture = ramp(((52, 88, 128), (128, 152, 160), (214, 200, 168), (234, 214, 168), (232, 184, 132), (214, 140, 104)),
                   np.clip(v / 0.72 + 0.10 * (grain - 0.5), 0.0, 1.0))  # fmt: skip
    for level, reach, where, tone in (
        (0.10, 0.026, 1.05, 0.75),
        (0.20, 0.020, 1.28, 0.6),
        (0.335, 0.022, 1.02, 0.6),
        (0.455, 0.016, 1.25, 0.5),
    ):
        d = v - level - 0.014 * np.sin(9 * u + 40 * level) - 0.02 * (cloudy - 0.5)
        thin = reach - 0.03 * np.clip(np.abs(u - where) - 0.22, 0, None)
        band = smoothstep(0.0, 0.003, thin - np.abs(d))
        picture = mix(picture, FOAM, tone * band * smoothstep(reach, -reach, d))
        picture = mix(picture, KEY, 0.45 * band * smoothstep(0.005, 0.002, np.abs(np.abs(d) - thin)))
    sun = Block(shape)
    sun.disc(1.16, 0.255, 0.088)
    picture = mix(
        picture,
        ramp(((214, 66, 44), (196, 50, 40), (226, 110, 66)), np.clip((v - 0.16) / 0.19, 0, 1)),
        0.92 * sun.mask(),
    )

    # The far mountain: a cone with a notched snow cap.
    slope = np.asarray([(0.78, 0.720), (0.90, 0.655), (0.985, 0.580), (1.040, 0.535), (1.068, 0.538), (1.096, 0.533),
                        (1.16, 0.590), (1.26, 0.660), (1.42, 0.720)])  # fmt: skip
    cone, snow = Block(shape), Block(shape)
    cone.shape(np.concatenate([slope, [(1.42, 0.80), (0.78, 0.80)]]))
    snow.shape([
        (0.985, 0.580), (1.040, 0.535), (1.068, 0.538), (1.096, 0.533), (1.16, 0.590), (1.135, 0.600), (1.118, 0.588),
        (1.10, 0.622), (1.083, 0.592), (1.065, 0.632), (1.047, 0.594), (1.028, 0.612), (1.012, 0.588),
    ])  # fmt: skip
    mountain = cone.mask()
    picture = mix(
        picture, ramp(((44, 66, 120), (84, 112, 150), (170, 180, 170)), np.clip((v - 0.54) / 0.19, 0, 1)), mountain
    )
    picture = mix(picture, FOAM, snow.mask())
    picture = mix(picture, KEY, _outline(mountain, 2))

    # Far sea in level stripes.
    sea = smoothstep(0.0, 0.002, v - 0.712 - 0.006 * np.sin(21 * u))
    stripes = np.sin(v * (150 - 60 * v) + 2.4 * np.sin(7 * u) + 4 * (cloudy - 0.5))
    picture = mix(picture, PRUSSIAN, sea)
    picture = mix(picture, AQUA, sea * smoothstep(0.15, 0.3, stripes))
    picture = mix(picture, KEY, sea * smoothstep(0.16, 0.05, np.abs(stripes - 0.22)) * 0.8)

    back, hollow, front = spline(BACK, 300), spline(HOLLOW, 300), spline(FRONT, 300)
    body = Block(shape)
    body.shape(np.concatenate([back, hollow[::-1], [(1.50, 1.1), (-0.06, 1.1)]]))
    great = body.mask()
    picture = mix(picture, ramp(((20, 44, 96), (30, 66, 124), (58, 112, 158)), np.clip((v - 0.1) / 0.8, 0, 1)), great)
    dark, lines = Block(shape), Block(shape)
    # Water rises from the trough into the lip: bands between the hollow and the back, in the same direction.
    foot = spline(
        [
            (1.50, 0.93),
            (1.10, 0.99),
            (0.76, 0.96),
            (0.46, 0.86),
            (0.26, 0.68),
            (0.20, 0.50),
            (0.30, 0.30),
            (0.48, 0.165),
            (0.70, 0.20),
        ],
        300,
    )
    _water(dark, lines, hollow, foot, 9, 0.026)
    _water(
        dark,
        lines,
        foot,
        spline(
            [
                (0.9, 1.2),
                (0.5, 1.1),
                (0.2, 0.98),
                (0.0, 0.80),
                (-0.02, 0.60),
                (0.10, 0.44),
                (0.27, 0.27),
                (0.44, 0.12),
                (0.6, 0.10),
            ],
            300,
        ),
        6,
        0.034,
    )
    bands = dark.mask() * great
    picture = mix(picture, AQUA, bands * (0.55 + 0.45 * smoothstep(0.2, 0.7, v)))
    picture = mix(picture, FOAM, lines.mask() * great * 0.9)
    picture = mix(picture, KEY, np.maximum(_outline(great, 3), 0.75 * _outline(bands, 2)))

    # Foam: a cap along the back, and claws along the lip that reach over the hollow.
    cap = np.concatenate([back[60:], spline([BACK[-1], (0.765, 0.255), (0.715, 0.265), (0.655, 0.285)], 60)])
    picture = _lay_foam(picture, rng, shape, cap[::-1][:100], 0.125, -1.0, 2, 8)
    picture = _lay_foam(picture, rng, shape, cap[:-30], 0.072, -1.0, 1, 8)
    picture = _lay_foam(picture, rng, shape, cap[40:-25] + np.asarray((0.0, 0.030)), 0.120, 1.0, 2, 10)
    lip = spline(
        [(0.56, 0.075), (0.66, 0.100), (0.745, 0.165), (0.785, 0.240), (0.775, 0.300), (0.725, 0.325), (0.675, 0.315)],
        130,
    )
    picture = _lay_foam(picture, rng, shape, lip, 0.088, -1.0, 2, 8, hook=1.15)
    picture = _boat(picture, 0.93, 0.842, 0.42, -0.10, shape)

    near = Block(shape)
    near.shape(np.concatenate([front, [(1.50, 1.1), (-0.06, 1.1)]]))
    swell = near.mask()
    picture = mix(picture, ramp(((26, 58, 116), (48, 98, 150), (24, 50, 104)), np.clip((v - 0.6) / 0.4, 0, 1)), swell)
    dark, lines = Block(shape), Block(shape)
    _water(dark, lines, front[::-1], front[::-1] * (1.0, 0.35) + (0.05, 0.80), 7, 0.024)
    bands = dark.mask() * swell
    picture = mix(picture, AQUA, 0.9 * bands)
    picture = mix(picture, FOAM, lines.mask() * swell)
    picture = mix(picture, KEY, np.maximum(_outline(swell, 3), 0.75 * _outline(bands, 2)))
    picture = _lay_foam(picture, rng, shape, front[40:160], 0.075, -1.0, 2, 8)
    picture = _lay_foam(picture, rng, shape, front[30:165] + np.asarray((0.0, 0.040)), 0.105, 1.0, 2, 9)
    tip = front[75:165] + np.asarray([0.012, -0.01])
    picture = _lay_foam(picture, rng, shape, tip, 0.070, -1.0, 2, 9, hook=1.1)
    picture = _boat(picture, 0.30, 0.945, 0.46, 0.09, shape)

    # Spray that falls from the lip.
    spray = Block(shape)
    for _ in range(330):
        x, y = rng.normal(0.80, 0.13), 0.16 + abs(rng.normal(0.0, 0.22))
        spray.disc(x, y, rng.uniform(0.0012, 0.0046))
    for _ in range(150):
        spray.disc(rng.normal(0.40, 0.12), 0.60 - abs(rng.normal(0.0, 0.07)), rng.uniform(0.0012, 0.004))
    picture = mix(picture, FOAM, spray.mask())
    seal = Block(shape)
    seal.shape([(1.355, 0.050), (1.405, 0.050), (1.405, 0.150), (1.355, 0.150)])
    marks = Block(shape)
    for k in range(5):
        marks.taper([(1.366, 0.063 + 0.018 * k), (1.394, 0.063 + 0.018 * k)], [0.005, 0.005])
    marks.taper([(1.380, 0.058), (1.380, 0.142)], [0.005, 0.005])
    picture = mix(picture, (0.74, 0.16, 0.12), 0.92 * seal.mask() * (1 - marks.mask()))
    return finish(_print(rng, picture, grain, shape), SIZE)


def _lay_foam(
    picture: Field, rng: np.random.Generator, shape: Shape, edge: Field, size: float, outward: float, depth: int,
    every: int, hook: float | None = None,
) -> Field:  # fmt: skip
    hook = outward if hook is None else hook
    mask = _foam(rng, shape, edge, size, outward, hook, depth, every)
    # The foam's shade: its mask outside a copy that is shifted up and left, as a second block prints it.
    slip = int(0.010 * shape[0])
    shade = mask * np.clip(1.0 - np.roll(mask, (-slip, -slip // 2), (0, 1)), 0.0, 1.0)
    inner = _foam(rng, shape, edge, 0.62 * size, outward, hook, depth, 2 * every)
    curls = np.clip(inner - np.roll(inner, (slip // 2, slip), (0, 1)), 0.0, 1.0) * smoothstep(0.95, 1.0, blur(mask, 4))
    curls = smoothstep(0.45, 0.60, blur(curls, 3))
    picture = mix(picture, FOAM, mask)
    picture = mix(picture, AQUA, np.maximum(shade, 0.85 * curls))
    return mix(picture, KEY, np.maximum(_outline(mask, 3), 0.5 * _outline(curls, 1)))


def _wood(rng: np.random.Generator, shape: Shape) -> Field:
    """Return wood grain, 0 to 1: growth rings cut lengthwise, which form long ovals around the knots."""
    u, v = plane(shape)
    rings = 26 * v + 5.0 * noise(rng, shape, (260, 900), 3)
    for x, y in ((0.98, 0.14), (0.35, 0.86), (1.30, 0.52)):
        rings += 3.4 * np.exp(-(((u - x) / 0.22) ** 2) - ((v - y) / 0.06) ** 2)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * rings)
    pores = noise(rng, shape, (3, 130), 2)
    return np.clip(0.65 * wave**1.6 + 0.5 * pores, 0.0, 1.0)


def _print(rng: np.random.Generator, picture: Field, grain: Field, shape: Shape) -> Field:
    """Print the picture on paper: pigment thins along the grain and the tooth, and the paper shows through."""
    tooth = paper(rng, shape)
    ink = 1.0 - picture.mean(axis=2)
    thin = np.clip(0.34 * (grain - 0.25) + 0.12 * tooth + 0.04, 0.0, 0.45) * (0.6 + 0.6 * ink)
    picture = mix(picture, PAPER, thin)
    baren = noise(rng, shape, 150, 4) - 0.5
    picture = picture * (1.0 + 0.06 * tooth + 0.14 * baren)[..., None]
    u, v = plane(shape)
    inset = np.minimum(np.minimum(u, WIDE - u), np.minimum(v, 1 - v)) + 0.004 * (noise(rng, shape, 30, 3) - 0.5)
    picture = mix(picture, np.asarray(KEY), smoothstep(0.017, 0.015, inset) * 0.85)
    return mix(picture, np.asarray(PAPER) * (1.0 + 0.07 * tooth)[..., None], smoothstep(0.0135, 0.0115, inset))
