"""Follow the camera of a clip: find how the pixels of each frame map to the pixels of the scene.

A matrix, (2, 3), is a similarity: a pan, zoom and rotation. It maps (x, y, 1), in pixels from the upper left corner.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fast_nst.image import luma

IDENTITY = torch.eye(2, 3, dtype=torch.float64)
_SIDE = 512  # pixels; motion is measured on frames reduced to at most this longer side
_CLEAR = 0.15  # least peak of the correlation (at most 1); a pan gives 0.9, a zoom by 1 % 0.6, by 2 % 0.3, a cut 0.03
_CHANCE = 10  # the peak must also reach this over the square root of the pixels, or noise in tiny frames would count
_FAR = 1 / 8  # of the longer side; a frame that moved further becomes the next reference
_SOFT = 0.8  # pixels, standard deviation of the peak; with less, noise in the finest detail would decide
_LEAST = 32  # least pixels a side of a block that is compared by itself
_NEAR = 0.3  # pixels; a block this far off the common motion counts a quarter
_OUTLIER = 0.5  # pixels; a block closer than this to the common motion agrees with it
_TREMBLE = 0.15  # pixels; a smaller change counts as a measurement error, and the matrix stays as it is
_TILT = 0.2  # zoom or rotation (0.2 is 11 degrees) above which strokes would look zoomed or turned


class Camera:
    """Follows the camera through a clip.

    Each frame is aligned with a reference frame, because subpixel errors would add up from frame to frame. If the two
    differ too much, the previous frame becomes the reference. Objects that move on their own are outvoted by the rest
    of the frame.
    """

    def __init__(self) -> None:
        self.reference: Tensor | None = None
        self.previous: Tensor | None = None
        self.base = IDENTITY  # from the reference to the scene
        self.matrix = IDENTITY  # from the last frame to the scene
        self.step = IDENTITY  # from the last frame to the one before

    @torch.inference_mode()
    def follow(self, frame: Tensor) -> Tensor:
        """Return the matrix from `frame`, (1, 3, H, W), to the scene, whose pixels are those of the first frame.

        At a cut, and after much zoom or rotation, the matrix becomes a shift by whole pixels.
        """
        height, width = frame.shape[2:]
        scale = math.ceil(max(height, width) / _SIDE)
        gray = F.avg_pool2d(luma(frame), scale, ceil_mode=True).cpu().float()
        if self.previous is None or self.reference is None or self.previous.shape != gray.shape:
            self.reference = self.previous = gray
            self.base = self.matrix
            return self.matrix
        before = self.matrix
        expected = compose(inverse(self.base), compose(before, self.step))  # if the camera keeps moving in the same way
        found = _align(self.reference, gray, _rescale(expected, 1 / scale))
        if found is None and self.previous is not self.reference:
            self.reference, self.base = self.previous, before
            found = _align(self.reference, gray, IDENTITY)
        corners = torch.tensor([[0, width, 0, width], [0, 0, height, height]], dtype=torch.float64)
        moved = corners
        if found is not None:
            relative = _rescale(found, scale)
            moved = apply(relative, corners)
            matrix = compose(self.base, relative)
            if float((apply(matrix, corners) - apply(self.matrix, corners)).abs().max()) > _TREMBLE:
                self.matrix = matrix
            self.step = compose(inverse(before), self.matrix)
            if float((self.matrix[:, :2] - IDENTITY[:, :2]).abs().max()) > _TILT:
                found = None
        if found is None:  # no zoom, no rotation, whole pixels: nothing is interpolated
            self.matrix = torch.cat([IDENTITY[:, :2], self.matrix[:, 2:].round()], 1)
        if found is None or float((moved - corners).abs().max()) > _FAR * max(height, width):
            self.reference, self.base = gray, self.matrix
        self.previous = gray
        return self.matrix


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the matrix that applies `inner`, then `outer`."""
    return torch.cat([outer[:, :2] @ inner[:, :2], apply(outer, inner[:, 2:])], 1)


