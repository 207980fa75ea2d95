"""Run a network strip by strip: an image of any size in bounded memory, with the same result as on the whole image.

An instance norm needs the mean and variance of the whole image, and they depend on the norms before it. So they are
collected layer by layer, each in a pass over strips; the last layer then gives its rows strip by strip. A layer
recomputes the rows of its input each time they are needed. Only rows at the smallest size, where most of the work is,
are kept. They are in temporary files, so that memory does not grow with the height.

Legend: C channels, H height, W width; rows a to b - 1 are (1, C, b - a, W).
"""

import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.errors import UserError
from fast_nst.networks.layers import ConvBlock, InstanceNorm, ResidualBlock, decode, encode
from fast_nst.networks.slim import Noise

SMALLEST = 64  # pixels a side; a smaller image has too few rows to reflect
_MIN_STRIP = 8  # least rows of a strip, at any size


class RowSource(Protocol):
    """An image of `height` rows; called with a and b, it returns rows a to b - 1."""

    height: int

    def __call__(self, a: int, b: int) -> Tensor: ...


class TiledNetwork(Protocol):
    """A network that can run in strips: a sequence of layers (`stages`), with an output of the input's size.

    border: pixels reflected around the input. cut: pixels cropped from the output. pixels: `layers.encode`'s argument.
    """

    border: int
    cut: int
    pixels: str

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Return the layers in order: ("conv", ConvBlock), ("residual", ResidualBlock) or ("noise", Noise)."""
        ...


class Passes:
    """Splits each pass into strips and reports the share of all passes done.

    full: rows of the image. strip: rows per strip at full size.
    """

    def __init__(self, full: int, strip: int, passes: int, on_progress: Callable[[float], None] | None) -> None:
        self.full, self.strip, self.passes, self.on_progress = full, strip, passes, on_progress
        self.done = 0

    def strips(self, height: int) -> Iterator[tuple[int, int]]:
        """Make one pass over a layer of `height` rows: yield (a, b) for each strip."""
        step = max(_MIN_STRIP, self.strip * height // self.full)
        for a in range(0, height, step):
            yield a, min(a + step, height)
            if self.on_progress is not None:
                self.on_progress(min(1.0, (self.done + (a + step) / height) / self.passes))
        self.done += 1


class DiskBuffer:
    """Rows in a temporary file, appended once and read any number of times."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="fast_nst-")  # noqa: SIM115
        weakref.finalize(self, self.file.close)  # closing frees the disk space
        self.height = 0

    def append(self, rows: Tensor) -> None:
        rows = rows[0].permute(1, 0, 2).contiguous()  # (rows, C, W)
        self.shape, self.dtype, self.device = rows.shape[1:], rows.dtype, rows.device
        self.height += len(rows)
        try:
            self.file.write(rows.cpu().flatten().view(torch.uint8).numpy().data)
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no space for the strips of a large picture ({error.strerror}); "
                "give more memory, or set TMPDIR to a larger disk"
            ) from None

    def __call__(self, a: int, b: int) -> Tensor:
        size = self.shape.numel() * self.dtype.itemsize
        data = bytearray((b - a) * size)
        self.file.seek(a * size)
        self.file.readinto(data)
        return torch.frombuffer(data, dtype=self.dtype).view(b - a, *self.shape).permute(1, 0, 2)[None].to(self.device)


class PaddedInput:
    """The network's input: content, (1, 3, H, W) in [0, 1], padded by reflection (`border` pixels) and encoded."""

    def __init__(self, content: RowSource, network: TiledNetwork) -> None:
        self.content, self.border, self.pixels = content, network.border, network.pixels
        self.height = content.height + 2 * self.border

    def __call__(self, a: int, b: int) -> Tensor:
        last = self.content.height - 1
        indices = torch.arange(a - self.border, b - self.border).abs()
        indices = last - (last - indices).abs()
        first = int(indices.min())
        rows = self.content(first, int(indices.max()) + 1)[:, :, indices - first]
        return encode(F.pad(rows, (self.border, self.border, 0, 0), mode="reflect"), self.pixels)


