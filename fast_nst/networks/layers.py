"""Layers of the image transformation networks. Legend: B batch, C channels, H height, W width."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError
from fast_nst.ops.channels_last import instance_norm, pad, rectify, upsample_convolve

LARGEST = 4096  # upper limit of a network's integer arguments
SMALLEST = 16  # minimum side in pixels, so that reflection padding works after two halvings


class InstanceNorm(nn.GroupNorm):
    """Instance normalization with a learned scale and shift (Ulyanov, Vedaldi, Lempitsky 2016, arXiv 1607.08022).

    It is a group norm with one channel per group: the same result as `nn.InstanceNorm2d`, and faster on a CPU.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, channels, eps=eps)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """Normalize each channel of each image. relu: also apply a ReLU; the Triton kernels do it at no extra cost."""
        return instance_norm(x, self.weight, self.bias, self.eps, relu)


def mix(table: Tensor, style: Tensor) -> Tensor:
    """Mix the rows of a table of parameters: (S + 1, …) with weights (B, S) -> (B, …).

    Row 0 belongs to the content itself and gets the remaining weight, 1 - sum. So weights that sum to 0 give the
    content, weights that sum to 1 give the styles, and a larger sum exaggerates the styles.
    """
    weights = torch.cat([1 - style.sum(1, keepdim=True), style], 1)
    # Not a matrix product, which autocast would compute in bfloat16.
    return (weights.view(*weights.shape, *[1] * (table.dim() - 1)) * table).sum(1)


class ConditionalInstanceNorm(nn.Module):
    """Instance normalization with a scale and a shift for each style (Dumoulin et al. 2017, arXiv 1610.07629).

    weight, bias: (S + 1, C), mixed by `mix`.
    """

    def __init__(self, num_styles: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_styles + 1, channels))
        self.bias = nn.Parameter(torch.zeros(num_styles + 1, channels))

    def forward(self, x: Tensor, style: Tensor, relu: bool = False) -> Tensor:
        """Normalize x, (B, C, H, W), with parameters mixed by `style`, (B or 1, S). relu: also apply a ReLU."""
        return instance_norm(x, mix(self.weight, style), mix(self.bias, style), self.eps, relu)


def make_norm(kind: str, channels: int, eps: float, num_styles: int = 0) -> nn.Module:
    """Build a norm. kind: "instance", which is conditional if `num_styles` is positive, or "batch" (Johnson)."""
    if kind == "instance":
        return ConditionalInstanceNorm(num_styles, channels, eps) if num_styles else InstanceNorm(channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps)
    raise UserError(f"norm: got {kind!r}; allowed: 'instance', 'batch'")


class ConvBlock(nn.Module):
    """Padding, convolution, norm, ReLU. `upsampling` doubles the size, `stride=2` halves it.

    padding: "reflection", "zero", "none", or "tensorflow": zeros as TensorFlow's "SAME" adds them; with a stride of 2,
    that is one zero at the end of an even side and at both ends of an odd side. upsampling: None, "nearest" (followed
    by a 3x3 convolution, which avoids checkerboards: Odena, Dumoulin, Olah 2016) or "transposed". norm: "instance",
    "batch" or None. groups: number of channel groups, each with its own kernels; only without upsampling.
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
        num_styles: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.mode = "reflect" if padding == "reflection" else "constant"
        self.pixels = 0 if padding == "none" else kernel // 2
        self.same = padding == "tensorflow" and (stride == 2 or upsampling == "transposed")
        if upsampling == "transposed":
            self.pixels = 0
            crop: dict[str, Any] = {"padding": 0} if self.same else {"padding": kernel // 2, "output_padding": 1}
            self.conv: nn.Conv2d | nn.ConvTranspose2d = nn.ConvTranspose2d(
                inputs, outputs, kernel, stride=2, bias=bias, **crop
            )
        else:
            self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, bias=bias, groups=groups)
        self.norm = None if norm is None else make_norm(norm, outputs, norm_eps, num_styles)
        self.relu = relu

    def convolve(self, x: Tensor, height: int | None = None) -> Tensor:
        """Upsample, pad and convolve, without norm and ReLU. height: that of the whole input, if `x` is a strip."""
        if self.same and self.upsampling is not None:
            return self.conv(x)[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]
        if self.same:
            return self.conv(F.pad(x, (x.shape[3] % 2, 1, (height or x.shape[2]) % 2, 1)))
        if self.upsampling == "nearest":
            return upsample_convolve(x, self.conv.weight, self.conv.bias, self.mode)
        return self.conv(pad(x, self.pixels, self.mode) if self.pixels else x)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Apply the block. style: weights (B or 1, S), for a conditional norm."""
        x = self.convolve(x)
        if isinstance(self.norm, ConditionalInstanceNorm):
            assert style is not None
            return self.norm.forward(x, style, self.relu)
        if isinstance(self.norm, InstanceNorm):
            return self.norm.forward(x, self.relu)
        if self.norm is not None:
            x = self.norm(x)
        return rectify(x) if self.relu else x


