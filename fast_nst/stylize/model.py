"""A trained network as a Python object: called with an image, it returns one of the same kind."""

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from PIL import Image

from fast_nst import image as images
from fast_nst import machine
from fast_nst.description import style_names
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.stylize.choice import (
    STRONGEST,
    Style,
    check_style,
    choose,
    find_weights,
    is_installed,
    load_network,
    runs_in_onnx,
)
from fast_nst.stylize.mask import Mask, compose, load_mask, open_mask
from fast_nst.stylize.onnx import OnnxNetwork, stylize_array
from fast_nst.stylize.options import Options
from fast_nst.stylize.painter import as_painter

if TYPE_CHECKING:
    from torch import Tensor

    from fast_nst.networks import Network

PathLike = str | os.PathLike[str]


class StyleModel:
    """A trained network that is called with images. Calls may come from several threads.

    network: set to evaluation mode here. description: the weights file's metadata. styles: the names of its styles.
    style: the style to paint unless a call names another; None: each call must name one if there are several.
    """

    def __init__(
        self, network: "Network | OnnxNetwork", description: dict[str, Any], style: Style | None = None
    ) -> None:
        self.network, self.description = _prepare(network), description
        self.styles, self.style = style_names(description), style
        self._chosen = functools.lru_cache(maxsize=8)(self._choose)  # keeps the networks of the last choices

    @classmethod
    def load(cls, path: PathLike, device: str = "auto") -> Self:
        """Load a weights file, or the package's own if `path` names a bundled style. Raises UserError."""
        file, style = find_weights(path)
        fast = machine.has_fast_bfloat16() and is_installed("torch")  # then torch is faster, once it is imported
        onnx = runs_in_onnx(file, device) and not (fast and file.suffix.lower() != ".onnx")
        network, description = load_network(file, onnx)
        if style is not None:
            choose(network, description, style)  # checks the name
        if not onnx:
            from fast_nst.device import find_devices

            network = network.to(find_devices(device, "device")[0])
        return cls(network, description, style)

    def _choose(
        self, style: str | tuple[tuple[str, float], ...] | None, strength: float, brush: float
    ) -> "tuple[Network | OnnxNetwork, float]":
        shares = dict(style) if isinstance(style, tuple) else style
        network, fade = choose(self.network, self.description, shares, strength, brush)
        return _prepare(network), fade

    @property
    def device(self) -> Any:
        """The network's torch.device; "cpu" in onnxruntime."""
        return "cpu" if isinstance(self.network, OnnxNetwork) else next(self.network.parameters()).device

    def __repr__(self) -> str:
        names = self.style if self.style is not None else ", ".join(self.styles or ["?"])
        return f"StyleModel({names!r}, {self.description['network']['name']}, {self.device})"

    @overload
    def __call__(self, image: PathLike | Image.Image, **options: Any) -> Image.Image: ...
    @overload
    def __call__(self, image: np.ndarray, **options: Any) -> np.ndarray: ...
    @overload
    def __call__(self, image: "Tensor", **options: Any) -> "Tensor": ...
    def __call__(self, image: Any, **options: Any) -> Any:
        """Return `stylize(image, **options)`."""
        return self.stylize(image, **options)

    def stylize(
        self,
        image: Any,
        strength: float = 1.0,
        keep_colors: str | None = None,
        size: int | None = None,
        style: Style | None = None,
        brush: float = 1.0,
        mask: Mask | None = None,
        outside: Style | None = None,
    ) -> Any:
        """Return the output: an RGB Pillow image if `image` is a path or Pillow image, else the same kind as `image`.

        image: a path, Pillow image, uint8 array (H, W, 3), or float tensor (B, 3, H, W) in [0, 1].
        strength: from 0 (the photograph) to 1 (the full style), or up to 2 with a network trained for it. keep_colors:
        keep the photograph's "chroma" or the "statistics" of its colors. size: pixels of the longer side; None keeps
        the size. style: a name, "cubist:0.7,starry_night:0.3" or {"cubist": 0.7, "starry_night": 0.3}. brush: size of
        the strokes, relative to the first size trained. mask: white where to paint, black where the photograph stays
        as it is; a path, Pillow image or uint8 array (H, W) of the photograph's size. outside: a style to paint where
        the mask is black. Raises UserError.
        """
        check_number("strength", strength, 0, STRONGEST)
        check_number("brush", brush, 0)
        if outside is not None and mask is None:
            raise UserError("outside: got a style but no mask; give a mask too")
        if mask is not None and self.network.scale != 1:
            raise UserError("mask: is for networks that paint; this one enlarges")
        network, fade = self._chosen(check_style("style", self.style if style is None else style), strength, brush)
        other = None if outside is None else self._chosen(check_style("outside", outside), strength, brush)[0]
        options = Options(None if size is None else check_int("size", size, 1), fade, keep_colors, "auto")
        if _is_tensor(image):
            return _stylize_tensor(network, image, options, mask, other)
        rgb = _to_rgb(image)
        content = rgb if options.size is None else images.resize_longer(rgb, options.size)
        output = as_painter(network).paint_together([content], options)[0]
        if mask is not None:
            base = content if other is None else as_painter(other).paint_together([content], options)[0]
            output = compose(output, base, open_mask(mask, rgb.size))
        return np.asarray(output) if isinstance(image, np.ndarray) else output


def _prepare(network: Any) -> Any:
    if isinstance(network, OnnxNetwork):
        return network
    import torch

    return network.eval().to(memory_format=torch.channels_last)


def _is_tensor(image: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _stylize_tensor(network: Any, image: "Tensor", options: Options, mask: Mask | None, outside: Any) -> "Tensor":
    import torch

    from fast_nst.optimize import resized

    content = _check_tensor(image)
    original = content.shape[2:]
    if options.size is not None:
        height, width = (max(1, round(side * options.size / max(original))) for side in original)
        content = resized(content, height, width)
    output = _run(network, content, options)
    if mask is not None:
        base = content if outside is None else _run(outside, content, options)
        output = torch.lerp(base.to(output), output, load_mask(mask, original, content.shape[2:]).to(output))
    return output.to(image)


def _run(network: Any, content: "Tensor", options: Options) -> "Tensor":
    import torch

    from fast_nst.stylize.image import choose_dtype, stylize_tensor

    if isinstance(network, OnnxNetwork):
        array = content.detach().cpu().numpy()
        return torch.from_numpy(stylize_array(network, array, options.strength, options.keep_colors))
    dtype = choose_dtype(options, next(network.parameters()).device)
    return stylize_tensor(network, content, options.strength, options.keep_colors, dtype)


def _check_tensor(image: "Tensor") -> "Tensor":
    """Return `image` in float32. Raises UserError unless it is a float tensor, (B, 3, H, W) in [0, 1]."""
    if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise UserError(f"image: got a tensor {tuple(image.shape)} {image.dtype}; allowed: float, (B, 3, H, W)")
    low, high = image.aminmax() if image.numel() else (0.0, 0.0)
    if not (low >= -0.001 and high <= 1.001):  # also for NaN
        raise UserError(f"image: got values from {float(low):g} to {float(high):g}; allowed: from 0 to 1")
    return image.float()


def _to_rgb(image: Any) -> Image.Image:
    """Return an RGB Pillow image. Raises UserError."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"image: got an array {image.shape} {image.dtype}; allowed: uint8, (H, W, 3)")
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return images.from_pillow(image).on_white()
    if isinstance(image, str | os.PathLike):
        return images.open_picture(Path(image).expanduser()).on_white()
    raise UserError(f"image: got {type(image).__name__}; allowed: a path, Pillow image, uint8 array, float tensor")