class Layer:
    """A ConvBlock over the rows of `source`; call `collect_stats` first."""

    def __init__(self, block: ConvBlock, source: RowSource) -> None:
        self.block, self.source = block, source
        self.kernel, self.stride = int(block.conv.kernel_size[0]), int(block.conv.stride[0])
        if block.upsampling is not None:
            self.height = 2 * source.height
        else:
            self.height = (source.height + 2 * block.pixels - self.kernel) // self.stride + 1
        self.buffer: DiskBuffer | None = None
        self.norm: Callable[[Tensor], Tensor] | None = block.norm

    def convolve(self, a: int, b: int) -> Tensor:
        if self.buffer is not None:
            return self.buffer(a, b)
        # Take extra rows on both sides: the block pads them too, and padded rows are discarded except at the borders.
        extra = self.kernel // 2 + 1
        if self.block.upsampling is not None:
            start = max(0, a // 2 - extra)
            rows = self.source(start, min(self.source.height, (b + 1) // 2 + extra))
            start *= 2
        else:
            start = max(0, a - extra)
            stop = min(self.source.height, (b + extra) * self.stride + self.kernel)
            rows = self.source(start * self.stride, stop)
        return self.block.convolve(rows, self.source.height)[:, :, a - start : b - start]

    def collect_stats(self, passes: Passes, keep: bool = False) -> "Layer":
        """Collect the norm's mean and variance in one pass over all rows. keep: put the convolution's rows on disk."""
        norm, buffer = self.block.norm, DiskBuffer() if keep else None
        if buffer is None and not isinstance(norm, InstanceNorm):
            return self
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for a, b in passes.strips(self.height):
            rows = self.convolve(a, b)
            if buffer is not None:
                buffer.append(rows)
            variance, strip_mean = (v.cpu() for v in torch.var_mean(rows.float(), (0, 2, 3), correction=0))
            added = rows[0, 0].numel()
            offset = strip_mean.double() - mean
            # Combine the moments of two parts (Chan, Golub, LeVeque 1979).
            squares = squares + variance.double() * added + offset.square() * count * added / (count + added)
            mean = mean + offset * added / (count + added)
            count += added
        self.buffer = buffer
        if isinstance(norm, InstanceNorm):
            scale = norm.weight.cpu() * (squares / count + norm.eps).rsqrt()
            shift = norm.bias.cpu() - scale * mean
            scale, shift = (v.to(norm.weight)[:, None, None] for v in (scale, shift))
            self.norm = lambda rows: (rows.float() * scale + shift).to(rows.dtype)
        return self

    def __call__(self, a: int, b: int) -> Tensor:
        rows = self.convolve(a, b)
        if self.norm is not None:
            rows = self.norm(rows)
        return F.relu(rows) if self.block.relu else rows


class AddNoise:
    """The rows of `source` with `noise` added."""

    def __init__(self, noise: Noise, source: RowSource) -> None:
        self.noise, self.source, self.height = noise, source, source.height

    def __call__(self, a: int, b: int) -> Tensor:
        return cast(Tensor, self.noise(self.source(a, b), top=a))


class Output:
    """The network's output, cropped to the content and decoded to about [0, 1]."""

    def __init__(self, network: TiledNetwork, source: RowSource, content: RowSource) -> None:
        self.source, self.cut, self.pixels = source, network.cut, network.pixels
        self.height, self.content = content.height, content

    def __call__(self, a: int, b: int) -> Tensor:
        rows = self.source(a + self.cut, b + self.cut)
        width = self.content(a, a + 1).shape[3]
        return decode(rows[:, :, :, self.cut : self.cut + width], self.pixels)


def residual(block: ResidualBlock, source: RowSource, passes: Passes) -> DiskBuffer:
    """Compute a residual block in two or three passes. Return its rows, which are on disk."""
    first = Layer(block.first, source).collect_stats(passes)
    second = Layer(block.second, first).collect_stats(passes, keep=True)
    crop, total = block.crop, DiskBuffer()
    for a, b in passes.strips(second.height):
        rows = source(a + crop, b + crop)
        total.append(rows[:, :, :, crop : rows.shape[3] - crop] + second(a, b))
    return total


def _smallest(stages: list[tuple[str, nn.Module]]) -> int:
    """Return the index of the first convolution at the smallest size, whose rows are stored on disk."""
    size, smallest, index = 1.0, float("inf"), -1
    for i, (_, layer) in enumerate(stages):
        if isinstance(layer, ConvBlock):
            size *= 2 if layer.upsampling is not None else 1 / int(layer.conv.stride[0])
            if size < smallest:
                smallest, index = size, i
    return index


def _count_passes(stages: list[tuple[str, nn.Module]], kept: int) -> int:
    """Return how many passes the layers take before the first row of output."""
    total = 0
    for i, (_, layer) in enumerate(stages):
        if isinstance(layer, ConvBlock):
            total += i == kept or isinstance(layer.norm, InstanceNorm)
        elif isinstance(layer, ResidualBlock):
            total += 2 + isinstance(layer.first.norm, InstanceNorm)
    return total


def build_row_pipeline(
    network: TiledNetwork,
    content: RowSource,
    strip: int,
    passes: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[RowSource, Passes]:
    """Return the network's output on `content` as a source of rows in about [0, 1], and the `Passes` for reading it.

    The statistics of all norms are collected here; the output's rows are computed when they are read.
    content: (1, 3, H, W) in [0, 1], both sides at least SMALLEST, on the network's device. strip: rows at a time.
    passes: how many passes over the output follow. on_progress: called with the share of the work done.
    """
    stages = network.stages()
    kept = _smallest(stages)
    all_passes = Passes(content.height, strip, _count_passes(stages, kept) + passes, on_progress)
    rows: RowSource = PaddedInput(content, network)
    for i, stage in enumerate(stages):
        match stage:
            case "conv", ConvBlock() as block:
                rows = Layer(block, rows).collect_stats(all_passes, keep=i == kept)
            case "residual", ResidualBlock() as block:
                rows = residual(block, rows, all_passes)
            case "noise", Noise() as noise:
                rows = AddNoise(noise, rows)
            case kind, layer:
                raise TypeError(f"stages: got {kind!r}, {type(layer).__name__}; allowed: conv, residual, noise")
    return Output(network, rows, content), all_passes
