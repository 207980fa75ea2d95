"""The default image transformation network: Johnson's plan at a quarter of the arithmetic.

The first convolution already halves the size and the last is 3x3, so that little is computed at full size, where
Johnson's 9x9 ends cost most of the time and gain nothing that a person sees; in between half the width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError, check_int, check_number
from fast_nst.networks.layers import LARGEST, ConvBlock, ResidualBlock, decode, encode
from fast_nst.ops.channels_last import pad


class Slim(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]. Any H and W from 1 on.

    width: channels at half the size; half of it at full size, twice at a quarter. blocks: residual blocks.
    noise: standard deviation of the noise (`Noise`) that the residual blocks are given with the photograph's features,
    at first; 0: none. Where a photograph is flat, a clear sky, a convolution has nothing to tell one stroke's place and
    direction from another's but the phases of its strides, and paints nothing or a lattice. Noise tells it, up to the
    size of a star.
    margin: pixels of reflection around a photograph that are cut off its result again, a multiple of 4. Next to the
    padding of its convolutions a network paints a frame, which lies outside the picture then. Not in training, where
    the frame is of use: it holds what the painting's Gram asks for and the photograph has no place for.
    fine_noise: noise at half the size too, without which a long training can weave the sky of lines two or three pixels
    apart; files from before it have none.
    """

    TILE = 1024  # pixels of the photograph after which its noise is the same again
    SMALLEST = 16  # pixels a side that two halvings need for their reflections
    num_styles, scale = 1, 1

    def __init__(
        self, width: int = 32, blocks: int = 5, noise: float = 0.2, margin: int = 16, fine_noise: float = 0.0
    ) -> None:
        super().__init__()
        check_int("width", width, 2, LARGEST)
        check_int("blocks", blocks, 0, LARGEST)
        check_number("noise", noise, 0)
        check_number("fine_noise", fine_noise, 0)
        # For `stylize.strips`: pixels reflected around a photograph, those of them cut off again, `encode`'s argument.
        self.border = self.cut = check_int("margin", margin, 0, 1024)
        self.pixels = "centred"
        if margin % 4:
            raise UserError(f"margin: got {margin}; allowed: a multiple of 4")
        # No biases before a norm, which takes them out again: their gradient would be rounding errors alone.
        self.down = nn.Sequential(
            ConvBlock(3, width, 7, stride=2, bias=False),
            ConvBlock(width, 2 * width, 3, stride=2, bias=False),
        )
        self.scatter = Noise(4, 2 * width, self.TILE // 4, noise) if noise else nn.Identity()
        self.blocks = nn.Sequential(*(ResidualBlock(2 * width, bias=False) for _ in range(blocks)))
        self.fine = Noise(2, width, self.TILE // 2, fine_noise) if fine_noise else nn.Identity()
        self.up = nn.Sequential(
            ConvBlock(2 * width, width, 3, upsampling="nearest", bias=False),
            ConvBlock(width, width // 2, 3, upsampling="nearest", bias=False),
            ConvBlock(width // 2, 3, 3, norm=None, relu=False),
        )

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        x = content
        height, width = x.shape[2:]
        margin = 0 if self.training else self.border
        missing_h, missing_w = (max(0, max(self.SMALLEST, margin + 1) - side) for side in (height, width))
        if missing_h or missing_w:
            x = F.pad(x, (0, missing_w, 0, missing_h), mode="replicate")
        y = self.down(encode(pad(x, margin, "reflect"), self.pixels))
        y = self.up[0](self.blocks(self.scatter(y)))
        y = self.up[1:](self.fine(y))  # each side a multiple of 4, none smaller than it went in
        return decode(y[:, :, margin : margin + height, margin : margin + width], self.pixels)


class Noise(nn.Conv2d):
    """(B, channels, h, w) -> the same and a linear map of noise of `octaves` octaves (Ulyanov et al. 2016, arXiv
    1603.03417, sec. 3.1), at first of standard deviation `std`.

    It is the same at every call, a tile of `side` pixels that joins itself on all sides; in training it is shifted at
    random.
    """

    def __init__(self, octaves: int, channels: int, side: int, std: float) -> None:
        super().__init__(octaves, channels, 1, bias=False)
        self.side = self.max_shift = side
        self.shift: Tensor | None = None  # rows and columns, (2,); None: drawn at random
        self.register_buffer("tile", noise_tile(octaves, side), persistent=False)
        if not self.weight.is_meta:  # for which torch would import its compiler, a second
            nn.init.normal_(self.weight, std=std * octaves**-0.5)

    def forward(self, features: Tensor, top: int = 0) -> Tensor:
        """top: the first row of `features`, where these are a strip of a picture's."""
        tile = self.get_buffer("tile")
        shift: Any = (top, 0)
        if self.training:
            shift = torch.randint(self.side, (2,)).tolist() if self.shift is None else self.shift
        b, _, *sides = features.shape
        for dim, first, length in zip((2, 3), shift, sides, strict=True):
            tile = tile.index_select(dim, (torch.arange(length, device=tile.device) + first) % self.side)
        # One for all items would have a gradient summed over them, which takes long.
        return features + super().forward(tile.expand(b, -1, -1, -1))


def noise_tile(count: int, side: int) -> Tensor:
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
