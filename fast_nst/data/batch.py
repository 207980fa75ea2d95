"""Define the batch that a data source passes to a method."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """A dictionary of tensors.

    content: (B, 3, H, W) in [0, 1], the network's input; in adversarial training, real images. style: (B, S) weights
    over S styles; absent if S is 1. target: (B, 3, r H, r W), what a network of scale r should make of the content.
    moved, motion: `losses.temporal.second_frame` of the content, and (1, 2, H, W); present in training for video.
    """

    content: Tensor
    style: Tensor
    target: Tensor
    moved: Tensor
    motion: Tensor
