"""The last hand on a synthetic photograph: a small network that gives it the irregularities of real ones.

Shapes, textures and light that a program draws are too regular: walls are flat, outlines alike all along. A refiner
network (Shrivastava et al. 2017, arXiv 1612.07828) that learned to mislead discriminators of photographs roughens and
tints them, near the layout that was drawn. scripts/refine.py makes it; it holds no photograph, nor any part of one.
Legend: B batch, H height, W width.
"""

import functools
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.machine import has_fast_bfloat16

ASSET = Path(str(files("fast_nst"))) / "assets" / "refiner.safetensors"
NOISE = 4  # channels
FOLD = 8  # of how many pixels both sides of what it takes are multiples
_KEY = "fast_nst_refiner"


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.2))


class Refiner(nn.Module):
    """A U-net from a half to an eighth of the size that says what to add to a picture.

    (B, 3, H, W) in [0, 1] and noise (B, `NOISE`, H / 2, W / 2) of unit variance -> (B, 3, H, W), about [0, 1]; H and W
    multiples of `FOLD`.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 40, 64)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.down = nn.ModuleList([_conv(12 + NOISE, half), _conv(half, quarter, 2), _conv(quarter, eighth, 2)])
        self.blocks = nn.ModuleList(_conv(eighth, eighth) for _ in range(2))
        self.up = nn.ModuleList([_conv(eighth + quarter, quarter), _conv(quarter + half, half)])
        self.last = nn.Conv2d(half, 12, 3, padding=1)
        with torch.no_grad():
            self.last.weight.mul_(0.1)  # it adds little at first

    def forward(self, picture: Tensor, noise: Tensor) -> Tensor:
        x, passed = torch.cat([F.pixel_unshuffle(2 * picture - 1, 2), noise], 1), []
        for conv in self.down:
            x = conv(x)
            passed.append(x)
        for conv in self.blocks:
            x = x + conv(x)
        for conv, skip in zip(self.up, reversed(passed[:-1]), strict=True):
            x = conv(torch.cat([F.interpolate(x, scale_factor=2.0, mode="bilinear"), skip], 1))
        return picture + 0.5 * F.pixel_shuffle(self.last(x), 2)


@functools.cache
def bundled() -> Refiner:
    """The package's own, frozen."""
    with torch.device("meta"):  # random weights would take from the state of torch's generator
        network = Refiner()
    state = {name: value.float() for name, value in safetensors.torch.load_file(ASSET).items()}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def save(path: str | os.PathLike[str], network: Refiner, recipe: Mapping[str, Any]) -> None:
    """Write `network` in float16 with its provenance (JSON values)."""
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, {_KEY: json.dumps(recipe)})


def refine(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The (height, width, 3) uint8 picture, refined by the bundled network with noise of `rng`.

    In bfloat16 where the processor does that fast, whatever autocast says around it: processors differ by a level here
    and there, numbers of threads do not.
    """
    network, (height, width, _) = bundled(), picture.shape
    missing = (0, -width % FOLD, 0, -height % FOLD)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16("cpu")):
        x = F.pad(torch.tensor(picture).permute(2, 0, 1)[None].float() / 255, missing, mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        noise = rng.standard_normal((1, NOISE, x.shape[2] // 2, x.shape[3] // 2), np.float32)
        refined = network(x, torch.from_numpy(noise).contiguous(memory_format=torch.channels_last))
        levels = refined[0, :, :height, :width].permute(1, 2, 0).mul(255).round_().clamp_(0, 255).byte()
    return levels.numpy()
