"""How good a network is: held-out losses, and how long the slow method takes to be as good (Johnson 2016, figure 5)."""

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
    photograph: Tensor, loss: PerceptualLoss, steps: int, start: str, on_step: Callable[[], None] | None = None
) -> tuple[np.ndarray, Tensor]:
    """The loss at each of `steps` L-BFGS steps from `start` (float32, (steps,)), and the image they end at."""
    values: list[float] = []

    def note(step: int, terms: Mapping[str, float], now: Tensor) -> None:
        values.append(terms["loss"])
        if on_step is not None:
            on_step()

    begun = optimize.begin(start, photograph, seed=0)
    result = optimize.optimize(begun, photograph, loss, steps, on_step=note)
    return np.array(values, np.float32), result


def equivalent_steps(curve: np.ndarray, value: float) -> int:
    """The steps after which `curve` first is no more than `value`; its length where it never is."""
    reached = np.flatnonzero(curve <= value)
    return int(reached[0]) if len(reached) else len(curve)


class Curves:
    """Gatys curves kept in `folder` by everything that determines them, and their last images as PNG beside them."""

    def __init__(self, folder: str | os.PathLike[str], about: str) -> None:
        self.folder, self.about = Path(folder), about

    def get(
        self,
        photograph: Tensor,
        loss: PerceptualLoss,
        steps: int,
        start: str,
        on_step: Callable[[], None] | None = None,
    ) -> tuple[np.ndarray, Tensor]:
        """As `objective_curve`; a kept one is read."""
        digest = hashlib.sha256(photograph.cpu().numpy().tobytes() + loss.styles[0].cpu().numpy().tobytes())
        digest.update(f"{self.about} {steps} {start}".encode())
        values, picture = (self.folder / f"{digest.hexdigest()[:32]}{suffix}" for suffix in (".npy", ".png"))
        if values.is_file() and picture.is_file():
            with contextlib.suppress(ValueError, EOFError, OSError):  # damaged: found again
                return np.load(values), image.to_tensor(image.open_picture(picture).rgb)
        curve, result = objective_curve(photograph, loss, steps, start, on_step)
        image.save_picture(image.to_pillow(result), picture)
        with image.replacing(values) as temporary, open(temporary, "wb") as file:
            np.save(file, curve)
        return curve, result.cpu()
