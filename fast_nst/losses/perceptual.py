"""The perceptual loss: content, style and TV terms of an output against its photograph and a painting (Johnson 2016).

Two ways to weight. "absolute": the published formulas as they stand. "relative" (ours): every layer's term is divided
by its own reference energy, content by that of the photograph's features, style by that of the painting's Gram, so
that one set of weights serves every painting, layer and loss network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.loss_networks import LossNetwork
from fast_nst.losses import functional
from fast_nst.validate import Invalid, number, one_of

WEIGHTINGS = ("relative", "absolute")
CONTENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": functional.content_loss, "half_sum": functional.content_half_sum,
}  # fmt: skip
TV: dict[str, Callable[[Tensor], Tensor]] = {"mean": functional.tv_mean, "half_sum": functional.tv_half_sum}
# fast-neural-style adds its TV once a batch, unaveraged; everything else is a mean over images everywhere.
_SUMMED = ("half_sum",)


class PerceptualLoss:
    """Called with two (B, 3, H, W) in [0, 1], the outputs and their photographs, it gives
    {"loss", "content", "style", and "light", "tv" where they have a weight}: float32 scalars; "loss" is
    the weighted sum of the others.

    loss_network: gives every layer named below. style_image: (1, 3, H, W) in [0, 1]. blend: further paintings and their
    weights relative to the style image's 1; the target is the weighted mean of their Grams.
    content_layers, style_layers: {layer name: weight within its term}.
    style_scales, content_scales: a term is a weighted sum over sizes, {divisor: weight}; at 2 the output and what it is
    compared with are averaged down to half, so that the same layers see forms twice as large.
    light_weight: of `functional.light_loss`, which keeps the photograph's large lights and darks and leaves its colors
    to the painting.
    content: "mean" (of squared differences) or "half_sum" (Gatys, absolute only).
    tv: "mean" (over positions) or "half_sum" (fast-neural-style). pixel_range: of the images in the published formula
    (1 or 255), which only the TV term depends on.

    A plain object, not a Module: a LightningModule that holds it must not save, broadcast or train the loss network.
    Raises Invalid naming the argument, what came and what is allowed.
    """

    def __init__(
        self,
        loss_network: LossNetwork,
        style_image: Tensor,
        blend: Sequence[tuple[Tensor, float]] = (),
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float,
        style_weight: float,
        tv_weight: float = 0.0,
        weighing: str = "relative",
        style_scales: Mapping[int, float] | None = None,
        content_scales: Mapping[int, float] | None = None,
        light_weight: float = 0.0,
        content: str = "mean",
        tv: str = "mean",
        pixel_range: float = 1.0,
    ) -> None:
        self.relative = one_of("loss.weighing", weighing, WEIGHTINGS) == "relative"
        self.content = CONTENT[one_of("loss.content", content, tuple(CONTENT))]
        if self.relative and content != "mean":
            raise Invalid(f"loss.content: got {content!r}; allowed with weighing=relative: mean")
        self.tv, self.tv_summed = TV[one_of("loss.tv", tv, tuple(TV))], tv in _SUMMED
        self.pixel_range = number("loss.pixel_range", pixel_range, 1)
        weights = {"content": content_weight, "style": style_weight, "light": light_weight, "tv": tv_weight}
        self.weights = {name: number(f"loss.{name}_weight", weight, 0) for name, weight in weights.items()}
        if not (content_weight or style_weight or tv_weight):
            raise Invalid("loss: content_weight, style_weight and tv_weight are all 0; at least one must be positive")
        # A term whose weight is 0 costs nothing.
        self.style_layers = _table("style_layers", style_layers, style_weight)
        self.content_layers = _table("content_layers", content_layers, content_weight)
        self.style_scales = _scales("style_scales", {1: 1.0} if style_scales is None else style_scales, style_weight)
        self.content_scales = _scales(
            "content_scales", {1: 1.0} if content_scales is None else content_scales, content_weight
        )
        self.loss_network = loss_network
        self.style_image = style_image
        self.blend = tuple((painting, number("loss.blend", weight, 0)) for painting, weight in blend)
        least = 8 * max((1, *self.style_scales))
        for height, width in (painting.shape[2:] for painting in (style_image, *(image for image, _ in self.blend))):
            if style_weight and min(height, width) < least:
                raise Invalid(f"style.size: got a painting of {width} x {height}; the loss needs {least} pixels on")
        self.to(style_image.device)

    @property
    def smallest(self) -> int:
        """Pixels a side that an image needs: eight at the coarsest scale, for the poolings above relu4."""
        return 8 * max((1, *self.style_scales, *self.content_scales))

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move the loss network to `device`, let it compute in `dtype`, and compute the painting's Grams there."""
        self.loss_network.to(device=device, dtype=dtype)
        self.style_image = self.style_image.to(device)
        paintings = [(painting.to(device), weight) for painting, weight in ((self.style_image, 1.0), *self.blend)]
        total = sum(weight for _, weight in paintings)
        self.grams: dict[int, dict[str, Tensor]] = {divisor: {} for divisor in self.style_scales}
        with torch.no_grad():
            for painting, weight in paintings:
                for divisor, small in _shrink(painting, self.style_scales).items():
                    grams = self.grams[divisor]
                    for name, features in self.loss_network(small, self.style_layers).items():
                        grams[name] = grams.get(name, 0) + functional.gram(features) * (weight / total)
        return self

    def __call__(self, output: Tensor, photograph: Tensor) -> dict[str, Tensor]:
        content = style = output.new_zeros((), dtype=torch.float32)
        outputs, photographs = (_shrink(x, {*self.style_scales, *self.content_scales}) for x in (output, photograph))
        for divisor, small in outputs.items():
            style_weight, content_weight = self.style_scales.get(divisor, 0), self.content_scales.get(divisor, 0)
            layers = {*(self.style_layers if style_weight else ()), *(self.content_layers if content_weight else ())}
            features = self.loss_network(small, layers)
            if style_weight:
                style = style + style_weight * self._style(features, self.grams[divisor])
            if content_weight:
                content = content + content_weight * self._content(features, photographs[divisor])
        terms = {"content": content, "style": style}
        if self.weights["light"]:
            terms["light"] = functional.light_loss(output, photograph).mean()
        if self.weights["tv"]:
            tv = self.tv(output * self.pixel_range)
            terms["tv"] = tv.sum() if self.tv_summed else tv.mean()
        loss = sum((self.weights[name] * term for name, term in terms.items()), output.new_zeros(()))
        return {"loss": loss, **terms}

    def _content(self, features: Mapping[str, Tensor], photograph: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.loss_network(photograph, self.content_layers)
        terms = []
        for name, weight in self.content_layers.items():
            term = self.content(features[name], targets[name])
            terms.append(weight * (term / functional.energy(targets[name]).clamp_min(1e-8) if self.relative else term))
        return torch.stack(terms).sum(0).mean()

    def _style(self, features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for name, weight in self.style_layers.items():
            term = functional.style_loss(functional.gram(features[name]), targets[name])
            terms.append(weight * (term / functional.energy(targets[name]) if self.relative else term))
        return torch.stack(terms).sum(0).mean()


def layers_needed(content_layers: Sequence[str] | Mapping[str, float], style_layers: Mapping[str, float]) -> list[str]:
    """Every layer that a loss with these tables asks its loss network for."""
    return list(dict.fromkeys([*style_layers, *content_layers]))


def _table(name: str, table: Mapping[Any, float], term_weight: float) -> dict[Any, float]:
    """The positive weights of `table`; none where the whole term has the weight 0. Raises Invalid."""
    if not isinstance(table, Mapping):
        raise Invalid(f"loss.{name}: got {table!r}; allowed: a table of weights")
    kept = {key: weight for key, weight in table.items() if number(f"loss.{name}.{key}", weight, 0)}
    if term_weight and not kept:
        term = f"loss.{name.partition('_')[0]}_weight"
        raise Invalid(f"loss.{name}: got {table}; allowed: at least one positive weight, or {term}=0")
    return kept if term_weight else {}


def _scales(name: str, table: Mapping[int, float], term_weight: float) -> dict[int, float]:
    """`_table` whose keys are divisors."""
    kept = _table(name, table, term_weight)
    for divisor in table:
        if not isinstance(divisor, int) or divisor < 1:
            raise Invalid(f"loss.{name}: got the divisor {divisor!r}; allowed: whole numbers from 1 on")
    return kept


def _shrink(image: Tensor, divisors: Iterable[int]) -> dict[int, Tensor]:
    """The image averaged over blocks of each of `divisors` a side, each from the last that divides it: the average of
    averages is the average."""
    sizes = {1: image}
    for divisor in sorted(set(divisors) - {1}):
        last = max(size for size in sizes if divisor % size == 0)
        sizes[divisor] = _average(sizes[last], divisor // last)
    return {divisor: sizes[divisor] for divisor in sorted(divisors)}


def _average(image: Tensor, divisor: int) -> Tensor:
    """The means of blocks of `divisor` a side, without what is left over."""
    if divisor == 2 and image.device.type == "cpu":  # the same numbers in a third of the time
        return F.interpolate(image, scale_factor=0.5, mode="bilinear")
    return F.avg_pool2d(image, divisor)
