"""One photograph through a network, tensor to tensor and file to file."""

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
# Bytes a pixel and channel of a network's widest layer at full size, in float32. Measured: slim 11, johnson 8 with
# keep_memory, 5.5 and 4.8 without. In strips for each row of one, which needs its neighbours too.
_WHOLE, _STRIPS = 12, 40
_DECODED = 6  # bytes a pixel while a file is decoded: Pillow's four, more where it is rotated or converted


@torch.inference_mode()
def stylize_tensor(
    network: nn.Module,
    photograph: Tensor,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(1, 3, H, W) in [0, 1] -> the same shape and range, on the device of `network`.

    strength: 0 is the photograph, 1 the full style, a linear blend between. keep_colors: a key of KEEP_COLORS, or None
    for the painting's. dtype: torch.bfloat16 for convolutions in that, fast with a network in torch.channels_last.
    Raises UserError for values out of range.
    """
    _check(strength, keep_colors)
    device = _device(network)
    photograph = photograph.to(device)
    if strength == 0:
        return photograph
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        result = network(photograph.contiguous(memory_format=torch.channels_last)).clamp_(0, 1)
    if keep_colors is not None:
        result = KEEP_COLORS[keep_colors](result, photograph)
    return result if strength == 1 else torch.lerp(photograph, result, strength)


@torch.inference_mode()
def stylize_strips(
    network: Network,
    picture: Image.Image,
    strip: int,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
    tell: Callable[[float], None] | None = None,
) -> None:
    """As `stylize_tensor`, in bounded memory: repaint the RGB `picture` in its place, `strip` rows at a time.

    Both sides are `tiles.SMALLEST` pixels on. tell: called with the share of the work done.
    """
    _check(strength, keep_colors)
    device = _device(network)
    photograph = _PictureRows(picture, device)
    if strength == 0:
        return
    statistics = keep_colors == "statistics"
    low = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    with low:
        repainted, work = tiles.prepare(network, photograph, strip, 1 + statistics, tell)
    recolor: Callable[[Tensor, Tensor], Tensor] | None = None if keep_colors is None else KEEP_COLORS[keep_colors]
    if statistics:  # of the whole pictures: a pass of its own
        own, wanted = Moments(), Moments()
        for a, b in work.strips(picture.height):
            with low:
                own.add(repainted(a, b).clamp(0, 1))
            wanted.add(photograph(a, b))
        move = transport(own, wanted)
        recolor = lambda result, _: move(result)  # noqa: E731
    for a, b in work.strips(picture.height):
        before = photograph(a, b)
        with low:
            result = repainted(a, b).clamp(0, 1)
        if recolor is not None:
            result = recolor(result, before)
        picture.paste(image.to_pillow(torch.lerp(before, result, strength)), (0, a))


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
    tell: Callable[[float], None] | None = None,
    made: str | None = None,
) -> None:
    """Read `source`, repaint it, write `target`. size: of the longer side, in pixels; None keeps the photograph's.
    made: `image.save_picture`.

    memory: bytes that may be taken on top of what is taken; by default half of what is free. A photograph
    that needs more is repainted in strips, `stylize_strips`, which report to `tell`.
    Transparency is carried over. Raises image.ImageError, UserError.
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
    row, held = widest * rgb.width, 5 * rgb.width * rgb.height * on_cpu
    if _WHOLE * row * rgb.height + held <= memory or min(rgb.size) < tiles.SMALLEST:
        rgb = image.to_pillow(stylize_tensor(network, image.to_tensor(rgb), strength, keep_colors, dtype))
    else:
        rows = max(32, (memory - held) // (_STRIPS * row))
        stylize_strips(network, rgb, rows, strength, keep_colors, dtype, tell)
    image.save_picture(rgb, target, picture.alpha, made)


def _check(strength: float, keep_colors: str | None) -> None:
    errors.check_number("strength", strength, 0, 1)
    if keep_colors is not None:
        errors.check_choice("keep-colors", keep_colors, tuple(KEEP_COLORS))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
