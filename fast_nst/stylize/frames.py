"""Stylize the frames of a clip one after the other, with the network's grid and noise following the camera."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from fast_nst import image
from fast_nst.device import free_memory
from fast_nst.networks.slim import Noise, Slim
from fast_nst.networks.super_resolution import SuperResolution
from fast_nst.stylize.color import luma
from fast_nst.stylize.image import choose_dtype, memory_per_pixel, stylize_tensor
from fast_nst.stylize.options import Options

_SIDE = 512  # pixels of the longer side at which motion is measured
_CLEAR = 0.3  # height of the correlation's peak, of 1: a pan gives 0.9, a zoom by 1 % 0.6, by 2 % 0.25, a cut 0.02
_GRID = 4  # pixels of the content between the points of a network's coarsest features; no grid where it enlarges
_SLACK = 0.75  # pixels that the scene may be off its place, so that a camera that trembles does not move the grid
_FAR = 8  # a frame whose motion exceeds 1 / _FAR of a side becomes the next reference


class FramePainter:
    """Call it with each frame, (1, 3, H, W) in [0, 1]; it returns the output.

    A network computes its features on a grid of 4 pixels and adds noise to them, both fixed to the frame. In a pan the
    strokes would change with every pixel of motion and the noise would stay in place. So both are moved by the
    accumulated motion of the picture, to the pixel. Use it as a context; at its end the noise is where it was.
    """

    def __init__(self, network: nn.Module, options: Options = Options()) -> None:  # noqa: B008 (frozen)
        self.network, self.options = network, options
        self.device = next(network.parameters()).device
        self.noises = [module for module in network.modules() if isinstance(module, Noise)]
        self.grid = 1 if isinstance(network, SuperResolution) else _GRID
        self.motion = Motion()
        self.place: tuple[int, ...] = (0, 0)  # of the scene, in pixels down and right of where the clip began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._move_noise(0, 0)

    def __call__(self, content: Tensor) -> Tensor:
        content = content.to(self.device)
        motion = self.motion.follow(content)
        self.place = tuple(round(a) if abs(a - b) > _SLACK else b for a, b in zip(motion, self.place, strict=True))
        down, right = self.place
        top, left = -down % self.grid, -right % self.grid  # the grid's first point is where the scene has one
        self._move_noise(down + top, right + left)
        options = self.options
        output = stylize_tensor(
            self.network, nn.functional.pad(content, (left, 0, top, 0), mode="replicate"), options.strength,
            options.keep_colors, choose_dtype(options, self.device),
        )  # fmt: skip
        return output[..., top:, left:]

    def check_memory(self, name: object, width: int, height: int) -> None:
        """Raise image.TooLarge if a frame of this size does not fit into the memory."""
        memory = free_memory(self.device) if self.options.memory is None else self.options.memory
        most = memory / memory_per_pixel(self.network)
        if width * height > most:
            raise image.TooLarge(f"{name}: frames of {width} x {height}; allowed: up to {most / 1e6:.2f} megapixels")

    def _move_noise(self, down: int, right: int) -> None:
        for noise in self.noises:
            pixel = Slim.TILE // noise.side  # of the noise, in pixels of the content
            noise.origin = -down // pixel, -right // pixel


class Motion:
    """Accumulate the motion of the picture as a whole, in pixels down and right, over the frames of a clip.

    Each frame is compared with a reference, and only with the frame before if it is too different from that: errors of
    a fraction of a pixel would add up.
    """

    def __init__(self) -> None:
        self.reference: Tensor | None = None
        self.previous: Tensor | None = None
        self.start = self.now = (0.0, 0.0)  # of the reference, of the last frame

    @torch.inference_mode()
    def follow(self, frame: Tensor) -> tuple[float, float]:
        """Return the motion since the first frame. frame: (1, 3, H, W)."""
        scale = math.ceil(max(frame.shape[2:]) / _SIDE)
        gray = nn.functional.avg_pool2d(luma(frame), scale, ceil_mode=True)[0, 0]
        if self.previous is None or self.reference is None or self.previous.shape != gray.shape:
            self.reference = self.previous = gray
            return self.now
        down, right, peak = shift_between(self.reference, gray)
        if peak < _CLEAR and self.previous is not self.reference:
            self.reference, self.start = self.previous, self.now
            down, right, peak = shift_between(self.reference, gray)
        if peak >= _CLEAR:
            self.now = self.start[0] + down * scale, self.start[1] + right * scale
        if peak < _CLEAR or max(abs(down) / gray.shape[0], abs(right) / gray.shape[1]) > 1 / _FAR:
            self.reference, self.start = gray, self.now
        self.previous = gray
        return self.now


def shift_between(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """Return pixels down and right from `first` to `second`, both (H, W), and the height of the peak, from 0 to 1.

    Phase correlation (Kuglin and Hines 1975), with a parabola through the peak and its neighbors.
    """
    rows, columns = (torch.hann_window(side, periodic=False, device=first.device) for side in first.shape)
    window = rows[:, None] * columns
    spectra = [torch.fft.rfft2((image - image.mean()) * window) for image in (first, second)]
    product = spectra[0].conj() * spectra[1]
    surface = torch.fft.irfft2(product / product.abs().clamp_min(1e-12), s=first.shape)
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    peak = float(surface[row, column])
    shifts = []
    for index, line in ((row, surface[:, column]), (column, surface[row])):
        side = len(line)
        before, after = float(line[index - 1]), float(line[(index + 1) % side])
        curve = before - 2 * peak + after
        whole = index - side if index > side // 2 else index
        shifts.append(whole + ((before - after) / (2 * curve) if curve < 0 else 0.0))
    return shifts[0], shifts[1], peak
