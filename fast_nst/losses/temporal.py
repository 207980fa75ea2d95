"""The temporal loss: a picture and a moved, noisy copy of it must give the same output, apart from the motion.

It needs no videos. Source: ReReVST (Wang, Yang, Xu, Liu 2020, IEEE TIP, "Consistent Video Style Transfer via Relaxation
and Regularization"), `TemporalLoss` in train/loss_networks.py. Legend: B batch, H height, W width. Motion is in pixels,
(1, 2, H, W): to the right, then down; pixel p of the second frame shows pixel p - motion(p) of the first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_BEND = 8.0  # standard deviation of the motion at the points of the grid, in pixels
_GRID = _BLUR = 100  # distance between the points, and side of the box that blurs the motion, in pixels
_SHIFT = 10  # largest motion of the whole picture along an axis, in pixels
_NOISE = 0.001  # smallest standard deviation of the noise on images in [0, 1]; the largest is twice as large


def bend(points: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Return the motion (1, 2, height, width): `points` resized, plus `shift`, blurred by a box.

    points: (1, 2, h, w), motion on a coarse grid. shift: (2,), motion of the whole picture.
    """
    motion = F.interpolate(points, (height, width), mode="bilinear") + shift[:, None, None]
    rows, columns = min(_BLUR, height), min(_BLUR, width)
    pad = columns // 2, (columns - 1) // 2, rows // 2, (rows - 1) // 2
    motion = F.pad(motion, pad, mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(motion, (rows, 1), stride=1), (1, columns), stride=1)


def warp(image: Tensor, motion: Tensor) -> Tensor:
    """Move `image`, (B, C, H, W), by `motion`. Sample the nearest pixel; outside the image, the nearest border pixel.

    ReReVST's code scales coordinates as if corners were pixel centers, but samples as if they were pixel edges, which
    is half a pixel off at the border. Here corners are pixel centers in both steps.
    """
    height, width = image.shape[2:]
    y, x = (torch.arange(side, device=image.device, dtype=torch.float32) for side in (height, width))
    right, down = motion[0]
    grid = torch.stack([2 * (x - right) / max(width - 1, 1) - 1, 2 * (y[:, None] - down) / max(height - 1, 1) - 1], -1)
    grid = grid.expand(len(image), -1, -1, -1).to(image.dtype)
    return F.grid_sample(image, grid, mode="nearest", padding_mode="border", align_corners=True)


def temporal_loss(first: Tensor, second: Tensor, motion: Tensor) -> Tensor:
    """Return the mean absolute difference of the moved first output and the second, a float32 scalar.

    first, second: (B, 3, H, W).
    """
    return (warp(first.float(), motion) - second.float()).abs().mean()


def random_motion(height: int, width: int) -> Tensor:
    """Draw a motion, (1, 2, height, width), on the CPU."""
    points = _BEND * torch.randn(1, 2, max(1, height // _GRID), max(1, width // _GRID))
    return bend(points, torch.randint(-_SHIFT, _SHIFT + 1, (2,)), height, width)


def second_frame(content: Tensor, motion: Tensor) -> Tensor:
    """Return `content`, (B, 3, H, W), moved by `motion`, with Gaussian noise, which is drawn on the CPU."""
    deviation = _NOISE * (1 + torch.rand(()))
    noise = deviation * torch.randn(content.shape)
    return warp(content, motion) + noise.to(content)