def inverse(matrix: Tensor) -> Tensor:
    back = torch.linalg.inv(matrix[:, :2])
    return torch.cat([back, -back @ matrix[:, 2:]], 1)


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Map `points`, (2, N)."""
    return matrix[:, :2] @ points + matrix[:, 2:]


def _rescale(matrix: Tensor, factor: float) -> Tensor:
    """Return the same map for pixels `factor` times as small."""
    return torch.cat([matrix[:, :2], matrix[:, 2:] * factor], 1)


def warp(image: Tensor, matrix: Tensor, height: int, width: int) -> Tensor:
    """Draw an image, (1, C, height, width), whose pixels `matrix` maps to those of `image`, (1, C, H, W).

    Beyond its border, `image` is reflected. The interpolation is bicubic. For Apple's mps, where torch does not have
    it, it runs on the CPU.
    """
    source = image.cpu() if image.device.type == "mps" else image
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (height, width))
    axes = []
    for (across, down, offset), side in zip(matrix, (image.shape[3], image.shape[2]), strict=True):
        points = (across * x + offset).to(source)[None], (down * y).to(source)[:, None]
        axes.append((points[0] + points[1]) * (2 / side) - 1)
    grid = torch.stack(axes, -1)[None]
    drawn = F.grid_sample(source, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return drawn.to(image.device)


def _align(reference: Tensor, frame: Tensor, matrix: Tensor) -> Tensor | None:
    """Refine `matrix`, from `frame` to `reference`, both (1, 1, H, W). Return None if they show different scenes."""
    height, width = frame.shape[2:]
    drawn = warp(frame, inverse(matrix), height, width)
    shift, peak = shifts(reference[0], drawn[0])
    if float(peak) < _least_peak(height, width):
        return None
    matrix = torch.cat([matrix[:, :2], matrix[:, 2:] - shift], 1)
    rows, columns = height // 2, width // 2
    corners = [(y, x) for y in (0, rows // 2, height - rows) for x in (0, columns // 2, width - columns)]
    centers = torch.tensor([[x + columns / 2, y + rows / 2] for y, x in corners], dtype=torch.float64).T
    for _ in range(2 if min(rows, columns) >= _LEAST else 0):  # the blocks agree better the second time
        drawn = warp(frame, inverse(matrix), height, width)
        pairs = torch.cat([torch.cat([reference, drawn])[:, :, y : y + rows, x : x + columns] for y, x in corners], 1)
        shift, peak = shifts(*pairs)
        fit = _agreement(centers + shift, centers, peak >= _least_peak(rows, columns))
        if fit is None:
            break
        matrix = compose(fit, matrix)
    return matrix


def _least_peak(height: int, width: int) -> float:
    """Return the height from which a peak shows a motion, in images of this size."""
    return max(_CLEAR, _CHANCE / math.sqrt(height * width))


def _agreement(source: Tensor, target: Tensor, clear: Tensor) -> Tensor | None:
    """Return the similarity that maps most points of `source` to `target`, both (2, N); None if fewer than 4 agree.

    clear: which points count, (N,). A point counts less the further it is off (Geman and McClure 1985), so an object
    that moves on its own does not distort the result. With a limit instead, the result would jump when a point crosses
    it.
    """
    if int(clear.sum()) < 4:
        return None
    fit = IDENTITY
    for _ in range(10):
        error = (apply(fit, source) - target).norm(dim=0)
        fit = _similarity(source, target, clear / (1 + (error / _NEAR).square()).square())
    error = (apply(fit, source) - target).norm(dim=0)
    return fit if int((clear & (error < _OUTLIER)).sum()) >= 4 else None


def _similarity(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the similarity that maps `source` to `target`, both (2, N), by least squares, weighted by `weights`."""
    middles = [(points * weights).sum(1, keepdim=True) / weights.sum() for points in (source, target)]
    a, b = (torch.complex(*(points - middle)) for points, middle in zip((source, target), middles, strict=True))
    turn = (weights * a.conj() * b).sum() / (weights * a.conj() * a).sum()
    linear = torch.stack([torch.stack([turn.real, -turn.imag]), torch.stack([turn.imag, turn.real])])
    return torch.cat([linear, middles[1] - linear @ middles[0]], 1)


def shifts(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shifts from `first` to `second`, both (N, H, W): pixels right and down, (2, N), and peaks, (N,).

    A peak is the height of the phase correlation (Kuglin and Hines 1975), from 0 to 1. The correlation is smoothed to a
    Gaussian peak. A parabola through the logarithms of the peak and its neighbors gives the fraction of a pixel.
    """
    rows, columns = (torch.hann_window(side, periodic=False) for side in first.shape[1:])
    window = rows[:, None] * columns
    spectra = [torch.fft.rfft2((images - images.mean((1, 2), keepdim=True)) * window) for images in (first, second)]
    product = spectra[0].conj() * spectra[1]
    down, right = (torch.fft.fftfreq(side)[:, None] for side in first.shape[1:])
    fine = torch.exp(-2 * (math.pi * _SOFT) ** 2 * (down.square() + right[: product.shape[2]].square().T))
    surface = torch.fft.irfft2(fine * product / product.abs().clamp_min(1e-12), s=first.shape[1:]).double()
    surface /= torch.fft.irfft2(fine.to(product), s=first.shape[1:]).max()
    count, height, width = surface.shape
    place, item = surface.flatten(1).argmax(1), torch.arange(count)
    y, x = place // width, place % width
    found = []
    for index, side, neighbors in (
        (x, width, [surface[item, y, (x + step) % width] for step in (-1, 0, 1)]),
        (y, height, [surface[item, (y + step) % height, x] for step in (-1, 0, 1)]),
    ):
        before, middle, after = (value.clamp_min(1e-3).log() for value in neighbors)
        part = (before - after) / (2 * (before - 2 * middle + after)).clamp_max(-1e-3)
        found.append(torch.where(index > side // 2, index - side, index) + part)
    return torch.stack(found), surface[item, y, x]
