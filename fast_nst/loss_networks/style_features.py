"""Describe the style of an image by statistics of a loss network."""

import torch
from torch import Tensor

from fast_nst import loss_networks

LAYERS = ("relu1_2", "relu2_2", "relu3_3")
LENGTH = 2 * (64 + 128 + 256)


class StyleExtractor:
    """Images (B, 3, H, W) in [0, 1] -> (B, LENGTH): log(1 + x) of each channel's mean and standard deviation, float32.

    Huang and Belongie 2017 (arXiv 1703.06868) describe a style by these statistics. The logarithm brings the statistics
    of all layers to one order of magnitude. The loss network is `compact`. The extractor is not a Module, so that it is
    not saved in checkpoints.
    """

    def __init__(self) -> None:
        self.loss_network = loss_networks.build("compact", LAYERS)

    def __call__(self, image: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for features in self.loss_network(image).values():
            variance, mean = torch.var_mean(features.float(), (2, 3), correction=0)
            parts += [mean, (variance + 1e-6).sqrt()]
        return torch.cat(parts, 1).clamp_min(0).log1p()  # compact's relu1_2 is an estimate, sometimes below 0
