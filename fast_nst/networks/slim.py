"""The default image transformation network: Johnson's plan at a quarter of the arithmetic.

The first convolution already halves the size and the last is 3x3, so that little is computed at full size, where
Johnson's 9x9 ends cost most of the time and gain nothing that a person sees; in between half the width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.networks.functional import pad
from fast_nst.networks.layers import ConvBlock, ResidualBlock, decode, encode
from fast_nst.validate import Invalid, number, whole_number


class Slim(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]. Any H and W from 1 on.

    width: channels at half the size; half of it at full size, twice at a quarter. blocks: residual blocks.
    noise: standard deviation of the noise that the residual blocks are given with the photograph's features, at first;
    0: none. Where a photograph is flat, a clear sky, a convolution has nothing to tell one stroke's place and direction
    from another's but the phases of its strides, and paints nothing or a lattice. Noise of several octaves (Ulyanov et
    al. 2016, arXiv 1603.03417, sec. 3.1) tells it, up to the size of a star. It is the same at every call, a tile that
    joins itself on all sides; in training it is shifted at random.
    margin: pixels of reflection around a photograph that are cut off its result again, a multiple of 4. Next to the
    padding of its convolutions a network paints a frame, which lies outside the picture then. Not in training, where
    the frame is of use: it holds what the painting's Gram asks for and the photograph has no place for.
    """

    OCTAVES = 4
    TILE = 256  # pixels of the noise's tile at a quarter of the size
    SMALLEST = 16  # pixels a side that two halvings need for their reflections

    def __init__(self, width: int = 32, blocks: int = 5, noise: float = 0.2, margin: int = 16) -> None:
        super().__init__()
        whole_number("width", width, 2)
        whole_number("blocks", blocks, 0)
        number("noise", noise, 0)
        # For `stylize.strips`: pixels reflected around a photograph, those of them cut off again, `encode`'s argument.
        self.border = self.cut = whole_number("margin", margin, 0)
        self.pixels = "centred"
        if margin % 4:
            raise Invalid(f"margin: got {margin}; allowed: a multiple of 4")
        # No biases before a norm, which takes them out again: their gradient would be rounding errors alone.
        self.down = nn.Sequential(
            ConvBlock(3, width, 7, stride=2, bias=False),
            ConvBlock(width, 2 * width, 3, stride=2, bias=False),
        )
        self.scatter = nn.Conv2d(self.OCTAVES, 2 * width, 1, bias=False) if noise else None
        if self.scatter is not None:
            self.register_buffer("octaves", octaves(self.OCTAVES, self.TILE), persistent=False)
            if not self.scatter.weight.is_meta:  # for which torch would import its compiler, a second
                nn.init.normal_(self.scatter.weight, std=noise * self.OCTAVES**-0.5)
        self.blocks = nn.Sequential(*(ResidualBlock(2 * width, bias=False) for _ in range(blocks)))
        self.up = nn.Sequential(
            ConvBlock(2 * width, width, 3, upsampling="nearest", bias=False),
            ConvBlock(width, width // 2, 3, upsampling="nearest", bias=False),
            ConvBlock(width // 2, 3, 3, norm=None, relu=False),
        )

    def sprinkle(self, features: Tensor, top: int = 0) -> Tensor:
        """Features at a quarter of the size, (B, 2 * width, h, w), with the noise added; `top`: their first row."""
        if self.scatter is None:
            return features
        left, tile = 0, self.get_buffer("octaves")
        if self.training:
            top, left = torch.randint(self.TILE, (2,)).tolist()
        b, _, h, w = features.shape
        for dim, first, length in ((2, top, h), (3, left, w)):
            tile = tile.index_select(dim, torch.arange(first, first + length, device=tile.device) % self.TILE)
        return features + self.scatter(tile.expand(b, -1, -1, -1))  # the sum over a batch, the gradient's, takes long

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        margin = 0 if self.training else self.border
        missing_h, missing_w = (max(0, max(self.SMALLEST, margin + 1) - side) for side in (height, width))
        if missing_h or missing_w:
            x = F.pad(x, (0, missing_w, 0, missing_h), mode="replicate")
        y = self.down(encode(pad(x, margin, "reflect"), self.pixels))
        y = self.up(self.blocks(self.sprinkle(y)))  # each side a multiple of 4, none smaller than it went in
        return decode(y[:, :, margin : margin + height, margin : margin + width], self.pixels)


def octaves(count: int, side: int) -> Tensor:
    """Noise of `count` octaves, (1, count, side, side), each of unit variance, periodic, the same every time.

    Octave k is Gaussian noise of `side` / 2**k points a side, interpolated.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    channels = []
    for k in range(count):
        coarse = F.pad(
            torch.randn(1, 1, side >> k, side >> k, generator=generator, device="cpu"), (2,) * 4, mode="circular"
        )
        fine = F.interpolate(coarse, scale_factor=float(2**k), mode="bicubic")
        edge = 2 << k
        fine = fine[:, :, edge : edge + side, edge : edge + side]
        channels.append(fine / fine.std())
    return torch.cat(channels, 1)
