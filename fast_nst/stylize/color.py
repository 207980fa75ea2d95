"""Keeping the photograph's colours (Gatys, Bethge, Hertzmann, Shechtman 2016, arXiv 1606.05897)."""

from collections.abc import Callable

import torch
from torch import Tensor

# ITU-R BT.601 luma, as in JPEG's YCbCr.
_LUMA = (0.299, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """(B, 3, H, W) RGB -> (B, 1, H, W)."""
    return (image * image.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def keep_chroma(stylised: Tensor, photograph: Tensor) -> Tensor:
    """The brightness of `stylised` with the chroma of `photograph` (sec. 5.2, "luminance-only"); (B, 3, H, W) both."""
    return (photograph - luma(photograph) + luma(stylised)).clamp(0, 1)


class Moments:
    """Mean and covariance of the colours of an image that is added strip by strip."""

    def __init__(self, *strips: Tensor) -> None:
        self.count, self.sum, self.products = 0, torch.zeros(()), torch.zeros(())
        for strip in strips:
            self.add(strip)

    def add(self, strip: Tensor) -> None:
        """(B, 3, H, W)."""
        values = strip.flatten(2).double()
        self.count += values.shape[2]
        self.sum = self.sum.to(values) + values.sum(2, keepdim=True)
        self.products = self.products.to(values) + values @ values.transpose(1, 2)

    def get(self) -> tuple[Tensor, Tensor]:
        """(B, 3, 1) and (B, 3, 3), float64."""
        mean = self.sum / self.count
        return mean, self.products / self.count - mean @ mean.transpose(1, 2)


def transport(own: Moments, wanted: Moments) -> Callable[[Tensor], Tensor]:
    """The map of images (B, 3, H, W) that takes the moments `own` to those `wanted`.

    Of all linear maps that do it, the symmetric one changes the colours least: the optimal transport between the two
    Gaussians, own^-1/2 (own^1/2 wanted own^1/2)^1/2 own^-1/2.
    """
    (mean, covariance), (goal, target) = own.get(), wanted.get()
    jitter = 1e-6 * torch.eye(3, dtype=mean.dtype, device=mean.device)  # a grey picture has no colour axis
    root, inverse = _power(covariance + jitter, 0.5), _power(covariance + jitter, -0.5)
    matrix = (inverse @ _power(root @ (target + jitter) @ root, 0.5) @ inverse).float()
    shift = (goal - matrix.double() @ mean).float()
    return lambda image: (matrix @ image.flatten(2) + shift).reshape(image.shape).clamp(0, 1)


def keep_statistics(stylised: Tensor, photograph: Tensor) -> Tensor:
    """`stylised` moved to the mean and covariance of the colours of `photograph` (sec. 5.1); (B, 3, H, W) both."""
    return transport(Moments(stylised), Moments(photograph))(stylised)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag_embed(values.clamp_min(1e-12) ** exponent) @ vectors.transpose(1, 2)
