"""The default image transformation network: Johnson's plan at a quarter of the arithmetic.

The first convolution already halves the size and the last is 3x3, so that little is computed at full size, where
Johnson's 9x9 ends cost most of the time and gain nothing that a person sees; in between half the width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.networks.layers import ConvBlock, ResidualBlock, decode, encode
from fast_nst.validate import whole_number


class Slim(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]. Any H and W from 1 on.

    width: channels at half the size; half of it at full size, twice at a quarter. blocks: residual blocks.
    """

    SMALLEST = 16  # reflection needs more pixels than it adds, after two halvings too

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        whole_number("width", width, 2)
        whole_number("blocks", blocks, 0)
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

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        missing_h, missing_w = (max(0, self.SMALLEST - side) for side in (height, width))
        y = encode(x, "centred")
        if missing_h or missing_w:
            y = F.pad(y, (0, missing_w, 0, missing_h), mode="replicate")
        y = self.up(self.blocks(self.down(y)))  # each side a multiple of 4, none smaller than it went in
        return decode(y[:, :, :height, :width], "centred")
