"""Paint a part of a photograph: a mask is white where the output goes and black where the photograph stays."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fast_nst import image
from fast_nst.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def open_mask(mask: str | os.PathLike[str] | Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a mask as a gray Pillow image of `size`, (width, height), the photograph's; what is transparent is black.

    Raises UserError.
    """
    if not isinstance(mask, Image.Image):
        picture = image.open_picture(mask)
        black = Image.new("RGB", picture.rgb.size)
        mask = picture.rgb if picture.alpha is None else Image.composite(picture.rgb, black, picture.alpha)
    if mask.size != size:
        raise UserError(f"mask: got {mask.width}x{mask.height} pixels; allowed: the photograph's, {size[0]}x{size[1]}")
    return mask.convert("L")


def load_mask(mask: str | os.PathLike[str] | Image.Image, original: Sequence[int], sides: Sequence[int]) -> "Tensor":
    """Return a mask of a photograph of `original` pixels, (height, width), as (1, 1, H, W) in [0, 1] of `sides`."""
    gray = open_mask(mask, (original[1], original[0]))
    if tuple(sides) != tuple(original):
        gray = gray.resize((sides[1], sides[0]), Image.Resampling.BILINEAR)
    return image.to_tensor(gray.convert("RGB"))[:, :1]


def compose(
    output: Image.Image | np.ndarray, content: Image.Image | np.ndarray, mask: Image.Image
) -> Image.Image | np.ndarray:
    """Return `output` where the gray `mask` is white, `content` where it is black, and a mixture between.

    Images or arrays (H, W, 3) of 16 bits; where the mask is black, the pixels are those of `content`.
    """
    if isinstance(output, Image.Image) and isinstance(content, Image.Image):
        return Image.composite(output, content, mask if mask.size == output.size else mask.resize(output.size))
    deep = [np.asarray(x, np.uint16) * np.uint16(257) if isinstance(x, Image.Image) else x for x in (output, content)]
    height, width = deep[0].shape[:2]
    share = np.asarray(mask.resize((width, height)), np.float32)[..., None] / 255
    return (deep[1] + (deep[0].astype(np.float32) - deep[1]) * share).round().astype(np.uint16)
