"""Stylize one image: tensor to tensor, or file to file."""

import os
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from fast_nst import errors, image
from fast_nst.device import free_memory
from fast_nst.networks import Network
from fast_nst.networks.layers import ConvBlock
from fast_nst.stylize import tiles
from fast_nst.stylize.color import Moments, keep_chroma, keep_statistics, transport

KEEP_COLORS = {"chroma": keep_chroma, "statistics": keep_statistics}
# Bytes per pixel and channel of the widest layer at full size, float32, for a whole image. Measured: slim 11, johnson 8
# with keep_freed_memory, 5.5 and 4.8 without. Per pixel of a strip it is more, because a strip needs its neighbors too.
_WHOLE, _STRIP = 12, 40
_DECODED = 6  # bytes per pixel while a file is decoded: 4 in Pillow, more if it is rotated or converted


@torch.inference_mode()
def stylize_tensor(
    network: nn.Module,
    content: Tensor,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Stylize `content`, (1, 3, H, W) in [0, 1]; the output has the same shape and range, on the network's device.

    strength: from 0, the content, to 1, the full style; linear in between. keep_colors: a key of KEEP_COLORS, or None
    for the style's colors. dtype: torch.bfloat16 runs convolutions in bfloat16, fast if the network is channels_last.
    Raises UserError for values out of range.
    """
    _check(strength, keep_colors)
    device = _device(network)
    content = content.to(device)
    if strength == 0:
        return content
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = network(content.contiguous(memory_format=torch.channels_last)).clamp_(0, 1)
    if keep_colors is not None:
        output = KEEP_COLORS[keep_colors](output, content)
    return output if strength == 1 else torch.lerp(content, output, strength)


@torch.inference_mode()
def stylize_tiles(
    network: Network,
    picture: Image.Image,
    strip: int,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Stylize the RGB `picture` in place and in bounded memory, `strip` rows at a time, like `stylize_tensor`.

    Both sides must be at least `tiles.SMALLEST`. on_progress: called with the share of the work done.
    """
    _check(strength, keep_colors)
    device = _device(network)
    content = _PictureRows(picture, device)
    if strength == 0:
        return
    match_statistics = keep_colors == "statistics"
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    with bf16:
        output, passes = tiles.build_row_pipeline(network, content, strip, 1 + match_statistics, on_progress)
    recolor: Callable[[Tensor, Tensor], Tensor] | None = None if keep_colors is None else KEEP_COLORS[keep_colors]
    if match_statistics:  # over the whole images, in a pass of their own
        source, target = Moments(), Moments()
        for a, b in passes.strips(picture.height):
            with bf16:
                source.add(output(a, b).clamp(0, 1))
            target.add(content(a, b))
        color_map = transport(source, target)
        recolor = lambda rows, _: color_map(rows)  # noqa: E731
    for a, b in passes.strips(picture.height):
        original = content(a, b)
        with bf16:
            rows = output(a, b).clamp(0, 1)
        if recolor is not None:
            rows = recolor(rows, original)
        picture.paste(image.to_pillow(torch.lerp(original, rows, strength)), (0, a))


class _PictureRows:
    """Rows of a Pillow image, (1, 3, b - a, W)."""

    def __init__(self, picture: Image.Image, device: torch.device) -> None:
        self.picture, self.device, self.height = picture, device, picture.height

    def __call__(self, a: int, b: int) -> Tensor:
        return image.to_tensor(self.picture.crop((0, a, self.picture.width, b))).to(self.device)


def stylize_file(
    network: Network,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    size: int | None = None,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
    memory: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    provenance: str | None = None,
) -> None:
    """Stylize the file `source` and write `target`; transparency is kept.

    size: pixels of the longer side; None keeps that of `source`. memory: bytes to use in addition to those in use;
    None: half of what is free. A larger image is stylized in strips, and `on_progress` is called with the share done.
    provenance: see `image.save_picture`. Raises image.ImageError, UserError.
    """
    image.check_writable(target)
    device = _device(network)
    if memory is None:
        memory = free_memory(device) // 2
    on_cpu = device.type == "cpu"
    most = memory // _DECODED if on_cpu else free_memory(torch.device("cpu")) // _DECODED
    most = max(most, 2**20)
    picture = image.open_picture(source, most=most)
    rgb = picture.rgb
    if size is not None:
        errors.check_int("size", size, 1)
        if size * round(size * min(rgb.size) / max(rgb.size)) > most:
            raise image.TooLarge(f"size: got {size}; allowed: up to {most / 1e6:.0f} megapixels")
        rgb = image.resize_longer(rgb, size)
    image.check_fits(target, *rgb.size)
    widest = max(
        block.conv.out_channels // block.conv.stride[0] ** 2
        for block in network.modules()
        if isinstance(block, ConvBlock)
    )
    row, decoded = widest * rgb.width, 5 * rgb.width * rgb.height * on_cpu
    if _WHOLE * row * rgb.height + decoded <= memory or min(rgb.size) < tiles.SMALLEST:
        rgb = image.to_pillow(stylize_tensor(network, image.to_tensor(rgb), strength, keep_colors, dtype))
    else:
        strip = max(32, (memory - decoded) // (_STRIP * row))
        stylize_tiles(network, rgb, strip, strength, keep_colors, dtype, on_progress)
    image.save_picture(rgb, target, picture.alpha, provenance)


def _check(strength: float, keep_colors: str | None) -> None:
    errors.check_number("strength", strength, 0, 1)
    if keep_colors is not None:
        errors.check_choice("keep_colors", keep_colors, tuple(KEEP_COLORS))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
