"""A trained network as a Python object: called with an image, it returns one of the same kind."""

import functools
import os
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fast_nst import image as images
from fast_nst import weights
from fast_nst.device import find_devices, has_fast_bfloat16
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.networks import Network
from fast_nst.optimize import resized
from fast_nst.stylize.choice import STRONGEST, Style, check_style, choose, find_weights, style_names
from fast_nst.stylize.image import stylize_tensor
from fast_nst.stylize.mask import Mask, load_mask

PathLike = str | os.PathLike[str]


class StyleModel:
    """network: in evaluation mode. description: the weights file's metadata. Calls may come from several threads.

    styles: names of the styles. style: the one used unless a call names another; None: a call must, if there are
    several.
    """

    def __init__(self, network: Network, description: dict[str, Any], style: Style | None = None) -> None:
        self.network, self.description = network.eval().to(memory_format=torch.channels_last), description
        self.styles, self.style = style_names(description), style
        self._chosen = functools.lru_cache(maxsize=8)(self._choose)  # of the last styles and strengths

    @classmethod
    def load(cls, path: PathLike, device: str = "auto") -> Self:
        """Read a weights file, or the package's own for the name of a bundled style. Raises UserError."""
        file, style = find_weights(path)
        network, description = weights.load(file)
        if style is not None:
            choose(network, description, style)  # checks the name
        return cls(network.to(find_devices(device, "device")[0]), description, style)

    def _choose(
        self, style: str | tuple[tuple[str, float], ...] | None, strength: float, brush: float
    ) -> tuple[Network, float]:
        shares = dict(style) if isinstance(style, tuple) else style
        network, fade = choose(self.network, self.description, shares, strength, brush)
        return network.to(memory_format=torch.channels_last), fade

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def __repr__(self) -> str:
        names = self.style if self.style is not None else ", ".join(self.styles or ["?"])
        return f"StyleModel({names!r}, {self.description['network']['name']}, {self.device})"

    @overload
    def __call__(self, image: PathLike | Image.Image, **options: Any) -> Image.Image: ...
    @overload
    def __call__(self, image: np.ndarray, **options: Any) -> np.ndarray: ...
    @overload
    def __call__(self, image: Tensor, **options: Any) -> Tensor: ...
    def __call__(self, image: Any, **options: Any) -> Any:
        """`stylize`."""
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
        """A path or Pillow image -> a Pillow image (RGB); a uint8 array (H, W, 3) or a float tensor (B, 3, H, W) in
        [0, 1] -> the same.

        strength: from 0, the photograph, to 1, the full style, or up to 2 with a network trained for it. keep_colors:
        "chroma" or "statistics" of the photograph. size: of the longer side, in pixels; None keeps it. style: a name,
        "cubist:0.7,starry_night:0.3" or {"cubist": 0.7, "starry_night": 0.3}. brush: size of the strokes,
        relative to the first one trained. mask: white where to paint, black where the photograph stays as it is; a
        path, Pillow image or uint8 array (H, W) of the photograph's size. outside: a style for what the mask leaves.
        Raises UserError.
        """
        check_number("strength", strength, 0, STRONGEST)
        check_number("brush", brush, 0)
        if outside is not None and mask is None:
            raise UserError("outside: is for what the mask leaves; give a mask")
        if mask is not None and self.network.scale != 1:
            raise UserError("mask: is for networks that paint; this one enlarges")
        network, fade = self._chosen(check_style("style", self.style if style is None else style), strength, brush)
        other = None if outside is None else self._chosen(check_style("outside", outside), strength, brush)[0]
        content = _to_tensor(image)
        original = content.shape[2:]
        if size is not None:
            longer = max(original)
            height, width = (max(1, round(side * check_int("size", size, 1) / longer)) for side in original)
            content = resized(content, height, width)
        share = None if mask is None else load_mask(mask, original, content.shape[2:])
        dtype = torch.bfloat16 if has_fast_bfloat16(self.device.type) else torch.float32
        output = stylize_tensor(network, content, fade, keep_colors, dtype)
        if share is not None:
            base = content if other is None else stylize_tensor(other, content, fade, keep_colors, dtype)
            output = torch.lerp(base.to(output), output, share.to(output))
        if isinstance(image, Tensor):
            return output.to(image)
        picture = images.to_pillow(output)
        return np.asarray(picture) if isinstance(image, np.ndarray) else picture


def _to_tensor(image: Any) -> Tensor:
    """(B, 3, H, W) float32. Raises UserError."""
    if isinstance(image, Tensor):
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise UserError(f"image: got a tensor {tuple(image.shape)} {image.dtype}; allowed: float, (B, 3, H, W)")
        low, high = image.aminmax() if image.numel() else (0.0, 0.0)
        if not (low >= -0.001 and high <= 1.001):  # also for NaN
            raise UserError(f"image: got values from {float(low):g} to {float(high):g}; allowed: from 0 to 1")
        return image.float()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"image: got an array {image.shape} {image.dtype}; allowed: uint8, (H, W, 3)")
        return images.to_tensor(Image.fromarray(image))
    if isinstance(image, Image.Image):
        return images.to_tensor(images.from_pillow(image).on_white())
    if isinstance(image, str | os.PathLike):
        return images.to_tensor(images.open_picture(Path(image).expanduser()).on_white())
    raise UserError(f"image: got {type(image).__name__}; allowed: a path, Pillow image, uint8 array, float tensor")
