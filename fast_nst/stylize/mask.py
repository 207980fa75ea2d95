"""Paint a part of a photograph: a mask is white where the output goes and black where the photograph stays."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fast_nst import image
from fast_nst.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Mask = str | os.PathLike[str] | Image.Image | np.ndarray


def read_mask(mask: Mask) -> Image.Image:
    """Return a mask as a gray Pillow image; transparent pixels become black. An array must be uint8, (H, W).

    Raises UserError.
    """
    if isinstance(mask, np.ndarray):
        if mask.dtype != np.uint8 or mask.ndim != 2 or not mask.size:
            raise UserError(f"mask: got an array {mask.shape} {mask.dtype}; allowed: uint8, (H, W)")
        return Image.fromarray(mask)
    if isinstance(mask, Image.Image):
        picture = image.from_pillow(mask)
    elif isinstance(mask, str | os.PathLike):
        path = Path(mask).expanduser()
        if image.is_animation(path):
            raise UserError(f"mask: {path}: has several frames or pages; allowed: a single picture")
        picture = image.open_picture(path)
    else:
        raise UserError(f"mask: got {type(mask).__name__}; allowed: a path, Pillow image, uint8 array (H, W)")
    black = Image.new("RGB", picture.rgb.size)
    rgb = picture.rgb if picture.alpha is None else Image.composite(picture.rgb, black, picture.alpha)
    return rgb.convert("L")


def open_mask(mask: Mask, size: tuple[int, int], photograph: str | os.PathLike[str] = "the photograph") -> Image.Image:
    """Read a mask as `read_mask` does.

    Raises UserError unless its size is `size`, the (width, height) of `photograph`.
    """
    gray = read_mask(mask)
    if gray.size != size:
        sides = f"{size[0]}x{size[1]}"
        raise UserError(f"mask: got {gray.width}x{gray.height} pixels; allowed: the size of {photograph}, {sides}")
    return gray


def load_mask(mask: Mask, original: Sequence[int], sides: Sequence[int]) -> "Tensor":
    """Return a mask of the photograph's size `original`, (H, W), resized to `sides`, (h, w): (1, 1, h, w) in [0, 1]."""
    gray = open_mask(mask, (original[1], original[0]))
    if tuple(sides) != tuple(original):
        gray = gray.resize((sides[1], sides[0]), Image.Resampling.BILINEAR)
    return image.to_tensor(gray.convert("RGB"))[:, :1]


def compose(
    output: Image.Image | np.ndarray, content: Image.Image | np.ndarray, mask: Image.Image
) -> Image.Image | np.ndarray:
    """Return `output` where the gray `mask` is white, `content` where it is black, and a mixture in between.

    output, content: Pillow images or 16-bit arrays, (H, W, 3). Where the mask is black, no pixel of `content` changes.
    """
    if isinstance(output, Image.Image) and isinstance(content, Image.Image):
        return Image.composite(output, content, mask if mask.size == output.size else mask.resize(output.size))
    deep = [np.asarray(x, np.uint16) * np.uint16(257) if isinstance(x, Image.Image) else x for x in (output, content)]
    height, width = deep[0].shape[:2]
    share = np.asarray(mask.resize((width, height)), np.float32)[..., None] / 255
    return (deep[1] + (deep[0].astype(np.float32) - deep[1]) * share).round().astype(np.uint16)
