"""Compose synthetic photographs: which backdrops and things, where, and how many."""

import numpy as np

from fast_nst.data.synthetic import shapes, textures
from fast_nst.data.synthetic.backdrops import ground, hills, sky, wall
from fast_nst.data.synthetic.scene import Scene, Skin, defocus, paint
from fast_nst.data.synthetic.things import (
    animal,
    building,
    bush,
    flower,
    flyer,
    leaf,
    lines,
    litter,
    person,
    rock,
    tree,
    windows,
)

THINGS = {"tree": tree, "bush": bush, "rock": rock, "building": building, "animal": animal, "person": person,
           "flower": flower, "flyer": flyer, "leaf": leaf}  # fmt: skip


def populate(scene: Scene, horizon: float, names: tuple[str, ...], count: int, largest: float) -> None:
    """Place `count` things on the ground from far to near, with sizes in perspective."""
    sizes = np.sort(textures.power_law(scene.rng, 0.12, 1.0, count))
    for near in sizes:
        name = names[int(scene.rng.integers(len(names)))]
        size = near * largest * scene.unit * (0.35 if name in ("flower", "rock", "bush") else 1)
        foot = horizon + (scene.height - horizon) * near * scene.uniform(0.5, 1.1)
        THINGS[name](scene, scene.uniform(0, scene.width), foot, size, haze=0.5 * max(0.0, 0.5 - near), blur=0.0)


def pick(scene: Scene, *names: str) -> tuple[str, ...]:
    """Choose one to three of the names, because one photograph shows few kinds of things."""
    return tuple(scene.rng.choice(names, int(scene.rng.integers(1, 4))))


def landscape(scene: Scene) -> None:
    """Draw sky, ridges, ground and things on it."""
    horizon = int(scene.height * scene.uniform(0.12, 0.75))
    if scene.chance(0.4):  # no visible sky: a forest, a slope, a bank
        wall(scene, ("foliage", "litter", "noise", "cracks", "rough"))
        scene.haze = scene.haze * 0.8
        hedge = (bush, tree, rock)[int(scene.rng.integers(3))]
        for _ in range(int(scene.rng.integers(0, 14))):
            size = scene.unit * scene.uniform(0.05, 0.2)
            hedge(scene, scene.uniform(0, scene.width), horizon + scene.uniform(0, 4), size, 0.1, 0.0)
    else:
        sky(scene, horizon + 1)
        if scene.chance(0.75):
            hills(scene, horizon + 1)
    ground(scene, horizon)
    names = pick(scene, "tree", "bush", "rock", "building", "animal", "person", "tree", "bush")
    populate(scene, horizon, names, int(scene.rng.integers(3, 22)), scene.uniform(0.2, 0.7))
    if scene.chance(0.5):
        litter(scene, horizon + 0.3 * (scene.height - horizon), int(scene.rng.integers(30, 250)),
               scene.unit * scene.uniform(0.01, 0.06), scene.chance(0.6))  # fmt: skip
    if scene.chance(0.2):
        lines(scene, int(scene.rng.integers(1, 9)), 0.0)


def close_up(scene: Scene) -> None:
    """Draw dead leaves of one to three kinds over a surface."""
    wall(scene, ("noise", "rough", "litter", "fur", "foliage", "cracks", "brick", "waves"))
    names = pick(scene, "leaf", "leaf", "leaf", "rock", "flower", "bush")
    for r in textures.power_law(scene.rng, 0.035, 0.6, int(scene.rng.integers(20, 140))):
        name = names[int(scene.rng.integers(len(names)))]
        THINGS[name](
            scene, scene.uniform(0, scene.width), scene.uniform(0, scene.height * 1.1), r * scene.unit, 0.0, 0.0
        )
    if scene.chance(0.3):
        lines(scene, int(scene.rng.integers(2, 20)), 0.0)


