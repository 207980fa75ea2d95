"""Draw the things in synthetic photographs: plants, rocks, buildings, animals, people.

Each stands at (x, foot) in pixels and is about 2 * `size` pixels tall. haze: share of the scene's haze color, 0 to 1.
blur: the defocus in pixels.
"""

from typing import Any

import numpy as np

from fast_nst.data.synthetic import shapes, textures
from fast_nst.data.synthetic.scene import Scene, Skin, paint


def tree(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a tree: bare, leafy or a conifer."""
    rng, bark = scene.rng, textures.color(scene.rng, "dark")
    trunk = shapes.place(shapes.twigs(rng, 3 if size > 0.15 * scene.unit else 2), x, foot - size, size)
    paint(scene, trunk, Skin(bark, texture="fur", relief=0.0, blur=blur, haze=haze))
    if scene.chance(0.2):
        return
    leaf = textures.color(rng, "green" if scene.chance(0.8) else "earth") * scene.uniform(0.6, 1.1)
    skin = Skin(leaf, None, "foliage", 0.75, scene.uniform(0.3, 0.7), 0, 0.5, rough=0.35, blur=blur, haze=haze)
    if scene.chance(0.3):
        cone = np.array([(0, -1.9), (0.5, 0.6), (-0.5, 0.6)])
        paint(scene, shapes.place([cone], x, foot - size, size), skin)
    else:
        for dx, dy in rng.normal(0, 0.35, (3, 2)):
            crown = shapes.place(
                [shapes.blob(rng)], x + dx * size, foot - size * (1.3 - dy), size * scene.uniform(0.4, 0.75)
            )
            paint(scene, crown, skin)


def bush(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a bush, a tuft or a splash: a ragged blob."""
    kind = ("green", "green", "earth", "white")[int(scene.rng.integers(4))]
    texture = ("foliage", "litter", "fur")[int(scene.rng.integers(3))]
    skin = Skin(textures.color(scene.rng, kind), None, texture, 0.65, scene.uniform(0.3, 0.7), 0, 0.5,
                rough=0.4, blur=blur, haze=haze, shadow=0.3)  # fmt: skip
    paint(scene, shapes.place([shapes.blob(scene.rng)], x, foot - size * 0.5, size), skin)


def rock(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a boulder with cracks, lit from one side."""
    kind = ("gray", "earth", "dark")[int(scene.rng.integers(3))]
    shape = shapes.blob(scene.rng, 0.15) if scene.chance(0.6) else shapes.facets(scene.rng)
    skin = Skin(textures.color(scene.rng, kind), None, ("cracks", "rough", "noise")[int(scene.rng.integers(3))],
                0.5, scene.uniform(0.4, 1), scene.uniform(0, 6), 0.7, blur=blur, haze=haze, shadow=0.5)  # fmt: skip
    paint(scene, shapes.place([shape], x, foot - size * 0.6, size), skin)


def building(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a house or a tower: a wall, often a roof and a darker side, and a grid of windows."""
    wide, tall = size * scene.uniform(0.5, 1.3), size * scene.uniform(0.8, 2.2)
    left, top, right = x - wide, foot - tall, x + wide
    face = scene.tint()
    texture = ("noise", "brick", "planks", "soft")[int(scene.rng.integers(4))]
    plain = {"relief": 0.0, "blur": blur, "haze": haze}
    paint(scene, [shapes.rectangle(left, top, right, foot)],
          Skin(face, None, texture, 0.3, scene.uniform(0.4, 0.9), shadow=0.3, **plain))  # fmt: skip
    if scene.chance(0.5):
        turn = wide * scene.uniform(0.2, 0.7) * (1 if scene.light[0] < 0 else -1)
        edge = right if turn > 0 else left
        side = np.array([(edge, top), (edge + turn, top + abs(turn) * 0.3), (edge + turn, foot), (edge, foot)])
        paint(scene, [side], Skin(face * 0.5, None, texture, 0.3, 0.5, **plain))
    if scene.chance(0.6):
        peak = np.array(
            [(left * 1.03 - 0.03 * x, top + 2), (x, top - wide * scene.uniform(0.3, 1)), (right + 3, top + 2)]
        )
        paint(scene, [peak], Skin(textures.color(scene.rng, "earth"), None, "brick", 0.4, 0.4, **plain))
    windows(scene, left, top, right, foot, plain)


def windows(scene: Scene, left: float, top: float, right: float, foot: float, plain: dict) -> None:
    """Draw a grid of dark or lit windows on a wall."""
    columns, rows = int(scene.rng.integers(1, 7)), int(scene.rng.integers(1, 7))
    u, v = scene.uniform(0.3, 0.7), scene.uniform(0.35, 0.75)
    dx, dy = (right - left) / columns, (foot - top) / rows
    panes = [
        shapes.rectangle(
            left + (i + 0.5 - u / 2) * dx,
            top + (j + 0.5 - v / 2) * dy,
            left + (i + 0.5 + u / 2) * dx,
            top + (j + 0.5 + v / 2) * dy,
        )
        for i in range(columns)
        for j in range(rows)
        if scene.rng.random() < 0.93
    ]
    glass = textures.color(scene.rng, "dark" if scene.chance(0.75) else "white")
    if panes:
        paint(scene, panes, Skin(glass, None, "panes", 0.5, 0.4, **plain))


def animal(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a four-legged animal with a plain, spotted or striped coat, and an eye."""
    rng = scene.rng
    coat = textures.color(rng, ("earth", "earth", "dark", "gray", "white")[int(rng.integers(5))])
    pattern = ("fur", "fur", "noise", "spots", "stripes")[int(rng.integers(5))]
    other = textures.color(rng, "dark") if pattern in ("spots", "stripes") else None
    shape, flip = shapes.animal(rng), scene.chance(0.5)
    placed = shapes.place(shape, x, foot - size * 0.8, size, rng.normal(0, 0.05), flip)
    contrast, zoom = scene.uniform(0.3, 0.6), max(0.3, size / scene.unit * 1.6)
    paint(scene, placed, Skin(coat, other, pattern, contrast, zoom, scene.uniform(0, 1.5), 0.6, rough=0.04, blur=blur,
                              shadow=0.45, haze=haze))  # fmt: skip
    if size > 0.1 * scene.unit:
        ex, ey = placed[4].mean(0)
        paint(scene, [shapes.ellipse(ex, ey - 0.03 * size, 0.03 * size, 0.03 * size)],
              Skin(np.full(3, 0.03, np.float32), relief=0.0, contrast=0.1, blur=blur))  # fmt: skip


def person(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a standing figure: legs, coat, arms and head."""
    rng, lens = scene.rng, {"blur": blur, "haze": haze}
    cloth = ("folds", "folds", "stripes", "noise", "spots")[int(rng.integers(5))]
    lean, wide = rng.normal(0, 0.06), scene.uniform(0.2, 0.32)
    hem = scene.uniform(0.05, 0.5)
    legs = [
        shapes.limb(s * 0.1, 0.1, s * scene.uniform(0.08, 0.3), 1, 0.12, 0.07, rng.normal(0, 0.05)) for s in (-1, 1)
    ]
    coat = [shapes.limb(0, -0.4, 0, hem, wide * 0.92, wide * scene.uniform(0.7, 1.4)),
            shapes.ellipse(0, -0.4, wide, 0.14), shapes.ellipse(0, hem, wide * 0.8, 0.06)]  # fmt: skip
    arms = [shapes.limb(s * wide * 0.9, -0.4, s * wide * scene.uniform(0.6, 2), scene.uniform(-0.4, 0.35), 0.1, 0.06,
                        s * 0.2) for s in (-1, 1)]  # fmt: skip
    middle = foot - size
    for part, relief in ((legs, 0.5), (coat, 0.7), (arms, 0.5)):
        skin = Skin(
            scene.tint(), None, cloth, 0.6, scene.uniform(0.4, 1.2), scene.uniform(0, 3), relief, shadow=0.3, **lens
        )
        paint(scene, shapes.place(part, x, middle, size, lean), skin)
    face(scene, x + lean * size * 0.7, middle - 0.72 * size, 0.19 * size, blur, haze)


def face(scene: Scene, x: float, y: float, size: float, blur: float, haze: float = 0.0) -> None:
    """Draw a head: neck, hair or hat, a shaded oval, and, if large enough, eyes, brows, nose and mouth."""
    rng, turn = scene.rng, scene.rng.normal(0, 0.12)
    lens = {"blur": blur, "haze": haze}
    skin = textures.color(rng, "skin") * scene.uniform(0.6, 1.05)
    hair = textures.color(rng, ("dark", "dark", "earth", "white", "any")[int(rng.integers(5))])
    side = rng.normal(0, 0.18)

    def add(part: shapes.Shape, color: np.ndarray, relief: float, texture: str = "folds", contrast: float = 0.25,
            rough: float = 0.0, shadow: float = 0.0) -> None:  # fmt: skip
        paint(scene, shapes.place(part, x, y, size, turn),
              Skin(color, None, texture, contrast, 1.0, 0.3, relief, 0.1, rough, shadow=shadow, **lens))  # fmt: skip

    long = scene.uniform(-0.1, 0.9)
    add([shapes.ellipse(0, -0.15 + 0.4 * long, 0.95, 1.1 + 0.4 * long)], hair, 0.5, "fur", 0.6, 0.1, 0.3)
    add([shapes.limb(0, 0.4, 0, 1.5, 0.4, 0.45)], skin * 0.75, 0.3)
    add([shapes.ellipse(0, 0.05, 0.74, 0.98)], skin, 0.8)
    if size < 0.035 * scene.unit:
        return
    add([shapes.ellipse(side * 0.5, -0.8, 0.75, 0.38)], hair, 0.4, "fur", 0.6, 0.12)
    eye, brow = scene.uniform(0.05, 0.1), skin * 0.25
    for s in (-1, 1):
        ex = s * 0.32 + side
        add([shapes.ellipse(ex, -0.06, 0.19, 0.13)], skin * 0.6, 0.0)
        add([shapes.ellipse(ex, -0.05, 0.13, eye)], np.array([0.75, 0.71, 0.68], np.float32), 0.2)
        add([shapes.ellipse(ex + side * 0.1, -0.05, 0.065, 0.065)], np.array([0.07, 0.05, 0.04], np.float32), 0.0)
        add([shapes.limb(ex - 0.17, -0.23, ex + 0.17, -0.25, 0.03, 0.02, s * 0.1)], brow, 0.0, "fur", 0.4)
    add([shapes.limb(side * 1.3, -0.1, side * 1.7, 0.28, 0.06, 0.13)], skin * 1.12, 0.7)
    add([shapes.ellipse(side * 1.7, 0.36, 0.14, 0.04)], skin * 0.45, 0.0)
    add(
        [shapes.ellipse(side * 1.2, 0.58, 0.25, scene.uniform(0.05, 0.11))],
        skin * np.array([0.85, 0.5, 0.5], np.float32),
        0.4,
    )


def flower(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a flower on a stem: a ring of petals in one color and a center in another."""
    rng, y = scene.rng, foot - size
    stem = shapes.limb(x, y, x + rng.normal(0, size), y + 3 * size, 0.05 * size, 0.08 * size, rng.normal(0, 0.1))
    lens: dict[str, Any] = {"blur": blur, "haze": haze}
    paint(scene, [stem], Skin(textures.color(rng, "green"), texture="fur", **lens))
    kind = ("red", "yellow", "white", "any")[int(rng.integers(4))]
    ring, tint = shapes.petals(rng), textures.color(rng, kind)
    for part in (ring[::2], ring[1::2]):
        paint(scene, shapes.place(part, x, y, size), Skin(tint, None, "noise", 0.4, 0.7, 0, 0.7, shadow=0.35, **lens))
    center = shapes.place([shapes.ellipse(0, 0, 0.26, 0.22)], x, y, size)
    paint(scene, center, Skin(textures.color(rng, "yellow"), None, "litter", 0.6, 0.4, 0, 0.6, shadow=0.3, **lens))


def flyer(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw a bird in flight."""
    dark = textures.color(scene.rng, "dark" if scene.chance(0.6) else "gray")
    placed = shapes.place(shapes.bird(scene.rng), x, foot - size, size, scene.rng.normal(0, 0.5))
    paint(scene, placed, Skin(dark, None, "fur", 0.5, 0.6, 0.5, 0.4, blur=blur, haze=haze))


def leaf(scene: Scene, x: float, foot: float, size: float, haze: float, blur: float) -> None:
    """Draw one leaf of the dead-leaves model: any outline, any palette color, any texture."""
    rng = scene.rng
    pick = int(rng.integers(5))
    if pick == 0:
        outline = [shapes.ellipse(b=scene.uniform(0.25, 1))]
    elif pick == 1:
        outline = [shapes.blob(rng)]
    elif pick == 2:
        outline = [shapes.facets(rng)]
    elif pick == 3:
        outline = [shapes.rectangle(-1, -(t := scene.uniform(0.1, 0.9)), 1, t)]
    else:
        outline = [shapes.limb(-1, 0, 1, 0, scene.uniform(0.02, 0.25), scene.uniform(0.02, 0.15), rng.normal(0, 0.15))]
    names = ("noise", "soft", "rough", "fur", "litter", "cracks", "stripes", "spots", "foliage", "planks", "folds")
    texture = names[int(rng.integers(len(names)))]
    other = scene.tint() if scene.chance(0.2) else None
    skin = Skin(scene.tint(), other, texture, scene.uniform(0.05, 0.7), float(np.exp(scene.uniform(-1.2, 0.6))),
                scene.uniform(0, 6), scene.uniform(0, 0.9), scene.uniform(0, 0.4), shadow=scene.uniform(0, 0.6),
                blur=blur, haze=haze)  # fmt: skip
    paint(scene, shapes.place(outline, x, foot - size, size, scene.uniform(0, 6.28)), skin)


def lines(scene: Scene, count: int, blur: float) -> None:
    """Draw wires, poles, stems and branches across the picture: long, thin, dark or light."""
    h, w = scene.height, scene.width
    tilt, tint = scene.uniform(0, np.pi), scene.tint() * scene.uniform(0.3, 1.2)
    paths = []
    for _ in range(count):
        angle, reach = tilt + scene.rng.normal(0, 0.25), scene.unit * scene.uniform(0.2, 1)
        x, y, dx, dy = scene.uniform(0, w), scene.uniform(0, h), reach * np.cos(angle), reach * np.sin(angle)
        thick = scene.unit * 0.002 * np.exp(scene.uniform(-0.5, 2))
        paths.append(
            shapes.limb(x - dx, y - dy, x + dx, y + dy, thick, thick * scene.uniform(0.3, 1), scene.rng.normal(0, 0.1))
        )
    paint(scene, paths, Skin(tint, texture="fur", relief=0.0, blur=blur))


def litter(scene: Scene, top: float, count: int, largest: float, slim: bool) -> None:
    """Draw many small leaves or blades in two colors, larger toward the viewer."""
    rng = scene.rng
    shape: shapes.Shape = []
    depth = rng.uniform(0.02, 1, count) ** 0.7
    for near in np.sort(depth):
        x, y, r = scene.uniform(0, scene.width), top + near * (scene.height - top), near * largest * rng.uniform(0.3, 1)
        if slim:
            shape.append(np.array([(x, y), (x + rng.normal(0, 0.6) * r, y - 2 * r), (x + 0.25 * r, y)]))
        else:
            shape.append(shapes.ellipse(x, y, r, r * rng.uniform(0.3, 1), rng.uniform(0, 3), points=10))
    for part in (shape[::2], shape[1::2]):
        paint(scene, part, Skin(scene.tint(), texture="litter", relief=0.0, contrast=0.6, zoom=0.3, shadow=0.0))
