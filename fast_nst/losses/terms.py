"""The terms of a perceptual loss, each a small object with its settings. Legend: B batch, S styles, C channels.

`features` and `targets` are outputs of a loss network: {layer name: (B, C, h, w)}.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fast_nst.errors import UserError, check_choice, check_number
from fast_nst.losses import functional

CONTENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": functional.content_loss,
    "half_sum": functional.content_half_sum,
    "quarter_sum": functional.content_quarter_sum,
}  # fmt: skip
TV: dict[str, Callable[[Tensor], Tensor]] = {"mean": functional.tv_mean, "half_sum": functional.tv_half_sum}


class ContentLoss:
    """The weighted sum over `layers` of the difference of features (Johnson 2016 eq. 2, Gatys 2015 eq. 1).

    normalize: divide each layer's difference by the energy of its target features (ours).
    """

    def __init__(self, layers: Mapping[str, float], normalize: bool, reduction: str = "mean") -> None:
        self.layers, self.normalize = dict(layers), normalize
        self.compare = CONTENT[check_choice("loss.content_reduction", reduction, tuple(CONTENT))]
        if normalize and reduction != "mean":
            raise UserError(f"loss.content_reduction: got {reduction!r}; allowed with normalize=true: mean")

    def __call__(self, features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for name, weight in self.layers.items():
            term = self.compare(features[name], targets[name])  # (B,)
            if self.normalize:
                term = term / functional.energy(targets[name]).clamp_min(1e-8)
            terms.append(weight * term)
        return torch.stack(terms).sum(0).mean()


class StyleLoss:
    """The weighted sum over `layers` of the difference of Grams (Johnson 2016 eq. 4).

    normalize: divide each layer's difference by the energy of its target Gram.
    """

    def __init__(self, layers: Mapping[str, float], normalize: bool) -> None:
        self.layers, self.normalize = dict(layers), normalize

    def __call__(self, features: Mapping[str, Tensor], grams: Mapping[str, Tensor], style: Tensor) -> Tensor:
        """Compare features with the styles' Grams. grams: {layer: (S, C, C)}.

        style: (B or 1, S) weights, one-hot or mixed. Their sum is the item's strength. The item's term is
        multiplied by the strength squared, so at half strength the style counts a quarter as much.
        """
        strength = style.sum(1)
        style = style / strength.clamp_min(1e-6)[:, None]
        terms = []
        for name, weight in self.layers.items():
            target = torch.einsum("bs,sij->bij", style.to(grams[name]), grams[name])
            term = functional.style_loss(functional.gram(features[name]), target)  # (B,)
            terms.append(weight * (term / functional.energy(target).clamp_min(1e-12) if self.normalize else term))
        return (strength.square() * torch.stack(terms).sum(0)).mean()


class PhotoLoss:
    """The pixels' difference from the content, for items of a strength below 1, so that strength 0 gives the content.

    For each item it is the mean squared difference, divided by the variance of the content's pixels and multiplied by
    (1 - strength) squared.
    """

    def __call__(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        share = (1 - style.sum(1)).clamp_min(0).square()
        content = content.float()
        difference = (output.float() - content).square().mean((1, 2, 3))
        return (share * difference / content.var((1, 2, 3)).clamp_min(1e-2)).mean()


class LightLoss:
    """`functional.light_loss`, which preserves what is lighter and darker than its surroundings, but not colors."""

    def __call__(self, output: Tensor, content: Tensor) -> Tensor:
        return functional.light_loss(output, content).mean()


class TVLoss:
    """Total variation. reduction: "mean", or "half_sum", which is summed over the batch as in fast-neural-style."""

    def __init__(self, reduction: str = "mean", pixel_range: float = 1.0) -> None:
        self.measure = TV[check_choice("loss.tv_reduction", reduction, tuple(TV))]
        self.summed, self.pixel_range = reduction == "half_sum", pixel_range

    def __call__(self, output: Tensor) -> Tensor:
        values = self.measure(output * self.pixel_range)  # (B,)
        return values.sum() if self.summed else values.mean()


def layer_weights(name: str, table: Mapping[Any, float], term_weight: float) -> dict[Any, float]:
    """Return the positive weights of the table `loss.<name>`; none if `term_weight` is 0. Raises UserError."""
    if not isinstance(table, Mapping):
        raise UserError(f"loss.{name}: got {table!r}; allowed: a table of weights")
    positive = {key: weight for key, weight in table.items() if check_number(f"loss.{name}.{key}", weight, 0)}
    if term_weight and not positive:
        term = f"loss.{name.partition('_')[0]}_weight"
        raise UserError(f"loss.{name}: got {table}; allowed: at least one positive weight, or {term}=0")
    return positive if term_weight else {}


def scale_weights(name: str, table: Mapping[int, float], term_weight: float) -> dict[int, float]:
    """Do the same as `layer_weights`, for a table whose keys are divisors of the size."""
    weights = layer_weights(name, table, term_weight)
    for divisor in table:
        if not isinstance(divisor, int) or divisor < 1:
            raise UserError(f"loss.{name}: got the divisor {divisor!r}; allowed: integers >= 1")
    return weights
