"""The parts of an image transformation network. Legend: B batch, C channels, H height, W width."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.validate import Invalid


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with a learned scale and shift (Ulyanov, Vedaldi, Lempitsky 2016, arXiv 1607.08022).

    As a group norm of one channel a group: the same numbers, and on a CPU the kernel of `nn.InstanceNorm2d` is slower.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, channels, eps=eps)


def make_norm(kind: str, channels: int, eps: float) -> nn.Module:
    """`kind`: "instance" or "batch" (Johnson 2016's own choice)."""
    if kind == "instance":
        return InstanceNorm(channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps)
    raise Invalid(f"norm: got {kind!r}; allowed: 'instance', 'batch'")


class _Pad(torch.autograd.Function):
    """F.pad by "reflect" or "replicate" with a gradient of a few passes over memory: torch's own, on a CPU, takes
    longer than many a convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pixels: int, mode: str) -> Tensor:
        ctx.pixels, ctx.mode = pixels, mode
        return F.pad(x, (pixels,) * 4, mode=mode)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        for dim in (2, 3):
            inside = gradient.shape[dim] - 2 * ctx.pixels
            before, middle, after = gradient.split((ctx.pixels, inside, ctx.pixels), dim)
            gradient = middle.clone()
            if ctx.mode == "replicate":
                gradient.narrow(dim, 0, 1).add_(before.sum(dim, keepdim=True))
                gradient.narrow(dim, inside - 1, 1).add_(after.sum(dim, keepdim=True))
            else:
                gradient.narrow(dim, 1, ctx.pixels).add_(before.flip(dim))
                gradient.narrow(dim, inside - 1 - ctx.pixels, ctx.pixels).add_(after.flip(dim))
        return gradient, None, None


def pad(x: Tensor, pixels: int, mode: str) -> Tensor:
    """F.pad on all four sides in the precision of `x`: autocast on a CPU would turn it into float32 and back."""
    with torch.autocast(x.device.type, enabled=False):
        # Without a gradient the plain operation: what exports a network knows it.
        if x.requires_grad and torch.is_grad_enabled() and mode != "constant":
            return _Pad.apply(x, pixels, mode)
        return F.pad(x, (pixels,) * 4, mode=mode)


def upsample_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """Nearest x2 upsampling, `mode` padding by one and a 3x3 convolution, as one convolution at the small size.

    A 3x3 window over doubled pixels sees 2x2 different ones, so each of the four phases of the output is a 2x2
    convolution of `x` with sums of the weights (Shi et al. 2016, arXiv 1609.07009): the same numbers with 4/9 of the
    products and no large copy of `x`. x: (B, C, H, W); weight: (K, C, 3, 3) -> (B, K, 2H, 2W). mode: "reflect" or
    "constant" (zeros), seen at the large size; reflecting doubled pixels is replicating single ones.
    """
    outputs, inputs = weight.shape[:2]
    top, middle, bottom = weight.unbind(2)
    rows = torch.stack([torch.stack([top, middle + bottom], 2), torch.stack([top + middle, bottom], 2)])
    left, middle, right = rows.unbind(4)  # rows: (2, K, C, 2, 3)
    phases = torch.stack([torch.stack([left, middle + right], 4), torch.stack([left + middle, right], 4)], 1)
    x = pad(x, 1, "replicate" if mode == "reflect" else mode)
    y = F.conv2d(x, phases.reshape(4 * outputs, inputs, 2, 2), None if bias is None else bias.repeat(4))
    y = y.unflatten(1, (2, 2, outputs))  # (B, 2, 2, K, H + 1, W + 1)
    return _Interleave.apply(y) if y.requires_grad and torch.is_grad_enabled() else interleave(y)


def interleave(phases: Tensor) -> Tensor:
    """(B, 2, 2, K, H + 1, W + 1), for each phase its rows and columns from its own number on -> (B, K, 2H, 2W)."""
    b, _, _, k, h, w = phases.shape
    h, w = h - 1, w - 1
    whole = phases.new_empty(b, k, h, 2, w, 2)
    for i in (0, 1):
        for j in (0, 1):
            whole[:, :, :, i, :, j] = phases[:, i, j, :, i : i + h, j : j + w]
    return whole.view(b, k, 2 * h, 2 * w)


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
        whole = gradient.reshape(b, k, h, 2, w, 2)
        phases = gradient.new_zeros(b, 2, 2, k, h + 1, w + 1)
        for i in (0, 1):
            for j in (0, 1):
                phases[:, i, j, :, i : i + h, j : j + w] = whole[:, :, :, i, :, j]
        return phases


class ConvBlock(nn.Module):
    """Padding, convolution, normalisation, ReLU; with `upsampling` the size doubles, with `stride=2` it halves.

    padding: "reflection", "zero" or "none". upsampling: None, "nearest" (then an ordinary 3x3 convolution, free of
    checkerboards: Odena, Dumoulin, Olah 2016) or "transposed". norm None: the convolution alone.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: str = "reflection",
        upsampling: str | None = None,
        norm: str | None = "instance",
        norm_eps: float = 1e-5,
        relu: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.mode = "reflect" if padding == "reflection" else "constant"
        self.pixels = 0 if padding == "none" else kernel // 2
        if upsampling == "transposed":
            self.pixels = 0
            self.conv: nn.Conv2d | nn.ConvTranspose2d = nn.ConvTranspose2d(
                inputs, outputs, kernel, stride=2, padding=kernel // 2, output_padding=1, bias=bias
            )
        else:
            self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, bias=bias)
        self.norm = None if norm is None else make_norm(norm, outputs, norm_eps)
        self.relu = relu

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone, with its padding."""
        if self.upsampling == "nearest":
            return upsample_convolve(x, self.conv.weight, self.conv.bias, self.mode)
        return self.conv(pad(x, self.pixels, self.mode) if self.pixels else x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolve(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x, inplace=True) if self.relu else x  # neither a norm nor a convolution needs its output again


class ResidualBlock(nn.Module):
    """x + conv(conv(x)), no ReLU after the sum (Gross and Wilber 2016, as in Johnson 2016's supplement).

    With padding "none" each convolution loses a pixel on each side, and x is cropped to match.
    """

    def __init__(
        self,
        channels: int,
        *,
        padding: str = "reflection",
        norm: str = "instance",
        norm_eps: float = 1e-5,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.crop = 2 if padding == "none" else 0
        self.first = ConvBlock(channels, channels, 3, padding=padding, norm=norm, norm_eps=norm_eps, bias=bias)
        self.second = ConvBlock(
            channels, channels, 3, padding=padding, norm=norm, norm_eps=norm_eps, bias=bias, relu=False
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        if self.crop:
            x = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
        return x + y


# What a recipe's network takes and gives, as functions of our (B, 3, H, W) in [0, 1].
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def encode(x: Tensor, pixels: str) -> Tensor:
    """Our pixels -> the network's: "centred" (ours), "rgb255" (pytorch/examples), "unit" (lengstrom), "caffe" (Lua)."""
    if pixels == "centred":
        return (x * 4).sub_(2)  # about unit variance on photographs
    if pixels == "rgb255":
        return x * 255
    if pixels == "unit":
        return x
    if pixels == "caffe":
        return x.flip(1) * 255 - x.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]
    raise Invalid(f"pixels: got {pixels!r}; allowed: 'centred', 'rgb255', 'unit', 'caffe'")


def decode(y: Tensor, pixels: str) -> Tensor:
    """The network's raw output, (B, 3, H, W) -> our pixels; float32. May leave [0, 1] a little: clip when writing."""
    y = y.float()
    if pixels == "centred":
        return (0.6 * torch.tanh(y)).add_(0.5)  # reaches past both ends, so that black and white need no saturation
    if pixels == "rgb255":
        return y / 255
    if pixels == "unit":
        return (150 * torch.tanh(y) + 127.5) / 255
    return ((150 * torch.tanh(y) + y.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]) / 255).flip(1)
