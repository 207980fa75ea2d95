"""Operations of a network that torch computes slowly where channels come last, with ways of our own: on a CPU for their
gradients, on a GPU for themselves.

On a CPU they are the plain operations without a gradient: what exports a network knows those. Legend: B batch, C
channels, H height, W width.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of each of the two phases, on which of its two single pixels each of three doubled ones lies; both ways together:
# (9, 16), which taps of a 3x3 kernel on doubled pixels each phase's 2x2 kernel on single ones sums.
_SIDE = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
_PHASES = torch.einsum("pum,qvn->mnpquv", _SIDE, _SIDE).reshape(9, 16)


@functools.cache
@torch.inference_mode(False)  # a training may come after a validation
def _phases(device: torch.device) -> Tensor:
    return _PHASES.to(device)


def prefers_channels_last(device: torch.device) -> bool:
    """Whether a network trains faster there in that layout: where there are ways of our own for it."""
    return device.type == "cpu" or (device.type == "cuda" and _gpu_norm(device) is not None)


def _learns(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1 < x.shape[1]


class _Pad(torch.autograd.Function):
    """F.pad by "reflect" or "replicate" with a gradient of one pass over memory: torch's own, on a CPU, takes longer
    than many a convolution, and on a GPU gives another layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pixels: int, mode: str) -> Tensor:
        ctx.pixels, ctx.mode = pixels, mode
        return _padded(x, pixels, mode) if _channels_last(x) else F.pad(x, (pixels,) * 4, mode=mode)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        p = ctx.pixels
        columns = gradient[..., p:-p].clone()
        inner = columns[:, :, p:-p]
        for whole, part, dim in ((gradient, columns, 3), (columns, inner, 2)):
            for k in range(p):
                _ends(part, dim, _source(k, p, ctx.mode) - p).add_(_ends(whole, dim, k))
        return inner, None, None


def _padded(x: Tensor, pixels: int, mode: str) -> Tensor:
    """F.pad where channels come last, which torch does pixel by pixel."""
    b, c, h, w = x.shape
    whole = x.new_empty(b, h + 2 * pixels, w + 2 * pixels, c).permute(0, 3, 1, 2)
    rows = whole[:, :, pixels:-pixels]
    rows[..., pixels:-pixels] = x
    for part, dim in ((rows, 3), (whole, 2)):
        for k in range(pixels):
            _ends(part, dim, k).copy_(_ends(part, dim, _source(k, pixels, mode)))
    return whole


def _source(k: int, pixels: int, mode: str) -> int:
    """Where the k-th line of a border of `pixels`, from outside, is taken from, from outside."""
    return 2 * pixels - k if mode == "reflect" else pixels


def _ends(x: Tensor, dim: int, k: int) -> Tensor:
    """The k-th row (dim 2) or column (dim 3) from either end, both in one view; they must not be the same."""
    last = x.shape[dim] - 1 - k
    both = slice(k, last + 1, last - k)
    return x[:, :, both] if dim == 2 else x[:, :, :, both]


def pad(x: Tensor, pixels: int, mode: str) -> Tensor:
    """F.pad on all four sides in the precision of `x`: autocast on a CPU would turn it into float32 and back."""
    if not pixels:
        return x
    with torch.autocast(x.device.type, enabled=False):
        if mode != "constant" and min(x.shape[2:]) > 2 * pixels + 1:  # `_ends` are two
            if _learns(x):
                return _Pad.apply(x, pixels, mode)
            if x.is_cuda and _channels_last(x):
                return _padded(x, pixels, mode)
        return F.pad(x, (pixels,) * 4, mode=mode)


