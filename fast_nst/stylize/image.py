"""Stylize images with a network in torch, whole or in strips."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor, nn

from fast_nst import image
from fast_nst.device import free_memory, has_fast_bfloat16
from fast_nst.machine import is_out_of_memory
from fast_nst.networks import Network
from fast_nst.networks.layers import ConvBlock
from fast_nst.networks.super_resolution import SuperResolution, enlarge
from fast_nst.stylize import tiles
from fast_nst.stylize.color import KEEP_COLORS, Moments, transport
from fast_nst.stylize.enlarge import enlarge_picture
from fast_nst.stylize.options import Options, check_options, result_bytes
from fast_nst.stylize.painter import Result

# Bytes per pixel of the image and per channel of the widest layer (`widest`), in float32. Measured on whole images:
# slim 11, johnson 8 with keep_freed_memory, 5.5 and 4.8 without. A strip takes more per pixel: it needs its neighbors.
_WHOLE, _STRIP = 12, 40


class TorchPainter:
    """A `painter.Painter` that runs `network` in torch, on the network's device."""

    def __init__(self, network: Network) -> None:
        self.network, self.device, self.scale = network, _device(network), getattr(network, "scale", 1)
        self.on_cpu = self.device.type == "cpu"

    def free_memory(self) -> int:
        return free_memory(self.device)

    def memory_per_pixel(self) -> int:
        return memory_per_pixel(self.network)

    def paint(
        self, rgb: Image.Image, memory: int, options: Options, on_progress: Callable[[float], None] | None = None
    ) -> Result:
        """Stylize `rgb` whole, or in strips if it needs more than `memory` bytes."""
        network, pixels = self.network, rgb.width * rgb.height
        decoded = result_bytes(options.depth) * pixels * self.scale**2 * self.on_cpu
        whole = memory_per_pixel(network) * pixels + decoded <= memory
        if whole or (min(rgb.size) < tiles.SMALLEST and self.scale == 1):
            return self.paint_together([rgb], options)[0]
        strip = max(32, (memory - decoded) // (_STRIP * widest(network) * rgb.width))
        dtype, shared = choose_dtype(options, self.device), (options.strength, options.keep_colors)
        try:
            if isinstance(network, SuperResolution):
                enlarged = enlarge_picture(network, rgb, strip, *shared, dtype, on_progress, options.depth)
                return as_gray(enlarged) if is_gray(rgb) else enlarged
            deep = np.empty((rgb.height, rgb.width, 3), np.uint16) if options.depth == 16 else None
            stylize_tiles(network, rgb, strip, *shared, dtype, on_progress, deep)
        except RuntimeError as error:
            raise _as_memory_error(error) from None
        return rgb if deep is None else deep

    def paint_together(self, pictures: Sequence[Image.Image], options: Options) -> list[Result]:
        tensors = [image.to_tensor(picture) for picture in pictures]
        content = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        dtype = choose_dtype(options, self.device)
        try:
            outputs = stylize_tensor(self.network, content, options.strength, options.keep_colors, dtype)
        except RuntimeError as error:
            raise _as_memory_error(error) from None
        results = [image.to_deep(o) if options.depth == 16 else image.to_pillow(o) for o in outputs.split(1)]
        if self.scale != 1:
            results = [as_gray(r) if is_gray(p) else r for r, p in zip(results, pictures, strict=True)]
        return results


def is_gray(rgb: Image.Image) -> bool:
    """Return whether a picture is gray, so that its enlargement should be gray too."""
    red, green, blue = rgb.split()
    return ImageChops.difference(red, green).getbbox() is None and ImageChops.difference(red, blue).getbbox() is None


def as_gray(result: Result) -> Result:
    """Return the luma of a result in all three channels."""
    if isinstance(result, Image.Image):
        return result.convert("L").convert("RGB")
    gray = image.luma(result.transpose(2, 0, 1)[None])[0, 0]
    return np.repeat(gray.round().astype(np.uint16)[..., None], 3, axis=2)


def _as_memory_error(error: RuntimeError) -> Exception:
    return MemoryError(str(error)) if is_out_of_memory(error) else error


@torch.inference_mode()
def stylize_tensor(
    network: nn.Module,
    content: Tensor,
    strength: float = 1.0,
    keep_colors: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Stylize `content`, (B, 3, H, W) in [0, 1]; the output has the same shape and range, on the network's device.

    A super-resolution network enlarges `content`; "the content" below is then its enlargement by bicubic interpolation.
    strength: from 0 (the content) to 1 (the full style), linear in between. keep_colors: a key of KEEP_COLORS, or None
    for the style's colors. dtype: torch.bfloat16 runs convolutions in bfloat16, which is fast if the network is
    channels_last. Raises UserError for values out of range.
    """
    check_options(strength, keep_colors)
    device = _device(network)
    content = content.to(device)
    small = content
    if isinstance(network, SuperResolution):
        content = enlarge(content, network.scale).clamp_(0, 1)
    if strength == 0:
        return content
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = network(small.contiguous(memory_format=torch.channels_last)).clamp_(0, 1)
    return finish(output, content, strength, keep_colors)


def finish(output: Tensor, content: Tensor, strength: float, keep_colors: str | None) -> Tensor:
    """Apply `keep_colors` and `strength` to a network's output for `content`, as `stylize_tensor` does."""
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
    """Stylize the RGB `picture` as `stylize_tensor` does, but in place and in bounded memory: `strip` rows at a time.

    Both sides must be at least `tiles.SMALLEST`. on_progress: called with the share of the work done. deep: a
    uint16 array, (H, W, 3), that receives the output in 16 bits; `picture` then stays as it is.
    """
    check_options(strength, keep_colors)
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
    if match_statistics:  # of the whole images, collected in an extra pass
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


def memory_per_pixel(network: nn.Module) -> int:
    """Return the bytes per pixel that `network` takes to stylize a whole image."""
    return _WHOLE * widest(network)


def widest(network: nn.Module) -> int:
    """Return the channels of the widest layer; a strided layer counts by its share of the pixels of its input."""
    if isinstance(network, SuperResolution):
        return network.widest
    return max(
        block.conv.out_channels // block.conv.stride[0] ** 2
        for block in network.modules()
        if isinstance(block, ConvBlock)
    )


def choose_dtype(options: Options, device: torch.device) -> torch.dtype:
    """Return the dtype that `options.precision` means on `device`."""
    fast = options.precision == "auto" and options.depth == 8 and has_fast_bfloat16(device.type)
    return torch.bfloat16 if fast or options.precision == "bfloat16" else torch.float32


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
