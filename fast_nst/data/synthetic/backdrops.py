"""Draw the backgrounds of synthetic photographs: skies, grounds, walls, ridges."""

import numpy as np
from PIL import Image

from fast_nst.data.synthetic import shapes, textures
from fast_nst.data.synthetic.scene import Scene, Skin, paint, sloped


def sky(scene: Scene, bottom: int) -> None:
    """Fill the rows above `bottom` with a clear, overcast or dusky sky; set the haze to the color of the horizon."""
    rng, mood = scene.rng, scene.uniform(0, 1)
    if mood < 0.45:  # clear
        zenith, horizon = textures.color(rng, "sky"), textures.color(rng, "white")
        horizon = zenith + scene.uniform(0.1, 0.8) * (horizon - zenith)
    elif mood < 0.8:  # overcast or misty
        horizon = textures.color(rng, "white") * scene.uniform(0.6, 1)
        zenith = horizon * scene.uniform(0.6, 1.05) * (0.96, 1, 1.06)
    else:  # dusk
        horizon, zenith = textures.color(rng, "yellow"), textures.color(rng, "sky") * scene.uniform(0.3, 0.9)
        horizon = horizon + scene.uniform(0, 0.7) * (textures.color(rng, "skin") - horizon)
    t = np.linspace(0, 1, max(bottom, 1), dtype=np.float32) ** scene.uniform(0.7, 2.5)
    zenith, horizon = np.asarray(zenith, np.float32), np.asarray(horizon, np.float32)
    part = scene.canvas[:bottom]
    part[:] = (zenith + t[:, None] * (horizon - zenith))[:, None]
    part *= sloped(scene, part.shape[0], scene.width, scene.uniform(0, 0.12))[..., None]
    scene.haze = horizon
    if scene.chance(0.45) and bottom > 8:
        clouds(scene, bottom)


def clouds(scene: Scene, bottom: int) -> None:
    """Draw clouds over the rows above `bottom`: 1/f noise, softly thresholded and stretched sideways."""
    tones = textures.crop(
        scene.rng, "soft", bottom, max(1, scene.width // 2), scene.uniform(0.6, 1.5), scene.uniform(-0.2, 0.2)
    )
    tones = np.asarray(Image.fromarray(tones).resize((scene.width, bottom), Image.Resampling.BICUBIC), np.float32)
    cover = np.clip((tones - scene.uniform(90, 160)) / scene.uniform(40, 120), 0, 1)[..., None] * scene.uniform(
        0.3, 0.95
    )
    detail = textures.crop(scene.rng, "noise", bottom, scene.width, scene.uniform(1, 2)).astype(np.float32)[..., None]
    bright = textures.color(scene.rng, "white") * scene.uniform(0.8, 1.15)
    part = scene.canvas[:bottom]
    part += cover * (bright * (0.85 + detail * 0.0011) - part)


_GROUNDS = {  # texture, color kind, contrast, zoom
    "grass": ("fur", "green", 0.55, 0.5),
    "meadow": ("litter", "green", 0.55, 0.4),
    "dry": ("fur", "earth", 0.5, 0.5),
    "soil": ("rough", "earth", 0.45, 0.8),
    "gravel": ("litter", "gray", 0.6, 0.5),
    "water": ("waves", "blue", 0.5, 1.0),
    "dark water": ("waves", "dark", 0.6, 1.0),
    "snow": ("soft", "white", 0.2, 1.0),
    "rock": ("cracks", "gray", 0.5, 0.8),
    "stone": ("brick", "gray", 0.35, 0.8),
    "floor": ("planks", "earth", 0.45, 1.0),
    "sand": ("grain", "earth", 0.12, 1.2),
}


def ground(scene: Scene, top: int, tilt: float | None = None) -> None:
    """Fill the rows from `top` down with a slanted textured plane, hazier and smoother toward the horizon."""
    names = list(_GROUNDS)
    texture, kind, contrast, zoom = _GROUNDS[names[int(scene.rng.integers(len(names)))]]
    height = scene.height - top
    if height < 4:
        return
    tilt = scene.uniform(0.8, 2.5) if tilt is None else tilt
    base = textures.color(scene.rng, kind)
    other = scene.tint() if texture in ("waves", "litter") and scene.chance(0.3) else None
    table = textures.ramp(scene.rng, base, contrast * scene.uniform(0.9, 1.8), other)
    part = scene.canvas[top:]
    body = table[textures.crop(scene.rng, texture, height, scene.width, zoom * scene.uniform(0.8, 1.6), tilt=tilt)]
    patches = textures.crop(scene.rng, "soft", height, scene.width, 1.0, tilt=tilt).astype(np.float32)
    body *= (0.7 + patches * (0.6 / 255))[..., None]
    far = (np.linspace(1, 0, height, dtype=np.float32) ** 2.5)[:, None, None] * scene.uniform(0.1, 0.7)
    body += far * (0.6 * table[128] + 0.4 * scene.haze - body)
    body *= sloped(scene, height, scene.width, scene.uniform(0, 0.25))[..., None]
    part[:] = body


def wall(scene: Scene, kinds: tuple[str, ...]) -> None:
    """Fill the canvas with one unevenly lit surface; its texture is one of `kinds`."""
    texture = kinds[int(scene.rng.integers(len(kinds)))]
    tones = textures.crop(
        scene.rng, texture, scene.height, scene.width, scene.uniform(0.3, 1.1), scene.rng.normal(0, 0.1)
    )
    other = scene.tint() if scene.chance(0.35) else None
    base = scene.tint()
    base = base + scene.uniform(0, 0.6) * (base.mean() - base)  # large surfaces are rarely vivid
    body = textures.ramp(scene.rng, base, scene.uniform(0.15, 0.8), other)[tones]
    scene.canvas[:] = body * sloped(scene, scene.height, scene.width, scene.uniform(0, 0.5))[..., None]
    scene.haze = body.mean((0, 1))


def hills(scene: Scene, horizon: float) -> None:
    """Draw one to three ridges or lines of trees against the sky; distant ones are hazy."""
    count = int(scene.rng.integers(1, 4))
    wooded = scene.chance(0.5)
    kind = "green" if wooded or scene.chance(0.3) else ("earth", "gray", "dark")[int(scene.rng.integers(3))]
    for i in range(count):
        rise = scene.unit * scene.uniform(0.03, 0.22) * (count - i) / count
        line = shapes.skyline(scene.rng, scene.uniform(1.1, 2.2)) * rise * 0.45
        x = np.linspace(-5, scene.width + 5, line.size)
        y = np.minimum(horizon - rise + line, horizon)
        outline = np.concatenate([np.stack([x, y], 1), [(scene.width + 5, horizon + 3), (-5, horizon + 3)]])
        near = (i + 1) / count
        skin = Skin(
            textures.color(scene.rng, kind) * 0.8, None, "foliage" if wooded else "noise", 0.5, 0.45, 0.0, 0.2,
            haze=(1 - near) * 0.7 + scene.uniform(0, 0.15), rough=0.15 * near if wooded else 0.0,
        )  # fmt: skip
        paint(scene, [outline], skin)
