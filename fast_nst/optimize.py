"""The slow method: the pixels themselves are optimised against the perceptual loss (Gatys, Ecker, Bethge 2015, arXiv
1508.06576). It is the reference that a feed-forward network is measured against."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.device import kept_bytes
from fast_nst.errors import RunError, check_choice, check_int, check_number
from fast_nst.losses import PerceptualLoss

METHODS = ("lbfgs", "adam")
STARTS = ("content", "noise")
HISTORY = 50  # pairs that L-BFGS keeps, an image each
OnStep = Callable[[int, Mapping[str, float], Tensor], None]


def optimize(
    start: Tensor,
    photograph: Tensor,
    loss: PerceptualLoss,
    steps: int,
    method: str = "lbfgs",
    learning_rate: float | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The image that `steps` steps from `start` lead to: three (1, 3, H, W) in [0, 1] on one device, the result too.

    method: "lbfgs", a step being one evaluation of the loss and its gradient (no line search), or "adam".
    learning_rate: None for 1 (lbfgs) or 0.02 (adam). on_step(step, terms, image): after each evaluation, with the
    terms of `loss` at that image; `step` counts from 0, the start.
    Raises UserError for values out of range, RunError when the loss is no longer a number.
    """
    check_int("steps", steps, 1)
    check_choice("method", method, METHODS)
    rate = check_number(
        "learning_rate", (1.0 if method == "lbfgs" else 0.02) if learning_rate is None else learning_rate, 0
    )
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)  # as L-BFGS needs it
    optimizer: torch.optim.Optimizer
    if method == "lbfgs":
        optimizer = torch.optim.LBFGS(
            [image], rate, max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0
        )
    else:
        optimizer = torch.optim.Adam([image], rate)
    step = 0

    def closure() -> Tensor:
        optimizer.zero_grad()
        terms = loss(image, photograph)
        terms["loss"].backward()
        if not torch.isfinite(terms["loss"]):
            raise RunError(
                f"stopped at step {step}: the loss is NaN or infinite; try method=adam or a lower learning_rate"
            )
        if on_step is not None:
            on_step(step, {name: float(value.detach()) for name, value in terms.items()}, image.detach().clamp(0, 1))
        return terms["loss"]

    for step in range(steps):  # noqa: B007  the closure reads it
        optimizer.step(closure)
    return image.detach().clamp(0, 1)


def memory_needed(loss: PerceptualLoss, height: int, width: int, steps: int, method: str) -> int:
    """About how many bytes `optimize` takes for an image of that size on the device of `loss`: what autograd keeps for
    the gradient, half as much again while it is computed, and images: the pairs of L-BFGS and a few."""
    side = max(128, loss.smallest)
    piece = torch.full((1, 3, side, side), 0.5, device=loss.styles[0].device, requires_grad=True)
    kept = kept_bytes(lambda: loss(piece, piece.detach()))
    images = 6 + (2 * min(steps, HISTORY) if method == "lbfgs" else 0)
    return round(height * width * (1.5 * kept / side**2 + images * 3 * piece.element_size()))


def begin(kind: str, photograph: Tensor, seed: int) -> Tensor:
    """What to start from, of the shape of `photograph`: "content", that itself, or "noise", grey with white noise."""
    if check_choice("start", kind, STARTS) == "content":
        return photograph.clone()
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + 0.15 * torch.randn(photograph.shape, generator=generator)).clamp(0, 1).to(photograph.device)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """(1, 3, H, W) -> (1, 3, height, width), bicubic, antialiased, within [0, 1]."""
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
