"""Define the batch that a data source passes to a method."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """A dictionary of tensors.

    content: (B, 3, H, W) in [0, 1], the network's input; in adversarial training, real images. style: (B, S), weights
    over S styles; absent if the network takes no style. target: (B, 3, r H, r W), the desired output of a network of
    scale r. moved, motion: the second frame, (B, 3, H, W), and its motion, (1, 2, H, W), from `losses.temporal`;
    present in training for video.
    """

    content: Tensor
    style: Tensor
    target: Tensor
    moved: Tensor
    motion: Tensor
