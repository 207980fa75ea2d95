"""Keep the colors of the content image (Gatys, Bethge, Hertzmann, Shechtman 2016, arXiv 1606.05897)."""

from collections.abc import Callable

import torch
from torch import Tensor

# ITU-R BT.601 luma, as in JPEG's YCbCr.
_LUMA = (0.299, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """Return the brightness of (B, 3, H, W) RGB, (B, 1, H, W)."""
    return (image * image.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def keep_chroma(output: Tensor, content: Tensor) -> Tensor:
    """Combine the luma of `output` with the chroma of `content` (sec. 5.2, "luminance-only"); both (B, 3, H, W)."""
    return (content - luma(content) + luma(output)).clamp(0, 1)


class Moments:
    """Accumulate the mean and covariance of an image's colors strip by strip.

    Sums over pixels are float32 on the image's device; what remains, float64 on the CPU, because Apple's mps has
    neither float64 nor eigh.
    """

    def __init__(self, *strips: Tensor) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for strip in strips:
            self.add(strip)

    def add(self, strip: Tensor) -> None:
        """Add a strip, (B, 3, H, W)."""
        values = strip.flatten(2).float()
        mean = values.mean(2, keepdim=True)
        centered = values - mean  # before the product: float32 would lose the variance of a flat image
        squares = (centered @ centered.transpose(1, 2)).cpu().double()
        added, offset = values.shape[2], mean.cpu().double() - self.mean
        total = self.count + added
        # Combine the moments of two parts (Chan, Golub, LeVeque 1979).
        self.squares = self.squares + squares + offset @ offset.transpose(-1, -2) * (self.count * added / total)
        self.mean, self.count = self.mean + offset * (added / total), total

    def get(self) -> tuple[Tensor, Tensor]:
        """Return mean, (B, 3, 1), and covariance, (B, 3, 3), in float64 on the CPU."""
        return self.mean, self.squares / self.count


def transport(source: Moments, target: Moments) -> Callable[[Tensor], Tensor]:
    """Return a function of images (B, 3, H, W) that maps the color moments `source` to `target`.

    Of all linear maps that do this, the symmetric one changes the colors least. It is the optimal transport between the
    two Gaussians: source^-1/2 (source^1/2 target source^1/2)^1/2 source^-1/2.
    """
    (mean, covariance), (target_mean, target_covariance) = source.get(), target.get()
    jitter = 1e-6 * torch.eye(3, dtype=mean.dtype)  # a gray image has a singular covariance
    root, inverse = _power(covariance + jitter, 0.5), _power(covariance + jitter, -0.5)
    matrix = inverse @ _power(root @ (target_covariance + jitter) @ root, 0.5) @ inverse
    shift = (target_mean - matrix @ mean).float()
    matrix = matrix.float()

    def recolor(image: Tensor) -> Tensor:
        colors = matrix.to(image.device) @ image.flatten(2) + shift.to(image.device)
        return colors.reshape(image.shape).clamp(0, 1)

    return recolor


def keep_statistics(output: Tensor, content: Tensor) -> Tensor:
    """Match the mean and covariance of the colors of `output` to those of `content` (sec. 5.1); both (B, 3, H, W)."""
    return transport(Moments(output), Moments(content))(output)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag_embed(values.clamp_min(1e-12) ** exponent) @ vectors.transpose(1, 2)
