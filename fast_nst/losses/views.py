"""Ways to look at an image that a loss network tells apart and a style does not.

Mirrored or transposed, an image is another one to a loss network. Compared with the painting seen in the same way it
has the same style, but what one view of a distilled loss network does not see, another does: a training that looks
through all of them, and through every member of an ensemble, cannot settle in one's blind spots.
"""

from torch import Tensor

VIEWS = 8


def look(image: Tensor, view: int) -> Tensor:
    """(B, 3, H, W) through the `view`-th of 8, a sum of: mirrored across 1, down 2, transposed 4. 0: as it is."""
    if flips := [dim for bit, dim in ((1, 3), (2, 2)) if view & bit]:
        image = image.flip(flips)
    return image.transpose(2, 3) if view & 4 else image
