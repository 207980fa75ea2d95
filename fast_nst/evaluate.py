"""Measure a network by the optimization steps that reach the same loss (Johnson 2016, figure 5)."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from fast_nst import image, optimize
from fast_nst.losses import PerceptualLoss


def objective_curve(
    content: Tensor, loss: PerceptualLoss, steps: int, start: str, on_step: Callable[[], None] | None = None
) -> tuple[np.ndarray, Tensor]:
    """Return the loss at each of `steps` L-BFGS steps from `start`, (steps,) float32, and the last image."""
    values: list[float] = []

    def record(step: int, terms: Mapping[str, float], current: Tensor) -> None:
        values.append(terms["loss"])
        if on_step is not None:
            on_step()

    initial = optimize.begin(start, content, seed=0)
    result = optimize.optimize(initial, content, loss, steps, on_step=record)
    return np.array(values, np.float32), result


def equivalent_steps(curve: np.ndarray, value: float) -> int:
    """Return the first step at which `curve` is at most `value`; the length of the curve if there is none."""
    reached = np.flatnonzero(curve <= value)
    return int(reached[0]) if len(reached) else len(curve)


class Curves:
    """A cache of objective curves in `folder`, and of their last images as PNG; `about` must identify the loss."""

    def __init__(self, folder: str | os.PathLike[str], about: str) -> None:
        self.folder, self.about = Path(folder), about

    def get(
        self,
        content: Tensor,
        loss: PerceptualLoss,
        steps: int,
        start: str,
        on_step: Callable[[], None] | None = None,
    ) -> tuple[np.ndarray, Tensor]:
        """Return `objective_curve(…)`, from the cache if it is there."""
        digest = hashlib.sha256(content.cpu().numpy().tobytes() + loss.styles[0].cpu().numpy().tobytes())
        digest.update(f"{self.about} {steps} {start}".encode())
        values, picture = (self.folder / f"{digest.hexdigest()[:32]}{suffix}" for suffix in (".npy", ".png"))
        if values.is_file() and picture.is_file():
            with contextlib.suppress(ValueError, EOFError, OSError):  # damaged: computed again
                return np.load(values), image.to_tensor(image.open_picture(picture).rgb)
        curve, result = objective_curve(content, loss, steps, start, on_step)
        image.save_picture(image.to_pillow(result), picture)
        with image.atomic_write(values) as temporary, open(temporary, "wb") as file:
            np.save(file, curve)
        return curve, result.cpu()
