"""The perceptual loss: content, style and TV terms of an image against a photograph and a painting (Johnson 2016).

Two ways to weigh. "absolute": the published formulas as they stand. "relative" (ours): every layer's term is divided
by its own reference energy, the content's by that of the photograph's features, the style's by that of the painting's
Gram, so that one set of weights means the same for every painting, layer and loss network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.loss_networks import LossNetwork
from fast_nst.losses import functional, periodicity
from fast_nst.losses.calibration import calibration
from fast_nst.losses.views import VIEWS, look
from fast_nst.validate import Invalid, number, whole_number

WEIGHINGS = ("relative", "absolute")
CONTENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": functional.content_loss, "half_sum": functional.content_half_sum,
}  # fmt: skip
TV: dict[str, Callable[[Tensor], Tensor]] = {"mean": functional.tv_mean, "half_sum": functional.tv_half_sum}
CORRECTION = 0.2  # the weight of the newest in the moving average of `correct`
Ask = Callable[[Tensor, Iterable[str], int], dict[str, Tensor]]
# fast-neural-style adds its TV once a batch, unaveraged; the rest is a mean over images everywhere.
_SUMMED = ("half_sum",)


class PerceptualLoss:
    """Called with two (B, 3, H, W) in [0, 1], the stylised images and their photographs, it gives
    {"loss", "content", "style", "tv", "periodicity"}: scalars, float32. "loss" is the weighted sum, the others are
    unweighted.

    loss_network: gives every layer named below. style_image: (1, 3, H, W) in [0, 1]. blend: further paintings and their
    weights beside the style image's 1; the target is the weighted mean of their Grams.
    content_layers, style_layers: {layer name: weight within its term}.
    style_scales, content_scales: a term is a weighted sum over sizes, {divisor: weight}; at 2 the image and what it is
    compared with are averaged down to half, so that the same layers see shapes twice as large.
    content: "mean" (of squared differences) or "half_sum" (Gatys, absolute alone).
    tv: "mean" (over positions) or "half_sum" (fast-neural-style). pixel_range: of the images in the published formula
    (1 or 255), which only the TV term depends on. periodicity_weight: of rows, weaves and lattices that the painting
    has not (`periodicity`); where there is no style there are none.
    calibrate: {measure: what a painting needs of it for the full style weight} (`calibration`). views: how many of the
    8 ways of `look` a training draws from, beside the members of the loss network. shift: pixels up to which, less one,
    `shifted` moves them. correct_every: steps of a training from one `correct` to the next, for a loss network that is
    `referred`; 0: never. finish: the share of a training, its last, that goes by such a network's reference at the
    finest of the sizes.

    A plain object and no Module: a LightningModule that holds it must not save, broadcast or train the loss network.
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
        periodicity_weight: float = 0.0,
        weighing: str = "relative",
        style_scales: Mapping[int, float] | None = None,
        content_scales: Mapping[int, float] | None = None,
        content: str = "mean",
        tv: str = "mean",
        pixel_range: float = 1.0,
        calibrate: Mapping[str, float] | None = None,
        views: int = 1,
        shift: int = 0,
        correct_every: int = 0,
        finish: float = 0.0,
    ) -> None:
        if weighing not in WEIGHINGS:
            raise Invalid(f"loss.weighing: got {weighing!r}; allowed: {', '.join(WEIGHINGS)}")
        if content not in CONTENT:
            raise Invalid(f"loss.content: got {content!r}; allowed: {', '.join(CONTENT)}")
        if weighing == "relative" and content != "mean":
            raise Invalid(f"loss.content: got {content!r}; allowed with weighing=relative: mean")
        if tv not in TV:
            raise Invalid(f"loss.tv: got {tv!r}; allowed: {', '.join(TV)}")
        weights = {"content_weight": content_weight, "style_weight": style_weight, "tv_weight": tv_weight}
        for name, weight in (*weights.items(), ("periodicity_weight", periodicity_weight)):
            _check_weight(name, weight)
        scales = {
            "style_scales": dict({1: 1.0} if style_scales is None else style_scales),
            "content_scales": dict({1: 1.0} if content_scales is None else content_scales),
        }
        tables: dict[str, Mapping[Any, float]] = {
            "content_layers": content_layers,
            "style_layers": style_layers,
            **scales,
        }
        for name, table in tables.items():
            if not isinstance(table, Mapping):
                raise Invalid(f"loss.{name}: got {table!r}; allowed: a table of weights")
            for key, weight in table.items():
                _check_weight(f"{name}.{key}", weight)
        for name, divisors in scales.items():
            for divisor in divisors:
                if not isinstance(divisor, int) or divisor < 1:
                    raise Invalid(f"loss.{name}: got the divisor {divisor!r}; allowed: whole numbers from 1 on")
        if not any(weights.values()):
            raise Invalid("loss: content_weight, style_weight and tv_weight are all 0; at least one must be positive")
        for name, table in tables.items():
            term = f"{name.partition('_')[0]}_weight"
            if weights[term] and not any(table.values()):
                raise Invalid(f"loss.{name}: got {table}; allowed: at least one positive weight, or loss.{term}=0")
        ways = range(whole_number("loss.views", views, 1, VIEWS))
        self.shift = whole_number("loss.shift", shift, 0)
        whole_number("loss.correct_every", correct_every, 0)
        self.correct_every = correct_every if loss_network.referred else 0
        number("loss.finish", finish, 0, 1)
        self.finish = finish if loss_network.referred else 0.0
        self.corrections: dict[str, Tensor] = {}
        self.every_view = [member * VIEWS + way for member in range(loss_network.members) for way in ways]
        self.loss_network = loss_network
        self.style_image = style_image
        self.blend = tuple((painting, number("loss.blend", weight, 0)) for painting, weight in blend)
        # A term whose weight is 0 costs nothing and reports 0.
        self.content_layers = {k: v for k, v in content_layers.items() if v and content_weight}
        self.style_layers = {k: v for k, v in style_layers.items() if v and style_weight}
        self.style_scales = {k: v for k, v in scales["style_scales"].items() if v and self.style_layers}
        self.content_scales = {k: v for k, v in scales["content_scales"].items() if v and self.content_layers}
        self.finest = min((*self.style_scales, *self.content_scales), default=1)
        self.calibration = calibration(
            (style_image, *(painting for painting, _ in blend)), {} if calibrate is None else calibrate
        )
        self.content_weight, self.tv_weight = content_weight, tv_weight
        self.periodicity_weight = periodicity_weight if style_weight else 0.0
        self.style_weight = style_weight * self.calibration
        self.relative = weighing == "relative"
        self.content = CONTENT[content]
        self.tv, self.tv_summed = TV[tv], tv in _SUMMED
        self.pixel_range = number("loss.pixel_range", pixel_range, 1)
        self.targets: dict[int, dict[int, dict[str, Tensor]]] = {}
        self.reference_targets: dict[int, dict[int, dict[str, Tensor]]] = {}
        self.to(style_image.device)

    @property
    def smallest(self) -> int:
        """Pixels a side that an image needs: four at the coarsest scale, for the poolings above relu3."""
        return 4 * max((1, *self.style_scales, *self.content_scales))

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Move the loss network to `device`, let it compute in `dtype`, and take the painting's Grams there."""
        self.loss_network.to(device=device, dtype=dtype)
        self.style_image = self.style_image.to(device)
        self.corrections = {key: correction.to(device) for key, correction in self.corrections.items()}
        self.targets, self.reference_targets = {0: self._targets(0, self.loss_network)}, {}
        if self.periodicity_weight:
            paintings = ((self.style_image, 1.0), *self.blend)
            usual = [weight * periodicity.usual(painting.to(self.style_image.device)) for painting, weight in paintings]
            self.usual = torch.stack(usual).sum(0) / sum(weight for _, weight in paintings)
        return self

    @torch.no_grad()
    def _targets(self, view: int, ask: Ask) -> dict[int, dict[str, Tensor]]:
        """The paintings' Grams seen through `view`, by divisor and layer. ask: the members, or what they refer to."""
        targets: dict[int, dict[str, Tensor]] = {}
        paintings = ((self.style_image, 1.0), *self.blend)
        total = sum(weight for _, weight in paintings)
        member, mirrored = divmod(view, VIEWS)
        for painting, weight in paintings:
            seen = look(painting.to(self.style_image.device), mirrored)
            for divisor, shrunk in _shrink(seen, self.style_scales).items():
                features = ask(shrunk, self.style_layers, member)
                grams = targets.setdefault(divisor, {})
                for name in self.style_layers:
                    grams[name] = grams.get(name, 0) + functional.gram(features[name]) * (weight / total)
        return targets

    def _target(self, view: int, divisor: int) -> dict[str, Tensor]:
        """What the Grams of a picture seen through `view` should be: the painting's, or, once a member has been
        corrected, the reference's of the painting and what the member is off by."""
        keys = self._keys(view // VIEWS, divisor)
        off = {key: self.corrections[key] for key in keys if key in self.corrections}
        if len(off) < len(self.style_layers):  # a run that goes on with other layers has them for some
            if view not in self.targets:
                self.targets[view] = self._targets(view, self.loss_network)
            return self.targets[view][divisor]
        if view not in self.reference_targets:
            self.reference_targets[view] = self._targets(
                view, lambda image, layers, member: self.loss_network.refer(image, layers)[member]
            )
        grams = self.reference_targets[view][divisor]
        return {name: grams[name] + error for name, error in zip(self.style_layers, off.values(), strict=True)}

    def _keys(self, member: int, divisor: int) -> list[str]:
        """Of `corrections`, one for each style layer."""
        return [f"{member}/{divisor}/{name}" for name in self.style_layers]

    @torch.no_grad()
    def correct(
        self,
        image: Tensor,
        view: int,
        mean: Callable[[Tensor], Tensor] = lambda x: x,
        finishing: bool = False,
    ) -> None:
        """See how far the members' Grams of what a training paints are off those of the loss network's reference, all
        through `view`, and remember it (`corrections`, a moving average).

        A training brings a member's Grams of its pictures to the target; with the mean error in the target, it is the
        reference's that come to those of the painting. mean: over the processes of a training. finishing: leave out the
        size at which no member is asked.
        """
        for divisor, shrunk in _shrink(look(image, view % VIEWS), self.style_scales).items():
            if finishing and divisor == self.finest:
                continue
            for member, wanted in enumerate(self.loss_network.refer(shrunk, self.style_layers)):
                ours = self.loss_network(shrunk, self.style_layers, member)
                for key, name in zip(self._keys(member, divisor), self.style_layers, strict=True):
                    off = functional.gram(ours[name]) - functional.gram(wanted[name])
                    found = mean(off.mean(0, keepdim=True))
                    if not torch.isfinite(found).all():  # under a GradScaler a picture may be none; the step is skipped
                        continue
                    if key in self.corrections:  # in place, for recorded steps know where it lies
                        self.corrections[key].lerp_(found, CORRECTION)
                    else:
                        self.corrections[key] = found

    def is_due(self, step: int | None) -> bool:
        """Whether a training should `correct` in its step of that number: what an untrained network paints, at step 0,
        says nothing."""
        return bool(self.correct_every and step and step % self.correct_every == 0 and self.style_layers)

    def random_view(self) -> int:
        """A view for a step of training, from torch's generator: a member of the loss network and a way to look."""
        return self.every_view[int(torch.randint(len(self.every_view), ()))]

    def shifted(self, image: Tensor, photograph: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both without `shift` rows and columns, so many of them at the top and left as `at`, (2,), says: by default a
        random number, from torch's generator.

        A network's upsampling has a lattice of its own; always in step with the strides of the loss network, it becomes
        part of the picture. What would leave too little is not cut.
        """
        height, width = (side - self.shift for side in image.shape[2:])
        if not self.shift or min(height, width) < self.smallest:
            return image, photograph
        if at is not None:
            for dim, length in ((2, height), (3, width)):
                kept = torch.arange(length, device=at.device) + at[dim - 2]
                image, photograph = image.index_select(dim, kept), photograph.index_select(dim, kept)
            return image, photograph
        top, left = torch.randint(self.shift, (2,)).tolist()
        rows, columns = slice(top, top + height), slice(left, left + width)
        return image[:, :, rows, columns], photograph[:, :, rows, columns]

    def sampled(
        self,
        image: Tensor,
        photograph: Tensor,
        step: int | None = None,
        mean: Callable[[Tensor], Tensor] = lambda x: x,
        finishing: bool = False,
    ) -> dict[str, Tensor]:
        """What a step of training goes by: both `shifted`, through a `random_view`. step: its number, for `is_due`.
        finishing: go by the reference at the finest size."""
        image, photograph = self.shifted(image, photograph)
        view = self.random_view()
        if self.is_due(step):
            self.correct(image.detach(), view, mean, finishing)
        return self(image, photograph, view, finishing)

    def __call__(
        self, image: Tensor, photograph: Tensor, view: int | None = None, finishing: bool = False
    ) -> dict[str, Tensor]:
        """view: what to compare through, `member * VIEWS +` a way of `look`; None: the mean over the members, the
        pictures as they are. finishing: at the finest size, where most of what members do not see lies, go by the
        reference, the pictures as they are."""
        if view is None:
            found = [self(image, photograph, member * VIEWS) for member in range(self.loss_network.members)]
            return {name: torch.stack([terms[name] for terms in found]).mean(0) for name in found[0]}
        divisors = {*self.style_scales, *self.content_scales}
        # Pooling and a member's folding are slow on any other layout.
        images, photographs = (_shrink(look(x, view % VIEWS).contiguous(), divisors) for x in (image, photograph))
        views = dict.fromkeys(divisors, view)
        if finishing:
            views[self.finest] = self.loss_network.members * VIEWS
            images |= _shrink(image, [self.finest])
            photographs |= _shrink(photograph, [self.finest])
        zero = image.new_zeros((), dtype=torch.float32)
        content = style = zero
        for divisor, shrunk in images.items():
            weights = self.style_scales.get(divisor, 0), self.content_scales.get(divisor, 0)
            names = {*(self.style_layers if weights[0] else ()), *(self.content_layers if weights[1] else ())}
            member = views[divisor] // VIEWS
            features = self.loss_network(shrunk, names, member)
            if weights[0]:
                style = style + weights[0] * self._style(features, self._target(views[divisor], divisor))
            if weights[1]:
                with torch.no_grad():
                    targets = self.loss_network(photographs[divisor], self.content_layers, member)
                content = content + weights[1] * self._content(features, targets)
        tv = zero
        if self.tv_weight:
            tv = self.tv(image * self.pixel_range)
            tv = tv.sum() if self.tv_summed else tv.mean()
        rows = zero
        if self.periodicity_weight:
            # One image stands for its batch, for a training has them in any order.
            rows = periodicity.periodicity(image[:1], photograph[:1], self.usual)[0]
        loss = self.content_weight * content + self.style_weight * style + self.tv_weight * tv
        loss = loss + self.periodicity_weight * rows
        return {"loss": loss, "content": content, "style": style, "tv": tv, "periodicity": rows}

    def _content(self, features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
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


def _check_weight(name: str, weight: float) -> None:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise Invalid(f"loss.{name}: got {weight!r}; allowed: a number from 0 on")


def _shrink(image: Tensor, divisors: Iterable[int]) -> dict[int, Tensor]:
    """The image averaged over blocks of each of `divisors` a side, small to large, each from the last that divides it:
    the average of averages is the average."""
    sizes = {1: image}
    for divisor in sorted(set(divisors) - {1}):
        last = max(size for size in sizes if divisor % size == 0)
        sizes[divisor] = _average(sizes[last], divisor // last)
    return {divisor: sizes[divisor] for divisor in sorted(divisors)}


def _average(image: Tensor, divisor: int) -> Tensor:
    """The means of blocks of `divisor` a side, without what is left over."""
    if divisor == 2 and image.device.type == "cpu":  # half way between four is their mean, in a third of the time
        return F.interpolate(image, scale_factor=0.5, mode="bilinear")
    return F.avg_pool2d(image, divisor)
