"""Contact sheets: style images, content images and their results in one picture."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fast_nst import image


def sheet(style_image: Tensor, contents: Tensor, results: Tensor, gap: int = 4) -> Image.Image:
    """(1, 3, h, w) and two (N, 3, H, W) in [0, 1] -> photographs above, results below, the painting on the left."""
    count, _, height, width = contents.shape
    painting = image.to_pillow(style_image)
    tall = 2 * height + gap
    wide = round(painting.width * tall / painting.height)
    picture = Image.new("RGB", (wide + count * (width + gap), tall), "white")
    picture.paste(painting.resize((wide, tall), Image.Resampling.BICUBIC))
    for column, pair in enumerate(zip(contents, results, strict=True)):
        for row, item in enumerate(pair):
            place = wide + gap + column * (width + gap), row * (height + gap)
            picture.paste(image.to_pillow(torch.as_tensor(item)[None]), place)
    return picture


GAP, TOP = 4, 16  # pixels between the squares of a grid, and for a line of text


def grid_size(rows: int, columns: int, side: int) -> tuple[int, int]:
    """Width and height of `grid`, pixels."""
    return columns * (side + GAP) - GAP, TOP + rows * (side + GAP) - GAP


def grid(rows: Sequence[Sequence[Image.Image | None]], heads: Sequence[str], side: int) -> Image.Image:
    """Rows of squares, `side` pixels wide, one below each of `heads`; None: left white."""
    whole = Image.new("RGB", grid_size(len(rows), len(heads), side), "white")
    draw = ImageDraw.Draw(whole)
    for x, head in enumerate(heads):
        draw.text((x * (side + GAP) + 2, 2), head, fill="black")
        for y, row in enumerate(rows):
            if (square := row[x]) is not None:
                whole.paste(square, (x * (side + GAP), TOP + y * (side + GAP)))
    return whole
