"""Measure a network by how many optimization steps reach its loss (Johnson 2016, figure 5), and by how steady its
outputs are while a camera moves over a photograph."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst import image, optimize
from fast_nst.atomic import atomic_write
from fast_nst.losses import PerceptualLoss

FRAMES = 8  # frames of a camera move
STILL = 1.5  # the photograph's side divided by a frame's
_PAN, _ZOOM, _TURN = (3.0, 1.0), 0.99, 0.5  # per frame: pixels to the right and down, factor, degrees


def objective_curve(
    content: Tensor, loss: PerceptualLoss, steps: int, start: str, on_step: Callable[[], None] | None = None
) -> tuple[np.ndarray, Tensor]:
    """Return the loss at each of `steps` L-BFGS steps, (steps,) float32, and the last image.

    start: "content" or "noise", the initial image (`optimize.begin`).
    """
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
    """A cache of objective curves and of their last images (PNG) in `folder`. about: must identify the loss."""

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
        """Return what `objective_curve` returns, from the cache if possible."""
        digest = hashlib.sha256(content.cpu().numpy().tobytes() + loss.styles[0].cpu().numpy().tobytes())
        digest.update(f"{self.about} {steps} {start}".encode())
        values, picture = (self.folder / f"{digest.hexdigest()[:32]}{suffix}" for suffix in (".npy", ".png"))
        if values.is_file() and picture.is_file():
            with contextlib.suppress(ValueError, EOFError, OSError):  # if damaged, computed again
                return np.load(values), image.to_tensor(image.open_picture(picture).rgb)
        curve, result = objective_curve(content, loss, steps, start, on_step)
        image.save_picture(image.to_pillow(result), picture)
        with atomic_write(values) as temporary, open(temporary, "wb") as file:
            np.save(file, curve)
        return curve, result.cpu()


def camera_moves(size: int) -> dict[str, list[Tensor]]:
    """Return {"pan", "zoom", "rotation": one (2, 3) matrix per frame}, for frames of `size` x `size` pixels.

    A matrix maps (x, y, 1) in the frame to (x, y) in the photograph, which is `STILL` times as large. Coordinates are
    in pixels from the upper left corner.
    """
    middle, center = STILL * size / 2, torch.eye(3)
    center[:2, 2] = -size / 2
    moves: dict[str, list[Tensor]] = {"pan": [], "zoom": [], "rotation": []}
    for frame in range(FRAMES):
        away = frame - (FRAMES - 1) / 2
        corner = round(size * (STILL - 1) / 2)  # whole pixels, so that a pan needs no interpolation
        pan = torch.tensor([[1.0, 0, corner + _PAN[0] * frame], [0, 1, corner + _PAN[1] * frame]])
        angle = torch.deg2rad(torch.tensor(_TURN * away))
        sine, cosine, scale = float(angle.sin()), float(angle.cos()), _ZOOM**frame
        moves["pan"].append(pan)
        moves["zoom"].append(torch.tensor([[scale, 0, middle], [0, scale, middle]]) @ center)
        moves["rotation"].append(torch.tensor([[cosine, -sine, middle], [sine, cosine, middle]]) @ center)
    return moves


def sample(image: Tensor, matrix: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sample `image`, (1, 3, H, W), where `matrix` maps the pixels of a frame (see `camera_moves`).

    Returns the frame, (1, 3, size, size), and a mask, (1, 1, size, size): true for the frame's pixels that lie inside
    the image and more than two pixels from its border.
    """
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    points = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size), torch.ones(size, size)], -1)
    points = points @ matrix.T  # (size, size, 2)
    sides = torch.tensor(image.shape[:1:-1], dtype=torch.float32)  # W, H
    inside = ((points > 2) & (points < sides - 2)).all(-1)[None, None].to(image.device)
    grid = (2 * points / sides - 1)[None].to(image)
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False), inside


def temporal_error(still: Tensor, matrices: Sequence[Tensor], size: int, paint: Callable[[Tensor], Tensor]) -> float:
    """Return how much the outputs change from frame to frame beyond the motion, relative to their contrast.

    The motion is known exactly, so each output is moved along and compared with the next one: the root mean square
    difference is divided by the standard deviation of the outputs. 0 is perfectly steady; independent noise gives 1.41.
    A blank output has no contrast to divide by, so check the style loss too. still: (1, 3, H, W). paint: called with
    each frame in turn.
    """
    outputs = [paint(sample(still, matrix, size)[0].clamp(0, 1)) for matrix in matrices]
    last = torch.tensor([0.0, 0, 1])
    squares, count = 0.0, 0.0
    for index in range(1, len(outputs)):
        before, now = (torch.cat([matrices[i], last[None]]).double() for i in (index - 1, index))
        moved, inside = sample(outputs[index - 1], (before.inverse() @ now)[:2].float(), size)
        squares += float(((moved - outputs[index]).square() * inside).sum())
        count += 3 * float(inside.sum())
    contrast = float(torch.stack(outputs).std())
    return (squares / count) ** 0.5 / max(contrast, 1e-6)


def steadiness(
    still: Tensor, size: int, start: Callable[[], contextlib.AbstractContextManager[Callable[[Tensor], Tensor]]]
) -> dict[str, float]:
    """Return {"temporal error, pan": …, …}, the `temporal_error` of each camera move.

    start: called for each move; its context gives the function that paints the move's frames.
    """
    errors = {}
    for name, matrices in camera_moves(size).items():
        with start() as paint:
            errors[f"temporal error, {name}"] = temporal_error(still, matrices, size, paint)
    return errors
