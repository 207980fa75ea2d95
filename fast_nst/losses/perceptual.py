"""The perceptual loss (Johnson 2016): content, style, light and TV terms of an output, as one weighted sum.

Legend: B batch, S styles, C channels, H height, W width.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.errors import UserError, check_number
from fast_nst.loss_networks import LossNetwork
from fast_nst.losses import functional
from fast_nst.losses.terms import ContentLoss, LightLoss, PhotoLoss, StyleLoss, TVLoss, layer_weights, scale_weights

MULTIPLE = 8  # minimum side at the coarsest scale: three poolings before relu4


class PerceptualLoss:
    """The weighted sum of all terms, which compare outputs with content and styles.

    Call it with outputs and content, both (B, 3, H, W) in [0, 1], and optionally `style`, (B, S) weights of the styles.
    It returns float32 scalars by name: "loss", the weighted sum of the others; "content" and "style"; "light" and "tv"
    if their weights are positive; "photo" (`PhotoLoss`) if `style` is given and `normalize` is true.

    loss_network: must have every layer named below. styles: one style image, (1, 3, H, W) in [0, 1], or several.
    style_weights: if given, the one style is the mean of the images' Grams with these weights; None: each image is a
    style.
    content_layers, style_layers: {layer name: weight within its term}.
    content_scales, style_scales: {divisor: weight}; at 2, the output and its target are averaged to half size, so the
    same layers see shapes twice as large.
    normalize: divide each layer's term by the energy of its target, so that one set of weights suits every style,
    layer and loss network. False: the published formulas.
    light_weight: the weight of `functional.light_loss`. content_reduction: "mean" or, without `normalize`, "half_sum"
    (Gatys) or "quarter_sum" (TNST). tv_reduction: "mean", or "half_sum" (fast-neural-style, TNST). pixel_range: the
    images' range in the published TV formula.

    It is a plain object, not a Module, so that its owner does not save, broadcast or train the loss network.
    Raises UserError with the argument, the value given and the values allowed.
    """

    def __init__(
        self,
        loss_network: LossNetwork,
        styles: Tensor | Sequence[Tensor],
        style_weights: Sequence[float] | None = None,
        *,
        content_layers: Mapping[str, float],
        style_layers: Mapping[str, float],
        content_weight: float,
        style_weight: float,
        light_weight: float = 0.0,
        tv_weight: float = 0.0,
        normalize: bool = False,
        content_scales: Mapping[int, float] | None = None,
        style_scales: Mapping[int, float] | None = None,
        content_reduction: str = "mean",
        tv_reduction: str = "mean",
        pixel_range: float = 1.0,
    ) -> None:
        weights = {"content": content_weight, "style": style_weight, "light": light_weight, "tv": tv_weight}
        self.weights = {name: check_number(f"loss.{name}_weight", weight, 0) for name, weight in weights.items()}
        if not (content_weight or style_weight or tv_weight):
            raise UserError("loss: content_weight, style_weight and tv_weight are all 0; at least one must be positive")
        self.loss_network = loss_network
        self.styles = [styles] if isinstance(styles, Tensor) else list(styles)
        self.blend: Tensor | None = None
        if style_weights is not None:
            total = sum(check_number("style.blend", share, 0) for share in style_weights)
            if not total:
                raise UserError(f"style.blend: got only weights of 0: {list(style_weights)}; give at least one above 0")
            self.blend = torch.tensor([[share / total for share in style_weights]])  # (1, images)
        self.num_styles = len(self.styles) if self.blend is None else 1
        full_size = {1: 1.0}
        tables = [  # each is empty if its term's weight is 0, so that the term costs nothing
            layer_weights("content_layers", content_layers, content_weight),
            layer_weights("style_layers", style_layers, style_weight),
            scale_weights("content_scales", full_size if content_scales is None else content_scales, content_weight),
            scale_weights("style_scales", full_size if style_scales is None else style_scales, style_weight),
        ]
        self.content, self.style = ContentLoss(tables[0], normalize, content_reduction), StyleLoss(tables[1], normalize)
        self.content_scales, self.style_scales = tables[2:]
        self.light, self.photo, self.normalize = LightLoss(), PhotoLoss(), normalize
        self.tv = TVLoss(tv_reduction, check_number("loss.pixel_range", pixel_range, 1))
        minimum = MULTIPLE * max((1, *self.style_scales))
        for height, width in (image.shape[2:] for image in self.styles):
            if style_weight and min(height, width) < minimum:
                raise UserError(f"style.size: got {width}x{height} pixels; the loss needs at least {minimum} a side")
        self.to(self.styles[0].device)

    @property
    def smallest(self) -> int:
        """The minimum side of an output, in pixels."""
        return MULTIPLE * max((1, *self.style_scales, *self.content_scales))

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move to `device`, set the precision of features to `dtype` and compute the styles' Grams."""
        self.loss_network.to(device=device, dtype=dtype)
        self.styles = [image.to(device) for image in self.styles]
        self.grams: dict[int, dict[str, Tensor]] = {}  # {divisor: {layer: (S, C, C)}}
        with torch.no_grad():
            for divisor in self.style_scales:
                features = [self.loss_network(_shrink(image, divisor), self.style.layers) for image in self.styles]
                grams = {
                    name: torch.cat([functional.gram(image[name]) for image in features]) for name in self.style.layers
                }
                if self.blend is not None:
                    blend = self.blend.to(device)
                    grams = {name: torch.einsum("sk,kij->sij", blend.to(gram), gram) for name, gram in grams.items()}
                self.grams[divisor] = grams
        return self

    def __call__(self, output: Tensor, content: Tensor, style: Tensor | None = None) -> dict[str, Tensor]:
        weights = output.new_full((1, self.num_styles), 1 / self.num_styles) if style is None else style
        terms = {name: output.new_zeros((), dtype=torch.float32) for name in ("content", "style")}
        for divisor in sorted({*self.content_scales, *self.style_scales}):
            content_share, style_share = self.content_scales.get(divisor, 0), self.style_scales.get(divisor, 0)
            content_layers = self.content.layers if content_share else {}
            features = self.loss_network(
                _shrink(output, divisor), {*content_layers, *(self.style.layers if style_share else ())}
            )
            if content_share:
                with torch.no_grad():
                    targets = self.loss_network(_shrink(content, divisor), content_layers)
                terms["content"] = terms["content"] + content_share * self.content(features, targets)
            if style_share:
                terms["style"] = terms["style"] + style_share * self.style(features, self.grams[divisor], weights)
        if self.weights["light"]:
            terms["light"] = self.light(output, content)
        if self.normalize and style is not None:
            terms["photo"] = self.photo(output, content, style)
        if self.weights["tv"]:
            terms["tv"] = self.tv(output)
        loss = sum((self.weights.get(name, 1.0) * term for name, term in terms.items()), output.new_zeros(()))
        return {"loss": loss, **terms}


def layers_needed(content_layers: Iterable[str], style_layers: Iterable[str]) -> list[str]:
    """Return every layer that a loss with these tables needs."""
    return list(dict.fromkeys([*style_layers, *content_layers]))


def _shrink(image: Tensor, divisor: int) -> Tensor:
    return F.avg_pool2d(image, divisor) if divisor > 1 else image
