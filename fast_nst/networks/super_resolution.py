"""A network whose output is larger than its input (Johnson, Alahi, Fei-Fei 2016, arXiv 1603.08155, sec. 4.2).

As in the paper's supplement, residual blocks work at the size of the input, and upsamplings follow. There are three
departures. The layers compute a correction that is added to the input enlarged by bicubic interpolation, so training
starts from that interpolation. There is no norm, so a pixel depends only on its neighborhood and large pictures can be
enlarged in strips. The last convolution is small and the channels halve with each upsampling, as in `slim`.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError, check_int
from fast_nst.networks.layers import LARGEST, ConvBlock, ResidualBlock, encode

SCALES = (2, 4, 8)
_BLUR = 1.0  # standard deviation in pixels of the large image, sec. 4.2


class SuperResolution(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, scale H, scale W), about [0, 1], for any H and W.

    scale: 2, 4 or 8. width: channels at the input's size, a multiple of `scale`. blocks: number of residual blocks.
    """

    num_styles = 1
    pixels = "centred"

    def __init__(self, scale: int = 4, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        if isinstance(scale, bool) or scale not in SCALES:
            raise UserError(f"scale: got {scale!r}; allowed: {', '.join(map(str, SCALES))}")
        check_int("width", width, scale, LARGEST)
        check_int("blocks", blocks, 0, LARGEST)
        if width % scale:
            raise UserError(f"width: got {width}; allowed with scale {scale}: a multiple of {scale}")
        self.scale, doublings = scale, int(math.log2(scale))
        plain: Any = {"norm": None}
        self.first = ConvBlock(3, width, 5, **plain)
        self.blocks = nn.Sequential(*(ResidualBlock(width, **plain) for _ in range(blocks)))
        self.up = nn.Sequential(
            *(ConvBlock(width >> k, width >> k + 1, 3, upsampling="nearest", **plain) for k in range(doublings))
        )
        self.last = ConvBlock(width >> doublings, 3, 3, relu=False, **plain)
        # The number of input rows or columns, on each side, that a row or column of the output depends on.
        self.reach = 2 + 2 * blocks + doublings + 1 + 2
        # The channels of the widest layer, counted per pixel of the input.
        self.widest = max(width, (width >> doublings) * scale**2)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        height, width = content.shape[2:]
        smallest = 3  # pixels a side that a reflection by 2 needs
        x = content
        if min(height, width) < smallest:
            x = F.pad(x, (0, max(0, smallest - width), 0, max(0, smallest - height)), mode="replicate")
        y = self.last(self.up(self.blocks(self.first(encode(x, self.pixels))))).float()
        return enlarge(content, self.scale) + y[:, :, : self.scale * height, : self.scale * width]


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Enlarge (B, C, H, W) by bicubic interpolation, as Pillow does: (B, C, scale H, scale W), float32."""
    sides = [scale * side for side in image.shape[2:]]
    return F.interpolate(image.float(), sides, mode="bicubic", antialias=True, align_corners=False)


def shrink(image: Tensor, scale: int) -> Tensor:
    """Blur and shrink (B, C, scale H, scale W) to (B, C, H, W), as sec. 4.2 does to make inputs from photographs.

    The blur is Gaussian, with a standard deviation of 1 pixel; the interpolation is bicubic, as in Pillow.
    """
    offsets = torch.arange(-3, 4, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / _BLUR).square())
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, 7)
    blurred = F.pad(image.float(), (3,) * 4, mode="reflect")
    blurred = F.conv2d(blurred, kernel, groups=image.shape[1])
    blurred = F.conv2d(blurred, kernel.transpose(2, 3), groups=image.shape[1])
    sides = [side // scale for side in image.shape[2:]]
    return F.interpolate(blurred, sides, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
