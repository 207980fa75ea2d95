"""The image transformation network of Johnson, Alahi, Fei-Fei 2016 (arXiv 1603.08155, supplementary table 1).

9x9 convolution, two strided 3x3 convolutions, residual blocks at a quarter of the size, two x2 upsamplings, 9x9
convolution. Its published variants are options: see configs/network and configs/experiment.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError, check_int, check_number
from fast_nst.networks.layers import LARGEST, ConvBlock, ResidualBlock, decode, encode

PADDINGS = ("reflection", "zero", "reflection_once")
UPSAMPLINGS = ("nearest", "transposed")


class Johnson(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1]. Any H and W from 1 on.

    filters: channels at full, half and quarter size. blocks: residual blocks. kernel: of the first and last layer.
    norm: "instance" or "batch". upsampling: "nearest" (and a convolution) or "transposed" (convolution).
    padding: "reflection" at every convolution; "zero"; or "reflection_once", the paper's supplement: the input padded
    by 8 pixels a block (40), the residual blocks unpadded, so that the size comes out even.
    pixels: what the network takes and gives inside, `layers.encode`. final_norm: normalise the last layer (lengstrom).
    init_std: truncated normal weights of that deviation in place of torch's default.
    """

    num_styles, scale = 1, 1

    def __init__(
        self,
        filters: Sequence[int] = (32, 64, 128),
        blocks: int = 5,
        kernel: int = 9,
        norm: str = "instance",
        norm_eps: float = 1e-5,
        upsampling: str = "nearest",
        padding: str = "reflection",
        bias: bool = True,
        pixels: str = "centred",
        final_norm: bool = False,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(filters, Sequence) or isinstance(filters, str) or len(filters) != 3:
            raise UserError(f"filters: got {filters!r}; allowed: three positive numbers")
        for channels in filters:
            check_int("filters", channels, 1, LARGEST)
        check_int("blocks", blocks, 0, LARGEST)
        check_int("kernel", kernel, 1, LARGEST)
        check_number("norm_eps", norm_eps, 0)
        if init_std is not None:
            check_number("init_std", init_std, 0)
        if kernel % 2 == 0:
            raise UserError(f"kernel: got {kernel}; allowed: an odd kernel")
        if padding not in PADDINGS:
            raise UserError(f"padding: got {padding!r}; allowed: {', '.join(PADDINGS)}")
        if upsampling not in UPSAMPLINGS:
            raise UserError(f"upsampling: got {upsampling!r}; allowed: {', '.join(UPSAMPLINGS)}")
        once = padding == "reflection_once"
        outer = "zero" if once else padding  # the Lua code zero-pads the strided and outer convolutions
        inner = "none" if once else padding
        wide, half, quarter = filters
        shared: dict[str, Any] = {"norm": norm, "norm_eps": norm_eps, "bias": bias}
        self.pixels = pixels
        self.border = (
            8 * blocks if once else 0
        )  # pixels reflected around a photograph, which the residual blocks use up
        self.cut = 0
        # Reflection needs more pixels than it adds, here and after two halvings.
        self.smallest = max(16, kernel, self.border + 1)
        self.down = nn.Sequential(
            ConvBlock(3, wide, kernel, padding=outer, **shared),
            ConvBlock(wide, half, 3, stride=2, padding=outer, **shared),
            ConvBlock(half, quarter, 3, stride=2, padding=outer, **shared),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(quarter, padding=inner, **shared) for _ in range(blocks)))
        self.up = nn.Sequential(
            ConvBlock(quarter, half, 3, padding=outer, upsampling=upsampling, **shared),
            ConvBlock(half, wide, 3, padding=outer, upsampling=upsampling, **shared),
            ConvBlock(
                wide,
                3,
                kernel,
                padding=outer,
                norm=norm if final_norm else None,
                norm_eps=norm_eps,
                bias=bias,
                relu=False,
            ),
        )
        encode(next(self.parameters())[:, :3], pixels)  # an unknown name fails here, not in the first step
        if init_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.trunc_normal_(module.weight, std=init_std, a=-2 * init_std, b=2 * init_std)

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        x = content
        height, width = x.shape[2:]
        missing_h, missing_w = (max(0, self.smallest - side) for side in (height, width))
        y = encode(x, self.pixels)
        if missing_h or missing_w:
            y = F.pad(y, (0, missing_w, 0, missing_h), mode="replicate")
        if self.border:
            y = F.pad(y, (self.border,) * 4, mode="reflect")
        y = self.up(self.blocks(self.down(y)))  # each side comes out a multiple of 4, none smaller than it went in
        return decode(y[:, :, :height, :width], self.pixels)
