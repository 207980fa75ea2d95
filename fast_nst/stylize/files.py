"""Stylize files: read, resize, paint, compose and write, whatever the network runs on."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from fast_nst import errors, image, machine
from fast_nst.stylize.mask import compose, open_mask
from fast_nst.stylize.options import Options, result_bytes
from fast_nst.stylize.painter import OnnxNetwork, Painter, as_painter

if TYPE_CHECKING:
    from fast_nst.networks import Network

_DECODED = 6  # bytes per pixel while a file is decoded: 4 in Pillow, more if it is rotated or converted


def stylize_file(
    network: "Network | OnnxNetwork",
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: Options = Options(),  # noqa: B008 (frozen)
    on_progress: Callable[[float], None] | None = None,
    outside: "Network | OnnxNetwork | None" = None,
) -> None:
    """Stylize the file `source` and write `target`; transparency is kept.

    outside: a network that paints where `options.mask` is black; None keeps the photograph there. With torch, an image
    that needs more than `options.memory` is stylized in strips, and `on_progress` is called with the share done.
    Raises image.ImageError, UserError, and MemoryError if memory runs out.
    """
    image.check_writable(target)
    painter = as_painter(network)
    memory = painter.free_memory() // 2 if options.memory is None else options.memory
    picture = open_content(source, painter, memory, options.size)
    if options.mask is not None and painter.scale != 1:
        raise errors.UserError("--mask: is for networks that paint; this one enlarges")
    width, height = (painter.scale * side for side in picture.rgb.size)
    image.check_fits(target, width, height)
    if painter.scale != 1 and result_bytes(options.depth) * width * height > memory:
        raise image.TooLarge(f"{source}: {width} x {height} pixels do not fit")
    content = picture.rgb if options.mask is None else picture.rgb.copy()  # painting in strips changes it in place
    try:
        result = painter.paint(picture.rgb, memory, options, on_progress)
        if options.mask is not None:
            size = image.open_picture(source).rgb.size if options.size else content.size
            mask = open_mask(options.mask, size, source)
            base = content if outside is None else as_painter(outside).paint(content, memory, options, on_progress)
            result = compose(result, base, mask)
    except image.TooLarge as error:
        raise image.TooLarge(f"{source}: {error}") from None
    image.save_picture(result, target, picture.alpha, options.provenance, options.quality)


def open_content(
    source: str | os.PathLike[str], painter: Painter, memory: int, size: int | None = None
) -> image.Picture:
    """Decode `source` and resize its longer side to `size`. Raises image.TooLarge if it does not fit into `memory`."""
    most = max((memory if painter.on_cpu else machine.free_memory()) // _DECODED, 2**20)
    picture = image.open_picture(source, most=most)
    if size is None:
        return picture
    rgb = picture.rgb
    errors.check_int("size", size, 1)
    if size * round(size * min(rgb.size) / max(rgb.size)) > most:
        raise image.TooLarge(f"size: got {size}; allowed: up to {most / 1e6:.0f} megapixels")
    return picture._replace(rgb=image.resize_longer(rgb, size))
