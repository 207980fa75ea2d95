"""What a data source gives a method: a dictionary of tensors."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """content: (B, 3, H, W) in [0, 1], what the network is given. style: (B, S) weights over the S styles; absent with
    one style."""

    content: Tensor
    style: Tensor
