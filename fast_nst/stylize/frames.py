"""Stylize the frames of a clip one after the other, with strokes that follow the camera."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from fast_nst import image
from fast_nst.device import free_memory
from fast_nst.networks.slim import Noise, Slim
from fast_nst.networks.super_resolution import SuperResolution
from fast_nst.stylize.camera import IDENTITY, Camera, apply, inverse, warp
from fast_nst.stylize.image import choose_dtype, finish, memory_per_pixel, stylize_tensor
from fast_nst.stylize.options import Options

_GRID = 4  # pixels of the content between the points of a network's coarsest features


class FramePainter:
    """Paints the frames of a clip: call it with each frame, (1, 3, H, W) in [0, 1], to get the output.

    A network computes its features on a grid of 4 pixels and adds noise to them. With both fixed to the frame, strokes
    would change whenever the camera moves. So each frame is warped to the coordinates of the scene, where the grid and
    the noise stay in place, and the output is warped back. Use it as a context manager, which puts the noise back.
    """

    def __init__(self, network: nn.Module, options: Options = Options()) -> None:  # noqa: B008 (frozen)
        self.network, self.options = network, options
        self.device = next(network.parameters()).device
        self.noises = [module for module in network.modules() if isinstance(module, Noise)]
        self.camera = None if isinstance(network, SuperResolution) else Camera()
        self.most = math.inf  # pixels that fit into the memory; a frame that would need more is painted without warping

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._move_noise(0, 0)

    @torch.inference_mode()
    def __call__(self, content: Tensor) -> Tensor:
        content = content.to(self.device)
        options, dtype = self.options, choose_dtype(self.options, self.device)
        matrix = IDENTITY if self.camera is None else self.camera.follow(content)
        left, top, right, bottom = _bounds(matrix, *content.shape[2:])
        if torch.equal(matrix, IDENTITY) or (right - left) * (bottom - top) > self.most:
            self._move_noise(0, 0)
            return stylize_tensor(self.network, content, options.strength, options.keep_colors, dtype)
        to_canvas = torch.cat([matrix[:, :2], matrix[:, 2:] - torch.tensor([[left], [top]])], 1)
        self._move_noise(top, left)
        canvas = warp(content, inverse(to_canvas), bottom - top, right - left).clamp_(0, 1)
        painted = stylize_tensor(self.network, canvas, dtype=dtype).to(content)
        output = warp(painted, to_canvas, *content.shape[2:]).clamp_(0, 1)
        return finish(output, content, options.strength, options.keep_colors)

    def check_memory(self, name: object, width: int, height: int) -> None:
        """Raise image.TooLarge if a frame of this size does not fit into the memory."""
        memory = free_memory(self.device) if self.options.memory is None else self.options.memory
        self.most = memory / memory_per_pixel(self.network)
        if width * height > self.most:
            raise image.TooLarge(
                f"{name}: frames of {width} x {height}; allowed: up to {self.most / 1e6:.2f} megapixels"
            )

    def _move_noise(self, top: int, left: int) -> None:
        """Shift the noise to fit an image whose upper left pixel is at (left, top) in the scene."""
        for noise in self.noises:
            pixel = Slim.TILE // noise.side  # pixels of the content per pixel of the noise
            noise.origin = top // pixel, left // pixel


def _bounds(matrix: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the rectangle of the scene that a frame covers, (left, top, right, bottom); its corner is on the grid."""
    x, y = apply(matrix, torch.tensor([[0, width, 0, width], [0, 0, height, height]], dtype=torch.float64))
    left, top = (_GRID * math.floor(float(values.min()) / _GRID) for values in (x, y))
    right, bottom = (math.ceil(float(values.max()) - 1e-6) for values in (x, y))
    return left, top, right, bottom
