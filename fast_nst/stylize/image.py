"""Stylize one image: tensor to tensor, or file to file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fast_nst import errors, image
from fast_nst.device import free_memory
from fast_nst.networks import Network
from fast_nst.networks.layers import ConvBlock
from fast_nst.networks.super_resolution import SuperResolution, enlarge
from fast_nst.stylize import tiles
from fast_nst.stylize.color import Moments, keep_chroma, keep_statistics, transport
from fast_nst.stylize.enlarge import enlarge_picture
from fast_nst.stylize.mask import compose, open_mask

KEEP_COLORS = {"chroma": keep_chroma, "statistics": keep_statistics}
# Bytes per pixel and channel of the widest layer at full size, float32, for a whole image. Measured: slim 11, johnson 8
# with keep_freed_memory, 5.5 and 4.8 without. Per pixel of a strip it is more, because a strip needs its neighbors too.
_WHOLE, _STRIP = 12, 40
DEPTHS = (8, 16)
_DECODED = 6  # bytes per pixel while a file is decoded: 4 in Pillow, more if it is rotated or converted


@dataclass(frozen=True)
class Options:
    """How files are stylized.

    size: pixels of the longer side; None keeps that of the source. strength, keep_colors, dtype: see `stylize_tensor`.
    memory: bytes to use in addition to those in use; None: half of what is free. depth: bits a channel, 8 or 16.
    quality, provenance: see `image.save_picture`. mask: a file, see `stylize.mask`.
    """

    size: int | None = None
    strength: float = 1.0
    keep_colors: str | None = None
    dtype: torch.dtype = torch.float32
    memory: int | None = None
    depth: int = 8
    quality: int | None = None
    provenance: str | None = None
    mask: Path | None = None


@torch.inference_mode()
def stylize_tensor(
    network: nn.Module,
    content: Tensor,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Stylize `content`, (B, 3, H, W) in [0, 1]; the output has the same shape and range, on the network's device.

    A super-resolution network enlarges it; then `content` below is the content, enlarged by bicubic interpolation.
    strength: from 0, the content, to 1, the full style; linear in between. keep_colors: a key of KEEP_COLORS, or None
    for the style's colors. dtype: torch.bfloat16 runs convolutions in bfloat16, fast if the network is channels_last.
    Raises UserError for values out of range.
    """
    _check(strength, keep_colors)
    device = _device(network)
    content = content.to(device)
    small = content
    if isinstance(network, SuperResolution):
        content = enlarge(content, network.scale).clamp_(0, 1)
    if strength == 0:
        return content
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = network(small.contiguous(memory_format=torch.channels_last)).clamp_(0, 1)
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
    deep: np.ndarray | None = None,
) -> None:
    """Stylize the RGB `picture` in place and in bounded memory, `strip` rows at a time, like `stylize_tensor`.

    Both sides must be at least `tiles.SMALLEST`. on_progress: called with the share of the work done. deep: uint16,
    (H, W, 3): the output goes there with 16 bits instead, and `picture` stays as it is.
    """
    _check(strength, keep_colors)
    device = _device(network)
    content = _PictureRows(picture, device)
    if strength == 0:
        if deep is not None:
            deep[:] = np.asarray(picture).astype(np.uint16) * 257
        return
    match_statistics = keep_colors == "statistics"
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    with bf16:
        output, passes = tiles.build_row_pipeline(
            cast(tiles.TiledNetwork, network), content, strip, 1 + match_statistics, on_progress
        )
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
        rows = torch.lerp(original, rows, strength)
        if deep is None:
            picture.paste(image.to_pillow(rows), (0, a))
        else:
            deep[a:b] = image.to_deep(rows)


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
    options: Options = Options(),
    on_progress: Callable[[float], None] | None = None,
    outside: Network | None = None,
) -> None:
    """Stylize the file `source` and write `target`; transparency is kept.

    outside: a network for what `options.mask` leaves; None keeps the photograph there. An image that needs more than
    `options.memory` is stylized in strips, and `on_progress` is called with the share done.
    Raises image.ImageError, UserError.
    """
    image.check_writable(target)
    memory = free_memory(_device(network)) // 2 if options.memory is None else options.memory
    picture = open_content(source, _device(network), memory, options.size)
    if options.mask is not None and network.scale != 1:
        raise errors.UserError("--mask: is for networks that paint; this one enlarges")
    width, height = (network.scale * side for side in picture.rgb.size)
    image.check_fits(target, width, height)
    if network.scale != 1 and _result_bytes(options.depth) * width * height > memory:
        raise image.TooLarge(f"{source}: {width} x {height} pixels do not fit")
    content = picture.rgb if options.mask is None else picture.rgb.copy()  # strips change it in place
    result = _stylize_picture(network, picture.rgb, memory, options, on_progress)
    if options.mask is not None:
        mask = open_mask(options.mask, image.open_picture(source).rgb.size if options.size else content.size, source)
        base = content if outside is None else _stylize_picture(outside, content, memory, options, on_progress)
        result = compose(result, base, mask)
    image.save_picture(result, target, picture.alpha, options.provenance, options.quality)


