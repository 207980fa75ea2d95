"""One photograph through a network, tensor to tensor and file to file."""

import os

import torch
from torch import Tensor, nn

from fast_nst import image, validate
from fast_nst.stylize.color import keep_chroma, keep_statistics

KEEP_COLORS = {"chroma": keep_chroma, "statistics": keep_statistics}


@torch.inference_mode()
def stylize_tensor(
    network: nn.Module, photograph: Tensor, strength: float = 1.0, keep_colors: str | None = None
) -> Tensor:
    """(1, 3, H, W) in [0, 1] -> the same shape and range, on the device of `network`.

    strength: 0 is the photograph, 1 the full style, a linear blend between. keep_colors: a key of KEEP_COLORS, or None
    for the painting's. Raises Invalid for values out of range.
    """
    validate.number("strength", strength, 0, 1)
    photograph = photograph.to(next(network.parameters()).device)
    if strength == 0:
        return photograph
    result = network(photograph).clamp(0, 1)
    if keep_colors is not None:
        result = KEEP_COLORS[validate.one_of("keep-colors", keep_colors, tuple(KEEP_COLORS))](result, photograph)
    return torch.lerp(photograph, result, strength)


def stylize_file(
    network: nn.Module,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    size: int | None = None,
    strength: float = 1.0,
    keep_colors: str | None = None,
) -> None:
    """Read `source`, repaint it, write `target`. size: of the longer side, in pixels; None keeps the photograph's.

    Transparency is carried over. Raises image.ImageError, Invalid.
    """
    image.check_writable(target)
    picture = image.open_picture(source)
    rgb = picture.rgb
    if size is not None:
        rgb = image.resize_longer(rgb, validate.whole_number("size", size, 1))
    result = stylize_tensor(network, image.to_tensor(rgb), strength, keep_colors)
    image.save_picture(image.to_pillow(result), target, picture.alpha)
