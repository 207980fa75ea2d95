"""The parts of an image transformation network. Legend: B batch, C channels, H height, W width."""

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


def nearest_x2(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), each pixel four times. An expand: its gradient is a sum, which is fast."""
    b, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)


class ConvBlock(nn.Module):
    """Padding, convolution, normalisation, ReLU; with `upsampling` the size doubles, with `stride=2` it halves.

    padding: "reflection", "zero" or "none". upsampling: None, "nearest" (then an ordinary convolution, free of
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
        self.reflection = kernel // 2 if padding == "reflection" and upsampling != "transposed" else 0
        zeros = kernel // 2 if padding == "zero" else 0
        if upsampling == "transposed":
            self.conv: nn.Module = nn.ConvTranspose2d(
                inputs, outputs, kernel, stride=2, padding=kernel // 2, output_padding=1, bias=bias
            )
        else:
            self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=zeros, bias=bias)
        self.norm = None if norm is None else make_norm(norm, outputs, norm_eps)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if self.upsampling == "nearest":
            x = nearest_x2(x)
        if self.reflection:
            x = F.pad(x, (self.reflection,) * 4, mode="reflect")
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x) if self.relu else x


class ResidualBlock(nn.Module):
    """x + conv(conv(x)), no ReLU after the sum (Gross and Wilber 2016, as in Johnson 2016's supplement).

    With padding "none" each convolution loses a pixel on each side, and x is cropped to match.
    """

    def __init__(self, channels: int, *, padding: str, norm: str, norm_eps: float, bias: bool) -> None:
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
        return (x - 0.5) * 4  # about unit variance on photographs
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
        return 0.5 + 0.6 * torch.tanh(y)  # reaches past both ends, so that black and white need no saturation
    if pixels == "rgb255":
        return y / 255
    if pixels == "unit":
        return (150 * torch.tanh(y) + 127.5) / 255
    return ((150 * torch.tanh(y) + y.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]) / 255).flip(1)
