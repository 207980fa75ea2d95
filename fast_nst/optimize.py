"""Optimize an image's pixels with the perceptual loss (Gatys, Ecker, Bethge 2015, arXiv 1508.06576).

This is slow, but the reference for feed-forward networks.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.device import kept_bytes
from fast_nst.errors import RunError, check_choice, check_int, check_number
from fast_nst.losses import PerceptualLoss

ALGORITHMS = ("lbfgs", "adam")
STARTS = ("content", "noise")
HISTORY = 50  # pairs of images that L-BFGS keeps
OnStep = Callable[[int, Mapping[str, float], Tensor], None]


def optimize(
    start: Tensor,
    content: Tensor,
    loss: PerceptualLoss,
    steps: int,
    algorithm: str = "lbfgs",
    learning_rate: float | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Optimize `start` for `steps` steps and return the result; images are (1, 3, H, W) in [0, 1] on one device.

    algorithm: "lbfgs" (each step is one evaluation of the loss and its gradient, without a line search) or "adam".
    learning_rate: None for 1 (lbfgs) or 0.02 (adam). on_step(step, terms, image): called after each evaluation, with
    the terms of `loss` at that image; step 0 is the start.
    Raises UserError for values out of range, RunError when the loss is NaN or infinite.
    """
    check_int("steps", steps, 1)
    check_choice("algorithm", algorithm, ALGORITHMS)
    rate = check_number(
        "learning_rate", (1.0 if algorithm == "lbfgs" else 0.02) if learning_rate is None else learning_rate, 0
    )
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)  # L-BFGS needs this layout
    optimizer: torch.optim.Optimizer
    if algorithm == "lbfgs":
        optimizer = torch.optim.LBFGS(
            [image], rate, max_iter=1, history_size=HISTORY, tolerance_grad=0, tolerance_change=0
        )
    else:
        optimizer = torch.optim.Adam([image], rate)
    step = 0

    def closure() -> Tensor:
        optimizer.zero_grad()
        terms = loss(image, content)
        terms["loss"].backward()
        if not torch.isfinite(terms["loss"]):
            raise RunError(
                f"stopped at step {step}: the loss is NaN or infinite; try algorithm=adam or a lower learning_rate"
            )
        if on_step is not None:
            on_step(step, {name: float(value.detach()) for name, value in terms.items()}, image.detach().clamp(0, 1))
        return terms["loss"]

    for step in range(steps):  # noqa: B007  used by the closure
        optimizer.step(closure)
    return image.detach().clamp(0, 1)


def memory_needed(loss: PerceptualLoss, height: int, width: int, steps: int, algorithm: str) -> int:
    """Estimate the bytes that `optimize` takes for a (1, 3, height, width) image on the device of `loss`.

    This counts the bytes that autograd saves for the gradient, half as many again for computing it, and the images: the
    pairs of L-BFGS and a few more.
    """
    side = max(128, loss.smallest)
    sample = torch.full((1, 3, side, side), 0.5, device=loss.styles[0].device, requires_grad=True)
    saved = kept_bytes(lambda: loss(sample, sample.detach()))
    images = 6 + (2 * min(steps, HISTORY) if algorithm == "lbfgs" else 0)
    return round(height * width * (1.5 * saved / side**2 + images * 3 * sample.element_size()))


def begin(kind: str, content: Tensor, seed: int) -> Tensor:
    """Return the initial image: a copy of `content` (kind "content"), or gray white noise of its shape ("noise")."""
    if check_choice("init", kind, STARTS) == "content":
        return content.clone()
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + 0.15 * torch.randn(content.shape, generator=generator)).clamp(0, 1).to(content.device)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (1, 3, H, W) to (1, 3, height, width), bicubic, antialiased and clipped to [0, 1]."""
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
