"""How much of a picture is rows of equal strokes, a weave, a hatching, a lattice, that its painting has not. Ours.

A Gram holds which features occur together and not where: rows satisfy it as well as strokes that a hand has set, and
rows are what a small network paints. Over a small square the spectrum of a row is one peak, where the strokes of a hand
are spread over a ring of frequencies. Legend: B batch, N squares, F frequencies, R rings.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64  # pixels of a square; they lie side by side, for a training's crops lie anywhere
COARSEST = 8  # pixels from line to line; the finest is 2
LUMA = (0.299, 0.587, 0.114)
LARGEST = 3  # the ring from which on power counts as that of a square; below is its light and shade
UNSEEN = 0.007  # standard deviation of the values of a square of noise that nobody sees


class Tables(NamedTuple):
    """What every call needs: the window (SIDE, SIDE); which frequencies lie in which ring, (F, R) of 0 and 1; the
    weights of RGB in the luminance, (3,); and the power of a square of noise that nobody sees."""

    window: Tensor
    rings: Tensor
    luma: Tensor
    unseen: float


@functools.cache
@torch.inference_mode(False)  # a training may come after a validation
def _tables(device: torch.device) -> Tables:
    window = torch.hann_window(SIDE)
    down, across = torch.fft.fftfreq(SIDE)[:, None] * SIDE, torch.arange(SIDE // 2 + 1)
    ring = torch.hypot(down, across).round().long()
    ring[(across == 0).expand_as(ring) & (down < 0)] = 0  # each of two that are equal once
    rings = F.one_hot(ring.flatten().clamp_max(SIDE // 2), SIDE // 2 + 1)[:, : SIDE // 2]
    window = window[:, None] * window
    unseen = UNSEEN**2 * SIDE**2 * float(window.square().sum()) / 2
    return Tables(window.to(device), rings.float().to(device), torch.tensor(LUMA, device=device), unseen)


def spectra(image: Tensor) -> Tensor:
    """(B, 3, H, W), both sides `SIDE` on -> (B, N, F): the power of the luminance of each square at each frequency."""
    tables = _tables(image.device)
    luminance = torch.einsum("bchw,c->bhw", image.float(), tables.luma)[:, None]
    squares = F.unfold(luminance, SIDE, stride=SIDE).transpose(1, 2).unflatten(2, (SIDE, SIDE))
    squares = squares - squares.mean((2, 3), keepdim=True)
    found = torch.fft.rfft2(squares * tables.window)
    return (found.real.square() + found.imag.square()).flatten(2)


def concentration(power: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, F) -> two (B, N, R): the power in each ring, and the mean of its square over the square of its mean: 1
    where it is the same at every frequency, 2 for noise, and where all is at one, as many as the ring has."""
    rings = _tables(power.device).rings
    total = power @ rings
    return total, rings.sum(0) * (power.square() @ rings) / (total.square() + 1e-9)


def usual(painting: Tensor) -> Tensor:
    """(1, 3, H, W) -> (R,): the concentration that a painting has on average; 1 where it is smaller than a square."""
    if min(painting.shape[2:]) < SIDE:
        return torch.ones(SIDE // 2, device=painting.device)
    return concentration(spectra(painting))[1].mean((0, 1))


def periodicity(image: Tensor, photograph: Tensor, allowed: Tensor) -> Tensor:
    """Two (B, 3, H, W) -> (B,) float32: of the power that a picture has and its photograph has not, the share in each
    ring of fine lines times how far its concentration is above that which is `allowed`, (R,), summed over the rings.

    0 for pictures smaller than a square.
    """
    if min(image.shape[2:]) < SIDE:
        return image.new_zeros(len(image), dtype=torch.float32)
    with torch.autocast(image.device.type, enabled=False):
        power = spectra(image)
        with torch.no_grad():
            own = spectra(photograph)
            tables = _tables(image.device)
            whole = (power @ tables.rings)[..., LARGEST:].sum(2, keepdim=True) + tables.unseen
        fine = slice(SIDE // COARSEST, None)  # of the others some have no power in a painting
        total, found = (x[..., fine] for x in concentration(F.relu(power - own)))
        # The share has no gradient: rows are to be spread, not to be paler; paler, a picture loses its fine strokes.
        share = total.detach() / whole
        return (share * F.relu(found / allowed[fine] - 1)).sum(2).mean(1)
