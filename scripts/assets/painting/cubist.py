"""`cubist`: a still life with guitar, bottle and fruit, in facets that each show another viewpoint."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .cells import Panes, leading, shards
from .fields import Field, look_up, mix, noise, pick, smoothstep, spline
from .strokes import Canvas, lay, scatter, straight
from .surface import finish, relief, weave

SIZE = (800, 960)
SCALE = 2
UNITS = 1000  # height of the motif's drawing grid; the width is in proportion

OCHRES = ((196, 142, 64), (222, 178, 96), (150, 96, 48), (240, 214, 150), (108, 66, 42))
BLUES = ((34, 62, 110), (62, 104, 150), (24, 40, 72), (120, 156, 176), (74, 124, 130))
REDS = ((170, 58, 40), (206, 96, 52), (122, 36, 40))
# Fruit on the motif's grid: center and radius, color, color of the light side.
FRUIT = (
    ((660, 800, 66), (222, 128, 40), (250, 186, 90)),
    ((748, 842, 58), (176, 40, 44), (226, 110, 90)),
    ((690, 900, 60), (214, 178, 60), (246, 226, 140)),
    ((590, 880, 46), (96, 124, 62), (166, 186, 104)),
)
LINE = ((28, 24, 30), (44, 32, 30))


def _motif(size: tuple[int, int]) -> Image.Image:
    """Draw the still life in flat shapes, before it is broken into facets."""
    k = size[1] / UNITS
    image = Image.new("RGB", size, (52, 84, 126))
    draw = ImageDraw.Draw(image)

    def shape(points: list, color: tuple) -> None:
        draw.polygon([(x * k, y * k) for x, y in points], fill=color)

    def disc(x: float, y: float, r: float, color: tuple, squash: float = 1.0) -> None:
        draw.ellipse([(x - r) * k, (y - r * squash) * k, (x + r) * k, (y + r * squash) * k], fill=color)

    def line(points: list, color: tuple, broad: float) -> None:
        draw.line([(x * k, y * k) for x, y in points], fill=color, width=max(1, round(broad * k)), joint="curve")

    shape([(0, 0), (300, 0), (180, 560), (0, 620)], (28, 44, 82))
    shape([(560, 0), (834, 0), (834, 520), (640, 560)], (106, 142, 162))
    shape([(300, 0), (430, 0), (380, 540), (250, 560)], (176, 70, 50))
    shape([(0, 600), (834, 500), (834, 1000), (0, 1000)], (150, 92, 52))
    shape([(60, 660), (790, 560), (834, 880), (420, 1000), (90, 960)], (226, 196, 134))
    for i in range(9):
        line([(70 + 4 * i, 690 + 30 * i), (800, 585 + 34 * i)], (196, 156, 96), 5)
    shape([(90, 800), (330, 745), (390, 890), (140, 955)], (236, 226, 200))
    for i in range(7):
        line([(120 + 7 * i, 815 + 19 * i), (320 + 8 * i, 768 + 19 * i)], (70, 60, 60), 5)
    # Bottle and glass.
    shape([tuple(p) for p in spline([(120, 330), (118, 430), (92, 500), (88, 600), (92, 760), (200, 760), (206, 600),
                                     (202, 500), (172, 430), (170, 330)], 120)], (36, 92, 84))  # fmt: skip
    shape([(112, 300), (178, 300), (176, 350), (114, 350)], (188, 60, 44))
    shape([(92, 580), (204, 570), (203, 680), (92, 690)], (236, 214, 150))
    line([(112, 410), (108, 560)], (150, 196, 170), 9)
    shape(
        [
            (660, 480),
            (780, 480),
            (752, 610),
            (730, 625),
            (730, 700),
            (770, 715),
            (670, 715),
            (712, 700),
            (712, 625),
            (690, 610),
        ],
        (196, 214, 214),
    )
    shape([(668, 530), (773, 530), (752, 606), (690, 606)], (152, 40, 56))
    # Guitar, tilted to the right.
    body = spline([(330, 470), (270, 520), (300, 600), (262, 680), (300, 800), (430, 850), (560, 810), (600, 700),
                   (556, 610), (574, 520), (500, 455), (410, 440)], 240, closed=True)  # fmt: skip
    shape([(x + 14, y + 16) for x, y in body], (60, 38, 36))
    shape([tuple(p) for p in body], (206, 136, 60))
    inner = (body - body.mean(axis=0)) * 0.86 + body.mean(axis=0)
    shape([tuple(p) for p in inner], (228, 170, 88))
    shape([(436, 560), (486, 566), (590, 80), (548, 70)], (74, 44, 38))
    shape([(540, 90), (606, 104), (626, 20), (560, 0)], (122, 66, 42))
    disc(452, 590, 62, (196, 110, 52))
    disc(452, 590, 50, (36, 26, 30))
    shape([(356, 740), (500, 768), (496, 792), (352, 764)], (74, 40, 34))
    for i in range(6):
        line([(374 + 22 * i, 750 + 4.4 * i), (554 + 8 * i, 90)], (246, 232, 190), 3)
    for i in range(8):
        line([(480 + 12.4 * i, 480 - 54 * i), (516 + 10.4 * i, 488 - 54 * i)], (222, 190, 120), 4)
    # Fruit.
    for (x, y, r), color, lit in FRUIT:
        disc(x + 10, y + 12, r, (70, 48, 60))
        disc(x, y, r, color)
        disc(x - 0.28 * r, y - 0.28 * r, 0.52 * r, lit)
    return image


def _broken(rng: np.random.Generator, motif: Field, panes: Panes, turn: float, shift: float) -> Field:
    """Return the motif rotated, moved and scaled about the center of each pane."""
    height, width = panes.index.shape
    angle = rng.normal(0.0, turn, panes.count)
    scale = np.exp(rng.normal(0.0, 0.14, panes.count))
    moved = rng.normal(0.0, shift * height, (panes.count, 2))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = x - panes.center[panes.index, 0], y - panes.center[panes.index, 1]
    cos, sin = (scale * np.cos(angle))[panes.index], (scale * np.sin(angle))[panes.index]
    from_x = cos * dx - sin * dy + (panes.center + moved)[panes.index, 0]
    from_y = sin * dx + cos * dy + (panes.center + moved)[panes.index, 1]
    # Reflect at the edge, because clamping would smear the border into streaks.
    from_x = np.abs(width - 1 - np.abs(width - 1 - np.abs(from_x)))
    from_y = np.abs(height - 1 - np.abs(height - 1 - np.abs(from_y)))
    return look_up(motif, from_x, from_y)


def cubist(rng: np.random.Generator) -> Image.Image:
    shape = (SIZE[1] * SCALE, SIZE[0] * SCALE)
    motif = np.asarray(_motif((shape[1], shape[0])).filter(ImageFilter.GaussianBlur(2)), np.float32) / 255.0

    # Two layers of facets: large ones that carry the objects, and narrow ones over them.
    large = Panes.of(shards(rng, shape, 6, (0.35, 1.25, 1.95, 2.75), 0.10))
    slender = Panes.of(shards(rng, shape, 8, (0.15, 0.75, 1.45, 2.35, 2.95), 0.042))
    picture = _broken(rng, motif, large, 0.12, 0.014)
    over = _broken(rng, motif, slender, 0.30, 0.035)
    turn = rng.uniform(0, 2 * np.pi, slender.count)
    slope = slender.slope(turn)
    picture = mix(picture, over, smoothstep(-0.7, 1.0, slope) * (rng.random(slender.count) < 0.6)[slender.index])
    # Planes of plain color that fade from one side to the other.
    for panes, colors, share, weight in (
        (large, OCHRES + BLUES, 0.45, 0.75),
        (slender, BLUES + OCHRES + REDS, 0.45, 0.80),
    ):
        plain = pick(rng, colors, panes.count, 0.04)[panes.index]
        lean = panes.slope(rng.uniform(0, 2 * np.pi, panes.count))
        picture = mix(
            picture, plain, weight * smoothstep(-0.1, 1.3, lean) * (rng.random(panes.count) < share)[panes.index]
        )
    angle_large, angle_slender = rng.uniform(0, 2 * np.pi, large.count), rng.uniform(0, 2 * np.pi, slender.count)
    light = 1.0 + 0.34 * large.slope(angle_large) + 0.30 * slender.slope(angle_slender)
    picture = picture * np.clip(light, 0.5, 1.6)[..., None]
    gray = picture.mean(axis=-1, keepdims=True)
    picture = np.clip(gray + 1.22 * (picture - gray), 0.0, 1.0)

    # Hatch the picture, in one direction per facet, so that each facet still reads as a plane.
    canvas = Canvas.primed(shape, (120, 92, 64))
    both = Panes.of(large.index.astype(np.int64) * slender.count + slender.index)
    hatch = np.where(rng.random(slender.count) < 0.5, turn, turn + np.pi / 2)
    everywhere = np.ones(shape, np.float32)
    for count, length, width, spread in ((7000, 90, 30, 0.03), (20000, 50, 14, 0.045), (26000, 32, 8.0, 0.055)):
        start = scatter(rng, count, everywhere)
        pane = look_up(slender.index, *start.T)
        angle = hatch[pane] + rng.normal(0.0, 0.10, len(start))
        color = look_up(picture, *start.T) + rng.normal(0.0, spread, (len(start), 1))
        paths = straight(start, length * rng.uniform(0.6, 1.3, len(start)), angle, 0.1)
        lay(canvas, rng, paths, width * rng.uniform(0.7, 1.2, len(start)), color, dryness=0.25, streak=0.35,
            blunt=10.0, within=(both.index, look_up(both.index, *start.T)))  # fmt: skip

    # Contours: dark broken lines along the facets' edges, each next to a pale one.
    shaky = noise(rng, shape, 40, 3)
    for panes, strength, broad in ((large, 0.95, 6.0), (slender, 0.70, 3.5)):
        edge = leading(panes.index, broad)[0]
        some = smoothstep(0.40, 0.58, noise(rng, shape, 260, 2))
        canvas.color[:] = mix(
            canvas.color, np.asarray(LINE[0]) / 255.0, np.clip(strength * edge * some * (0.45 + 1.1 * shaky), 0, 1)
        )
        glow = np.clip(np.roll(edge, (7, 7), (0, 1)) - edge, 0.0, 1.0)
        canvas.color[:] = mix(canvas.color, (0.95, 0.88, 0.72), 0.30 * glow * some)
    _contours(canvas, rng)
    return finish(relief(canvas.color, canvas.thickness + 0.6 * weave(shape, 5.0), 0.36), SIZE)


def _contours(canvas: Canvas, rng: np.random.Generator) -> None:
    """Redraw the objects' outlines in broken, shifted charcoal lines, so that they stay recognizable."""
    k = canvas.shape[0] / UNITS
    curves = [
        spline(points, 70) + np.asarray(slip)
        for points, slip in (
            ([(330, 470), (270, 520), (300, 600), (262, 680), (300, 800), (430, 850)], (0, 0)),
            ([(560, 810), (600, 700), (556, 610), (574, 520), (500, 455)], (16, -8)),
            ([(430, 850), (500, 845), (560, 810)], (-10, 14)),
            ([(120, 330), (118, 430), (92, 500), (88, 600), (92, 760)], (-8, 0)),
            ([(206, 740), (206, 600), (202, 500), (172, 430), (170, 330)], (12, 10)),
            ([(436, 560), (500, 290), (548, 70)], (0, 0)),
            ([(486, 566), (545, 300), (590, 80)], (8, 0)),
            ([(660, 480), (690, 610), (712, 630), (712, 700)], (0, 0)),
            ([(780, 480), (752, 610), (730, 630), (730, 700)], (0, 0)),
        )
    ]
    t = np.linspace(0, 5.2, 60)
    curves.append(np.stack([452 + 56 * np.cos(t), 590 + 56 * np.sin(t)], axis=-1))
    for (x, y, r), _, _ in FRUIT:
        t = np.linspace(rng.uniform(0, 3), rng.uniform(5.5, 8.5), 60)
        curves.append(np.stack([x + r * np.cos(t), y + r * np.sin(t)], axis=-1))
    for curve in curves:
        pieces = np.stack([curve[i : i + 9] for i in range(0, len(curve) - 9, 6)]) * k
        pieces = pieces + rng.normal(0.0, 1.5, (len(pieces), 1, 2))
        lay(
            canvas,
            rng,
            pieces.astype(np.float32),
            rng.uniform(8.0, 15.0, len(pieces)),
            pick(rng, LINE, len(pieces), 0.02),
            dryness=0.45,
            opacity=0.9,
            blunt=4.0,
        )
    for i in range(6):
        string = np.linspace((374 + 22 * i, 750 + 4.4 * i), (554 + 8 * i, 90), 9)[None] * k
        lay(
            canvas,
            rng,
            string.astype(np.float32),
            np.full(1, 4.0),
            pick(rng, ((246, 232, 190),), 1, 0.02),
            dryness=0.5,
            blunt=4.0,
        )