def subject(scene: Scene) -> None:
    """Draw one to three large figures in front of a background that is often out of focus."""
    if scene.chance(0.5):
        wall(scene, ("noise", "soft", "foliage", "litter", "waves", "rough"))
    else:
        horizon = int(scene.height * scene.uniform(0.1, 0.6))
        sky(scene, horizon + 1)
        ground(scene, horizon)
    for r in textures.power_law(scene.rng, 0.06, 0.5, int(scene.rng.integers(0, 25))):
        leaf(scene, scene.uniform(0, scene.width), scene.uniform(0, scene.height * 1.2), r * scene.unit, 0.0, 0.0)
    if scene.chance(0.6):
        defocus(scene, scene.unit * scene.uniform(0.003, 0.04))
    main = ("animal", "animal", "person", "face", "face", "flower", "flyer", "tree", "rock")[int(scene.rng.integers(9))]
    for _ in range(int(scene.rng.choice([1, 1, 1, 2, 3]))):
        x, size = scene.width * scene.uniform(0.2, 0.8), scene.unit * scene.uniform(0.22, 0.6)
        if main == "face":
            tall = size * scene.uniform(1.5, 3.5)
            head = scene.height * scene.uniform(0.2, 0.45)
            person(scene, x, head + 1.72 * tall, tall, 0.0, 0.0)  # the feet are usually outside the picture
        else:
            foot = scene.height * scene.uniform(0.7, 1.05)
            THINGS[main](scene, x, foot, size, 0.0, 0.0)
    if scene.chance(0.5):
        litter(scene, scene.height * scene.uniform(0.6, 0.95), int(scene.rng.integers(10, 120)), scene.unit * 0.07,
               scene.chance(0.7))  # fmt: skip


def built(scene: Scene) -> None:
    """Draw a facade or a room: masonry, openings, boxes, poles and people."""
    wall(scene, ("brick", "planks", "panes", "noise", "soft"))
    if scene.chance(0.7):
        ground(scene, int(scene.height * scene.uniform(0.6, 0.92)), 1.0)
    for _ in range(int(scene.rng.integers(1, 7))):
        x, y = scene.uniform(0, scene.width), scene.uniform(0, scene.height)
        w, h = scene.unit * textures.power_law(scene.rng, 0.05, 0.4, 2)
        texture = ("planks", "panes", "noise", "brick", "stripes")[int(scene.rng.integers(5))]
        paint(scene, [shapes.rectangle(x - w, y - h, x + w, y + h)],
              Skin(scene.tint(), None, texture, 0.4, scene.uniform(0.4, 1.2), relief=0.0, shadow=0.4))  # fmt: skip
        if scene.chance(0.5):
            windows(scene, x - w, y - h, x + w, y + h, {"relief": 0.0})
    populate(scene, scene.height * 0.7, pick(scene, "person", "person", "leaf", "flower", "animal"),
             int(scene.rng.integers(0, 6)), scene.uniform(0.2, 0.5))  # fmt: skip
    if scene.chance(0.5):
        lines(scene, int(scene.rng.integers(1, 12)), 0.0)


def bare(scene: Scene) -> None:
    """Draw an almost empty scene: a smooth sky or ground and a single thing."""
    if scene.chance(0.6):
        sky(scene, scene.height)
    else:
        ground(scene, 0, 0.8)
    if scene.chance(0.4):
        hills(scene, scene.height * scene.uniform(0.85, 1.1))
    name = ("flyer", "flyer", "animal", "person", "tree", "rock")[int(scene.rng.integers(6))]
    THINGS[name](scene, scene.width * scene.uniform(0.2, 0.8), scene.height * scene.uniform(0.5, 1),
                  scene.unit * scene.uniform(0.06, 0.3), 0.0, 0.0)  # fmt: skip


def night(scene: Scene) -> None:
    """Draw a dark landscape with glowing lights."""
    landscape(scene)
    scene.canvas *= scene.uniform(0.05, 0.25)
    scene.canvas *= np.array([0.8, 0.95, 1.3], np.float32)
    for r in textures.power_law(scene.rng, 0.004, 0.05, int(scene.rng.integers(8, 50))) * scene.unit:
        x, y = scene.uniform(0, scene.width), scene.height * scene.uniform(0.1, 0.95)
        lamp = textures.color(scene.rng, ("yellow", "white", "any")[int(scene.rng.integers(3))])
        paint(scene, [shapes.ellipse(x, y, r, r)], Skin(lamp, contrast=0.1, relief=0.0, blur=2.5 * r))
        paint(scene, [shapes.ellipse(x, y, r, r)], Skin(np.minimum(lamp * 1.4, 1), contrast=0.1, relief=0.0, blur=0.3))


LAYOUTS = (landscape, subject, close_up, built, bare, night)
# Probabilities of the layouts: most photographs show a place or a subject; few are nearly empty or taken at night.
SHARES = (0.36, 0.29, 0.18, 0.1, 0.05, 0.02)
