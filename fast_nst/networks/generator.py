"""Adversarial generation (AGN): a generator of images in a given style, and its discriminator.

Legend: B batch, S side of an image, C channels, F numbers that describe a style, K styles.
"""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError, check_int
from fast_nst.networks.layers import LARGEST

SMALLEST = 4  # side of the features at the bottom of the U-Net


class Generator(nn.Module):
    """Noise (B, `noise`) and a style (B, F) -> images (B, 3, S, S) in [0, 1].

    A linear map spreads noise and style over S x S pixels. A U-Net follows: convolutions halve the size down to 4
    pixels and transposed convolutions double it again. On the way up, the features of the same size from the way down
    are appended. Norms and ReLUs follow DCGAN (Radford et al. 2015, arXiv 1511.06434). The style also scales and
    shifts the features on the way up.
    size: S, a power of 2. noise: the length of the noise vector, which is drawn from N(0, I). width: the channels at
    side S / 2; each halving doubles them, up to 8 times `width`. features: F. styles: K, the number of styles that it
    is trained on; the buffer `known`, (K, F), holds their features.
    """

    SPREAD, EMBEDDED = 4, 64  # channels at side S; length of the embedded style

    def __init__(self, size: int = 64, noise: int = 100, width: int = 16, features: int = 896, styles: int = 2) -> None:
        super().__init__()
        check_int("size", size, 16, 1024)
        for name, value in (("noise", noise), ("width", width), ("features", features), ("styles", styles)):
            check_int(name, value, 1, LARGEST)
        if size & (size - 1):
            raise UserError(f"size: got {size}; allowed: a power of 2 from 16 to 1024")
        self.size, self.noise, self.features = size, noise, features
        self.register_buffer("known", torch.zeros(styles, features))
        self.embed = nn.Sequential(nn.Linear(features, self.EMBEDDED), nn.ReLU())
        self.spread = nn.Linear(noise + self.EMBEDDED, self.SPREAD * size**2)
        halvings = int(math.log2(size // SMALLEST))
        channels = [self.SPREAD, *(width * 2 ** min(k, 3) for k in range(halvings))]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(channels)
        )
        self.up, self.norms, self.scales = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = channels[-1]
        for outputs in channels[-2:0:-1]:
            self.up.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False))
            self.norms.append(nn.BatchNorm2d(outputs))
            self.scales.append(nn.Linear(self.EMBEDDED, 2 * outputs))
            inputs = 2 * outputs
        self.last = nn.ConvTranspose2d(inputs, 3, 4, 2, 1)
        if not self.last.weight.is_meta:  # smooth maps at first, because white noise would pass through the skips
            maps = torch.randn(noise + self.EMBEDDED, self.SPREAD, SMALLEST, SMALLEST) / self.EMBEDDED**0.5
            maps = F.interpolate(maps, (size, size), mode="bicubic", align_corners=False)
            self.spread.weight.data = maps.flatten(1).T.contiguous()

    def forward(self, noise: Tensor, style: Tensor) -> Tensor:
        """Generate images. Raises UserError if the noise or the style has the wrong shape."""
        for name, value, length in (("noise", noise, self.noise), ("style", style, self.features)):
            if value.dim() != 2 or value.shape[1] != length:
                raise UserError(f"{name}: got {tuple(value.shape)}; allowed: (B, {length})")
        style = self.embed(style)
        x = self.spread(torch.cat([noise, style], 1)).view(-1, self.SPREAD, self.size, self.size)
        skips = []
        for step in self.down:
            x = step(x)
            skips.append(x)
        x = skips.pop()
        for up, norm, scales in zip(self.up, self.norms, self.scales, strict=True):
            scale, shift = scales(style)[:, :, None, None].chunk(2, 1)
            x = torch.cat([torch.relu(norm(up(x)) * (1 + scale) + shift), skips.pop()], 1)
        return torch.sigmoid(self.last(x).float())


def build(name: str, **arguments: Any) -> Generator:
    """Build the generator with its constructor's `arguments`; `name` is "generator". Raises UserError."""
    try:
        return Generator(**arguments)
    except TypeError as error:
        raise UserError(f"network {name}: {error}") from None
    except ValueError as error:
        raise UserError(f"network.{error}") from None


class Discriminator(nn.Module):
    """Images (B, 3, S, S) in [0, 1] -> logits (B, K); the sigmoid of logit i is the probability of "real, of style i".

    It has three fully connected layers. widths: the widths of the first two. Adam moves the weights of all pixels
    alike, so with more pixels its steps would have a larger effect and the discriminator would win. `gain` scales the
    input to compensate.
    """

    def __init__(self, size: int, styles: int, widths: tuple[int, int] = (256, 512)) -> None:
        super().__init__()
        shape: Any = (3 * size**2, *widths, styles)
        layers = [layer for a, b in itertools.pairwise(shape) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(nn.Flatten(), *layers[:-1])
        self.gain = (32 / size) ** 2

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(self.gain * (2 * image - 1))
        return logits.float()
