"""The default image transformation network: Johnson's design with a quarter of the arithmetic.

The first convolution halves the size and the last is 3x3, because Johnson's 9x9 layers at full size cost most of the
time and improve nothing visible. The layers between have half of Johnson's channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError, check_int, check_number
from fast_nst.networks.layers import LARGEST, ConvBlock, ResidualBlock, mix, run_layers


class Slim(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1], for any H and W.

    width: channels at half size; half as many at full size, twice as many at quarter size. blocks: number of residual
    blocks. noise: initial standard deviation of the noise (`Noise`) added to the input of the residual blocks; 0: none.
    In flat regions, such as a clear sky, the only spatial cue is the stride phase, which produces a lattice; noise
    breaks the symmetry.
    margin: pixels of reflection added around the content and cropped from the output, a multiple of 4. Networks paint a
    frame next to their padding; the margin moves it outside the output. Training uses no margin: there, the frame
    absorbs patterns that the style's Gram matrices require but that have no place in the content.
    fine_noise: the same as `noise`, at half size. Without it, long training can cover the sky with lines two or three
    pixels apart. Older weights files have no fine noise.
    num_styles: S; each style has its own parameters in the norms and the noise, and `style` selects and mixes them
    (Dumoulin et al. 2017, arXiv 1610.07629). 0: one style, and `style` is ignored.
    """

    TILE = 1024  # period of the noise, in pixels of the content
    scale = 1

    def __init__(
        self,
        width: int = 32,
        blocks: int = 5,
        noise: float = 0.2,
        margin: int = 16,
        fine_noise: float = 0.0,
        num_styles: int = 0,
    ) -> None:
        super().__init__()
        check_int("width", width, 2, LARGEST)
        check_int("blocks", blocks, 0, LARGEST)
        check_number("noise", noise, 0)
        check_number("fine_noise", fine_noise, 0)
        self.conditional, self.num_styles = check_int("num_styles", num_styles, 0, LARGEST) > 0, max(1, num_styles)
        self.arguments: dict[str, Any] = {
            "width": width, "blocks": blocks, "noise": noise, "margin": margin, "fine_noise": fine_noise,
        }  # fmt: skip
        # `stylize.tiles` uses these: pixels reflected around the content, pixels cropped from the output, pixel format.
        self.border = self.cut = check_int("margin", margin, 0, 1024)
        self.pixels = "centred"
        if margin % 4:
            raise UserError(f"margin: got {margin}; allowed: a multiple of 4")
        # No bias before a norm: the norm removes it, so its gradient would be only rounding error.
        shared: Any = {"bias": False, "num_styles": num_styles}
        self.down = nn.Sequential(
            ConvBlock(3, width, 7, stride=2, **shared),
            ConvBlock(width, 2 * width, 3, stride=2, **shared),
        )
        self.scatter = Noise(4, 2 * width, self.TILE // 4, noise, num_styles) if noise else nn.Identity()
        self.blocks = nn.Sequential(*(ResidualBlock(2 * width, **shared) for _ in range(blocks)))
        self.fine = Noise(2, width, self.TILE // 2, fine_noise, num_styles) if fine_noise else nn.Identity()
        self.up = nn.Sequential(
            ConvBlock(2 * width, width, 3, upsampling="nearest", **shared),
            ConvBlock(width, width // 2, 3, upsampling="nearest", **shared),
            ConvBlock(width // 2, 3, 3, norm=None, relu=False),
        )

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        """Stylize `content`. style: weights (B or 1, S), whose sum is the strength; None: equal weights."""
        if style is None:
            style = content.new_full((1, self.num_styles), 1 / self.num_styles, dtype=torch.float32)

        def layers(x: Tensor) -> Tensor:
            for _, layer in self.stages():
                x = layer(x, style)
            return x

        return run_layers(layers, content, 0 if self.training else self.border, self.pixels)

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Return the layers in order, for `stylize.tiles`: ("conv" | "residual" | "noise", layer)."""
        kinds = {ConvBlock: "conv", ResidualBlock: "residual", Noise: "noise"}
        layers = [*self.down, self.scatter, *self.blocks, self.up[0], self.fine, *self.up[1:]]
        return [(kinds[type(layer)], layer) for layer in layers if not isinstance(layer, nn.Identity)]


class Noise(nn.Module):
    """Add a linear map of `octaves` octaves of noise to features (Ulyanov et al. 2016, arXiv 1603.03417, sec. 3.1).

    (B, channels, h, w) -> the same shape. std: initial standard deviation of the added noise. The noise is a periodic
    tile with sides of `side` pixels. It is the same at every call, but shifted at random in training. num_styles: as in
    `Slim`; the weights of the content itself start at 0.
    """

    def __init__(self, octaves: int, channels: int, side: int, std: float, num_styles: int = 0) -> None:
        super().__init__()
        self.side = self.max_shift = side
        # A table has no 1x1 dimensions, because torch has no channels_last for five dimensions.
        shape = (num_styles + 1, channels, octaves) if num_styles else (channels, octaves, 1, 1)
        self.weight = nn.Parameter(torch.empty(shape))
        self.shift: Tensor | None = None  # rows and columns, (2,), in training; None: random
        self.origin = (0, 0)  # row and column of the tile where the image starts; `stylize.frames` moves it
        self.register_buffer("tile", noise_tile(octaves, side), persistent=False)
        if not self.weight.is_meta:  # on a meta tensor torch would import its compiler, which takes a second
            nn.init.normal_(self.weight, std=std * octaves**-0.5)
            if num_styles:
                nn.init.zeros_(self.weight[0])

    def forward(self, features: Tensor, style: Tensor | None = None, top: int = 0) -> Tensor:
        """Add the noise. top: the row of the image at which `features` start, if they are a strip of it."""
        tile = self.get_buffer("tile")
        shift: Any = (self.origin[0] + top, self.origin[1])
        if self.training:
            shift = torch.randint(self.side, (2,)).tolist() if self.shift is None else self.shift
        b, _, *sides = features.shape
        for dim, first, length in zip((2, 3), shift, sides, strict=True):
            tile = tile.index_select(dim, (torch.arange(length, device=tile.device) + first) % self.side)
        if self.weight.dim() == 4:  # expanded: broadcasting would sum the gradient over the batch, which is slow
            return features + F.conv2d(tile.expand(b, -1, -1, -1), self.weight)
        assert style is not None
        weights = mix(self.weight, style)[..., None, None].expand(b, -1, -1, -1, -1)
        return features + torch.cat([F.conv2d(tile, weight) for weight in weights])


def noise_tile(count: int, side: int) -> Tensor:
    """Return `count` octaves of periodic noise, (1, count, side, side), of unit variance; the same at every call.

    Octave k is Gaussian noise with `side` / 2**k points a side, interpolated.
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
