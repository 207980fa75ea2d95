"""Digits in several styles, for adversarial generation: a style is an ink and a ground, each a color or a painting."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageColor
from torch import Tensor
from torch.utils.data import Dataset

from fast_nst import image
from fast_nst.data.batch import Batch
from fast_nst.data.dataset import ContentImages
from fast_nst.errors import UserError


class PaintedDigits(Dataset[Batch]):
    """{"content": (3, S, S), "style": (K,)}: digits, painted in the K `styles` in turn.

    digits: white on black, (3, S, S) each. styles: names such as "black_on_white" or "white_on_starry_night", made
    of CSS colors and bundled paintings. An item depends only on the seed of `digits` and its position. Raises UserError
    for an unknown name.
    """

    def __init__(self, digits: ContentImages, styles: Sequence[str]) -> None:
        self.digits, self.styles = digits, [parse_style(name, digits.size) for name in styles]

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, position: int) -> Batch:
        index = position % len(self.styles)
        rng = np.random.default_rng((self.digits.seed, position, 2))
        style = F.one_hot(torch.tensor(index), len(self.styles)).float()
        return {"content": paint(self.digits[position], self.styles[index], rng), "style": style}


def paint(digit: Tensor, style: tuple[Tensor, Tensor], rng: np.random.Generator) -> Tensor:
    """Paint a white-on-black digit, (3, S, S), in a style from `parse_style`; crop its paintings at random."""
    ink, ground = (_crop(paint, digit.shape[1], rng) for paint in style)
    return torch.lerp(ground, ink, digit)


def parse_style(name: str, size: int) -> tuple[Tensor, Tensor]:
    """Return the ink and the ground of "INK_on_GROUND", each a color, (3, 1, 1), or a painting, (3, h, w).

    The shorter side of a painting is 1.5 times `size`. Raises UserError.
    """
    ink, middle, ground = str(name).partition("_on_")
    if not middle:
        raise UserError(f"method.styles: got {name!r}; allowed: INK_on_GROUND, such as blue_on_red")
    return _parse_paint(ink, size), _parse_paint(ground, size)


def _parse_paint(name: str, size: int) -> Tensor:
    folder = Path(str(files("fast_nst"))) / "assets" / "styles"
    if (painting := folder / f"{name}.jpg").is_file():
        return image.to_tensor(image.resize_shorter(image.open_picture(painting).on_white(), round(1.5 * size)))[0]
    try:
        color = ImageColor.getrgb(name)[:3]
    except ValueError:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.jpg")))
        raise UserError(f"method.styles: got {name!r}; allowed: a CSS color, or a painting: {known}") from None
    return torch.tensor(color)[:, None, None] / 255


def _crop(paint: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Return a random square of a painting, or a color unchanged."""
    if paint.shape[1] == 1:
        return paint
    top, left = (int(rng.integers(side - size + 1)) for side in paint.shape[1:])
    return paint[:, top : top + size, left : left + size]
