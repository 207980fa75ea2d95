"""The default image transformation network: Johnson's plan at a quarter of the arithmetic.

The first convolution already halves the size and the last is 3x3, so that little is computed at full size, where
Johnson's 9x9 ends cost most of the time and gain nothing that a person sees; in between half the width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.networks.layers import ConvBlock, ResidualBlock, decode, encode, pad
from fast_nst.validate import Invalid, number, whole_number


class Slim(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]. Any H and W from 1 on.

    width: channels at half the size; half of it at full size, twice at a quarter. blocks: residual blocks.
    noise: standard deviation of a grain added to the input, in pixels of [0, 1]. Where a photograph is flat, a clear
    sky, a convolution has nothing to tell one stroke's place from another's but the phases of its strides, and paints
    nothing or a grid; the grain tells it. It is the same at every call, a tile of seeded noise; in training the tile is
    shifted at random.
    margin: pixels of reflection around a photograph that are cut off its result again, a multiple of 4. Next to the
    padding of its convolutions a network paints a frame, which lies outside the picture then. Not in training, where
    the frame is of use: it holds what the painting's Gram asks for and the photograph has no place for.
    """

    TILE = 256
    SMALLEST = 16  # pixels a side that two halvings need for their reflections

    def __init__(self, width: int = 32, blocks: int = 5, noise: float = 0.05, margin: int = 16) -> None:
        super().__init__()
        whole_number("width", width, 2)
        whole_number("blocks", blocks, 0)
        self.noise = number("noise", noise, 0)
        self.margin = whole_number("margin", margin, 0)
        if margin % 4:
            raise Invalid(f"margin: got {margin}; allowed: a multiple of 4")
        tile = torch.randn(1, 1, self.TILE, self.TILE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("tile", tile, persistent=False)
        self.down = nn.Sequential(
            ConvBlock(3, width, 7, stride=2),
            ConvBlock(width, 2 * width, 3, stride=2),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(2 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            ConvBlock(2 * width, width, 3, upsampling="nearest"),
            ConvBlock(width, width // 2, 3, upsampling="nearest"),
            ConvBlock(width // 2, 3, 3, norm=None, relu=False),
        )

    def grain(self, height: int, width: int) -> Tensor:
        """The noise of an image's size, (1, 1, H, W)."""
        tile = self.get_buffer("tile")
        if self.training:
            tile = tile.roll([int(i) for i in torch.randint(self.TILE, (2,))], (2, 3))
        return tile.repeat(1, 1, -(-height // self.TILE), -(-width // self.TILE))[:, :, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        margin = 0 if self.training else self.margin
        missing_h, missing_w = (max(0, max(self.SMALLEST, margin + 1) - side) for side in (height, width))
        if missing_h or missing_w:
            x = F.pad(x, (0, missing_w, 0, missing_h), mode="replicate")
        x = pad(x, margin, "reflect")
        y = encode(x + self.noise * self.grain(*x.shape[2:]), "centred")
        y = self.up(self.blocks(self.down(y)))  # each side a multiple of 4, none smaller than it went in
        return decode(y[:, :, margin : margin + height, margin : margin + width], "centred")
