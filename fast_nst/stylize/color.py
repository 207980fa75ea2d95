"""Keeping the photograph's colours (Gatys, Bethge, Hertzmann, Shechtman 2016, arXiv 1606.05897)."""

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


def keep_statistics(stylised: Tensor, photograph: Tensor) -> Tensor:
    """`stylised` moved to the mean and covariance of the colours of `photograph` (sec. 5.1, by symmetric square roots).

    Of all linear maps that do it, the symmetric one changes the colours least. (B, 3, H, W) both.
    """
    values, target = stylised.flatten(2).double(), photograph.flatten(2).double()
    mean, goal = values.mean(2, keepdim=True), target.mean(2, keepdim=True)
    values, target = values - mean, target - goal
    jitter = 1e-6 * torch.eye(3, dtype=values.dtype, device=values.device)  # a grey picture has no colour axis
    own = values @ values.transpose(1, 2) / values.shape[2] + jitter
    wanted = target @ target.transpose(1, 2) / target.shape[2] + jitter
    # The optimal transport map between the two Gaussians: own^-1/2 (own^1/2 wanted own^1/2)^1/2 own^-1/2.
    root, inverse = _power(own, 0.5), _power(own, -0.5)
    moved = inverse @ _power(root @ wanted @ root, 0.5) @ inverse @ values + goal
    return moved.reshape(stylised.shape).to(stylised.dtype).clamp(0, 1)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag_embed(values.clamp_min(1e-12) ** exponent) @ vectors.transpose(1, 2)
