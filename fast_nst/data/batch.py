"""Define the batch that a data source passes to a method."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """A dictionary of tensors.

    content: (B, 3, H, W) in [0, 1], the network's input. style: (B, S) weights over S styles; absent if S is 1.
    """

    content: Tensor
    style: Tensor
