"""Instance norm and ReLU of channels_last tensors on a GPU, as Triton kernels.

torch's own norm converts to another layout and, under autocast, to float32; a batch norm item by item launches a kernel
per item. Each program handles a block: `ROWS` pixels of one item, with all their channels. The statistics of an item
are combined from those of its blocks. Legend: B batch, C channels, N = H W pixels, P blocks per item.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS, WARPS = 4096, 8  # per block: 16 elements per thread


@triton.jit
def _tile(pixels, channels, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the offsets of this block's elements within the item, a mask of existing elements, and channel indices."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    exists = (rows < pixels)[:, None] & (columns < channels)[None, :]
    return rows.to(tl.int64)[:, None] * channels + columns[None, :], exists, columns


@triton.jit
def _moments(x, x_item, moments, pixels, channels, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Store each block's mean and its sum of squared deviations: x (B, N, C) -> moments (B, P, 2, C)."""
    block, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    offsets, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    value = tl.load(x + b * x_item + offsets, mask=exists, other=0).to(tl.float32)
    count = tl.minimum(pixels - block * ROWS, ROWS)
    mean = tl.sum(value, 0) / count
    deviation = tl.where(exists, value - mean[None, :], 0)
    target = moments + (b * tl.num_programs(0) + block) * 2 * channels + columns
    tl.store(target, mean, mask=columns < channels)
    tl.store(target + channels, tl.sum(deviation * deviation, 0), mask=columns < channels)


@triton.jit
def _apply(x, x_item, scale, shift, y, pixels, channels, RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Store y (B, N, C) = x * scale (B, C) + shift (B, C), with a ReLU if RELU."""
    b = tl.program_id(1).to(tl.int64)
    offsets, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    valid = columns < channels
    factor = tl.load(scale + b * channels + columns, mask=valid, other=0)
    summand = tl.load(shift + b * channels + columns, mask=valid, other=0)
    value = tl.load(x + b * x_item + offsets, mask=exists, other=0).to(tl.float32) * factor[None, :] + summand[None, :]
    if RELU:
        value = tl.maximum(value, 0)
    tl.store(y + b * pixels * channels + offsets, value.to(y.dtype.element_ty), mask=exists)


@triton.jit
def _normalize(
    g, g_item, x, x_item, scale, shift, mean, inverse, b, offsets, exists, columns, channels, RELU: tl.constexpr
):
    """Return the gradient with respect to the norm's output, before the ReLU, and the normalized x."""
    valid = columns < channels
    statistics = b * channels + columns
    value = tl.load(x + b * x_item + offsets, mask=exists, other=0).to(tl.float32)
    gradient = tl.load(g + b * g_item + offsets, mask=exists, other=0).to(tl.float32)
    if RELU:
        factor = tl.load(scale + statistics, mask=valid, other=0)
        summand = tl.load(shift + statistics, mask=valid, other=0)
        gradient = tl.where(value * factor[None, :] + summand[None, :] > 0, gradient, 0)
    center = tl.load(mean + statistics, mask=valid, other=0)
    unit = tl.load(inverse + statistics, mask=valid, other=0)
    return gradient, tl.where(exists, (value - center[None, :]) * unit[None, :], 0)


@triton.jit
def _sums(
    g, g_item, x, x_item, scale, shift, mean, inverse, sums, pixels, channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Store each block's sums of the gradient, and of the gradient times the normalized x: sums (B, P, 2, C)."""
    block, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    offsets, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    gradient, normalized = _normalize(
        g, g_item, x, x_item, scale, shift, mean, inverse, b, offsets, exists, columns, channels, RELU
    )
    target = sums + (b * tl.num_programs(0) + block) * 2 * channels + columns
    tl.store(target, tl.sum(gradient, 0), mask=columns < channels)
    tl.store(target + channels, tl.sum(gradient * normalized, 0), mask=columns < channels)


@triton.jit
def _gradient(
    g, g_item, x, x_item, scale, shift, mean, inverse, sums, grad_x, pixels, channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Store the gradient with respect to x, grad_x (B, N, C), given the items' sums (B, 2, C)."""
    b = tl.program_id(1).to(tl.int64)
    offsets, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    gradient, normalized = _normalize(
        g, g_item, x, x_item, scale, shift, mean, inverse, b, offsets, exists, columns, channels, RELU
    )
    valid = columns < channels
    first = tl.load(sums + b * 2 * channels + columns, mask=valid, other=0) / pixels
    second = tl.load(sums + b * 2 * channels + channels + columns, mask=valid, other=0) / pixels
    factor = tl.load(scale + b * channels + columns, mask=valid, other=0)
    value = factor[None, :] * (gradient - first[None, :] - normalized * second[None, :])
    tl.store(grad_x + b * pixels * channels + offsets, value.to(grad_x.dtype.element_ty), mask=exists)


def _pack_items(x: Tensor) -> Tensor:
    """Return x with each item channels_last and contiguous; there may be gaps between items."""
    _, c, _, w = x.shape
    if x.stride(1) == 1 and x.stride(3) == c and x.stride(2) == w * c:
        return x
    return x.contiguous(memory_format=torch.channels_last)


class InstanceNorm(torch.autograd.Function):
    """Instance norm, then a ReLU if `relu`: x, (B, C, H, W) channels_last -> the same shape, layout and precision.

    Sums are float32; weight and bias must be float32. Triton launches kernels on the current GPU, which must be x's.
    Plain twin: `F.group_norm(x, C, weight, bias, eps)`, then `F.relu`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        x = _pack_items(x)
        b, c, h, w = x.shape
        n = h * w
        width = triton.next_power_of_2(c)
        rows = max(1, ELEMENTS // width)
        grid = (triton.cdiv(n, rows), b)
        shape, sizes = (n, c), {"ROWS": rows, "WIDTH": width, "num_warps": WARPS}
        moments = x.new_empty(b, grid[0], 2, c, dtype=torch.float32)
        _moments[grid](x, x.stride(0), moments, *shape, **sizes)
        counts = x.new_full((grid[0], 1), rows, dtype=torch.float32)
        counts[-1] = n - rows * (grid[0] - 1)
        means, squares = moments.unbind(2)
        mean = (means * counts).sum(1) / n
        between = (means - mean[:, None]).square_().mul_(counts)
        inverse = (between.add_(squares).sum(1) / n).add_(eps).rsqrt_()
        scale = weight * inverse
        shift = bias - mean * scale
        y = x.new_empty(b, h, w, c).permute(0, 3, 1, 2)
        _apply[grid](x, x.stride(0), scale, shift, y, *shape, RELU=relu, **sizes)
        ctx.save_for_backward(x, mean, inverse, scale, shift)
        ctx.grid, ctx.sizes = grid, {**sizes, "RELU": relu}
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, mean, inverse, scale, shift = ctx.saved_tensors
        gradient = _pack_items(gradient)
        b, c, h, w = x.shape
        shape = (h * w, c)
        inputs = (gradient, gradient.stride(0), x, x.stride(0), scale, shift, mean, inverse)
        block_sums = x.new_empty(b, ctx.grid[0], 2, c, dtype=torch.float32)
        _sums[ctx.grid](*inputs, block_sums, *shape, **ctx.sizes)
        sums = block_sums.sum(1)
        grad_x = x.new_empty(b, h, w, c).permute(0, 3, 1, 2)
        _gradient[ctx.grid](*inputs, sums, grad_x, *shape, **ctx.sizes)
        grad_bias, grad_weight = sums.sum(0)
        return grad_x, grad_weight, grad_bias, None, None