class ResidualBlock(nn.Module):
    """x + conv(conv(x)) without a ReLU after the sum (Gross and Wilber 2016, as in Johnson 2016's supplement).

    With padding "none" each convolution removes a pixel on each side, and x is cropped to match.
    """

    def __init__(
        self,
        channels: int,
        *,
        padding: str = "reflection",
        norm: str = "instance",
        norm_eps: float = 1e-5,
        bias: bool = True,
        num_styles: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.crop = 2 if padding == "none" else 0
        shared: Any = {
            "padding": padding, "norm": norm, "norm_eps": norm_eps, "bias": bias, "num_styles": num_styles,
            "groups": groups,
        }  # fmt: skip
        self.first = ConvBlock(channels, channels, 3, **shared)
        self.second = ConvBlock(channels, channels, 3, relu=False, **shared)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        y = self.second(self.first(x, style), style)
        if self.crop:
            x = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
        return x + y


# Pixel formats, ours and those of published networks; `encode` and `decode` convert RGB, (B, 3, H, W) in [0, 1].
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@functools.cache
@torch.inference_mode(False)  # a tensor cached during validation must work in training too
def _caffe_mean(device: torch.device) -> Tensor:
    return torch.tensor(_CAFFE_MEAN_BGR, device=device)[:, None, None]


def encode(x: Tensor, pixels: str) -> Tensor:
    """Convert RGB to the format `pixels`.

    pixels: "centred" (ours), "rgb255" (pytorch/examples), "unit" (lengstrom) or "caffe" (Lua).
    """
    if pixels == "centred":
        return (x * 4).sub_(2)  # about unit variance for photographs
    if pixels == "rgb255":
        return x * 255
    if pixels == "unit":
        return x
    if pixels == "caffe":
        return x.flip(1) * 255 - _caffe_mean(x.device)
    raise UserError(f"pixels: got {pixels!r}; allowed: 'centred', 'rgb255', 'unit', 'caffe'")


def decode(y: Tensor, pixels: str) -> Tensor:
    """Convert a raw output, (B, 3, H, W), from the format `pixels` to RGB, float32. It may exceed [0, 1] slightly."""
    y = y.float()
    if pixels == "centred":
        return (0.6 * torch.tanh(y)).add_(0.5)  # exceeds [0, 1], so black and white need no saturated tanh
    if pixels == "rgb255":
        return y / 255
    if pixels == "unit":
        return (150 * torch.tanh(y) + 127.5) / 255
    return ((150 * torch.tanh(y) + _caffe_mean(y.device)) / 255).flip(1)


def run_layers(layers: Callable[[Tensor], Tensor], content: Tensor, margin: int, pixels: str) -> Tensor:
    """Apply `layers`, which halve the size twice and double it twice, to content, (B, 3, H, W) in [0, 1].

    margin: pixels reflected around the content and cropped from the output, a multiple of 4. pixels: see `encode`.
    """
    height, width = content.shape[2:]
    pad_h, pad_w = (max(0, max(SMALLEST, margin + 1) - side) for side in (height, width))
    if pad_h or pad_w:
        content = F.pad(content, (0, pad_w, 0, pad_h), mode="replicate")
    y = layers(encode(pad(content, margin, "reflect"), pixels))  # each side is a multiple of 4 and at least the input's
    return decode(y[:, :, margin : margin + height, margin : margin + width], pixels)
