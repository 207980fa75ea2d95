"""A network over strips of rows: a picture of any size in bounded memory, with the numbers of the whole picture.

An instance norm needs the mean and variance of the whole image, and what it gives is what the next one measures. So
they are gathered layer by layer, each in a pass over strips; the last layer's rows then come out one strip after
another. A layer works its input's rows out anew when it is asked for some, but for those at a quarter of the size,
where most of the work is: they lie in temporary files, so that memory does not grow with the height.

Legend: C channels, H height, W width; rows a to b - 1 are (1, C, b - a, W).
"""

import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.errors import UserError
from fast_nst.networks import Network
from fast_nst.networks.layers import ConvBlock, InstanceNorm, ResidualBlock, decode, encode
from fast_nst.networks.slim import Noise

SMALLEST = 64  # pixels a side; below that a strip has too few rows to reflect
_STRIP = 8  # rows at a quarter of the size, at least


class Rows(Protocol):
    """Something with `height` rows that gives those from a to b - 1."""

    height: int

    def __call__(self, a: int, b: int) -> Tensor: ...


class Work:
    """What all passes share: the rows of a strip at full size, and whom to tell the share of the passes done."""

    def __init__(self, full: int, strip: int, passes: int, tell: Callable[[float], None] | None) -> None:
        self.full, self.strip, self.passes, self.tell = full, strip, passes, tell
        self.done = 0

    def strips(self, height: int) -> Iterator[tuple[int, int]]:
        """(a, b) of each strip of a layer of `height` rows: one pass."""
        step = max(_STRIP, self.strip * height // self.full)
        for a in range(0, height, step):
            yield a, min(a + step, height)
            if self.tell is not None:
                self.tell(min(1.0, (self.done + (a + step) / height) / self.passes))
        self.done += 1


class Kept:
    """Rows in a temporary file, appended once and read as often as wanted."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="fast_nst-")  # noqa: SIM115
        weakref.finalize(self, self.file.close)  # and with it goes the space on the disk
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
                f"{tempfile.gettempdir()}: no room for a large picture's strips ({error.strerror}); give more memory, "
                f"or a larger disk in TMPDIR"
            ) from None

    def __call__(self, a: int, b: int) -> Tensor:
        size = self.shape.numel() * self.dtype.itemsize
        data = bytearray((b - a) * size)
        self.file.seek(a * size)
        self.file.readinto(data)
        return torch.frombuffer(data, dtype=self.dtype).view(b - a, *self.shape).permute(1, 0, 2)[None].to(self.device)


class Framed:
    """The photograph, (1, 3, H, W) in [0, 1], as the network sees it: `border` pixels reflected on every side."""

    def __init__(self, photograph: Rows, network: Network) -> None:
        self.photograph, self.border, self.pixels = photograph, network.border, network.pixels
        self.height = photograph.height + 2 * self.border

    def __call__(self, a: int, b: int) -> Tensor:
        wanted = torch.arange(a - self.border, b - self.border).abs()
        last = self.photograph.height - 1
        wanted = last - (last - wanted).abs()
        first = int(wanted.min())
        rows = self.photograph(first, int(wanted.max()) + 1)[:, :, wanted - first]
        return encode(F.pad(rows, (self.border, self.border, 0, 0), mode="reflect"), self.pixels)


class Layer:
    """A block of the network over the rows of `source`; `settle` first."""

    def __init__(self, block: ConvBlock, source: Rows) -> None:
        self.block, self.source = block, source
        self.kernel, self.stride = int(block.conv.kernel_size[0]), int(block.conv.stride[0])
        if block.upsampling is not None:
            self.height = 2 * source.height
        else:
            self.height = (source.height + 2 * block.pixels - self.kernel) // self.stride + 1
        self.kept: Kept | None = None
        self.norm: Callable[[Tensor], Tensor] | None = block.norm

    def convolve(self, a: int, b: int) -> Tensor:
        if self.kept is not None:
            return self.kept(a, b)
        # Rows to spare on both sides: what the block's own padding touches there is thrown away, except at the borders.
        spare = self.kernel // 2 + 1
        if self.block.upsampling is not None:
            start = max(0, a // 2 - spare)
            rows = self.source(start, min(self.source.height, (b + 1) // 2 + spare))
            start *= 2
        else:
            start = max(0, a - spare)
            stop = min(self.source.height, (b + spare) * self.stride + self.kernel)
            rows = self.source(start * self.stride, stop)
        return self.block.convolve(rows)[:, :, a - start : b - start]

    def settle(self, work: Work, keep: bool = False) -> "Layer":
        """Gather what the norm needs of the whole output; `keep`: its convolution's rows as well. One pass."""
        norm, kept = self.block.norm, Kept() if keep else None
        if kept is None and not isinstance(norm, InstanceNorm):
            return self
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for a, b in work.strips(self.height):
            rows = self.convolve(a, b)
            if kept is not None:
                kept.append(rows)
            variance, own = (v.cpu() for v in torch.var_mean(rows.float(), (0, 2, 3), correction=0))
            more = rows[0, 0].numel()
            offset = own.double() - mean
            # Chan, Golub, LeVeque 1979: the moments of two parts together.
            squares = squares + variance.double() * more + offset.square() * count * more / (count + more)
            mean = mean + offset * more / (count + more)
            count += more
        self.kept = kept
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


class Sprinkled:
    """The rows of `source` with `noise`."""

    def __init__(self, noise: Noise, source: Rows) -> None:
        self.noise, self.source, self.height = noise, source, source.height

    def __call__(self, a: int, b: int) -> Tensor:
        return cast(Tensor, self.noise(self.source(a, b), a))


def residual(block: ResidualBlock, source: Rows, work: Work) -> Kept:
    """The rows of a residual block, kept. Three passes."""
    first = Layer(block.first, source).settle(work)
    second = Layer(block.second, first).settle(work, keep=True)
    crop, total = block.crop, Kept()
    for a, b in work.strips(second.height):
        rows = source(a + crop, b + crop)
        total.append(rows[:, :, :, crop : rows.shape[3] - crop] + second(a, b))
    return total


def prepare(
    network: Network, photograph: Rows, strip: int, passes: int = 1, tell: Callable[[float], None] | None = None
) -> tuple[Rows, Work]:
    """`photograph` repainted by `network`, as rows about [0, 1]; all but the last layer is done here, in strips.

    photograph: (1, 3, H, W) in [0, 1], both sides SMALLEST on, its rows on the network's device. passes: those over the
    result that follow. tell: called with the share of the work done.
    """
    down, up = cast(Sequence[ConvBlock], network.down), cast(Sequence[ConvBlock], network.up)
    blocks = cast(Sequence[ResidualBlock], network.blocks)
    normed = [isinstance(layer.norm, InstanceNorm) for layer in (*down[:-1], *(b.first for b in blocks), *up)]
    work = Work(photograph.height, strip, sum(normed) + 1 + 2 * len(blocks) + passes, tell)
    rows: Rows = Framed(photograph, network)
    for index, block in enumerate(down, 1):
        rows = Layer(block, rows).settle(work, keep=index == len(down))
    if isinstance(noise := getattr(network, "scatter", None), Noise):
        rows = Sprinkled(noise, rows)
    for both in blocks:
        rows = residual(both, rows, work)
    for index, layer in enumerate(up):
        if index == 1 and isinstance(noise := getattr(network, "fine", None), Noise):
            rows = Sprinkled(noise, rows)
        rows = Layer(layer, rows).settle(work)
    return Repainted(network, rows, photograph), work


class Repainted:
    """The network's last layer, as pixels of the photograph."""

    def __init__(self, network: Network, source: Rows, photograph: Rows) -> None:
        self.source, self.cut, self.pixels = source, network.cut, network.pixels
        self.height, self.photograph = photograph.height, photograph

    def __call__(self, a: int, b: int) -> Tensor:
        rows = self.source(a + self.cut, b + self.cut)
        width = self.photograph(a, a + 1).shape[3]
        return decode(rows[:, :, :, self.cut : self.cut + width], self.pixels)
