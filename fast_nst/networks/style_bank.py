"""StyleBank: an encoder and a decoder for all styles, and a bank of convolutions for each style.

Source: Chen et al. 2017, arXiv 1703.09210. Without a bank, encoder and decoder are an auto-encoder. Between them, a
style's bank repaints the content's features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fast_nst.errors import UserError, check_int, check_number
from fast_nst.networks.layers import LARGEST, ConvBlock, ResidualBlock, rectify, run_layers
from fast_nst.networks.slim import Noise, Slim


class StyleBank(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), about [0, 1], for any H and W.

    width: channels at half size; half as many at full size, twice as many at quarter size, where the banks are. blocks:
    residual blocks in a bank. noise, margin: as in `Slim`; the noise is the first layer of a bank. num_styles: S.

    The layers are those of `Slim`, so a picture of one style takes the same time. By default encoder and decoder have
    47,000 weights and each bank has 370,000. The paper's encoder and decoder have instance norms. A norm removes the
    content's brightness and contrast, which the auto-encoder has to restore. So the encoder has no norms here. The
    decoder has norms, because banks learn styles badly without them, but the auto-encoder skips them.
    """

    scale = 1
    conditional = True

    def __init__(
        self, width: int = 32, blocks: int = 5, noise: float = 0.2, margin: int = 16, num_styles: int = 1
    ) -> None:
        super().__init__()
        check_int("width", width, 2, LARGEST)
        self.num_styles = check_int("num_styles", num_styles, 1, LARGEST)
        if check_int("margin", margin, 0, 1024) % 4:
            raise UserError(f"margin: got {margin}; allowed: a multiple of 4")
        self.arguments: dict[str, Any] = {"width": width, "blocks": blocks, "noise": noise, "margin": margin}
        self.margin, self.pixels = margin, "centred"
        self.down = nn.Sequential(
            ConvBlock(3, width, 7, stride=2, norm=None),
            ConvBlock(width, 2 * width, 3, stride=2, norm=None, relu=False),
        )
        self.banks = nn.ModuleList(make_bank(2 * width, blocks, noise) for _ in range(num_styles))
        self.up = nn.Sequential(
            ConvBlock(2 * width, width, 3, upsampling="nearest"),
            ConvBlock(width, width // 2, 3, upsampling="nearest"),
            ConvBlock(width // 2, 3, 3, norm=None, relu=False),
        )

        for module in self.banks.modules():  # a bank starts as an identity, so training starts from the photograph
            if isinstance(module, ResidualBlock) and module.second.norm is not None:
                nn.init.zeros_(module.second.norm.weight)  # type: ignore[arg-type]

    def without_norm(self) -> list[nn.Parameter]:
        """Return the parameters of encoder and decoder. With Muon's large steps for them, pixels would saturate."""
        return [*self.down.parameters(), *self.up.parameters()]

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        """Stylize `content`, or encode and decode it without banks if `style` is None.

        style: (B or 1, S), the weight of each bank. The remaining weight, 1 - sum, goes to the unchanged features.
        """

        def layers(x: Tensor) -> Tensor:
            features = self.down(x)
            if style is None:
                return self.up_plain(features)
            return self.up(self.mix(features, style.expand(len(x), -1)))

        return run_layers(layers, content, 0 if self.training else self.margin, self.pixels)

    def up_plain(self, features: Tensor) -> Tensor:
        """Decode the features without the norms."""
        for block in self.up:
            features = block.convolve(features)  # type: ignore[operator]
            features = rectify(features) if block.relu else features
        return features

    def mix(self, features: Tensor, style: Tensor) -> Tensor:
        """Mix the features, (B, C, h, w), and the banks' outputs with the weights `style`, (B, S).

        A bank runs only on the items that have a weight for it.
        """
        mixed = (1 - style.sum(1)).view(-1, 1, 1, 1) * features
        for weights, bank in zip(style.unbind(1), self.banks, strict=True):
            items = weights.nonzero()[:, 0]
            if len(items):
                painted = weights[items].view(-1, 1, 1, 1) * bank(features[items])
                mixed = mixed.index_add(0, items, painted.to(mixed.dtype))
        return mixed

    @torch.no_grad()
    def select(self, style: Tensor) -> "SingleStyle":
        """Return a network of plain layers, which `stylize.tiles` can run, for the mixture of weights `style`, (S,)."""
        weights = {bank: weight for bank, weight in zip(self.banks, style.tolist(), strict=True) if weight}
        rest = 1 - sum(weights.values())
        branches: list[tuple[float, nn.Module | None]] = [(weight, bank) for bank, weight in weights.items()]
        if abs(rest) > 1e-6:
            branches.append((rest, None))
        middle = self._merged(branches) if len(branches) > 1 else [*(branches[0][1] or ())]  # type: ignore[misc]
        return SingleStyle([*self.down, *middle, *self.up], self.margin).train(self.training)

    def _merged(self, branches: Sequence[tuple[float, nn.Module | None]]) -> list[nn.Module]:
        """Return layers that compute the weighted sum of `branches`. The banks become groups of channels.

        A branch without a bank gets parameters of 0, so that its residual blocks return the features unchanged.
        """
        count, channels = len(branches), 2 * int(self.arguments["width"])
        device = next(self.parameters()).device
        plain: Any = {"norm": None, "relu": False, "bias": False}
        with torch.random.fork_rng(devices=()):
            spread = ConvBlock(channels, count * channels, 1, **plain).to(device)
            merged = make_bank(count * channels, self.arguments["blocks"], self.arguments["noise"], count).to(device)
            gather = ConvBlock(count * channels, channels, 1, **plain).to(device)
        one = torch.eye(channels, device=device)[:, :, None, None]
        spread.conv.weight.copy_(one.repeat(count, 1, 1, 1))
        gather.conv.weight.copy_(torch.cat([weight * one for weight, _ in branches], 1))
        states = [bank.state_dict() if bank is not None else {} for _, bank in branches]
        reference = self.banks[0].state_dict()
        merged.load_state_dict(
            {
                name: torch.cat([state.get(name, torch.zeros_like(value)) for state in states])
                for name, value in reference.items()
            }
        )
        return [spread, *merged, gather]

    @torch.no_grad()
    def replace(self, kept: Sequence[int], new: int) -> "StyleBank":
        """Return a network with the banks `kept` of this one, given by index, and `new` copies of its first bank.

        Until it is trained, the new network gives the same output for a kept style, bit for bit.
        """
        with torch.random.fork_rng(devices=()):
            changed = StyleBank(**self.arguments, num_styles=len(kept) + new)
        changed.down.load_state_dict(self.down.state_dict())
        changed.up.load_state_dict(self.up.state_dict())
        for bank, source in zip(changed.banks, [*kept, *[0] * new], strict=True):
            bank.load_state_dict(self.banks[source].state_dict())
        return changed.to(next(self.parameters()).device).train(self.training)


class SingleStyle(nn.Module):
    """A network of one style: `layers` in order, of the kinds that `stages` names. margin: as in `Slim`."""

    num_styles, scale = 1, 1
    conditional = False
    pixels = "centred"

    def __init__(self, layers: Sequence[nn.Module], margin: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.border = self.cut = margin

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        return run_layers(self.layers, content, 0 if self.training else self.border, self.pixels)

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Return the layers in order, for `stylize.tiles`: ("conv" | "residual" | "noise", layer)."""
        kinds = {ConvBlock: "conv", ResidualBlock: "residual", Noise: "noise"}
        return [(kinds[type(layer)], layer) for layer in self.layers]


def make_bank(channels: int, blocks: int, noise: float, groups: int = 1) -> nn.Sequential:
    """Build the layers of one style, or of `groups` styles side by side (grouped convolutions)."""
    check_int("blocks", blocks, 1, LARGEST)
    check_number("noise", noise, 0)
    scatter: list[nn.Module] = [Noise(4, channels, Slim.TILE // 4, noise)] if noise else []
    return nn.Sequential(*scatter, *(ResidualBlock(channels, bias=False, groups=groups) for _ in range(blocks)))
