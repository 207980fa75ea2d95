"""The image transformation network of Johnson, Alahi, Fei-Fei 2016 (arXiv 1603.08155, supplementary table 1).

Its layers: a 9x9 convolution, two strided 3x3 convolutions, residual blocks at quarter size, two x2 upsamplings, a 9x9
convolution. Published variants are options: see configs/network and configs/experiment.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError, check_choice, check_int, check_number
from fast_nst.networks.layers import LARGEST, ConvBlock, ResidualBlock, decode, encode

PADDINGS = ("reflection", "zero", "tensorflow", "reflection_once")
UPSAMPLINGS = ("nearest", "transposed")


def _check_sizes(filters: Sequence[int], blocks: int, kernel: int) -> None:
    if not isinstance(filters, Sequence) or isinstance(filters, str) or len(filters) != 3:
        raise UserError(f"filters: got {filters!r}; allowed: three positive integers")
    for channels in filters:
        check_int("filters", channels, 1, LARGEST)
    check_int("blocks", blocks, 0, LARGEST)
    if check_int("kernel", kernel, 1, LARGEST) % 2 == 0:
        raise UserError(f"kernel: got {kernel}; allowed: odd integers")


class Johnson(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1], for any H and W.

    filters: channels at full, half and quarter size. blocks: number of residual blocks. kernel: size of the first and
    the last kernel. norm: "instance" or "batch". upsampling: "nearest" (then a convolution) or "transposed"
    (convolution).
    padding: "reflection", "zero" or "tensorflow" (lengstrom, see `ConvBlock`) at every convolution; or
    "reflection_once", as in the paper's supplement: the input is padded by 8 pixels per residual block (40 by default),
    which the unpadded residual blocks remove again.
    pixels: the pixel format inside the network, see `layers.encode`. final_norm: whether the last layer has a norm
    (lengstrom). init_std: standard deviation of truncated normal weights; None: torch's default initialization.
    Raises UserError with the argument, the value given and the values allowed.
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
        _check_sizes(filters, blocks, kernel)
        check_number("norm_eps", norm_eps, 0)
        if init_std is not None:
            check_number("init_std", init_std, 1e-6)
        check_choice("padding", padding, PADDINGS)
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        once = padding == "reflection_once"
        outer = "zero" if once else padding  # the Lua code zero-pads the convolutions outside the residual blocks
        inner = "none" if once else padding
        full, half, quarter = filters
        shared: dict[str, Any] = {"norm": norm, "norm_eps": norm_eps, "bias": bias}
        self.pixels = pixels
        # `stylize.tiles` uses these: pixels reflected around the content, pixels cropped from the output.
        self.border, self.cut = (8 * blocks if once else 0), 0
        # Reflection needs more pixels than it adds, at full size and after two halvings.
        self.smallest = max(16, kernel, self.border + 1)
        self.down = nn.Sequential(
            ConvBlock(3, full, kernel, padding=outer, **shared),
            ConvBlock(full, half, 3, stride=2, padding=outer, **shared),
            ConvBlock(half, quarter, 3, stride=2, padding=outer, **shared),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(quarter, padding=inner, **shared) for _ in range(blocks)))
        self.up = nn.Sequential(
            ConvBlock(quarter, half, 3, padding=outer, upsampling=upsampling, **shared),
            ConvBlock(half, full, 3, padding=outer, upsampling=upsampling, **shared),
            ConvBlock(full, 3, kernel, padding=outer, relu=False, **{**shared, "norm": norm if final_norm else None}),
        )
        encode(next(self.parameters())[:, :3], pixels)  # an unknown format fails here, not in the first step
        if init_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.trunc_normal_(module.weight, std=init_std, a=-2 * init_std, b=2 * init_std)

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        height, width = content.shape[2:]
        pad_h, pad_w = (max(0, self.smallest - side) for side in (height, width))
        x = encode(content, self.pixels)
        if pad_h or pad_w:
            x = F.pad(x, (0, pad_w, 0, pad_h), mode="replicate")
        if self.border:
            x = F.pad(x, (self.border,) * 4, mode="reflect")
        y = self.up(self.blocks(self.down(x)))  # each side is a multiple of 4 and at least the input's
        return decode(y[:, :, :height, :width], self.pixels)

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Return the layers in order, for `stylize.tiles`: ("conv" | "residual", layer)."""
        kinds = {ConvBlock: "conv", ResidualBlock: "residual"}
        return [(kinds[type(layer)], layer) for layer in (*self.down, *self.blocks, *self.up)]
