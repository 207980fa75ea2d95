"""channels_last operations that torch implements slowly: custom gradients on a CPU, custom forward passes on a GPU.

Without a gradient, a CPU runs torch's own operations, which network exporters know. Legend: B batch, C and K input and
output channels, H height, W width.
"""

import functools
import warnings
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.errors import one_line

# A 3-tap kernel on doubled pixels equals a 2-tap kernel on single pixels, one for each of two phases. _TAPS_1D, (phase,
# 2, 3), says which of the three taps each of the two sums. _TAPS_2D, (9, 16), does so in both dimensions: from the taps
# of a 3x3 kernel to those of the four phases' 2x2 kernels.
_TAPS_1D = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
_TAPS_2D = torch.einsum("pum,qvn->mnpquv", _TAPS_1D, _TAPS_1D).reshape(9, 16)


@functools.cache
@torch.inference_mode(False)  # a tensor cached during validation must work in training too
def _taps(device: torch.device) -> Tensor:
    return _TAPS_2D.to(device)


def prefers_channels_last(device: torch.device) -> bool:
    """Return whether networks train faster in channels_last on `device`: if the operations below are fast there."""
    return device.type == "cpu" or (device.type == "cuda" and _triton_norm(device) is not None)


def _needs_gradient(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _is_channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1 < x.shape[1]


class _Pad(torch.autograd.Function):
    """F.pad with the mode "reflect" or "replicate", and a gradient in one pass over memory.

    torch's own gradient is slower than many convolutions on a CPU, and changes the layout on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, pixels: int, mode: str) -> Tensor:
        ctx.pixels, ctx.mode = pixels, mode
        return _pad_channels_last(x, pixels, mode) if _is_channels_last(x) else F.pad(x, (pixels,) * 4, mode=mode)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        p = ctx.pixels
        columns = gradient[..., p:-p].clone()
        inner = columns[:, :, p:-p]
        for padded, cropped, dim in ((gradient, columns, 3), (columns, inner, 2)):
            for k in range(p):
                _line_pair(cropped, dim, _source_line(k, p, ctx.mode) - p).add_(_line_pair(padded, dim, k))
        return inner, None, None


def _pad_channels_last(x: Tensor, pixels: int, mode: str) -> Tensor:
    """Pad a channels_last tensor line by line; torch's own `F.pad` works pixel by pixel."""
    b, c, h, w = x.shape
    padded = x.new_empty(b, h + 2 * pixels, w + 2 * pixels, c).permute(0, 3, 1, 2)
    rows = padded[:, :, pixels:-pixels]
    rows[..., pixels:-pixels] = x
    for target, dim in ((rows, 3), (padded, 2)):
        for k in range(pixels):
            _line_pair(target, dim, k).copy_(_line_pair(target, dim, _source_line(k, pixels, mode)))
    return padded


def _source_line(k: int, pixels: int, mode: str) -> int:
    """Return the index of the line that line k of a border of `pixels` copies; both count from the outer edge."""
    return 2 * pixels - k if mode == "reflect" else pixels


def _line_pair(x: Tensor, dim: int, k: int) -> Tensor:
    """Return the k-th row (dim 2) or column (dim 3) from both ends as one view; the two must be different lines."""
    last = x.shape[dim] - 1 - k
    both = slice(k, last + 1, last - k)
    return x[:, :, both] if dim == 2 else x[:, :, :, both]


def pad(x: Tensor, pixels: int, mode: str) -> Tensor:
    """Pad all four sides in the precision of `x`; autocast on a CPU would convert to float32 and back.

    Plain twin: `F.pad(x, (pixels,) * 4, mode=mode)`.
    """
    if not pixels:
        return x
    with torch.autocast(x.device.type, enabled=False):
        if mode != "constant" and min(x.shape[2:]) > 2 * pixels + 1:  # `_line_pair` needs two lines
            if _needs_gradient(x):
                return _Pad.apply(x, pixels, mode)
            if x.is_cuda and _is_channels_last(x):
                return _pad_channels_last(x, pixels, mode)
        return F.pad(x, (pixels,) * 4, mode=mode)


def upsample_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """Upsample x2, pad by one and convolve with a 3x3 kernel, as one convolution at the small size.

    Plain twin: `F.conv2d(F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (1,) * 4, mode=mode), weight, bias)`.

    A 3x3 window over doubled pixels covers 2x2 different pixels, so each of the four phases of the output is a 2x2
    convolution of `x` with sums of the weights (Shi et al. 2016, arXiv 1609.07009): the same result with 4/9 of the
    products and no large copy of `x`. x: (B, C, H, W); weight: (K, C, 3, 3) -> (B, K, 2H, 2W). mode: how to pad at the
    large size, by "reflect" or "constant" (zeros). Reflecting doubled pixels equals replicating single ones.
    """
    outputs, inputs = weight.shape[:2]
    with torch.autocast(x.device.type, enabled=False):  # sum in the weights' own precision
        phases = weight.flatten(2) @ _taps(weight.device).to(weight)
    phases = phases.view(outputs, inputs, 4, 2, 2).permute(2, 0, 1, 3, 4).reshape(4 * outputs, inputs, 2, 2)
    x = pad(x, 1, "replicate" if mode == "reflect" else mode)
    y = F.conv2d(x, phases, None if bias is None else bias.repeat(4))
    y = y.unflatten(1, (2, 2, outputs))  # (B, 2, 2, K, H + 1, W + 1)
    return _Interleave.apply(y) if _needs_gradient(y) else interleave(y)


def interleave(phases: Tensor) -> Tensor:
    """Merge the four phases: (B, 2, 2, K, H + 1, W + 1) -> (B, K, 2H, 2W), channels_last.

    Phase i, j starts at row i and column j. Plain twin: `F.pixel_shuffle` of all
    `phases[:, i, j, :, i : i + H, j : j + W]`, stacked as (B, 4K, H, W).
    """
    b, _, _, k, h, w = phases.shape
    h, w = h - 1, w - 1
    merged = phases.new_empty(b, h, 2, w, 2, k)
    for i in (0, 1):
        for j in (0, 1):
            merged[:, :, i, :, j] = phases[:, i, j, :, i : i + h, j : j + w].permute(0, 2, 3, 1)
    return merged.view(b, 2 * h, 2 * w, k).permute(0, 3, 1, 2)


class _Interleave(torch.autograd.Function):
    """`interleave` with a gradient in one pass over memory."""

    @staticmethod
    def forward(ctx: Any, phases: Tensor) -> Tensor:
        return interleave(phases)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        b, k, h, w = gradient.shape
        h, w = h // 2, w // 2
        merged = gradient.permute(0, 2, 3, 1).reshape(b, h, 2, w, 2, k)
        phases = gradient.new_zeros(b, h + 1, w + 1, 2, 2, k)
        for i in (0, 1):
            for j in (0, 1):
                phases[:, i : i + h, j : j + w, i, j] = merged[:, :, i, :, j]
        return phases.permute(0, 3, 4, 5, 1, 2)


class _InstanceNorm(torch.autograd.Function):
    """Group norm with one channel per group, and a fast gradient for channels_last on a CPU.

    torch's own gradient takes 20 times as long. A batch norm of each item has the same gradient, which is fast.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        b, c, h, w = x.shape
        y, mean, inverse = torch.native_group_norm(x, weight, bias, b, c, h * w, c, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        items = [
            torch.ops.aten.native_batch_norm_backward(
                g, item, weight, None, None, *statistics, True, ctx.eps, [True] * 3
            )
            for g, item, *statistics in zip(gradient.split(1), x.split(1), mean.unbind(), inverse.unbind(), strict=True)
        ]
        grad_x, grad_weight, grad_bias = zip(*items, strict=True)
        return torch.cat(grad_x), sum(grad_weight[1:], grad_weight[0]), sum(grad_bias[1:], grad_bias[0]), None


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool = False) -> Tensor:
    """Normalize each channel of each item of x, (B, C, H, W), to mean `bias` and standard deviation `weight`.

    weight, bias: (C,) or (1, C) for all items, or (B, C) with a row for each item. relu: also apply a ReLU.
    Plain twin: `F.group_norm(x, C, weight, bias, eps)`, then `F.relu`.
    """
    if weight.dim() == 2 and len(weight) == 1:
        weight, bias = weight[0], bias[0]
    if weight.dim() == 2 and x.device.type == "cpu":  # all items at once would take another pass over memory
        parts = zip(x.split(1), weight, bias, strict=True)
        return torch.cat([instance_norm(item, w, b, eps, relu) for item, w, b in parts])
    if weight.dim() == 2:
        y = instance_norm(x, x.new_ones(x.shape[1], dtype=weight.dtype), torch.zeros_like(bias[0]), eps)
        y = torch.addcmul(bias.to(y.dtype)[:, :, None, None], y, weight.to(y.dtype)[:, :, None, None])
        return rectify(y) if relu else y
    if x.is_cuda and _is_channels_last(x):
        if len(x) == 1 and x.numel() < 2**31:
            y = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
        elif (norm := _triton_norm(x.device)) is not None:
            with torch.cuda.device(x.device):
                normalized: Tensor = norm.apply(x, weight, bias, eps, relu)
            return normalized
        else:
            y = F.group_norm(x, x.shape[1], weight, bias, eps)
    elif _needs_gradient(x) and x.device.type == "cpu" and _is_channels_last(x):
        y = _InstanceNorm.apply(x, weight, bias, eps)
    else:
        y = F.group_norm(x, x.shape[1], weight, bias, eps)
    return rectify(y) if relu else y


@functools.cache
@torch.inference_mode(False)
def _triton_norm(device: torch.device) -> Any:
    """Return `triton_norm.InstanceNorm` if it works on `device`, else None.

    Warn once with the reason if it fails: Triton may find no compiler, or not support the GPU. Do not warn if Triton is
    not installed or there is no CUDA device.
    """
    if not torch.cuda.is_available() or find_spec("triton") is None:
        return None
    try:
        from fast_nst.ops.triton_norm import InstanceNorm

        x = torch.zeros(2, 4, 2, 2, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.cuda.device(device), torch.enable_grad():
            torch.autograd.grad(InstanceNorm.apply(x, *torch.ones(2, 4, device=device), 1e-5, True).sum(), x)
    except Exception as error:  # a compiler may raise anything
        warnings.warn(
            f"the Triton instance norm does not work here; networks are slower ({one_line(error)})", stacklevel=2
        )
        return None
    return InstanceNorm


def rectify(x: Tensor) -> Tensor:
    """Apply a ReLU: in place if gradients are off, which saves memory but is slower. Plain twin: `F.relu(x)`."""
    return F.relu(x, inplace=not torch.is_grad_enabled())