def open_content(
    source: str | os.PathLike[str], device: torch.device, memory: int, size: int | None = None
) -> image.Picture:
    """Decode `source`, its longer side resized to `size`. Raises image.TooLarge if it does not fit into `memory`."""
    on_cpu = device.type == "cpu"
    most = memory // _DECODED if on_cpu else free_memory(torch.device("cpu")) // _DECODED
    most = max(most, 2**20)
    picture = image.open_picture(source, most=most)
    if size is None:
        return picture
    rgb = picture.rgb
    errors.check_int("size", size, 1)
    if size * round(size * min(rgb.size) / max(rgb.size)) > most:
        raise image.TooLarge(f"size: got {size}; allowed: up to {most / 1e6:.0f} megapixels")
    return picture._replace(rgb=image.resize_longer(rgb, size))


def memory_per_pixel(network: nn.Module) -> int:
    """Return the bytes per pixel that `network` takes to stylize a whole image."""
    return _WHOLE * _widest(network)


def _widest(network: nn.Module) -> int:
    """Return the channels of the widest layer, those at other sizes counted by their share of the pixels."""
    if isinstance(network, SuperResolution):
        return network.widest
    return max(
        block.conv.out_channels // block.conv.stride[0] ** 2
        for block in network.modules()
        if isinstance(block, ConvBlock)
    )


def _result_bytes(depth: int) -> int:
    """Return the bytes per pixel of a result, and of the Pillow image that it becomes."""
    return 5 if depth == 8 else 11


def _stylize_picture(
    network: Network,
    rgb: Image.Image,
    memory: int,
    options: Options,
    on_progress: Callable[[float], None] | None,
) -> Image.Image | np.ndarray:
    """Stylize whole, or in strips if `memory` is short; the result is what `image.save_picture` takes."""
    device = _device(network)
    pixels = rgb.width * rgb.height
    decoded = _result_bytes(options.depth) * pixels * network.scale**2 * (device.type == "cpu")
    if memory_per_pixel(network) * pixels + decoded <= memory or (
        min(rgb.size) < tiles.SMALLEST and network.scale == 1
    ):
        output = stylize_tensor(network, image.to_tensor(rgb), options.strength, options.keep_colors, options.dtype)
        return image.to_deep(output) if options.depth == 16 else image.to_pillow(output)
    strip = max(32, (memory - decoded) // (_STRIP * _widest(network) * rgb.width))
    if isinstance(network, SuperResolution):
        return enlarge_picture(
            network, rgb, strip, options.strength, options.keep_colors, options.dtype, on_progress, options.depth
        )
    deep = np.empty((rgb.height, rgb.width, 3), np.uint16) if options.depth == 16 else None
    stylize_tiles(network, rgb, strip, options.strength, options.keep_colors, options.dtype, on_progress, deep)
    return rgb if deep is None else deep


def _check(strength: float, keep_colors: str | None) -> None:
    errors.check_number("strength", strength, 0, 1)
    if keep_colors is not None:
        errors.check_choice("keep_colors", keep_colors, tuple(KEEP_COLORS))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
