"""Enlarge a picture with a super-resolution network in strips of rows: any size in bounded memory.

A row of the output depends only on the rows within `network.reach` of it. So a strip that includes these rows gives the
same output as the whole picture.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fast_nst import image
from fast_nst.networks.super_resolution import SuperResolution, enlarge
from fast_nst.stylize.color import Moments, keep_chroma, transport


@torch.inference_mode()
def enlarge_picture(
    network: SuperResolution,
    picture: Image.Image,
    strip: int,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
    on_progress: Callable[[float], None] | None = None,
    depth: int = 8,
) -> Image.Image | np.ndarray:
    """Enlarge the RGB `picture` as `stylize_tensor` does, but `strip` of its rows at a time.

    on_progress: called with the share of the work done. depth: bits a channel of the result: 8 for a Pillow image, 16
    for a uint16 array, (H, W, 3). For the other arguments, see `stylize_tensor`.
    """
    width, height = (network.scale * side for side in picture.size)
    passes = 2 if keep_colors == "statistics" else 1
    recolor: Callable[[Tensor, Tensor], Tensor] | None = keep_chroma if keep_colors == "chroma" else None
    if passes == 2:
        source, target = Moments(), Moments()
        for share, _, rows, original in _strips(network, picture, strip, dtype):
            source.add(rows)
            target.add(original)
            if on_progress is not None:
                on_progress(share / passes)
        color_map = transport(source, target)
        recolor = lambda rows, _: color_map(rows)  # noqa: E731
    result = Image.new("RGB", (width, height)) if depth == 8 else np.empty((height, width, 3), np.uint16)
    for share, a, rows, original in _strips(network, picture, strip, dtype):
        output = torch.lerp(original, rows if recolor is None else recolor(rows, original), strength)
        if isinstance(result, Image.Image):
            result.paste(image.to_pillow(output), (0, a))
        else:
            result[a : a + output.shape[2]] = image.to_deep(output)
        if on_progress is not None:
            on_progress((passes - 1 + share) / passes)
    return result


def _strips(
    network: SuperResolution, picture: Image.Image, strip: int, dtype: torch.dtype
) -> Iterator[tuple[float, int, Tensor, Tensor]]:
    """Yield (share of the work done, first row, output, bicubic enlargement) for each strip; both are (1, 3, h, W)."""
    device, scale = next(network.parameters()).device, network.scale
    for a in range(0, picture.height, strip):
        b = min(a + strip, picture.height)
        start, stop = max(0, a - network.reach), min(picture.height, b + network.reach)
        content = image.to_tensor(picture.crop((0, start, picture.width, stop))).to(device)
        rows = slice(scale * (a - start), scale * (b - start))
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = network(content.contiguous(memory_format=torch.channels_last))
        original = enlarge(content, scale)
        yield b / picture.height, scale * a, output[:, :, rows].clamp(0, 1), original[:, :, rows].clamp(0, 1)
