"""A network as plain layers, the form that other programs run fast.

The training layers (`fast_nst.ops`) write into slices of tensors. An exporter turns each such write into several
operations; these layers compute the same result with one. Legend: B batch, S styles, C channels, H height, W width.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError
from fast_nst.networks import Network
from fast_nst.networks.layers import (
    ConditionalInstanceNorm,
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    decode,
    encode,
    mix,
)
from fast_nst.networks.slim import Noise
from fast_nst.networks.style_bank import StyleBank
from fast_nst.stylize.image import widest
from fast_nst.stylize.tiles import TiledNetwork


class PlainNetwork(nn.Module):
    """A network: (B, 3, H, W) in [0, 1] -> the same shape and range. The sides must be at least `smallest` pixels.

    conditional: whether it takes a second argument, the weights of its styles, (B, S).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        if isinstance(network, StyleBank):
            raise UserError("WEIGHTS: has a separate network for each style; name one: WEIGHTS:STYLE")
        if not hasattr(network, "stages") or network.scale != 1:
            raise UserError(f"WEIGHTS: a network of type {type(network).__name__} cannot be exported")
        tiled = cast(TiledNetwork, network)
        self.border, self.cut, self.pixels = tiled.border, tiled.cut, tiled.pixels
        self.smallest = max(16, getattr(network, "smallest", 0), self.border + 1)
        self.widest = widest(network)
        self.conditional, self.num_styles = bool(getattr(network, "conditional", False)), network.num_styles
        plain = {"conv": PlainConv, "residual": PlainResidual, "noise": PlainNoise}
        self.layers = nn.ModuleList(plain[kind](copy.deepcopy(layer)) for kind, layer in tiled.stages())
        self.eval().float().cpu()
        self.requires_grad_(False)

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        height, width = content.shape[2:]
        x = F.pad(content, (self.border,) * 4, mode="reflect") if self.border else content
        x = encode(x, self.pixels)
        for layer in self.layers:
            x = layer(x, style)
        for dim, side in ((2, height), (3, width)):  # a slice would need a proof that x is large enough
            x = x.index_select(dim, torch.arange(self.cut, self.cut + side))
        return decode(x, self.pixels).clamp(0, 1)


class PlainConv(nn.Module):
    """A `ConvBlock`."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = block.conv, block.norm, block.relu
        self.pixels, self.mode, self.doubles = block.pixels, block.mode, block.upsampling == "nearest"
        self.same = block.same

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        if self.doubles:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.same and self.conv.transposed:
            x = self.conv(x)[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]
        elif self.same:
            x = self.conv(F.pad(x, (x.shape[3] % 2, 1, x.shape[2] % 2, 1)))
        else:
            x = self.conv(F.pad(x, (self.pixels,) * 4, mode=self.mode) if self.pixels else x)
        match self.norm:
            case InstanceNorm() as norm:
                x = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)
            case ConditionalInstanceNorm() as norm:
                assert style is not None
                scale, shift = (mix(table, style)[:, :, None, None] for table in (norm.weight, norm.bias))
                x = F.instance_norm(x, eps=norm.eps) * scale + shift
            case nn.Module() as norm:
                x = norm(x)
        return F.relu(x) if self.relu else x


class PlainResidual(nn.Module):
    """A `ResidualBlock`."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.first, self.second, self.crop = PlainConv(block.first), PlainConv(block.second), block.crop

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        y = self.second(self.first(x, style), style)
        c = self.crop
        return y + (x[:, :, c:-c, c:-c] if c else x)


class PlainNoise(nn.Module):
    """A `Noise`, of one style or several."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.weight, self.side = noise.weight, noise.side
        self.register_buffer("tile", noise.get_buffer("tile"))

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        tile = self.get_buffer("tile")
        for dim in (2, 3):
            tile = tile.index_select(dim, torch.arange(x.shape[dim]) % self.side)
        if self.weight.dim() == 4:
            return x + F.conv2d(tile, self.weight)
        assert style is not None
        noise = mix(self.weight, style) @ tile[0].flatten(1)  # (B, C, octaves) @ (octaves, h * w)
        return x + noise.unflatten(2, x.shape[2:])
