"""Instance normalisation and ReLU of channels-last tensors on a GPU, as Triton kernels: torch's own turns them into
another layout and, under autocast, into float32, and a batch norm of each item alone takes a kernel an item.

Every kernel is given blocks of `ROWS` pixels of one item with all their channels, of which the statistics of the whole
item are put together. Legend: B batch, C channels, N = H W pixels, P blocks an item.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS, WARPS = 4096, 8  # of a block; what computes it, 16 elements a thread


@triton.jit
def _tile(pixels, channels, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Of this program's block: where its elements lie within the item, which of them exist, and its channels."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    exists = (rows < pixels)[:, None] & (columns < channels)[None, :]
    return rows.to(tl.int64)[:, None] * channels + columns[None, :], exists, columns


@triton.jit
def _moments(x, item, found, pixels, channels, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """x (B, N, C) -> found (B, P, 2, C): each block's means, and its sums of squares about them."""
    block, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    value = tl.load(x + b * item + at, mask=exists, other=0).to(tl.float32)
    count = tl.minimum(pixels - block * ROWS, ROWS)
    mean = tl.sum(value, 0) / count
    off = tl.where(exists, value - mean[None, :], 0)
    to = found + (b * tl.num_programs(0) + block) * 2 * channels + columns
    tl.store(to, mean, mask=columns < channels)
    tl.store(to + channels, tl.sum(off * off, 0), mask=columns < channels)


@triton.jit
def _apply(x, item, scale, shift, y, pixels, channels, RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """y (B, N, C) = x times scale (B, C) plus shift (B, C)."""
    b = tl.program_id(1).to(tl.int64)
    at, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    real = columns < channels
    factor = tl.load(scale + b * channels + columns, mask=real, other=0)
    summand = tl.load(shift + b * channels + columns, mask=real, other=0)
    value = tl.load(x + b * item + at, mask=exists, other=0).to(tl.float32) * factor[None, :] + summand[None, :]
    if RELU:
        value = tl.maximum(value, 0)
    tl.store(y + b * pixels * channels + at, value.to(y.dtype.element_ty), mask=exists)


@triton.jit
def _seen(g, g_item, x, x_item, scale, shift, mean, inverse, b, at, exists, columns, channels, RELU: tl.constexpr):
    """The gradient behind the ReLU, and the normalised x."""
    real = columns < channels
    of_item = b * channels + columns
    value = tl.load(x + b * x_item + at, mask=exists, other=0).to(tl.float32)
    gradient = tl.load(g + b * g_item + at, mask=exists, other=0).to(tl.float32)
    if RELU:
        factor = tl.load(scale + of_item, mask=real, other=0)
        summand = tl.load(shift + of_item, mask=real, other=0)
        gradient = tl.where(value * factor[None, :] + summand[None, :] > 0, gradient, 0)
    middle = tl.load(mean + of_item, mask=real, other=0)
    unit = tl.load(inverse + of_item, mask=real, other=0)
    return gradient, tl.where(exists, (value - middle[None, :]) * unit[None, :], 0)


@triton.jit
def _sums(
    g, g_item, x, x_item, scale, shift, mean, inverse, found, pixels, channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """found (B, P, 2, C): each block's sums of the gradient, and of the gradient times the normalised x."""
    block, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    gradient, normal = _seen(g, g_item, x, x_item, scale, shift, mean, inverse, b, at, exists, columns, channels, RELU)
    to = found + (b * tl.num_programs(0) + block) * 2 * channels + columns
    tl.store(to, tl.sum(gradient, 0), mask=columns < channels)
    tl.store(to + channels, tl.sum(gradient * normal, 0), mask=columns < channels)


@triton.jit
def _gradient(
    g, g_item, x, x_item, scale, shift, mean, inverse, sums, of_x, pixels, channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """of_x (B, N, C), from the items' sums (B, 2, C)."""
    b = tl.program_id(1).to(tl.int64)
    at, exists, columns = _tile(pixels, channels, ROWS, WIDTH)
    gradient, normal = _seen(g, g_item, x, x_item, scale, shift, mean, inverse, b, at, exists, columns, channels, RELU)
    real = columns < channels
    first = tl.load(sums + b * 2 * channels + columns, mask=real, other=0) / pixels
    second = tl.load(sums + b * 2 * channels + channels + columns, mask=real, other=0) / pixels
    factor = tl.load(scale + b * channels + columns, mask=real, other=0)
    value = factor[None, :] * (gradient - first[None, :] - normal * second[None, :])
    tl.store(of_x + b * pixels * channels + at, value.to(of_x.dtype.element_ty), mask=exists)


def _dense(x: Tensor) -> Tensor:
    """Each item of it with channels last and no gaps; between the items there may be some."""
    _, c, _, w = x.shape
    if x.stride(1) == 1 and x.stride(3) == c and x.stride(2) == w * c:
        return x
    return x.contiguous(memory_format=torch.channels_last)


class InstanceNorm(torch.autograd.Function):
    """(B, C, H, W), channels last -> the same, `instance_norm` and then, where `relu`, a ReLU. In the precision of x,
    summed in float32; weight and bias are float32. Triton starts kernels on the current GPU: it must be that of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        x = _dense(x)
        b, c, h, w = x.shape
        n = h * w
        width = triton.next_power_of_2(c)
        rows = max(1, ELEMENTS // width)
        grid = (triton.cdiv(n, rows), b)
        shape, sizes = (n, c), {"ROWS": rows, "WIDTH": width, "num_warps": WARPS}
        found = x.new_empty(b, grid[0], 2, c, dtype=torch.float32)
        _moments[grid](x, x.stride(0), found, *shape, **sizes)
        counts = x.new_full((grid[0], 1), rows, dtype=torch.float32)
        counts[-1] = n - rows * (grid[0] - 1)
        means, squares = found.unbind(2)
        mean = (means * counts).sum(1) / n
        off = (means - mean[:, None]).square_().mul_(counts)
        inverse = (off.add_(squares).sum(1) / n).add_(eps).rsqrt_()
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
        gradient = _dense(gradient)
        b, c, h, w = x.shape
        shape = (h * w, c)
        known = (gradient, gradient.stride(0), x, x.stride(0), scale, shift, mean, inverse)
        found = x.new_empty(b, ctx.grid[0], 2, c, dtype=torch.float32)
        _sums[ctx.grid](*known, found, *shape, **ctx.sizes)
        sums = found.sum(1)
        of_x = x.new_empty(b, h, w, c).permute(0, 3, 1, 2)
        _gradient[ctx.grid](*known, sums, of_x, *shape, **ctx.sizes)
        of_bias, of_weight = sums.sum(0)
        return of_x, of_weight, of_bias, None, None