def upsample_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """Nearest x2 upsampling, `mode` padding by one and a 3x3 convolution, as one convolution at the small size.

    A 3x3 window over doubled pixels sees 2x2 different ones, so each of the four phases of the output is a 2x2
    convolution of `x` with sums of the weights (Shi et al. 2016, arXiv 1609.07009): the same numbers with 4/9 of the
    products and no large copy of `x`. x: (B, C, H, W); weight: (K, C, 3, 3) -> (B, K, 2H, 2W). mode: "reflect" or
    "constant" (zeros), seen at the large size; reflecting doubled pixels is replicating single ones.
    """
    outputs, inputs = weight.shape[:2]
    with torch.autocast(x.device.type, enabled=False):  # sums in the weights' own precision
        phases = weight.flatten(2) @ _phases(weight.device).to(weight)
    phases = phases.view(outputs, inputs, 4, 2, 2).permute(2, 0, 1, 3, 4).reshape(4 * outputs, inputs, 2, 2)
    x = pad(x, 1, "replicate" if mode == "reflect" else mode)
    y = F.conv2d(x, phases, None if bias is None else bias.repeat(4))
    y = y.unflatten(1, (2, 2, outputs))  # (B, 2, 2, K, H + 1, W + 1)
    return _Interleave.apply(y) if _learns(y) else interleave(y)


def interleave(phases: Tensor) -> Tensor:
    """(B, 2, 2, K, H + 1, W + 1), for each phase its rows and columns from its own number on -> (B, K, 2H, 2W), with
    channels last."""
    b, _, _, k, h, w = phases.shape
    h, w = h - 1, w - 1
    whole = phases.new_empty(b, h, 2, w, 2, k)
    for i in (0, 1):
        for j in (0, 1):
            whole[:, :, i, :, j] = phases[:, i, j, :, i : i + h, j : j + w].permute(0, 2, 3, 1)
    return whole.view(b, 2 * h, 2 * w, k).permute(0, 3, 1, 2)


class _Interleave(torch.autograd.Function):
    """`interleave`, whose gradient is one pass too."""

    @staticmethod
    def forward(ctx: Any, phases: Tensor) -> Tensor:
        return interleave(phases)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        b, k, h, w = gradient.shape
        h, w = h // 2, w // 2
        whole = gradient.permute(0, 2, 3, 1).reshape(b, h, 2, w, 2, k)
        phases = gradient.new_zeros(b, h + 1, w + 1, 2, 2, k)
        for i in (0, 1):
            for j in (0, 1):
                phases[:, i : i + h, j : j + w, i, j] = whole[:, :, i, :, j]
        return phases.permute(0, 3, 4, 5, 1, 2)


class _InstanceNorm(torch.autograd.Function):
    """Group norm with one channel a group: where channels come last, torch's own gradient takes 20 times as long. That
    of a batch norm of each item alone is the same and does not."""

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
        of_x, of_weight, of_bias = zip(*items, strict=True)
        return torch.cat(of_x), sum(of_weight[1:], of_weight[0]), sum(of_bias[1:], of_bias[0]), None


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool = False) -> Tensor:
    """(B, C, H, W) -> the same, each channel of each item with mean `bias` and standard deviation `weight`; then,
    where `relu`, a ReLU."""
    if x.is_cuda and _channels_last(x):
        if len(x) == 1 and x.numel() < 2**31:
            y = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
        elif (norm := _gpu_norm(x.device)) is not None:
            with torch.cuda.device(x.device):
                found: Tensor = norm.apply(x, weight, bias, eps, relu)
            return found
        else:
            y = F.group_norm(x, x.shape[1], weight, bias, eps)
    elif _learns(x) and x.device.type == "cpu" and _channels_last(x):
        y = _InstanceNorm.apply(x, weight, bias, eps)
    else:
        y = F.group_norm(x, x.shape[1], weight, bias, eps)
    return rectify(y) if relu else y


@functools.cache
@torch.inference_mode(False)
def _gpu_norm(device: torch.device) -> Any:
    """`gpu_norm.InstanceNorm`, or None where it does not work: without Triton, without a compiler that Triton needs for
    its first call, on a GPU that it does not know."""
    try:
        from fast_nst.ops.triton_norm import InstanceNorm

        x = torch.zeros(2, 4, 2, 2, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.cuda.device(device), torch.enable_grad():
            torch.autograd.grad(InstanceNorm.apply(x, *torch.ones(2, 4, device=device), 1e-5, True).sum(), x)
    except Exception:  # whatever a compiler may raise
        return None
    return InstanceNorm


def rectify(x: Tensor) -> Tensor:
    """ReLU. In place takes less memory, neither a norm nor a convolution needs its output again; but more time."""
    return F.relu(x, inplace=not torch.is_grad_enabled())
