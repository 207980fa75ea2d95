"""The parts of an image transformation network. Legend: B batch, C channels, H height, W width."""

import functools

import torch
from torch import Tensor, nn

from fast_nst.errors import UserError
from fast_nst.ops.channels_last import instance_norm, pad, rectify, upsample_convolve

LARGEST = 4096  # of a whole number that describes a network


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with a learned scale and shift (Ulyanov, Vedaldi, Lempitsky 2016, arXiv 1607.08022).

    As a group norm of one channel a group: the same numbers, and on a CPU the kernel of `nn.InstanceNorm2d` is slower.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, channels, eps=eps)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """relu: a ReLU after it, which on a GPU costs nothing there."""
        return instance_norm(x, self.weight, self.bias, self.eps, relu)


def make_norm(kind: str, channels: int, eps: float) -> nn.Module:
    """`kind`: "instance" or "batch" (Johnson 2016's own choice)."""
    if kind == "instance":
        return InstanceNorm(channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps)
    raise UserError(f"norm: got {kind!r}; allowed: 'instance', 'batch'")


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
        if isinstance(self.norm, InstanceNorm):
            found: Tensor = self.norm(x, self.relu)
            return found
        if self.norm is not None:
            x = self.norm(x)
        return rectify(x) if self.relu else x


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


@functools.cache
@torch.inference_mode(False)  # a training may come after a validation
def _caffe_mean(device: torch.device) -> Tensor:
    return torch.tensor(_CAFFE_MEAN_BGR, device=device)[:, None, None]


def encode(x: Tensor, pixels: str) -> Tensor:
    """Our pixels -> the network's: "centred" (ours), "rgb255" (pytorch/examples), "unit" (lengstrom), "caffe" (Lua)."""
    if pixels == "centred":
        return (x * 4).sub_(2)  # about unit variance on photographs
    if pixels == "rgb255":
        return x * 255
    if pixels == "unit":
        return x
    if pixels == "caffe":
        return x.flip(1) * 255 - _caffe_mean(x.device)
    raise UserError(f"pixels: got {pixels!r}; allowed: 'centred', 'rgb255', 'unit', 'caffe'")


def decode(y: Tensor, pixels: str) -> Tensor:
    """The network's raw output, (B, 3, H, W) -> our pixels; float32. May leave [0, 1] a little: clip when writing."""
    y = y.float()
    if pixels == "centred":
        return (0.6 * torch.tanh(y)).add_(0.5)  # reaches past both ends, so that black and white need no saturation
    if pixels == "rgb255":
        return y / 255
    if pixels == "unit":
        return (150 * torch.tanh(y) + 127.5) / 255
    return ((150 * torch.tanh(y) + _caffe_mean(y.device)) / 255).flip(1)
