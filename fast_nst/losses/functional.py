"""The losses as pure functions (Johnson 2016 sec. 3, Gatys 2015). Legend: B batch, C channels, H height, W width.

All of them sum in float32 under any autocast, because a style loss is a small difference of large Grams, which would
be lost in bfloat16.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.image import luma

_HALF_PRECISIONS = (torch.float16, torch.bfloat16)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in _HALF_PRECISIONS else x


class _Gram(torch.autograd.Function):
    """F F^T / (C H W), with a gradient that takes one matrix product, in the precision of the features.

    Plain twin: `torch.einsum("bihw,bjhw->bij", f, f) / (C * H * W)` in float32. Its gradient takes two float32 products
    and keeps a float32 copy of the features.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        flat = features.flatten(2)
        if (
            flat.is_cuda and flat.dtype in _HALF_PRECISIONS and torch.version.hip is None
        ):  # sum in float32 without a copy
            product = torch.bmm(flat, flat.transpose(1, 2), out_dtype=torch.float32)
        else:
            flat = _at_least_float32(flat)
            product = torch.bmm(flat, flat.transpose(1, 2))
        return product / (flat.shape[1] * flat.shape[2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        flat = features.flatten(2)
        symmetric = (gradient + gradient.transpose(1, 2)) / (flat.shape[1] * flat.shape[2])
        # (F^T S)^T instead of S F, so that channels_last features get a channels_last gradient.
        product = torch.bmm(flat.transpose(1, 2), symmetric.to(flat.dtype))
        return product.transpose(1, 2).unflatten(2, features.shape[2:])


class _MeanSquare(torch.autograd.Function):
    """The mean square of each item, summed in float32 (or float64) without a copy in that precision.

    Plain twin: `x.float().square().flatten(1).mean(1)`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        dims = tuple(range(1, x.dim()))
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return torch.linalg.vector_norm(x, dim=dims, dtype=dtype).square() / x[0].numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        factor = gradient * (2 / x[0].numel())
        return x * factor.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def gram(features: Tensor) -> Tensor:
    """Compute Gram matrices (Johnson 2016 eq. 3): (B, C, H, W) -> (B, C, C) float32, G = F F^T / (C H W)."""
    with torch.autocast(features.device.type, enabled=False):
        return _Gram.apply(features)


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of features (Johnson 2016 eq. 2): two (B, C, H, W) -> (B,) float32."""
    return _MeanSquare.apply(features - target)  # the difference of close numbers is exact in any precision


def content_half_sum(features: Tensor, target: Tensor) -> Tensor:
    """Return half the summed squared difference (Gatys 2015 eq. 1): two (B, C, H, W) -> (B,) float32."""
    return (_at_least_float32(features) - _at_least_float32(target)).square().sum((1, 2, 3)) / 2


def content_quarter_sum(features: Tensor, target: Tensor) -> Tensor:
    """Return a quarter of the summed squared difference (TNST): two (B, C, H, W) -> (B,) float32."""
    return content_half_sum(features, target) / 2


def style_loss(grams: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of Gram matrices: (B, C, C), (B or 1, C, C) -> (B,) float32."""
    return (grams - target).square().mean((1, 2))


def energy(x: Tensor) -> Tensor:
    """Return the mean square of each item: (B, ...) -> (B,) float32. A normalized loss divides by it."""
    return _MeanSquare.apply(x)


def tv_mean(image: Tensor) -> Tensor:
    """Return the total variation, the mean squared horizontal plus vertical differences: (B, 3, H, W) -> (B,)."""
    image = _at_least_float32(image)
    across, down = image.diff(dim=3), image.diff(dim=2)
    return across.square().mean((1, 2, 3)) + down.square().mean((1, 2, 3))


def tv_half_sum(image: Tensor) -> Tensor:
    """Return the total variation as half the sum of squared differences, without the last row and column.

    (B, 3, H, W) -> (B,). fast-neural-style's TotalVariation.lua defines only a gradient, which this function has.
    """
    image = _at_least_float32(image)
    across, down = image.diff(dim=3)[:, :, :-1], image.diff(dim=2)[:, :, :, :-1]
    return (across.square() + down.square()).sum((1, 2, 3)) / 2


def light_loss(image: Tensor, target: Tensor, divisor: int = 4, window: int = 5, noise: float = 0.03) -> Tensor:
    """Compare what is lighter and what is darker than its surroundings, ignoring brightness, contrast and color.

    Two (B, 3, H, W) -> (B,) float32, from 0 to 2: one minus the correlation of their luminance (the structure of SSIM,
    Wang 2004 eq. 10), averaged over blocks `divisor` pixels wide and compared in windows `window` blocks wide.
    noise: where the luminance of the target has a much smaller standard deviation, it counts as flat and constrains
    almost nothing.
    """
    a, b = (luma(F.avg_pool2d(_at_least_float32(x), divisor)) for x in (image, target))

    def average(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)

    mean_a, mean_b = average(a), average(b)
    covariance = average(a * b) - mean_a * mean_b
    variance_a = (average(a.square()) - mean_a.square()).clamp_min(0) + noise**2
    variance_b = (average(b.square()) - mean_b.square()).clamp_min(0) + noise**2
    return 1 - (covariance / (variance_a * variance_b).sqrt()).mean((1, 2, 3))
