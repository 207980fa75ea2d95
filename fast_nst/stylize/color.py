"""Keep the colors of the content image (Gatys, Bethge, Hertzmann, Shechtman 2016, arXiv 1606.05897).

Images are tensors or arrays, (B, 3, H, W); a function returns the kind that it is given.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fast_nst.image import luma


def keep_chroma(output: Any, content: Any) -> Any:
    """Combine the luma of `output` with the chroma of `content` (sec. 5.2, "luminance-only"); both (B, 3, H, W)."""
    return (content - luma(content) + luma(output)).clip(0, 1)


class Moments:
    """The mean and covariance of an image's colors, accumulated strip by strip.

    Sums over pixels are computed in float32 on the image's device. Everything else is computed in float64 in numpy,
    because Apple's mps has neither float64 nor eigenvectors.
    """

    def __init__(self, *strips: Any) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(()), np.zeros(())
        for strip in strips:
            self.add(strip)

    def add(self, strip: Any) -> None:
        """Add a strip, (B, 3, H, W)."""
        values = strip.reshape(*strip.shape[:2], -1)
        values = values if isinstance(values, np.ndarray) else values.float()
        mean = values.mean(2, keepdims=True)
        centered = values - mean  # before the product: float32 would lose the variance of a flat image
        squares = _to_numpy(centered @ centered.swapaxes(1, 2))
        added, offset = values.shape[2], _to_numpy(mean) - self.mean
        total = self.count + added
        # Combine the moments of two parts (Chan, Golub, LeVeque 1979).
        self.squares = self.squares + squares + offset @ offset.swapaxes(-1, -2) * (self.count * added / total)
        self.mean, self.count = self.mean + offset * (added / total), total

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean, (B, 3, 1), and the covariance, (B, 3, 3), in float64."""
        return self.mean, self.squares / self.count


def transport(source: Moments, target: Moments) -> Callable[[Any], Any]:
    """Return a function of images, (B, 3, H, W), that changes their color moments from `source` to `target`.

    Of all linear maps that do this, the symmetric one changes the colors least. It is the optimal transport between the
    two Gaussians: source^-1/2 (source^1/2 target source^1/2)^1/2 source^-1/2.
    """
    (mean, covariance), (target_mean, target_covariance) = source.get(), target.get()
    jitter = 1e-6 * np.eye(3)  # a gray image has a singular covariance
    root, inverse = _power(covariance + jitter, 0.5), _power(covariance + jitter, -0.5)
    matrix = inverse @ _power(root @ (target_covariance + jitter) @ root, 0.5) @ inverse
    shift = (target_mean - matrix @ mean).astype(np.float32)
    matrix = matrix.astype(np.float32)

    def recolor(image: Any) -> Any:
        tables = (matrix, shift) if isinstance(image, np.ndarray) else map(image.new_tensor, (matrix, shift))
        factor, added = tables
        return (factor @ image.reshape(*image.shape[:2], -1) + added).reshape(image.shape).clip(0, 1)

    return recolor


def keep_statistics(output: Any, content: Any) -> Any:
    """Match the mean and covariance of the colors of `output` to those of `content` (sec. 5.1); both (B, 3, H, W)."""
    return transport(Moments(output), Moments(content))(output)


KEEP_COLORS = {"chroma": keep_chroma, "statistics": keep_statistics}


def _to_numpy(values: Any) -> np.ndarray:
    return np.asarray(values if isinstance(values, np.ndarray) else values.cpu(), np.float64)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * values.clip(1e-12)[..., None, :] ** exponent @ vectors.swapaxes(1, 2))
