"""Build contact sheets: styles, content images and outputs in one picture."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fast_nst import image

GAP, TOP = 4, 16  # pixels between the squares of a grid, and above them for a line of text


def sheet(style: Tensor, contents: Tensor, outputs: Tensor, gap: int = 4) -> Image.Image:
    """Place the style, (1, 3, h, w), on the left, contents above, outputs below, each (N, 3, H, W); all in [0, 1]."""
    count, _, height, width = contents.shape
    painting = image.to_pillow(style)
    tall = 2 * height + gap
    wide = round(painting.width * tall / painting.height)
    picture = Image.new("RGB", (wide + count * (width + gap), tall), "white")
    picture.paste(painting.resize((wide, tall), Image.Resampling.BICUBIC))
    for column, pair in enumerate(zip(contents, outputs, strict=True)):
        for row, item in enumerate(pair):
            corner = wide + gap + column * (width + gap), row * (height + gap)
            picture.paste(image.to_pillow(torch.as_tensor(item)[None]), corner)
    return picture


def stack(rows: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Place pictures below each other."""
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height + gap for row in rows) - gap), "white")
    y = 0
    for row in rows:
        picture.paste(row, (0, y))
        y += row.height + gap
    return picture


def tile(pictures: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Place pictures of one size in rows of `columns`."""
    width, height = (side + gap for side in pictures[0].size)
    rows = -(-len(pictures) // columns)
    result = Image.new("RGB", (min(columns, len(pictures)) * width - gap, rows * height - gap), "white")
    for index, picture in enumerate(pictures):
        result.paste(picture, (index % columns * width, index // columns * height))
    return result


def grid_size(rows: int, columns: int, side: int) -> tuple[int, int]:
    """Return the width and height of `grid` in pixels."""
    return columns * (side + GAP) - GAP, TOP + rows * (side + GAP) - GAP


def grid(rows: Sequence[Sequence[Image.Image | None]], heads: Sequence[str], side: int) -> Image.Image:
    """Draw rows of squares, `side` pixels wide, one column under each of `heads`; None leaves a square white."""
    picture = Image.new("RGB", grid_size(len(rows), len(heads), side), "white")
    draw = ImageDraw.Draw(picture)
    for x, head in enumerate(heads):
        draw.text((x * (side + GAP) + 2, 2), head, fill="black")
        for y, row in enumerate(rows):
            if (square := row[x]) is not None:
                picture.paste(square, (x * (side + GAP), TOP + y * (side + GAP)))
    return picture
