"""Random shifts of what the loss of a training step sees."""

import torch
from torch import Tensor


def jitter(output: Tensor, content: Tensor, pixels: int, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both (B, 3, H, W) without `pixels` rows and columns; `offset`, (2,), of them at the top and left, by default a
    random number up to pixels - 1.

    A network's upsampling has a lattice of its own; always in phase with the strides of the loss network, it becomes
    part of the picture.
    """
    if not pixels:
        return output, content
    height, width = (side - pixels for side in output.shape[2:])
    if offset is not None:  # on a GPU, without waiting for its value
        for dim, length in ((2, height), (3, width)):
            kept = torch.arange(length, device=offset.device) + offset[dim - 2]
            output, content = output.index_select(dim, kept), content.index_select(dim, kept)
        return output, content
    top, left = torch.randint(pixels, (2,)).tolist()
    rows, columns = slice(top, top + height), slice(left, left + width)
    return output[:, :, rows, columns], content[:, :, rows, columns]
