"""Random shifts of a training step's output and content."""

import torch
from torch import Tensor


def jitter(output: Tensor, content: Tensor, pixels: int, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Crop `pixels` rows and columns from both images, (B, 3, H, W), `offset`, (2,), of them at the top and left.

    offset: integers below `pixels`; None: random. Without jitter the upsampling lattice of a network stays in phase
    with the strides of the loss network and becomes visible.
    """
    if not pixels:
        return output, content
    height, width = (side - pixels for side in output.shape[2:])
    if offset is not None:  # on a GPU, this does not wait for its value
        for dim, length in ((2, height), (3, width)):
            indices = torch.arange(length, device=offset.device) + offset[dim - 2]
            output, content = output.index_select(dim, indices), content.index_select(dim, indices)
        return output, content
    top, left = torch.randint(pixels, (2,)).tolist()
    rows, columns = slice(top, top + height), slice(left, left + width)
    return output[:, :, rows, columns], content[:, :, rows, columns]
